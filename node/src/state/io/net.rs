//! What comes from the network, and what it is asked to do.

use std::{borrow::Cow, time::Duration};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{Connection, GossipId, InboundId, OutboundId, SessionId};
use crate::proto::{mesh::Address, p2sn};

/// What comes from the network.
#[derive(derive_more::Debug)]
pub enum NetInput {
    /// The addresses under which others may reach this node; replaces the earlier ones.
    OwnAddresses {
        /// The addresses, best first.
        addresses: Vec<Address>,
        /// How far they reach.
        reach: OwnReach,
    },
    /// A connection is up: transport encryption is done and the peer id is authentic. It is
    /// closed to everything but `/pimesh/member/1` until [`NetOutput::Open`].
    Connected {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection's name.
        connection: Connection,
        /// Who dialled.
        direction: Direction,
        /// The address at the other end.
        address: Address,
        /// What it runs over.
        transport: Transport,
    },
    /// A connection is gone, or was found dead and closed.
    Disconnected {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection's name.
        connection: Connection,
        /// Why, for people.
        reason: String,
    },
    /// Something was dropped or ended at a limit, so many times. To be counted.
    AtLimit {
        /// What, as the counter names it.
        what: &'static str,
        /// How many times.
        times: u64,
    },
    /// A dial to this peer led to no connection.
    DialFailed {
        /// The peer that was dialled.
        peer: PeerId,
        /// Why, for people.
        reason: String,
        /// What came of each address, as far as one was dialled.
        tried: Vec<Tried>,
    },
    /// A dial was not begun: another one of this peer is under way, or a connection is there. What
    /// comes of that one is told for itself.
    DialNotBegun {
        /// The peer.
        peer: PeerId,
    },
    /// The LAN says that this peer is at this address (mDNS).
    Discovered {
        /// The peer.
        peer: PeerId,
        /// Where.
        address: Address,
    },
    /// The LAN says no more that this peer is at this address (mDNS).
    Vanished {
        /// The peer.
        peer: PeerId,
        /// Where it was.
        address: Address,
    },
    /// A network interface or one of its addresses changed.
    InterfacesChanged,
    /// A round trip on a connection was measured.
    RoundTrip {
        /// The connection.
        connection: Connection,
        /// How long.
        time: Duration,
    },
    /// A peer asks on `/pimesh/member/1`.
    MemberRequest {
        /// The connection it came on.
        connection: Connection,
        /// Name to answer by.
        id: InboundId,
        /// The encoded request.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// A member asks on a request-response protocol.
    Request {
        /// The member.
        peer: PeerId,
        /// The protocol.
        protocol: Protocol,
        /// Name to answer by.
        id: InboundId,
        /// The encoded request.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// The answer to a request of ours, on any protocol; or why there is none. After an error the
    /// peer may or may not have acted on the request.
    Response {
        /// The name of our request.
        id: OutboundId,
        /// The encoded answer.
        #[debug("{:?} bytes", result.as_ref().map(Vec::len))]
        result: Result<Vec<u8>, String>,
    },
    /// A connected member sent integers itself, more at once than may be; its stream is ended.
    LiveTooLong {
        /// The member.
        source: PeerId,
    },
    /// A connected member sent integers itself.
    Live {
        /// The member.
        source: PeerId,
        /// The encoded message.
        bytes: Vec<u8>,
    },
    /// A gossip message whose author's signature is good.
    Gossip {
        /// The author.
        source: PeerId,
        /// The connected member that passed it on, or is the author.
        from: PeerId,
        /// Name for our verdict.
        id: GossipId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A connected member sends much that is not even worth telling.
    Flooded {
        /// The member.
        peer: PeerId,
    },
    /// A gossip message could not be handed to anybody.
    PublishFailed {
        /// Why, for people.
        reason: String,
    },
    /// This node's RSA key is ready; P2SN sessions are possible from here on.
    P2snReady(p2sn::Fingerprint),
    /// A P2SN session has learned the peer's RSA key and waits for [`NetOutput::P2snVerdict`].
    P2snKey {
        /// The session.
        session: SessionId,
        /// The peer, as the connection authenticated it.
        peer: PeerId,
        /// Fingerprint of the key it showed.
        fingerprint: p2sn::Fingerprint,
        /// Its size.
        bits: usize,
    },
    /// A P2SN key exchange is complete on both sides.
    P2snEstablished {
        /// The session.
        session: SessionId,
        /// The peer.
        peer: PeerId,
    },
    /// A P2SN message came and waits for [`NetOutput::P2snReply`].
    P2snMessage {
        /// The session.
        session: SessionId,
        /// The peer.
        peer: PeerId,
        /// The decrypted message.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// The peer's reply to our P2SN message.
    P2snReplied {
        /// The session.
        session: SessionId,
        /// The decrypted reply.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// A P2SN session ended. Comes once for each session.
    P2snClosed {
        /// The session.
        session: SessionId,
        /// The peer.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
}

/// What the network is asked to do.
#[derive(derive_more::Debug)]
pub enum NetOutput {
    /// A peer became a member, or stopped being one.
    Member {
        /// The peer.
        peer: PeerId,
        /// Whether it is one.
        is_member: bool,
    },
    /// Dial this peer at these addresses; ends in `Connected`, `DialFailed` or `DialNotBegun`.
    Dial {
        /// The peer.
        peer: PeerId,
        /// Where, best first.
        addresses: Vec<Address>,
        /// Dial although a connection exists, because that one is suspect.
        fresh: bool,
    },
    /// Close this connection.
    Close {
        /// The connection.
        connection: Connection,
        /// Why, for the log and for `last error`.
        reason: Cow<'static, str>,
    },
    /// Open this connection to the protocols for members.
    Open {
        /// The connection.
        connection: Connection,
        /// How far.
        opening: Opening,
    },
    /// Ask on `/pimesh/member/1`, on this very connection.
    MemberRequest {
        /// The connection.
        connection: Connection,
        /// Name for the answer.
        id: OutboundId,
        /// The encoded request.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// Answer a request on `/pimesh/member/1`.
    MemberRespond {
        /// The connection it came on.
        connection: Connection,
        /// The name of the request.
        id: InboundId,
        /// The encoded answer.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// Ask a member, on any of its open connections.
    Request {
        /// The member.
        peer: PeerId,
        /// The protocol.
        protocol: Protocol,
        /// Name for the answer.
        id: OutboundId,
        /// The encoded request.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// Answer a member's request.
    Respond {
        /// The name of the request.
        id: InboundId,
        /// The encoded answer.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
    /// End a member's request without an answer.
    Refuse {
        /// The name of the request.
        id: InboundId,
    },
    /// Send this frame of integers to every connected member, and as gossip where that does not
    /// reach everybody. `net` may join frames that are published while the link is busy into one
    /// message (proto-specs/iid.md, section 9).
    Publish {
        /// The encoded frame.
        frame: Vec<u8>,
        /// Whether some member is not connected: others may pass the frame on to it.
        needs_relay: bool,
    },
    /// What to do with a gossip message.
    Verdict {
        /// The message.
        id: GossipId,
        /// What to do.
        verdict: Verdict,
    },
    /// Open a stream to this member and run the P2SN key exchange as its client; then send
    /// `message`, if there is one, and close after the reply.
    P2snOpen {
        /// Name of the new session.
        session: SessionId,
        /// The member.
        peer: PeerId,
        /// What to send after the exchange.
        #[debug("{:?} bytes", message.as_ref().map(|hidden| hidden.len()))]
        message: Option<Vec<u8>>,
    },
    /// Go on with this key, or close the session.
    P2snVerdict {
        /// The session.
        session: SessionId,
        /// Whether the key is the pinned one.
        accept: bool,
    },
    /// Answer a P2SN message.
    P2snReply {
        /// The session.
        session: SessionId,
        /// The reply's plaintext.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
    },
}

/// From where this node can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnReach {
    /// From nowhere: it has no address.
    #[default]
    Nowhere,
    /// From this machine alone.
    Machine,
    /// From other machines.
    Network,
}

/// What came of dialling one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The address.
    pub address: Address,
    /// Why it led nowhere, for people.
    pub reason: String,
    /// Whether trying it again is of no use.
    pub is_final: bool,
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// We dialled.
    Dialled,
    /// The peer dialled.
    Accepted,
}

/// What a connection runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
    /// Anything else, for example memory in tests.
    Other,
}

/// A request-response protocol that is open to members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `/pimesh/sync/1`: certificates, revocations, addresses, last integers, clock.
    Sync,
    /// `/pimesh/dm/1`: direct messages.
    Direct,
    /// `/pimesh/users/1`: what gateways tell of their users.
    Users,
    /// `/pimesh/key/1`: the mesh key for another member.
    Key,
}

/// How far a connection is opened to the protocols for members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// The peer may open streams to us.
    Inbound,
    /// Both may. From here on the connection is shown to gossipsub and request-response.
    Both,
}

/// What `gossipsub` is told about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Do not forward it; nobody is to blame.
    Ignore,
    /// Do not forward it, and lower the sender's score.
    Reject,
}
