//! Why a store cannot be used, and what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::space::Space;

/// Free space below which a failed write is told as a full disk, in bytes: SQLite's shared index
/// needs 32 KiB, and file systems stop somewhat before they have none left.
const FULL_BYTES: u64 = 256 * 1024;

/// Why a store cannot be used.
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
    /// There was something in it once.
    #[error("{0} is empty, and this folder holds a node that wrote to it")]
    Emptied(PathBuf),
    /// A newer program wrote it.
    #[error("{path} was written by a newer pimesh (format {found}, this one knows up to {known})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format this program knows.
        known: usize,
    },
    /// The file is of another program.
    #[error("{0} is a database of another program, and was left as it is")]
    Foreign(PathBuf),
    /// Something stored is not legal.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing can be written.
    #[error("the disk is full: {free_kib} KiB are left for {path}")]
    Full {
        /// The file.
        path: PathBuf,
        /// What is left, in KiB.
        free_kib: u64,
    },
    /// The database failed.
    #[error("{path} cannot be used")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Newer { path, known, .. } => Some(format!(
                "update pimesh on this machine; or put back the copy that was made before the \
                 update (`{}.format-{known}`), without what came since",
                path.display()
            )),
            Self::Foreign(_) => {
                Some("move it away, or name another folder with `--home`".to_owned())
            }
            Self::Damaged { path, .. } => Some(format!(
                "put back a backup of the home folder; without one, `sqlite3 {} .recover` prints \
                 what can still be read of it",
                path.display()
            )),
            Self::Full { .. } => Some(
                "free some space on that disk and start again; nothing that was stored is lost"
                    .to_owned(),
            ),
            Self::Open { .. } | Self::Locked(_) | Self::Emptied(_) | Self::Database { .. } => None,
        }
    }
}

/// What is wrong with something that was read or written, before the file is named.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It is stored, and not legal.
    Illegal(String),
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl Flaw {
    /// Names the file, and says in words what the database says in codes.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let free = Space::of(path).map(|space| space.free_bytes).ok();
        self.named(path, free)
    }

    fn named(self, path: &Path, free: Option<u64>) -> StoreError {
        let path = path.to_owned();
        let error = match self {
            Self::Illegal(what) => return StoreError::Damaged { path, what },
            Self::Database(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
                path,
                what: what(&error),
            },
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
                let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
                match free {
                    Some(free) if is_full || free < FULL_BYTES => StoreError::Full {
                        path,
                        free_kib: free / 1024,
                    },
                    _ => StoreError::Database {
                        path,
                        source: error,
                    },
                }
            }
            _ => StoreError::Database {
                path,
                source: error,
            },
        }
    }

    /// Returns the same as one line of text.
    pub(super) fn text(self, path: &Path) -> String {
        let error = self.at(path);
        match &error {
            StoreError::Database { path, source } => {
                format!("{} cannot be used: {}", path.display(), what(source))
            }
            _ => error.to_string(),
        }
    }
}

/// Returns what SQLite says, without the name of its own type in front.
fn what(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, None) => code.to_string(),
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failed(code: i32, free: u64) -> StoreError {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        Flaw::from(error).named(Path::new("/home/pi/pimesh.db"), Some(free))
    }

    #[test]
    fn a_full_disk_is_said_in_words_whatever_the_database_calls_it() {
        // SQLITE_FULL, and what it says when the shared index cannot grow: 4874.
        for (code, free) in [
            (ffi::SQLITE_FULL, 9_999_999),
            (ffi::SQLITE_IOERR_SHMSIZE, 4096),
        ] {
            let error = failed(code, free);

            let text = error.to_string();
            assert!(text.starts_with("the disk is full: "), "{text}");
            assert!(
                text.ends_with(" KiB are left for /home/pi/pimesh.db"),
                "{text}"
            );
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("free some space"))
            );
        }
    }

    #[test]
    fn what_is_no_full_disk_is_not_called_one() {
        let error = failed(ffi::SQLITE_IOERR_SHMSIZE, 1 << 30);

        assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    }
}
