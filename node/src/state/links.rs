//! Which connections are opened, kept and closed.
//!
//! A connection begins closed to everything but `/pimesh/member/1`. The dialler shows its
//! certificate first (`proto::mesh::member`); after the handshake the connection is open. Between
//! two nodes one open connection is enough: the dialler of a needless one closes it, and of two
//! handshakes at once the one that the smaller peer id dialled goes on.

mod handshake;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{
    Asked, State,
    io::{Connection, Direction, Event, NetOutput, Now, Transport},
    millis,
    work::look,
};
use crate::proto::mesh::{Address, member::Request};

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

    /// Says whether a connection to a peer is open that nothing speaks against.
    fn is_healthy(&self, peer: &PeerId) -> bool {
        self.open_link(peer).is_some_and(|link| !link.suspect)
    }

    /// Says whether a peer dialled this connection and has not been answered on it.
    pub(super) fn is_new(&self, connection: Connection) -> bool {
        self.links.get(&connection).is_some_and(|link| {
            link.direction == Direction::Accepted && link.phase == Phase::Waiting
        })
    }

    /// Says whether this node said `Hello` on a connection that the peer dialled.
    fn is_answered(&self, connection: Connection) -> bool {
        let link = self.links.get(&connection);
        link.is_some_and(|link| link.phase == Phase::Answered)
    }

    /// Says whether a handshake with a peer that this node began goes before one that the peer began,
    /// or went a moment ago: then the peer did not know of it when it dialled.
    fn has_own_dial(&self, peer: &PeerId, now: Now) -> bool {
        let ours = |link: &Link| {
            let fresh = link
                .opened_at
                .is_some_and(|at| now.mono < at + SIMULTANEOUS);
            link.direction == Direction::Dialled
                && !link.suspect
                && (link.phase == Phase::Asked || fresh)
        };
        self.of(peer).any(|(_, link)| ours(link))
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

    /// This node said `Hello`, or let a node in, on a connection that the peer dialled.
    pub(super) fn answered(&mut self, connection: Connection) {
        // An open link stays open, whatever is answered on it.
        if self.is_new(connection) {
            self.advance(connection, Phase::Answered);
        }
    }

    /// Both sides have verified each other on a connection; returns it.
    fn open(&mut self, connection: Connection, now: Now) -> Option<&Link> {
        let link = self.links.get_mut(&connection)?;
        if link.phase != Phase::Open {
            *self.open.entry(link.peer).or_default() += 1;
        }
        link.phase = Phase::Open;
        link.opened_at = Some(now.mono);
        link.opened_ms = now.unix_ms();
        Some(link)
    }

    /// The cable may have been out: a fresh connection goes before any of these.
    fn suspect_all(&mut self) {
        for link in self.links.values_mut() {
            link.suspect = true;
        }
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

    fn ended(&self) -> Vec<Connection> {
        let ended = self.links.iter();
        let ended = ended.filter(|(_, link)| link.phase == Phase::Ended);
        ended.map(|(connection, _)| *connection).collect()
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
        if self.links.is_healthy(&peer) {
            return self.close(connection, "another connection is open");
        }
        let hello = Request::Hello(self.membership.own_certificate()).encode();
        self.ask_member(connection, Asked::Hello(connection), hello);
        self.dial_due(now);
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

    /// Both sides have verified each other on this connection.
    fn opened(&mut self, connection: Connection, now: Now) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        let was_open = self.links.is_open(&peer);
        let Some(link) = self.links.open(connection, now) else {
            return;
        };
        let direction = link.direction;
        let (address, transport) = (link.address.clone(), link.transport);
        // The dialler has no healthy connection, or it would not have gone on with this one.
        self.close_peer_but(&peer, Some(connection), "replaced by a fresh connection");
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
                away_ms: away.map(millis),
            });
        }
        self.tell_everything(peer, now);
        self.tell_all_users(peer, now);
        self.exchange_keys(peer);
        self.transmit(peer, now);
    }

    pub(super) fn close(&mut self, connection: Connection, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
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
        for connection in self.links.ended() {
            self.close(connection, reason);
        }
    }

    /// A network interface changed: what is down is dialled at once, what is up is dialled anew
    /// beside the old connection, which may be dead without knowing it.
    pub(super) fn interfaces_changed(&mut self, now: Now) {
        self.links.suspect_all();
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
