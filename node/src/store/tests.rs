//! What was completed is there after a restart, whatever happened to the tail of the log.

mod date;

use std::sync::mpsc::{Receiver, channel};

use libp2p_identity::PeerId;
use rusqlite::Connection;

use super::*;
use crate::{
    proto::{
        iid::Index,
        mesh::{Address, MessageId, peer_of_seed, vouched::Vouched},
        syft::letter::Fingerprint,
    },
    state::{
        io::{ClientName, Encoding, ForClient, Incoming, Invite, Outcome, Outgoing, Party, Via},
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
        match self.completions.recv().expect("a completion") {
            Completion::Stored(stored) => {
                assert_eq!(stored, ticket);
                true
            }
            Completion::Failed(failed, _) => {
                assert_eq!(failed, ticket);
                false
            }
        }
    }

    fn reopen(self) -> Self {
        let Self { home, store, .. } = self;
        drop(store);
        Self::at(home)
    }

    fn received(&self, after: Option<i64>, search: Option<&str>) -> Vec<Row> {
        let history = self.store.history().expect("a history");
        let query = Query {
            direction: Direction::Received,
            peer: None,
            user: None,
            since_ms: None,
            after,
            search: search.map(str::to_owned),
            limit: 100,
        };
        history.read(&query).expect("rows")
    }
}

fn peer() -> PeerId {
    peer_of_seed(1)
}

fn outgoing(number: u8) -> Outgoing {
    Outgoing {
        id: MessageId([number; 16]),
        recipient: peer(),
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
        vouched: "-5..7".parse().expect("legal"),
        used_by: Some(peer()),
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
    assert_eq!(loaded.invites, [invite]);
    assert_eq!(loaded.addresses, [(peer(), addresses)]);
    assert_eq!(loaded.pins, [(peer(), [4; 32], 3072)]);
    assert_eq!(loaded.outbox, [outgoing(2)]);
    assert_eq!(loaded.marks, [(peer(), u64::MAX, 3)]);
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
    let received = store.store.history().expect("a history").read(&Query {
        direction: Direction::Received,
        peer: Some(Party::Client(client.clone())),
        user: None,
        since_ms: None,
        after: None,
        search: None,
        limit: 10,
    });
    let received = received.expect("readable");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].peer, Party::Client(client));
    assert_eq!(received[0].via, "p2sn");
}

#[test]
fn a_store_of_the_first_format_is_taken_over() {
    let home = tempfile::tempdir().expect("a folder");
    let connection = Connection::open(home.path().join("pimesh.db")).expect("a database");
    let first = schema::MIGRATIONS[0];
    connection
        .execute_batch(&format!(
            "{first} PRAGMA application_id = 1886221160; PRAGMA user_version = 1;
             INSERT INTO outbox (id, recipient, epoch, sequence, created_ms, expires_ms)
             VALUES (x'07070707070707070707070707070707', x'{peer}', 5, 6, 1000, 2000);
             INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body)
             VALUES (x'07070707070707070707070707070707', 1, x'{peer}', 1000, 1000, 'direct', 'a');",
            peer = hex::encode(peer().to_bytes()),
        ))
        .expect("the first format");
    drop(connection);

    let mut store = Fixture::at(home);

    assert_eq!(store.loaded.outbox.len(), 1);
    assert_eq!(store.loaded.outbox[0].recipient, peer());
    assert!(store.write(vec![Record::ClientPin {
        address: "10.0.0.7".to_owned(),
        fingerprint: [1; 32],
        bits: 2048,
    }]));
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
    assert!(loaded.members.is_empty() && loaded.pins.is_empty());
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
        let Completion::Stored(ticket) = store.completions.recv().expect("one") else {
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
fn a_newer_and_a_foreign_store_are_refused() {
    for (pragma, value) in [("user_version", 99), ("application_id", 7)] {
        let store = Fixture::new();
        let path = store.home.path().join("pimesh.db");
        let Fixture { home, store, .. } = store;
        drop(store);
        let connection = Connection::open(&path).expect("the file");
        connection
            .pragma_update(None, pragma, value)
            .expect("written");
        drop(connection);

        let opened = Store::open(home.path(), |_| {});

        assert!(
            matches!(
                opened,
                Err(StoreError::Newer {
                    found: 99,
                    known: 5
                } | StoreError::Foreign(_))
            ),
            "{opened:?}"
        );
    }
}

#[test]
fn an_invite_of_the_first_version_gives_what_members_vouch_for_by_default() {
    let home = tempfile::tempdir().expect("a folder");
    let connection = Connection::open(home.path().join("pimesh.db")).expect("a file");
    connection
        .execute_batch(&format!(
            "{} PRAGMA application_id = {}; PRAGMA user_version = 1;",
            schema::MIGRATIONS[0],
            schema::APPLICATION_ID
        ))
        .expect("the first version");
    connection
        .execute(
            "INSERT INTO invites VALUES (?1, 5, 'pi-2', -2, x'')",
            [[1; 32]],
        )
        .expect("written");
    drop(connection);

    let (_store, loaded) = Store::open(home.path(), |_| {}).expect("migrated");

    assert_eq!(
        loaded.invites,
        [Invite {
            secret_hash: [1; 32],
            expires_ms: 5,
            name: Some("pi-2".to_owned()),
            index: Index(-2),
            vouched: Vouched::ALL,
            used_by: None,
        }]
    );
}

#[test]
fn history_is_searched_and_followed_without_gaps() {
    let mut store = Fixture::new();
    store.write(vec![
        Record::Incoming(incoming(1, "Door open")),
        Record::Incoming(incoming(2, "100%")),
    ]);
    let seen = store.received(None, None);
    store.write(vec![Record::Incoming(incoming(3, "door shut"))]);

    let texts = |rows: Vec<Row>| rows.into_iter().map(|row| row.text).collect::<Vec<_>>();
    assert_eq!(texts(seen.clone()), ["Door open", "100%"]);
    assert_eq!(
        texts(store.received(Some(seen[1].row), None)),
        ["door shut"]
    );
    assert_eq!(
        texts(store.received(None, Some("door"))),
        ["Door open", "door shut"]
    );
    assert_eq!(texts(store.received(None, Some("%"))), ["100%"]);
}

#[test]
fn pruning_keeps_what_is_in_the_outbox_and_the_newest() {
    let mut store = Fixture::new();
    store.write(vec![Record::Outgoing(outgoing(1))]);
    for number in 2..10 {
        store.write(vec![Record::Incoming(incoming(number, "0123456789"))]);
    }

    store.write(vec![Record::Prune {
        before_ms: 0,
        bytes_max: 35,
    }]);
    let kept = store.received(None, None).len();
    store.write(vec![Record::Prune {
        before_ms: 5_000,
        bytes_max: u64::MAX >> 1,
    }]);

    assert_eq!(kept, 3, "\"out 1\" has 5 bytes, which leaves room for three times 10");
    assert!(store.received(None, None).is_empty());
    assert_eq!(store.reopen().loaded.outbox, [outgoing(1)]);
}

#[test]
fn pruning_deletes_no_more_than_it_has_to() {
    let mut store = Fixture::new();
    let records = (0..300).map(|number| {
        Record::Incoming(Incoming {
            id: id_of(number),
            text: format!("{number:04}").repeat(1024),
            ..incoming(1, "")
        })
    });
    store.write(records.collect());

    store.write(vec![Record::Prune {
        before_ms: 0,
        bytes_max: 1 << 20,
    }]);

    let rows = store.received(Some(0), None);
    assert_eq!(&rows[0].text[..4], "0044", "256 times 4 KiB are 1 MiB");
}

#[test]
fn a_torn_tail_of_the_log_loses_nothing_that_was_completed_before_it() {
    let mut store = Fixture::new();
    store.write(vec![Record::Outgoing(outgoing(1))]);
    let log = store.home.path().join("pimesh.db-wal");
    let complete = std::fs::metadata(&log).expect("a log").len();
    store.write(vec![Record::Outgoing(outgoing(2))]);
    let all = std::fs::metadata(&log).expect("a log").len();
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

        assert_eq!(outbox.first(), Some(&outgoing(1)), "cut at {cut}");
    }
}

fn letter(row: u64, user: &str) -> Record {
    Record::Letter(Box::new(LetterRecord {
        row,
        id: MessageId(row.to_be_bytes().repeat(2).try_into().expect("16 bytes")),
        user: (!user.is_empty()).then(|| user.parse().expect("an id")),
        sender: Some("alice".parse().expect("an id")),
        from: "alice".to_owned(),
        door: peer_of_seed(1),
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
