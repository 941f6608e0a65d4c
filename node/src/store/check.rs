//! Whether a store is whole: every page of the file is read, which takes a while.

use std::{fs, io, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{
    error::{Flaw, StoreError},
    migrate,
};

/// Most faults that are looked for: one is enough to know, and a few say where.
const FAULTS_MAX: u32 = 3;

/// Reads all of a store and says whether it is whole. It may be in use meanwhile; nothing is
/// written to it. Blocks for the disk.
///
/// # Errors
/// Returns what is wrong with it.
pub fn check(path: &Path) -> Result<(), StoreError> {
    // Opening a pipe would wait for its other end. Opening the file here as well
    // would end the locks that this process has on it.
    let found = fs::metadata(path).and_then(|found| {
        if found.is_file() {
            return Ok(());
        }
        let text = "it is not a regular file";
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    });
    found.map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let faults = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut check = connection.prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})"))?;
        let lines = check.query_map([], |row| row.get::<_, String>(0))?;
        let lines = lines.collect::<rusqlite::Result<Vec<String>>>()?;
        drop(check);
        Ok((lines, connection))
    };
    let (lines, connection) = faults().map_err(|e: rusqlite::Error| Flaw::from(e).at(path))?;
    if lines != ["ok"] {
        return Err(Flaw::Illegal(lines.join("; ")).at(path));
    }
    migrate::inspect(&connection, path).map(drop)
}
