//! The history: read in pages, pruned, and deleted.

use super::*;
use crate::state::CLOCK_SET_MS;

fn texts(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.text.as_str()).collect()
}

/// A message of the member with this seed, with a text of so many bytes.
fn incoming_of(seed: u8, number: u64, bytes: usize) -> Record {
    Record::Incoming(Incoming {
        id: id_of(number),
        sender: Party::Member(peer_of_seed(seed)),
        mark: Some((1, number)),
        text: "x".repeat(bytes),
        ..incoming(1, "")
    })
}

fn prune(store: &mut Fixture, bytes_max: u64) {
    let before_ms = 0;
    assert!(store.write(vec![Record::Prune {
        before_ms,
        bytes_max
    }]));
}

/// Returns how many messages of the member with this seed there are.
fn count_of(store: &Fixture, seed: u8) -> usize {
    let of_member = Selection {
        peer: Some(Party::Member(peer_of_seed(seed))),
        ..Selection::default()
    };
    store.found(&of_member).len()
}

#[test]
fn history_is_searched_and_followed_without_gaps() {
    let mut store = Fixture::new();
    store.write(vec![
        Record::Incoming(incoming(1, "Door open")),
        Record::Incoming(incoming(2, "100%")),
    ]);
    let seen = store.received();
    store.write(vec![Record::Incoming(incoming(3, "door shut"))]);

    let history = store.store.history().expect("a history");
    let search = |text: &str| {
        store.found(&Selection {
            search: Some(text.to_owned()),
            ..Selection::default()
        })
    };
    let behind = history.page(&Selection::default(), seen[1].row, 9);
    assert_eq!(texts(&seen), ["Door open", "100%"]);
    assert_eq!(texts(&behind.expect("rows")), ["door shut"]);
    assert_eq!(texts(&search("door")), ["Door open", "door shut"]);
    assert_eq!(texts(&search("%")), ["100%"]);
}

#[test]
fn a_page_is_bounded_in_bytes_and_in_rows_and_all_pages_together_are_everything() {
    for (count, bytes, largest) in [(600, 1, 256), (20, 200 * 1024, 3), (3, 1024 * 1024, 1)] {
        let mut store = Fixture::new();
        let records = (0..count).map(|number| incoming_of(2, number, bytes));
        assert!(store.write(records.collect()));
        let history = store.store.history().expect("a history");

        let (mut after, mut sizes) = (0, Vec::new());
        loop {
            let page = history.page(&Selection::default(), after, 1000);
            let page = page.expect("rows");
            let Some(last) = page.last() else { break };
            after = last.row;
            sizes.push(page.len());
        }

        assert_eq!(
            sizes.iter().max(),
            Some(&largest),
            "{count} of {bytes} bytes"
        );
        assert_eq!(sizes.iter().sum::<usize>() as u64, count);
    }
}

#[test]
fn the_last_messages_are_found_however_many_there_are() {
    let mut store = Fixture::new();
    store.write((1..=1500).map(|number| incoming_of(2, number, 1)).collect());
    let history = store.store.history().expect("a history");
    let all = Selection::default();

    assert_eq!(history.before_last(&all, 1200).expect("a row"), 300);
    assert_eq!(history.before_last(&all, 1500).expect("a row"), 0);
    assert_eq!(history.before_last(&all, u64::MAX).expect("a row"), 0);
}

#[test]
fn messages_are_found_by_the_time_at_which_they_came() {
    let mut store = Fixture::new();
    for at in [10, 20, 30] {
        store.write(vec![Record::Incoming(Incoming {
            received_ms: at,
            ..incoming(u8::try_from(at).expect("small"), &at.to_string())
        })]);
    }

    let found = store.found(&Selection {
        since_ms: Some(20),
        before_ms: Some(30),
        ..Selection::default()
    });

    assert_eq!(texts(&found), ["20"]);
}

#[test]
fn two_senders_may_use_the_same_message_id() {
    let mut store = Fixture::new();

    assert!(store.write(vec![incoming_of(2, 7, 1)]));
    assert!(store.write(vec![incoming_of(3, 7, 1)]));

    let ids: Vec<MessageId> = store.received().iter().map(|row| row.id).collect();
    assert_eq!(ids, [id_of(7), id_of(7)]);
}

#[test]
fn the_same_message_once_more_is_stored_and_there_once() {
    let mut store = Fixture::new();

    assert!(store.write(vec![incoming_of(2, 7, 1)]));
    assert!(store.write(vec![incoming_of(2, 7, 1)]));

    assert_eq!(store.received().len(), 1);
}

#[test]
fn only_the_recipient_can_say_that_a_message_was_read() {
    let mut store = Fixture::new();
    store.write(vec![Record::Outgoing(outgoing(1))]);
    let outcome = |store: &Fixture| {
        let sent = Selection {
            way: Way::Sent,
            ..Selection::default()
        };
        store.found(&sent)[0].outcome.clone()
    };

    let id = MessageId([1; 16]);
    store.write(vec![Record::Read {
        id,
        recipient: peer_of_seed(3),
    }]);
    let after_another = outcome(&store);
    store.write(vec![Record::Read {
        id,
        recipient: peer(),
    }]);

    assert_eq!(
        (after_another.as_str(), outcome(&store).as_str()),
        ("", "read")
    );
}

#[test]
fn pruning_keeps_what_is_in_the_outbox_and_the_newest() {
    let mut store = Fixture::new();
    store.write(vec![Record::Outgoing(outgoing(1))]);
    for number in 2..10 {
        store.write(vec![Record::Incoming(Incoming {
            received_ms: CLOCK_SET_MS + 1_001,
            ..incoming(number, "0123456789")
        })]);
    }

    prune(&mut store, 261 + 3 * 266);
    let kept = store.received().len();
    store.write(vec![Record::Prune {
        before_ms: CLOCK_SET_MS + 5_000,
        bytes_max: u64::MAX >> 1,
    }]);

    assert_eq!(kept, 3, "and \"out 1\", which waits");
    assert!(store.received().is_empty());
    assert_eq!(store.reopen().loaded.outbox, [outgoing(1)]);
}

#[test]
fn what_came_while_the_clock_was_not_set_is_no_older_than_the_date_that_it_gets() {
    let mut store = Fixture::new();
    let [set, later, much_later] = [1, 2, 3].map(|days| CLOCK_SET_MS + days * 86_400_000);
    store.write(vec![
        Record::Incoming(incoming(1, "in 1970")),
        Record::Incoming(Incoming {
            received_ms: set,
            ..incoming(2, "since")
        }),
    ]);
    let prune = |before_ms| Record::Prune {
        before_ms,
        bytes_max: u64::MAX >> 1,
    };

    store.write(vec![prune(set)]);
    let undated = store.received().len();
    store.write(vec![Record::Restamp { unix_ms: later }, prune(later)]);
    let dated: Vec<_> = store.received().iter().map(|row| row.at_ms).collect();
    store.write(vec![prune(much_later)]);

    assert_eq!((undated, dated), (2, vec![later]));
    assert!(store.received().is_empty(), "it ages like all others");
}

#[test]
fn pruning_deletes_the_oldest_and_no_more_than_it_has_to() {
    let mut store = Fixture::new();
    store.write(
        (1..=300)
            .map(|number| incoming_of(2, number, 4096))
            .collect(),
    );

    prune(&mut store, 256 * (4096 + 256));

    let history = store.store.history().expect("a history");
    assert_eq!(
        history
            .before_last(&Selection::default(), 256)
            .expect("a row"),
        0
    );
    assert_eq!(store.received()[0].row, 45, "256 of 300 have room");
}

#[test]
fn a_message_without_text_weighs_something() {
    let mut store = Fixture::new();
    store.write((1..=300).map(|number| incoming_of(2, number, 0)).collect());

    prune(&mut store, 100 * crate::state::ROW_BYTES);

    assert_eq!(store.received().len(), 100);
}

#[test]
fn the_sender_that_has_most_is_pruned_first() {
    let mut store = Fixture::new();
    store.write((1..=5).map(|number| incoming_of(2, number, 744)).collect());
    store.write((1..=30).map(|number| incoming_of(3, number, 744)).collect());
    store.write((1..=20).map(|number| incoming_of(4, number, 744)).collect());

    prune(&mut store, 25_000);
    let first = [2, 3, 4].map(|seed| count_of(&store, seed));
    prune(&mut store, 12_000);
    let second = [2, 3, 4].map(|seed| count_of(&store, seed));

    assert_eq!(first, [5, 10, 10]);
    assert_eq!(second, [4, 4, 4]);
}

#[test]
fn clients_have_one_share_together_because_names_are_free() {
    let mut store = Fixture::new();
    store.write((1..=3).map(|number| incoming_of(2, number, 744)).collect());
    let of_clients = (1..=9).map(|number: u8| {
        let name = format!("p2sn:10.0.0.{number}/abababababababab");
        Record::Incoming(Incoming {
            sender: Party::Client(ClientName::new(name).expect("a name")),
            mark: None,
            text: "x".repeat(744),
            ..incoming(number, "")
        })
    });
    store.write(of_clients.collect());

    prune(&mut store, 6_000);

    assert_eq!((count_of(&store, 2), store.received().len()), (3, 6));
}

#[test]
fn a_person_deletes_what_was_meant_and_nothing_that_came_since_or_waits() {
    let mut store = Fixture::new();
    store.write(vec![
        incoming_of(2, 1, 1),
        incoming_of(3, 2, 1),
        incoming_of(3, 1, 1),
    ]);
    store.write(vec![Record::Outgoing(outgoing(4))]);
    let history = store.store.history().expect("a history");
    let of_three = Selection {
        peer: Some(Party::Member(peer_of_seed(3))),
        ..Selection::default()
    };
    let one = Selection {
        id: Some(id_of(1)),
        ..of_three.clone()
    };
    let sent = Selection {
        way: Way::Sent,
        ..Selection::default()
    };
    assert_eq!(history.count_deletable(&one).expect("a count"), (1, 3));
    assert_eq!(history.count_deletable(&sent).expect("a count"), (0, 0));

    store.write(vec![Record::DeleteHistory(one)]);
    assert_eq!(count_of(&store, 3), 1);
    store.write(vec![incoming_of(3, 5, 1)]);
    store.write(vec![
        Record::DeleteHistory(Selection {
            up_to: Some(3),
            ..of_three
        }),
        Record::DeleteHistory(sent),
    ]);

    assert_eq!((count_of(&store, 2), count_of(&store, 3)), (1, 1));
    assert_eq!(store.reopen().loaded.outbox, [outgoing(4)]);
}

#[test]
fn the_room_of_deleted_messages_goes_back_to_the_disk() {
    let mut store = Fixture::new();
    store.write(
        (1..=300)
            .map(|number| incoming_of(2, number, 32 * 1024))
            .collect(),
    );
    let length = |store: &Fixture| {
        let file = std::fs::metadata(store.home.path().join("pimesh.db"));
        file.expect("a file").len()
    };
    let before = length(&store);
    store.write(vec![Record::DeleteHistory(Selection::default())]);

    // It is measured at the start, and once no page is left to be given back.
    let mut after = length(&store);
    for _ in 0..3 {
        if after >= 2 << 20 {
            store.completions.recv().expect("a measurement");
            after = length(&store);
        }
    }
    assert!(
        before > 8 << 20 && after < 2 << 20,
        "{before} and then {after}"
    );
}
