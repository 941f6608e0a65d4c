//! Small files that are there as a whole or not at all, whenever the power goes.
//!
//! What is written goes to a neighbour first and gets its name when it is on disk; then the folder
//! is flushed, so that the name is on disk, too. A neighbour that a power cut left behind is
//! rubbish, and in nobody's way.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Permissions of a file that its owner alone may read and change.
pub const OWNER_ONLY: u32 = 0o600;

/// Writes a file in the place of the one that is there, if one is.
///
/// # Errors
/// Returns why it cannot be written; then the earlier one is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let neighbour = write_neighbour(path, bytes, mode)?;
    fs::rename(&neighbour, path)?;
    sync_folder(path)
}

/// Writes a file that is not there yet, for its owner only.
///
/// # Errors
/// Returns why it cannot be written: [`io::ErrorKind::AlreadyExists`] if it is there.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let neighbour = write_neighbour(path, bytes, OWNER_ONLY)?;
    // A hard link, unlike a rename, fails if the name is taken.
    let linked = fs::hard_link(&neighbour, path);
    let removed = fs::remove_file(&neighbour);
    linked?;
    removed?;
    sync_folder(path)
}

/// Reads a file with a secret, or writes it with this one. If two do that at once, both get the one
/// that was first.
///
/// # Errors
/// Returns why it can be neither read nor written, or that others can read it.
#[cfg(feature = "net")]
pub(crate) fn read_or_create(
    path: &Path,
    bytes_max: u64,
    make: impl FnOnce() -> zeroize::Zeroizing<String>,
) -> io::Result<zeroize::Zeroizing<String>> {
    if !path.exists() {
        match create(path, make().as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!(
            "{} has permissions {mode:o}, and only its owner may read it: `chmod 600` it",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    read_bounded(path, bytes_max).map(zeroize::Zeroizing::new)
}

/// Returns the text of a file that has at most this many bytes.
///
/// # Errors
/// Returns why it cannot be read, or that it is too long.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(text)
}

fn write_neighbour(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let chance = hex::encode(crate::identity::random::<8>());
    let neighbour = path.with_extension(format!("new-{chance}"));
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(OWNER_ONLY)
        .open(&neighbour)?;
    // Set and not only asked for: what the process masks would be missing.
    let written = file
        .set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // A disk that is full must not fill up with attempts.
        drop(fs::remove_file(&neighbour));
    }
    written.map(|()| neighbour)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries
            .map(|e| name(e).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_file_is_made_once_and_replaced_as_a_whole_and_nothing_else_stays_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");

        create(&path, b"one").expect("written");
        let again = create(&path, b"two").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("there"), b"one");
        replace(&path, b"three", 0o640).expect("written");

        assert_eq!(fs::read(&path).expect("there"), b"three");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(names(folder.path()), ["secret"]);
    }

    #[test]
    fn a_text_beyond_its_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        fs::write(&path, "12345").expect("written");

        assert_eq!(read_bounded(&path, 5).expect("fits"), "12345");
        assert!(read_bounded(&path, 4).is_err());
    }

    #[cfg(feature = "net")]
    #[test]
    fn a_secret_is_made_once_and_refused_when_others_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let make = |text: &str| {
            let text = text.to_owned();
            move || zeroize::Zeroizing::new(text)
        };

        assert_eq!(
            *read_or_create(&path, 10, make("one")).expect("made"),
            "one"
        );
        assert_eq!(
            *read_or_create(&path, 10, make("two")).expect("read"),
            "one"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let open = read_or_create(&path, 10, make("two")).expect_err("readable by others");
        assert_eq!(open.kind(), io::ErrorKind::PermissionDenied);
    }
}
