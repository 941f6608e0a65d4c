//! The formats of the store: what each adds, and how an older file becomes the newest one.
//!
//! A file is judged before anything is written to it. An older store is copied first, so that an
//! earlier pimesh can be installed again. The copy gives its room to the update if that has too
//! little: a node that starts is worth more.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, params};

use super::{
    create_private,
    error::{Flaw, StoreError},
    in_use,
    space::Space,
};

/// What an update may write beside a store, at most, in parts of its size: new indices of the
/// history, in the log and in their place.
const UPDATE_PART: u64 = 2;

/// What is left on the disk after a copy and an update, in bytes: a log of full length, twice.
const ROOM_LEFT_BYTES: u64 = 16 * 1024 * 1024;

/// "pmsh": marks the file as a pimesh store.
pub(super) const APPLICATION_ID: i64 = 0x706d_7368;

/// One step for each version of the format; the number of steps is the newest version. A step that
/// was released never changes. SQLite keeps the text of `CREATE` statements with its white space, so
/// that stays as well.
pub(super) const MIGRATIONS: [&str; 8] = [
    include_str!("migrations/001_first.sql"),
    include_str!("migrations/002_vouched.sql"),
    include_str!("migrations/003_p2sn_clients.sql"),
    include_str!("migrations/004_syft_users.sql"),
    include_str!("migrations/005_history_by_source.sql"),
    include_str!("migrations/006_names_and_statements.sql"),
    include_str!("migrations/007_who_holds_a_name.sql"),
    include_str!("migrations/008_gateway_records.sql"),
];

/// What a database file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Empty: a store can be made in it.
    New,
    /// A store of this format.
    Format(usize),
}

/// Says what a database is, without writing to it.
pub(super) fn inspect(connection: &Connection, path: &Path) -> Result<Found, StoreError> {
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let numbers = || {
        Ok((
            read("PRAGMA application_id")?,
            read("PRAGMA user_version")?,
            read("SELECT count(*) FROM sqlite_schema")?,
        ))
    };
    let known = MIGRATIONS.len();
    match numbers().map_err(|e: rusqlite::Error| Flaw::from(e).at(path))? {
        (0, 0, 0) => Ok(Found::New),
        (APPLICATION_ID, version @ 1.., _) => match usize::try_from(version) {
            Ok(format) if format <= known => Ok(Found::Format(format)),
            _ => Err(StoreError::Newer {
                path: path.to_owned(),
                found: version,
                known,
            }),
        },
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}

/// Brings a store to the newest format. An older one is copied first, if there is room for that:
/// returns where the copy is, or why there is none.
pub(super) fn migrate(
    connection: &Connection,
    path: &Path,
    found: Found,
) -> Result<Option<Result<PathBuf, String>>, StoreError> {
    let (format, mut copy) = match found {
        Found::New => (0, None),
        Found::Format(format) if format == MIGRATIONS.len() => return Ok(None),
        Found::Format(format) => {
            // A copy is a whole store, without a log. If this fails, the copy fails as well.
            drop(in_use::clear(connection));
            (format, Some(copy(connection, path, format)))
        }
    };
    for (version, step) in (1..).zip(MIGRATIONS).skip(format) {
        let step = format!(
            "BEGIN IMMEDIATE; {step} PRAGMA application_id = {APPLICATION_ID}; \
             PRAGMA user_version = {version}; COMMIT;"
        );
        let run = || {
            if !connection.is_autocommit() {
                // The first attempt.
                connection.execute_batch("ROLLBACK")?;
            }
            connection.execute_batch(&step)
        };
        let done = in_the_room_of_copies(path, &mut copy, run);
        done.map_err(|error| Flaw::from(error).at(path))?;
    }
    Ok(copy)
}

/// Runs a step of an update; if the disk is full, once more without the copies of earlier formats.
fn in_the_room_of_copies(
    path: &Path,
    copy: &mut Option<Result<PathBuf, String>>,
    mut run: impl FnMut() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let done = run();
    let is_full = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DiskFull);
    if !done.as_ref().is_err_and(is_full) {
        return done;
    }
    let removed = copies(path).into_iter().map(fs::remove_file);
    if removed.filter(Result::is_ok).count() == 0 {
        return done;
    }
    *copy = Some(Err(
        "the disk had no room for a copy and the update".to_owned()
    ));
    run()
}

fn copy_name(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".format-");
    name.push(end);
    PathBuf::from(name)
}

/// Returns the copies of a store that are there, each of an earlier format.
#[must_use]
pub fn copies(path: &Path) -> Vec<PathBuf> {
    let names = (1..MIGRATIONS.len()).map(|format| copy_name(path, &format.to_string()));
    names.filter(|name| name.is_file()).collect()
}

/// Says whether there is room for a copy of a store, and then for the update.
fn check_room(connection: &Connection, space: Space) -> Result<(), String> {
    let number = |sql| {
        let number = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        number
            .map(i64::cast_unsigned)
            .map_err(|error| error.to_string())
    };
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    let bytes = pages.saturating_mul(number("PRAGMA page_size")?);
    let wanted = bytes + bytes / UPDATE_PART + ROOM_LEFT_BYTES;
    if space.free_bytes < wanted {
        return Err(format!(
            "the disk has {} KiB left, and a copy and the update may take {} KiB",
            space.free_bytes / 1024,
            wanted / 1024
        ));
    }
    Ok(())
}

/// Copies a store of an older format to a file beside it, named with the format. Copies of formats
/// before that are removed.
fn copy(connection: &Connection, path: &Path, format: usize) -> Result<PathBuf, String> {
    let named = |end: &str| copy_name(path, end);
    let (to, part) = (named(&format.to_string()), named("part"));
    let write = || {
        // An earlier attempt may have been cut off.
        drop(fs::remove_file(&part));
        // Of a disk that does not say how large it is, nothing is known.
        if let Ok(space) = Space::of(path) {
            check_room(connection, space)?;
        }
        create_private(&part).map_err(|error| error.to_string())?;
        let sql = "VACUUM INTO ?1";
        connection
            .execute(sql, params![part.to_string_lossy()])
            .map_err(|error| Flaw::from(error).text(path))?;
        let synced = File::open(&part).and_then(|file| file.sync_all());
        synced
            .and_then(|()| fs::rename(&part, &to))
            .map_err(|error| error.to_string())
    };
    if let Err(why) = write() {
        drop(fs::remove_file(&part));
        return Err(why);
    }
    for older in (1..format).map(|older| named(&older.to_string())) {
        // One that stays takes room, and does no harm.
        drop(fs::remove_file(older));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    /// A folder with a store's copies of these formats.
    fn folder_with_copies(formats: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pimesh.db");
        for format in formats {
            fs::write(copy_name(&path, format), "a copy").expect("written");
        }
        (folder, path)
    }

    fn failure(code: i32) -> rusqlite::Result<()> {
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_copy_gives_its_room_to_an_update_that_has_too_little() {
        let (_folder, path) = folder_with_copies(&["2", "4", "part", "99"]);
        let found = copies(&path);
        assert_eq!(found, ["2", "4"].map(|format| copy_name(&path, format)));
        let mut copy = Some(Ok(found[1].clone()));
        let mut runs = 0;

        let done = in_the_room_of_copies(&path, &mut copy, || {
            runs += 1;
            if runs == 1 {
                failure(ffi::SQLITE_FULL)
            } else {
                Ok(())
            }
        });

        assert_eq!((done, runs), (Ok(()), 2));
        assert!(copies(&path).is_empty());
        assert!(matches!(copy, Some(Err(_))));
        assert!(copy_name(&path, "99").exists(), "of another program");
    }

    #[test]
    fn an_update_that_fails_otherwise_or_without_a_copy_is_not_tried_again() {
        for (formats, code) in [(&["4"][..], ffi::SQLITE_CORRUPT), (&[], ffi::SQLITE_FULL)] {
            let (_folder, path) = folder_with_copies(formats);
            let mut runs = 0;

            let done = in_the_room_of_copies(&path, &mut None, || {
                runs += 1;
                failure(code)
            });

            assert_eq!((done.is_err(), runs), (true, 1));
            assert_eq!(copies(&path).len(), formats.len());
        }
    }

    #[test]
    fn a_copy_needs_room_for_the_update_as_well() {
        let connection = Connection::open_in_memory().expect("a database");
        let filled = "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(4000000));";
        connection.execute_batch(filled).expect("filled");
        let space = |free_mib: u64| Space {
            free_bytes: free_mib << 20,
            size_bytes: 1 << 40,
        };

        let refused = check_room(&connection, space(20)).expect_err("no room");
        assert!(refused.contains("20480 KiB left"), "{refused}");
        assert_eq!(check_room(&connection, space(22)), Ok(()));
    }
}
