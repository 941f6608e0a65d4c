//! A protocol that asks and answers, on one particular connection: a stream for each request, on
//! which the request goes one way and the answer the other.
//!
//! libp2p's request-response does not limit what a peer may ask at once, and picks any connection
//! of a peer. Here a peer has places: some requests of it are read or answered at once, some wait
//! unread, more are dropped. What is read of all peers together has a limit, too (`reading`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt, channel::oneshot, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    frame,
    reading::{NotRead, Reading},
};
use crate::state::io::{InboundId, OutboundId};

/// What a protocol is, and what it allows.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Its name.
    pub(super) protocol: StreamProtocol,
    /// Longest request, in bytes.
    pub(super) request_max: usize,
    /// Longest answer, in bytes.
    pub(super) response_max: usize,
    /// How long a request may take from first to last byte.
    pub(super) time: Duration,
    /// Requests of one peer that are read or answered at once.
    pub(super) at_once: usize,
    /// Requests of one peer in all: those, and those that wait unread.
    pub(super) inbound_max: usize,
    /// What is read of all peers together.
    pub(super) reading: Reading,
}

/// What happened on a connection.
#[derive(derive_more::Debug)]
pub(super) enum Event {
    /// The peer asks.
    Request {
        connection: ConnectionId,
        peer: PeerId,
        /// The request's name on this connection.
        id: InboundId,
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// The peer answered, or not.
    #[debug("Response({_0:?}, {:?} bytes)", _1.as_ref().map(Vec::len))]
    Response(OutboundId, Result<Vec<u8>, String>),
    /// A request of the peer was dropped at a limit.
    AtLimit(&'static str),
}

/// The behaviour: passes requests and answers to and from the connections.
pub(super) struct Exchange {
    terms: Arc<Terms>,
    connections: HashMap<ConnectionId, Entry>,
    events: VecDeque<ToSwarm<Event, Command>>,
}

/// A connection, and our requests on it that wait for their answers.
struct Entry {
    peer: PeerId,
    places: Places,
    asked: BTreeSet<OutboundId>,
}

/// The places of one peer, on all its connections together.
#[derive(Clone)]
struct Places {
    /// For all requests.
    inbound: Arc<Semaphore>,
    /// For those that are read or answered.
    at_once: Arc<Semaphore>,
}

/// What a connection's handler is told.
#[derive(derive_more::Debug)]
pub(super) enum Command {
    #[debug("Ask({_0:?}, {} bytes)", _1.len())]
    Ask(OutboundId, Vec<u8>),
    #[debug("Answer({_0:?}, {} bytes)", _1.len())]
    Answer(InboundId, Vec<u8>),
    Refuse(InboundId),
}

/// What a connection's handler tells.
#[derive(derive_more::Debug)]
pub(super) enum Told {
    #[debug("Request({_0:?}, {} bytes)", _1.len())]
    Request(InboundId, Vec<u8>),
    #[debug("Response({_0:?}, {:?} bytes)", _1.as_ref().map(Vec::len))]
    Response(OutboundId, Result<Vec<u8>, String>),
    AtLimit(&'static str),
}

impl Exchange {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms: Arc::new(terms),
            connections: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn ask(&mut self, connection: ConnectionId, id: OutboundId, bytes: Vec<u8>) {
        match self.connections.get_mut(&connection) {
            Some(entry) => {
                entry.asked.insert(id);
                self.notify(connection, Command::Ask(id, bytes));
            }
            None => self.fail(id),
        }
    }

    pub(super) fn answer(&mut self, connection: ConnectionId, id: InboundId, bytes: Vec<u8>) {
        self.notify(connection, Command::Answer(id, bytes));
    }

    /// Ends a request without an answer: its stream ends, and the peer knows at once.
    pub(super) fn refuse(&mut self, connection: ConnectionId, id: InboundId) {
        self.notify(connection, Command::Refuse(id));
    }

    #[cfg(test)]
    pub(super) fn reading(&self) -> &Reading {
        &self.terms.reading
    }

    fn established(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let known = self.connections.values().find(|entry| entry.peer == peer);
        let places = known.map_or_else(
            || Places {
                inbound: Arc::new(Semaphore::new(self.terms.inbound_max)),
                at_once: Arc::new(Semaphore::new(self.terms.at_once)),
            },
            |entry| entry.places.clone(),
        );
        let handler = Handler::new(Arc::clone(&self.terms), peer, places.clone());
        let entry = Entry {
            peer,
            places,
            asked: BTreeSet::new(),
        };
        self.connections.insert(connection, entry);
        handler
    }

    fn fail(&mut self, id: OutboundId) {
        let gone = Event::Response(id, Err("the connection is closed".to_owned()));
        self.events.push_back(ToSwarm::GenerateEvent(gone));
    }

    fn notify(&mut self, connection: ConnectionId, event: Command) {
        if let Some(entry) = self.connections.get(&connection) {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: entry.peer,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
    }
}

impl NetworkBehaviour for Exchange {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.established(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.established(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            // Their handler is gone with the connection and answers no more.
            let entry = self.connections.remove(&closed.connection_id);
            for id in entry.into_iter().flat_map(|entry| entry.asked) {
                self.fail(id);
            }
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        told: THandlerOutEvent<Self>,
    ) {
        let event = match told {
            Told::Request(id, bytes) => Event::Request {
                connection,
                peer,
                id,
                bytes,
            },
            Told::Response(id, result) => {
                let entry = self.connections.get_mut(&connection);
                if !entry.is_some_and(|entry| entry.asked.remove(&id)) {
                    return;
                }
                Event::Response(id, result)
            }
            Told::AtLimit(what) => Event::AtLimit(what),
        };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection.
pub(super) struct Handler {
    terms: Arc<Terms>,
    peer: PeerId,
    places: Places,
    asking: VecDeque<(OutboundId, Vec<u8>)>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
    answers: BTreeMap<InboundId, oneshot::Sender<Vec<u8>>>,
    next: u64,
    told: VecDeque<Told>,
}

/// How something on a stream ended.
enum Done {
    /// With something to tell.
    Told(Told),
    /// This request of the peer needs no more.
    Served(InboundId),
    /// With nothing.
    Nothing,
}

impl Handler {
    fn new(terms: Arc<Terms>, peer: PeerId, places: Places) -> Self {
        Self {
            terms,
            peer,
            places,
            asking: VecDeque::new(),
            tasks: FuturesUnordered::new(),
            answers: BTreeMap::new(),
            next: 0,
            told: VecDeque::new(),
        }
    }

    fn negotiated_inbound(&mut self, mut stream: libp2p::Stream) {
        let Ok(place) = Arc::clone(&self.places.inbound).try_acquire_owned() else {
            return self.told.push_back(Told::AtLimit("requests_of_a_peer"));
        };
        let id = InboundId(self.next);
        self.next += 1;
        let (sender, answer) = oneshot::channel();
        self.answers.insert(id, sender);
        // Two futures in a row: the request is told when it is read, the answer written later.
        let (forward, request) = oneshot::channel();
        let (terms, peer) = (Arc::clone(&self.terms), self.peer);
        let at_once = Arc::clone(&self.places.at_once);
        let serve = async move {
            let _turn: OwnedSemaphorePermit = at_once.acquire_owned().await.ok()?;
            let read = terms.reading.read(peer, &mut stream, terms.request_max);
            forward.send(read.await).ok()?;
            let bytes = answer.await.ok()?;
            frame::write(&mut stream, &bytes).await.ok()
        };
        let serve = tokio::time::timeout(self.terms.time, serve);
        let tell = request.map(move |read| match read {
            Ok(Ok(bytes)) => Done::Told(Told::Request(id, bytes)),
            Ok(Err(NotRead::GaveWay)) => Done::Told(Told::AtLimit("bytes_of_requests")),
            Ok(Err(NotRead::Broken)) | Err(oneshot::Canceled) => Done::Nothing,
        });
        let ended = async move {
            // Whether it was served or not, its place is free again.
            drop(serve.await);
            drop(place);
            Done::Served(id)
        };
        self.tasks.push(tell.boxed());
        self.tasks.push(ended.boxed());
    }

    fn negotiated_outbound(&mut self, mut stream: libp2p::Stream, id: OutboundId, bytes: Vec<u8>) {
        let response_max = self.terms.response_max;
        let ask = async move {
            frame::write(&mut stream, &bytes).await?;
            frame::read(&mut stream, response_max, |_| {}).await
        };
        let ask = tokio::time::timeout(self.terms.time, ask).map(move |result| {
            let result: io::Result<Vec<u8>> =
                result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            Done::Told(Told::Response(id, result.map_err(|e| e.to_string())))
        });
        self.tasks.push(ask.boxed());
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Told;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (OutboundId, Vec<u8>);

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.terms.protocol.clone()), ())
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Ask(id, bytes) => self.asking.push_back((id, bytes)),
            Command::Answer(id, bytes) => {
                if let Some(answer) = self.answers.remove(&id) {
                    // A peer that no longer listens has no use for the answer.
                    drop(answer.send(bytes));
                }
            }
            Command::Refuse(id) => drop(self.answers.remove(&id)),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Told>> {
        if let Some(told) = self.told.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
        }
        if let Some(asking) = self.asking.pop_front() {
            let upgrade = ReadyUpgrade::new(self.terms.protocol.clone());
            let protocol = SubstreamProtocol::new(upgrade, asking);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        while let Poll::Ready(Some(done)) = self.tasks.poll_next_unpin(cx) {
            match done {
                Done::Told(told) => {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
                }
                Done::Served(id) => drop(self.answers.remove(&id)),
                Done::Nothing => {}
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            (),
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.negotiated_inbound(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info: (id, bytes),
            }) => self.negotiated_outbound(protocol, id, bytes),
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: (id, _),
                error,
            }) => {
                let reason = match error {
                    StreamUpgradeError::NegotiationFailed => format!(
                        "it does not speak `{}`: it is no pimesh node, or one of the two \
                         needs a newer pimesh",
                        self.terms.protocol
                    ),
                    StreamUpgradeError::Timeout => "timed out".to_owned(),
                    StreamUpgradeError::Apply(_) | StreamUpgradeError::Io(_) => {
                        "the stream broke".to_owned()
                    }
                };
                self.told.push_back(Told::Response(id, Err(reason)));
            }
            _ => {}
        }
    }
}
