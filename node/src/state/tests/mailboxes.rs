//! What waits for users has a share of the disk for each who wrote it.

use super::{
    gateway::{ask, bring, done, gateway_with, hear, id, letter_of, post, ticket_of, told_user},
    *,
};
use crate::state::{
    io::{Disk, FailureKind},
    post::Ask,
};

/// A gateway with the users alice and bob, whose member with seed 2 is one, too, with carol.
fn gateways(history_bytes_max: u64) -> State {
    let mut state = gateway_with(Settings {
        history_bytes_max,
        ..Settings::default()
    });
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    state
}

fn posts(state: &mut State, from: &str, to: &str, number: u64) -> Result<(), FailureKind> {
    let posted = done(state, post(from, to, number));
    posted.map(drop).map_err(|failure| failure.kind)
}

/// Lets the member with seed 2 bring a text of its own.
fn bring_text(state: &mut State, sequence: u64, text: &str) -> Status {
    let request = message_saying(text, 2, 1, 2, sequence);
    receive(state, &request).0.unwrap_or(Status::Stored)
}

#[test]
fn what_a_member_brings_for_users_comes_out_of_its_share_of_a_day() {
    let mut state = gateways(4 * 4_000);
    let letter = |number| letter_of("carol", "bob", number, "carol");
    let each = letter(1).encode().len() + 256;

    let brought: Vec<Status> = (1..=8).map(|n| bring(&mut state, &letter(n), n)).collect();
    let text = bring_text(&mut state, 99, &"x".repeat(4_000 - 4_000 / each * each));

    let stored = brought.iter().filter(|s| **s == Status::Stored).count();
    assert_eq!(stored, 4_000 / each, "{brought:?}");
    assert_eq!(brought[7], Status::MailboxFull);
    assert_eq!(text, Status::MailboxFull, "it is one share");
    assert_eq!(posts(&mut state, "alice", "bob", 1), Ok(()));
}

#[test]
fn one_user_leaves_room_for_the_others_on_a_small_disk_and_what_was_taken_has_room_again() {
    let mut state = gateways(1 << 30);
    let disk = Disk {
        free_bytes: 1 << 30,
        size_bytes: 40_000,
        history_bytes: 0,
    };
    feed(&mut state, Input::Disk(disk));
    let fill = |state: &mut State, from: &str, to: &str, first: u64| {
        let numbers = (first..).take(100);
        let posted = numbers.take_while(|n| posts(state, from, to, *n).is_ok());
        posted.count()
    };

    let of_alice = fill(&mut state, "alice", "bob", 1);
    let of_bob = fill(&mut state, "bob", "alice", 1);
    let row = state.letters.last_row();
    let user = id("bob");
    ask(&mut state, Ask::Taken { user, row });
    let again = fill(&mut state, "alice", "bob", 200);

    // A quarter of the disk is for both; alice has half of that, and bob half of the rest.
    assert!((4..=8).contains(&of_alice), "{of_alice}");
    assert!((2..of_alice).contains(&of_bob), "{of_bob}");
    assert!((2..=of_alice).contains(&again), "{again}");
}

#[test]
fn a_thousand_broadcasts_of_one_user_push_out_his_own_and_no_other() {
    let mut state = gateways(1 << 30);
    let broadcast = letter_of("carol", "broadcast", 1, "carol");
    assert_eq!(bring(&mut state, &broadcast, 1), Status::Stored);
    assert_eq!(posts(&mut state, "bob", "broadcast", 1), Ok(()));
    for number in 1..=998 {
        assert_eq!(posts(&mut state, "alice", "broadcast", number), Ok(()));
    }

    let outputs = ask(&mut state, post("alice", "broadcast", 999));
    let ticket = outputs.iter().find_map(ticket_of).expect("a ticket");
    let outputs = feed(&mut state, Input::Stored(ticket));

    let gone = outputs.iter().find_map(|output| match output {
        Output::Store(_, records) => match &records[..] {
            [Record::LettersGone { rows }] => Some(rows.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(gone, Some(vec![3]), "the first one of alice");
}
