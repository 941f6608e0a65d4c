//! The home folder: settings, what belongs to it, whose it is, and the disk that it is on.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pimesh_node::{
    Config,
    config::{FILE_NAME, LoadError},
    home,
    identity::{self, KeyFileError},
    state::disk_reserve,
};
use rustix::fs::statvfs;

use super::Check;

/// Free places for files below which a disk counts as nearly full.
const FILES_FREE_MIN: u64 = 100;

/// How many folders deep is looked for files of somebody else.
const DEPTH: usize = 3;

/// Most files that are looked at.
const FILES_MAX: usize = 10_000;

pub(super) fn checks(folder: &Path, config: &Result<Config, LoadError>) -> Vec<Check> {
    let mut checks = vec![configuration(folder, config)];
    match fs::metadata(folder) {
        Ok(found) => checks.extend(inside(folder, &found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = format!(
                "{} is not there yet: `pimesh run` makes it",
                folder.display()
            );
            checks.push(Check::ok("home", found));
        }
        Err(error) => {
            let found = format!("{}: {error}", folder.display());
            checks.push(Check::fail(
                "home",
                found,
                "run it as the node's user, or as root",
            ));
        }
    }
    checks.push(disk(folder));
    checks
}

fn configuration(folder: &Path, config: &Result<Config, LoadError>) -> Check {
    match config {
        Ok(_) if folder.join(FILE_NAME).exists() => Check::ok("config", "pimesh.toml is good"),
        Ok(_) => Check::ok("config", "no pimesh.toml: the defaults are in force"),
        // Of a service, whose folder is closed to those who merely may use its control socket. A
        // file that its own user cannot read is another matter.
        Err(LoadError::Read { path, source })
            if source.kind() == io::ErrorKind::PermissionDenied
                && fs::read_dir(folder).is_err() =>
        {
            Check::warn(
                "config",
                format!("this user may not read {}", path.display()),
                "run it as the node's user, or as root",
            )
        }
        Err(LoadError::Read { path, source }) => Check::fail(
            "config",
            format!("could not read {}: {source}", path.display()),
            "run it as the node's user, or as root; the file has to be a regular one",
        ),
        Err(error @ LoadError::Illegal { source, .. }) => Check::fail(
            "config",
            format!("{error}: {source}"),
            "mend it, or start from `pimesh config example`",
        ),
    }
}

fn inside(folder: &Path, found: &Metadata) -> Vec<Check> {
    let files = match files_in(folder) {
        Ok(files) => files,
        Err(error) => {
            let found = format!("{}: {error}", folder.display());
            let todo = "run it as the node's user, or as root";
            return vec![Check::warn("home", found, todo)];
        }
    };
    vec![
        private(folder, found),
        parts(folder),
        owner(folder, found, &files),
        access(folder),
        keys(&files),
    ]
}

/// Is it closed to writing by other users? A node does not start in an open one.
fn private(folder: &Path, found: &Metadata) -> Check {
    let (mode, shown) = (found.permissions().mode() & 0o777, folder.display());
    if mode & 0o022 == 0 {
        return Check::ok("private", "nobody else may write into it");
    }
    let found = format!("{shown} has permissions {mode:o}, so the node does not start again");
    Check::fail("private", found, format!("chmod 700 {shown}"))
}

/// Is everything there that belongs to the node?
fn parts(folder: &Path) -> Check {
    match home::missing(folder) {
        Ok(missing) if missing.is_empty() => Check::ok("parts", "nothing is missing"),
        Ok(missing) => Check::fail(
            "parts",
            format!("{} lacks {}", folder.display(), missing.join(", ")),
            "restore it from a backup; `pimesh home --help` says how to go on without it",
        ),
        Err(error) => Check::warn(
            "parts",
            format!("{:#}", anyhow::Error::from(error)),
            "run it as the node's user, or as root",
        ),
    }
}

/// Does everything belong to whom the folder belongs? What root wrote, the node cannot read.
fn owner(folder: &Path, found: &Metadata, files: &[(PathBuf, Metadata)]) -> Check {
    let is_other = |file: &&(PathBuf, Metadata)| file.1.uid() != found.uid();
    let others: Vec<String> = files
        .iter()
        .filter(is_other)
        .map(|(path, _)| path.display().to_string())
        .collect();
    let shown = folder.display();
    match others.as_slice() {
        [] => Check::ok(
            "owner",
            format!("all of it belongs to user {}", found.uid()),
        ),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Check::fail(
                "owner",
                format!(
                    "{first}{more}: not of user {}, to whom the folder belongs",
                    found.uid()
                ),
                format!("sudo chown -R --reference={shown} {shown}"),
            )
        }
    }
}

/// Can something be written there?
fn access(folder: &Path) -> Check {
    let written = tempfile::Builder::new()
        .prefix("doctor-")
        .tempfile_in(folder);
    match written {
        Ok(_) => Check::ok("write", "the folder can be written to"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::warn(
            "write",
            "this user may not write to the folder",
            "commands that change settings need the node's user, or root",
        ),
        Err(error) => Check::fail(
            "write",
            format!("could not write to {}: {error}", folder.display()),
            "is the disk full, or mounted read-only? See `dmesg`",
        ),
    }
}

fn keys(files: &[(PathBuf, Metadata)]) -> Check {
    for (path, found) in files {
        let mode = found.permissions().mode() & 0o777;
        let shown = path.display();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        if !found.is_file() {
            let found = format!("{shown} is not a regular file");
            return Check::fail("keys", found, "put the key file there");
        }
        if mode & 0o077 != 0 {
            let found = format!("{shown} has permissions {mode:o}");
            return Check::fail("keys", found, format!("chmod 600 {shown}"));
        }
        match identity::check_key_file(path) {
            Ok(()) => {}
            Err(KeyFileError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error @ KeyFileError::Torn { .. }) => {
                let todo = "put the file of the backup in its place, and restart the node";
                return Check::fail("keys", error.to_string(), todo);
            }
            Err(error) => {
                let found = format!("{:#}", anyhow::Error::from(error));
                return Check::fail("keys", found, "restore it from a backup");
            }
        }
    }
    Check::ok("keys", "whole, and readable by their owner only")
}

fn disk(folder: &Path) -> Check {
    let there = folder.ancestors().find(|path| path.exists());
    let found = match statvfs(there.unwrap_or(Path::new("/"))) {
        Ok(found) => found,
        Err(error) => {
            let found = format!("free space is not known: {error}");
            return Check::warn("disk", found, "look with `df`");
        }
    };
    let todo = "make room: messages are accepted only if they can be written";
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let size = found.f_blocks.saturating_mul(found.f_frsize);
    let room = room(free, size, todo);
    if room.verdict == super::Verdict::Fail {
        return room;
    }
    // Some file systems have no limit, and say that there is none.
    if found.f_files > 0 && found.f_favail < FILES_FREE_MIN {
        let found = format!("room for {} more files only", found.f_favail);
        return Check::fail("disk", found, todo);
    }
    room
}

/// Is there as much room as the node keeps free? Some file systems do not say how large they are,
/// and then nothing is known.
fn room(free: u64, size: u64, todo: &str) -> Check {
    let (mib, reserve) = (free >> 20, disk_reserve(size));
    if free < reserve {
        let reserve = reserve >> 20;
        let found = format!("{mib} MiB free, and the node takes nothing in below {reserve} MiB");
        return Check::fail("disk", found, todo);
    }
    Check::ok("disk", format!("{mib} MiB free"))
}

/// Returns what is in a folder and in those below it, within limits.
fn files_in(folder: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // What was removed meanwhile is none of our business.
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            if found.is_dir() && depth < DEPTH {
                folders.push((path.clone(), depth + 1));
            }
            files.push((path, found));
            if files.len() >= FILES_MAX {
                return Ok(files);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_key_that_others_can_read_and_one_that_is_no_file_fail() {
        let home = folder();
        let key = home.path().join("node.key");
        fs::write(&key, "").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
        let open = keys(&files_in(home.path()).expect("read"));
        assert_eq!(open.verdict, Verdict::Fail);
        assert!(open.todo.is_some_and(|todo| todo.starts_with("chmod 600")));

        fs::remove_file(&key).expect("removed");
        fs::create_dir(&key).expect("made");
        let none = keys(&files_in(home.path()).expect("read"));
        assert_eq!(none.verdict, Verdict::Fail);
    }

    #[test]
    fn a_damaged_key_is_called_damaged() {
        for (name, bytes) in [
            ("node.key", &[0xff; 40][..]),
            ("node.key", b""),
            ("node.key", b"pimesh-key v1 node plain\nAAAA\n"),
            ("rsa.key", &[0xfe; 2000]),
            ("rsa.key", b"pimesh-key v1 rsa plain\nAAAA\n"),
            ("mesh.key", &[b'x'; 20_000]),
        ] {
            let home = folder();
            let key = home.path().join(name);
            fs::write(&key, bytes).expect("written");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");

            let check = keys(&files_in(home.path()).expect("read"));

            assert_eq!(check.verdict, Verdict::Fail, "{name}");
            assert!(check.found.contains("is damaged"), "{}", check.found);
            assert!(check.todo.is_some_and(|todo| todo.contains("backup")));
        }
    }

    #[test]
    fn a_small_disk_is_full_when_the_node_takes_no_more() {
        const MIB: u64 = 1 << 20;
        let verdict = |free, size| room(free * MIB, size * MIB, "").verdict;
        assert_eq!(verdict(49, 64), Verdict::Ok);
        assert_eq!(verdict(8, 64), Verdict::Ok);
        assert_eq!(verdict(7, 64), Verdict::Fail);
        assert_eq!(verdict(63, 32_000), Verdict::Fail);
        assert_eq!(verdict(64, 32_000), Verdict::Ok);
    }

    #[test]
    fn settings_that_cannot_be_read_fail_unless_the_whole_folder_is_closed() {
        let home = folder();
        let config = |folder: &Path| {
            let config = Err(LoadError::Read {
                path: folder.join(FILE_NAME),
                source: io::ErrorKind::PermissionDenied.into(),
            });
            configuration(folder, &config).verdict
        };

        assert_eq!(config(home.path()), Verdict::Fail);
        assert_eq!(config(&home.path().join("closed")), Verdict::Warn);
    }

    #[test]
    fn a_file_of_another_user_fails_where_one_can_be_made() {
        let home = folder();
        let path = home.path().join("iid");
        fs::create_dir(&path).expect("made");
        let of = |home: &Path| {
            let found = fs::metadata(home).expect("there");
            owner(home, &found, &files_in(home).expect("read")).verdict
        };
        assert_eq!(of(home.path()), Verdict::Ok);
        // Only root can give files away.
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            assert_eq!(of(home.path()), Verdict::Fail);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_first_start_and_a_missing_part_a_fault() {
        let home = folder();
        let none = checks(&home.path().join("none"), &Ok(Config::default()));
        assert!(none.iter().all(|check| check.verdict != Verdict::Fail));

        fs::write(home.path().join("node.key"), "").expect("written");
        assert_eq!(parts(home.path()).verdict, Verdict::Fail);
    }
}
