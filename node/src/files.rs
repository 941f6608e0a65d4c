//! Small files that are there as a whole or not at all, whenever the power goes.
//!
//! What is written goes to a neighbour first and gets its name when it is on disk; then the folder
//! is flushed, so that the name is on disk, too. A neighbour that a power cut left behind is
//! rubbish, and in nobody's way.
//!
//! What is read has to be a regular file: opening a pipe waits for a writer, and reading a device
//! may never end. What root writes into somebody's folder belongs to that user, or the node of that
//! user could not read it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

/// Permissions of a file that its owner alone may read and change.
pub const OWNER_ONLY: u32 = 0o600;

/// Permissions of a folder that its owner alone may enter.
const OWNER_ENTERS: u32 = 0o700;

/// Writes a file in the place of the one that is there, if one is.
///
/// # Errors
/// Returns why it cannot be written; then the earlier one is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let neighbour = write_neighbour(path, bytes, mode, Some(owner_at(path)?))?;
    fs::rename(&neighbour, path)?;
    sync_folder(path)
}

/// Gives a file the name of another one, which it replaces.
///
/// # Errors
/// Returns why it cannot: [`io::ErrorKind::NotFound`] if it is not there.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Writes a file that is not there yet, for the owner of the folder only.
///
/// # Errors
/// Returns why it cannot be written: [`io::ErrorKind::AlreadyExists`] if it is there.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_for(path, bytes, Some(owner_at(path)?))
}

/// Writes a file that is not there yet, for the user of this process only, wherever it is.
///
/// # Errors
/// Returns why it cannot be written: [`io::ErrorKind::AlreadyExists`] if it is there.
pub(crate) fn create_own(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_for(path, bytes, None)
}

fn create_for(path: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let neighbour = write_neighbour(path, bytes, OWNER_ONLY, owner)?;
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
    let (file, found) = open_regular(path)?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!(
            "{} has permissions {mode:o}, and only its owner may read it: `chmod 600` it",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    read_opened(file, bytes_max).map(zeroize::Zeroizing::new)
}

/// Opens a file for reading. A folder, a pipe, a socket or a device in its place is refused at once.
///
/// # Errors
/// Returns why it cannot be opened, or that it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    open_as(OpenOptions::new().read(true), path)
}

/// Opens a file with these options, and refuses whatever is no regular file.
///
/// # Errors
/// Returns why it cannot be opened, or that it is no regular file.
pub(crate) fn open_as(options: &mut OpenOptions, path: &Path) -> io::Result<(File, Metadata)> {
    // Without the flag, opening a pipe waits until somebody opens its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let file = match options.custom_flags(flags).open(path) {
        // A socket, or a pipe that nobody reads.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(irregular());
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if found.is_file() {
        Ok((file, found))
    } else {
        Err(irregular())
    }
}

/// Returns the text of a regular file that has at most this many bytes.
///
/// # Errors
/// Returns why it cannot be read, or that it is too long.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    read_opened(open_regular(path)?.0, bytes_max)
}

/// Returns the text of an open file that has at most this many bytes.
///
/// # Errors
/// Returns why it cannot be read, or that it is too long.
pub(crate) fn read_opened(file: File, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(text)
}

/// Makes a folder that its owner alone may enter, and those above it. Each belongs to the owner of
/// the folder that it is in.
///
/// # Errors
/// Returns why it cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    make_folder(path, Some(OWNER_ENTERS))
}

fn make_folder(path: &Path, mode: Option<u32>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_folder(folder_of(path), None)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if let Some(mode) = mode {
        folder.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    give_to(&folder, owner_at(path)?)
}

/// A user and a group.
type Owner = (u32, u32);

/// Returns to whom a file at this path has to belong: as before, unless root made it that way, and
/// else like the folder that it is in.
fn owner_at(path: &Path) -> io::Result<Owner> {
    if let Ok(found) = fs::metadata(path)
        && found.uid() != 0
        && !found.is_dir()
    {
        return Ok((found.uid(), found.gid()));
    }
    let folder = fs::metadata(folder_of(path))?;
    Ok((folder.uid(), folder.gid()))
}

/// Gives what is open to its owner, and not what may have got its name meanwhile. Only root can;
/// what others write is theirs anyway.
fn give_to(file: &File, owner: Owner) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) == owner {
        return Ok(());
    }
    match std::os::unix::fs::fchown(file, Some(owner.0), Some(owner.1)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Gives a file that is open to the owner of the folder that it is in.
pub(crate) fn give_to_owner_at(file: &File, path: &Path) -> io::Result<()> {
    give_to(file, owner_at(path)?)
}

/// Returns the folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// How the name of a file begins to end that is not in its place yet.
const NEW: &str = "new-";

/// Removes what was not in its place yet when the power went: a key that was being written must not
/// stay behind. Returns how many files that were.
///
/// # Errors
/// Returns why the folder cannot be read, or a file not be removed.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let end = path.extension().and_then(|end| end.to_str());
        let chance = end.and_then(|end| end.strip_prefix(NEW));
        let is_ours = chance.is_some_and(|chance| hex::decode(chance).is_ok_and(|b| b.len() == 8));
        if is_ours && entry.file_type()?.is_file() {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn write_neighbour(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> io::Result<PathBuf> {
    let chance = hex::encode(crate::rng::random::<8>());
    let neighbour = path.with_extension(format!("{NEW}{chance}"));
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(OWNER_ONLY)
        .open(&neighbour)?;
    // Set and not only asked for: what the process masks would be missing.
    let written = owner
        .map_or(Ok(()), |owner| give_to(&file, owner))
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // A disk that is full must not fill up with attempts.
        drop(fs::remove_file(&neighbour));
    }
    written.map(|()| neighbour)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
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
    fn what_was_cut_off_while_it_was_written_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        write_neighbour(&folder.path().join("mesh.key"), b"secret", OWNER_ONLY, None)
            .expect("made");
        for name in [
            "mesh.key",
            "mine.new-",
            "mine.new-notes",
            "mine.new-00112233",
        ] {
            fs::write(folder.path().join(name), "kept").expect("written");
        }
        fs::create_dir(folder.path().join("a.new-0011223344556677")).expect("made");

        assert_eq!(remove_unfinished(folder.path()).expect("removed"), 1);

        let mut left = names(folder.path());
        left.sort_unstable();
        let kept = [
            "a.new-0011223344556677",
            "mesh.key",
            "mine.new-",
            "mine.new-00112233",
            "mine.new-notes",
        ];
        assert_eq!(left, kept);
    }

    #[test]
    fn a_text_beyond_its_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text");
        fs::write(&path, "12345").expect("written");

        assert_eq!(read_bounded(&path, 5).expect("fits"), "12345");
        assert!(read_bounded(&path, 4).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_waited_for_by_nobody() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
        let socket = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
        let zero = Path::new("/dev/zero");

        for path in [pipe.as_path(), &socket, folder.path(), zero] {
            let refused = open_regular(path).expect_err("no regular file");
            assert_eq!(refused.to_string(), "it is not a regular file", "{path:?}");
            let read = read_bounded(path, 10).expect_err("no regular file");
            assert_eq!(read.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
        let written = open_as(OpenOptions::new().write(true), &pipe);
        assert!(written.is_err());
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
