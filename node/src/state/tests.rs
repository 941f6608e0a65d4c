//! One node's state, fed by hand: this input gives these outputs.

mod bridging;
mod capacity;
mod changes;
mod clock;
mod extremes;
pub(super) mod gateway;
mod indices;
mod integers;
mod joining;
mod leaving;
mod links;
mod mailboxes;
mod members;
mod messages;
mod moving;
mod names;
mod redaction;
mod renaming;
mod servers;
mod sharing;
mod table;
mod tickets;
mod vouching;
mod waiting;
mod waiting_behind;
mod work;

use std::time::Duration;

use libp2p_identity::PeerId;
use rand_core::SeedableRng;

use super::{
    io::{
        Command, Connection, Direction, Event, Failure, GossipId, InboundId, Input, Loaded,
        NetInput, NetOutput, Now, Opening, Output, Protocol, Recipients, Record, Reply, RequestId,
        SendVia, Ticket, Transport, Verdict,
    },
    *,
};
use crate::proto::{
    iid::{
        Date, Iid, Index, Value,
        native::{Entry, Frame as IntegerFrame, Head, Sequence, Ttl},
    },
    mesh::{
        Address, MessageId,
        certificate::{Certificate, MeshKey, Terms},
        direct::{Frame, Request as DirectRequest, Response as DirectResponse, Status},
        member::{Join, Refusal, Request, Response},
        peer_of_seed,
        ranges::Ranges,
        statement::{Kind, Says, Statement},
        sync::Request as SyncRequest,
        ticket::Secret,
        vouched::Vouched,
    },
    syft,
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

/// What a node starts with that has not the mesh key.
fn setup(seed: u8) -> Setup {
    Setup {
        peer: peer_of_seed(seed),
        messaging_key: messaging_key(seed),
        mesh_key: None,
        mesh_key_exported: false,
        name: format!("pi-{seed}").parse().expect("a name"),
        seed: [0; 32],
        settings: Settings::default(),
    }
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
        mesh_key_exported: false,
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

/// Carries a command out on a disk that writes; returns all that follows.
pub(super) fn carried_out(state: &mut State, command: Command) -> Vec<Output> {
    let mut all = feed(state, Input::Control(RequestId(1), command));
    let mut looked_at = 0;
    while looked_at < all.len() {
        if let Output::Store(ticket, _) = &all[looked_at] {
            let ticket = *ticket;
            all.extend(feed(state, Input::Stored(ticket)));
        }
        looked_at += 1;
    }
    all
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
    join_with(state, seed, join_request(seed, secret, prover), now).1
}

fn join_request(seed: u8, secret: &Secret, prover: u8) -> Join {
    Join {
        secret: secret.clone(),
        name: "guest".parse().expect("a name"),
        messaging_key: *messaging_key(seed).public(),
        proof: messaging_key(prover).sign(&Join::proof_payload(&peer_of_seed(seed), secret)),
        left: None,
    }
}

/// Lets a peer come with this request; returns all that follows, and why it was refused if it was.
fn join_with(state: &mut State, seed: u8, join: Join, now: Now) -> (Vec<Output>, Option<Refusal>) {
    let (peer, connection) = (peer_of_seed(seed), Connection(u64::from(seed)));
    let up = NetInput::Connected {
        peer,
        connection,
        direction: Direction::Accepted,
        address: Address::new("somewhere").expect("legal"),
        transport: Transport::Tcp,
    };
    feed_at(state, Input::Net(up), now);
    let request = NetInput::MemberRequest {
        connection,
        id: InboundId(1),
        bytes: Request::Join(Box::new(join)).encode(),
    };
    let outputs = feed_at(state, Input::Net(request), now);
    let refusal = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::MemberRespond { bytes, .. }) => match Response::decode(bytes) {
            Ok(Response::Refused(refusal)) => Some(refusal),
            answer => panic!("an answer before anything is on disk: {answer:?}"),
        },
        _ => None,
    });
    (outputs, refusal)
}

fn send(state: &mut State, text: &str) -> (Vec<Output>, Option<Ticket>) {
    let command = Command::Send {
        to: Recipients::Named(vec!["pi-2".to_owned()]),
        text: text.to_owned(),
        via: SendVia::Direct,
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
    signed_by(frame_saying(text, sender, recipient, key, sequence), key)
}

pub(super) fn signed_by(frame: Frame, key: u8) -> DirectRequest {
    DirectRequest {
        messages: vec![frame.sign(&messaging_key(key))],
    }
}

pub(super) fn frame_saying(text: &str, sender: u8, recipient: u8, key: u8, sequence: u64) -> Frame {
    let content = syft::seal(
        text,
        messaging_key(recipient).public(),
        &syft::SealChance::from_rng(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32])),
    );
    let (from, to) = (format!("pi-{sender}"), format!("pi-{recipient}"));
    let text = syft::Message::signed(&from, &to, content, NOW.unix_ms(), &messaging_key(key));
    Frame {
        id: MessageId([1; 16]),
        sender: peer_of_seed(sender),
        recipient: peer_of_seed(recipient),
        epoch: 5,
        sequence,
        created_ms: NOW.unix_ms(),
        expires_ms: NOW.unix_ms() + 1000,
        syft: text.encode(),
        kind: crate::proto::mesh::direct::Kind::Member,
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
        Input::Net(NetInput::Gossip {
            source,
            from: source,
            id,
            bytes,
        }),
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
