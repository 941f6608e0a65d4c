//! `/pimesh/member/1`: requests and answers on one particular connection, open to strangers.
//!
//! libp2p's request-response picks any connection of a peer; here the answer decides over the very
//! connection that carried the request, so this is a small behaviour of its own. Requests of
//! strangers are short, few and have little time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
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

use super::frame;
use crate::{
    proto::mesh::member::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX},
    state::io::{InboundId, OutboundId},
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/pimesh/member/1");

/// How long a request may take from first to last byte.
const TIME: Duration = Duration::from_secs(10);

/// Most requests of one connection that are read or answered at once. The handshake needs one.
const INBOUND_MAX: usize = 4;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// The peer asks.
    Request(ConnectionId, InboundId, Vec<u8>),
    /// The peer answered, or not.
    Response(OutboundId, Result<Vec<u8>, String>),
}

/// The behaviour: passes requests and answers to and from the connections.
#[derive(Default)]
pub(super) struct Member {
    connections: HashMap<ConnectionId, Entry>,
    events: VecDeque<ToSwarm<Event, Command>>,
}

/// A connection, and our requests on it that wait for their answers.
struct Entry {
    peer: PeerId,
    asked: BTreeSet<OutboundId>,
}

/// What a connection's handler is told.
#[derive(Debug)]
pub(super) enum Command {
    Ask(OutboundId, Vec<u8>),
    Answer(u64, Vec<u8>),
}

/// What a connection's handler tells.
#[derive(Debug)]
pub(super) enum Told {
    Request(u64, Vec<u8>),
    Response(OutboundId, Result<Vec<u8>, String>),
}

impl Member {
    pub(super) fn ask(&mut self, connection: ConnectionId, id: OutboundId, bytes: Vec<u8>) {
        match self.connections.get_mut(&connection) {
            Some(entry) => {
                entry.asked.insert(id);
                let peer = entry.peer;
                self.notify(peer, connection, Command::Ask(id, bytes));
            }
            None => self.fail(id),
        }
    }

    pub(super) fn answer(&mut self, connection: ConnectionId, id: InboundId, bytes: Vec<u8>) {
        if let Some(peer) = self.connections.get(&connection).map(|entry| entry.peer) {
            self.notify(peer, connection, Command::Answer(id.0, bytes));
        }
    }

    fn established(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let asked = BTreeSet::new();
        self.connections.insert(connection, Entry { peer, asked });
        Handler::default()
    }

    fn fail(&mut self, id: OutboundId) {
        let gone = Event::Response(id, Err("the connection is closed".to_owned()));
        self.events.push_back(ToSwarm::GenerateEvent(gone));
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: Command) {
        let handler = NotifyHandler::One(connection);
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler,
            event,
        });
    }
}

impl NetworkBehaviour for Member {
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
        _: PeerId,
        connection: ConnectionId,
        told: THandlerOutEvent<Self>,
    ) {
        let event = match told {
            Told::Request(id, bytes) => Event::Request(connection, InboundId(id), bytes),
            Told::Response(id, result) => {
                let entry = self.connections.get_mut(&connection);
                if !entry.is_some_and(|entry| entry.asked.remove(&id)) {
                    return;
                }
                Event::Response(id, result)
            }
        };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection.
#[derive(Default)]
pub(super) struct Handler {
    asking: VecDeque<(OutboundId, Vec<u8>)>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
    inbound: usize,
    answers: HashMap<u64, oneshot::Sender<Vec<u8>>>,
    next: u64,
    told: VecDeque<Told>,
}

impl Handler {
    fn negotiated_inbound(&mut self, mut stream: libp2p::Stream) {
        if self.inbound >= INBOUND_MAX {
            return;
        }
        self.inbound += 1;
        let id = self.next;
        self.next += 1;
        let (sender, answer) = oneshot::channel();
        self.answers.insert(id, sender);
        let read = async move {
            let bytes = frame::read(&mut stream, REQUEST_BYTES_MAX).await.ok()?;
            Some((stream, bytes))
        };
        // Two futures in a row: the request is told when it is read, the answer written later.
        let (forward, request) = oneshot::channel();
        let serve = async move {
            let (mut stream, bytes) = read.await?;
            forward.send(bytes).ok()?;
            let bytes = answer.await.ok()?;
            frame::write(&mut stream, &bytes).await.ok()
        };
        let serve = tokio::time::timeout(TIME, serve);
        let tell = request
            .map(move |bytes| bytes.map_or(Done::Nothing, |b| Done::Told(Told::Request(id, b))))
            .boxed();
        let ended = async move {
            // Whether it was served or not, its place is free again.
            drop(serve.await);
            Done::Served(id)
        };
        self.tasks.push(tell);
        self.tasks.push(ended.boxed());
    }

    fn negotiated_outbound(&mut self, mut stream: libp2p::Stream, id: OutboundId, bytes: Vec<u8>) {
        let ask = async move {
            frame::write(&mut stream, &bytes).await?;
            frame::read(&mut stream, RESPONSE_BYTES_MAX).await
        };
        let ask = tokio::time::timeout(TIME, ask).map(move |result| {
            let result: io::Result<Vec<u8>> =
                result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            Done::Told(Told::Response(id, result.map_err(|e| e.to_string())))
        });
        self.tasks.push(ask.boxed());
    }
}

/// How something on a stream ended.
enum Done {
    /// With something to tell.
    Told(Told),
    /// This request of the peer needs no more.
    Served(u64),
    /// With nothing.
    Nothing,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Told;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (OutboundId, Vec<u8>);

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
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
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), asking);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        while let Poll::Ready(Some(done)) = self.tasks.poll_next_unpin(cx) {
            match done {
                Done::Told(told) => {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
                }
                Done::Served(id) => {
                    self.inbound -= 1;
                    self.answers.remove(&id);
                }
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
                    StreamUpgradeError::NegotiationFailed => "the peer is no pimesh node",
                    StreamUpgradeError::Timeout => "timed out",
                    StreamUpgradeError::Apply(_) | StreamUpgradeError::Io(_) => "the stream broke",
                };
                self.told
                    .push_back(Told::Response(id, Err(reason.to_owned())));
            }
            _ => {}
        }
    }
}
