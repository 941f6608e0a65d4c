//! Reading the letters of Syft users, beside the writer.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, params};

use super::{
    error::{Flaw, StoreError},
    schema::number,
};
use crate::proto::syft::UserId;

/// Most letters that are read at once.
const LETTERS_MAX: usize = 64;

/// Bytes after which no further letter is read along.
const BYTES_MAX: usize = 512 * 1024;

/// The next letters of a user, in their order.
#[derive(derive_more::Debug)]
pub struct Batch {
    /// Their rows and frames.
    #[debug("{} letters", letters.len())]
    pub letters: Vec<(u64, String)>,
    /// Whether there may be more on disk behind them.
    pub is_cut: bool,
}

/// The letters that are on disk, for reading.
#[derive(Debug)]
pub struct Letters {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Letters {
    pub(super) const fn new(connection: Connection, path: PathBuf) -> Self {
        Self {
            connection: Mutex::new(connection),
            path,
        }
    }

    /// Returns the next letters of a user behind a row: those for him, and the broadcasts of others.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn read(&self, user: &UserId, after: u64) -> Result<Batch, StoreError> {
        self.try_read(user, after)
            .map_err(|flaw| flaw.at(&self.path))
    }

    fn try_read(&self, user: &UserId, after: u64) -> Result<Batch, Flaw> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Two walks along the index, one for each kind, and the first rows of both.
        let mut statement = connection.prepare_cached(
            "SELECT * FROM (SELECT row, frame FROM letters WHERE user = ?1 AND row > ?2 \
             ORDER BY row LIMIT ?3) UNION ALL \
             SELECT * FROM (SELECT row, frame FROM letters \
             WHERE user = '' AND row > ?2 AND sender <> ?1 ORDER BY row LIMIT ?3) \
             ORDER BY row LIMIT ?3",
        )?;
        const LIMIT: i64 = LETTERS_MAX as i64;
        let mut rows = statement.query(params![user.as_str(), after.cast_signed(), LIMIT])?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while bytes < BYTES_MAX
            && let Some(row) = rows.next()?
        {
            let frame: String = row.get(1)?;
            bytes += frame.len();
            letters.push((number(row, 0)?, frame));
        }
        let is_cut = bytes >= BYTES_MAX || letters.len() >= LETTERS_MAX;
        Ok(Batch { letters, is_cut })
    }
}
