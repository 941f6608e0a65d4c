//! Real swarms on loopback, with a driver that plays the handshake in place of the state.
//!
//! What the handshake's messages mean is no matter of `net`; here they are two words. Waiting is
//! always for something that happens; the one time limit is there so that a failure ends.

mod crowds;

use std::{collections::BTreeMap, time::Duration};

use futures::FutureExt;
use libp2p::PeerId;

use super::*;
use crate::state::io::{Connection, Direction, OutboundId, Verdict};

/// When a test that waits for something has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often what depends on gossip subscriptions is tried again.
const TICK: Duration = Duration::from_millis(50);

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// How far a node of a test goes in the handshake by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plays {
    /// Not at all.
    Nothing,
    /// To the end.
    Handshake,
    /// As listener to the hello alone; `ready` is left to the test.
    Hello,
}

struct Pi {
    net: Net,
    peer: PeerId,
    plays: Plays,
    asked: BTreeMap<OutboundId, (Connection, &'static str)>,
    next: u64,
    opened: Vec<Connection>,
}

impl Pi {
    /// A node that listens, with its address known.
    async fn start(listen: &str, plays: Plays) -> Self {
        let keypair = Keypair::generate_ed25519();
        let config = Config {
            listen: vec![address(listen)],
            announce: Vec::new(),
            mdns: false,
            connections_max: 64,
            memory_bytes_max: usize::MAX,
        };
        let mut net = Net::new(&config, &keypair).unwrap();
        while net.listeners().is_empty() {
            net.next().await;
        }
        Self {
            net,
            peer: keypair.public().to_peer_id(),
            plays,
            asked: BTreeMap::new(),
            next: 0,
            opened: Vec::new(),
        }
    }

    fn address(&self) -> Address {
        address(&self.net.listeners()[0])
    }

    fn dial(&mut self, peer: PeerId, at: Address, fresh: bool) {
        self.net.act(NetOutput::Dial {
            peer,
            addresses: vec![at],
            fresh,
        });
    }

    fn open(&mut self, connection: Connection, opening: Opening) {
        self.net.act(NetOutput::Open {
            connection,
            opening,
        });
        if opening == Opening::Both {
            self.opened.push(connection);
        }
    }

    fn name_request(&mut self) -> OutboundId {
        self.next += 1;
        OutboundId(self.next)
    }

    fn ask_member(&mut self, connection: Connection, word: &'static str) -> OutboundId {
        let id = self.name_request();
        self.asked.insert(id, (connection, word));
        self.net.act(NetOutput::MemberRequest {
            connection,
            id,
            bytes: word.into(),
        });
        id
    }

    fn ask(&mut self, peer: PeerId, protocol: Protocol, bytes: &[u8]) -> OutboundId {
        let id = self.name_request();
        self.net.act(NetOutput::Request {
            peer,
            protocol,
            id,
            bytes: bytes.to_vec(),
        });
        id
    }

    fn publish(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.net.act(NetOutput::Publish {
                frame: frame.clone(),
                needs_relay: true,
            });
        }
        self.net.flush();
    }

    /// Does what the state does in a handshake, and echoes members' requests.
    fn play(&mut self, input: &NetInput) {
        match input {
            NetInput::Connected {
                connection,
                direction: Direction::Dialled,
                ..
            } if self.plays != Plays::Nothing => {
                self.ask_member(*connection, "hello");
            }
            NetInput::MemberRequest {
                connection,
                id,
                bytes,
            } if self.plays != Plays::Nothing => {
                match bytes.as_slice() {
                    b"hello" => self.open(*connection, Opening::Inbound),
                    b"ready" if self.plays == Plays::Handshake => {
                        self.open(*connection, Opening::Both);
                    }
                    _ => return,
                }
                self.net.act(NetOutput::MemberRespond {
                    connection: *connection,
                    id: *id,
                    bytes: bytes.clone(),
                });
            }
            NetInput::Response { id, result: Ok(_) } => {
                if let Some((connection, "hello")) = self.asked.remove(id)
                    && self.plays != Plays::Nothing
                {
                    self.open(connection, Opening::Both);
                    self.ask_member(connection, "ready");
                }
            }
            NetInput::Request { id, bytes, .. } => {
                let bytes = bytes.clone();
                self.net.act(NetOutput::Respond { id: *id, bytes });
            }
            _ => {}
        }
    }
}

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

/// Bytes that `net` takes for a frame: only the place of the sequence matters to it.
fn frame(sequence: u64, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length.max(16)];
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    frame
}

/// Runs the nodes until `pick` returns something. It sees every input after the handshake was
/// played for it, and between them a `None` now and then.
async fn drive<T>(
    pis: &mut [&mut Pi],
    mut pick: impl FnMut(&mut [&mut Pi], Option<(usize, NetInput)>) -> Option<T>,
) -> T {
    let mut tick = tokio::time::interval(TICK);
    let run = async {
        loop {
            let event = {
                let nexts = pis.iter_mut().map(|pi| pi.net.next().boxed_local());
                tokio::select! {
                    (input, at, _) = futures::future::select_all(nexts) => Some((at, input)),
                    _ = tick.tick() => None,
                }
            };
            if let Some((at, input)) = &event {
                pis[*at].play(input);
            }
            if let Some(picked) = pick(pis, event) {
                return picked;
            }
        }
    };
    tokio::time::timeout(PATIENCE, run)
        .await
        .expect("what the test waits for happens")
}

/// Two nodes, the second of which has dialled the first, both open.
async fn pair(listen: &str) -> (Pi, Pi) {
    let mut a = Pi::start(listen, Plays::Handshake).await;
    let mut b = Pi::start(listen, Plays::Handshake).await;
    b.dial(a.peer, a.address(), false);
    opened(&mut [&mut a, &mut b]).await;
    (a, b)
}

async fn opened(pis: &mut [&mut Pi]) {
    drive(pis, |pis, _| {
        pis.iter().all(|pi| !pi.opened.is_empty()).then_some(())
    })
    .await;
}

/// Waits for the answer to a request of node `at`.
async fn answer(pis: &mut [&mut Pi], at: usize, id: OutboundId) -> Result<Vec<u8>, String> {
    drive(pis, |_, event| match event {
        Some((from, NetInput::Response { id: named, result })) if from == at && named == id => {
            Some(result)
        }
        _ => None,
    })
    .await
}

/// Publishes at one node until another has a message of it.
async fn gossip(pis: &mut [&mut Pi], from: usize, to: usize, mut sequence: u64) {
    let source = pis[from].peer;
    drive(pis, |pis, event| match event {
        None => {
            sequence += 1;
            pis[from].publish(&[frame(sequence, 32)]);
            None
        }
        Some((at, NetInput::Gossip { source: named, .. })) if at == to && named == source => {
            Some(())
        }
        Some(_) => None,
    })
    .await;
}

/// Waits for the next connection of node `at`.
async fn connected(pis: &mut [&mut Pi], at: usize) -> Connection {
    drive(pis, |_, event| match event {
        Some((from, NetInput::Connected { connection, .. })) if from == at => Some(connection),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn after_the_handshake_everything_works_both_ways() {
    let (mut a, mut b) = pair(TCP).await;
    let (to_a, to_b) = (a.peer, b.peer);
    let pis = &mut [&mut a, &mut b];
    for protocol in [Protocol::Sync, Protocol::Direct] {
        let id = pis[0].ask(to_b, protocol, b"from a");
        assert_eq!(answer(pis, 0, id).await, Ok(b"from a".to_vec()));
        let id = pis[1].ask(to_a, protocol, b"from b");
        assert_eq!(answer(pis, 1, id).await, Ok(b"from b".to_vec()));
    }
    gossip(pis, 0, 1, 0).await;
    gossip(pis, 1, 0, 0).await;
}

#[tokio::test]
async fn over_quic_everything_works_both_ways() {
    let (mut a, mut b) = pair(QUIC).await;
    let to_b = b.peer;
    let pis = &mut [&mut a, &mut b];
    let id = pis[0].ask(to_b, Protocol::Direct, b"from a");
    assert_eq!(answer(pis, 0, id).await, Ok(b"from a".to_vec()));
    gossip(pis, 0, 1, 0).await;
    gossip(pis, 1, 0, 0).await;
}

#[tokio::test]
async fn a_peer_that_opens_its_own_side_alone_gets_and_hears_nothing() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    a.net.connections.opening_time = Duration::from_secs(2);
    let to_a = a.peer;
    b.dial(to_a, a.address(), false);
    let pis = &mut [&mut a, &mut b];
    let connection = connected(pis, 1).await;
    pis[1].open(connection, Opening::Both);
    let ids: Vec<OutboundId> = [Protocol::Sync, Protocol::Direct]
        .map(|protocol| pis[1].ask(to_a, protocol, b"let me in"))
        .into();
    let mut sequence = 0;
    let mut refused = Vec::new();
    drive(pis, |pis, event| match event {
        None => {
            sequence += 1;
            pis[0].publish(&[frame(sequence, 32)]);
            pis[1].publish(&[frame(sequence, 32)]);
            None
        }
        Some((at, NetInput::Gossip { .. })) => panic!("node {at} hears gossip"),
        Some((0, NetInput::Request { .. })) => panic!("the request comes through"),
        Some((1, NetInput::Response { id, result })) => {
            assert!(result.is_err(), "{result:?}");
            refused.push(id);
            None
        }
        Some((1, NetInput::Disconnected { .. })) => Some(()),
        Some(_) => None,
    })
    .await;
    refused.sort();
    assert_eq!(refused, ids);
}

#[tokio::test]
async fn a_stranger_who_says_nothing_is_closed_after_the_deadline() {
    let mut a = Pi::start(TCP, Plays::Handshake).await;
    let mut stranger = Pi::start(TCP, Plays::Nothing).await;
    a.net.connections.opening_time = Duration::from_millis(100);
    stranger.dial(a.peer, a.address(), false);
    let reason = drive(&mut [&mut a, &mut stranger], |_, event| match event {
        Some((0, NetInput::Disconnected { reason, .. })) => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, "no handshake in time");
}

#[tokio::test]
async fn a_request_to_a_peer_whose_connection_is_not_open_fails_at_once() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    let to_a = a.peer;
    b.dial(to_a, a.address(), false);
    let pis = &mut [&mut a, &mut b];
    connected(pis, 1).await;
    let id = pis[1].ask(to_a, Protocol::Direct, b"too early");
    assert_eq!(
        answer(pis, 1, id).await,
        Err("no connection to the peer is open".to_owned())
    );
}

#[tokio::test]
async fn a_question_on_a_connection_that_closes_is_answered_with_an_error() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    b.dial(a.peer, a.address(), false);
    let pis = &mut [&mut a, &mut b];
    let connection = connected(pis, 1).await;
    let id = pis[1].ask_member(connection, "hello");
    let result = drive(pis, |pis, event| match event {
        Some((0, NetInput::MemberRequest { connection, .. })) => {
            let reason = "the test says so".into();
            pis[0].net.act(NetOutput::Close { connection, reason });
            None
        }
        Some((1, NetInput::Response { id: named, result })) if named == id => Some(result),
        _ => None,
    })
    .await;
    assert!(result.is_err(), "{result:?}");
}

#[tokio::test]
async fn answers_arrive_on_the_connection_that_asked_and_one_of_two_may_close() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    let (to_a, at_a) = (a.peer, a.address());
    b.dial(to_a, at_a.clone(), true);
    let pis = &mut [&mut a, &mut b];
    let one = connected(pis, 1).await;
    pis[1].dial(to_a, at_a, true);
    let two = connected(pis, 1).await;
    let asked = [
        pis[1].ask_member(one, "on one"),
        pis[1].ask_member(two, "on two"),
    ];

    // Both requests wait; then they are answered, the later one first.
    let mut waiting = Vec::new();
    drive(pis, |_, event| {
        if let Some((
            0,
            NetInput::MemberRequest {
                connection,
                id,
                bytes,
            },
        )) = event
        {
            waiting.push((connection, id, bytes));
        }
        (waiting.len() == 2).then_some(())
    })
    .await;
    assert_ne!(waiting[0].0, waiting[1].0);
    for (connection, id, bytes) in waiting.into_iter().rev() {
        pis[0].net.act(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
    }
    let mut answers = BTreeMap::new();
    drive(pis, |_, event| {
        if let Some((1, NetInput::Response { id, result })) = event {
            answers.insert(id, result);
        }
        (answers.len() == 2).then_some(())
    })
    .await;
    assert_eq!(answers[&asked[0]], Ok(b"on one".to_vec()));
    assert_eq!(answers[&asked[1]], Ok(b"on two".to_vec()));

    for pi in pis.iter_mut() {
        pi.plays = Plays::Handshake;
    }
    pis[1].ask_member(one, "hello");
    pis[1].ask_member(two, "hello");
    drive(pis, |pis, _| {
        pis.iter().all(|pi| pi.opened.len() == 2).then_some(())
    })
    .await;
    pis[1].net.act(NetOutput::Close {
        connection: one,
        reason: "one of two".into(),
    });
    drive(pis, |_, event| {
        matches!(event, Some((0, NetInput::Disconnected { .. }))).then_some(())
    })
    .await;
    let id = pis[1].ask(to_a, Protocol::Direct, b"still here");
    assert_eq!(answer(pis, 1, id).await, Ok(b"still here".to_vec()));
    gossip(pis, 0, 1, 0).await;
    gossip(pis, 1, 0, 0).await;
}

#[tokio::test]
async fn a_connection_in_its_handshake_outlives_the_one_it_replaces() {
    let (mut a, mut b) = pair(TCP).await;
    let (to_a, at_a, to_b) = (a.peer, a.address(), b.peer);
    let (old_a, old_b) = (a.opened[0], b.opened[0]);
    a.plays = Plays::Hello;
    b.dial(to_a, at_a, true);
    let pis = &mut [&mut a, &mut b];

    // The new connection stands at `ready`, open one way at the listener; the old one ends.
    let (new, ready) = drive(pis, |_, event| match event {
        Some((
            0,
            NetInput::MemberRequest {
                connection,
                id,
                bytes,
            },
        )) if bytes == b"ready" => Some((connection, id)),
        _ => None,
    })
    .await;
    for (at, connection) in [(0, old_a), (1, old_b)] {
        pis[at].net.act(NetOutput::Close {
            connection,
            reason: "replaced".into(),
        });
    }
    let mut gone = 0;
    drive(pis, |_, event| {
        gone += usize::from(matches!(event, Some((_, NetInput::Disconnected { .. }))));
        (gone == 2).then_some(())
    })
    .await;
    pis[0].open(new, Opening::Both);
    pis[0].net.act(NetOutput::MemberRespond {
        connection: new,
        id: ready,
        bytes: b"ready".to_vec(),
    });
    let id = pis[0].ask(to_b, Protocol::Direct, b"from a");
    assert_eq!(answer(pis, 0, id).await, Ok(b"from a".to_vec()));
    gossip(pis, 0, 1, 0).await;
    gossip(pis, 1, 0, 0).await;
}

#[tokio::test]
async fn a_message_travels_on_only_if_the_verdict_accepts_it() {
    let (mut a, mut b) = pair(TCP).await;
    let mut c = Pi::start(TCP, Plays::Handshake).await;
    c.dial(b.peer, b.address(), false);
    let pis = &mut [&mut a, &mut b, &mut c];
    drive(pis, |pis, _| (pis[1].opened.len() == 2).then_some(())).await;
    let mut sequence = 0;
    let heard = drive(pis, |pis, event| match event {
        None => {
            sequence += 1;
            pis[0].publish(&[frame(sequence, 32)]);
            None
        }
        Some((1, NetInput::Gossip { id, bytes, .. })) => {
            let verdict = if bytes[8] % 2 == 0 {
                Verdict::Accept
            } else {
                Verdict::Ignore
            };
            pis[1].net.act(NetOutput::Verdict { id, verdict });
            None
        }
        Some((2, NetInput::Gossip { bytes, .. })) => Some(bytes),
        Some(_) => None,
    })
    .await;
    assert_eq!(heard[8] % 2, 0, "only even ones were accepted");
}

#[tokio::test]
async fn frames_of_one_turn_travel_together_up_to_the_limit() {
    let (mut a, mut b) = pair(TCP).await;
    let pis = &mut [&mut a, &mut b];
    gossip(pis, 0, 1, 1000).await;
    let frames = [
        frame(1, 30_000),
        frame(2, 30_000),
        frame(3, 30_000),
        frame(4, 100),
    ];
    pis[0].publish(&frames);
    let mut messages = Vec::new();
    drive(pis, |_, event| {
        if let Some((1, NetInput::Gossip { bytes, .. })) = event
            && bytes.len() > 32
        {
            messages.push(bytes);
        }
        (messages.len() == 2).then_some(())
    })
    .await;
    assert_eq!(
        messages,
        [
            [&frames[0][..], &frames[1]].concat(),
            [&frames[2][..], &frames[3]].concat()
        ]
    );
}

#[tokio::test]
async fn a_dial_ends_in_one_connected_or_dial_failed() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    let (to_a, at_a) = (a.peer, a.address());
    let nobody = Keypair::generate_ed25519().public().to_peer_id();
    let closed = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port())
    };
    let pis = &mut [&mut a, &mut b];
    // No listener, no address, no multiaddr, another node's address; each with its one ending.
    let dials = [
        (vec![address(&closed)], "Connection refused"),
        (vec![], "no address is known"),
        (vec![address("nonsense")], "no address is known"),
        (vec![at_a.clone()], "another node answered at that address"),
    ];
    for (addresses, why) in dials {
        pis[1].net.act(NetOutput::Dial {
            peer: nobody,
            addresses,
            fresh: false,
        });
        let reason = drive(pis, |_, event| match event {
            Some((1, NetInput::DialFailed { peer, reason, .. })) if peer == nobody => Some(reason),
            Some((1, NetInput::Connected { .. })) => panic!("there is nobody"),
            _ => None,
        })
        .await;
        assert_eq!(reason, why);
    }

    // Of two dials at once one is refused and one connects; nothing comes after.
    pis[1].dial(to_a, at_a.clone(), false);
    pis[1].dial(to_a, at_a.clone(), false);
    let mut endings = Vec::new();
    let mut round_trips = 0;
    drive(pis, |_, event| {
        match event {
            Some((1, NetInput::DialFailed { reason, .. })) => endings.push(reason),
            Some((1, NetInput::DialNotBegun { .. })) => endings.push("not begun".to_owned()),
            Some((1, NetInput::Connected { .. })) => endings.push("connected".to_owned()),
            Some((1, NetInput::RoundTrip { .. })) => round_trips += 1,
            _ => {}
        }
        (round_trips == 1).then_some(())
    })
    .await;
    assert_eq!(endings, ["not begun", "connected"]);
}

/// An address that another member has by now, or a lie, answers faster than the right one.
#[tokio::test]
async fn a_peer_is_reached_although_others_answer_at_some_of_its_addresses() {
    for listen in [TCP, QUIC] {
        let mut a = Pi::start(listen, Plays::Nothing).await;
        let mut others = Vec::new();
        for _ in 0..6 {
            others.push(Pi::start(listen, Plays::Nothing).await);
        }
        let mut dialler = Pi::start(listen, Plays::Nothing).await;
        let own = dialler.address();
        let wrong = others.iter().map(Pi::address).chain([own]);
        let mut addresses: Vec<Address> = wrong.collect();
        addresses.push(a.address());
        let (peer, at) = (a.peer, a.address());
        let mut pis: Vec<&mut Pi> = vec![&mut dialler, &mut a];
        pis.extend(&mut others);

        pis[0].net.act(NetOutput::Dial {
            peer,
            addresses,
            fresh: false,
        });
        let reached = drive(&mut pis, |_, event| match event {
            Some((0, NetInput::Connected { peer, address, .. })) => Some((peer, address)),
            Some((0, NetInput::DialFailed { tried, .. })) => panic!("{tried:?}"),
            _ => None,
        })
        .await;

        assert_eq!(reached, (peer, at));
    }
}

#[tokio::test]
async fn a_dial_that_failed_says_of_each_address_why_and_whether_that_is_final() {
    let mut a = Pi::start(TCP, Plays::Nothing).await;
    let mut b = Pi::start(TCP, Plays::Nothing).await;
    let nobody = Keypair::generate_ed25519().public().to_peer_id();
    let (of_a, own) = (a.address(), b.address());
    let no_route = address("/ip4/127.0.0.1/sctp/1");
    let pis = &mut [&mut a, &mut b];

    pis[1].net.act(NetOutput::Dial {
        peer: nobody,
        addresses: vec![of_a.clone(), own.clone(), no_route.clone()],
        fresh: false,
    });
    let mut tried = drive(pis, |_, event| match event {
        Some((1, NetInput::DialFailed { tried, .. })) => Some(tried),
        _ => None,
    })
    .await;

    tried.sort_by_key(|tried| tried.address != of_a);
    assert!(tried.iter().all(|tried| tried.is_final), "{tried:?}");
    assert_eq!(tried.len(), 3, "{tried:?}");
    assert!(
        tried[0].reason.starts_with("another node answered"),
        "{tried:?}"
    );
    let of_own = tried.iter().find(|tried| tried.address == own);
    let of_own = of_own.map(|tried| tried.reason.as_str());
    assert_eq!(of_own, Some("this node itself listens at that address"));
}

/// Publishes frames `from..=to` at the first of two nodes, and waits until the second has the last
/// of them: live, or as gossip too if they need a relay. Returns what came, live and as gossip.
async fn publish_and_hear(
    pis: &mut [&mut Pi],
    sequences: std::ops::RangeInclusive<u64>,
    needs_relay: bool,
) -> (Vec<u64>, Vec<u64>) {
    let last = *sequences.end();
    for sequence in sequences {
        let frame = frame(sequence, 32);
        pis[0].net.act(NetOutput::Publish { frame, needs_relay });
        pis[0].net.flush();
    }
    let (mut live, mut gossip) = (Vec::new(), Vec::new());
    drive(pis, |_, event| {
        match event {
            Some((1, NetInput::Live { bytes, .. })) => live.push(u64::from(bytes[8])),
            Some((1, NetInput::Gossip { bytes, .. })) => gossip.push(u64::from(bytes[8])),
            _ => {}
        }
        let done = live.last() == Some(&last) && (!needs_relay || gossip.last() == Some(&last));
        done.then_some(())
    })
    .await;
    (live, gossip)
}

#[tokio::test]
async fn what_is_published_once_a_connection_is_open_arrives_live_and_in_order() {
    for listen in [TCP, QUIC] {
        let (mut a, mut b) = pair(listen).await;
        let pis = &mut [&mut a, &mut b];

        let (live, _) = publish_and_hear(pis, 1..=100, false).await;
        assert!(live.into_iter().eq(1..=100));
        // The line is open by now, and gossip has nothing to do until a relay is needed.
        let (live, gossip) = publish_and_hear(pis, 101..=110, false).await;
        assert!(live.into_iter().eq(101..=110));
        assert!(gossip.iter().all(|&sequence| sequence <= 100), "{gossip:?}");
        let (live, gossip) = publish_and_hear(pis, 111..=120, true).await;
        assert!(live.into_iter().eq(111..=120));
        assert!(gossip.iter().all(|&s| s <= 100 || s > 110), "{gossip:?}");
    }
}
