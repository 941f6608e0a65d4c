//! What was completed is there after a restart, whatever happened to the tail of the log.

mod date;
mod formats;
mod history;

use std::{
    collections::BTreeSet,
    sync::mpsc::{Receiver, channel},
};

use libp2p_identity::PeerId;

use super::*;
use crate::{
    proto::{
        iid::Index,
        mesh::{Address, MessageId, peer_of_seed},
        syft::letter::Fingerprint,
    },
    state::{
        io::{
            ClientName, Encoding, ForClient, Gateway, GatewayRecord, Incoming, Invite, Outcome,
            Outgoing, Party, RecordChange, RecordKey, RecordValue, Selection, Via, Way,
        },
        post::LetterRecord,
    },
};

struct Fixture {
    home: tempfile::TempDir,
    store: Store,
    loaded: Loaded,
    completions: Receiver<Completion>,
    next: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::at(tempfile::tempdir().expect("a folder"))
    }

    fn at(home: tempfile::TempDir) -> Self {
        let (sender, completions) = channel();
        let done = move |completion| drop(sender.send(completion));
        let (store, loaded) = Store::open(home.path(), done).expect("a store");
        Self {
            home,
            store,
            loaded,
            completions,
            next: 0,
        }
    }

    fn write(&mut self, records: Vec<Record>) -> bool {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.store
            .write(ticket, records)
            .expect("room in the queue");
        match self.completion() {
            Completion::Stored(stored) => {
                assert_eq!(stored, ticket);
                true
            }
            Completion::Failed(failed, _) => {
                assert_eq!(failed, ticket);
                false
            }
            Completion::Measured(_) => unreachable!("passed over"),
        }
    }

    /// Returns the next completion of a ticket.
    fn completion(&self) -> Completion {
        let mut completions = self.completions.iter();
        let of_ticket = |completion: &Completion| !matches!(completion, Completion::Measured(_));
        completions.find(of_ticket).expect("a completion")
    }

    fn reopen(self) -> Self {
        let Self { home, store, .. } = self;
        drop(store);
        Self::at(home)
    }

    /// Returns what was received, as much as one page holds.
    fn received(&self) -> Vec<Row> {
        self.found(&Selection::default())
    }

    fn found(&self, selection: &Selection) -> Vec<Row> {
        let history = self.store.history().expect("a history");
        history.page(selection, 0, 1000).expect("rows")
    }
}

fn peer() -> PeerId {
    peer_of_seed(1)
}

fn outgoing(number: u8) -> Outgoing {
    Outgoing {
        id: MessageId([number; 16]),
        recipient: peer().into(),
        epoch: u64::MAX,
        sequence: u64::from(number),
        created_ms: 1_000,
        expires_ms: 2_000,
        kind: crate::state::io::OutgoingKind::Member,
        text: format!("out {number}"),
    }
}

fn incoming(number: u8, text: &str) -> Incoming {
    Incoming {
        id: MessageId([number; 16]),
        sender: Party::Member(peer()),
        user: None,
        mark: Some((u64::MAX, u64::from(number))),
        created_ms: 1_000,
        received_ms: 1_001,
        via: Via::Direct,
        text: text.to_owned(),
        encoding: Encoding::Utf8,
    }
}

#[test]
fn every_kind_of_record_is_there_after_a_restart() {
    let invite = Invite {
        secret_hash: [1; 32],
        expires_ms: 5,
        name: Some("pi-2".to_owned()),
        index: Index(-2),
        further: "7,100..109".parse().expect("legal"),
        vouched: "-5..7".parse().expect("legal"),
        used_by: Some(peer()),
        cancelled: true,
    };
    let addresses = vec![
        Address::new("/ip4/10.0.0.2/tcp/1").expect("legal"),
        Address::new("/ip4/10.0.0.1/tcp/1").expect("legal"),
    ];
    let mut store = Fixture::new();
    assert!(store.write(vec![
        Record::JoinedMesh {
            certificate: vec![1]
        },
        Record::Member {
            peer: peer(),
            certificate: vec![2]
        },
        Record::Revocation {
            peer: peer(),
            revocation: vec![3]
        },
        Record::Statement {
            kind: 2,
            peer: peer(),
            statement: vec![7],
        },
        Record::Statement {
            kind: 2,
            peer: peer(),
            statement: vec![8],
        },
        Record::Invite(invite.clone()),
        Record::Addresses {
            peer: peer(),
            addresses: addresses.clone()
        },
        Record::Pin {
            peer: peer(),
            fingerprint: [4; 32],
            bits: 3072
        },
        Record::Outgoing(outgoing(1)),
        Record::Outgoing(outgoing(2)),
        Record::Incoming(incoming(3, "in")),
    ]));
    assert!(store.write(vec![Record::Renewed {
        certificate: vec![9]
    }]));
    assert!(store.write(vec![Record::Outcome {
        id: MessageId([1; 16]),
        outcome: Outcome::Delivered,
        at_ms: 1_500,
    }]));

    let loaded = store.reopen().loaded;

    assert_eq!(loaded.certificate, Some(vec![9]));
    assert_eq!(loaded.members, [vec![2]]);
    assert_eq!(loaded.revocations, [vec![3]]);
    assert_eq!(loaded.statements, [vec![8]]);
    assert_eq!(loaded.invites, [invite]);
    assert_eq!(loaded.addresses, [(peer(), addresses)]);
    assert_eq!(loaded.pins, [(peer(), [4; 32], 3072)]);
    assert_eq!(loaded.outbox, [outgoing(2)]);
    assert_eq!(loaded.marks, [(peer(), u64::MAX, 3)]);
}

#[test]
fn history_keeps_the_name_that_a_member_had_when_each_message_came() {
    let name = |name: &str| Record::Name {
        peer: peer(),
        name: name.to_owned(),
    };
    let mut store = Fixture::new();
    store.write(vec![Record::Incoming(incoming(1, "before any name"))]);
    store.write(vec![name("pi-1")]);
    store.write(vec![Record::Incoming(incoming(2, "as pi-1"))]);
    store.write(vec![name("kitchen")]);
    store.write(vec![name("cellar")]);
    store.write(vec![Record::Incoming(incoming(3, "as cellar"))]);

    let store = store.reopen();

    let then = |row: Row| row.name_then;
    let named: Vec<String> = store.received().into_iter().map(then).collect();
    assert_eq!(named, ["pi-1", "pi-1", "cellar"]);
    let names = ["pi-1", "kitchen", "cellar"].map(|name| (peer(), name.to_owned()));
    assert_eq!(store.loaded.names, names);
}

#[test]
fn no_more_names_of_a_member_are_kept_than_are_remembered() {
    let mut store = Fixture::new();
    for number in 0..40 {
        let name = format!("name-{number}");
        store.write(vec![Record::Name { peer: peer(), name }]);
    }

    let loaded = store.reopen().loaded;

    assert_eq!(loaded.names.len(), 16);
    assert_eq!(loaded.names[15].1, "name-39");
}

#[test]
fn what_is_known_of_clients_is_there_after_a_restart() {
    let client = ClientName::new("p2sn:10.0.0.7/abababababababab").expect("a name");
    let answer = |number: u8| ForClient {
        id: MessageId([number; 16]),
        client: client.clone(),
        created_ms: 1_000,
        expires_ms: 2_000,
        text: format!("{number:02x}ff"),
        encoding: Encoding::Hex,
    };
    let pin = |address: &str, byte: u8| Record::ClientPin {
        address: address.to_owned(),
        fingerprint: [byte; 32],
        bits: 2048,
    };
    let mut store = Fixture::new();
    assert!(store.write(vec![
        pin("10.0.0.7", 9),
        pin("10.0.0.7", 1),
        pin("10.0.0.8", 2),
        Record::ForgetClientPin {
            address: "10.0.0.8".to_owned(),
            fingerprint: [2; 32],
        },
        Record::ForClient(answer(1)),
        Record::Outgoing(outgoing(2)),
        Record::ForClient(answer(3)),
        Record::Incoming(Incoming {
            sender: Party::Client(client.clone()),
            mark: None,
            via: Via::P2sn,
            ..incoming(4, "from a client")
        }),
        Record::Outcome {
            id: MessageId([1; 16]),
            outcome: Outcome::Delivered,
            at_ms: 1_500,
        },
    ]));

    let store = store.reopen();

    let pins = [9, 1].map(|byte| ("10.0.0.7".to_owned(), [byte; 32], 2048));
    assert_eq!(store.loaded.client_pins, pins);
    assert_eq!(store.loaded.for_clients, [answer(3)]);
    assert_eq!(store.loaded.outbox, [outgoing(2)]);
    let received = store.found(&Selection {
        peer: Some(Party::Client(client.clone())),
        ..Selection::default()
    });
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].peer, Party::Client(client));
    assert_eq!(received[0].via, "p2sn");
}

#[test]
fn entering_another_mesh_forgets_the_first_one() {
    let mut store = Fixture::new();
    store.write(vec![
        Record::JoinedMesh {
            certificate: vec![1],
        },
        Record::Member {
            peer: peer(),
            certificate: vec![2],
        },
        Record::Statement {
            kind: 1,
            peer: peer(),
            statement: vec![3],
        },
        Record::Name {
            peer: peer(),
            name: "pi-2".to_owned(),
        },
        Record::Pin {
            peer: peer(),
            fingerprint: [4; 32],
            bits: 3072,
        },
    ]);

    store.write(vec![Record::JoinedMesh {
        certificate: vec![9],
    }]);

    let loaded = store.reopen().loaded;
    assert_eq!(loaded.certificate, Some(vec![9]));
    assert!(loaded.members.is_empty() && loaded.statements.is_empty());
    assert_eq!(
        (loaded.pins.len(), loaded.names.len()),
        (1, 1),
        "these stay"
    );
}

#[test]
fn each_gateway_has_records_of_its_own() {
    let mut store = Fixture::new();
    let key = |name: &str| RecordKey::new(name).expect("short");
    let record = |name: &str, value: &str, ends_ms| GatewayRecord {
        key: key(name),
        value: RecordValue::new(value).expect("short"),
        ends_ms,
    };
    let put = |gateway, record| Record::OfGateway(gateway, RecordChange::Put(record));
    store.write(vec![
        put(Gateway::Syft, record("a", "one", Some(u64::MAX))),
        put(Gateway::Iid, record("a", "two", None)),
        put(Gateway::Syft, record("b", "three", None)),
    ]);

    store.write(vec![
        put(Gateway::Syft, record("a", "", Some(7))),
        Record::OfGateway(Gateway::Syft, RecordChange::Delete(key("b"))),
    ]);

    let loaded = store.reopen().loaded;
    let expected = [
        (Gateway::Iid, record("a", "two", None)),
        (Gateway::Syft, record("a", "", Some(7))),
    ];
    assert_eq!(loaded.records, expected);
}

#[test]
fn of_each_table_it_is_decided_whether_it_belongs_to_a_mesh() {
    let stay = [
        "client_pins",
        "gateway_records",
        "history",
        "letters",
        "marks",
        "meta",
        "names",
        // The state ends the messages to members with a record for each.
        "outbox",
        "pins",
        "seen",
        "totals",
        // The state forgets the users of other nodes with a record for each node.
        "users",
    ];
    let store = Fixture::new();
    let connection = rusqlite::Connection::open(store.home.path().join(FILE_NAME)).expect("a file");
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).expect("a schema");
    let names = statement.query_map([], |row| row.get(0)).expect("names");
    let tables: Result<BTreeSet<String>, _> = names.collect();

    let decided = stay.into_iter().chain(writer::TABLES_OF_A_MESH);
    let decided: BTreeSet<String> = decided.map(str::to_owned).collect();
    assert_eq!(tables.expect("names"), decided);
}

#[test]
fn a_ticket_that_fails_takes_no_other_with_it() {
    let mut store = Fixture::new();

    assert!(store.write(vec![Record::Outgoing(outgoing(1))]));
    assert!(!store.write(vec![
        Record::Outgoing(outgoing(2)),
        Record::Outgoing(outgoing(1))
    ]));
    assert!(store.write(vec![Record::Outgoing(outgoing(3))]));

    assert_eq!(store.reopen().loaded.outbox, [outgoing(1), outgoing(3)]);
}

#[test]
fn completions_come_in_the_order_of_the_tickets() {
    let store = Fixture::new();
    for ticket in 0..500 {
        let record = Record::Incoming(Incoming {
            id: id_of(ticket),
            ..incoming(1, "x")
        });
        store
            .store
            .write(Ticket(ticket), vec![record])
            .expect("room");
    }

    for expected in 0..500 {
        let Completion::Stored(ticket) = store.completion() else {
            panic!("ticket {expected} failed")
        };
        assert_eq!(ticket, Ticket(expected));
    }
}

fn id_of(number: u64) -> MessageId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    MessageId(id)
}

#[test]
fn a_second_process_on_the_same_home_is_refused() {
    let store = Fixture::new();

    let second = Store::open(store.home.path(), |_| {});

    assert!(matches!(second, Err(StoreError::Locked(_))), "{second:?}");
}

#[test]
fn a_torn_tail_of_the_log_loses_nothing_that_was_completed_before_it() {
    let mut store = Fixture::new();
    let log = store.home.path().join("pimesh.db-wal");
    let length = || std::fs::metadata(&log).expect("a log").len();
    // The log is written from its start again after the store was opened, so it grows only later.
    let (begins, mut written) = (length(), Vec::new());
    while length() == begins {
        written.push(outgoing(u8::try_from(written.len()).expect("it grows")));
        store.write(
            written
                .last()
                .cloned()
                .map(Record::Outgoing)
                .into_iter()
                .collect(),
        );
    }
    let complete = length();
    store.write(vec![Record::Outgoing(outgoing(255))]);
    let all = length();
    assert!(all > complete);

    for cut in (complete..=all).step_by(97) {
        let copy = tempfile::tempdir().expect("a folder");
        for file in ["pimesh.db", "pimesh.db-wal"] {
            std::fs::copy(store.home.path().join(file), copy.path().join(file)).expect("a copy");
        }
        let torn = OpenOptions::new()
            .write(true)
            .open(copy.path().join("pimesh.db-wal"));
        torn.and_then(|file| file.set_len(cut)).expect("cut");

        let outbox = Fixture::at(copy).loaded.outbox;

        assert!(outbox.starts_with(&written), "cut at {cut}");
    }
}

fn letter(row: u64, user: &str) -> Record {
    Record::Letter(Box::new(LetterRecord {
        row,
        id: MessageId(row.to_be_bytes().repeat(2).try_into().expect("16 bytes")),
        user: (!user.is_empty()).then(|| user.parse().expect("an id")),
        sender: Some("alice".parse().expect("an id")),
        from: "alice".to_owned(),
        node: peer_of_seed(1),
        at_ms: 1,
        fingerprint: Fingerprint(row.to_be_bytes().repeat(2).try_into().expect("16 bytes")),
        bytes: 4,
        frame: format!("{{{row}}}"),
    }))
}

#[test]
fn a_user_s_letters_are_read_in_order_and_a_batch_says_whether_it_was_cut() {
    let mut store = Fixture::new();
    let mut records: Vec<Record> = (1..=64).map(|row| letter(row, "bob")).collect();
    records.extend([letter(65, "carol"), letter(66, ""), letter(67, "bob")]);
    assert!(store.write(records));
    let letters = store.store.letters().expect("letters");
    let read = |user: &str, after| {
        let batch = letters.read(&user.parse().expect("an id"), after);
        let batch = batch.expect("rows");
        let rows: Vec<u64> = batch.letters.iter().map(|(row, _)| *row).collect();
        (rows, batch.is_cut)
    };

    assert_eq!(read("bob", 0), ((1..=64).collect(), true));
    assert_eq!(read("bob", 64), (vec![66, 67], false));
    assert_eq!(read("bob", 67), (vec![], false));
    assert_eq!(read("alice", 0), (vec![], false));
}

#[test]
fn letters_that_came_while_the_clock_was_not_set_keep_the_date_that_they_get() {
    let mut store = Fixture::new();
    let unix_ms = crate::state::CLOCK_SET_MS + 1_000;
    store.write(vec![letter(1, "bob"), Record::Restamp { unix_ms }]);
    let later = unix_ms + 86_400_000;
    store.write(vec![letter(2, "bob"), Record::Restamp { unix_ms: later }]);

    let letters = store.reopen().loaded.letters;

    let dates: Vec<u64> = letters.iter().map(|letter| letter.at_ms).collect();
    assert_eq!(dates, [unix_ms, later], "and not anew at each start");
}

#[test]
fn a_store_that_was_in_use_and_lacks_its_log_is_noticed() {
    let mut store = Fixture::new();
    store.write(vec![letter(1, "bob")]);
    let in_use = store.home.path().join(FILE_NAME);
    // What a power cut or a copy finds, with a file in the place of the log.
    let lacks = |log: Option<&[u8]>| {
        let copy = tempfile::tempdir().expect("a folder");
        let path = copy.path().join("a #1%20?").join(FILE_NAME);
        std::fs::create_dir(path.parent().expect("a folder")).expect("made");
        std::fs::copy(&in_use, &path).expect("copied");
        if let Some(log) = log {
            std::fs::write(path.with_extension("db-wal"), log).expect("written");
        }
        lacks_log(&path)
    };
    let log = std::fs::read(in_use.with_extension("db-wal")).expect("a log");

    assert!(!lacks(Some(&log)));
    assert!(lacks(None) && lacks(Some(b"")) && lacks(Some(&[7; 4096])));

    let store = store.reopen();
    assert_eq!(store.loaded.letters.len(), 1);
    let closed = store.home.path().join(FILE_NAME);
    drop(store.store);
    assert!(!lacks_log(&closed), "closed, a store needs no log");
}

#[test]
fn a_mesh_that_was_joined_does_not_hang_on_the_log() {
    let mut store = Fixture::new();
    let certificate = b"a certificate".to_vec();
    store.write(vec![Record::JoinedMesh {
        certificate: certificate.clone(),
    }]);
    // The copy follows what is said to be on disk: a second write comes behind it.
    store.write(vec![letter(1, "bob")]);
    let copy = tempfile::tempdir().expect("a folder");
    let path = copy.path().join(FILE_NAME);
    std::fs::copy(store.home.path().join(FILE_NAME), path).expect("copied");
    assert!(lacks_log(&copy.path().join(FILE_NAME)));

    forget_log(copy.path()).expect("forgotten");

    assert_eq!(Fixture::at(copy).loaded.certificate, Some(certificate));
}

/// Copies a store as a power cut leaves it, with its log.
fn killed(store: &Fixture) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["pimesh.db", "pimesh.db-wal"] {
        std::fs::copy(store.home.path().join(file), copy.path().join(file)).expect("a copy");
    }
    copy
}

#[test]
fn no_reader_removes_the_log() {
    let mut store = Fixture::new();
    store.write(vec![letter(1, "bob")]);
    let copy = killed(&store);
    let path = copy.path().join(FILE_NAME);

    let reader = schema::open_reader(&path).expect("a reader");
    let letters = reader.query_row("SELECT count(*) FROM letters", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(letters, Ok(1));
    drop(reader);

    assert!(path.with_extension("db-wal").exists() && !lacks_log(&path));
    assert_eq!(Fixture::at(copy).loaded.letters.len(), 1);
}

#[test]
fn a_store_that_cannot_be_loaded_keeps_its_log() {
    let mut store = Fixture::new();
    store.write(vec![letter(1, "bob")]);
    let copy = killed(&store);
    let path = copy.path().join(FILE_NAME);
    let reader = schema::open_reader(&path).expect("a connection");
    let wrong = "INSERT INTO pins VALUES (x'0102', x'03', 1)";
    reader.execute(wrong, []).expect("written");
    drop(reader);

    for _ in 0..2 {
        let damaged = Store::open(copy.path(), |_| ()).expect_err("an illegal row");
        assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
        assert!(!lacks_log(&path), "and not for want of a log");
    }
}

#[test]
fn a_copy_of_an_earlier_format_is_whole_without_a_log() {
    let store = Fixture::new();
    let copy = killed(&store);
    let path = copy.path().join(FILE_NAME);
    let earlier = schema::open_reader(&path).expect("a connection");
    let format = i64::try_from(migrate::MIGRATIONS.len() - 1).expect("few");
    earlier
        .pragma_update(None, "user_version", format)
        .expect("set");
    // What the last step changes.
    earlier
        .execute_batch(
            "DROP TABLE gateway_records; CREATE TABLE revoked_tokens \
             (token BLOB PRIMARY KEY, until_ms INTEGER NOT NULL) STRICT;",
        )
        .expect("taken back");
    drop(earlier);

    let updated = Fixture::at(copy);

    let made = updated.store.copy().expect("it was made").clone();
    assert!(!lacks_log(&made.expect("there was room")));
}
