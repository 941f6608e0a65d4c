//! Everything libp2p: turns what happens on the network into [`NetInput`], and does what
//! [`NetOutput`] says. It decides nothing.
//!
//! | file | what |
//! | --- | --- |
//! | `behaviour` | the behaviours of the swarm and their settings |
//! | `gate` | no protocol for members before the state opens a connection |
//! | `member` | `/pimesh/member/1`, the one protocol before that |
//! | `frame` | one message on a stream |
//! | `p2sn` | P2SN sessions on streams |
//! | `interfaces` | notices that a cable is back |

mod behaviour;
mod frame;
mod gate;
mod interfaces;
pub(crate) mod live;
mod member;
mod p2sn;
mod silence;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport as _, TransportError,
    core::{ConnectedPoint, muxing::StreamMuxerBox, transport::Boxed, upgrade},
    gossipsub,
    identity::Keypair,
    mdns,
    multiaddr::Protocol as Part,
    noise, ping, request_response,
    swarm::{
        ConnectionError, ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use tokio::{sync::mpsc, time::Instant};

use self::{
    behaviour::{Behaviour, BehaviourEvent, MembersEvent},
    interfaces::Interfaces,
    live::{Line, Phase, Room},
    p2sn::{STEPS_AT_ONCE, Task, WORDS, Word},
    silence::Watched,
};
use crate::{
    p2sn_session::Steps,
    proto::{
        iid::native::{MESSAGE_BYTES_MAX, TOPIC},
        mesh::Address,
        p2sn::PrivateKey,
    },
    state::io::{
        Connection, Direction, GossipId, InboundId, NetInput, NetOutput, OutboundId, Protocol,
        SessionId, Transport, Verdict,
    },
};

/// How long a dial may take, encryption included.
const DIAL_TIME: Duration = Duration::from_secs(8);

/// How long a connection may take from its encryption to being open both ways.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// Most connections that are not open yet, so that strangers cannot take the places of members.
const UNOPENED_MAX: usize = 32;

/// Members' requests that wait for an answer; a member has at most a few under way.
const INBOUND_MAX: usize = 1024;

/// Gossip messages that wait for a verdict; the state gives it in the same turn of the loop.
const GOSSIP_MAX: usize = 1024;

/// Inputs of P2SN tasks that wait for the loop.
const TASK_INPUTS: usize = 64;

/// P2SN sessions at once, of either side.
const SESSIONS_MAX: usize = 64;

/// P2SN sessions at once that peers opened. Each costs RSA; the rest stays for our own.
const SESSIONS_INBOUND_MAX: usize = 16;

/// How long the opening of a stream to a connected member may take.
const STREAM_TIME: Duration = Duration::from_secs(10);

/// Why something that needs an open connection was not done.
const NOT_OPEN: &str = "no connection to the peer is open";

/// A connection nobody uses is kept: members stay connected.
const IDLE_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When a connection on which nothing is heard is given up: two pings long, and some.
const SILENCE_MS: u32 = 8_000;

/// How often QUIC speaks when there is nothing to say.
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(3_500);

/// Streams that one peer may have open at once on TCP. Bounds what Yamux buffers for it.
const STREAMS_MAX: usize = 128;

/// The settings of the network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Further addresses to tell others.
    pub announce: Vec<Address>,
    /// Whether to look for peers on the LAN.
    pub mdns: bool,
    /// Most connections.
    pub connections_max: u32,
    /// Memory in use at which no more connections are taken, in bytes.
    pub memory_bytes_max: usize,
}

/// Why the network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address in the configuration is no multiaddr.
    #[error("`{0}` is no multiaddr")]
    Address(Address),
    /// An address cannot be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: TransportError<io::Error>,
    },
    /// The LAN discovery cannot be set up.
    #[error("could not set up mDNS; `network.mdns = false` does without it")]
    Mdns(#[source] io::Error),
    /// The gossip protocol refuses its settings.
    #[error("gossipsub: {0}")]
    Gossip(String),
    /// A transport cannot be set up.
    #[error("could not set up a transport: {0}")]
    Transport(String),
}

/// A connection, as libp2p and the state know it.
#[derive(Debug)]
struct Entry {
    id: ConnectionId,
    peer: PeerId,
    /// When to close it, unless it is open both ways by then.
    opening_until: Option<Instant>,
}

/// The swarm, and what connects it with the state.
pub struct Net {
    swarm: Swarm<Behaviour>,
    connections: BTreeMap<Connection, Entry>,
    opening_time: Duration,
    names: HashMap<ConnectionId, Connection>,
    dials: HashMap<ConnectionId, PeerId>,
    next_connection: u64,
    asked: HashMap<(Protocol, request_response::OutboundRequestId), OutboundId>,
    inbound: BTreeMap<InboundId, request_response::ResponseChannel<Vec<u8>>>,
    inbound_protocol: BTreeMap<InboundId, Protocol>,
    next_inbound: u64,
    gossip: BTreeMap<GossipId, (gossipsub::MessageId, PeerId)>,
    next_gossip: u64,
    topic: gossipsub::IdentTopic,
    unpublished: Vec<Vec<u8>>,
    /// Whether a member that is not connected may want what is not published yet.
    unpublished_needs_relay: bool,
    lines: BTreeMap<PeerId, Line>,
    room: Room,
    readers: BTreeMap<PeerId, VecDeque<tokio::task::AbortHandle>>,
    incoming_lines: libp2p_stream::IncomingStreams,
    listeners: BTreeSet<Multiaddr>,
    announce: Vec<Address>,
    told_addresses: BTreeSet<Address>,
    queue: VecDeque<NetInput>,
    interfaces: Interfaces,
    streams: libp2p_stream::Control,
    incoming: libp2p_stream::IncomingStreams,
    rsa: Option<PrivateKey>,
    sessions: HashMap<SessionId, mpsc::Sender<Word>>,
    steps: Steps,
    next_session: u64,
    task_inputs: (mpsc::Sender<NetInput>, mpsc::Receiver<NetInput>),
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Net {
    /// Sets the swarm up and begins to listen.
    ///
    /// # Errors
    /// Returns why the network cannot be set up.
    pub fn new(config: &Config, keypair: &Keypair) -> Result<Self, NetError> {
        let mut swarm = build(config, keypair)?;
        for address in &config.listen {
            let multiaddr: Multiaddr = address
                .as_str()
                .parse()
                .map_err(|_| NetError::Address(address.clone()))?;
            let is_v6 = matches!(multiaddr.iter().next(), Some(Part::Ip6(_)));
            match swarm.listen_on(multiaddr) {
                Ok(_) => {}
                // A machine may have IPv6 switched off; the others still serve.
                Err(error) if is_v6 => tracing::warn!(%address, %error, "cannot listen"),
                Err(source) => {
                    return Err(NetError::Listen {
                        address: address.clone(),
                        source,
                    });
                }
            }
        }
        let mut streams = swarm.behaviour_mut().gate.inner().streams.new_control();
        let mut accept = |protocol| {
            let twice = |_| NetError::Transport("a protocol is registered twice".to_owned());
            streams.accept(protocol).map_err(twice)
        };
        let (incoming, incoming_lines) = (accept(p2sn::PROTOCOL)?, accept(live::PROTOCOL)?);
        Ok(Self {
            swarm,
            connections: BTreeMap::new(),
            opening_time: OPENING_TIME,
            names: HashMap::new(),
            dials: HashMap::new(),
            next_connection: 0,
            asked: HashMap::new(),
            inbound: BTreeMap::new(),
            inbound_protocol: BTreeMap::new(),
            next_inbound: 0,
            gossip: BTreeMap::new(),
            next_gossip: 0,
            topic: gossipsub::IdentTopic::new(TOPIC),
            unpublished: Vec::new(),
            unpublished_needs_relay: false,
            lines: BTreeMap::new(),
            room: Room::default(),
            readers: BTreeMap::new(),
            incoming_lines,
            listeners: BTreeSet::new(),
            announce: config.announce.clone(),
            told_addresses: BTreeSet::new(),
            queue: VecDeque::new(),
            interfaces: Interfaces::new(),
            streams,
            incoming,
            rsa: None,
            sessions: HashMap::new(),
            steps: Steps::at_once(STEPS_AT_ONCE),
            next_session: 0,
            task_inputs: mpsc::channel(TASK_INPUTS),
        })
    }

    /// Gives the RSA key; P2SN sessions are possible from here on.
    pub fn set_rsa(&mut self, key: PrivateKey) {
        self.queue
            .push_back(NetInput::P2snReady(key.public().fingerprint()));
        self.rsa = Some(key);
    }

    /// Returns where the node listens.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        self.listeners.iter().map(ToString::to_string).collect()
    }

    /// Returns what tells a sender of many integers when to go on.
    pub(crate) fn room(&self) -> Room {
        self.room.clone()
    }

    /// Waits for the next thing that the state has to know. Cancel safe.
    pub async fn next(&mut self) -> NetInput {
        loop {
            if let Some(input) = self.queue.pop_front() {
                return input;
            }
            let deadline = self
                .connections
                .values()
                .filter_map(|entry| entry.opening_until)
                .min();
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle(event),
                Some(input) = self.task_inputs.1.recv() => self.handle_task(input),
                Some((peer, stream)) = self.incoming.next() => self.serve_p2sn(peer, stream),
                Some((peer, stream)) = self.incoming_lines.next() => self.read_line(peer, stream),
                () = self.interfaces.changed() => {
                    self.queue.push_back(NetInput::InterfacesChanged);
                }
                () = sleep_until(deadline) => self.close_unopened(),
            }
        }
    }

    /// Does what the state says. Publishing waits for [`Self::flush`].
    pub fn act(&mut self, output: NetOutput) {
        match output {
            NetOutput::Dial {
                peer,
                addresses,
                fresh,
            } => self.dial(peer, &addresses, fresh),
            NetOutput::Close { connection, reason } => self.close(connection, reason),
            NetOutput::Open {
                connection,
                opening,
            } => {
                let Some(entry) = self.connections.get_mut(&connection) else {
                    return;
                };
                let (id, peer) = (entry.id, entry.peer);
                if opening == crate::state::io::Opening::Both {
                    entry.opening_until = None;
                }
                self.swarm.behaviour_mut().gate.open(id, opening);
                if opening == crate::state::io::Opening::Both {
                    // What is published from here on waits for the new stream.
                    let line = Line::lay(self.streams.clone(), peer, self.room.clone());
                    self.lines.insert(peer, line);
                }
            }
            NetOutput::MemberRequest {
                connection,
                id,
                bytes,
            } => match self.connections.get(&connection).map(|entry| entry.id) {
                Some(on) => self.swarm.behaviour_mut().member.ask(on, id, bytes),
                None => {
                    let result = Err("the connection is closed".to_owned());
                    self.queue.push_back(NetInput::Response { id, result });
                }
            },
            NetOutput::MemberRespond {
                connection,
                id,
                bytes,
            } => {
                if let Some(entry) = self.connections.get(&connection) {
                    self.swarm
                        .behaviour_mut()
                        .member
                        .answer(entry.id, id, bytes);
                }
            }
            NetOutput::Request {
                peer,
                protocol,
                id,
                bytes,
            } => self.request(peer, protocol, id, bytes),
            NetOutput::Respond { id, bytes } => self.respond(id, bytes),
            NetOutput::Refuse { id } => {
                // Without its channel the request's stream ends, and the peer knows at once.
                self.inbound.remove(&id);
                self.inbound_protocol.remove(&id);
            }
            NetOutput::Publish { frame, needs_relay } => {
                self.unpublished.push(frame);
                self.unpublished_needs_relay |= needs_relay;
            }
            NetOutput::Verdict { id, verdict } => self.verdict(id, verdict),
            NetOutput::P2snOpen {
                session,
                peer,
                message,
            } => {
                self.open_p2sn(session, peer, message);
            }
            NetOutput::P2snVerdict { session, accept } => {
                self.say(session, Word::Verdict(accept));
            }
            NetOutput::P2snReply { session, bytes } => self.say(session, Word::Reply(bytes)),
        }
    }

    /// Publishes the frames that came since the last call, joined into as few messages as they fit.
    pub fn flush(&mut self) {
        let mut message = Vec::new();
        let needs_relay = std::mem::take(&mut self.unpublished_needs_relay);
        for frame in std::mem::take(&mut self.unpublished) {
            if message.len() + frame.len() > MESSAGE_BYTES_MAX {
                self.publish(std::mem::take(&mut message), needs_relay);
            }
            if message.is_empty() {
                message = frame;
            } else {
                message.extend_from_slice(&frame);
            }
        }
        if !message.is_empty() {
            self.publish(message, needs_relay);
        }
    }

    /// Sends a message on the lines to all connected members, and as gossip if somebody cannot be
    /// reached so: a member that is not connected, or one that does not speak `/pimesh/live/1`.
    fn publish(&mut self, message: Vec<u8>, needs_relay: bool) {
        let Self {
            swarm,
            lines,
            streams,
            room,
            ..
        } = self;
        let gate = &swarm.behaviour().gate;
        lines.retain(|peer, _| gate.is_open(peer));
        let shared: Arc<[u8]> = message.as_slice().into();
        let (mut needs_gossip, mut lost) = (needs_relay, 0);
        for (peer, line) in lines.iter_mut() {
            if line.phase() == Phase::Broken {
                *line = Line::lay(streams.clone(), *peer, room.clone());
            }
            needs_gossip |= line.phase() != Phase::Open;
            lost += line.send(Arc::clone(&shared));
        }
        room.set(lines.values().filter_map(Line::waiting).min().unwrap_or(0));
        if lost > 0 {
            let reason = format!("{lost} messages: a peer does not keep up");
            self.queue.push_back(NetInput::PublishFailed { reason });
        }
        if needs_gossip {
            self.gossip(message);
        }
    }

    fn gossip(&mut self, message: Vec<u8>) {
        let topic = self.topic.hash();
        let published = self
            .swarm
            .behaviour_mut()
            .gate
            .inner()
            .gossip
            .publish(topic, message);
        match published {
            // A node alone has nobody to publish to; what was published already is on its way.
            Ok(_)
            | Err(
                gossipsub::PublishError::NoPeersSubscribedToTopic
                | gossipsub::PublishError::Duplicate,
            ) => {}
            Err(error) => {
                self.queue.push_back(NetInput::PublishFailed {
                    reason: error.to_string(),
                });
            }
        }
    }

    /// Reads a line of a peer. Too many of one peer end its oldest.
    fn read_line(&mut self, peer: PeerId, stream: libp2p::Stream) {
        self.readers.retain(|_, readers| {
            readers.retain(|reader| !reader.is_finished());
            !readers.is_empty()
        });
        let inputs = self.task_inputs.0.clone();
        let reader = tokio::spawn(live::read(peer, stream, inputs)).abort_handle();
        let readers = self.readers.entry(peer).or_default();
        readers.push_back(reader);
        if readers.len() > live::READERS_PER_PEER_MAX
            && let Some(oldest) = readers.pop_front()
        {
            oldest.abort();
        }
    }

    fn requests(&mut self, protocol: Protocol) -> &mut request_response::Behaviour<frame::Codec> {
        let members = self.swarm.behaviour_mut().gate.inner();
        match protocol {
            Protocol::Sync => &mut members.sync,
            Protocol::Direct => &mut members.direct,
            Protocol::Users => &mut members.users,
        }
    }

    fn request(&mut self, peer: PeerId, protocol: Protocol, id: OutboundId, bytes: Vec<u8>) {
        // libp2p would dial by itself, or wait without end for a connection behind the gate.
        if !self.swarm.behaviour().gate.is_open(&peer) {
            let result = Err(NOT_OPEN.to_owned());
            return self.queue.push_back(NetInput::Response { id, result });
        }
        let request = self.requests(protocol).send_request(&peer, bytes);
        self.asked.insert((protocol, request), id);
    }

    fn respond(&mut self, id: InboundId, bytes: Vec<u8>) {
        let channel = self.inbound.remove(&id);
        let protocol = self.inbound_protocol.remove(&id);
        if let (Some(channel), Some(protocol)) = (channel, protocol) {
            // A connection that is gone asks again on the next one.
            drop(self.requests(protocol).send_response(channel, bytes));
        }
    }

    fn verdict(&mut self, id: GossipId, verdict: Verdict) {
        let Some((message, from)) = self.gossip.remove(&id) else {
            return;
        };
        let acceptance = match verdict {
            Verdict::Accept => gossipsub::MessageAcceptance::Accept,
            Verdict::Ignore => gossipsub::MessageAcceptance::Ignore,
            Verdict::Reject => gossipsub::MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gate.inner().gossip;
        gossip.report_message_validation_result(&message, &from, acceptance);
    }

    fn dial(&mut self, peer: PeerId, addresses: &[Address], fresh: bool) {
        let addresses: Vec<Multiaddr> = addresses
            .iter()
            .filter_map(|a| a.as_str().parse().ok())
            .collect();
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
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, peer);
            }
            Err(error) => {
                let reason = explain_dial(&error);
                self.queue.push_back(NetInput::DialFailed { peer, reason });
            }
        }
    }

    /// Closes a connection. For the state and for the members' protocols it is gone at once, even
    /// if libp2p needs long to say goodbye to a peer that does not answer.
    fn close(&mut self, connection: Connection, reason: &str) {
        let Some(entry) = self.connections.remove(&connection) else {
            return;
        };
        self.names.remove(&entry.id);
        self.swarm.behaviour_mut().gate.hide(entry.id);
        self.swarm.close_connection(entry.id);
        let (peer, reason) = (entry.peer, reason.to_owned());
        self.queue.push_back(NetInput::Disconnected {
            peer,
            connection,
            reason,
        });
    }

    fn close_unopened(&mut self) {
        let now = Instant::now();
        let over: Vec<Connection> = self
            .connections
            .iter()
            .filter(|(_, entry)| entry.opening_until.is_some_and(|until| until <= now))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in over {
            self.close(connection, "no handshake in time");
        }
    }

    fn handle(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                self.closed(peer_id, connection_id, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(peer) = self.dials.remove(&connection_id) {
                    let reason = explain_dial(&error);
                    self.queue.push_back(NetInput::DialFailed { peer, reason });
                }
            }
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                tracing::debug!(%error, address = %send_back_addr, "a connection was not taken");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::debug!(%address, "listening");
                self.listeners.insert(address);
                self.tell_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listeners.remove(&address);
                self.tell_addresses();
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener failed");
            }
            _ => {}
        }
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let dialled = self.dials.remove(&id).is_some() || endpoint.is_dialer();
        let connection = Connection(self.next_connection);
        self.next_connection += 1;
        let remote = without_peer(endpoint.get_remote_address());
        let transport = transport_of(&remote);
        let unopened = self
            .connections
            .values()
            .filter(|e| e.opening_until.is_some())
            .count();
        let entry = Entry {
            id,
            peer,
            opening_until: Some(Instant::now() + self.opening_time),
        };
        self.connections.insert(connection, entry);
        self.names.insert(id, connection);
        let Some(address) = Address::new(remote.to_string()) else {
            return;
        };
        let direction = if dialled {
            Direction::Dialled
        } else {
            Direction::Accepted
        };
        self.queue.push_back(NetInput::Connected {
            peer,
            connection,
            direction,
            address,
            transport,
        });
        if unopened >= UNOPENED_MAX && !dialled {
            self.close(connection, "too many connections without a handshake");
        }
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId, cause: Option<&ConnectionError>) {
        let Some(connection) = self.names.remove(&id) else {
            return;
        };
        self.connections.remove(&connection);
        let reason = cause.map_or_else(|| "the peer closed it".to_owned(), |c| innermost(c));
        self.queue.push_back(NetInput::Disconnected {
            peer,
            connection,
            reason,
        });
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(MembersEvent::Gossip(event)) => self.handle_gossip(event),
            BehaviourEvent::Gate(MembersEvent::Sync(event)) => {
                self.handle_request(Protocol::Sync, event);
            }
            BehaviourEvent::Gate(MembersEvent::Direct(event)) => {
                self.handle_request(Protocol::Direct, event);
            }
            BehaviourEvent::Gate(MembersEvent::Users(event)) => {
                self.handle_request(Protocol::Users, event);
            }
            BehaviourEvent::Member(member::Event::Request(on, id, bytes)) => {
                if let Some(&connection) = self.names.get(&on) {
                    self.queue.push_back(NetInput::MemberRequest {
                        connection,
                        id,
                        bytes,
                    });
                }
            }
            BehaviourEvent::Member(member::Event::Response(id, result)) => {
                self.queue.push_back(NetInput::Response { id, result });
            }
            // A ping that fails says little: the transports notice a dead peer by its silence.
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(time),
                ..
            }) => {
                if let Some(&connection) = self.names.get(&connection) {
                    self.queue
                        .push_back(NetInput::RoundTrip { connection, time });
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    if let Some(address) = Address::new(without_peer(&address).to_string()) {
                        self.queue.push_back(NetInput::Discovered { peer, address });
                    }
                }
            }
            // What identify says of a peer's addresses is its own guess; members tell them.
            // An expired mDNS record does not mean that the peer is gone.
            _ => {}
        }
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message {
            propagation_source,
            message_id,
            message,
        } = event
        else {
            return;
        };
        // Strict validation lets no message without an author through.
        let Some(source) = message.source else { return };
        let id = GossipId(self.next_gossip);
        self.next_gossip += 1;
        self.gossip.insert(id, (message_id, propagation_source));
        if self.gossip.len() > GOSSIP_MAX {
            self.gossip.pop_first();
        }
        self.queue.push_back(NetInput::Gossip {
            source,
            id,
            bytes: message.data,
        });
    }

    fn handle_request(
        &mut self,
        protocol: Protocol,
        event: request_response::Event<Vec<u8>, Vec<u8>>,
    ) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request {
                    request: bytes,
                    channel,
                    ..
                } => {
                    let id = InboundId(self.next_inbound);
                    self.next_inbound += 1;
                    self.inbound.insert(id, channel);
                    self.inbound_protocol.insert(id, protocol);
                    if self.inbound.len() > INBOUND_MAX {
                        self.inbound.pop_first();
                        self.inbound_protocol.pop_first();
                    }
                    self.queue.push_back(NetInput::Request {
                        peer,
                        protocol,
                        id,
                        bytes,
                    });
                }
                request_response::Message::Response {
                    request_id,
                    response,
                } => {
                    if let Some(id) = self.asked.remove(&(protocol, request_id)) {
                        self.queue.push_back(NetInput::Response {
                            id,
                            result: Ok(response),
                        });
                    }
                }
            },
            request_response::Event::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some(id) = self.asked.remove(&(protocol, request_id)) {
                    let result = Err(error.to_string());
                    self.queue.push_back(NetInput::Response { id, result });
                }
            }
            request_response::Event::InboundFailure { error, peer, .. } => {
                tracing::debug!(%peer, %error, "a request could not be answered");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn tell_addresses(&mut self) {
        let usable = |a: &&Multiaddr| {
            !a.iter()
                .any(|part| matches!(part, Part::Ip6(ip) if ip.is_unicast_link_local()))
        };
        let is_loopback = |a: &Multiaddr| {
            a.iter().any(|part| match part {
                Part::Ip4(ip) => ip.is_loopback(),
                Part::Ip6(ip) => ip.is_loopback(),
                _ => false,
            })
        };
        let all: Vec<&Multiaddr> = self.listeners.iter().filter(usable).collect();
        let reachable: Vec<&Multiaddr> = all.iter().copied().filter(|a| !is_loopback(a)).collect();
        // A node that listens on loopback alone serves others on the same machine.
        let told = if reachable.is_empty() { all } else { reachable };
        let mut addresses: BTreeSet<Address> = told
            .into_iter()
            .filter_map(|a| Address::new(a.to_string()))
            .collect();
        addresses.extend(self.announce.iter().cloned());
        if addresses != self.told_addresses {
            self.told_addresses.clone_from(&addresses);
            self.queue.push_back(NetInput::OwnAddresses(addresses));
        }
    }

    fn open_p2sn(&mut self, session: SessionId, peer: PeerId, message: Option<Vec<u8>>) {
        let task = if self.swarm.behaviour().gate.is_open(&peer) {
            self.new_session(session, peer, message)
                .ok_or("no RSA key yet, or too many sessions")
        } else {
            Err(NOT_OPEN)
        };
        let task = match task {
            Ok(task) => task,
            Err(reason) => {
                let reason = reason.to_owned();
                return self.queue.push_back(NetInput::P2snClosed {
                    session,
                    peer,
                    reason,
                });
            }
        };
        let mut control = self.streams.clone();
        tokio::spawn(async move {
            // If the connection closes in this moment, libp2p-stream may never answer.
            let opened = control.open_stream(peer, p2sn::PROTOCOL);
            let stream = match tokio::time::timeout(STREAM_TIME, opened).await {
                Ok(stream) => stream.map_err(|e| e.to_string()),
                Err(_) => Err("the peer takes no stream".to_owned()),
            };
            task.run(stream).await;
        });
    }

    fn serve_p2sn(&mut self, peer: PeerId, stream: libp2p::Stream) {
        let is_theirs = |id: &&SessionId| matches!(id, SessionId::Theirs(_));
        if self.sessions.keys().filter(is_theirs).count() >= SESSIONS_INBOUND_MAX {
            return;
        }
        let session = SessionId::Theirs(self.next_session);
        self.next_session += 1;
        if let Some(task) = self.new_session(session, peer, None) {
            tokio::spawn(task.run(Ok(stream)));
        }
    }

    fn new_session(
        &mut self,
        id: SessionId,
        peer: PeerId,
        message: Option<Vec<u8>>,
    ) -> Option<Task> {
        let own = self.rsa.clone()?;
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let (sender, words) = mpsc::channel(WORDS);
        self.sessions.insert(id, sender);
        Some(Task {
            id,
            peer,
            own,
            message,
            steps: self.steps.clone(),
            inputs: self.task_inputs.0.clone(),
            words,
        })
    }

    fn handle_task(&mut self, input: NetInput) {
        if let NetInput::P2snClosed { session, .. } = &input {
            self.sessions.remove(session);
        }
        self.queue.push_back(input);
    }

    fn say(&mut self, session: SessionId, word: Word) {
        if let Some(words) = self.sessions.get(&session) {
            // A session that has ended needs no words.
            drop(words.try_send(word));
        }
    }
}

fn build(config: &Config, keypair: &Keypair) -> Result<Swarm<Behaviour>, NetError> {
    let failed = |e: &dyn std::fmt::Display| NetError::Transport(e.to_string());
    let behaviour = Behaviour::new(config, keypair)?;
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_quic_config(|mut quic| {
            quic.max_idle_timeout = SILENCE_MS;
            quic.keep_alive_interval = QUIC_KEEP_ALIVE;
            quic
        })
        .with_other_transport(|keypair| Ok(tcp_transport(keypair)?))
        .map_err(|e| failed(&e))?
        .with_dns()
        .map_err(|e| failed(&e))?
        .with_behaviour(|_| behaviour)
        .map_err(|e| failed(&e))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_TIME))
        .with_connection_timeout(DIAL_TIME)
        .build();
    Ok(swarm)
}

/// Makes the TCP transport of a node: Noise, Yamux, and an end to silent connections.
///
/// # Errors
/// Fails if the key cannot sign the Noise handshake.
pub fn tcp_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS_MAX);
    let silence = Duration::from_millis(SILENCE_MS.into());
    Ok(
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .map(move |stream, _| Watched::new(stream, silence))
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise::Config::new(keypair)?)
            .multiplex(muxer)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    )
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn without_peer(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .filter(|part| !matches!(part, Part::P2p(_)))
        .collect()
}

fn transport_of(address: &Multiaddr) -> Transport {
    address
        .iter()
        .find_map(|part| match part {
            Part::QuicV1 | Part::Quic => Some(Transport::Quic),
            Part::Tcp(_) => Some(Transport::Tcp),
            _ => None,
        })
        .unwrap_or(Transport::Other)
}

/// Says in one line why a dial led nowhere.
fn explain_dial(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::DialPeerConditionFalse(_) => "a dial is under way already".to_owned(),
        DialError::LocalPeerId { .. } => "the address is this node's own".to_owned(),
        DialError::WrongPeerId { .. } => "another node answered at that address".to_owned(),
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
