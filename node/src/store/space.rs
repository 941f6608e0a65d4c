//! How much room a disk has.

use std::{io, path::Path};

/// The room on a disk, for this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What can still be written, in bytes.
    pub free_bytes: u64,
    /// The size of the file system, in bytes.
    pub size_bytes: u64,
}

impl Space {
    /// Measures the file system that a file or folder is on.
    ///
    /// # Errors
    /// Returns why it cannot be measured.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}
