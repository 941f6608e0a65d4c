//! Who is at the other end of a message, and through which protocol or gateway.

use std::{fmt, str::FromStr};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

/// Who is at the other end of a message.
///
/// Its text is the member's peer id or the client's name; only the latter has a colon in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Party {
    /// A node of the mesh.
    Member(PeerId),
    /// A client behind a gateway of this node.
    Client(ClientName),
}

impl Party {
    /// Returns the peer id of a member.
    #[must_use]
    pub const fn member(&self) -> Option<PeerId> {
        match self {
            Self::Member(peer) => Some(*peer),
            Self::Client(_) => None,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(peer) => peer.fmt(f),
            Self::Client(name) => name.fmt(f),
        }
    }
}

impl FromStr for Party {
    type Err = NoParty;

    fn from_str(text: &str) -> Result<Self, NoParty> {
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
#[error("expected a peer id, or the name of a client such as `p2sn:127.0.0.1/5d41402abc4b2a76`")]
pub struct NoParty;

/// The name of a client, given by its gateway: the name of the gateway, a colon, and what the gateway knows
/// it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

/// Longest name of a client, in bytes: an IPv6 address with a zone and a fingerprint fit.
const CLIENT_NAME_BYTES_MAX: usize = 128;

impl ClientName {
    /// Takes a text that is one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let (node, rest) = text.split_once(':')?;
        let is_gateway = !node.is_empty()
            && node
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_word = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic());
        let fits = text.len() <= CLIENT_NAME_BYTES_MAX;
        (is_gateway && is_word && fits).then_some(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

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

/// A gateway for clients of an older system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// IID and APIntIO.
    Iid,
    /// P2SN.
    P2sn,
    /// Syft.
    Syft,
}

impl Gateway {
    /// Returns its name, as in `gateway enable NAME`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iid => "iid",
            Self::P2sn => "p2sn",
            Self::Syft => "syft",
        }
    }
}
