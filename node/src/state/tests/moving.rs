//! A mesh is left whole: what belongs to it is neither told nor shown nor dialled in the next one,
//! and is not on the disk any more.

use super::{
    gateway::{done, hear as hear_users, id, told_user},
    *,
};
use crate::{
    proto::{
        mesh::{
            sync::{Copied, Response as SyncResponse},
            users::ToldUser,
        },
        p2sn::Fingerprint,
    },
    state::{
        io::{Place, ServerId, SessionId},
        post::{Ask, Told, UserRecord},
    },
};

/// Has member 2 do everything of which something stays in the state: a user, an integer, a clock, a
/// copy, a changed key, requests of no use, and a message that waits for it.
fn live_in_mesh(state: &mut State) -> MessageId {
    let opened = open(state);
    for (asked, _) in told(&opened) {
        let answer = SyncResponse {
            received_us: NOW.unix_us + 5_000_000,
            sent_us: NOW.unix_us + 5_000_000,
            boot: None,
        };
        let (id, result) = (asked, Ok(answer.encode()));
        feed(state, Input::Net(NetInput::Response { id, result }));
    }
    let elsewhere = ToldUser {
        online: true,
        ..told_user("bob", 5)
    };
    hear_users(state, vec![elsewhere]);
    hear(state, &[iid(2, 7)], head(1), NOW);
    let copied = SyncRequest {
        copied: vec![Copied {
            peer: peer_of_seed(2),
            age_ms: 0,
        }],
        ..SyncRequest::default()
    };
    sync(state, &copied, NOW);
    for key in [1, 2] {
        let shown = NetInput::P2snKey {
            session: SessionId::Theirs(key.into()),
            peer: peer_of_seed(2),
            fingerprint: Fingerprint([key; 32]),
            bits: 2048,
        };
        feed(state, Input::Net(shown));
    }
    let (_, ticket) = send(state, "hello");
    feed(state, Input::Stored(ticket.expect("records")));
    let waits = state.messages.waiting_for(peer_of_seed(2)).next();
    waits.expect("it waits").id
}

fn everybody(state: &mut State) -> Vec<String> {
    let Ok(Told::Everybody(users)) = done(state, Ask::Everybody) else {
        panic!("no list");
    };
    users.into_iter().map(|user| user.name).collect()
}

/// Says what there is of member 2 in the state.
fn traces(state: &mut State) -> Vec<String> {
    let mut traces = Vec::new();
    let status = state.status(NOW);
    traces.extend(status.copied.iter().map(|name| format!("copied: {name}")));
    let outbox = state.report_outbox();
    traces.extend(outbox.iter().map(|waits| format!("waits for {}", waits.to)));
    let last = state.report_last();
    traces.extend(last.iter().map(|last| format!("last: {}", last.index)));
    let users = everybody(state);
    let users = users.into_iter().filter(|name| name.contains("bob"));
    traces.extend(users.map(|name| format!("user {name}")));
    let peer = peer_of_seed(2);
    if state.sync.offset_us(&peer).is_some() {
        traces.push("its clock".to_owned());
    }
    if state.keys.changed(&peer).is_some() {
        traces.push("the key that was refused".to_owned());
    }
    if state.links.is_open(&peer) {
        traces.push("an open connection".to_owned());
    }
    if state.floods.rests(&peer, NOW) {
        traces.push("a rest".to_owned());
    }
    if !state.peers.addresses(&peer).is_empty() {
        traces.push("an address".to_owned());
    }
    let copied = state.all_sightings(NOW).1;
    traces.extend(copied.iter().map(|_| "told of copies".to_owned()));
    traces
}

const ALL: [&str; 9] = [
    "copied: pi-2",
    "waits for pi-2",
    "last: 2",
    "user bob",
    "its clock",
    "the key that was refused",
    "an open connection",
    "an address",
    "told of copies",
];

/// Returns what ends on the disk: users of gateways, and messages.
fn ended(records: &[Record]) -> (Vec<PeerId>, Vec<MessageId>) {
    let (mut gateways, mut messages) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::ForgetUsersOf { node } => gateways.push(*node),
            Record::Outcome { id, .. } => messages.push(*id),
            _ => {}
        }
    }
    (gateways, messages)
}

#[test]
fn nothing_of_a_mesh_is_left_after_leaving_it() {
    let mut state = state(Settings::default());
    let waiting = live_in_mesh(&mut state);
    assert_eq!(traces(&mut state), ALL);

    let (ticket, records) = leaving::leave_to_disk(&mut state);
    assert_eq!(traces(&mut state), ALL, "not before it is on the disk");
    let goodbye = feed(&mut state, Input::Stored(ticket));
    let early = traces(&mut state);
    // The answer to the goodbye comes from a clock of the old mesh.
    let answer = SyncResponse {
        received_us: NOW.unix_us,
        sent_us: NOW.unix_us,
        boot: None,
    };
    for (id, _) in told(&goodbye) {
        let result = Ok(answer.encode());
        feed(&mut state, Input::Net(NetInput::Response { id, result }));
    }

    assert_eq!(early, Vec::<String>::new());
    assert_eq!(traces(&mut state), Vec::<String>::new());
    assert_eq!(ended(&records), (vec![peer_of_seed(2)], vec![waiting]));
}

/// A node that was removed from its mesh, and its message that waits.
fn removed() -> (State, MessageId) {
    let mut state = state(Settings::default());
    let waiting = live_in_mesh(&mut state);
    let removed = mesh_key().revoke(peer_of_seed(1), NOW.unix_ms());
    let request = SyncRequest {
        revocations: vec![removed.encode()],
        ..SyncRequest::default()
    };
    sync(&mut state, &request, NOW);
    assert!(state.membership.is_revoked());
    let gone = NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "gone".to_owned(),
    };
    feed(&mut state, Input::Net(gone));
    (state, waiting)
}

#[test]
fn nothing_of_a_mesh_is_left_when_a_removed_node_joins_another_one() {
    let (mut state, waiting) = removed();

    let (records, ticket) = joining::join_to_disk(&mut state, 30);
    feed(&mut state, Input::Stored(ticket));

    // The inviter is the same peer; it was reached at the address in the ticket.
    assert_eq!(traces(&mut state), ["an address"]);
    assert_eq!(ended(&records), (vec![peer_of_seed(2)], vec![waiting]));
    let addresses = state.peers.addresses(&peer_of_seed(2));
    assert_eq!(addresses, [Address::new("a").expect("legal")]);
}

#[test]
fn a_removed_node_that_joins_its_mesh_again_keeps_its_members_users_and_what_waits_for_them() {
    let (mut state, _) = removed();
    let key = |state: &State| {
        let entry = state.users.get(&id("bob"), peer_of_seed(2));
        entry.map(|entry| (entry.record.key, entry.clients))
    };
    let known = key(&state).expect("known").0;

    let (records, ticket) = joining::join_to_disk(&mut state, 9);
    feed(&mut state, Input::Stored(ticket));

    assert_eq!(ended(&records), (vec![], vec![]));
    assert_eq!(
        traces(&mut state),
        ["waits for pi-2", "user bob", "an address"]
    );
    assert_eq!(
        key(&state),
        Some((known, 0)),
        "pinned, and not known to be there"
    );
}

#[test]
fn a_message_that_is_written_behind_a_new_membership_does_not_wait_for_a_former_member() {
    let mut state = state(Settings::default());
    open(&mut state);
    let (ticket, _) = leaving::leave_to_disk(&mut state);
    let (_, behind) = send(&mut state, "hello");

    feed(&mut state, Input::Stored(ticket));
    let accepted = feed(&mut state, Input::Stored(behind.expect("records")));

    let ended = |o: &Output| matches!(o, Output::Store(_, records) if !ended(records).1.is_empty());
    assert!(accepted.iter().any(ended), "{accepted:?}");
    assert!(state.report_outbox().is_empty());
}

#[test]
fn nobody_enters_a_mesh_that_is_being_left() {
    let mut state = state(Settings::default());
    let (_, secret) = tickets::invite(&mut state, None);
    leaving::leave_to_disk(&mut state);

    assert_eq!(
        join(&mut state, 3, &secret, 3, NOW),
        Some(Refusal::TryAgain)
    );
}

#[test]
fn what_was_told_at_the_last_moment_in_a_mesh_that_was_left_goes_at_the_next_start() {
    let user = |name: &str, place: Place| UserRecord {
        id: id(name),
        place,
        title: String::new(),
        key: *messaging_key(1).public(),
        shown: None,
        registered_ms: 1,
        descriptions: syft::Descriptions::default(),
        taken: 0,
        written_ms: 0,
        stays: true,
        holds_name: true,
    };
    let server = ServerId::of(&"work".parse().expect("a name"));
    let address = || vec![Address::new("somewhere").expect("legal")];
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        users: vec![
            user("own", peer_of_seed(1).into()),
            user("bob", peer_of_seed(2).into()),
            user("late", peer_of_seed(3).into()),
            user("carol", server.into()),
        ],
        addresses: vec![(peer_of_seed(2), address()), (peer_of_seed(3), address())],
        ..Loaded::default()
    };
    let mut state = State::new(setup(1), loaded, NOW).expect("a state");

    let outputs = outputs(&mut state);

    let written = outputs.iter().filter_map(|output| match output {
        Output::Store(_, records) => Some(records.clone()),
        _ => None,
    });
    let written: Vec<Record> = written.flatten().collect();
    let forgotten = [
        Record::ForgetUsersOf {
            node: peer_of_seed(3),
        },
        Record::Addresses {
            peer: peer_of_seed(3),
            addresses: Vec::new(),
        },
    ];
    assert!(forgotten.iter().all(|r| written.contains(r)), "{written:?}");
    let known = [
        ("own", peer_of_seed(1).into()),
        ("bob", peer_of_seed(2).into()),
        ("carol", Place::Server(server)),
    ];
    for (name, place) in known {
        assert!(state.users.get(&id(name), place).is_some(), "{name}");
    }
    assert!(state.users.get(&id("late"), peer_of_seed(3)).is_none());
}
