//! The simulated network: dials, links with a gate at each end, and what gets lost on the way.
//!
//! The gate is that of `net/gate.rs`: a node sends requests and gossip only over connections that
//! it has opened both ways. At the other end they are refused if the connection is closed, wait if
//! it is open for inbound streams, and are taken if it is open both ways.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{Happening, World, gossip::Gossip};
use crate::{
    proto::mesh::Address,
    state::io::{
        Connection, Direction, InboundId, Input, NetInput, NetOutput, Opening, OutboundId,
        Protocol, SessionId, Transport, Tried,
    },
};

/// How long `net` gives a connection to get open both ways.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// Addresses of one dial that are tried in time: two rounds of those that `net` tries at once.
const DIALLED_MAX: usize = 16;

/// How long `net` waits for an answer to a member's request.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How long `net` waits for an answer on `/pimesh/member/1`.
const MEMBER_TIME: Duration = Duration::from_secs(10);

/// One end of a link.
pub(super) struct End {
    at: usize,
    connection: Connection,
    opening: Option<Opening>,
    /// What came while the gate was open for inbound streams only.
    waiting: Vec<Parcel>,
    /// The node at this end knows that the link is gone.
    gone: bool,
    /// When the last gossip message arrives: they travel on one stream, so in order.
    pub(super) live_due: Duration,
}

/// A connection between two places.
pub(super) struct Link {
    ends: [End; 2],
    dead: bool,
}

/// Something on its way over a link.
#[derive(Clone)]
pub(super) enum Parcel {
    Member {
        id: InboundId,
        bytes: Vec<u8>,
    },
    Request {
        protocol: Protocol,
        id: InboundId,
        bytes: Vec<u8>,
        number: u64,
    },
    Answer {
        id: OutboundId,
        bytes: Vec<u8>,
    },
    Gossip(Gossip),
    /// A P2SN stream.
    Stream(SessionId),
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// The connection at the end that was asked.
    connection: Connection,
    id: OutboundId,
}

impl World {
    pub(super) fn end(&self, connection: Connection) -> Option<(&Link, &End, &End)> {
        self.links.iter().find_map(|link| {
            let [a, b] = &link.ends;
            if a.connection == connection && !a.gone {
                Some((link, a, b))
            } else if b.connection == connection && !b.gone {
                Some((link, b, a))
            } else {
                None
            }
        })
    }

    pub(super) fn end_mut(&mut self, connection: Connection) -> Option<&mut End> {
        let ends = self.links.iter_mut().flat_map(|link| &mut link.ends);
        ends.into_iter()
            .find(|end| end.connection == connection && !end.gone)
    }

    /// Returns the connection over which a node would send to a peer: one it opened both ways. It
    /// may be dead without knowing it.
    pub(super) fn way(&self, from: usize, to: usize) -> Option<Connection> {
        self.links.iter().find_map(|link| {
            let [a, b] = &link.ends;
            let (near, far) = if a.at == from { (a, b) } else { (b, a) };
            let usable = near.at == from
                && far.at == to
                && !near.gone
                && near.opening == Some(Opening::Both);
            usable.then_some(near.connection)
        })
    }

    /// Says whether two nodes are connected, and both know it.
    pub(super) fn is_connected(&self, a: usize, b: usize) -> bool {
        self.way(a, b).is_some_and(|connection| {
            let (link, _, far) = self.end(connection).expect("the way just found");
            !link.dead && !far.gone && far.opening == Some(Opening::Both)
        })
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_micros(500 + self.chance(20_000))
    }

    /// Says whether one thing in so many gets lost; only in times of trouble.
    fn is_lost(&mut self, one_in: u64, what: &'static str) -> bool {
        let lost = self.trouble && self.chance(one_in) == 0;
        self.count(what, usize::from(lost));
        lost
    }

    /// Puts a parcel on the link that this connection is the near end of.
    pub(super) fn send(&mut self, connection: Connection, after: Duration, parcel: Parcel) {
        let Some((link, _, far)) = self.end(connection) else {
            return;
        };
        if link.dead {
            return;
        }
        let connection = far.connection;
        self.at(after, Happening::Arrives(connection, parcel));
    }

    fn fail(&mut self, at: usize, id: OutboundId, after: Duration, why: &str) {
        let result = Err(why.to_owned());
        self.later(at, after, NetInput::Response { id, result });
    }

    pub(super) fn later(&mut self, at: usize, after: Duration, input: NetInput) {
        if let Some(machine) = self.machines.get(at) {
            let life = machine.life;
            self.at(after, Happening::Input(at, life, Input::Net(input)));
        }
    }

    pub(super) fn act(&mut self, at: usize, output: NetOutput) {
        match output {
            // No machine of the simulation is short of memory.
            NetOutput::Member { .. } => {}
            NetOutput::Dial {
                peer,
                mut addresses,
                ..
            } => {
                let (latency, life) = (self.latency(), self.machines[at].life);
                addresses.truncate(DIALLED_MAX);
                self.at(latency, Happening::Dialled(at, life, peer, addresses));
            }
            NetOutput::Close { connection, .. } => self.close(connection),
            NetOutput::Open {
                connection,
                opening,
            } => self.open(connection, opening),
            NetOutput::MemberRequest {
                connection,
                id,
                bytes,
            } => self.ask_member(at, connection, id, bytes),
            NetOutput::MemberRespond { id, bytes, .. } | NetOutput::Respond { id, bytes } => {
                self.respond(at, id, bytes);
            }
            NetOutput::Refuse { id } => self.refuse(at, id),
            NetOutput::Request {
                peer,
                protocol,
                id,
                bytes,
            } => self.request(at, &peer, protocol, id, bytes),
            NetOutput::Publish { frame, .. } => self.hold_frame(at, frame),
            NetOutput::Verdict { verdict, .. } => {
                let heard = self.machines[at].hearing.as_mut().expect("nothing came");
                heard.verdict = Some(verdict);
            }
            NetOutput::P2snOpen { session, peer, .. } => self.open_session(at, session, &peer),
            NetOutput::P2snVerdict { session, accept } => self.key_judged(at, session, accept),
            NetOutput::P2snReply { .. } => panic!("nobody sends P2SN messages"),
        }
    }

    fn open(&mut self, connection: Connection, opening: Opening) {
        let Some((_, near, far)) = self.end(connection) else {
            return;
        };
        let (at, other) = (near.at, far.at);
        assert!(
            other < self.machines.len(),
            "{:?} was let in",
            self.papers(other)
        );
        let end = self.end_mut(connection).expect("just found");
        if end.opening >= Some(opening) {
            return;
        }
        end.opening = Some(opening);
        if opening == Opening::Both {
            let waiting = std::mem::take(&mut end.waiting);
            self.count("waited_at_the_gate", waiting.len());
            self.greet(at);
            for parcel in waiting {
                self.at(Duration::ZERO, Happening::Arrives(connection, parcel));
            }
        }
    }

    /// Now and then a node says something in the moment in which it may.
    fn greet(&mut self, at: usize) {
        if self.trouble && self.chance(8) == 0 {
            let life = self.machines[at].life;
            self.at(Duration::ZERO, Happening::Greet(at, life));
        }
    }

    pub(super) fn ask_member(
        &mut self,
        at: usize,
        connection: Connection,
        id: OutboundId,
        bytes: Vec<u8>,
    ) {
        let Some((_, _, far)) = self.end(connection) else {
            return self.fail(at, id, Duration::ZERO, "closed");
        };
        let (other, theirs) = (far.at, far.connection);
        if self.is_lost(20, "handshakes_lost") {
            return self.fail(at, id, MEMBER_TIME, "timed out");
        }
        let id = self.name_inbound(other, theirs, id);
        let latency = self.latency();
        self.send(connection, latency, Parcel::Member { id, bytes });
    }

    pub(super) fn respond(&mut self, at: usize, id: InboundId, bytes: Vec<u8>) {
        let Some(Asker { connection, id }) = self.inbound.remove(&(at, id)) else {
            return;
        };
        let Some((_, _, far)) = self.end(connection) else {
            return;
        };
        let asker = far.at;
        if self.is_lost(12, "answers_lost") {
            return self.fail(asker, id, REQUEST_TIME, "timed out");
        }
        let latency = self.latency();
        self.send(connection, latency, Parcel::Answer { id, bytes });
    }

    /// Ends a request's stream without an answer.
    fn refuse(&mut self, at: usize, id: InboundId) {
        let asker = self.inbound.remove(&(at, id));
        if let Some(Asker { connection, id }) = asker
            && let Some((_, _, far)) = self.end(connection)
        {
            let (asker, latency) = (far.at, self.latency());
            self.fail(asker, id, latency, "the stream ended");
        }
    }

    fn request(
        &mut self,
        at: usize,
        peer: &PeerId,
        protocol: Protocol,
        id: OutboundId,
        bytes: Vec<u8>,
    ) {
        let other = self.other_end(at, peer);
        let Some(connection) = self.way(at, other) else {
            return self.fail(at, id, Duration::from_millis(1), "not open");
        };
        if protocol == Protocol::Sync {
            self.model.clocks_asked(at, other, id, self.now);
        }
        let (link, _, far) = self.end(connection).expect("the way just found");
        let theirs = far.connection;
        if link.dead {
            return self.fail(at, id, REQUEST_TIME, "timed out");
        }
        if self.is_lost(12, "requests_lost") {
            // The state must not count on hearing of a message. What it has no timer for, the network
            // always reports: the next sync, and the answer to a command about the mesh key.
            let is_told = matches!(protocol, Protocol::Sync | Protocol::Key);
            if is_told || self.chance(2) == 0 {
                self.fail(at, id, REQUEST_TIME, "timed out");
            }
            return;
        }
        // Now and then a request comes twice, as after a reconnect, and the second one late.
        let twice = self.trouble && protocol == Protocol::Direct && self.chance(6) == 0;
        self.count("requests_delivered_twice", usize::from(twice));
        if protocol == Protocol::Key {
            self.under_way.insert((at, id), connection);
        }
        let number = self.next;
        for copy in 0..=u64::from(twice) {
            let late = Duration::from_millis(copy * self.chance(3_000));
            let latency = self.latency() + late;
            let parcel = Parcel::Request {
                protocol,
                id: self.name_inbound(other, theirs, id),
                bytes: bytes.clone(),
                number,
            };
            self.send(connection, latency, parcel);
        }
    }

    fn name_inbound(&mut self, at: usize, connection: Connection, id: OutboundId) -> InboundId {
        let inbound = InboundId(self.next_inbound);
        self.next_inbound += 1;
        self.inbound.insert((at, inbound), Asker { connection, id });
        inbound
    }

    /// Something comes out of a link; this connection is the far end, where it arrives.
    pub(super) fn arrives(&mut self, connection: Connection, parcel: Parcel) {
        let Some((link, near, far)) = self.end(connection) else {
            return;
        };
        let (at, from, opening) = (near.at, far.at, near.opening);
        if link.dead {
            return;
        }
        if at >= self.machines.len() {
            return self.stranger_hears(at, connection, parcel);
        }
        match (parcel, opening) {
            (Parcel::Member { id, bytes }, _) => {
                let asked = NetInput::MemberRequest {
                    connection,
                    id,
                    bytes,
                };
                self.input(at, Input::Net(asked));
            }
            (Parcel::Answer { id, bytes }, _) => {
                self.model.clocks_answered(at, id);
                self.under_way.remove(&(at, id));
                let result = Ok(bytes);
                self.input(at, Input::Net(NetInput::Response { id, result }));
            }
            (parcel, Some(Opening::Both)) => self.take(at, from, parcel),
            (parcel, Some(Opening::Inbound)) => {
                let end = self.end_mut(connection).expect("just found");
                end.waiting.push(parcel);
            }
            (_, None) => {
                assert!(
                    from >= self.machines.len(),
                    "{from} sends to the closed gate of {at}"
                );
                self.count("strangers_at_the_closed_gate", 1);
            }
        }
    }

    /// A member's request or gossip message is through the gate.
    fn take(&mut self, at: usize, from: usize, parcel: Parcel) {
        match parcel {
            Parcel::Request {
                protocol,
                id,
                bytes,
                number,
            } => {
                let newest = self.newest_request.entry((from, at)).or_default();
                let overtaken = *newest > number;
                *newest = number.max(*newest);
                self.count("requests_reordered", usize::from(overtaken));
                let peer = self.machines[from].peer;
                let ask = NetInput::Request {
                    peer,
                    protocol,
                    id,
                    bytes,
                };
                self.input(at, Input::Net(ask));
            }
            Parcel::Gossip(gossip) => self.hear(at, from, gossip),
            Parcel::Stream(session) => self.serve_session(at, from, session),
            Parcel::Member { .. } | Parcel::Answer { .. } => {}
        }
    }

    /// A node closes a connection: it is gone for itself at once, and for the other soon.
    pub(super) fn close(&mut self, connection: Connection) {
        let notice = self.latency();
        self.break_link(connection, Duration::ZERO, notice);
        if let Some(end) = self.end_mut(connection) {
            end.opening = None;
        }
    }

    /// Takes all cables out of a machine without power; the others notice by its silence.
    pub(super) fn unplug(&mut self, at: usize) {
        let is_at = |link: &&Link| link.ends.iter().any(|end| end.at == at);
        let ends: Vec<Connection> = self
            .links
            .iter()
            .filter(is_at)
            .map(|link| link.ends[usize::from(link.ends[0].at != at)].connection)
            .collect();
        for connection in ends {
            let notice = Duration::from_millis(5 + self.chance(9_000));
            self.break_link(connection, Duration::ZERO, notice);
            if let Some(end) = self.end_mut(connection) {
                end.gone = true;
            }
        }
    }

    /// Breaks every link between two places; returns how many there were.
    pub(super) fn break_between(&mut self, a: usize, b: usize) -> usize {
        let between: Vec<Connection> = self
            .links
            .iter()
            .filter(|link| !link.dead && link.ends.iter().all(|e| e.at == a || e.at == b))
            .map(|link| link.ends[0].connection)
            .collect();
        for &connection in &between {
            let notices = [self.chance(9_000), self.chance(9_000)].map(Duration::from_millis);
            self.break_link(connection, notices[0], notices[1]);
        }
        between.len()
    }

    /// Nothing comes through from here on; each end hears of it in its time.
    fn break_link(&mut self, connection: Connection, notice: Duration, far_notice: Duration) {
        let Some((link, near, far)) = self.end(connection) else {
            return;
        };
        let was_dead = link.dead;
        let (near, far) = ((near.at, connection), (far.at, far.connection));
        let is_this = |link: &&mut Link| link.ends.iter().any(|end| end.connection == connection);
        if let Some(link) = self.links.iter_mut().find(is_this) {
            link.dead = true;
        }
        if !was_dead {
            self.model.link_broken(near.0, far.0, self.now);
            self.at(far_notice, Happening::Gone(far.0, far.1));
        }
        self.at(notice, Happening::Gone(near.0, near.1));
    }

    /// A node learns that a connection is gone.
    pub(super) fn gone(&mut self, at: usize, connection: Connection) {
        let Some((_, _, far)) = self.end(connection) else {
            return;
        };
        let (other, reason) = (far.at, "gone".to_owned());
        self.end_mut(connection).expect("just found").gone = true;
        self.links
            .retain(|link| !link.ends.iter().all(|end| end.gone));
        let peer = self.peer(other);
        let lost = |of: &(usize, OutboundId), by: &mut Connection| (of.0, *by) == (at, connection);
        let lost: Vec<_> = self.under_way.extract_if(.., lost).collect();
        for ((at, id), _) in lost {
            self.fail(at, id, Duration::ZERO, "the connection was closed");
        }
        if at < self.machines.len() {
            let gone = NetInput::Disconnected {
                peer,
                connection,
                reason,
            };
            self.input(at, Input::Net(gone));
        }
    }

    pub(super) fn unopened(&mut self, connection: Connection) {
        let is_closed = |(_, end, _): (_, &End, _)| end.opening != Some(Opening::Both);
        if self.end(connection).is_some_and(is_closed) {
            self.close(connection);
        }
    }

    /// A dial ends; a stranger may be at either end.
    pub(super) fn dialled(
        &mut self,
        from: usize,
        to: &PeerId,
        addresses: Option<&[Address]>,
    ) -> Option<Connection> {
        let is_off = |w: &Self, at: usize| w.machines.get(at).is_some_and(|m| m.state.is_none());
        let mut others = self.places(to);
        if others.len() > 1 {
            others.retain(|other| {
                let is_there =
                    addresses.is_none_or(|tried| tried.contains(&self.address_of(*other)));
                is_there && !is_off(self, *other) && !self.is_cut(from, *other)
            });
        }
        // Copies have the same addresses; which one answers is chance.
        let other = match others.len() {
            0 => self.place(to).expect("somebody"),
            1 => others[0],
            count => others[usize::try_from(self.chance(count as u64)).expect("small")],
        };
        let is_elsewhere = addresses.is_some_and(|tried| !tried.contains(&self.address_of(other)));
        // The stranger whom members dial is mostly not at home.
        let is_out = other >= self.machines.len() && self.chance(6) > 0;
        if self.is_cut(from, other)
            || is_off(self, other)
            || is_off(self, from)
            || is_out
            || is_elsewhere
        {
            let tried = addresses.unwrap_or_default().iter().map(|address| Tried {
                address: address.clone(),
                reason: "no route".to_owned(),
                is_final: false,
            });
            let failed = NetInput::DialFailed {
                peer: *to,
                reason: "no route".to_owned(),
                tried: tried.collect(),
            };
            self.later(from, Duration::ZERO, failed);
            return None;
        }
        let ends = [from, other].map(|at| {
            let connection = Connection(self.next_connection);
            self.next_connection += 1;
            self.at(OPENING_TIME, Happening::Unopened(connection));
            End {
                at,
                connection,
                opening: None,
                waiting: Vec::new(),
                gone: false,
                live_due: Duration::ZERO,
            }
        });
        let [dialler, listener] = [ends[0].connection, ends[1].connection];
        self.links.push(Link { ends, dead: false });
        self.connected(other, listener, from, Direction::Accepted);
        self.connected(from, dialler, other, Direction::Dialled);
        Some(dialler)
    }

    fn connected(&mut self, at: usize, connection: Connection, to: usize, direction: Direction) {
        if at >= self.machines.len() {
            return;
        }
        let up = NetInput::Connected {
            peer: self.peer(to),
            connection,
            direction,
            address: self.address_of(to),
            transport: Transport::Other,
        };
        self.input(at, Input::Net(up));
    }

    /// Sends what only members may send, without having been let in.
    pub(super) fn intrude(&mut self, connection: Connection, parcel: Parcel) {
        let latency = self.latency();
        self.send(connection, latency, parcel);
    }
}
