//! Names for what is under way: each is given by one part and carried back by the answers.

use serde::{Deserialize, Serialize};

/// Names one connection to one peer; given by `net`, never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// Names one request of ours that a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboundId(pub u64);

/// Names one request of a peer that we answer; given by `net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InboundId(pub u64);

/// Names one request from the control socket; its reply carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one group of records given to the store; its completion carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names one gossip message that waits for our verdict; given by `net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GossipId(pub u64);

/// Names one P2SN session on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionId {
    /// A session that we opened; numbered by the state.
    Ours(u64),
    /// A session that the peer opened; numbered by `net`.
    Theirs(u64),
}

/// Names one connection of a client; given by `gateway`, never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u64);
