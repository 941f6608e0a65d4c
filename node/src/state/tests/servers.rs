//! Foreign Syft servers: which of the keys that a server names counts.

use super::*;
use crate::{
    proto::{mesh::NodeName, syft::UserId},
    state::post::{Ask, NotPinned, ToServer, Told},
};

fn server() -> NodeName {
    "hub".parse().expect("a name")
}

fn key(seed: u8) -> syft::PublicKey {
    *syft::SigningKey::from_seed(&[seed; 32]).public()
}

/// A client of the server `hub`.
fn client() -> State {
    state(Settings {
        servers: vec![server()],
        ..Settings::default()
    })
}

/// Has the server name a key of a user; returns which counts.
fn named(
    state: &mut State,
    user: &str,
    key: syft::PublicKey,
) -> (Result<syft::PublicKey, NotPinned>, Vec<Output>) {
    let user: UserId = user.parse().expect("a user id");
    let server = server();
    let ask = Ask::Server(ToServer::Pin { server, user, key });
    let outputs = carried_out(state, ask.into());
    let pinned = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Told(Told::Pinned(pinned)))) => Some(*pinned),
        _ => None,
    });
    (pinned.expect("an answer"), outputs)
}

fn is_shown(outputs: &[Output]) -> bool {
    let is_news = |output: &Output| matches!(output, Output::Event(Event::UserKeyChanged { name, .. }) if name == "alice@hub");
    outputs.iter().any(is_news)
}

#[test]
fn the_first_key_that_a_server_names_counts_until_a_person_takes_another() {
    let mut state = client();
    assert_eq!(named(&mut state, "alice", key(1)).0, Ok(key(1)));

    let (counts, outputs) = named(&mut state, "alice", key(2));
    assert_eq!(counts, Ok(key(1)));
    assert!(is_shown(&outputs));
    let (counts, outputs) = named(&mut state, "alice", key(2));
    assert_eq!(counts, Ok(key(1)));
    assert!(!is_shown(&outputs), "it is told once");

    let who = "alice@hub".to_owned();
    carried_out(&mut state, Command::Trust { who, name: false });
    assert_eq!(named(&mut state, "alice", key(2)).0, Ok(key(2)));
    let (counts, outputs) = named(&mut state, "alice", key(1));
    assert_eq!(counts, Ok(key(2)), "the earlier key is as foreign as any");
    assert!(is_shown(&outputs));
}

/// Fills the pins of the server with strangers.
fn fill(state: &mut State, count: usize) {
    for number in 0..count {
        let user = format!("user-{number}");
        assert_eq!(named(state, &user, key(1)).0, Ok(key(1)), "{user}");
    }
}

/// Accepts a message for a user of the server, and puts it on disk.
fn write_to(state: &mut State, user: &str) {
    let command = Command::Send {
        to: Recipients::Named(vec![format!("{user}@hub")]),
        text: "hello".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    };
    let ticket = stored(&feed(state, Input::Control(RequestId(9), command)));
    feed(state, Input::Stored(ticket));
}

/// Returns the users whose pins are forgotten.
fn forgotten(outputs: &[Output]) -> Vec<&str> {
    let records = outputs.iter().flat_map(|output| match output {
        Output::Store(_, records) => records.as_slice(),
        _ => &[],
    });
    let users = records.filter_map(|record| match record {
        Record::ForgetPin { user, .. } => Some(user.as_str()),
        _ => None,
    });
    users.collect()
}

#[test]
fn pins_of_strangers_give_way_and_those_of_users_who_were_written_to_stay() {
    let mut state = client();
    assert_eq!(named(&mut state, "alice", key(1)).0, Ok(key(1)));
    write_to(&mut state, "alice");
    write_to(&mut state, "bob");
    assert_eq!(named(&mut state, "bob", key(2)).0, Ok(key(2)));
    fill(&mut state, 4094);

    let (pinned, outputs) = named(&mut state, "carol", key(3));

    assert_eq!(pinned, Ok(key(3)));
    let forgotten = forgotten(&outputs);
    assert_eq!(forgotten.len(), 1);
    assert!(forgotten[0].starts_with("user-"), "{forgotten:?}");
    // Another key for them is still news.
    for (user, pinned) in [("alice", key(1)), ("bob", key(2))] {
        assert_eq!(named(&mut state, user, key(9)).0, Ok(pinned), "{user}");
    }
}

#[test]
fn the_keys_of_a_server_are_bounded_and_a_person_frees_a_place() {
    let mut state = client();
    for number in 0..4096 {
        write_to(&mut state, &format!("user-{number}"));
    }
    fill(&mut state, 4096);
    assert_eq!(named(&mut state, "alice", key(1)).0, Err(NotPinned::Full));

    let forget = |state: &mut State, user: &str| {
        let user = user.to_owned();
        carried_out(state, Ask::Forget { user }.into())
    };
    let outputs = forget(&mut state, "user-7@hub");
    assert_eq!(forgotten(&outputs), ["user-7"]);

    assert_eq!(named(&mut state, "alice", key(1)).0, Ok(key(1)));
    let outputs = forget(&mut state, "user-7@hub");
    let is_error = |output: &Output| matches!(output, Output::Reply(_, Err(_)));
    assert!(outputs.iter().any(is_error), "{outputs:?}");
}

#[test]
fn a_name_that_could_be_taken_for_another_is_not_pinned() {
    let mut state = client();
    for user in ["al\u{200b}ice", "\u{202e}ecila", "\u{430}lice"] {
        assert_eq!(named(&mut state, user, key(1)).0, Err(NotPinned::Name));
    }
}
