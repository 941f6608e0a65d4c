//! Which connections are opened, kept and closed.
//!
//! A connection begins closed to everything but `/pimesh/member/1`. The dialler shows its
//! certificate first (`proto::mesh::member`); after the handshake the connection is open. Between
//! two nodes one open connection is enough: the dialler of a needless one closes it, and of two
//! handshakes at once the one that the smaller peer id dialled goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{
    Asked, State,
    io::{Connection, Direction, Event, InboundId, NetOutput, Now, Opening, Transport},
    membership::NotAMember,
    work::look,
};
use crate::proto::mesh::{
    Address,
    member::{Refusal, Request, Response},
};

/// How long two dials count as simultaneous.
const SIMULTANEOUS: Duration = Duration::from_millis(500);

/// How far the handshake of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Waits for the dialler's `Hello` or `Join`.
    Waiting,
    /// We asked.
    Asked,
    /// We answered, and wait for `Ready`.
    Answered,
    /// Members speak freely.
    Open,
    /// It was further than [`Phase::Waiting`] when this node went into another mesh. Nobody speaks on
    /// it any more but to say goodbye.
    Ended,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    peer: PeerId,
    direction: Direction,
    address: Address,
    transport: Transport,
    phase: Phase,
    opened_at: Option<Duration>,
    opened_ms: u64,
    round_trip: Option<Duration>,
    /// The cable may have been out: a fresh connection goes before this one.
    suspect: bool,
}

impl Link {
    pub(super) const fn new(
        peer: PeerId,
        direction: Direction,
        address: Address,
        transport: Transport,
    ) -> Self {
        Self {
            peer,
            direction,
            address,
            transport,
            phase: Phase::Waiting,
            opened_at: None,
            opened_ms: 0,
            round_trip: None,
            suspect: false,
        }
    }

    pub(super) const fn direction(&self) -> Direction {
        self.direction
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) const fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns when it was opened to members' protocols, on the clock that never jumps.
    pub(super) const fn opened_at(&self) -> Option<Duration> {
        self.opened_at
    }

    pub(super) const fn opened_ms(&self) -> u64 {
        self.opened_ms
    }

    pub(super) const fn last_round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

/// Every connection of this node.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<Connection, Link>,
    /// The connections of each peer.
    of_peers: BTreeMap<PeerId, BTreeSet<Connection>>,
    /// How many connections of a peer are open.
    open: BTreeMap<PeerId, usize>,
}

impl Links {
    fn insert(&mut self, connection: Connection, link: Link) {
        let of_peer = self.of_peers.entry(link.peer).or_default();
        of_peer.insert(connection);
        self.links.insert(connection, link);
    }

    fn remove(&mut self, connection: Connection) -> Option<Link> {
        let link = self.links.remove(&connection)?;
        if let Some(of_peer) = self.of_peers.get_mut(&link.peer) {
            of_peer.remove(&connection);
            if of_peer.is_empty() {
                self.of_peers.remove(&link.peer);
            }
        }
        if link.phase == Phase::Open
            && let Some(open) = self.open.get_mut(&link.peer)
        {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&link.peer);
            }
        }
        Some(link)
    }

    pub(super) fn peer(&self, connection: Connection) -> Option<PeerId> {
        self.links.get(&connection).map(|link| link.peer)
    }

    /// Returns the open connection to a peer.
    pub(super) fn open_link(&self, peer: &PeerId) -> Option<&Link> {
        self.of(peer)
            .map(|(_, link)| link)
            .find(|link| link.phase == Phase::Open)
    }

    pub(super) fn is_open(&self, peer: &PeerId) -> bool {
        self.open.contains_key(peer)
    }

    /// Says whether a peer dialled this connection and has not been answered on it.
    fn is_new(&self, connection: Connection) -> bool {
        self.links.get(&connection).is_some_and(|link| {
            link.direction == Direction::Accepted && link.phase == Phase::Waiting
        })
    }

    pub(super) fn any_with(&self, peer: &PeerId) -> bool {
        self.of(peer).next().is_some()
    }

    pub(super) fn open_peers(&self) -> impl Iterator<Item = PeerId> {
        self.open.keys().map(|peer| {
            look();
            *peer
        })
    }

    pub(super) fn round_trip(&mut self, connection: Connection, time: Duration) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.round_trip = Some(time);
        }
    }

    pub(super) fn answered(&mut self, connection: Connection) {
        self.advance(connection, Phase::Answered);
    }

    pub(super) fn asked(&mut self, connection: Connection) {
        self.advance(connection, Phase::Asked);
    }

    /// This node goes into another mesh: nobody is a member any more.
    pub(super) fn end_all(&mut self) {
        self.open.clear();
        for link in self.links.values_mut() {
            if link.phase != Phase::Waiting {
                link.phase = Phase::Ended;
            }
        }
    }

    fn advance(&mut self, connection: Connection, phase: Phase) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.phase = phase;
        }
    }

    fn of(&self, peer: &PeerId) -> impl Iterator<Item = (Connection, &Link)> {
        let connections = self.of_peers.get(peer).into_iter().flatten();
        connections.filter_map(|connection| {
            look();
            Some((*connection, self.links.get(connection)?))
        })
    }

    fn connections_of(&self, peer: &PeerId) -> Vec<Connection> {
        self.of(peer).map(|(connection, _)| connection).collect()
    }
}

impl State {
    pub(super) fn connected(&mut self, link: Link, connection: Connection, now: Now) {
        let peer = link.peer;
        let dialled = link.direction == Direction::Dialled;
        self.links.insert(connection, link);
        if self.floods.rests(&peer, now) {
            return self.close(connection, "it rests after it flooded this node");
        }
        if !dialled {
            return;
        }
        self.peers.dialled(&peer);
        if let Some(bytes) = self.join_request(&peer) {
            return self.ask_member(connection, Asked::Join(connection), bytes);
        }
        if !self.membership.is_known(&peer) || self.membership.is_revoked() {
            return self.close(connection, "not a member");
        }
        let healthy = self
            .links
            .open_link(&peer)
            .is_some_and(|link| !link.suspect);
        if healthy {
            return self.close(connection, "another connection is open");
        }
        let hello = Request::Hello(self.membership.own_certificate()).encode();
        self.ask_member(connection, Asked::Hello(connection), hello);
        self.dial_due(now);
    }

    fn ask_member(&mut self, connection: Connection, asked: Asked, bytes: Vec<u8>) {
        self.links.asked(connection);
        let id = self.effects.ask(asked);
        self.effects.net(NetOutput::MemberRequest {
            connection,
            id,
            bytes,
        });
    }

    pub(super) fn disconnected(
        &mut self,
        peer: PeerId,
        connection: Connection,
        reason: String,
        now: Now,
    ) {
        let Some(link) = self.links.remove(connection) else {
            return;
        };
        let was_open = link.opened_at.is_some();
        if !was_open {
            if link.direction == Direction::Dialled && !self.join_dial_failed(&peer, &reason, &[]) {
                self.peers
                    .handshake_failed(&peer, reason, &mut self.effects, now);
            }
        } else if !self.links.is_open(&peer) {
            let up_for = now.mono.saturating_sub(link.opened_at.unwrap_or(now.mono));
            self.peers
                .went_down(&peer, up_for, reason.clone(), &mut self.effects, now);
            self.farewell_heard(&peer);
            self.messages.link_lost(&peer);
            self.copies.link_changed(&peer);
            self.users_link_lost(peer, now);
            self.forget_exchange(&peer);
            // Also of one that was removed: it was told to be up.
            let name = self.name_of(&peer);
            self.effects.event(Event::PeerDown { peer, name, reason });
        }
        self.dial_due(now);
    }

    /// Answers a peer on `/pimesh/member/1`.
    pub(super) fn member_request(
        &mut self,
        connection: Connection,
        id: InboundId,
        bytes: &[u8],
        now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        match Request::decode(bytes) {
            // The dialler speaks first, and once.
            Ok(Request::Hello(_) | Request::Join(_)) if !self.links.is_new(connection) => {
                self.effects
                    .refused(Some(peer), "member_request", "out_of_turn");
                self.close(connection, "a handshake out of turn");
            }
            Ok(Request::Hello(certificate)) => {
                self.hello_requested(connection, id, peer, &certificate, now);
            }
            Ok(Request::Ready) => self.ready_requested(connection, id, now),
            Ok(Request::Join(join)) => self.join_requested(connection, id, peer, &join, now),
            Err(_) => {
                self.effects
                    .refused(Some(peer), "member_request", "malformed");
                self.close(connection, "malformed request");
            }
        }
    }

    fn hello_requested(
        &mut self,
        connection: Connection,
        id: InboundId,
        peer: PeerId,
        certificate: &[u8],
        now: Now,
    ) {
        if let Some(left) = self.membership.goodbye_to(&peer, certificate) {
            let bytes = Response::Left(left).encode();
            return self.effects.net(NetOutput::MemberRespond {
                connection,
                id,
                bytes,
            });
        }
        if self.membership.is_revoked() {
            return self.close(connection, "this node was removed from the mesh");
        }
        let believed = self.believed(now);
        let certificate = match self.membership.judge(certificate, &peer, believed) {
            Ok(certificate) => certificate,
            Err(reason) => {
                self.effects
                    .refused(Some(peer), "certificate", reason.name());
                let bytes = self.why_not(&peer, &reason).encode();
                return self.effects.net(NetOutput::MemberRespond {
                    connection,
                    id,
                    bytes,
                });
            }
        };
        if self.prefers_own_dial(&peer, now) {
            return self.refuse(connection, id, Refusal::OtherConnection);
        }
        self.learn_from_hello(certificate, now);
        self.links.answered(connection);
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Inbound,
        });
        let bytes = Response::Hello(self.membership.own_certificate()).encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
    }

    /// Tells a removed member that it was removed, and anybody else nothing.
    fn why_not(&self, peer: &PeerId, reason: &NotAMember) -> Response {
        match self.membership.revocation_of(peer) {
            Some(revocation) if *reason == NotAMember::Revoked => Response::Revoked(revocation),
            _ => Response::Refused(Refusal::NotAMember),
        }
    }

    fn refuse(&mut self, connection: Connection, id: InboundId, refusal: Refusal) {
        let bytes = Response::Refused(refusal).encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
    }

    /// Says whether a handshake that we began goes before one that the peer began, or went a moment
    /// ago: then the peer did not know of it when it dialled.
    fn prefers_own_dial(&self, peer: &PeerId, now: Now) -> bool {
        let ours = |link: &Link| {
            let fresh = link
                .opened_at
                .is_some_and(|at| now.mono < at + SIMULTANEOUS);
            link.direction == Direction::Dialled
                && !link.suspect
                && (link.phase == Phase::Asked || fresh)
        };
        self.own.peer < *peer && self.links.of(peer).any(|(_, link)| ours(link))
    }

    fn learn_from_hello(
        &mut self,
        certificate: crate::proto::mesh::certificate::Certificate,
        now: Now,
    ) {
        let encoded = certificate.encode();
        if self.keep_certificate(certificate, now) {
            self.tell_everybody(vec![encoded], vec![], now);
        }
    }

    fn ready_requested(&mut self, connection: Connection, id: InboundId, now: Now) {
        let answered = self
            .links
            .links
            .get(&connection)
            .is_some_and(|link| link.phase == Phase::Answered);
        if !answered {
            return self.close(connection, "ready without hello");
        }
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Both,
        });
        let bytes = Response::Ok.encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
        self.opened(connection, now);
    }

    pub(super) fn hello_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        let Ok(bytes) = result else {
            return self.close(connection, "no answer to hello");
        };
        match Response::decode(&bytes) {
            Ok(Response::Hello(_))
                if self
                    .links
                    .open_link(&peer)
                    .is_some_and(|link| !link.suspect) =>
            {
                self.close(connection, "another connection is open");
            }
            Ok(Response::Hello(certificate)) => {
                let believed = self.believed(now);
                match self.membership.judge(&certificate, &peer, believed) {
                    Ok(certificate) => {
                        self.learn_from_hello(certificate, now);
                        self.open_as_dialler(connection);
                    }
                    Err(reason) => {
                        self.effects
                            .refused(Some(peer), "certificate", reason.name());
                        self.close(connection, "its certificate is not good");
                    }
                }
            }
            Ok(Response::Refused(Refusal::OtherConnection)) => {
                self.close(connection, "the peer prefers its own connection");
            }
            Ok(Response::Revoked(revocation)) => {
                self.learn_statements(vec![], vec![revocation], now);
                self.close(connection, "the peer says that this node was removed");
            }
            Ok(Response::Left(left)) => {
                self.told_left(left, now);
                self.close(connection, "the peer has left the mesh");
            }
            Ok(Response::Refused(_)) => {
                self.close(connection, "the peer does not take this node for a member");
            }
            Ok(Response::Ok | Response::Welcome(_)) | Err(_) => {
                self.effects
                    .refused(Some(peer), "member_answer", "malformed");
                self.close(connection, "malformed answer");
            }
        }
    }

    pub(super) fn ready_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let ok = result.is_ok_and(|bytes| Response::decode(&bytes) == Ok(Response::Ok));
        if ok {
            self.opened(connection, now);
        } else {
            self.close(connection, "no answer to ready");
        }
    }

    /// Sends `Ready` on a connection that is open on our side.
    pub(super) fn open_as_dialler(&mut self, connection: Connection) {
        self.links.asked(connection);
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Both,
        });
        let id = self.effects.ask(Asked::Ready(connection));
        let bytes = Request::Ready.encode();
        self.effects.net(NetOutput::MemberRequest {
            connection,
            id,
            bytes,
        });
    }

    /// Both sides have verified each other on this connection.
    fn opened(&mut self, connection: Connection, now: Now) {
        let Some(link) = self.links.links.get_mut(&connection) else {
            return;
        };
        if link.phase != Phase::Open {
            *self.links.open.entry(link.peer).or_default() += 1;
        }
        link.phase = Phase::Open;
        link.opened_at = Some(now.mono);
        link.opened_ms = now.unix_ms();
        let (peer, direction) = (link.peer, link.direction);
        let (address, transport) = (link.address.clone(), link.transport);
        let others: Vec<Connection> = self
            .links
            .connections_of(&peer)
            .into_iter()
            .filter(|&c| c != connection)
            .collect();
        let was_open = others.iter().any(|c| {
            self.links
                .links
                .get(c)
                .is_some_and(|link| link.phase == Phase::Open)
        });
        // The dialler has no healthy connection, or it would not have gone on with this one.
        for other in others {
            self.close(other, "replaced by a fresh connection");
        }
        if direction == Direction::Dialled {
            self.remember_address(peer, address.clone());
        }
        // What was under way on an older connection is sent again on this one.
        self.messages.link_lost(&peer);
        self.copies.link_changed(&peer);
        let away = self.peers.came_up(&peer, &mut self.effects, now);
        if !was_open {
            let name = self.name_of(&peer);
            self.effects.event(Event::PeerUp {
                peer,
                name,
                address,
                transport,
                direction,
                away,
            });
        }
        self.tell_everything(peer, now);
        self.tell_all_users(peer, now);
        self.exchange_keys(peer);
        self.transmit(peer, now);
    }

    pub(super) fn close(&mut self, connection: Connection, reason: &'static str) {
        self.effects.net(NetOutput::Close { connection, reason });
    }

    pub(super) fn close_peer(&mut self, peer: &PeerId, reason: &'static str) {
        self.close_peer_but(peer, None, reason);
    }

    /// Closes the connections of a peer, but for one.
    pub(super) fn close_peer_but(
        &mut self,
        peer: &PeerId,
        but: Option<Connection>,
        reason: &'static str,
    ) {
        for connection in self.links.connections_of(peer) {
            if Some(connection) != but {
                self.close(connection, reason);
            }
        }
    }

    pub(super) fn close_all(&mut self, reason: &'static str) {
        let connections: Vec<Connection> = self.links.links.keys().copied().collect();
        for connection in connections {
            self.close(connection, reason);
        }
    }

    /// Closes the connections of a mesh that was left.
    pub(super) fn close_ended(&mut self, reason: &'static str) {
        let links = self.links.links.iter();
        let ended = links.filter(|(_, link)| link.phase == Phase::Ended);
        let ended: Vec<Connection> = ended.map(|(connection, _)| *connection).collect();
        for connection in ended {
            self.close(connection, reason);
        }
    }

    /// A network interface changed: what is down is dialled at once, what is up is dialled anew
    /// beside the old connection, which may be dead without knowing it.
    pub(super) fn interfaces_changed(&mut self, now: Now) {
        for link in self.links.links.values_mut() {
            link.suspect = true;
        }
        let open: Vec<PeerId> = self.links.open_peers().collect();
        for peer in open {
            // One side is enough, and both know which.
            if self.own.peer < peer {
                let addresses = self.peers.addresses(&peer);
                self.effects.net(NetOutput::Dial {
                    peer,
                    addresses,
                    fresh: true,
                });
            }
        }
        self.peers.dial_all_now(&mut self.effects, now);
        self.dial_due(now);
    }
}
