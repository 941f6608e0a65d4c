//! What a turn of the loop costs does not grow with what waits.

use super::*;
use crate::{
    proto::mesh::users::{Request as UsersRequest, ToldUser},
    state::{
        io::{Outgoing, OutgoingKind},
        work::looks,
    },
};

/// A node for whose member with seed 2 so many messages wait, each of which ends after the one
/// before it.
fn with_waiting(count: u64) -> State {
    with_waiting_until(count, |number| number)
}

/// The same, with when each of them ends, in milliseconds after a day.
fn with_waiting_until(count: u64, ends_ms: impl Fn(u64) -> u64) -> State {
    let setup = Setup {
        mesh_key: Some(mesh_key()),
        ..setup(1)
    };
    let message = |number: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        Outgoing {
            id: MessageId(id),
            recipient: peer_of_seed(2).into(),
            epoch: 1,
            sequence: number,
            created_ms: NOW.unix_ms(),
            expires_ms: NOW.unix_ms() + 86_400_000 + ends_ms(number),
            kind: OutgoingKind::Member,
            text: String::new(),
        }
    };
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        outbox: (0..count).map(message).collect(),
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    looks();
    state
}

/// What a hundred turns cost in which nothing happens.
fn idle_turns(state: &mut State) -> u64 {
    looks();
    for turn in 0..100 {
        assert!(state.poll_timeout().is_some());
        state.handle_timeout(later(Duration::from_millis(turn)));
        outputs(state);
    }
    looks()
}

#[test]
fn a_turn_costs_the_same_with_ten_thousand_messages_in_the_outbox_as_with_ten() {
    let few = idle_turns(&mut with_waiting(10));
    let many = idle_turns(&mut with_waiting(10_000));

    assert_eq!(few, many);
    assert!(many <= 1000, "{many} looks");
}

#[test]
fn messages_that_are_given_up_cost_no_look_at_those_that_are_not() {
    let mut state = with_waiting(10_000);
    let after_a_day = later(Duration::from_millis(86_400_000 + 9));
    looks();

    state.handle_timeout(after_a_day);

    let expired = |o: &&Output| matches!(o, Output::Event(Event::Sent(_)));
    assert_eq!(outputs(&mut state).iter().filter(expired).count(), 10);
    assert_eq!(state.messages.count(), 9_990);
    let cost = looks();
    assert!(cost <= 100, "{cost} looks");
}

#[test]
fn messages_that_end_together_or_the_last_first_cost_a_few_looks_each() {
    let cost = |ends_ms: fn(u64) -> u64| {
        let mut state = with_waiting_until(10_000, ends_ms);
        looks();
        state.handle_timeout(later(Duration::from_millis(86_400_000 + 9_999)));
        assert_eq!(state.messages.count(), 0);
        looks()
    };

    assert!(cost(|_| 0) <= 50_000);
    assert!(cost(|number| 9_999 - number) <= 50_000);
}

#[test]
fn integers_cost_the_same_beside_two_hundred_connections_as_beside_none() {
    let cost = |strangers: u8| {
        let mut state = state(Settings::default());
        open(&mut state);
        for seed in 0..strangers {
            let up = NetInput::Connected {
                peer: peer_of_seed(10 + seed),
                connection: Connection(100 + u64::from(seed)),
                direction: Direction::Accepted,
                address: Address::new("somewhere").expect("legal"),
                transport: Transport::Tcp,
            };
            feed(&mut state, Input::Net(up));
        }
        looks();
        let command = Command::Integers {
            index: None,
            values: vec![Value(1)],
            at: None,
        };
        feed(&mut state, Input::Control(RequestId(1), command));
        looks()
    };

    assert_eq!(cost(200), cost(0));
}

/// A node with so many members, none of them reachable.
fn with_members(count: u16) -> State {
    let peer = |number: u16| {
        let mut seed = [3; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let key = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes");
        key.public().to_peer_id()
    };
    let member = |number: u16| {
        let terms = Terms {
            peer: peer(number),
            name: format!("guest-{number}").parse().expect("a name"),
            index: Index(1_000 + i32::from(number)),
            ..certificate(3).terms().clone()
        };
        mesh_key().issue(terms).encode()
    };
    let address = |number: u16| Address::new(format!("at/{number}")).expect("legal");
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: (0..count).map(member).collect(),
        addresses: (0..count).map(|n| (peer(n), vec![address(n)])).collect(),
        ..Loaded::default()
    };
    let mut state = State::new(setup(1), loaded, NOW).expect("a state");
    outputs(&mut state);
    state.handle_timeout(NOW);
    outputs(&mut state);
    state
}

#[test]
fn a_turn_costs_the_same_with_two_hundred_members_that_are_being_dialled_as_with_two() {
    let few = idle_turns(&mut with_members(2));
    let many = idle_turns(&mut with_members(200));

    assert_eq!(few, many);
}

#[test]
fn dials_that_are_due_cost_a_look_or_two_each() {
    let mut state = with_members(200);
    looks();

    state.handle_timeout(later(Duration::from_secs(30)));

    let dials = |o: &&Output| matches!(o, Output::Net(NetOutput::Dial { .. }));
    assert_eq!(outputs(&mut state).iter().filter(dials).count(), 200);
    let cost = looks();
    assert!((200..=1000).contains(&cost), "{cost} looks");
}

#[test]
fn a_member_s_user_costs_the_same_beside_two_thousand_users_as_beside_ten() {
    let hear = |state: &mut State, numbers: std::ops::Range<u32>| {
        let told = |number| ToldUser {
            id: super::gateway::id(&format!("user-{number}")),
            title: String::new(),
            key: *messaging_key(1).public(),
            registered_ms: NOW.unix_ms(),
            descriptions: syft::Descriptions::default(),
            online: false,
        };
        let request = UsersRequest {
            users: numbers.map(told).collect(),
            ..UsersRequest::default()
        };
        let request = NetInput::Request {
            peer: peer_of_seed(2),
            protocol: Protocol::Users,
            id: InboundId(50),
            bytes: request.encode(),
        };
        feed(state, Input::Net(request));
    };
    let cost = |known: u32| {
        let mut state = state(Settings::default());
        open(&mut state);
        for first in (0..known).step_by(10) {
            hear(&mut state, first..first + 10);
        }
        assert_eq!(state.users.count_of(peer_of_seed(2)), known as usize);
        looks();
        hear(&mut state, known..known + 1);
        looks()
    };

    assert_eq!(cost(2_000), cost(10));
}
