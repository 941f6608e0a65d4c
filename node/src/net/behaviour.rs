//! What the swarm is made of, and with which settings.

use std::time::Duration;

use libp2p::{
    PeerId, gossipsub, identify,
    identity::Keypair,
    mdns, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    Config, NetError, established::Established, exchange::Exchange, gate::Gate, member,
    memory::MemoryLimit, reading::Reading, requests::exchange,
};
use crate::{
    proto::iid::native::{MESSAGE_BYTES_MAX, TOPIC, message_id_of},
    state::io::Protocol,
};

/// How often a connection is tried, and how long an answer may take: often enough that a live TCP
/// connection is never silent for so long that `silence` ends it. Both sides use the same, because
/// libp2p's ping over QUIC stalls when only one side asks.
const PING_INTERVAL: Duration = Duration::from_millis(3500);
const PING_TIME: Duration = Duration::from_secs(4);

/// Most gossip messages that wait to be written to one peer. More means that the peer does not
/// keep up; with live values the later ones are worth more than a longer queue.
const GOSSIP_QUEUE: usize = 512;

/// Score at which a peer loses its connection: a hundred rejected messages within some seconds,
/// messages among them whose signature is wrong and of which nothing else tells.
pub(super) const SCORE_MIN: f64 = -100_000.0;

/// What gossipsub and protobuf put around a message, in bytes.
const GOSSIP_OVERHEAD: usize = 4 * 1024;

/// The behaviours of the swarm. What refuses connections stands before all that keep books about
/// them. `gate` stands before `member`: what opens a connection reaches it
/// before the answer that tells the peer so.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) established: Established,
    pub(super) memory: MemoryLimit,
    pub(super) gate: Gate<Members>,
    pub(super) member: Exchange,
    pub(super) ping: ping::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// The behaviours that members alone can use.
#[derive(NetworkBehaviour)]
pub(super) struct Members {
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) sync: Exchange,
    pub(super) direct: Exchange,
    pub(super) users: Exchange,
    pub(super) key: Exchange,
    pub(super) streams: libp2p_stream::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        config: &Config,
        keypair: &Keypair,
        reading: &Reading,
    ) -> Result<Self, NetError> {
        let peer = keypair.public().to_peer_id();
        let identify = identify::Config::new("/pimesh/1".to_owned(), keypair.public())
            .with_agent_version(concat!("pimesh/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_hide_listen_addrs(true);
        let mdns = config.mdns.then(|| {
            mdns::tokio::Behaviour::new(mdns::Config::default(), peer).map_err(NetError::Mdns)
        });
        Ok(Self {
            established: Established::new(config.connections_max as usize),
            memory: MemoryLimit::new(config.memory_bytes_max),
            gate: Gate::new(Members::new(keypair, reading)?),
            member: member::behaviour(),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(PING_INTERVAL)
                    .with_timeout(PING_TIME),
            ),
            identify: identify::Behaviour::new(identify),
            mdns: mdns.transpose()?.into(),
        })
    }
}

impl Members {
    fn new(keypair: &Keypair, reading: &Reading) -> Result<Self, NetError> {
        Ok(Self {
            gossip: gossip(keypair)?,
            sync: exchange(Protocol::Sync, reading),
            direct: exchange(Protocol::Direct, reading),
            users: exchange(Protocol::Users, reading),
            key: exchange(Protocol::Key, reading),
            streams: libp2p_stream::Behaviour::new(),
        })
    }
}

fn gossip(keypair: &Keypair) -> Result<gossipsub::Behaviour, NetError> {
    let failed = |e: &dyn std::fmt::Display| NetError::Gossip(e.to_string());
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .heartbeat_interval(Duration::from_secs(1))
        // A mesh at home is small: few links, few copies of each message.
        .mesh_outbound_min(1)
        .mesh_n_low(2)
        .mesh_n(3)
        .mesh_n_high(4)
        .flood_publish(true)
        .max_transmit_size(MESSAGE_BYTES_MAX + GOSSIP_OVERHEAD)
        .connection_handler_queue_len(GOSSIP_QUEUE)
        .duplicate_cache_time(Duration::from_secs(60))
        .message_id_fn(|message: &gossipsub::Message| {
            let source = message.source.unwrap_or_else(PeerId::random);
            gossipsub::MessageId::from(message_id_of(&source, &message.data).to_vec())
        })
        .build()
        .map_err(|e| failed(&e))?;
    let signed = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let mut behaviour = gossipsub::Behaviour::new(signed, config).map_err(|e| failed(&e))?;
    let (params, thresholds) = scores();
    behaviour
        .with_peer_score(params, thresholds)
        .map_err(|e| failed(&e))?;
    behaviour
        .subscribe(&gossipsub::IdentTopic::new(TOPIC))
        .map_err(|e| failed(&e))?;
    Ok(behaviour)
}

/// Scores fall for messages that are rejected, and for nothing else: many nodes may share an
/// address, and integers come in bursts, so neither says anything about a peer.
fn scores() -> (gossipsub::PeerScoreParams, gossipsub::PeerScoreThresholds) {
    let topic = gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.95,
        ..Default::default()
    };
    let params = gossipsub::PeerScoreParams {
        topics: [(gossipsub::IdentTopic::new(TOPIC).hash(), topic)].into(),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        ..Default::default()
    };
    let thresholds = gossipsub::PeerScoreThresholds {
        gossip_threshold: -100.0,
        publish_threshold: -500.0,
        graylist_threshold: -1000.0,
        ..Default::default()
    };
    (params, thresholds)
}
