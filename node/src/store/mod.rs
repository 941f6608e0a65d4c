//! What survives a power cut: one SQLite file, written by one thread.
//!
//! The loop hands over tickets with records and is told in order when each is on disk. The thread
//! writes whatever waits at the moment as one transaction with one flush, so an idle node commits
//! a lone record at once and a busy one commits many together. It never waits to gather more.
//!
//! WAL with `synchronous=FULL`: a commit appends to the log and flushes it before it returns; a
//! torn tail of the log is cut off when the file is opened again. Bodies of messages are stored
//! as plain text: the disk is the owner's, and so is its encryption.

mod history;
mod letters;
mod schema;
mod writer;

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

pub use self::{
    history::{Direction, History, Query, Row},
    letters::{Batch, Letters},
};
use crate::state::io::{Loaded, Record, Ticket};

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
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be used.
    #[error("could not open {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("another pimesh runs on {0}")]
    Locked(PathBuf),
    /// A newer program wrote it.
    #[error("the store was written by a newer pimesh (format {found}, this one knows {known})")]
    Newer {
        /// The format found.
        found: i64,
        /// The newest format this program knows.
        known: i64,
    },
    /// The file is of another program.
    #[error("{0} is not a pimesh store")]
    Foreign(PathBuf),
    /// Something stored is not legal.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The database failed.
    #[error("the store failed")]
    Database(#[from] rusqlite::Error),
}

/// The one writer of a node's home folder.
#[derive(Debug)]
pub struct Store {
    queue: Option<SyncSender<(Ticket, Vec<Record>)>>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
    _lock: File,
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
        let lock = lock(&home.join("pimesh.lock"))?;
        let path = home.join("pimesh.db");
        create_private(&path)?;
        let connection = schema::open(&path)?;
        let loaded = schema::load(&connection)?;
        let (queue, groups) = sync_channel(QUEUE_GROUPS);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(connection, &groups, &done))
            .map_err(|source| StoreError::Open {
                path: path.clone(),
                source,
            })?;
        Ok((
            Self {
                queue: Some(queue),
                writer: Some(writer),
                path,
                _lock: lock,
            },
            loaded,
        ))
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
        Ok(History::new(schema::open_reader(&self.path)?))
    }

    /// Opens the letters for reading; they may be read from any thread.
    ///
    /// # Errors
    /// Returns why they cannot be read.
    pub fn letters(&self) -> Result<Letters, StoreError> {
        Ok(Letters::new(schema::open_reader(&self.path)?))
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

/// Takes the lock of the home folder, for as long as the process lives.
fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Locked(path.parent().unwrap_or(path).to_owned()))
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Creates the file readable by its owner only, before SQLite creates it otherwise.
fn create_private(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests;
