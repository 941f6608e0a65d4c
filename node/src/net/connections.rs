//! Connections under the names that the state knows them by: dialled, up, open, gone.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    core::ConnectedPoint,
    swarm::{
        ConnectionError, ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::Instant;

use super::{
    addresses::{transport_of, without_peer},
    admission::source_of,
    behaviour::Behaviour,
    dialling::WRONG_PEER,
    ranking::ip_of,
};
use crate::{
    limits::{Shares, Source},
    proto::mesh::Address,
    state::io::{Connection, Direction, NetInput, Opening, Tried},
};

/// How long a connection may take from its encryption to being open both ways.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// Why an address is not dialled at which this node listens.
const OWN_ADDRESS: &str = "this node itself listens at that address";

/// Most connections of others that are not open yet, so that strangers cannot take the places of
/// members. When there are more, the oldest of the address with most of them is closed.
pub(super) const UNOPENED_MAX: usize = 64;

/// Why a connection that is not open yet is closed before its time.
const GAVE_WAY: &str = "too many connections without a handshake";

/// All connections, and the dials that may become one.
#[derive(Debug)]
pub(super) struct Connections {
    entries: BTreeMap<Connection, Entry>,
    names: HashMap<ConnectionId, Connection>,
    /// With the addresses that are not dialled, because this node listens there itself.
    dials: HashMap<ConnectionId, (PeerId, Vec<Address>)>,
    /// Connections of others that are not open yet.
    unopened: Shares<Source, Connection>,
    /// Most connections that are open, or were dialled.
    open_max: usize,
    next: u64,
    pub(super) opening_time: Duration,
}

/// A connection, as libp2p and the state know it.
#[derive(Debug)]
struct Entry {
    id: ConnectionId,
    peer: PeerId,
    /// When to close it, unless it is open both ways by then.
    opening_until: Option<Instant>,
}

impl Connections {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            names: HashMap::new(),
            dials: HashMap::new(),
            unopened: Shares::new(UNOPENED_MAX),
            open_max,
            next: 0,
            opening_time: OPENING_TIME,
        }
    }

    /// Returns libp2p's name of a connection.
    pub(super) fn id(&self, connection: Connection) -> Option<ConnectionId> {
        self.entries.get(&connection).map(|entry| entry.id)
    }

    /// Returns the state's name of a connection.
    pub(super) fn name(&self, id: ConnectionId) -> Option<Connection> {
        self.names.get(&id).copied()
    }

    /// Dials a peer, or tells why that cannot even begin.
    pub(super) fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        (addresses, own): (Vec<Multiaddr>, Vec<Address>),
        fresh: bool,
    ) -> Option<NetInput> {
        // The state knows which connections it counts; libp2p may still know a dead one.
        let condition = if fresh {
            PeerCondition::Always
        } else {
            PeerCondition::NotDialing
        };
        let options = DialOpts::peer_id(peer)
            .condition(condition)
            .addresses(addresses)
            .build();
        let id = options.connection_id();
        if let Err(error) = swarm.dial(options) {
            return Some(dial_failed(peer, &error, own));
        }
        self.dials.insert(id, (peer, own));
        None
    }

    /// Takes in that a dial led to no connection.
    pub(super) fn dial_failed(&mut self, id: ConnectionId, error: &DialError) -> Option<NetInput> {
        let (peer, own) = self.dials.remove(&id)?;
        Some(dial_failed(peer, error, own))
    }

    /// Takes in that a connection is up. If too many are not open yet, others give way.
    pub(super) fn established(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
    ) -> Vec<NetInput> {
        let dialled = self.dials.remove(&id).is_some() || endpoint.is_dialer();
        let connection = Connection(self.next);
        self.next += 1;
        let remote = without_peer(endpoint.get_remote_address());
        let entry = Entry {
            id,
            peer,
            opening_until: Some(Instant::now() + self.opening_time),
        };
        self.entries.insert(connection, entry);
        self.names.insert(id, connection);
        let Some(address) = Address::new(remote.to_string()) else {
            return Vec::new();
        };
        let direction = if dialled {
            Direction::Dialled
        } else {
            Direction::Accepted
        };
        let mut inputs = vec![NetInput::Connected {
            peer,
            connection,
            direction,
            address,
            transport: transport_of(&remote),
        }];
        let open = self.entries.len() - self.unopened.used();
        if !dialled && open > self.open_max {
            inputs.extend(self.close(swarm, connection, "too many connections"));
        } else if !dialled {
            let source = source_of(&remote);
            for older in self.unopened.add(&source, connection, 1) {
                inputs.extend(self.close(swarm, older, GAVE_WAY));
                inputs.push(NetInput::AtLimit {
                    what: "connection_without_handshake",
                    times: 1,
                });
            }
        }
        inputs
    }

    /// Opens a connection at the gate; returns its peer.
    pub(super) fn open(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        connection: Connection,
        opening: Opening,
    ) -> Option<PeerId> {
        let entry = self.entries.get_mut(&connection)?;
        if opening == Opening::Both {
            entry.opening_until = None;
            self.unopened.remove(connection);
        }
        swarm.behaviour_mut().gate.open(entry.id, opening);
        Some(entry.peer)
    }

    /// Closes a connection. For the state and for the members' protocols it is gone at once, even
    /// if libp2p needs long to say goodbye to a peer that does not answer.
    pub(super) fn close(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        connection: Connection,
        reason: &str,
    ) -> Option<NetInput> {
        let Entry { id, peer, .. } = self.entries.remove(&connection)?;
        self.names.remove(&id);
        self.unopened.remove(connection);
        swarm.behaviour_mut().gate.hide(id);
        swarm.close_connection(id);
        Some(NetInput::Disconnected {
            peer,
            connection,
            reason: reason.to_owned(),
        })
    }

    /// Returns when the next connection has to be open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.entries.values().filter_map(|e| e.opening_until);
        deadlines.min()
    }

    /// Closes the connections that were not opened in time.
    pub(super) fn close_unopened(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<NetInput> {
        let now = Instant::now();
        let over: Vec<Connection> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.opening_until.is_some_and(|until| until <= now))
            .map(|(connection, _)| *connection)
            .collect();
        let close = |connection| self.close(swarm, connection, "no handshake in time");
        over.into_iter().filter_map(close).collect()
    }

    /// Takes in that a connection is gone, unless the state knows already.
    pub(super) fn closed(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        cause: Option<&ConnectionError>,
    ) -> Option<NetInput> {
        let connection = self.names.remove(&id)?;
        self.entries.remove(&connection);
        self.unopened.remove(connection);
        let reason = cause.map_or_else(|| "the peer closed it".to_owned(), |c| innermost(c));
        Some(NetInput::Disconnected {
            peer,
            connection,
            reason,
        })
    }
}

/// Says what came of a dial, address by address; of this node's own as well.
fn dial_failed(peer: PeerId, error: &DialError, own: Vec<Address>) -> NetInput {
    if matches!(error, DialError::DialPeerConditionFalse(_)) {
        return NetInput::DialNotBegun { peer };
    }
    let own = own.into_iter().map(|address| Tried {
        address,
        reason: OWN_ADDRESS.to_owned(),
        is_final: true,
    });
    let dialled = match error {
        DialError::Transport(tried) => &tried[..],
        _ => &[],
    };
    let dialled = dialled.iter().filter_map(|(address, error)| {
        let address = without_peer(address);
        let (reason, is_final) = explain_address(&address, error);
        Some(Tried {
            address: Address::new(address.to_string())?,
            reason,
            is_final,
        })
    });
    let tried: Vec<Tried> = dialled.chain(own).collect();
    let reason = match error {
        DialError::NoAddresses if !tried.is_empty() => OWN_ADDRESS.to_owned(),
        _ => explain_dial(error),
    };
    NetInput::DialFailed {
        peer,
        reason,
        tried,
    }
}

/// Says why an address led nowhere, and whether trying it again is of no use.
fn explain_address(address: &Multiaddr, error: &TransportError<io::Error>) -> (String, bool) {
    let why = innermost(error);
    let is_loopback = ip_of(address).is_some_and(|ip| ip.is_loopback());
    let is_final = match error {
        TransportError::MultiaddrNotSupported(_) => true,
        TransportError::Other(error) => why == WRONG_PEER || (is_loopback && is_refused(error)),
    };
    if is_loopback {
        return (
            format!("{why} (an address of this machine itself)"),
            is_final,
        );
    }
    (why, is_final)
}

/// Says whether the machine answered that nobody listens there.
fn is_refused(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        let inner = io.and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Says in one line why a dial led nowhere.
fn explain_dial(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::DialPeerConditionFalse(_) => "a dial is under way already".to_owned(),
        DialError::LocalPeerId { .. } => "the address is this node's own".to_owned(),
        DialError::WrongPeerId { .. } => WRONG_PEER.to_owned(),
        DialError::Transport(tried) => {
            let mut reasons: Vec<String> =
                tried.iter().map(|(_, error)| innermost(error)).collect();
            reasons.sort();
            reasons.dedup();
            reasons.join("; ")
        }
        other => innermost(other),
    }
}

/// Returns the last cause in a chain of errors, which is the one a person understands.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(": []")
        .to_owned()
}
