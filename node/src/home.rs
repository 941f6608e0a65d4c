//! What belongs to the home folder of a node, what of it is missing, and how to go on without it.
//!
//! A folder with nothing in it is a first start. A folder that held a node and lacks a part is not:
//! new keys would make it another node, and a new store would forget its mesh and its messages.
//! What tells that a node was here is `keys.txt` (`identity/made.rs`), any key file but `mesh.key`
//! (which may be imported before the first start), and SQLite's log.
//!
//! Not noticed: a folder that is empty as a whole, such as the place of a disk that is not mounted
//! (`pimesh run --existing` refuses that), and a store from a backup, which is as good as it is old.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files,
    identity::{self, KeyFileError, Kind},
    store::{self, HomeLock, Store, StoreError},
};

/// SQLite's files beside the store: the log, and its index.
pub(crate) const LOG: &str = "pimesh.db-wal";
const LOG_INDEX: &str = "pimesh.db-shm";

/// Most folders into which earlier nodes of one home are put aside.
const ASIDE_MAX: u32 = 1000;

/// Why a home folder cannot be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The keys.
    #[error("could not read which keys belong to the folder")]
    Keys(#[from] KeyFileError),
    /// The store.
    #[error("could not use the store")]
    Store(#[from] StoreError),
    /// The folder.
    #[error("could not look into {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file.
    #[error("could not move {path}")]
    Move {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no part that a node can go on without.
    #[error("a node cannot go on without `{0}`")]
    Needed(String),
    /// It is there.
    #[error("`{0}` is not missing")]
    NotMissing(String),
}

/// A part of a home folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of its file.
    pub file: String,
    /// Whether it is there.
    pub is_there: bool,
}

/// Returns the parts that a node in this folder has; none if no node was ever here.
///
/// # Errors
/// Returns why they cannot be told.
pub fn parts(home: &Path) -> Result<Vec<Part>, HomeError> {
    match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            let path = home.to_owned();
            return Err(HomeError::Folder { path, source });
        }
        Ok(_) => {}
    }
    let made = identity::made(home)?;
    let was_here = made.iter().any(|file| file != Kind::Mesh.file_name());
    let key = |file: String| Part {
        is_there: home.join(&file).exists(),
        file,
    };
    let mut parts: Vec<Part> = made.into_iter().map(key).collect();
    let has_log = length(home, LOG).is_some_and(|length| length > 0);
    let was_here = has_log || was_here;
    let store = length(home, store::FILE_NAME);
    if was_here || store.is_some() {
        parts.push(Part {
            file: store::FILE_NAME.to_owned(),
            // Before the first key is made, the store is set up: it is empty only until then.
            is_there: !was_here || store.is_some_and(|length| length > 0),
        });
    }
    let lacks_log = store::lacks_log(&home.join(store::FILE_NAME));
    if lacks_log || home.join(LOG_INDEX).exists() {
        parts.push(Part {
            file: LOG.to_owned(),
            is_there: !lacks_log && home.join(LOG).exists(),
        });
    }
    Ok(parts)
}

/// Returns the files that a node in this folder has had, and that are not there.
///
/// # Errors
/// See [`parts`].
pub fn missing(home: &Path) -> Result<Vec<String>, HomeError> {
    let parts = parts(home)?.into_iter();
    Ok(parts
        .filter(|part| !part.is_there)
        .map(|part| part.file)
        .collect())
}

/// Says whether a node was started in this folder before, and came so far that it made its keys. A
/// store alone, with its log, may be what a power cut left of a first start.
///
/// # Errors
/// See [`parts`].
pub fn held_a_node(home: &Path) -> Result<bool, HomeError> {
    let parts = parts(home)?;
    let no_key = [Kind::Mesh.file_name(), store::FILE_NAME, LOG];
    Ok(parts
        .iter()
        .any(|part| !no_key.contains(&part.file.as_str())))
}

/// Goes on without a file that is lost for good. A store is begun anew: the node is then in no mesh.
///
/// # Errors
/// Returns why not: the file is there, or without it this would be another node.
pub fn forget(home: &Path, file: &str) -> Result<(), HomeError> {
    let lock = HomeLock::take(home)?;
    if !missing(home)?.iter().any(|missing| missing == file) {
        return Err(HomeError::NotMissing(file.to_owned()));
    }
    let is_needed = [Kind::Node, Kind::Messaging].map(Kind::file_name);
    match file {
        _ if is_needed.contains(&file) => Err(HomeError::Needed(file.to_owned())),
        LOG => {
            put_aside(home, LOG)?;
            remove(&home.join(LOG_INDEX))?;
            Ok(store::forget_log(home)?)
        }
        store::FILE_NAME => {
            // A log without its store would be taken for that of the new one.
            for rest in [store::FILE_NAME, LOG, LOG_INDEX] {
                remove(&home.join(rest))?;
            }
            // The store takes the lock itself.
            drop(lock);
            drop(Store::open(home, |_| ())?);
            Ok(())
        }
        _ => Ok(identity::forget(home, file)?),
    }
}

/// Puts everything that makes this node the one that it is into a folder in the home, so that the
/// next start begins a new node. Settings stay. Returns that folder, and the names of what is there.
///
/// # Errors
/// Returns why not; what was put aside before the error stays there, and a second try goes on.
pub fn begin_anew(home: &Path) -> Result<(PathBuf, Vec<String>), HomeError> {
    let _lock = HomeLock::take(home)?;
    let (aside, mut put_aside) = (new_folder(home)?, Vec::new());
    let keys = identity::made(home)?;
    // The list of keys goes last: as long as it is there, nothing takes the rest for a new home.
    let first = [LOG, LOG_INDEX, store::FILE_NAME].map(str::to_owned);
    let last = [identity::LIST_NAME.to_owned()];
    for file in first.into_iter().chain(keys).chain(last) {
        let path = home.join(&file);
        match fs::rename(&path, aside.join(&file)) {
            Ok(()) => put_aside.push(file),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(HomeError::Move { path, source }),
        }
    }
    Ok((aside, put_aside))
}

fn new_folder(home: &Path) -> Result<PathBuf, HomeError> {
    let free = (1..=ASIDE_MAX).map(|number| home.join(format!("earlier-node-{number}")));
    let path = free
        .clone()
        .find(|path| !path.exists())
        .unwrap_or_else(|| home.join("earlier-node"));
    files::create_folder(&path).map_err(|source| HomeError::Move {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

/// Returns the length of a file. What is no regular file has one, too: opening it says what it is.
fn length(home: &Path, file: &str) -> Option<u64> {
    let found = fs::metadata(home.join(file)).ok()?;
    Some(if found.is_file() { found.len() } else { 1 })
}

/// Renames what stands in the place of a file, and may hold something that can be saved.
fn put_aside(home: &Path, file: &str) -> Result<(), HomeError> {
    let path = home.join(file);
    match fs::rename(&path, home.join(format!("{file}.forgotten"))) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HomeError::Move { path, source })
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HomeError::Move {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, load_or_create_mesh_key};

    /// A home in which a node was started and stopped.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a folder");
        fs::set_permissions(
            home.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("private");
        drop(Store::open(home.path(), |_| ()).expect("a store"));
        Identity::load_or_create(home.path(), None).expect("made");
        load_or_create_mesh_key(home.path(), None).expect("made");
        home
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        for file in ["node.key", "messaging.key", "mesh.key", "pimesh.db"] {
            let home = home();
            assert_eq!(missing(home.path()).expect("readable"), [""; 0]);
            fs::remove_file(home.path().join(file)).expect("it is there");

            assert_eq!(missing(home.path()).expect("readable"), [file]);
            assert!(held_a_node(home.path()).expect("readable"));
        }
    }

    #[test]
    fn an_empty_store_and_a_lost_log_are_missing_parts() {
        let home = home();
        let path = home.path().join("pimesh.db");
        fs::write(&path, "").expect("emptied");
        assert_eq!(missing(home.path()).expect("readable"), ["pimesh.db"]);
        let emptied = Store::reopen(home.path(), |_| ()).expect_err("nothing is in it");
        assert!(matches!(emptied, StoreError::Emptied(_)), "{emptied}");

        let home = self::home();
        fs::write(home.path().join("pimesh.db-shm"), "").expect("written");
        assert_eq!(missing(home.path()).expect("readable"), ["pimesh.db-wal"]);
        forget(home.path(), "pimesh.db-wal").expect("forgotten");
        assert_eq!(missing(home.path()).expect("readable"), [""; 0]);
    }

    #[test]
    fn a_store_without_the_log_that_it_had_is_no_whole_one() {
        let home = home();
        let path = home.path().join(store::FILE_NAME);
        let running = Store::open(home.path(), |_| ()).expect("a store");
        let killed = fs::read(&path).expect("a store");
        drop(running);
        fs::write(&path, killed).expect("as a power cut leaves it");
        assert_eq!(missing(home.path()).expect("readable"), [LOG]);
        fs::write(home.path().join(LOG), "no log").expect("written");
        assert_eq!(missing(home.path()).expect("readable"), [LOG]);

        forget(home.path(), LOG).expect("forgotten");

        assert_eq!(missing(home.path()).expect("readable"), [""; 0]);
        let aside = fs::read(home.path().join("pimesh.db-wal.forgotten"));
        assert_eq!(aside.expect("put aside"), b"no log");
        drop(Store::reopen(home.path(), |_| ()).expect("goes on"));
    }

    #[test]
    fn a_folder_with_nothing_or_with_an_imported_mesh_key_is_a_first_start() {
        let home = tempfile::tempdir().expect("a folder");
        assert!(!held_a_node(home.path()).expect("readable"));
        fs::set_permissions(
            home.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("private");
        load_or_create_mesh_key(home.path(), None).expect("made");
        // As after a power cut in the first moments of the first start.
        for file in ["pimesh.db", "pimesh.db-wal", "pimesh.db-shm"] {
            fs::write(home.path().join(file), "").expect("written");
        }

        assert!(!held_a_node(home.path()).expect("readable"));
        assert_eq!(missing(home.path()).expect("readable"), [""; 0]);
    }

    #[test]
    fn a_key_that_was_made_is_never_made_again() {
        let home = home();
        fs::remove_file(home.path().join("messaging.key")).expect("it is there");

        let lost = Identity::load_or_create(home.path(), None).expect_err("it was made once");

        assert!(matches!(lost, KeyFileError::Lost { .. }), "{lost}");
        assert!(!home.path().join("messaging.key").exists());
    }

    #[test]
    fn a_node_goes_on_without_what_it_can_do_without() {
        let home = home();
        for file in ["mesh.key", "pimesh.db"] {
            let there = forget(home.path(), file).expect_err("it is there");
            assert!(matches!(there, HomeError::NotMissing(_)), "{there}");
            fs::remove_file(home.path().join(file)).expect("it is there");
            forget(home.path(), file).expect("forgotten");
        }
        assert_eq!(missing(home.path()).expect("readable"), [""; 0]);
        drop(Store::reopen(home.path(), |_| ()).expect("set up anew"));
        load_or_create_mesh_key(home.path(), None).expect("may be made again");
        fs::remove_file(home.path().join("node.key")).expect("it is there");

        let needed = forget(home.path(), "node.key").expect_err("another node");

        assert!(matches!(needed, HomeError::Needed(_)), "{needed}");
    }

    #[test]
    fn a_node_begins_anew_and_what_was_there_is_kept() {
        let home = home();
        fs::write(home.path().join("pimesh.toml"), "").expect("written");
        fs::remove_file(home.path().join("node.key")).expect("it is there");

        let (aside, files) = begin_anew(home.path()).expect("put aside");

        assert!(!held_a_node(home.path()).expect("readable"));
        assert!(
            aside.join("messaging.key").exists() && files.contains(&"messaging.key".to_owned())
        );
        assert!(home.path().join("pimesh.toml").exists());
        Identity::load_or_create(home.path(), None).expect("a new node");
    }
}
