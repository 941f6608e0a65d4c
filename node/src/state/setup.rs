//! What a node is given when it starts, and why it may not be able to.

use std::{fmt, time::Duration};

use libp2p_identity::PeerId;

use super::Expiry;
use crate::proto::{
    mesh::{Address, NodeName, certificate::MeshKey},
    syft,
};

/// The part of the configuration that the state uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a message is kept trying.
    pub expiry: Expiry,
    /// Most messages in the outbox.
    pub outbox_count_max: usize,
    /// Most bytes of text in the outbox.
    pub outbox_bytes_max: usize,
    /// How long history is kept.
    pub history_age_max: Duration,
    /// How many bytes of history are kept.
    pub history_bytes_max: u64,
    /// How long an integer is worth delivering.
    pub integer_ttl: Duration,
    /// Integers that one sender may send in a second, steadily; 0 for no limit.
    pub budget_per_second: u32,
    /// Integers that one sender may send at once.
    pub budget_burst: u32,
    /// Configured addresses of peers.
    pub peers: Vec<(PeerId, Address)>,
    /// What is kept for users who are away.
    pub letters: LetterLimits,
    /// Foreign Syft servers that this node is a client of.
    pub servers: Vec<NodeName>,
}

/// How much is kept for each user of this gateway who is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterLimits {
    /// Most letters.
    pub count_max: usize,
    /// Most bytes.
    pub bytes_max: usize,
    /// How long each is kept.
    pub age_max: Duration,
}

impl Default for LetterLimits {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            bytes_max: 32 * 1024 * 1024,
            age_max: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            expiry: Expiry::DEFAULT,
            outbox_count_max: 10_000,
            outbox_bytes_max: 32 * 1024 * 1024,
            history_age_max: 365 * DAY,
            history_bytes_max: 256 * 1024 * 1024,
            integer_ttl: Duration::from_secs(10),
            budget_per_second: 2_000,
            budget_burst: 20_000,
            peers: Vec::new(),
            letters: LetterLimits::default(),
            servers: Vec::new(),
        }
    }
}

/// What a node is from birth.
#[derive(Clone)]
pub struct Setup {
    /// Its peer id.
    pub peer: PeerId,
    /// The key that signs and opens its direct messages.
    pub messaging_key: syft::SigningKey,
    /// The mesh key, if this node holds one.
    pub mesh_key: Option<MeshKey>,
    /// Whether that key was ever exported to a file.
    pub mesh_key_exported: bool,
    /// The name it would like to have.
    pub name: NodeName,
    /// Chance for ids, jitter and envelopes, from the operating system.
    pub seed: [u8; 32],
    /// The configuration.
    pub settings: Settings,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("peer", &self.peer)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a node cannot start from what was on its disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The stored membership is damaged.
    #[error("the stored membership of this node is not usable ({0})")]
    Membership(String),
    /// There is neither a membership nor a mesh key to begin one with.
    #[error("this node is in no mesh and has no mesh key to begin one with")]
    NoMeshKey,
    /// The store belongs to another node.
    #[error("the store belongs to node {0}, and `node.key` is the key of another")]
    OtherNode(PeerId),
    /// The messaging key is another one: nobody could read this node, nor it anybody.
    #[error("`messaging.key` is not the key that this node's certificate names")]
    OtherMessagingKey,
}
