//! Who can write to whom: each cell of the table in README.md.

use super::{
    gateway::{done, gateway_with, hear_from, id, post, told_user, user_key},
    *,
};
use crate::{
    proto::{
        mesh::{
            ClientName,
            users::{Request as UsersRequest, ToldClient},
        },
        p2sn::Fingerprint,
        syft::letter::{Fingerprint as LetterFingerprint, Letter, LetterError},
    },
    state::{
        clients::Question,
        io::FailureKind,
        post::{Ask, Posted, ToServer, Told},
    },
};

/// A P2SN script at this node, and one at the member `pi-2`.
const SCRIPT: &str = "p2sn:10.0.0.7/0101010101010101";
const SCRIPT_THERE: &str = "p2sn:10.0.0.8/0202020202020202@pi-2";

/// Everybody to whom the node `pi-1` could write.
const EVERYBODY: [&str; 6] = [
    "pi-2",
    "alice",
    "carol",
    SCRIPT,
    SCRIPT_THERE,
    "dave@office",
];

/// The node `pi-1` with the users alice and bob, a P2SN script, a server, and the member `pi-2` with
/// the user carol and a P2SN script.
fn world() -> State {
    let mut state = gateway_with(Settings {
        servers: vec!["office".parse().expect("a name")],
        ..Settings::default()
    });
    let judge = Question::Judge {
        address: "10.0.0.7".parse().expect("an address"),
        fingerprint: Fingerprint([1; 32]),
        bits: 2048,
        strict: true,
    };
    carried_out(&mut state, Command::P2sn(judge));
    let name = SCRIPT_THERE.strip_suffix("@pi-2").expect("a full name");
    let request = UsersRequest {
        users: vec![told_user("carol", 1)],
        clients: vec![ToldClient {
            name: ClientName::new(name).expect("a name"),
            is_gone: false,
        }],
        ..UsersRequest::default()
    };
    let heard = hear_from(&mut state, 2, &request);
    for output in heard {
        if let Output::Store(ticket, _) = output {
            feed(&mut state, Input::Stored(ticket));
        }
    }
    state
}

fn replied(outputs: &[Output]) -> Result<Reply, FailureKind> {
    let reply = outputs.iter().find_map(|output| match output {
        Output::Reply(_, reply) => Some(reply.clone()),
        _ => None,
    });
    reply.expect("an answer").map_err(|failure| failure.kind)
}

#[test]
fn the_owner_of_a_node_writes_to_everybody() {
    let mut state = world();
    for to in EVERYBODY {
        let send = Command::Send {
            to: Recipients::Named(vec![to.to_owned()]),
            text: "hello".to_owned(),
            via: SendVia::Direct,
            expiry: None,
        };
        let outputs = carried_out(&mut state, send);
        let reply = replied(&outputs);
        assert!(matches!(reply, Ok(Reply::Accepted(_))), "{to}: {reply:?}");
    }
}

#[test]
fn who_lists_everybody_but_servers_users_who_never_wrote() {
    let mut state = world();
    let outputs = carried_out(&mut state, Command::Who);
    let Ok(Reply::Who(who)) = replied(&outputs) else {
        panic!("a list")
    };
    let names: Vec<&str> = who.iter().map(|who| who.name.as_str()).collect();
    for name in EVERYBODY.iter().filter(|name| **name != "dave@office") {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
}

#[test]
fn a_syft_user_writes_to_nodes_and_users_of_the_mesh() {
    let mut state = world();
    for (number, to) in ["bob", "carol"].into_iter().enumerate() {
        let number = u64::try_from(number).expect("small");
        let posted = done(&mut state, post("alice", to, number));
        assert_eq!(posted, Ok(Told::Posted(Posted::Accepted)), "{to}");
    }
    for (seed, to) in [(1, "pi-1"), (2, "pi-2")] {
        let letter = Letter::of(of_alice(to, messaging_key(seed).public())).expect("a letter");
        let ask = Ask::Post {
            user: id("alice"),
            letter: Box::new(letter),
        };
        assert_eq!(
            done(&mut state, ask),
            Ok(Told::Posted(Posted::Accepted)),
            "{to}"
        );
    }
}

#[test]
fn a_syft_user_writes_neither_to_scripts_nor_to_users_of_servers() {
    let mut state = world();
    let to_server = done(&mut state, post("alice", "dave@office", 1));
    let kind = to_server.map_err(|failure| failure.kind);
    assert_eq!(kind, Err(FailureKind::NotFound));
    // The id of a user has no `/`, so a frame that names a script is not one.
    let letter = Letter::of(of_alice(SCRIPT, messaging_key(1).public()));
    assert_eq!(letter, Err(LetterError::Name));
}

fn of_alice(to: &str, key: &syft::PublicKey) -> syft::Message {
    let chance = &mut rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let content = syft::seal("hello", key, &syft::SealChance::from_rng(chance));
    let unix_ms = NOW.unix_ms() + 400;
    syft::Message::signed("alice", to, content, unix_ms, &user_key("alice"))
}

#[test]
fn a_script_writes_to_whom_deliver_to_names() {
    let mut state = world();
    for to in [
        None,
        Some("pi-1"),
        Some("pi-2"),
        Some("alice"),
        Some("carol"),
        Some("dave@office"),
    ] {
        let deliver = Question::Deliver {
            client: ClientName::new(SCRIPT).expect("a name"),
            to: to.map(str::to_owned),
            bytes: b"hello".to_vec(),
        };
        let reply = replied(&carried_out(&mut state, Command::P2sn(deliver)));
        assert!(reply.is_ok(), "{to:?}: {reply:?}");
    }
}

#[test]
fn a_user_of_a_server_writes_to_the_node_that_is_a_user_there() {
    let mut state = world();
    let received = Ask::Server(ToServer::Received {
        server: "office".parse().expect("a name"),
        from: id("dave"),
        text: "hello".to_owned(),
        fingerprint: LetterFingerprint([1; 16]),
    });
    assert_eq!(done(&mut state, received), Ok(Told::Done));
    assert_eq!(state.messages.received(), 1);
}
