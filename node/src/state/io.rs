//! Everything that can happen to the state, and everything that may follow: two enums.
//!
//! `Input` has four arms, `Output` five (ARCHITECTURE.md, "Four ways in, five ways out"). All of
//! it is plain data, so that a log of inputs replays a run.

use std::{collections::BTreeSet, fmt, net::SocketAddr, str::FromStr, time::Duration};

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{
    clients,
    post::{Ask, LetterNews, LetterRecord, Told, UserRecord},
    report,
};
use crate::proto::{
    iid::{Iid, Index, Value},
    mesh::{Address, MessageId, vouched::Vouched},
    p2sn,
    syft::{PublicKey, UserId, door::TokenId, letter::Fingerprint},
};

/// The two clocks, read at the same moment by whoever calls the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started. Never jumps: for waiting.
    pub mono: Duration,
    /// Calendar time in microseconds since 1970-01-01 UTC. May jump: for dates people see.
    pub unix_us: u64,
}

impl Now {
    /// Returns the calendar time in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.unix_us / 1000
    }
}

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

/// A door for clients of an older system.
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

/// Names one connection of a client; given by `gateway`, never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u64);

/// What happens to the state.
#[derive(Debug)]
pub enum Input {
    /// Something came from the network.
    Net(NetInput),
    /// Somebody asks through the control socket.
    Control(RequestId, Command),
    /// The records of this ticket are on disk.
    Stored(Ticket),
    /// The records of this ticket could not be written, and are not on disk.
    StoreFailed(Ticket, String),
}

/// What the state wants done.
#[derive(Debug)]
pub enum Output {
    /// Do this on the network.
    Net(NetOutput),
    /// Answer this request of the control socket.
    Reply(RequestId, Result<Reply, Failure>),
    /// Write these records, all or none, after those of every earlier ticket.
    Store(Ticket, Vec<Record>),
    /// Tell whoever listens; also the source of log lines and counters.
    Event(Event),
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
    /// `/pimesh/users/1`: what doors tell of their users.
    Users,
}

/// What comes from the network.
#[derive(Debug)]
pub enum NetInput {
    /// The addresses under which others may reach this node; replaces the earlier set.
    OwnAddresses(BTreeSet<Address>),
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
    /// A dial to this peer led to no connection.
    DialFailed {
        /// The peer that was dialled.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// The LAN says that this peer is at this address (mDNS).
    Discovered {
        /// The peer.
        peer: PeerId,
        /// Where.
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
        bytes: Vec<u8>,
    },
    /// The answer to a request of ours, on any protocol; or why there is none. After an error the
    /// peer may or may not have acted on the request.
    Response {
        /// The name of our request.
        id: OutboundId,
        /// The encoded answer.
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
        /// Name for our verdict.
        id: GossipId,
        /// The message.
        bytes: Vec<u8>,
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
        bytes: Vec<u8>,
    },
    /// The peer's reply to our P2SN message.
    P2snReplied {
        /// The session.
        session: SessionId,
        /// The decrypted reply.
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

/// What the network is asked to do.
#[derive(Debug)]
pub enum NetOutput {
    /// Dial this peer at these addresses; ends in `Connected` or `DialFailed`.
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
        /// Why, for the log.
        reason: &'static str,
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
        bytes: Vec<u8>,
    },
    /// Answer a request on `/pimesh/member/1`.
    MemberRespond {
        /// The connection it came on.
        connection: Connection,
        /// The name of the request.
        id: InboundId,
        /// The encoded answer.
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
        bytes: Vec<u8>,
    },
    /// Answer a member's request.
    Respond {
        /// The name of the request.
        id: InboundId,
        /// The encoded answer.
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
        bytes: Vec<u8>,
    },
}

/// Which members a command means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipients {
    /// Everybody but ourselves.
    All,
    /// These, each by name or by peer id.
    Named(Vec<String>),
}

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

/// The name of a client, given by its door: the name of the door, a colon, and what the door knows
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
        let (door, rest) = text.split_once(':')?;
        let is_door = !door.is_empty()
            && door
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_word = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic());
        let fits = text.len() <= CLIENT_NAME_BYTES_MAX;
        (is_door && is_word && fits).then_some(Self(text))
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
    /// of the door, what they brought and what waits for them.
    P2sn,
    /// A door for Syft agents, or a foreign Syft server.
    Syft,
}

/// When an integer is meant to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// At this Unix millisecond.
    UnixMs(u64),
    /// This many milliseconds from the moment the node takes the command.
    InMs(u64),
}

/// What is asked through the control socket.
#[derive(Clone, Debug)]
pub enum Command {
    /// What is this node, and how is it?
    Status,
    /// Who is in the mesh?
    Peers,
    /// Make a ticket for a new member.
    Invite {
        /// The new member's name; its own wish if `None`.
        name: Option<String>,
        /// Its index; the lowest free one if `None`.
        index: Option<Index>,
        /// What it may speak for as a gateway.
        vouched: Vouched,
        /// How long the ticket is good; 15 minutes if `None`.
        lifetime: Option<Duration>,
    },
    /// Enter a mesh.
    Join {
        /// The ticket, as `invite` printed it.
        ticket: String,
    },
    /// Take a member out of the mesh.
    Remove {
        /// Its name or peer id.
        peer: String,
    },
    /// Accept the changed RSA key of a member.
    Trust {
        /// Its name or peer id.
        peer: String,
    },
    /// Change what a member may speak for as a gateway.
    Vouch {
        /// Its name or peer id; this node's own, too.
        peer: String,
        /// From here on.
        vouched: Vouched,
    },
    /// Send a direct message.
    Send {
        /// To whom.
        to: Recipients,
        /// What.
        text: String,
        /// How.
        via: Via,
        /// How long to keep trying; the configured time if `None`.
        expiry: Option<Duration>,
    },
    /// Something about old P2SN clients and servers.
    P2sn(clients::Question),
    /// Which messages wait?
    Outbox,
    /// Broadcast integers.
    Integers {
        /// The index to speak for; this node's own if `None`.
        index: Option<Index>,
        /// The values, in order.
        values: Vec<Value>,
        /// When to carry them out, if not at once.
        at: Option<At>,
    },
    /// Broadcast integers that came through a gateway (proto-specs/iid.md, section 10).
    Bridge {
        /// The connection they came on, for whoever follows the events of this node.
        client: Option<ClientId>,
        /// The integers, in order: index and date are final.
        iids: Vec<Iid>,
    },
    /// The last integer of each index.
    LastIntegers,
    /// Something that a door for Syft agents asks.
    Door(Box<Ask>),
    /// Replace the settings that the state uses.
    Configure(Box<super::Settings>),
}

/// The answer to a command that went well.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Box<report::Status>),
    /// To [`Command::Peers`].
    Peers(Vec<report::Peer>),
    /// To [`Command::Invite`].
    Invited(report::Invite),
    /// To [`Command::Join`].
    Joined(report::Joined),
    /// To [`Command::Remove`].
    Removed(report::Removed),
    /// To [`Command::Trust`].
    Trusted(report::Trusted),
    /// To [`Command::Vouch`]: the new certificate is on disk here.
    Vouched(report::Vouched),
    /// To [`Command::Send`]: every message is on disk (or, via P2SN, on the peer's disk).
    Accepted(Vec<report::Accepted>),
    /// To [`Command::P2sn`].
    P2sn(clients::Answer),
    /// To [`Command::Outbox`].
    Outbox(Vec<report::Pending>),
    /// To [`Command::Integers`].
    Published(report::Published),
    /// To [`Command::Bridge`].
    Bridged {
        /// How many integers went out: all of them.
        published: usize,
    },
    /// To [`Command::LastIntegers`].
    LastIntegers(Vec<report::Integer>),
    /// To [`Command::Door`].
    Told(Told),
    /// To [`Command::Configure`].
    Configured,
}

/// Why a command could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the asker can do about it.
    pub kind: FailureKind,
    /// What could not be done and why.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What the asker can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request cannot be carried out as it is.
    BadRequest,
    /// What it names does not exist.
    NotFound,
    /// It does not fit the node's present state.
    Conflict,
    /// It may work later.
    Unavailable,
}

/// One change on disk. A group of them is written all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This node is a member of this mesh with this certificate; everything known of another mesh
    /// (members, revocations, invites, pins) is forgotten first.
    JoinedMesh {
        /// The node's own encoded certificate.
        certificate: Vec<u8>,
    },
    /// This node's certificate was issued again, in the mesh that it is in; replaces the earlier
    /// one.
    Renewed {
        /// The node's own encoded certificate.
        certificate: Vec<u8>,
    },
    /// A certificate is known; replaces an earlier one of the same peer.
    Member {
        /// The member.
        peer: PeerId,
        /// Its encoded certificate.
        certificate: Vec<u8>,
    },
    /// A revocation is known; replaces an earlier one of the same peer.
    Revocation {
        /// The peer.
        peer: PeerId,
        /// The encoded revocation.
        revocation: Vec<u8>,
    },
    /// An invite exists, or was changed.
    Invite(Invite),
    /// An invite is gone.
    ForgetInvite {
        /// SHA-256 of its secret.
        secret_hash: [u8; 32],
    },
    /// The addresses of a peer, best first; replaces the earlier ones.
    Addresses {
        /// The peer.
        peer: PeerId,
        /// The addresses.
        addresses: Vec<Address>,
    },
    /// A message was accepted for sending: into the outbox, and into the history as `sent`.
    Outgoing(Outgoing),
    /// A message left the outbox; its history row gets this outcome.
    Outcome {
        /// The message.
        id: MessageId,
        /// How it ended.
        outcome: Outcome,
        /// When, Unix ms.
        at_ms: u64,
    },
    /// A message was received: into the history as `received`, and the mark of its stream moves.
    Incoming(Incoming),
    /// The RSA key of a peer; replaces the earlier one.
    Pin {
        /// The peer.
        peer: PeerId,
        /// Fingerprint of its key.
        fingerprint: [u8; 32],
        /// Size of its key.
        bits: u32,
    },
    /// A key that an old P2SN client or server showed is pinned to its address.
    ClientPin {
        /// The address, as [`p2sn::PinAddress`] writes it.
        address: String,
        /// Fingerprint of its key.
        fingerprint: [u8; 32],
        /// Size of its key.
        bits: u32,
    },
    /// A key is pinned to this address no more.
    ForgetClientPin {
        /// The address.
        address: String,
        /// Fingerprint of the key.
        fingerprint: [u8; 32],
    },
    /// A message to a client was accepted and waits for the client to come: into the outbox, and
    /// into the history as `sent`.
    ForClient(ForClient),
    /// The mark of a sender's stream moves; nothing else came of the message.
    Mark {
        /// The sender.
        sender: PeerId,
        /// Place in its numbering, and that numbering.
        mark: (u64, u64),
    },
    /// A user is known; replaces what was known of him.
    User(Box<UserRecord>),
    /// A user of this door is gone, with his letters.
    ForgetUser {
        /// His id.
        id: UserId,
        /// His door, which is this one.
        door: PeerId,
    },
    /// A letter is for a user of this door, or for all; a repetition of it is known from here on.
    Letter(Box<LetterRecord>),
    /// A letter was carried on; a repetition of it is known.
    Seen(Fingerprint),
    /// A user has his letters up to this row.
    LettersTaken {
        /// The user of this door.
        user: UserId,
        /// The row.
        row: u64,
    },
    /// These letters are gone.
    LettersGone {
        /// Their rows.
        rows: Vec<u64>,
    },
    /// The recipient has read a message that was delivered.
    Read {
        /// The message.
        id: MessageId,
    },
    /// A token of a door is good no more.
    Revoked {
        /// The token.
        token: TokenId,
        /// When it would have ended in any case, Unix ms.
        until_ms: u64,
    },
    /// Keep no more history than this; outbox rows are never pruned.
    Prune {
        /// Rows older than this Unix millisecond go.
        before_ms: u64,
        /// The oldest rows go until the bodies have at most this many bytes.
        bytes_max: u64,
    },
}

/// A ticket that was made here and may still be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of the secret in the ticket; the secret itself is not kept.
    pub secret_hash: [u8; 32],
    /// When it ends, Unix ms.
    pub expires_ms: u64,
    /// The name it gives, if it gives one.
    pub name: Option<String>,
    /// The index it gives.
    pub index: Index,
    /// What the new member may speak for as a gateway.
    pub vouched: Vouched,
    /// The peer that used it. The same peer may use it again, for it may have missed the answer.
    pub used_by: Option<PeerId>,
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name in the whole mesh.
    pub id: MessageId,
    /// To whom.
    pub recipient: PeerId,
    /// The numbering that `sequence` belongs to: one for each start of this node.
    pub epoch: u64,
    /// Its place in that numbering; grows.
    pub sequence: u64,
    /// When it was accepted, Unix ms.
    pub created_ms: u64,
    /// When to give up, Unix ms.
    pub expires_ms: u64,
    /// What it is.
    pub kind: OutgoingKind,
    /// The plaintext; of a letter the frame as its client wrote it.
    pub text: String,
}

/// A message that waits for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForClient {
    /// Its id.
    pub id: MessageId,
    /// For whom.
    pub client: ClientName,
    /// When it was accepted, Unix ms.
    pub created_ms: u64,
    /// When to give up, Unix ms.
    pub expires_ms: u64,
    /// The plaintext.
    pub text: String,
}

/// What is on its way out, and to whom it will be handed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// A text for the member itself.
    Member,
    /// A text for a user of the member's door.
    User {
        /// His id there.
        user: UserId,
        /// The name under which the mesh knew him when it was accepted.
        name: String,
    },
    /// A letter of a user of this door, unopened.
    Letter,
}

/// How a sent message ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// The recipient has it on disk.
    Delivered,
    /// Its time ran out. If it had been sent at least once, the recipient may have it all the same.
    Expired,
    /// The recipient will not take it.
    Refused(String),
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its name in the whole mesh; made up by us for P2SN messages.
    pub id: MessageId,
    /// From whom; of a user's message the member that brought it.
    pub sender: Party,
    /// The user who sent it, as `user@node` or `user@server`.
    pub user: Option<String>,
    /// Place in the sender's numbering, and that numbering; `None` for P2SN messages.
    pub mark: Option<(u64, u64)>,
    /// When the sender accepted it, by the sender's clock, Unix ms.
    pub created_ms: u64,
    /// When it came, Unix ms.
    pub received_ms: u64,
    /// The protocol it came through.
    pub via: Via,
    /// The plaintext.
    pub text: String,
}

/// What was on disk when the node started.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The node's own certificate, if it is in a mesh.
    pub certificate: Option<Vec<u8>>,
    /// All known certificates but the own one.
    pub members: Vec<Vec<u8>>,
    /// All known revocations.
    pub revocations: Vec<Vec<u8>>,
    /// Invites that were made here.
    pub invites: Vec<Invite>,
    /// Addresses of peers, best first.
    pub addresses: Vec<(PeerId, Vec<Address>)>,
    /// The outbox, in the order of acceptance.
    pub outbox: Vec<Outgoing>,
    /// For each sender and epoch, the last sequence number received.
    pub marks: Vec<(PeerId, u64, u64)>,
    /// RSA keys of peers: fingerprint and size.
    pub pins: Vec<(PeerId, [u8; 32], u32)>,
    /// RSA keys of old clients and servers: address, fingerprint and size, in the order of pinning.
    pub client_pins: Vec<(String, [u8; 32], u32)>,
    /// What waits for clients, in the order of acceptance.
    pub for_clients: Vec<ForClient>,
    /// Users of this door and of others.
    pub users: Vec<UserRecord>,
    /// Letters for users of this door, without their frames, in the order of their rows.
    pub letters: Vec<LetterRecord>,
    /// Letters that were carried, the oldest first.
    pub seen: Vec<Fingerprint>,
    /// Tokens that are good no more, and when each would have ended.
    pub revoked_tokens: Vec<(TokenId, u64)>,
}

/// Something that happened, for people, logs, counters and programs that follow the node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A member is connected and verified.
    PeerUp {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Where it is.
        address: Address,
        /// What the connection runs over.
        transport: Transport,
        /// Who dialled.
        direction: Direction,
        /// How long it had been away, if it was here before in this run.
        away: Option<Duration>,
    },
    /// The last connection to a member is gone.
    PeerDown {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A member is known that was not before.
    MemberAdded {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Its index.
        index: Index,
    },
    /// A member was taken out of the mesh.
    MemberRemoved {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// This node has entered a mesh.
    Joined {
        /// The mesh.
        mesh: String,
        /// The name it goes by there.
        name: String,
    },
    /// This node was taken out of its mesh.
    Revoked,
    /// A message came and is on disk.
    Received(report::Received),
    /// A message left the outbox.
    Sent(report::Sent),
    /// Integers came, or were sent from here.
    Integers(report::Integers),
    /// A member showed another RSA key than the pinned one.
    KeyChanged {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Fingerprint of the pinned key.
        pinned: p2sn::Fingerprint,
        /// Fingerprint of the key it showed.
        shown: p2sn::Fingerprint,
    },
    /// An old P2SN client or server showed another RSA key than the one pinned to its address.
    ClientKeyChanged {
        /// The address: of a client its IP address, of a server host and port.
        address: String,
        /// Fingerprint of the key that was pinned last.
        pinned: p2sn::Fingerprint,
        /// Fingerprint of the key it showed.
        shown: p2sn::Fingerprint,
    },
    /// A P2SN key exchange with a member is complete.
    KeyExchanged {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
        /// Fingerprint of its key.
        fingerprint: p2sn::Fingerprint,
        /// Size of its key.
        bits: usize,
    },
    /// A user of a door came or went.
    Presence {
        /// The name under which the mesh knows him.
        name: String,
        /// Whether a client of his is connected.
        online: bool,
    },
    /// A letter waits for the clients of a user of this door, or of all of them; or a message for
    /// the foreign server of this name.
    LetterWaits {
        /// The user; a server by its name.
        user: Option<UserId>,
    },
    /// A letter came further.
    Letter(LetterNews),
    /// A user of this door is to be told something.
    TellUser {
        /// The user.
        user: UserId,
        /// What.
        text: String,
    },
    /// A user of this door was taken out.
    UserGone {
        /// The user.
        user: UserId,
    },
    /// The name of a user of this door turned out to belong to another one.
    NameTaken {
        /// The user of this door.
        user: UserId,
        /// The name of the node to which it belongs.
        door: String,
        /// What he is told.
        text: String,
    },
    /// A door showed another key for a user than the pinned one.
    UserKeyChanged {
        /// The name under which the mesh knows him.
        name: String,
        /// The pinned key.
        pinned: Box<PublicKey>,
        /// The key that was shown.
        shown: Box<PublicKey>,
    },
    /// Something from outside was refused.
    Refused {
        /// Who sent it, if that is known.
        peer: Option<PeerId>,
        /// What it was; a short constant for the counter, for example `certificate`.
        what: &'static str,
        /// Why; a short constant for the counter, for example `expired`.
        why: &'static str,
    },
    /// Something was dropped or repeated at a limit or for lack of a peer.
    Counted {
        /// What happened; a short constant for the counter, for example `message_resent`.
        what: &'static str,
        /// How often.
        times: u64,
    },
    /// The store could not write.
    StoreFailed {
        /// Why.
        reason: String,
    },
    /// A client of a gateway has signed in.
    ClientSignedIn {
        /// Which door.
        gateway: Gateway,
        /// Its connection.
        client: ClientId,
        /// Who it is.
        name: String,
        /// From where.
        address: SocketAddr,
    },
    /// A client that had signed in is gone.
    ClientLeft {
        /// Which door.
        gateway: Gateway,
        /// Its connection.
        client: ClientId,
        /// Who it was.
        name: String,
        /// Why; a short constant.
        reason: &'static str,
    },
    /// A client was sent away: before it signed in, or for what it did.
    ClientKicked {
        /// Which door.
        gateway: Gateway,
        /// Its connection.
        client: ClientId,
        /// Who it was, if it had signed in.
        name: Option<String>,
        /// From where.
        address: SocketAddr,
        /// Why; a short constant for the counter.
        why: &'static str,
    },
}
