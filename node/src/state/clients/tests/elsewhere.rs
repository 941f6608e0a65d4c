//! Clients of one node are known at the others, and written to from there.

use super::*;
use crate::{
    proto::mesh::{
        direct::{Frame, Kind, Request as DirectRequest, Response as DirectResponse, Status},
        peer_of_seed,
        users::{Request as UsersRequest, ToldClient},
    },
    state::{
        io::{Endpoint, InboundId, NetInput, NetOutput, OutboundId, Protocol},
        tests::{answer_of, frame_saying, gateway::gateway_with, signed_by},
    },
};

/// Feeds what the member with seed 2 tells of its clients.
fn hear(state: &mut State, clients: &[(&ClientName, bool)], begins: bool) {
    let request = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Users,
        id: InboundId(5),
        bytes: told(clients, begins),
    };
    feed(state, Input::Net(request));
}

fn told(clients: &[(&ClientName, bool)], begins: bool) -> Vec<u8> {
    let told = |(name, is_gone): &(&ClientName, bool)| ToldClient {
        name: (*name).clone(),
        is_gone: *is_gone,
    };
    let request = UsersRequest {
        clients: clients.iter().map(told).collect(),
        begins,
        ..UsersRequest::default()
    };
    request.encode()
}

/// Returns the request of a protocol among these outputs.
fn request(outputs: &[Output], wanted: Protocol) -> Option<(OutboundId, Vec<u8>)> {
    outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Request {
            protocol,
            bytes,
            id,
            ..
        }) if *protocol == wanted => Some((*id, bytes.clone())),
        _ => None,
    })
}

/// Returns what is told among these outputs, and has the member hear it.
fn heard(state: &mut State, outputs: &[Output]) -> Option<Vec<u8>> {
    let (id, bytes) = request(outputs, Protocol::Users)?;
    let result = Ok(Vec::new());
    feed(state, Input::Net(NetInput::Response { id, result }));
    Some(bytes)
}

fn known(state: &State) -> Vec<ClientName> {
    let clients = state.users.clients();
    clients.map(|(_, client)| client.clone()).collect()
}

#[test]
fn a_member_is_told_of_each_client_once_its_key_is_on_disk_and_when_it_is_forgotten() {
    let mut state = state_with_client();
    let opened = open(&mut state);
    let all = told(&[(&client(1), false)], true);
    assert_eq!(heard(&mut state, &opened), Some(all));

    let shown = ask(&mut state, shown("10.0.0.8", 2, true));
    assert_eq!(heard(&mut state, &shown), None, "it is not on disk");
    let pinned = stored(&mut state, &shown);
    let new = format!("p2sn:10.0.0.8/{}", hex::encode([2; 8]));
    let new = ClientName::new(new).expect("a name");
    let request = told(&[(&new, false)], false);
    assert_eq!(heard(&mut state, &pinned), Some(request));

    let address = "10.0.0.8".to_owned();
    let outputs = ask(&mut state, Question::Forget { address });
    let forgotten = stored(&mut state, &outputs);
    // One that had no place among those that are told would be told here, too.
    let request = told(&[(&client(1), false), (&new, true)], false);
    assert_eq!(heard(&mut state, &forgotten), Some(request));
}

#[test]
fn what_was_not_heard_is_told_again() {
    let mut state = state_with_client();
    let opened = open(&mut state);
    let (id, bytes) = request(&opened, Protocol::Users).expect("told");
    let result = Err("no answer".to_owned());
    feed(&mut state, Input::Net(NetInput::Response { id, result }));

    state.handle_timeout(later(Duration::from_secs(1)));
    let again = outputs(&mut state);

    assert_eq!(
        request(&again, Protocol::Users).map(|(_, b)| b),
        Some(bytes)
    );
}

#[test]
fn a_client_of_another_node_is_known_until_that_node_says_otherwise() {
    let mut state = state(Settings::default());
    open(&mut state);
    let (one, two) = (client(1), client(2));

    hear(&mut state, &[(&one, false), (&two, false)], true);
    assert_eq!(known(&state), [one.clone(), two.clone()]);
    hear(&mut state, &[(&one, true)], false);
    assert_eq!(known(&state), [two]);
    hear(&mut state, &[(&one, false)], true);
    assert_eq!(known(&state), [one]);
    hear(&mut state, &[], true);
    assert_eq!(known(&state), []);
}

#[test]
fn no_more_clients_of_one_node_are_known_than_it_may_have() {
    let mut state = state(Settings::default());
    open(&mut state);
    let name = |n: usize| ClientName::new(format!("p2sn:10.0.0.7/{n:016x}")).expect("a name");
    let names: Vec<ClientName> = (0..1500).map(name).collect();

    for names in names.chunks(500) {
        let clients: Vec<_> = names.iter().map(|name| (name, false)).collect();
        hear(&mut state, &clients, false);
    }

    assert_eq!(known(&state).len(), 1024);
}

#[test]
fn a_text_for_a_client_of_another_node_goes_to_that_node() {
    let mut state = state(Settings::default());
    open(&mut state);
    hear(&mut state, &[(&client(1), false)], true);
    let name = format!("{}@pi-2", client(1));

    let outputs = send(&mut state, &name, "on");
    let outputs = stored(&mut state, &outputs);

    let Some(Ok(Reply::Accepted(accepted))) = reply(&outputs) else {
        panic!("accepted, got {outputs:?}");
    };
    assert_eq!(accepted[0].to, name);
    let (_, bytes) = request(&outputs, Protocol::Direct).expect("a request");
    let sent = DirectRequest::decode(&bytes).expect("legal");
    let frame = Frame::decode(&sent.messages[0]).expect("legal");
    assert_eq!(frame.kind, Kind::Client(client(1)));
    let stranger = format!("{}@pi-2", client(2));
    let refused = send(&mut state, &stranger, "on");
    assert_eq!(failure(&refused).kind, FailureKind::NotFound);
}

/// Has the member with seed 2 bring a text for a client; returns what becomes of it.
fn bring(state: &mut State, to: u8, text: &str) -> Status {
    let mut frame = frame_saying(text, 2, 1, 2, 1);
    frame.kind = Kind::Client(client(to));
    let brought = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: signed_by(frame, 2).encode(),
    };
    let mut outputs = feed(state, Input::Net(brought));
    if ticket(&outputs).is_some() {
        assert_eq!(take_at(state, NOW), None, "before it is on disk");
        outputs = stored(state, &outputs);
    }
    answer_of(&outputs).0.expect("an answer")
}

#[test]
fn a_text_of_another_node_waits_for_the_client() {
    let mut state = state_with_client();
    open(&mut state);

    assert_eq!(bring(&mut state, 1, "on"), Status::Stored);

    assert_eq!(take_at(&mut state, NOW).expect("a message").1, "on");
    assert_eq!(bring(&mut state, 1, "on"), Status::Duplicate);
}

#[test]
fn a_text_for_no_client_or_longer_than_its_key_allows_is_refused() {
    let mut state = state_with_client();
    open(&mut state);
    let long = "x".repeat(246);

    assert_eq!(bring(&mut state, 2, "on"), Status::WrongRecipient);
    assert_eq!(bring(&mut state, 1, &long), Status::TooLarge);
    assert_eq!(bring(&mut state, 1, &long[1..]), Status::Stored);
}

#[test]
fn what_could_not_be_written_for_a_client_is_not_there_and_comes_again() {
    let mut state = state_with_client();
    open(&mut state);
    let mut frame = frame_saying("on", 2, 1, 2, 1);
    frame.kind = Kind::Client(client(1));
    let brought = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: signed_by(frame, 2).encode(),
    };
    let outputs = feed(&mut state, Input::Net(brought));
    let ticket = ticket(&outputs).expect("something to store");

    let outputs = feed(&mut state, Input::StoreFailed(ticket, "full".to_owned()));

    assert_eq!(answer_of(&outputs).0, Some(Status::TryAgain));
    assert_eq!(take_at(&mut state, NOW), None);
    assert_eq!(state.clients.count(), 0);
    assert_eq!(bring(&mut state, 1, "on"), Status::Stored);
}

#[test]
fn one_text_goes_to_a_client_and_a_node_at_once() {
    let mut state = state_with_client();
    open(&mut state);
    let to = [client(1).to_string(), "pi-2".to_owned()];
    let command = Command::Send {
        to: Recipients::Named(to.to_vec()),
        text: "all".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    };
    let outputs = feed(&mut state, Input::Control(REQUEST, command));
    let outputs = stored(&mut state, &outputs);

    let Some(Ok(Reply::Accepted(accepted))) = reply(&outputs) else {
        panic!("accepted, got {outputs:?}");
    };
    assert_eq!(accepted.len(), 2);
    assert_eq!(take_at(&mut state, NOW).expect("a message").1, "all");
}

#[test]
fn a_node_without_clients_says_so_and_those_that_were_known_go() {
    let mut state = state(Settings::default());
    let opened = open(&mut state);
    assert_eq!(heard(&mut state, &opened), Some(told(&[], true)));

    let again = later(Duration::from_secs(60));
    state.handle_timeout(again);
    let outputs = outputs(&mut state);
    assert_eq!(heard(&mut state, &outputs), None, "once on a connection");
}

/// Has the member with seed 2 bring one text for each of these clients, in one request.
fn bring_all(state: &mut State, to: &[ClientName], first: u64) -> Vec<Status> {
    let frames = to.iter().zip(first..).map(|(client, sequence)| {
        let mut frame = frame_saying("on", 2, 1, 2, sequence);
        frame.kind = Kind::Client(client.clone());
        signed_by(frame, 2).messages.remove(0)
    });
    let request = DirectRequest {
        messages: frames.collect(),
    };
    let brought = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: request.encode(),
    };
    let mut outputs = feed(state, Input::Net(brought));
    if ticket(&outputs).is_some() {
        outputs = stored(state, &outputs);
    }
    let answer = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Respond { bytes, .. }) => DirectResponse::decode(bytes).ok(),
        _ => None,
    });
    answer.expect("an answer").0
}

#[test]
fn the_limit_of_a_client_holds_within_one_request() {
    let mut state = state_with_client();
    open(&mut state);

    let statuses = bring_all(&mut state, &vec![client(1); 100], 1);

    let taken = statuses.iter().filter(|status| **status == Status::Stored);
    assert_eq!(taken.count(), 64);
    assert_eq!(statuses[64], Status::MailboxFull);
}

#[test]
fn a_member_leaves_room_for_the_owner_of_the_node() {
    let mut state = state_with_client();
    for key in 2..=9 {
        assert_eq!(show(&mut state, "10.0.0.7", key, false), Some(true));
    }
    open(&mut state);
    let mut stored = 0;
    for (key, first) in (1..=8).zip((0u64..).step_by(100)) {
        let statuses = bring_all(&mut state, &vec![client(key); 64], first + 1);
        stored += statuses.iter().filter(|s| **s == Status::Stored).count();
    }
    assert_eq!(stored, 256, "the share of one member");

    let outputs = send(&mut state, client(9).as_str(), "from the owner");
    assert!(ticket(&outputs).is_some(), "{outputs:?}");
}

#[test]
fn one_stranger_with_many_keys_keeps_no_other_client_from_being_told() {
    let mut state = state(Settings::default());
    for number in 0..80u8 {
        let address = format!("2001:db8::{number:x}");
        assert_eq!(show(&mut state, &address, number, true), Some(true));
    }
    assert_eq!(show(&mut state, "192.168.1.7", 1, true), Some(true));

    let told: Vec<String> = state.clients.told().map(|name| name.to_string()).collect();

    assert_eq!(told.len(), 65);
    assert!(
        told.iter()
            .any(|name| name.starts_with("p2sn:192.168.1.7/"))
    );
}

#[test]
fn a_key_that_could_not_be_written_is_told_as_gone() {
    let mut state = state(Settings::default());
    let shown = ask(&mut state, shown("10.0.0.7", 1, true));
    let opened = open(&mut state);
    assert_eq!(
        heard(&mut state, &opened),
        Some(told(&[(&client(1), false)], true))
    );

    let ticket = ticket(&shown).expect("something to store");
    let outputs = feed(&mut state, Input::StoreFailed(ticket, "full".to_owned()));

    assert_eq!(
        heard(&mut state, &outputs),
        Some(told(&[(&client(1), true)], false))
    );
}

#[test]
fn a_node_that_was_removed_or_whose_outbox_is_full_answers_its_own_clients() {
    let full = Settings {
        outbox_count_max: 0,
        ..Settings::default()
    };
    let mut state = state(full);
    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(true));

    let outputs = send(&mut state, client(1).as_str(), "on");
    assert!(ticket(&outputs).is_some(), "{outputs:?}");
    let refused = send(&mut state, "pi-2", "on");
    assert_eq!(failure(&refused).kind, FailureKind::Unavailable);
}

#[test]
fn an_own_user_is_not_shadowed_by_a_client_of_another_node() {
    let mut state = gateway_with(Settings::default());
    open(&mut state);
    let id = "mailto:bob@pi-2";
    let record = state
        .users
        .get(&"bob".parse().expect("an id"), peer_of_seed(1));
    let mut record = record.expect("known").record.clone();
    record.id = id.parse().expect("an id");
    state.users.insert(record);
    let client = ClientName::new("mailto:bob").expect("a name");
    hear(&mut state, &[(&client, false)], true);

    let user = Endpoint::user(id.parse().expect("an id"), peer_of_seed(1));
    assert_eq!(state.recipient(id), Ok(user));
}
