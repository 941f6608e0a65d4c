//! Everything libp2p: turns what happens on the network into [`NetInput`], and does what
//! [`NetOutput`] says. It decides nothing.
//!
//! | file | what |
//! | --- | --- |
//! | `transport` | how the swarm is built: TCP and QUIC |
//! | `dialling` | names in addresses, and that the right peer answers at them |
//! | `behaviour` | the behaviours of the swarm and their settings |
//! | `gate` | no protocol for members before the state opens a connection |
//! | `silence` | an end to TCP connections on which nothing is heard |
//! | `admission` | connections of others that are being set up |
//! | `established` | how many connections there are, in all and with one peer |
//! | `closing` | an end to connections that are being closed |
//! | `places` | who gives way when there are too many of these |
//! | `addresses` | where this node is reached |
//! | `ranking` | which addresses are good for others, and which of theirs are near |
//! | `interfaces` | notices that a cable is back |
//! | `connections` | dialled, up, open, gone |
//! | `exchange` | a protocol that asks and answers, and the places of each peer in it |
//! | `member` | `/pimesh/member/1`, the one protocol before a connection is open |
//! | `requests` | the protocols for members that ask and answer |
//! | `reading` | the bytes that are read of requests |
//! | `frame` | one message on a stream of these |
//! | `integers` | integers out and in: on lines and as gossip |
//! | `live` | `/pimesh/live/1`, the line to a connected member |
//! | `p2sn` | P2SN sessions on streams |

mod addresses;
mod admission;
mod behaviour;
mod closing;
mod connections;
mod dialling;
mod established;
mod exchange;
mod frame;
mod gate;
mod integers;
mod interfaces;
pub(crate) mod live;
mod member;
mod memory;
mod p2sn;
mod places;
mod ranking;
mod reading;
mod requests;
mod silence;
#[cfg(test)]
mod tests;
mod transport;

use std::{collections::VecDeque, io, time::Duration};

use futures::StreamExt;
use libp2p::{PeerId, Swarm, TransportError, identity::Keypair, mdns, ping, swarm::SwarmEvent};
use libp2p_stream::IncomingStreams;
use tokio::{sync::mpsc, time::Instant};

pub use self::transport::tcp_transport;
use self::{
    addresses::{Addresses, without_peer},
    admission::GivenWay,
    behaviour::{Behaviour, BehaviourEvent, MembersEvent, SCORE_MIN},
    connections::Connections,
    integers::Integers,
    interfaces::Interfaces,
    live::Room,
    p2sn::{Sessions, Word},
    requests::Requests,
};
use crate::{
    limits::LogLimit,
    proto::{mesh::Address, p2sn::PrivateKey},
    state::io::{NetInput, NetOutput, Opening, Protocol},
};

/// Inputs that tasks have read from streams and that wait for the loop.
const TASK_INPUTS: usize = 64;

/// How long a goodbye to all peers may take. One that does not answer notices by the silence.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// How long the network goes on after the last connection is closed: QUIC's last packet is sent by
/// a task of its own.
const LAST_PACKET_TIME: Duration = Duration::from_millis(100);

/// Why something that needs an open connection was not done.
const NOT_OPEN: &str = "no connection to the peer is open";

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
    /// Memory in use at which connections of strangers are refused, in bytes.
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
        source: io::Error,
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

impl NetError {
    /// Returns what to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let Self::Listen { source, .. } = self else {
            return None;
        };
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there, perhaps another node: end it, or choose another \
                 port with `--listen` or `network.listen`, for example \
                 `--listen /ip4/0.0.0.0/udp/4631/quic-v1 --listen /ip4/0.0.0.0/tcp/4631`"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: `--listen` or `network.listen` names \
                 another, and `/ip4/0.0.0.0/…` stands for all"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: `--listen` or `network.listen` names another"
            }
            _ => "`--listen` or `network.listen` names other addresses",
        };
        Some(hint.to_owned())
    }
}

/// Returns the system's own error out of those that libp2p wraps around it, each of which prints it
/// again.
fn innermost(error: TransportError<io::Error>) -> io::Error {
    let TransportError::Other(error) = error else {
        return io::Error::new(io::ErrorKind::Unsupported, error.to_string());
    };
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    loop {
        let code = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return io::Error::from_raw_os_error(code);
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => return error,
        }
    }
}

/// The swarm, and what connects it with the state.
pub struct Net {
    swarm: Swarm<Behaviour>,
    given_way: GivenWay,
    addresses: Addresses,
    interfaces: Interfaces,
    connections: Connections,
    requests: Requests,
    integers: Integers,
    sessions: Sessions,
    incoming_lines: IncomingStreams,
    incoming_sessions: IncomingStreams,
    from_tasks: mpsc::Receiver<NetInput>,
    queue: VecDeque<NetInput>,
    began: Instant,
    /// Failures of listeners that were logged: without file descriptors there are many a second.
    listener_errors: LogLimit<io::ErrorKind>,
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
        let (reading, given_way) = (requests::reading(), GivenWay::default());
        let mut swarm = transport::listening_swarm(config, keypair, &reading, &given_way)?;
        let mut streams = swarm.behaviour_mut().gate.inner().streams.new_control();
        let mut accept = |protocol| {
            let twice = |_| NetError::Transport("a protocol is registered twice".to_owned());
            streams.accept(protocol).map_err(twice)
        };
        let (incoming_sessions, incoming_lines) =
            (accept(p2sn::PROTOCOL)?, accept(live::PROTOCOL)?);
        let (inputs, from_tasks) = mpsc::channel(TASK_INPUTS);
        Ok(Self {
            swarm,
            given_way,
            addresses: Addresses::new(config.announce.clone()),
            interfaces: Interfaces::new(),
            connections: Connections::new(config.connections_max as usize),
            requests: Requests::default(),
            integers: Integers::new(streams.clone(), inputs.clone()),
            sessions: Sessions::new(streams, inputs),
            incoming_lines,
            incoming_sessions,
            from_tasks,
            queue: VecDeque::new(),
            began: Instant::now(),
            listener_errors: LogLimit::default(),
        })
    }

    /// Gives the RSA key; P2SN sessions are possible from here on.
    pub fn set_rsa(&mut self, key: PrivateKey) {
        self.queue
            .push_back(NetInput::P2snReady(key.public().fingerprint()));
        self.sessions.set_key(key);
    }

    /// Returns where the node listens.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        let listeners = self.addresses.listeners().iter();
        listeners.map(ToString::to_string).collect()
    }

    /// Returns what tells a sender of many integers when to go on.
    pub(crate) fn room(&self) -> Room {
        self.integers.room()
    }

    /// Waits for the next thing that the state has to know. Cancel safe.
    pub async fn next(&mut self) -> NetInput {
        loop {
            if let Some(input) = self.queue.pop_front() {
                return input;
            }
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle(event),
                Some(input) = self.from_tasks.recv() => {
                    if let NetInput::P2snClosed { session, .. } = &input {
                        self.sessions.forget(*session);
                    }
                    self.queue.push_back(input);
                }
                Some((peer, stream)) = self.incoming_sessions.next() => {
                    let news = self.sessions.serve(peer, stream);
                    self.queue.extend(news);
                }
                Some((peer, stream)) = self.incoming_lines.next() => {
                    self.integers.read(peer, stream);
                }
                () = self.interfaces.changed() => {
                    self.queue.extend(self.addresses.interfaces_changed());
                    self.queue.push_back(NetInput::InterfacesChanged);
                }
                () = sleep_until(self.addresses.deadline()) => {
                    self.queue.extend(self.addresses.look_again());
                }
                () = sleep_until(self.connections.deadline()) => {
                    self.queue.extend(self.connections.close_unopened(&mut self.swarm));
                }
            }
        }
    }

    /// Does what the state says. Publishing waits for [`Self::flush`].
    pub fn act(&mut self, output: NetOutput) {
        let news = match output {
            NetOutput::Member { peer, is_member } => {
                let behaviour = self.swarm.behaviour_mut();
                behaviour.memory.set_member(peer, is_member);
                None
            }
            NetOutput::Dial {
                peer,
                addresses,
                fresh,
            } => {
                let (others, own) = self.addresses.for_dialling(&addresses);
                self.connections
                    .dial(&mut self.swarm, peer, (others, own), fresh)
            }
            NetOutput::Close { connection, reason } => {
                self.connections.close(&mut self.swarm, connection, &reason)
            }
            NetOutput::Open {
                connection,
                opening,
            } => {
                let opened = self.connections.open(&mut self.swarm, connection, opening);
                if let (Some(peer), Opening::Both) = (opened, opening) {
                    self.integers.lay(peer);
                }
                None
            }
            NetOutput::MemberRequest {
                connection,
                id,
                bytes,
            } => {
                if let Some(on) = self.connections.id(connection) {
                    self.swarm.behaviour_mut().member.ask(on, id, bytes);
                    None
                } else {
                    let result = Err("the connection is closed".to_owned());
                    Some(NetInput::Response { id, result })
                }
            }
            NetOutput::MemberRespond {
                connection,
                id,
                bytes,
            } => {
                if let Some(on) = self.connections.id(connection) {
                    self.swarm.behaviour_mut().member.answer(on, id, bytes);
                }
                None
            }
            NetOutput::Request {
                peer,
                protocol,
                id,
                bytes,
            } => {
                let gate = &mut self.swarm.behaviour_mut().gate;
                self.requests.ask(gate, peer, protocol, id, bytes)
            }
            NetOutput::Respond { id, bytes } => {
                let gate = &mut self.swarm.behaviour_mut().gate;
                self.requests.answer(gate, id, bytes);
                None
            }
            NetOutput::Refuse { id } => {
                let gate = &mut self.swarm.behaviour_mut().gate;
                self.requests.refuse(gate, id);
                None
            }
            NetOutput::Publish { frame, needs_relay } => {
                self.integers.push(frame, needs_relay);
                None
            }
            NetOutput::Verdict { id, verdict } => {
                let gate = &mut self.swarm.behaviour_mut().gate;
                self.integers.judge(gate, id, verdict);
                None
            }
            NetOutput::P2snOpen {
                session,
                peer,
                message,
            } => {
                let gate = &self.swarm.behaviour().gate;
                self.sessions.open(gate, session, peer, message)
            }
            NetOutput::P2snVerdict { session, accept } => {
                self.sessions.say(session, Word::Verdict(accept));
                None
            }
            NetOutput::P2snReply { session, bytes } => {
                self.sessions.say(session, Word::Reply(bytes));
                None
            }
        };
        self.queue.extend(news);
    }

    /// Says goodbye to every peer, so that none has to wait until it notices a silence.
    pub async fn goodbye(mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        if peers.is_empty() {
            return;
        }
        for peer in peers {
            // One that is gone already needs no goodbye.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                    self.swarm.close_connection(connection_id);
                }
            }
        };
        // Whoever does not answer in time notices by the silence.
        drop(tokio::time::timeout(GOODBYE_TIME, closing).await);
        tokio::time::sleep(LAST_PACKET_TIME).await;
    }

    /// Publishes the frames that came since the last call, joined into as few messages as they fit.
    pub fn flush(&mut self) {
        let gate = &mut self.swarm.behaviour_mut().gate;
        self.integers.flush(gate, &mut self.queue);
    }

    fn handle(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let news = match event {
            SwarmEvent::Behaviour(event) => return self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let (swarm, connections) = (&mut self.swarm, &mut self.connections);
                let news = connections.established(swarm, peer_id, connection_id, &endpoint);
                return self.queue.extend(news);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => self
                .connections
                .closed(peer_id, connection_id, cause.as_ref()),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.connections.dial_failed(connection_id, &error),
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                tracing::debug!(%error, address = %send_back_addr, "a connection was not taken");
                let times = self.given_way.take();
                let what = "connection_setup";
                (times > 0).then_some(NetInput::AtLimit { what, times })
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::debug!(%address, "listening");
                self.addresses.listening(address)
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.addresses.expired(&address),
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
                None
            }
            SwarmEvent::ListenerError { error, .. } => {
                let now = self.began.elapsed();
                if let Some(more) = self.listener_errors.admit(error.kind(), now) {
                    tracing::warn!(%error, more, "a listener failed");
                }
                None
            }
            _ => None,
        };
        self.queue.extend(news);
    }

    fn requested(&mut self, protocol: Protocol, event: exchange::Event) -> NetInput {
        let gate = &mut self.swarm.behaviour_mut().gate;
        self.requests.handle(gate, protocol, event)
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        let news = match event {
            BehaviourEvent::Gate(MembersEvent::Gossip(event)) => self.integers.hear(event),
            BehaviourEvent::Gate(MembersEvent::Sync(event)) => {
                Some(self.requested(Protocol::Sync, event))
            }
            BehaviourEvent::Gate(MembersEvent::Direct(event)) => {
                Some(self.requested(Protocol::Direct, event))
            }
            BehaviourEvent::Gate(MembersEvent::Users(event)) => {
                Some(self.requested(Protocol::Users, event))
            }
            BehaviourEvent::Gate(MembersEvent::Key(event)) => {
                Some(self.requested(Protocol::Key, event))
            }
            BehaviourEvent::Member(exchange::Event::Request {
                connection,
                id,
                bytes,
                ..
            }) => {
                let connection = self.connections.name(connection);
                connection.map(|connection| NetInput::MemberRequest {
                    connection,
                    id,
                    bytes,
                })
            }
            BehaviourEvent::Member(exchange::Event::Response(id, result)) => {
                Some(NetInput::Response { id, result })
            }
            BehaviourEvent::Member(exchange::Event::AtLimit(what)) => {
                Some(NetInput::AtLimit { what, times: 1 })
            }
            // A ping that fails says little: the transports notice a dead peer by its silence.
            BehaviourEvent::Ping(ping::Event {
                connection,
                peer,
                result: Ok(time),
            }) => {
                let gossip = &self.swarm.behaviour_mut().gate.inner().gossip;
                if gossip
                    .peer_score(&peer)
                    .is_some_and(|score| score < SCORE_MIN)
                {
                    self.queue.push_back(NetInput::Flooded { peer });
                }
                let connection = self.connections.name(connection);
                connection.map(|connection| NetInput::RoundTrip { connection, time })
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let discovered = found.into_iter().filter_map(|(peer, address)| {
                    let address = Address::new(without_peer(&address).to_string())?;
                    Some(NetInput::Discovered { peer, address })
                });
                return self.queue.extend(discovered);
            }
            // That the peer is gone is for its connection to say; its address is.
            BehaviourEvent::Mdns(mdns::Event::Expired(expired)) => {
                let vanished = expired.into_iter().filter_map(|(peer, address)| {
                    let address = Address::new(without_peer(&address).to_string())?;
                    Some(NetInput::Vanished { peer, address })
                });
                return self.queue.extend(vanished);
            }
            // What identify says of a peer's addresses is its own guess; members tell them.
            _ => None,
        };
        self.queue.extend(news);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
