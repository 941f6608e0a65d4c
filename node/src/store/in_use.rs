//! Whether the log of a store is missing.
//!
//! SQLite takes a store without its log for whole: it cannot know that there was one. So the store
//! says in itself, and not in its log, that it is in use, for as long as there is a log:
//!
//! ```text
//! opened     a row says so; it is in the log, then copied into the store
//! in use     the log is there, and is never empty
//! closed     the row goes; then SQLite copies the log into the store and removes it
//! ```
//!
//! A store that says that it is in use, beside a log that is missing, empty or none, has lost what
//! was written last: a backup took one file of the two, or somebody removed it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// What a log begins with (SQLite file format, section 4.1): its lowest bit is the byte order of
/// its checksums.
const MAGIC: u32 = 0x377f_0682;

/// The file with what was written last, beside a store.
const LOG_SUFFIX: &str = "-wal";

/// Notes in the store that it is in use. Nothing follows from a failure but that a missing log is
/// not noticed: a disk may be full, and the node starts all the same.
pub(super) fn begin(connection: &Connection) {
    let noted = connection.execute("INSERT OR REPLACE INTO meta VALUES ('in_use', x'01')", []);
    if noted.is_ok() {
        copy_log(connection);
    }
}

/// Copies what is in the log into the store, so that it does not hang on the log alone: a node that
/// has joined a mesh is still in it when its log is lost, and forgotten. It may fail: the log is
/// there.
pub(super) fn copy_log(connection: &Connection) {
    drop(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
}

/// Notes that it is not in use any more, before it is closed.
///
/// A connection keeps the log when it is closed (`schema.rs`) unless this went well: without its log
/// the store would be taken for a part.
pub(super) fn end(connection: &Connection) {
    if clear(connection).is_ok() {
        // Not left to the closing: a reader may close later, and then the log would stay.
        drop(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
    }
}

/// Has a store go on without the log that it lacks.
pub(super) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE key = 'in_use'", [])?;
    Ok(())
}

/// Says whether a store was in use when it was left, and lacks its log. A file that is no store is
/// said to lack nothing: opening it tells what it is.
pub fn lacks_log(path: &Path) -> bool {
    !has_log(path) && is_in_use(path).unwrap_or(false)
}

fn has_log(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(LOG_SUFFIX);
    let path = Path::new(&name);
    // A pipe would be waited for. What is no file is told when the store is opened.
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return true;
    }
    let mut magic = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) => u32::from_be_bytes(magic) & !1 == MAGIC,
        // One that cannot be read for another reason is there: opening the store says why.
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
        ),
    }
}

/// Reads what the store says without its log.
fn is_in_use(path: &Path) -> Option<bool> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut uri = "file:".to_owned();
    for byte in path.to_str()?.bytes() {
        match byte {
            b'?' | b'#' | b'%' => uri.push_str(&format!("%{byte:02x}")),
            _ => uri.push(char::from(byte)),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri + "?immutable=1", flags).ok()?;
    let sql = "SELECT count(*) FROM meta WHERE key = 'in_use'";
    let rows = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    Some(rows.ok()? > 0)
}
