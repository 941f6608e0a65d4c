//! No valid certificate, no service: the gate in front of the behaviours for members.
//!
//! libp2p shows a connection to every behaviour as soon as its encryption is set up. The gate holds
//! it back, for each connection by itself:
//!
//! ```text
//! closed    no protocol of the inner behaviour is negotiated; it does not know the connection
//! inbound   the peer may open streams; ours wait, and so do the inner behaviour's events
//! both      the inner behaviour is shown the connection; everything flows
//! ```
//!
//! The state opens both ends so that each side opens streams only once the other takes them
//! (`proto::mesh::member`); a stream that is refused once is given up for good by gossipsub.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{ConnectedPoint, Endpoint, UpgradeInfo, transport::PortUse, upgrade},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
        ConnectionId, FromSwarm, NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError,
            UpgradeInfoSend,
        },
    },
};

use crate::state::io::Opening;

/// Most events of one connection that wait until it is open both ways. A member sends its
/// subscriptions and perhaps a request in that moment; a connection that sends more is closed.
const EVENTS_WAITING_MAX: usize = 64;

/// How a connection stands.
struct Entry<E> {
    peer: PeerId,
    endpoint: ConnectedPoint,
    local: Multiaddr,
    opening: Option<Opening>,
    waiting: Vec<E>,
}

/// The gate in front of a behaviour.
pub(super) struct Gate<B: NetworkBehaviour> {
    inner: B,
    connections: HashMap<ConnectionId, Entry<THandlerOutEvent<B>>>,
    commands: VecDeque<ToSwarm<B::ToSwarm, Command<THandler<B>>>>,
}

/// What the behaviour tells a connection's handler.
pub(super) enum Command<H: ConnectionHandler> {
    /// Open; the inner handler comes along the first time.
    Open(Option<Box<H>>, Opening),
    /// For the inner handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> std::fmt::Debug for Command<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(_, opening) => f.debug_tuple("Open").field(opening).finish(),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

impl<B: NetworkBehaviour> Gate<B> {
    pub(super) fn new(inner: B) -> Self {
        Self {
            inner,
            connections: HashMap::new(),
            commands: VecDeque::new(),
        }
    }

    pub(super) const fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Opens a connection; a connection that is gone, or open that far, stays as it is.
    pub(super) fn open(&mut self, connection: ConnectionId, opening: Opening) {
        let Some(entry) = self.connections.get_mut(&connection) else {
            return;
        };
        if entry.opening >= Some(opening) {
            return;
        }
        let handler = match entry.opening {
            Some(_) => None,
            None => match make_handler(&mut self.inner, connection, entry) {
                Ok(handler) => Some(Box::new(handler)),
                Err(_) => return self.close(connection),
            },
        };
        entry.opening = Some(opening);
        let peer_id = entry.peer;
        self.commands.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: libp2p::swarm::NotifyHandler::One(connection),
            event: Command::Open(handler, opening),
        });
        if opening == Opening::Both {
            self.show(connection);
        }
    }

    /// Takes a connection away from the inner behaviour at once. A connection to a dead peer can
    /// take long to close; nothing should wait for it.
    pub(super) fn hide(&mut self, connection: ConnectionId) {
        let Some(entry) = self.connections.get(&connection) else {
            return;
        };
        let (peer_id, endpoint) = (entry.peer, entry.endpoint.clone());
        self.closed(ConnectionClosed {
            peer_id,
            connection_id: connection,
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        });
    }

    /// Shows a connection to the inner behaviour, and then what came on it.
    fn show(&mut self, connection: ConnectionId) {
        let Some(peer) = self.connections.get(&connection).map(|entry| entry.peer) else {
            return;
        };
        let other_established = self.shown(&peer) - 1;
        let Some(entry) = self.connections.get_mut(&connection) else {
            return;
        };
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: connection,
                endpoint: &entry.endpoint,
                failed_addresses: &[],
                other_established,
            }));
        for event in std::mem::take(&mut entry.waiting) {
            self.inner
                .on_connection_handler_event(peer, connection, event);
        }
    }

    /// Says whether a connection to this peer is open both ways.
    pub(super) fn is_open(&self, peer: &PeerId) -> bool {
        self.shown(peer) > 0
    }

    /// Returns the newest connection to a peer that is open both ways.
    pub(super) fn open_connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        let open = self
            .connections
            .iter()
            .filter(|(_, entry)| entry.peer == *peer && entry.opening == Some(Opening::Both));
        open.map(|(connection, _)| *connection).max()
    }

    /// Counts the connections to a peer for which the inner behaviour has made a handler.
    fn with_handler(&self, peer: &PeerId) -> usize {
        let with_handler = |entry: &&Entry<_>| entry.peer == *peer && entry.opening.is_some();
        self.connections.values().filter(with_handler).count()
    }

    /// Counts the connections to a peer that the inner behaviour has been shown.
    fn shown(&self, peer: &PeerId) -> usize {
        let shown = |entry: &&Entry<_>| entry.peer == *peer && entry.opening == Some(Opening::Both);
        self.connections.values().filter(shown).count()
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(entry) = self.connections.get(&connection) {
            self.commands.push_back(ToSwarm::CloseConnection {
                peer_id: entry.peer,
                connection: libp2p::swarm::CloseConnection::One(connection),
            });
        }
    }

    fn established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: ConnectedPoint,
        local: Multiaddr,
    ) -> THandler<Self> {
        let entry = Entry {
            peer,
            endpoint,
            local,
            opening: None,
            waiting: Vec::new(),
        };
        self.connections.insert(connection, entry);
        GateHandler::default()
    }

    fn closed(&mut self, closed: ConnectionClosed<'_>) {
        let connection = closed.connection_id;
        let Some(opening) = self.connections.get(&connection).map(|entry| entry.opening) else {
            return;
        };
        if opening == Some(Opening::Inbound) {
            // The inner behaviour has made a handler for it: let it see a beginning and an end.
            if let Some(entry) = self.connections.get_mut(&connection) {
                entry.opening = Some(Opening::Both);
                entry.waiting.clear();
            }
            self.show(connection);
        }
        self.connections.remove(&connection);
        if opening.is_some() {
            // gossipsub and request-response take a connection into their books when they make its
            // handler. Told that none remains, they would forget one that is about to be shown.
            let remaining_established = self.with_handler(&closed.peer_id);
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                    remaining_established,
                    ..closed
                }));
        }
    }
}

fn make_handler<B: NetworkBehaviour>(
    inner: &mut B,
    connection: ConnectionId,
    entry: &Entry<THandlerOutEvent<B>>,
) -> Result<THandler<B>, ConnectionDenied> {
    match &entry.endpoint {
        ConnectedPoint::Dialer {
            address,
            role_override,
            port_use,
        } => inner.handle_established_outbound_connection(
            connection,
            entry.peer,
            address,
            *role_override,
            *port_use,
        ),
        ConnectedPoint::Listener { send_back_addr, .. } => inner
            .handle_established_inbound_connection(
                connection,
                entry.peer,
                &entry.local,
                send_back_addr,
            ),
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = GateHandler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Listener {
            local_addr: local.clone(),
            send_back_addr: remote.clone(),
        };
        Ok(self.established(connection, peer, endpoint, local.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Dialer {
            address: address.clone(),
            role_override,
            port_use,
        };
        Ok(self.established(connection, peer, endpoint, Multiaddr::empty()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            // Shown when the state opens the connection.
            FromSwarm::ConnectionEstablished(_) => {}
            FromSwarm::ConnectionClosed(closed) => self.closed(closed),
            FromSwarm::AddressChange(change) => {
                let entry = self.connections.get_mut(&change.connection_id);
                if let Some(entry) = entry {
                    entry.endpoint = change.new.clone();
                    if entry.opening == Some(Opening::Both) {
                        self.inner.on_swarm_event(event);
                    }
                }
            }
            _ => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let Some(entry) = self.connections.get_mut(&connection) else {
            return;
        };
        match entry.opening {
            Some(Opening::Both) => {
                self.inner
                    .on_connection_handler_event(peer, connection, event);
            }
            Some(Opening::Inbound) if entry.waiting.len() < EVENTS_WAITING_MAX => {
                entry.waiting.push(event);
            }
            Some(Opening::Inbound) | None => self.close(connection),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(command) = self.commands.pop_front() {
            return Poll::Ready(command);
        }
        self.inner
            .poll(cx)
            .map(|event| event.map_in(Command::Inner))
    }
}

/// The gate on one connection.
pub(super) struct GateHandler<H: ConnectionHandler> {
    inner: Option<H>,
    opening: Option<Opening>,
    /// Streams that the inner handler wants to open, until it may.
    held: VecDeque<SubstreamProtocol<H::OutboundProtocol, H::OutboundOpenInfo>>,
}

impl<H: ConnectionHandler> Default for GateHandler<H> {
    fn default() -> Self {
        Self {
            inner: None,
            opening: None,
            held: VecDeque::new(),
        }
    }
}

/// An upgrade that is offered only if it is there.
pub(super) struct Optional<U>(Option<U>);

impl<U: UpgradeInfoSend> UpgradeInfo for Optional<U> {
    type Info = U::Info;
    type InfoIter = std::iter::Flatten<std::option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.as_ref().map(U::protocol_info).into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> upgrade::InboundUpgrade<Stream> for Optional<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, socket: Stream, info: Self::Info) -> Self::Future {
        let upgrade = self.0.expect("without an upgrade no protocol is offered");
        upgrade.upgrade_inbound(socket, info)
    }
}

impl<H: ConnectionHandler> ConnectionHandler for GateHandler<H> {
    type FromBehaviour = Command<H>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Optional<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => inner
                .listen_protocol()
                .map_upgrade(|u| Optional(Some(u)))
                .map_info(Some),
            None => SubstreamProtocol::new(Optional(None), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        // Connections are kept as long as the state wants them.
        true
    }

    fn on_behaviour_event(&mut self, command: Self::FromBehaviour) {
        match command {
            Command::Open(handler, opening) => {
                if let Some(handler) = handler {
                    self.inner = Some(*handler);
                }
                self.opening = Some(opening);
            }
            Command::Inner(event) => {
                if let Some(inner) = &mut self.inner {
                    inner.on_behaviour_event(event);
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        let may_open = self.opening == Some(Opening::Both);
        if may_open && let Some(protocol) = self.held.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Pending;
        };
        loop {
            match inner.poll(cx) {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
                    if !may_open =>
                {
                    self.held.push_back(protocol);
                }
                event => return event,
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        inner.on_connection_event(match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol,
                info: Some(info),
            }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError {
                info: Some(info),
                error,
            }) => ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }),
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => ConnectionEvent::DialUpgradeError(event),
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => {
                ConnectionEvent::LocalProtocolsChange(event)
            }
            ConnectionEvent::RemoteProtocolsChange(event) => {
                ConnectionEvent::RemoteProtocolsChange(event)
            }
            // A stream from before the gate was open.
            _ => return,
        });
    }
}
