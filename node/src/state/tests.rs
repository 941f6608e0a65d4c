//! One node's state, fed by hand: this input gives these outputs.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    io::{
        Command, Connection, Direction, Event, Failure, GossipId, InboundId, Input, Loaded,
        NetInput, NetOutput, Now, Opening, Output, Protocol, Recipients, Record, Reply, RequestId,
        Ticket, Transport, Verdict, Via,
    },
    *,
};
use crate::proto::{
    iid::{
        Date, Iid, Index, Value,
        native::{Entry, Frame as IntegerFrame, Head, Sequence, Ttl},
    },
    mesh::{
        MessageId,
        certificate::{Certificate, MeshKey, Terms},
        direct::{Frame, Request as DirectRequest, Response as DirectResponse, Status},
        member::{Refusal, Request, Response},
        peer_of_seed,
        sync::{LastInteger, Request as SyncRequest},
    },
};

const NOW: Now = Now {
    mono: Duration::from_secs(10),
    unix_us: 1_800_000_000_000_000,
};

fn mesh_key() -> MeshKey {
    MeshKey::from_seed(&[9; 32])
}

fn messaging_key(seed: u8) -> syft::SigningKey {
    syft::SigningKey::from_seed(&[seed + 100; 32])
}

fn certificate(seed: u8) -> Certificate {
    mesh_key().issue(Terms {
        peer: peer_of_seed(seed),
        messaging_key: *messaging_key(seed).public(),
        name: format!("pi-{seed}").parse().expect("a name"),
        index: Index(i32::from(seed)),
        vouched: None,
        issued_ms: 1_790_000_000_000 + u64::from(seed),
        expires_ms: 1_900_000_000_000,
    })
}

/// A node with seed 1 that knows the member with seed 2.
fn state(settings: Settings) -> State {
    let setup = Setup {
        peer: peer_of_seed(1),
        messaging_key: messaging_key(1),
        mesh_key: Some(mesh_key()),
        name: "pi-1".parse().expect("a name"),
        seed: [0; 32],
        settings,
    };
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    state
}

fn outputs(state: &mut State) -> Vec<Output> {
    std::iter::from_fn(|| state.poll_output()).collect()
}

fn feed(state: &mut State, input: Input) -> Vec<Output> {
    state.handle(input, NOW);
    outputs(state)
}

/// Lets a peer connect and say hello with a certificate; returns the answer and whether the
/// connection was opened.
fn hello(state: &mut State, peer: PeerId, certificate: Vec<u8>) -> (Response, bool) {
    let connection = Connection(1);
    feed(
        state,
        Input::Net(NetInput::Connected {
            peer,
            connection,
            direction: Direction::Accepted,
            address: Address::new("somewhere").expect("legal"),
            transport: Transport::Tcp,
        }),
    );
    let bytes = Request::Hello(certificate).encode();
    let id = InboundId(1);
    let outputs = feed(
        state,
        Input::Net(NetInput::MemberRequest {
            connection,
            id,
            bytes,
        }),
    );
    let answer = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::MemberRespond { bytes, .. }) => Response::decode(bytes).ok(),
        _ => None,
    });
    let opens = |o: &Output| {
        matches!(
            o,
            Output::Net(NetOutput::Open {
                opening: Opening::Inbound,
                ..
            })
        )
    };
    (answer.expect("an answer"), outputs.iter().any(opens))
}

/// Brings the member with seed 2 all the way in.
fn open(state: &mut State) {
    let (answer, _) = hello(state, peer_of_seed(2), certificate(2).encode());
    assert_eq!(answer, Response::Hello(certificate(1).encode()));
    feed(
        state,
        Input::Net(NetInput::MemberRequest {
            connection: Connection(1),
            id: InboundId(2),
            bytes: Request::Ready.encode(),
        }),
    );
}

#[test]
fn a_member_with_its_own_certificate_is_let_in() {
    let mut state = state(Settings::default());

    let (answer, opened) = hello(&mut state, peer_of_seed(2), certificate(2).encode());

    assert_eq!(
        (answer, opened),
        (Response::Hello(certificate(1).encode()), true)
    );
}

#[test]
fn nobody_is_let_in_with_a_certificate_that_is_not_good() {
    let expired = mesh_key().issue(Terms {
        expires_ms: 1_799_999_999_999,
        ..certificate(3).terms().clone()
    });
    let foreign = MeshKey::from_seed(&[8; 32]).issue(certificate(3).terms().clone());
    for (peer, shown) in [
        (peer_of_seed(3), certificate(2)),
        (peer_of_seed(3), expired),
        (peer_of_seed(3), foreign),
    ] {
        let mut state = state(Settings::default());

        let (answer, opened) = hello(&mut state, peer, shown.encode());

        assert_eq!(
            (answer, opened),
            (Response::Refused(Refusal::NotAMember), false)
        );
    }
}

#[test]
fn a_removed_member_is_told_and_not_let_in() {
    let mut state = state(Settings::default());
    let peer = "pi-2".to_owned();
    feed(
        &mut state,
        Input::Control(RequestId(1), Command::Remove { peer }),
    );

    let (answer, opened) = hello(&mut state, peer_of_seed(2), certificate(2).encode());

    assert!(
        matches!(answer, Response::Revoked(_)) && !opened,
        "{answer:?}"
    );
}

fn send(state: &mut State, text: &str) -> (Vec<Output>, Option<Ticket>) {
    let command = Command::Send {
        to: Recipients::Named(vec!["pi-2".to_owned()]),
        text: text.to_owned(),
        via: Via::Direct,
        expiry: None,
    };
    let outputs = feed(state, Input::Control(RequestId(7), command));
    let ticket = outputs.iter().find_map(|output| match output {
        Output::Store(ticket, _) => Some(*ticket),
        _ => None,
    });
    (outputs, ticket)
}

fn failure(outputs: &[Output]) -> Option<&Failure> {
    outputs.iter().find_map(|output| match output {
        Output::Reply(_, Err(failure)) => Some(failure),
        _ => None,
    })
}

#[test]
fn accepted_is_said_only_after_the_message_is_on_disk() {
    let mut state = state(Settings::default());
    open(&mut state);
    let is_reply = |o: &Output| matches!(o, Output::Reply(_, Ok(Reply::Accepted(_))));
    let is_request = |o: &Output| {
        matches!(
            o,
            Output::Net(NetOutput::Request {
                protocol: Protocol::Direct,
                ..
            })
        )
    };

    let (before, ticket) = send(&mut state, "hello");
    let after = feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    assert!(!before.iter().any(|o| is_reply(o) || is_request(o)));
    assert!(after.iter().any(is_reply) && after.iter().any(is_request));
}

#[test]
fn a_message_that_cannot_be_written_is_not_accepted() {
    let mut state = state(Settings::default());

    let (_, ticket) = send(&mut state, "hello");
    let failed = Input::StoreFailed(ticket.expect("a ticket"), "disk full".to_owned());
    let outputs = feed(&mut state, failed);

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("disk full")));
    assert_eq!(state.messages.count(), 0);
}

#[test]
fn a_full_outbox_takes_no_more() {
    let mut state = state(Settings {
        outbox_count_max: 1,
        ..Settings::default()
    });
    let (_, ticket) = send(&mut state, "one");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    let (outputs, ticket) = send(&mut state, "two");

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("outbox is full")));
    assert_eq!(ticket, None);
}

fn message(sender: u8, recipient: u8, key: u8, sequence: u64) -> DirectRequest {
    let content = syft::seal(
        "hello",
        messaging_key(recipient).public(),
        &syft::SealChance::from_rng(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32])),
    );
    let (from, to) = (format!("pi-{sender}"), format!("pi-{recipient}"));
    let text = syft::Message::signed(&from, &to, content, NOW.unix_ms(), &messaging_key(key));
    let frame = Frame {
        id: MessageId([1; 16]),
        sender: peer_of_seed(sender),
        recipient: peer_of_seed(recipient),
        epoch: 5,
        sequence,
        created_ms: NOW.unix_ms(),
        expires_ms: NOW.unix_ms() + 1000,
        syft: text.encode(),
    };
    DirectRequest {
        messages: vec![frame.sign(&messaging_key(key))],
    }
}

fn receive(state: &mut State, request: &DirectRequest) -> (Option<Status>, Option<Ticket>) {
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: request.encode(),
    };
    answer_of(&feed(state, Input::Net(input)))
}

fn answer_of(outputs: &[Output]) -> (Option<Status>, Option<Ticket>) {
    let status = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Respond { bytes, .. }) => {
            DirectResponse::decode(bytes).ok().map(|r| r.0[0])
        }
        _ => None,
    });
    let ticket = outputs.iter().find_map(|output| match output {
        Output::Store(ticket, records) if matches!(records[0], Record::Incoming(_)) => {
            Some(*ticket)
        }
        _ => None,
    });
    (status, ticket)
}

#[test]
fn a_message_is_answered_once_it_is_on_disk_and_a_repeated_one_at_once() {
    let mut state = state(Settings::default());
    open(&mut state);
    let request = message(2, 1, 2, 1);

    let (early, ticket) = receive(&mut state, &request);
    let (stored, _) = answer_of(&feed(&mut state, Input::Stored(ticket.expect("a ticket"))));
    let (repeated, second) = receive(&mut state, &request);

    assert_eq!((early, stored), (None, Some(Status::Stored)));
    assert_eq!((repeated, second), (Some(Status::Duplicate), None));
}

#[test]
fn forged_and_misdirected_messages_are_refused_with_the_reason() {
    for (request, expected) in [
        (message(2, 1, 3, 1), Status::WrongSignature),
        (message(3, 1, 2, 1), Status::WrongSender),
        (message(2, 3, 2, 1), Status::WrongRecipient),
    ] {
        let mut state = state(Settings::default());
        open(&mut state);

        let (status, ticket) = receive(&mut state, &request);

        assert_eq!((status, ticket), (Some(expected), None));
    }
}

fn gossip(state: &mut State, index: i32, sequence: u64, count: usize) -> Verdict {
    let iid = Iid {
        index: Index(index),
        value: Value(1),
        date: Date(NOW.unix_ms()),
    };
    let head = Head {
        entry: Entry::Native,
        held: false,
        ttl: Ttl::DEFAULT,
        sequence: Sequence(sequence),
        sent_ms: NOW.unix_ms(),
    };
    let bytes = IntegerFrame::new(head, vec![iid; count])
        .expect("legal")
        .encode();
    let (source, id) = (peer_of_seed(2), GossipId(1));
    let outputs = feed(state, Input::Net(NetInput::Gossip { source, id, bytes }));
    let verdict = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Verdict { verdict, .. }) => Some(*verdict),
        _ => None,
    });
    verdict.expect("a verdict")
}

#[test]
fn a_member_speaks_for_its_own_index_only() {
    let mut state = state(Settings::default());

    assert_eq!(gossip(&mut state, 2, 1, 1), Verdict::Accept);
    // Who owns which index may be news on its way to us, so the neighbour is not blamed.
    assert_eq!(gossip(&mut state, 1, 2, 1), Verdict::Ignore);
    let known: Vec<Index> = state.report_last().iter().map(|i| i.index).collect();
    assert_eq!(known, [Index(2)]);
}

#[test]
fn a_second_hello_closes_the_connection_and_the_peer_is_known_to_be_gone() {
    let mut state = state(Settings::default());
    open(&mut state);
    let (peer, connection) = (peer_of_seed(2), Connection(1));

    let outputs = feed(
        &mut state,
        Input::Net(NetInput::MemberRequest {
            connection,
            id: InboundId(3),
            bytes: Request::Hello(certificate(2).encode()).encode(),
        }),
    );
    let closes = |o: &Output| matches!(o, Output::Net(NetOutput::Close { connection: c, .. }) if *c == connection);
    assert!(outputs.iter().any(closes), "{outputs:?}");
    let gone = NetInput::Disconnected {
        peer,
        connection,
        reason: "closed".to_owned(),
    };
    let outputs = feed(&mut state, Input::Net(gone));

    let down = |o: &Output| matches!(o, Output::Event(Event::PeerDown { .. }));
    assert!(outputs.iter().any(down), "{outputs:?}");
}

#[test]
fn a_request_that_is_none_is_refused_with_the_reason_or_ended() {
    let mut state = state(Settings::default());
    open(&mut state);
    let ask = |state: &mut State, protocol| {
        let input = NetInput::Request {
            peer: peer_of_seed(2),
            protocol,
            id: InboundId(9),
            bytes: vec![0xff; 9],
        };
        feed(state, Input::Net(input))
    };

    let (status, _) = answer_of(&ask(&mut state, Protocol::Direct));
    assert_eq!(status, Some(Status::Malformed));
    let outputs = ask(&mut state, Protocol::Sync);
    let ended = |o: &Output| matches!(o, Output::Net(NetOutput::Refuse { id: InboundId(9) }));
    assert!(outputs.iter().any(ended), "{outputs:?}");
}

/// Tells the last integer of the member with seed 2, as sync does.
fn sync_last(state: &mut State, value: i32, sent_ms: u64) {
    let iid = Iid {
        index: Index(2),
        value: Value(value),
        date: Date(sent_ms),
    };
    let source = peer_of_seed(2);
    let last = vec![LastInteger {
        iid,
        source,
        sent_ms,
    }];
    let request = SyncRequest {
        last,
        ..SyncRequest::default()
    };
    let input = NetInput::Request {
        peer: source,
        protocol: Protocol::Sync,
        id: InboundId(9),
        bytes: request.encode(),
    };
    feed(state, Input::Net(input));
}

#[test]
fn the_last_value_of_an_index_is_the_one_sent_last_and_never_from_far_ahead() {
    let mut state = state(Settings::default());
    open(&mut state);
    let last = |state: &State| state.report_last().first().map(|last| last.value.0);

    sync_last(&mut state, 5, u64::MAX);
    assert_eq!(last(&state), None);
    sync_last(&mut state, 6, NOW.unix_ms() - 10);
    sync_last(&mut state, 7, NOW.unix_ms() - 20);
    assert_eq!(last(&state), Some(6));
}

#[test]
fn removed_members_leave_their_places_to_others() {
    let mut state = state(Settings::default());
    for number in 0..300_u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let peer = libp2p_identity::Keypair::ed25519_from_bytes(seed)
            .expect("32 bytes")
            .public()
            .to_peer_id();
        let name = format!("guest-{number}");
        let terms = Terms {
            peer,
            name: name.parse().expect("a name"),
            index: Index(1000),
            ..certificate(3).terms().clone()
        };
        let certificates = vec![mesh_key().issue(terms).encode()];
        state.learn_statements(certificates, vec![], NOW);
        assert!(state.membership.is_known(&peer), "{name}");
        let removal = Command::Remove { peer: name };
        feed(&mut state, Input::Control(RequestId(1), removal));
    }
}

#[test]
fn a_sender_over_its_budget_is_ignored_and_not_blamed() {
    let mut state = state(Settings {
        budget_per_second: 1,
        budget_burst: 64,
        ..Settings::default()
    });

    assert_eq!(gossip(&mut state, 2, 1, 64), Verdict::Accept);
    let outputs = {
        assert_eq!(gossip(&mut state, 2, 2, 1), Verdict::Ignore);
        outputs(&mut state)
    };
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::Event(Event::Integers(_))))
    );
}
