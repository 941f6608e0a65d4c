//! Entering a mesh: tickets, whose clock judges them, and inviters that cannot be reached.

use super::*;
use crate::{
    proto::mesh::{certificate::MeshId, member::Welcome, ticket as mesh_ticket},
    state::io::{OwnReach, Tried},
};

/// A node with seed 1 in a mesh of its own.
fn alone() -> State {
    let setup = Setup {
        mesh_key: Some(mesh_key()),
        ..setup(1)
    };
    let mut state = State::new(setup, Loaded::default(), NOW).expect("a state");
    outputs(&mut state);
    state
}

fn address(text: &str) -> Address {
    Address::new(text).expect("legal")
}

fn mesh() -> MeshId {
    MeshKey::from_seed(&[7; 32]).mesh()
}

/// A ticket of the node with this seed.
fn ticket(inviter: u8, addresses: &[&str], expires_ms: u64) -> String {
    let ticket = mesh_ticket::Ticket {
        mesh: mesh(),
        inviter: peer_of_seed(inviter),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        secret: Secret::new([3; 16]),
        expires_ms,
    };
    ticket.to_text().to_string()
}

fn begin(state: &mut State, ticket: String) -> Vec<Output> {
    feed(
        state,
        Input::Control(RequestId(1), Command::Join { ticket }),
    )
}

fn dials(outputs: &[Output]) -> bool {
    let is_dial = |o: &Output| matches!(o, Output::Net(NetOutput::Dial { .. }));
    outputs.iter().any(is_dial)
}

/// The dial of the inviter with seed 2 fails at these addresses.
fn fail(state: &mut State, tried: &[(&str, bool)]) -> Vec<Output> {
    let tried = tried.iter().map(|(at, is_final)| Tried {
        address: address(at),
        reason: "nobody is there".to_owned(),
        is_final: *is_final,
    });
    let failed = NetInput::DialFailed {
        peer: peer_of_seed(2),
        reason: "nobody is there".to_owned(),
        tried: tried.collect(),
    };
    feed(state, Input::Net(failed))
}

#[test]
fn a_ticket_is_judged_by_the_clock_that_set_its_end_and_not_by_the_joiners() {
    let mut state = alone();
    let an_hour_ago = NOW.unix_ms() - 3_600_000;

    let outputs = begin(&mut state, ticket(2, &["a"], an_hour_ago));

    assert!(failure(&outputs).is_none(), "{outputs:?}");
    assert!(dials(&outputs), "the inviter is asked");
}

#[test]
fn a_join_ends_at_once_when_no_address_can_lead_to_the_inviter() {
    let mut state = alone();
    begin(&mut state, ticket(2, &["a", "b"], u64::MAX));

    fail(&mut state, &[("a", true), ("b", false)]);
    state.handle_timeout(NOW);
    let first = outputs(&mut state);
    fail(&mut state, &[("b", true)]);
    let due = state.poll_timeout();
    state.handle_timeout(NOW);
    let second = outputs(&mut state);

    assert!(failure(&first).is_none(), "one may still lead there");
    assert!(due <= Some(NOW.mono), "it is not waited any longer");
    let failure = failure(&second).expect("it is over");
    assert!(
        failure.message.contains("a: nobody is there"),
        "{failure:?}"
    );
    assert!(
        failure.message.contains("b: nobody is there"),
        "{failure:?}"
    );
}

#[test]
fn a_join_tells_what_it_tries_and_each_reason_once() {
    let mut state = alone();

    let begun = begin(&mut state, ticket(2, &["a", "b"], u64::MAX));
    let first = fail(&mut state, &[("a", false), ("elsewhere", false)]);
    let again = fail(&mut state, &[("a", false)]);

    let tries = |o: &Output| match o {
        Output::Event(Event::JoinTries { addresses, for_ms }) => Some((addresses.len(), *for_ms)),
        _ => None,
    };
    assert_eq!(begun.iter().find_map(tries), Some((2, 20_000)));
    let tried = |o: &Output| match o {
        Output::Event(Event::JoinTried { address, .. }) => Some(address.clone()),
        _ => None,
    };
    assert!(first.iter().filter_map(tried).eq([address("a")]));
    assert_eq!(again.iter().filter_map(tried).count(), 0);
}

#[test]
fn a_clone_of_the_inviter_is_told_what_it_is() {
    let mut state = alone();

    let outputs = begin(&mut state, ticket(1, &["a"], u64::MAX));

    let failure = failure(&outputs).expect("it cannot join itself");
    assert!(failure.message.contains("copy"), "{failure:?}");
    let hint = failure.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("home folder"), "{failure:?}");
}

#[test]
fn a_ticket_that_is_of_no_use_elsewhere_comes_with_a_warning() {
    let mut state = alone();
    let warning = |state: &mut State| {
        let command = Command::Invite(Wanted {
            vouched: Vouched::NONE,
            ..Wanted::default()
        });
        let stored = stored(&feed(state, Input::Control(RequestId(1), command)));
        let outputs = feed(state, Input::Stored(stored));
        let invited = outputs.into_iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Invited(invite))) => Some(invite.warning),
            _ => None,
        });
        invited.expect("a ticket")
    };

    let nowhere = warning(&mut state);
    let reached = |state: &mut State, reach| {
        let addresses = vec![address("somewhere")];
        feed(
            state,
            Input::Net(NetInput::OwnAddresses { addresses, reach }),
        );
    };
    reached(&mut state, OwnReach::Machine);
    let here = warning(&mut state);
    reached(&mut state, OwnReach::Network);
    let network = warning(&mut state);

    assert!(nowhere.is_some_and(|w| w.contains("no address")));
    assert!(here.is_some_and(|w| w.contains("this machine itself")));
    assert_eq!(network, None);
}

/// Enters the mesh whose key has this seed, with a ticket of the node with seed 2; returns what was
/// written for it.
pub(super) fn join_mesh_of(state: &mut State, seed: u8) -> Vec<Record> {
    let (records, ticket) = join_to_disk(state, seed);
    feed(state, Input::Stored(ticket));
    let gone = NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "gone".to_owned(),
    };
    feed(state, Input::Net(gone));
    records
}

/// The same as far as the disk.
pub(super) fn join_to_disk(state: &mut State, seed: u8) -> (Vec<Record>, Ticket) {
    let key = MeshKey::from_seed(&[seed; 32]);
    let ticket = mesh_ticket::Ticket {
        mesh: key.mesh(),
        inviter: peer_of_seed(2),
        addresses: vec![address("a")],
        secret: Secret::new([3; 16]),
        expires_ms: u64::MAX,
    };
    let begun = begin(state, ticket.to_text().to_string());
    assert!(dials(&begun), "{begun:?}");
    let id = dialled(state, NOW);
    let certified = |seed| key.issue(certificate(seed).terms().clone()).encode();
    let welcome = Welcome {
        certificate: certified(1),
        inviter: certified(2),
    };
    let result = Ok(Response::Welcome(welcome).encode());
    let storing = feed(state, Input::Net(NetInput::Response { id, result }));
    let [Output::Store(ticket, records)] = &storing[..] else {
        panic!("the membership is written, not {storing:?}");
    };
    (records.clone(), *ticket)
}

#[test]
fn a_join_tells_why_the_last_real_attempt_failed_and_not_that_one_is_under_way() {
    let mut state = alone();
    begin(&mut state, ticket(2, &["somewhere"], 1_900_000_000_000));
    let failed = NetInput::DialFailed {
        peer: peer_of_seed(2),
        reason: "no handshake in time".to_owned(),
        tried: Vec::new(),
    };
    feed(&mut state, Input::Net(failed));

    let met = NetInput::DialNotBegun {
        peer: peer_of_seed(2),
    };
    feed(&mut state, Input::Net(met));
    state.handle_timeout(later(Duration::from_secs(21)));
    let outputs = outputs(&mut state);

    let failure = failure(&outputs).expect("a failure");
    let why = "could not reach the inviter: no handshake in time";
    assert_eq!(failure.message, why);
}
