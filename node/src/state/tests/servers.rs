//! Foreign Syft servers: which of the keys that a server names counts.

use super::*;
use crate::{
    proto::{mesh::NodeName, syft::UserId},
    state::post::{Ask, ToServer, Told},
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
) -> (Option<syft::PublicKey>, Vec<Output>) {
    let user: UserId = user.parse().expect("a user id");
    let server = server();
    let ask = Ask::Server(ToServer::Pin { server, user, key });
    let outputs = feed(state, Input::Control(RequestId(7), ask.into()));
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
    assert_eq!(named(&mut state, "alice", key(1)).0, Some(key(1)));

    let (counts, outputs) = named(&mut state, "alice", key(2));
    assert_eq!(counts, Some(key(1)));
    assert!(is_shown(&outputs));
    let (counts, outputs) = named(&mut state, "alice", key(2));
    assert_eq!(counts, Some(key(1)));
    assert!(!is_shown(&outputs), "it is told once");

    let peer = "alice@hub".to_owned();
    feed(
        &mut state,
        Input::Control(RequestId(8), Command::Trust { peer }),
    );
    assert_eq!(named(&mut state, "alice", key(2)).0, Some(key(2)));
    let (counts, outputs) = named(&mut state, "alice", key(1));
    assert_eq!(counts, Some(key(2)), "the earlier key is as foreign as any");
    assert!(is_shown(&outputs));
}

#[test]
fn the_keys_of_a_server_are_bounded() {
    let mut state = client();
    for number in 0..4096 {
        let user = format!("user-{number}");
        assert_eq!(named(&mut state, &user, key(1)).0, Some(key(1)), "{user}");
    }
    assert_eq!(named(&mut state, "alice", key(1)).0, None);
}
