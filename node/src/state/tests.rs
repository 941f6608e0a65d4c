//! One node's state, fed by hand: this input gives these outputs.

mod bridging;
mod door;
mod vouching;

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    io::{
        Command, Connection, Direction, Event, Failure, GossipId, InboundId, Input, Loaded,
        NetInput, NetOutput, Now, Opening, Outcome, Output, Protocol, Recipients, Record, Reply,
        RequestId, Ticket, Transport, Verdict, Via,
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
        member::{Join, Refusal, Request, Response},
        peer_of_seed,
        signed::{Label, Signed},
        sync::{LastInteger, Request as SyncRequest, Response as SyncResponse},
        ticket::Secret,
        vouched::Vouched,
    },
};

pub(super) const NOW: Now = Now {
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
        vouched: Vouched::NONE,
        issued_ms: 1_790_000_000_000 + u64::from(seed),
        expires_ms: 1_900_000_000_000,
    })
}

/// A node with seed 1 that knows the member with seed 2.
pub(super) fn state(settings: Settings) -> State {
    state_knowing(&certificate(2), [0; 32], settings)
}

fn state_knowing(member: &Certificate, seed: [u8; 32], settings: Settings) -> State {
    let setup = Setup {
        peer: peer_of_seed(1),
        messaging_key: messaging_key(1),
        mesh_key: Some(mesh_key()),
        name: "pi-1".parse().expect("a name"),
        seed,
        settings,
    };
    let address = Address::new("somewhere").expect("legal");
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![member.encode()],
        addresses: vec![(member.terms().peer, vec![address])],
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    state
}

pub(super) fn outputs(state: &mut State) -> Vec<Output> {
    std::iter::from_fn(|| state.poll_output()).collect()
}

pub(super) fn feed(state: &mut State, input: Input) -> Vec<Output> {
    feed_at(state, input, NOW)
}

pub(super) fn feed_at(state: &mut State, input: Input, now: Now) -> Vec<Output> {
    state.handle(input, now);
    outputs(state)
}

/// Returns both clocks after some time.
pub(super) fn later(time: Duration) -> Now {
    Now {
        mono: NOW.mono + time,
        unix_us: NOW.unix_us + micros(time),
    }
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
pub(super) fn open(state: &mut State) -> Vec<Output> {
    let (answer, _) = hello(state, peer_of_seed(2), certificate(2).encode());
    assert_eq!(answer, Response::Hello(certificate(1).encode()));
    feed(
        state,
        Input::Net(NetInput::MemberRequest {
            connection: Connection(1),
            id: InboundId(2),
            bytes: Request::Ready.encode(),
        }),
    )
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

/// Returns encoded certificates that the member with seed 2 must not be let in with.
fn bad_certificates() -> Vec<Vec<u8>> {
    let expired = mesh_key().issue(Terms {
        expires_ms: 1_799_999_999_999,
        ..certificate(2).terms().clone()
    });
    let foreign = MeshKey::from_seed(&[8; 32]).issue(certificate(2).terms().clone());
    vec![
        certificate(3).encode(),
        expired.encode(),
        foreign.encode(),
        forged(certificate(2)),
        Vec::new(),
    ]
}

/// Signs what a certificate says with a key that is not the mesh key.
fn forged(certificate: Certificate) -> Vec<u8> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let payload = certificate.signed().payload.clone();
    prost::Message::encode_to_vec(&Signed::sign(Label::CERTIFICATE, payload, &key))
}

#[test]
fn nobody_is_let_in_with_a_certificate_that_is_not_good() {
    for shown in bad_certificates() {
        let mut state = state(Settings::default());

        let (answer, opened) = hello(&mut state, peer_of_seed(2), shown);

        assert_eq!(
            (answer, opened),
            (Response::Refused(Refusal::NotAMember), false)
        );
    }
}

#[test]
fn nobody_who_was_dialled_is_let_in_with_a_certificate_that_is_not_good() {
    for shown in bad_certificates() {
        let mut state = state(Settings::default());
        let hello = dialled(&mut state, NOW);

        let result = Ok(Response::Hello(shown).encode());
        let outputs = feed(
            &mut state,
            Input::Net(NetInput::Response { id: hello, result }),
        );

        let is = |wanted: fn(&NetOutput) -> bool| {
            outputs
                .iter()
                .any(|o| matches!(o, Output::Net(output) if wanted(output)))
        };
        assert!(!is(|o| matches!(o, NetOutput::Open { .. })));
        assert!(is(|o| matches!(o, NetOutput::Close { .. })));
    }
}

/// Lets the dial of the member with seed 2 succeed; returns the name of our `Hello`.
fn dialled(state: &mut State, now: Now) -> OutboundId {
    let up = NetInput::Connected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        direction: Direction::Dialled,
        address: Address::new("somewhere").expect("legal"),
        transport: Transport::Tcp,
    };
    asked(&feed_at(state, Input::Net(up), now))
}

/// Returns the name of the request on `/pimesh/member/1` among these outputs.
fn asked(outputs: &[Output]) -> OutboundId {
    let asked = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::MemberRequest { id, .. }) => Some(*id),
        _ => None,
    });
    asked.expect("a request")
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

/// Makes a ticket; returns its secret.
fn invite(state: &mut State) -> Secret {
    let command = Command::Invite {
        name: None,
        index: None,
        vouched: Vouched::ALL,
        lifetime: None,
    };
    let ticket = stored(&feed(state, Input::Control(RequestId(1), command)));
    let outputs = feed(state, Input::Stored(ticket));
    let text = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Invited(invite))) => Some(&invite.ticket),
        _ => None,
    });
    let ticket = crate::proto::mesh::ticket::Ticket::from_text(text.expect("a ticket"));
    ticket.expect("legal").secret
}

fn stored(outputs: &[Output]) -> Ticket {
    let ticket = outputs.iter().find_map(|output| match output {
        Output::Store(ticket, _) => Some(*ticket),
        _ => None,
    });
    ticket.expect("records")
}

/// Lets a peer come with a ticket whose proof is made with the key of this seed; returns why not,
/// or nothing if it is let in.
fn join(state: &mut State, seed: u8, secret: &Secret, prover: u8, now: Now) -> Option<Refusal> {
    let (peer, connection) = (peer_of_seed(seed), Connection(u64::from(seed)));
    let up = NetInput::Connected {
        peer,
        connection,
        direction: Direction::Accepted,
        address: Address::new("somewhere").expect("legal"),
        transport: Transport::Tcp,
    };
    feed_at(state, Input::Net(up), now);
    let join = Join {
        secret: secret.clone(),
        name: "guest".parse().expect("a name"),
        messaging_key: *messaging_key(seed).public(),
        proof: messaging_key(prover).sign(&Join::proof_payload(&peer, secret)),
    };
    let request = NetInput::MemberRequest {
        connection,
        id: InboundId(1),
        bytes: Request::Join(Box::new(join)).encode(),
    };
    let outputs = feed_at(state, Input::Net(request), now);
    outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::MemberRespond { bytes, .. }) => match Response::decode(bytes) {
            Ok(Response::Refused(refusal)) => Some(refusal),
            answer => panic!("an answer before anything is on disk: {answer:?}"),
        },
        _ => None,
    })
}

#[test]
fn a_ticket_lets_in_the_first_peer_that_knows_its_secret_and_nobody_else() {
    let mut state = state(Settings::default());
    let secret = invite(&mut state);
    let unknown = Secret::new([7; 16]);
    let too_late = later(INVITE_LIFETIME);

    let refused = [
        join(&mut state, 5, &unknown, 5, NOW),
        join(&mut state, 5, &secret, 6, NOW),
        join(&mut state, 5, &secret, 5, too_late),
    ];
    let first = join(&mut state, 5, &secret, 5, NOW);
    let second = join(&mut state, 6, &secret, 6, NOW);

    let expected = [
        Refusal::TicketUnknown,
        Refusal::NotAMember,
        Refusal::TicketExpired,
    ];
    assert_eq!(refused, expected.map(Some));
    assert_eq!((first, second), (None, Some(Refusal::TicketUnknown)));
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

    let (before, ticket) = send(&mut state, "hello");
    let after = feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    assert!(!before.iter().any(is_reply) && sent(&before).is_none());
    assert!(after.iter().any(is_reply) && sent(&after).is_some());
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

#[test]
fn messages_on_their_way_to_the_disk_take_room_in_the_outbox() {
    let mut state = state(Settings {
        outbox_count_max: 1,
        ..Settings::default()
    });
    let (_, first) = send(&mut state, "one");

    let (outputs, second) = send(&mut state, "two");
    let failed = Input::StoreFailed(first.expect("a ticket"), "disk full".to_owned());
    feed(&mut state, failed);
    let (_, third) = send(&mut state, "three");

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("outbox is full")));
    assert_eq!(second, None);
    assert!(third.is_some(), "what could not be written takes no room");
}

#[test]
fn a_request_without_an_answer_is_sent_again_after_45_seconds() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    open(&mut state);
    state.handle_timeout(NOW);
    outputs(&mut state);

    let wait = Duration::from_secs(45);
    state.handle_timeout(later(wait - Duration::from_millis(1)));
    assert!(sent(&outputs(&mut state)).is_none());
    let due = state.poll_timeout().expect("a timer");
    state.handle_timeout(later(wait));

    assert_eq!(due, later(wait).mono);
    assert!(sent(&outputs(&mut state)).is_some());
}

/// Returns the request with direct messages among these outputs.
fn sent(outputs: &[Output]) -> Option<(OutboundId, DirectRequest)> {
    outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Request {
            protocol: Protocol::Direct,
            id,
            bytes,
            ..
        }) => Some((*id, DirectRequest::decode(bytes).expect("legal"))),
        _ => None,
    })
}

#[test]
fn a_request_that_the_recipient_could_not_take_is_sent_again_soon() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    let (id, _) = sent(&open(&mut state)).expect("a request");
    state.handle_timeout(NOW);
    outputs(&mut state);

    let result = Ok(DirectResponse(vec![Status::TryAgain]).encode());
    let refused = feed(&mut state, Input::Net(NetInput::Response { id, result }));
    let due = state.poll_timeout().expect("a timer");
    state.handle_timeout(later(Duration::from_secs(1)));

    assert!(sent(&refused).is_none(), "not at once");
    assert!(due <= later(Duration::from_secs(1)).mono, "{due:?}");
    assert!(sent(&outputs(&mut state)).is_some());
}

#[test]
fn one_request_carries_no_more_messages_than_a_request_may() {
    for (count, text, expected) in [(200, "x".to_owned(), 128), (5, "x".repeat(100_000), 2)] {
        let mut state = state(Settings::default());
        for _ in 0..count {
            let (_, ticket) = send(&mut state, &text);
            feed(&mut state, Input::Stored(ticket.expect("a ticket")));
        }

        let outputs = open(&mut state);

        let messages = sent(&outputs).map(|(_, request)| request.messages.len());
        assert_eq!(messages, Some(expected));
    }
}

#[test]
fn a_message_to_a_member_that_is_removed_meanwhile_is_given_up() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    let peer = "pi-2".to_owned();
    feed(
        &mut state,
        Input::Control(RequestId(1), Command::Remove { peer }),
    );

    let outputs = feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    let is_refused = |output: &Output| {
        matches!(output, Output::Event(Event::Sent(sent))
            if sent.outcome == Outcome::Refused("removed".to_owned()))
    };
    assert!(outputs.iter().any(is_refused), "{outputs:?}");
    assert_eq!(state.messages.count(), 0);
}

fn message(sender: u8, recipient: u8, key: u8, sequence: u64) -> DirectRequest {
    message_saying("hello", sender, recipient, key, sequence)
}

pub(super) fn message_saying(
    text: &str,
    sender: u8,
    recipient: u8,
    key: u8,
    sequence: u64,
) -> DirectRequest {
    let content = syft::seal(
        text,
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
        kind: crate::proto::mesh::direct::Kind::Member,
    };
    DirectRequest {
        messages: vec![frame.sign(&messaging_key(key))],
    }
}

pub(super) fn receive(
    state: &mut State,
    request: &DirectRequest,
) -> (Option<Status>, Option<Ticket>) {
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: request.encode(),
    };
    answer_of(&feed(state, Input::Net(input)))
}

pub(super) fn answer_of(outputs: &[Output]) -> (Option<Status>, Option<Ticket>) {
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
    let iids = vec![iid(index, 1); count];
    verdict(&hear(state, &iids, head(sequence), NOW))
}

fn iid(index: i32, value: i32) -> Iid {
    Iid {
        index: Index(index),
        value: Value(value),
        date: Date(NOW.unix_ms()),
    }
}

fn head(sequence: u64) -> Head {
    Head {
        entry: Entry::Native,
        held: false,
        ttl: Ttl::DEFAULT,
        sequence: Sequence(sequence),
        sent_ms: NOW.unix_ms(),
    }
}

/// Lets the member with seed 2 broadcast integers.
fn hear(state: &mut State, iids: &[Iid], head: Head, now: Now) -> Vec<Output> {
    let bytes = IntegerFrame::new(head, iids.to_vec())
        .expect("legal")
        .encode();
    let (source, id) = (peer_of_seed(2), GossipId(1));
    feed_at(
        state,
        Input::Net(NetInput::Gossip { source, id, bytes }),
        now,
    )
}

fn verdict(outputs: &[Output]) -> Verdict {
    let verdict = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Verdict { verdict, .. }) => Some(*verdict),
        _ => None,
    });
    verdict.expect("a verdict")
}

fn last_value(state: &State, index: i32) -> Option<i32> {
    let last = state.report_last();
    let last = last.iter().find(|last| last.index == Index(index));
    last.map(|last| last.value.0)
}

#[test]
fn an_integer_that_was_overtaken_is_not_the_last_value() {
    let mut state = state(Settings::default());

    hear(&mut state, &[iid(2, 20)], head(11), NOW);
    let outputs = hear(&mut state, &[iid(2, 10)], head(10), NOW);

    assert_eq!(verdict(&outputs), Verdict::Accept);
    assert_eq!(last_value(&state, 2), Some(20));
}

#[test]
fn an_integer_that_was_overtaken_by_a_handed_over_one_is_not_the_last_value() {
    let mut state = state(Settings::default());
    open(&mut state);
    let last = LastInteger {
        iid: iid(2, 20),
        source: peer_of_seed(2),
        sent_ms: NOW.unix_ms() + 5,
    };
    let request = SyncRequest {
        last: vec![last],
        ..SyncRequest::default()
    };
    sync(&mut state, &request, NOW);

    hear(&mut state, &[iid(2, 10)], head(10), NOW);
    let overtaken = last_value(&state, 2);
    // As after the sender's clock was set back by a minute.
    let set_back = Head {
        sent_ms: NOW.unix_ms() - 60_000,
        ttl: Ttl::from_ms(100_000).expect("legal"),
        ..head(11)
    };
    hear(&mut state, &[iid(2, 30)], set_back, NOW);

    assert_eq!((overtaken, last_value(&state, 2)), (Some(20), Some(30)));
}

#[test]
fn a_frame_with_several_indices_has_a_last_value_of_each() {
    let gateway = mesh_key().issue(Terms {
        vouched: Vouched::range(300, 399).expect("legal"),
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&gateway, [0; 32], Settings::default());
    let bridged = Head {
        entry: Entry::Bridged,
        ..head(1)
    };

    hear(
        &mut state,
        &[iid(300, 1), iid(301, 2), iid(300, 3)],
        bridged,
        NOW,
    );

    assert_eq!(
        (last_value(&state, 300), last_value(&state, 301)),
        (Some(3), Some(2))
    );
}

/// Lets the member with seed 2 tell something about the mesh.
fn sync(state: &mut State, request: &SyncRequest, now: Now) -> Vec<Output> {
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Sync,
        id: InboundId(8),
        bytes: request.encode(),
    };
    feed_at(state, Input::Net(input), now)
}

/// Returns what is told about the mesh among these outputs.
fn told(outputs: &[Output]) -> Vec<(OutboundId, SyncRequest)> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Net(NetOutput::Request {
            protocol: Protocol::Sync,
            id,
            bytes,
            ..
        }) => Some((*id, SyncRequest::decode(bytes).expect("legal"))),
        _ => None,
    });
    told.collect()
}

#[test]
fn clocks_are_compared_at_once_when_integers_seem_to_be_of_another_time() {
    let mut state = state(Settings::default());
    open(&mut state);
    let future = Head {
        sent_ms: NOW.unix_ms() + 3_600_000,
        ..head(1)
    };

    let refused = hear(&mut state, &[iid(2, 1)], future, NOW);
    let again = hear(&mut state, &[iid(2, 1)], future, NOW);
    let [(id, request)] = &told(&refused)[..] else {
        panic!("clocks are compared, not {refused:?}");
    };
    let answer = SyncResponse {
        received_us: NOW.unix_us + 3_600_000_000,
        sent_us: NOW.unix_us + 3_600_000_000,
    };
    let (id, result) = (*id, Ok(answer.encode()));
    feed(&mut state, Input::Net(NetInput::Response { id, result }));
    let compared = hear(&mut state, &[iid(2, 1)], future, NOW);

    assert_eq!(*request, SyncRequest::default());
    assert_eq!(told(&again), [], "a flood of hints is no flood of requests");
    assert_eq!(verdict(&refused), Verdict::Ignore);
    assert_eq!(verdict(&compared), Verdict::Accept);
}

#[test]
fn news_that_got_lost_are_told_again_while_the_connection_stands() {
    let mut state = state(Settings::default());
    let opened = open(&mut state);
    let [(id, _)] = told(&opened)[..] else {
        panic!("everything is told, not {opened:?}");
    };

    let result = Err("timed out".to_owned());
    feed(&mut state, Input::Net(NetInput::Response { id, result }));
    state.handle_timeout(later(Duration::from_secs(5)));
    let again = told(&outputs(&mut state));

    let [(_, request)] = &again[..] else {
        panic!("told once, not {again:?}");
    };
    assert!(request.certificates.contains(&certificate(1).encode()));
}

#[test]
fn a_member_whose_certificate_is_over_is_heard_no_longer_on_an_open_connection() {
    let ends = Now {
        unix_us: certificate(2).terms().expires_ms * 1000,
        ..NOW
    };
    let mut state = state(Settings::default());
    open(&mut state);

    let integer = Head {
        sent_ms: ends.unix_ms(),
        ..head(1)
    };
    let heard = hear(&mut state, &[iid(2, 1)], integer, ends);
    let told = sync(&mut state, &SyncRequest::default(), ends);
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: message(2, 1, 2, 1).encode(),
    };
    let (status, ticket) = answer_of(&feed_at(&mut state, Input::Net(input), ends));

    assert_eq!(verdict(&heard), Verdict::Ignore);
    assert!(
        matches!(
            told[..],
            [
                Output::Event(Event::Refused { .. }),
                Output::Net(NetOutput::Refuse { .. })
            ]
        ),
        "{told:?}"
    );
    assert_eq!((status, ticket), (Some(Status::TryAgain), None));
}

/// How an attempt to be connected with a member ends.
enum Attempt {
    Fails,
    LastsMs(u64),
}

/// Goes through these attempts, each as soon as it is due; returns the wait after each.
fn waits(seed: u8, attempts: &[Attempt]) -> Vec<Duration> {
    let mut state = state_knowing(&certificate(2), [seed; 32], Settings::default());
    let (mut now, mut waits) = (NOW, Vec::new());
    for attempt in attempts {
        match attempt {
            Attempt::Fails => fail_to_dial(&mut state, now),
            Attempt::LastsMs(ms) => now = stay_connected(&mut state, now, *ms),
        }
        let wait = wait_of(&mut state, now);
        now.mono += wait;
        state.handle_timeout(now);
        let dials = |o: &Output| matches!(o, Output::Net(NetOutput::Dial { .. }));
        assert!(outputs(&mut state).iter().any(dials), "nobody dials");
        waits.push(wait);
    }
    waits
}

fn fail_to_dial(state: &mut State, now: Now) {
    let (peer, reason) = (peer_of_seed(2), "no route".to_owned());
    let failed = NetInput::DialFailed { peer, reason };
    feed_at(state, Input::Net(failed), now);
}

fn stay_connected(state: &mut State, now: Now, ms: u64) -> Now {
    let hello = dialled(state, now);
    let result = Ok(Response::Hello(certificate(2).encode()).encode());
    let answered = NetInput::Response { id: hello, result };
    let ready = asked(&feed_at(state, Input::Net(answered), now));
    let result = Ok(Response::Ok.encode());
    let answered = NetInput::Response { id: ready, result };
    feed_at(state, Input::Net(answered), now);
    let ends = Now {
        mono: now.mono + Duration::from_millis(ms),
        ..now
    };
    let gone = NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "gone".to_owned(),
    };
    feed_at(state, Input::Net(gone), ends);
    ends
}

/// Returns how long the node waits before it dials the member with seed 2.
fn wait_of(state: &mut State, now: Now) -> Duration {
    let outputs = feed_at(state, Input::Control(RequestId(1), Command::Peers), now);
    let wait = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Peers(peers))) => peers[1].next_dial_ms,
        _ => None,
    });
    // Told in whole milliseconds, cut off.
    Duration::from_millis(wait.expect("a wait") + 1)
}

#[test]
fn the_backoff_doubles_to_a_minute_and_begins_anew_after_a_connection_of_a_minute() {
    use Attempt::{Fails, LastsMs};
    let attempts = [
        (Fails, 1),
        (Fails, 2),
        (Fails, 4),
        (Fails, 8),
        (Fails, 16),
        (Fails, 32),
        (Fails, 60),
        (Fails, 60),
        (LastsMs(59_999), 60),
        (LastsMs(60_000), 1),
        (Fails, 2),
        (LastsMs(59_999), 4),
        (Fails, 8),
        (LastsMs(3_600_000), 1),
    ];
    let (attempts, ceilings): (Vec<Attempt>, Vec<u64>) = attempts.into_iter().unzip();

    let runs: Vec<Vec<Duration>> = (0..100).map(|seed| waits(seed, &attempts)).collect();

    for (at, ceiling) in ceilings.into_iter().enumerate() {
        let ceiling = Duration::from_secs(ceiling);
        let waits = || runs.iter().map(|waits| waits[at]);
        let (least, most) = (waits().min(), waits().max());
        let is_full_jitter = least < Some(ceiling / 10) && most > Some(ceiling * 9 / 10);
        let cut_off = Duration::from_millis(1);
        assert!(
            is_full_jitter && most <= Some(ceiling + cut_off),
            "{at}: {least:?} {most:?}"
        );
    }
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
fn integers_that_were_too_many_at_once_are_counted_against_their_sender() {
    let mut state = state(Settings::default());
    let source = certificate(2).terms().peer;

    let outputs = feed(&mut state, Input::Net(NetInput::LiveTooLong { source }));

    let is_counted = |output: &Output| {
        matches!(output, Output::Event(Event::Refused { peer: Some(peer), what: "integer", why: "too_long" })
            if *peer == source)
    };
    assert!(outputs.iter().any(is_counted), "{outputs:?}");
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
fn a_value_handed_over_from_far_ahead_gives_way_to_a_live_one() {
    let mut state = state(Settings::default());
    open(&mut state);
    let last = |state: &State| state.report_last().first().map(|last| last.value.0);

    sync_last(&mut state, 6, NOW.unix_ms() - 10);
    sync_last(&mut state, 7, NOW.unix_ms() - 20);
    assert_eq!(last(&state), Some(6));
    sync_last(&mut state, 5, u64::MAX);
    assert_eq!(last(&state), Some(5));
    assert_eq!(gossip(&mut state, 2, 1, 1), Verdict::Accept);
    assert_eq!(last(&state), Some(1));
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

#[test]
fn keys_are_exchanged_anew_when_a_member_comes_back() {
    // Of two peers the smaller one begins.
    let seed = (3..50).find(|&seed| peer_of_seed(1) < peer_of_seed(seed));
    let seed = seed.expect("one of them is larger");
    let mut state = state(Settings::default());
    let own = crate::proto::p2sn::Fingerprint([7; 32]);
    feed(&mut state, Input::Net(NetInput::P2snReady(own)));
    let begins = |o: &Output| matches!(o, Output::Net(NetOutput::P2snOpen { .. }));
    let peer = peer_of_seed(seed);

    for _ in 0..2 {
        hello(&mut state, peer, certificate(seed).encode());
        let ready = NetInput::MemberRequest {
            connection: Connection(1),
            id: InboundId(2),
            bytes: Request::Ready.encode(),
        };
        let opened = feed(&mut state, Input::Net(ready));
        assert_eq!(opened.iter().filter(|o| begins(o)).count(), 1);
        state.p2sn_established(super::io::SessionId::Ours(1), peer);
        outputs(&mut state);
        let gone = NetInput::Disconnected {
            peer,
            connection: Connection(1),
            reason: "closed".to_owned(),
        };
        feed(&mut state, Input::Net(gone));
    }
}
