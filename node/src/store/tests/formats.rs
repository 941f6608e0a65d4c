//! Which files are taken for a store, and how stores of earlier formats are.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
};

use rusqlite::Connection;

use super::*;
use crate::{
    proto::mesh::{ranges::Ranges, vouched::Vouched},
    state::io::{Gateway, GatewayRecord, OutgoingKind, RecordKey, RecordValue},
};

/// A store of each earlier format. The values are a test's, so that each column has some that stand
/// out.
const FORMATS: [&str; 7] = [
    include_str!("../formats/1.sql"),
    include_str!("../formats/2.sql"),
    include_str!("../formats/3.sql"),
    include_str!("../formats/4.sql"),
    include_str!("../formats/5.sql"),
    include_str!("../formats/6.sql"),
    include_str!("../formats/7.sql"),
];

/// Stores that programs of the first four formats wrote while they ran (tests/homes/README.md).
const MADE: [&str; 4] = [
    include_str!("../formats/made/1.sql"),
    include_str!("../formats/made/2.sql"),
    include_str!("../formats/made/3.sql"),
    include_str!("../formats/made/4.sql"),
];

/// Both kinds, with their formats.
fn all() -> impl Iterator<Item = (usize, &'static str)> {
    (1..).zip(FORMATS).chain((1..).zip(MADE))
}

fn home_with(sql: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let connection = Connection::open(home.path().join("pimesh.db")).expect("a database");
    connection.execute_batch(sql).expect("a store");
    home
}

fn refused(home: &tempfile::TempDir) -> StoreError {
    Store::open(home.path(), |_| {}).expect_err("refused")
}

/// What is in the example of a format.
fn expected(format: usize) -> Loaded {
    let outgoing = |number: u8, sequence, at, kind, text: &str| Outgoing {
        id: MessageId([number; 16]),
        recipient: peer_of_seed(2).into(),
        epoch: 7,
        sequence,
        created_ms: at,
        expires_ms: 1_800_600_000_000,
        kind,
        text: text.to_owned(),
    };
    let address = |text: &str| Address::new(text).expect("legal");
    let vouched = if format == 1 {
        Vouched::ALL
    } else {
        "-5..7".parse().expect("legal")
    };
    let mut loaded = Loaded {
        certificate: Some(vec![1; 4]),
        members: vec![vec![2; 4]],
        revocations: vec![vec![3; 4]],
        invites: vec![Invite {
            secret_hash: [1; 32],
            expires_ms: 1_800_000_900_000,
            name: Some("pi-2".to_owned()),
            index: Index(-2),
            further: Ranges::default(),
            vouched,
            used_by: Some(peer_of_seed(2)),
            cancelled: false,
        }],
        addresses: vec![(
            peer_of_seed(2),
            vec![
                address("/ip4/10.0.0.2/tcp/4001"),
                address("/ip4/10.0.0.3/tcp/4001"),
            ],
        )],
        outbox: vec![outgoing(
            0x11,
            1,
            1_800_000_000_000,
            OutgoingKind::Member,
            "it waits",
        )],
        marks: vec![(peer_of_seed(2), u64::MAX, 3), (peer_of_seed(2), 5, 9)],
        pins: vec![(peer_of_seed(2), [4; 32], 3072)],
        // The newest message tells what the date was.
        date_ms: Some(1_800_000_006_000),
        ..Loaded::default()
    };
    if format >= 3 {
        loaded.date_ms = Some(1_800_000_008_000);
        loaded.client_pins = vec![("10.0.0.7".to_owned(), [9; 32], 2048)];
        loaded.for_clients = vec![ForClient {
            id: MessageId([0x14; 16]),
            client: ClientName::new("p2sn:10.0.0.7/abababababababab").expect("a name"),
            created_ms: 1_800_000_007_000,
            expires_ms: 1_800_600_000_000,
            text: "for the client".to_owned(),
            encoding: Encoding::Utf8,
        }];
    }
    if format >= 4 {
        loaded.date_ms = Some(1_800_000_011_000);
        let alice = OutgoingKind::User {
            user: "alice".parse().expect("an id"),
            name: "alice@pi-2".to_owned(),
        };
        loaded.outbox.extend([
            outgoing(0x16, 2, 1_800_000_009_000, alice, "to alice"),
            outgoing(
                0x17,
                3,
                1_800_000_010_000,
                OutgoingKind::Letter,
                r#"{"a":1}"#,
            ),
        ]);
        loaded.seen = vec![Fingerprint([0x1a; 16])];
        // A token that was revoked; its record goes a day after its end.
        let revoked = GatewayRecord {
            key: RecordKey::new([&b"revoked/"[..], &[0x1b; 16]].concat()).expect("short"),
            value: RecordValue::default(),
            ends_ms: Some(1_800_087_300_000),
        };
        loaded.records = vec![(Gateway::Syft, revoked)];
    }
    if format >= 5 {
        loaded.date_ms = Some(1_800_000_013_000);
    }
    if format >= 6 {
        loaded.statements = vec![vec![5, 5]];
        loaded.names = vec![(peer_of_seed(2), "pi-2".to_owned())];
        for invite in &mut loaded.invites {
            invite.cancelled = true;
            invite.further = "9..11".parse().expect("legal");
        }
    }
    loaded
}

#[test]
fn a_store_of_each_earlier_format_is_taken_over_whole() {
    for (format, sql) in (1..).zip(FORMATS) {
        let mut store = Fixture::at(home_with(sql));

        let mut loaded = store.loaded.clone();
        let users: Vec<_> = std::mem::take(&mut loaded.users);
        let letters: Vec<_> = std::mem::take(&mut loaded.letters);
        assert_eq!(
            format!("{loaded:?}"),
            format!("{:?}", expected(format)),
            "{format}"
        );
        if format >= 6 {
            // Of those who registered `carol`, a pin of a server's user does not count.
            let carols = users.iter().filter(|user| user.id.as_str() == "carol");
            let holds: Vec<_> = carols.map(|c| (c.registered_ms, c.holds_name)).collect();
            let (first, second) = (1_800_000_000_001, 1_800_000_000_002);
            assert_eq!(holds, [(second, false), (first, true), (1, false)]);
        }
        let users: Vec<_> = users
            .iter()
            .filter(|user| user.id.as_str() != "carol")
            .inspect(|user| assert!(user.holds_name, "{format}"))
            .map(|user| (user.id.as_str(), user.taken))
            .collect();
        let letters: Vec<_> = letters.iter().map(|l| (l.row, l.from.as_str())).collect();
        if format >= 4 {
            assert_eq!(users, [("alice", 0), ("bob", 4)]);
            assert_eq!(letters, [(5, "alice@pi-2")]);
        }
        let rows = |store: &Fixture, way| {
            let found = store.found(&Selection {
                way,
                ..Selection::default()
            });
            let row = |row: Row| {
                (
                    row.id.0[0],
                    row.at_ms % 1_000_000,
                    row.user,
                    row.outcome,
                    row.text,
                )
            };
            found.into_iter().map(row).collect::<Vec<_>>()
        };
        let row = |id, at, user: &str, outcome: &str, text: &str| {
            (id, at, user.to_owned(), outcome.to_owned(), text.to_owned())
        };
        let mut received = vec![
            row(0x13, 4000, "", "", "grüße"),
            row(0x12, 6000, "", "", ""),
        ];
        let mut sent = vec![
            row(0x11, 0, "", "", "it waits"),
            row(0x12, 2000, "", "delivered", "it is there"),
        ];
        if format >= 3 {
            received.push(row(0x15, 8000, "", "", "from the client"));
            sent.push(row(0x14, 7000, "", "", "for the client"));
        }
        if format >= 4 {
            received.push(row(0x18, 11000, "alice@pi-2", "", "from alice"));
            sent.push(row(0x16, 9000, "alice@pi-2", "", "to alice"));
        }
        if format >= 5 {
            received.push(row(0x1c, 12000, "", "", "from pi-2"));
            received.push(row(0x1d, 13000, "", "", "00ff"));
        }
        assert_eq!(rows(&store, Way::Received), received, "{format}");
        assert_eq!(rows(&store, Way::Sent), sent, "{format}");

        // What is written from here on goes with what was there.
        assert!(store.write(vec![Record::Incoming(incoming(0x13, "the same id"))]));
        assert!(store.write(vec![Record::Prune {
            before_ms: 0,
            bytes_max: 0
        }]));
        assert!(store.received().is_empty(), "{format}");
    }
}

/// The rows of each table: its columns, and what is in them.
type Tables = BTreeMap<String, (String, Vec<String>)>;

/// Reads all tables; of those that are known, only the columns that are known.
fn tables(connection: &Connection, known: Option<&Tables>) -> Tables {
    let column = |sql: &str| {
        let mut statement = connection.prepare(sql).expect("a statement");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<rusqlite::Result<Vec<String>>>()
            .expect("texts")
    };
    let names = column(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' \
         ORDER BY name",
    );
    let table = |name: String| {
        let columns = known.and_then(|known| known.get(&name)).map_or_else(
            || {
                let sql =
                    format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{name}')");
                column(&sql).join(" || ',' || ")
            },
            |(columns, _)| columns.clone(),
        );
        let mut rows = column(&format!("SELECT {columns} FROM {name} ORDER BY 1"));
        // It says whether the store is open, and not what is in it.
        rows.retain(|row| !row.starts_with("'in_use'"));
        (name, (columns, rows))
    };
    names.into_iter().map(table).collect()
}

#[test]
fn every_row_of_every_table_of_an_earlier_format_is_there_after_the_update() {
    for (format, sql) in all() {
        let home = home_with(sql);
        let path = home.path().join("pimesh.db");
        let mut before = tables(&Connection::open(&path).expect("a database"), None);
        for (table, (_, rows)) in &before {
            assert!(!rows.is_empty(), "format {format} has nothing in `{table}`");
        }
        // What it sums up is counted anew.
        before.remove("totals").expect("is there");
        // Records of the Syft gateway from format 8 on; the test above reads them.
        before.remove("revoked_tokens");

        let store = Store::open(home.path(), |_| {}).expect("a store");

        let connection = Connection::open(&path).expect("a database");
        let mut after = tables(&connection, Some(&before));
        let (_, totals) = after.remove("totals").expect("is there");
        after.retain(|table, _| before.contains_key(table));
        assert_eq!(after, before, "format {format}");
        let counted = "quote(source) || ',' || count(*) || ',' || sum(weight)";
        let counted = format!("SELECT {counted} FROM history GROUP BY source ORDER BY 1");
        let mut statement = connection.prepare(&counted).expect("a statement");
        let counted = statement.query_map([], |row| row.get(0)).expect("rows");
        let counted: rusqlite::Result<Vec<String>> = counted.collect();
        assert_eq!(totals, counted.expect("texts"), "format {format}");
        drop(store);
    }
}

#[test]
fn the_tables_of_the_examples_are_those_that_the_programs_made() {
    let schema = |sql: &str| {
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch(sql).expect("a store");
        let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema \
                   ORDER BY 1";
        let mut statement = connection.prepare(sql).expect("a statement");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<rusqlite::Result<Vec<String>>>()
            .expect("texts")
    };
    for (example, made) in FORMATS.into_iter().zip(MADE) {
        assert_eq!(schema(example), schema(made));
    }
}

#[test]
fn an_older_store_is_copied_before_it_changes_and_one_copy_is_kept() {
    let home = home_with(FORMATS[3]);
    let file = |name: &str| home.path().join(name);
    fs::write(file("pimesh.db.format-2"), "an older copy").expect("written");

    let (store, _) = Store::open(home.path(), |_| {}).expect("a store");

    let copy = file("pimesh.db.format-4");
    assert_eq!(store.copy(), Some(&Ok(copy.clone())));
    assert!(!file("pimesh.db.format-2").exists());
    let mode = fs::metadata(&copy).expect("a copy").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let copy = Connection::open(copy).expect("a database");
    let read = |sql: &str| {
        copy.query_row(sql, [], |row| row.get::<_, i64>(0))
            .expect("a row")
    };
    assert_eq!(read("PRAGMA user_version"), 4);
    assert_eq!(read("SELECT count(*) FROM history"), 8);
    drop(store);
    let (again, _) = Store::open(home.path(), |_| {}).expect("a store");
    assert_eq!(again.copy(), None);
}

#[test]
fn an_older_store_is_taken_over_even_if_it_cannot_be_copied() {
    let home = home_with(FORMATS[0]);
    fs::create_dir(home.path().join("pimesh.db.format-part")).expect("made");

    let (store, loaded) = Store::open(home.path(), |_| {}).expect("a store");

    assert!(matches!(store.copy(), Some(Err(_))), "{:?}", store.copy());
    assert_eq!(loaded.members.len(), 1);
}

#[test]
fn an_update_that_runs_out_of_room_leaves_the_store_as_it_was_and_no_copy() {
    let home = home_with(FORMATS[3]);
    let path = home.path().join("pimesh.db");
    let connection = Connection::open(&path).expect("a database");
    let pages: i64 = connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("a number");
    let limit = format!("PRAGMA max_page_count = {pages}");
    connection.query_row(&limit, [], |_| Ok(())).expect("set");

    let error = migrate::migrate(&connection, &path, migrate::Found::Format(4));

    assert!(matches!(error, Err(StoreError::Full { .. })), "{error:?}");
    assert!(copies(&path).is_empty());
    drop(connection);
    let (store, loaded) = Store::open(home.path(), |_| {}).expect("a store");
    assert!(matches!(store.copy(), Some(Ok(_))));
    assert_eq!(loaded.outbox.len(), 3);
}

#[test]
fn a_newer_store_is_refused_with_what_to_do() {
    let home = Fixture::new().home;
    let path = home.path().join("pimesh.db");
    let connection = Connection::open(&path).expect("the file");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("written");
    drop(connection);
    let before = fs::read(&path).expect("a file");

    let error = refused(&home);

    assert!(fs::read(&path).expect("a file") == before, "left as it is");
    let newest = schema_formats();
    assert!(
        matches!(&error, StoreError::Newer { path: p, found: 99, known } if *p == path && *known == newest),
        "{error:?}"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("update pimesh"))
    );
}

fn schema_formats() -> usize {
    migrate::MIGRATIONS.len()
}

#[test]
fn a_database_of_another_program_is_refused_and_left_as_it_is() {
    for pragmas in ["", "PRAGMA application_id = 7;", "PRAGMA user_version = 3;"] {
        for journal in ["delete", "wal"] {
            let home = home_with(&format!(
                "PRAGMA journal_mode = {journal}; CREATE TABLE theirs (a); \
                 INSERT INTO theirs VALUES (1); {pragmas}"
            ));
            let read = || fs::read(home.path().join("pimesh.db")).expect("a file");
            let before = read();

            let error = refused(&home);

            assert!(
                matches!(error, StoreError::Foreign(_)),
                "{pragmas} {journal}: {error:?}"
            );
            assert!(error.hint().is_some());
            assert!(read() == before, "{pragmas} {journal}");
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_named_with_a_way_out() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("pimesh.db");
    fs::write(&path, "not a database, and longer than a header ".repeat(9)).expect("written");

    let error = refused(&home);

    assert!(
        matches!(&error, StoreError::Damaged { path: p, .. } if *p == path),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("pimesh.db is damaged"),
        "{error}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("backup")));
}

#[test]
fn a_pipe_in_the_place_of_the_store_is_refused_and_waited_for_by_nobody() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("pimesh.db");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");

    let checked = check(&path).expect_err("a pipe");
    for error in [refused(&home), checked] {
        let StoreError::Open { path: of, source } = error else {
            panic!("{error:?}")
        };
        assert_eq!(of, path);
        assert_eq!(source.to_string(), "it is not a regular file");
    }
}

#[test]
fn a_check_finds_what_no_start_would_notice() {
    let mut store = Fixture::new();
    for number in 1..=99 {
        store.write(vec![Record::Incoming(incoming(number, &"x".repeat(9_000)))]);
    }
    let path = store.home.path().join("pimesh.db");
    assert!(check(&path).is_ok(), "while it is in use");
    let Fixture { home, store, .. } = store;
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(&path);
    let length = fs::metadata(&path).expect("a file").len();
    // The last page of many, somewhere in the texts.
    let write = file.and_then(|file| file.write_all_at(&[0xff; 4096], length - 4096));
    write.expect("damaged");

    let error = check(&path).expect_err("damaged");

    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    drop(home);
}
