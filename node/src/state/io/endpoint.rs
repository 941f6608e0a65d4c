//! Who can send and receive, and through which protocol or gateway.

use std::{fmt, str::FromStr};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::proto::{
    mesh::{ClientName, NodeName},
    syft::UserId,
};

/// Where an endpoint is: at a node of the mesh, or at a foreign server that this node is a client of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A node of the mesh, this one included.
    Node(PeerId),
    /// A foreign server.
    Server(ServerId),
}

/// A foreign server: the hash of the name that the owner of this node gave it.
///
/// The name itself is in the configuration, and may be gone from there while messages are left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId([u8; 32]);

/// Somebody who can send or receive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A node itself: its owner.
    Node(PeerId),
    /// Somebody with a key: a user of a node's gateway, or of a foreign server.
    User(UserId, Place),
    /// A client of a node's gateway that has no key to seal messages for: a P2SN script.
    Client(ClientName, PeerId),
}

impl From<PeerId> for Place {
    fn from(peer: PeerId) -> Self {
        Self::Node(peer)
    }
}

impl From<ServerId> for Place {
    fn from(server: ServerId) -> Self {
        Self::Server(server)
    }
}

impl PartialEq<PeerId> for Place {
    fn eq(&self, peer: &PeerId) -> bool {
        self.node() == Some(*peer)
    }
}

impl Endpoint {
    /// Returns the user of a place.
    pub fn user(user: UserId, place: impl Into<Place>) -> Self {
        Self::User(user, place.into())
    }
}

impl Place {
    /// Returns the place as it is stored: the bytes of a peer id, or of a SHA-256 multihash for a server.
    /// The first byte tells them apart: a node's peer id is its Ed25519 key itself, and no hash.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Node(peer) => peer.to_bytes(),
            Self::Server(ServerId(hash)) => [&SHA_256[..], &hash].concat(),
        }
    }

    /// Reads a stored place.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.strip_prefix(&SHA_256) {
            Some(hash) => Some(Self::Server(ServerId(hash.try_into().ok()?))),
            None => PeerId::from_bytes(bytes).ok().map(Self::Node),
        }
    }

    /// Returns the peer id of a node.
    #[must_use]
    pub const fn node(&self) -> Option<PeerId> {
        match self {
            Self::Node(peer) => Some(*peer),
            Self::Server(_) => None,
        }
    }

    /// Returns true for a foreign server.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

/// What stands in front of a SHA-256 hash in a multihash: code and length.
const SHA_256: [u8; 2] = [0x12, 0x20];

impl ServerId {
    /// Returns the id of the server with this name.
    #[must_use]
    pub fn of(name: &NodeName) -> Self {
        let hash = Sha256::new_with_prefix("pimesh/syft-server/1\0").chain_update(name.as_str());
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SERVER}{}", hex::encode(self.0))
    }
}

/// What stands in front of the hash in the text of a server's id.
const SERVER: &str = "server:";

/// Who is at the other end of a message.
///
/// Its text is the member's peer id, `server:` and a hash, or the client's name; only the last two have
/// a colon in them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Party {
    /// A node of the mesh.
    Member(PeerId),
    /// A foreign server.
    Server(ServerId),
    /// A client behind a gateway of this node.
    Client(ClientName),
}

impl Party {
    /// Returns the peer id of a member.
    #[must_use]
    pub const fn member(&self) -> Option<PeerId> {
        match self {
            Self::Member(peer) => Some(*peer),
            Self::Server(_) | Self::Client(_) => None,
        }
    }
}

impl From<Place> for Party {
    fn from(place: Place) -> Self {
        match place {
            Place::Node(peer) => Self::Member(peer),
            Place::Server(server) => Self::Server(server),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(peer) => peer.fmt(f),
            Self::Server(server) => server.fmt(f),
            Self::Client(name) => name.fmt(f),
        }
    }
}

impl FromStr for Party {
    type Err = NoParty;

    fn from_str(text: &str) -> Result<Self, NoParty> {
        if let Some(hash) = text.strip_prefix(SERVER) {
            let mut bytes = [0; 32];
            hex::decode_to_slice(hash, &mut bytes).map_err(|_| NoParty)?;
            return Ok(Self::Server(ServerId(bytes)));
        }
        match ClientName::new(text) {
            Some(name) => Ok(Self::Client(name)),
            None => text.parse().map(Self::Member).map_err(|_| NoParty),
        }
    }
}

impl From<Party> for String {
    fn from(party: Party) -> Self {
        party.to_string()
    }
}

impl TryFrom<String> for Party {
    type Error = NoParty;

    fn try_from(text: String) -> Result<Self, NoParty> {
        text.parse()
    }
}

/// A text that names neither a member nor a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a peer id, `server:` with a hash, or the name of a client such as `p2sn:127.0.0.1/5d41402abc4b2a76`"
)]
pub struct NoParty;

/// Through which protocol a message goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The durable direct message of the mesh.
    #[default]
    Direct,
    /// P2SN. Between members one message on a stream, at once or not at all; from and to clients
    /// of the gateway, what they brought and what waits for them.
    P2sn,
    /// A gateway for Syft agents, or a foreign Syft server.
    Syft,
}

/// How a message that is asked for goes: what comes and goes at gateways is never asked for here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendVia {
    /// The durable direct message of the mesh.
    #[default]
    Direct,
    /// One P2SN message on a stream, at once or not at all.
    P2sn,
}
