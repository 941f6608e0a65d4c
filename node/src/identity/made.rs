//! `keys.txt`: which key files were made in a home folder.
//!
//! A key file is written first and listed then, and taken off the list before it is removed. So what
//! is listed has to be there; what is there and not listed yet is listed at the next start.

use std::{
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{KeyFileError, Kind, server_keys::key_files};
use crate::files;

/// Its name in the home folder.
pub const LIST_NAME: &str = "keys.txt";

/// Its first line.
const HEAD: &str =
    "# The key files that were made in this folder. A node does not start without them.";

/// Longest list, in bytes: it has a line for each key, and each server may have one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Keys are made by several threads, and the list is read and written as a whole.
static LIST: Mutex<()> = Mutex::new(());

/// Returns the names of the key files that were made in a home folder, whether or not they are there.
///
/// # Errors
/// Returns why the list or the folder cannot be read.
pub fn made(home: &Path) -> Result<Vec<String>, KeyFileError> {
    let mut made = listed(home)?;
    add_existing(home, &mut made)?;
    Ok(made)
}

fn add_existing(home: &Path, made: &mut Vec<String>) -> Result<(), KeyFileError> {
    for (file, _) in key_files(home)? {
        if !made.contains(&file) && home.join(&file).exists() {
            made.push(file);
        }
    }
    Ok(())
}

/// Goes on without a key: takes its file off the list.
///
/// # Errors
/// Returns why the list cannot be read or written.
pub fn forget(home: &Path, file: &str) -> Result<(), KeyFileError> {
    change(home, |made| {
        made.retain(|known| known != file);
        Ok(())
    })
}

pub(super) fn list(home: &Path, file: &str) -> Result<(), KeyFileError> {
    change(home, |made| {
        if !made.iter().any(|known| known == file) {
            made.push(file.to_owned());
        }
        Ok(())
    })
}

pub(super) fn is_listed(home: &Path, file: &str) -> Result<bool, KeyFileError> {
    Ok(listed(home)?.iter().any(|known| known == file))
}

/// Lists the keys that are there and not listed yet: those of an earlier version, and those whose
/// listing a power cut prevented. The mesh key is listed only if it is that of this node's mesh.
///
/// # Errors
/// Returns why the list cannot be read or written.
pub(crate) fn list_all(home: &Path, with_mesh_key: bool) -> Result<(), KeyFileError> {
    change(home, |made| {
        add_existing(home, made)?;
        made.retain(|file| with_mesh_key || file != Kind::Mesh.file_name());
        Ok(())
    })
}

fn change(
    home: &Path,
    change: impl FnOnce(&mut Vec<String>) -> Result<(), KeyFileError>,
) -> Result<(), KeyFileError> {
    let _one_at_a_time = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    let before = listed(home)?;
    let mut made = before.clone();
    change(&mut made)?;
    if made == before {
        return Ok(());
    }
    let lines: String = made.iter().map(|file| format!("{file}\n")).collect();
    let path = home.join(LIST_NAME);
    files::replace(
        &path,
        format!("{HEAD}\n{lines}").as_bytes(),
        files::OWNER_ONLY,
    )
    .map_err(|source| KeyFileError::Io { path, source })
}

fn listed(home: &Path) -> Result<Vec<String>, KeyFileError> {
    let path = home.join(LIST_NAME);
    let text = match files::read_bounded(&path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|source| KeyFileError::Io { path, source })?,
    };
    // A key file is in the folder itself.
    let is_file = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.contains('/');
    let files = text.lines().map(str::trim).filter(is_file);
    Ok(files.map(str::to_owned).collect())
}
