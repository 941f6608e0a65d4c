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
    /// Returns why it cannot be measured: [`io::ErrorKind::Unsupported`] if it does not say how
    /// large it is.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Self::known(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    /// A file system in memory, or one that a program makes, may say that it has no blocks at all.
    fn known(self) -> io::Result<Self> {
        if self.size_bytes == 0 {
            let text = "the file system does not say how large it is";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_blocks_says_nothing_and_a_full_one_does() {
        let space = |free_bytes, size_bytes| Space {
            free_bytes,
            size_bytes,
        };

        let unknown = space(0, 0).known().expect_err("not known");
        assert_eq!(unknown.kind(), io::ErrorKind::Unsupported);
        let full = space(0, 1 << 20);
        assert_eq!(full.known().expect("known"), full);
    }
}
