//! What survives a power cut: one SQLite file, written by one thread.
//!
//! The loop hands over tickets with records and is told in order when each is on disk. The thread
//! writes whatever waits at the moment as one transaction with one flush, so an idle node commits
//! a lone record at once and a busy one commits many together. It never waits to gather more.
//!
//! WAL with `synchronous=FULL`: a commit appends to the log and flushes it before it returns; a
//! torn tail of the log is cut off when the file is opened again. Bodies of messages are stored
//! as plain text: the disk is the owner's, and so is its encryption.

mod check;
mod error;
mod history;
mod in_use;
mod letters;
mod migrate;
mod pruning;
mod schema;
mod space;
mod writer;

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use self::error::Flaw;
pub use self::{
    check::check,
    error::StoreError,
    history::{History, Row},
    in_use::lacks_log,
    letters::{Batch, Letters},
    migrate::copies,
    space::Space,
};
use crate::{
    files,
    proto::mesh::certificate::{Certificate, MeshId},
    state::io::{Disk, Loaded, Record, Ticket},
};

/// Its name in the home folder. SQLite adds files of its own beside it: `-wal` with what was written
/// last, and `-shm`, which goes before `-wal` does.
pub const FILE_NAME: &str = "pimesh.db";

/// Most groups of records that wait for the writer. The state bounds what is outstanding: one
/// request of each peer, and the outbox.
const QUEUE_GROUPS: usize = 4096;

/// How a ticket ended.
#[derive(Debug)]
pub enum Completion {
    /// Its records are on disk.
    Stored(Ticket),
    /// They are not, for this reason.
    Failed(Ticket, String),
    /// The room on the disk was measured: every few seconds, and after each failure.
    Measured(Disk),
}

/// The one writer of a node's home folder.
#[derive(Debug)]
pub struct Store {
    queue: Option<SyncSender<(Ticket, Vec<Record>)>>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
    copy: Option<Result<PathBuf, String>>,
    _lock: HomeLock,
}

impl Store {
    /// Opens or creates the store in a home folder, and reads what the state starts from.
    ///
    /// `done` is called by the writer's thread, once for each ticket and in their order.
    ///
    /// # Errors
    /// Returns why the store cannot be used; another process using it is one reason.
    pub fn open(
        home: &Path,
        done: impl Fn(Completion) + Send + 'static,
    ) -> Result<(Self, Loaded), StoreError> {
        Self::open_as(home, schema::Past::Any, done)
    }

    /// Opens the store of a node that has written to it.
    ///
    /// # Errors
    /// Returns why the store cannot be used; that nothing is in it is one reason.
    pub fn reopen(
        home: &Path,
        done: impl Fn(Completion) + Send + 'static,
    ) -> Result<(Self, Loaded), StoreError> {
        Self::open_as(home, schema::Past::Written, done)
    }

    fn open_as(
        home: &Path,
        past: schema::Past,
        done: impl Fn(Completion) + Send + 'static,
    ) -> Result<(Self, Loaded), StoreError> {
        let lock = HomeLock::take(home)?;
        let path = home.join(FILE_NAME);
        create_private(&path)?;
        let (connection, copy) = schema::open(&path, past)?;
        let loaded = schema::load(&connection).map_err(|flaw: Flaw| flaw.at(&path))?;
        in_use::begin(&connection);
        let (queue, groups) = sync_channel(QUEUE_GROUPS);
        let file = path.clone();
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(connection, &file, &groups, &done))
            .map_err(|source| StoreError::Open {
                path: path.clone(),
                source,
            })?;
        Ok((
            Self {
                queue: Some(queue),
                writer: Some(writer),
                path,
                copy,
                _lock: lock,
            },
            loaded,
        ))
    }

    /// Returns where the copy is that was made before the store was brought to the newest format, or
    /// why there is none; `None` if it had that format.
    #[must_use]
    pub const fn copy(&self) -> Option<&Result<PathBuf, String>> {
        self.copy.as_ref()
    }

    /// Hands over records; the ticket's completion follows.
    ///
    /// # Errors
    /// Returns the reason if they cannot even wait; then no completion follows.
    pub fn write(&self, ticket: Ticket, records: Vec<Record>) -> Result<(), String> {
        let queue = self.queue.as_ref().ok_or("the store is closed")?;
        queue
            .try_send((ticket, records))
            .map_err(|error| match error {
                TrySendError::Full(_) => "the disk does not keep up".to_owned(),
                TrySendError::Disconnected(_) => "the store's thread has ended".to_owned(),
            })
    }

    /// Opens the history for reading; it may be read from any thread.
    ///
    /// # Errors
    /// Returns why it cannot be read.
    pub fn history(&self) -> Result<History, StoreError> {
        Ok(History::new(
            schema::open_reader(&self.path)?,
            self.path.clone(),
        ))
    }

    /// Opens the letters for reading; they may be read from any thread.
    ///
    /// # Errors
    /// Returns why they cannot be read.
    pub fn letters(&self) -> Result<Letters, StoreError> {
        Ok(Letters::new(
            schema::open_reader(&self.path)?,
            self.path.clone(),
        ))
    }

    /// Writes what still waits, and ends the thread.
    pub fn close(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to write.
            drop(writer.join());
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// The lock of a home folder, held as long as this lives.
#[derive(Debug)]
pub struct HomeLock(#[expect(dead_code, reason = "closing the file ends the lock")] File);

impl HomeLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// Returns why it cannot be had; a node that runs there is one reason.
    pub fn take(home: &Path) -> Result<Self, StoreError> {
        let path = home.join("pimesh.lock");
        let file = create_private(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(home.to_owned())),
            Err(TryLockError::Error(source)) => Err(StoreError::Open { path, source }),
        }
    }
}

/// Returns the mesh of the node in a home folder, which may run; `None` before its first start.
///
/// # Errors
/// Returns why the store cannot be read.
pub fn mesh_of(home: &Path) -> Result<Option<MeshId>, StoreError> {
    let path = home.join(FILE_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let read = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(&path, flags)?;
        schema::load_certificate(&connection)
    };
    let certificate = read().map_err(|flaw: Flaw| flaw.at(&path))?;
    Ok(certificate.and_then(|bytes| Certificate::mesh_of(&bytes).ok()))
}

/// Has the store of a home folder go on without the log that it lacks. What was written last is lost.
///
/// # Errors
/// Returns why the store cannot be used.
pub fn forget_log(home: &Path) -> Result<(), StoreError> {
    let path = home.join(FILE_NAME);
    let failed = |error: rusqlite::Error| Flaw::from(error).at(&path);
    let connection = rusqlite::Connection::open(&path).map_err(failed)?;
    in_use::clear(&connection).map_err(failed)
}

/// Opens a file, and creates it readable by the owner of the folder only: before SQLite creates it
/// otherwise. SQLite's own files get the owner of this one.
fn create_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let opened = files::open_as(&mut options, path).and_then(|(file, _)| {
        files::give_to_owner_at(&file, path)?;
        Ok(file)
    });
    opened.map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
