//! What the state has on disk: one change of it, and all of it when the node starts.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{
    ClientName, Encoding, Gateway, GatewayRecord, Party, Place, RecordChange, ServerId, Via,
};
use crate::{
    proto::{
        iid::Index,
        mesh::{Address, MessageId, ranges::Ranges, vouched::Vouched},
        syft::{UserId, letter::Fingerprint},
    },
    state::post::{LetterRecord, UserRecord},
};

/// One change on disk. A group of them is written all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This node is a member of this mesh with this certificate; what is known of another mesh
    /// (members, their addresses, revocations, statements, invites) is forgotten first. Names and
    /// pinned keys of former members stay: a peer is the same in any mesh.
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
    /// A statement about a member is known; replaces an earlier one of the same kind.
    Statement {
        /// Its kind, as [`Kind::number`](crate::proto::mesh::statement::Kind::number) says it.
        kind: u8,
        /// The member.
        peer: PeerId,
        /// The encoded statement.
        statement: Vec<u8>,
    },
    /// An invite exists, or was changed.
    Invite(Invite),
    /// An invite is gone.
    ForgetInvite {
        /// SHA-256 of its secret.
        secret_hash: [u8; 32],
    },
    /// A member is called this from here on; what it was called before is kept, too.
    Name {
        /// The member.
        peer: PeerId,
        /// Its name.
        name: String,
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
        /// The address, as [`PinAddress`](crate::proto::p2sn::PinAddress) writes it.
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
    /// A user of this gateway is gone, and the messages that waited for that user.
    ForgetUser {
        /// His id.
        id: UserId,
        /// His gateway, which is this one.
        node: PeerId,
    },
    /// The key of a foreign server's user is pinned no more.
    ForgetPin {
        /// The user there.
        user: UserId,
        /// The server.
        server: ServerId,
    },
    /// The users of another gateway are gone, for this node is in another mesh.
    ForgetUsersOf {
        /// The gateway, which is not this one.
        node: PeerId,
    },
    /// A letter is for a user of this gateway, or for all; a repetition of it is known from here on.
    Letter(Box<LetterRecord>),
    /// A letter was carried on; a repetition of it is known.
    Seen(Fingerprint),
    /// A user has his letters up to this row.
    LettersTaken {
        /// The user of this gateway.
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
        /// The member to which it was sent: only that one can say so.
        recipient: PeerId,
    },
    /// What a gateway keeps for itself has changed.
    OfGateway(Gateway, RecordChange),
    /// This date is known to have come.
    Date {
        /// Unix ms.
        unix_ms: u64,
    },
    /// What came while the clock was not set, came now, as far as its age counts.
    Restamp {
        /// Unix ms.
        unix_ms: u64,
    },
    /// Keep no more history than this; outbox rows are never pruned.
    Prune {
        /// Rows older than this Unix millisecond go, but not those from before
        /// [`CLOCK_SET_MS`](crate::state::CLOCK_SET_MS): the age of those is not known. 0 if no row
        /// goes for its age.
        before_ms: u64,
        /// The oldest rows of those who have most go until all weigh at most this many bytes.
        bytes_max: u64,
    },
    /// A person deletes these messages from the history; those in the outbox stay.
    DeleteHistory(Selection),
}

/// Which way messages went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To this node.
    #[default]
    Received,
    /// From this node.
    Sent,
}

/// Messages of the history: those that fit everything that is given here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Which way they went.
    pub way: Way,
    /// The message with this id.
    pub id: Option<MessageId>,
    /// From or to this member or client.
    pub peer: Option<Party>,
    /// From or to this user, as `user@node`.
    pub user: Option<String>,
    /// At this Unix millisecond or later.
    pub since_ms: Option<u64>,
    /// Before this Unix millisecond.
    pub before_ms: Option<u64>,
    /// With this text in them, without regard to the case of ASCII letters.
    pub search: Option<String>,
    /// Up to this row of the history; rows grow in the order in which messages came.
    pub up_to: Option<i64>,
}

/// The room on the disk, and what the history takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What can still be written, in bytes.
    pub free_bytes: u64,
    /// The size of the file system, in bytes; 0 if it does not say, and then nothing is known of the
    /// free space, either.
    pub size_bytes: u64,
    /// What the history weighs: texts, and a constant for each message.
    pub history_bytes: u64,
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
    /// Further indices that it gives.
    pub further: Ranges,
    /// What the new member may speak for as a gateway.
    pub vouched: Vouched,
    /// The peer that used it. The same peer may use it again, for it may have missed the answer.
    pub used_by: Option<PeerId>,
    /// Whether it was cancelled. It is kept until it ends all the same, so that a node that joins with
    /// it is told.
    pub cancelled: bool,
}

impl Invite {
    /// Says whether it may still be used by anybody.
    #[must_use]
    pub const fn is_open(&self, unix_ms: u64) -> bool {
        self.used_by.is_none() && !self.cancelled && self.expires_ms > unix_ms
    }

    /// Returns what people call it: the first bytes of the hash, in hexadecimal.
    #[must_use]
    pub fn short_id(&self) -> String {
        hex::encode(&self.secret_hash[..4])
    }
}

/// A message on its way out.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name in the whole mesh.
    pub id: MessageId,
    /// Where it goes.
    pub recipient: Place,
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
    #[debug("{} bytes", text.len())]
    pub text: String,
}

/// What is on its way out, and to whom it will be handed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// A text for the member itself.
    Member,
    /// A text for a user of the member's gateway.
    User {
        /// His id there.
        user: UserId,
        /// The name under which the mesh knew him when it was accepted.
        name: String,
    },
    /// A text for a client of the member that has no key.
    Client {
        /// Its name there.
        client: ClientName,
        /// Its name in the mesh when it was accepted.
        name: String,
    },
    /// A letter of a user of this gateway, unopened.
    Letter,
}

/// A message that waits for a client.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
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
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How it stands for bytes.
    pub encoding: Encoding,
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

/// What stands in front of the reason of a refusal.
const REFUSED: &str = "refused: ";

impl Outcome {
    /// Returns how it is written in the history.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Delivered => "delivered".to_owned(),
            Self::Expired => "expired".to_owned(),
            Self::Refused(why) => format!("{REFUSED}{why}"),
        }
    }

    /// Reads what is written in the history; `None` for a message that waits. What a user has read
    /// (`read`) was delivered before.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "delivered" | "read" => Some(Self::Delivered),
            "expired" => Some(Self::Expired),
            why => Some(Self::Refused(
                why.strip_prefix(REFUSED).unwrap_or(why).to_owned(),
            )),
        }
    }
}

/// A message that came in.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
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
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How it stands for bytes.
    pub encoding: Encoding,
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
    /// All known statements about members.
    pub statements: Vec<Vec<u8>>,
    /// Invites that were made here.
    pub invites: Vec<Invite>,
    /// Names of members, former ones too, in the order in which they were given.
    pub names: Vec<(PeerId, String)>,
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
    /// Users of this gateway and of others.
    pub users: Vec<UserRecord>,
    /// Letters for users of this gateway, without their frames, in the order of their rows.
    pub letters: Vec<LetterRecord>,
    /// Letters that were carried, the oldest first.
    pub seen: Vec<Fingerprint>,
    /// The date that was known to have come when the node last ran, Unix ms.
    pub date_ms: Option<u64>,
    /// What gateways keep for themselves.
    pub records: Vec<(Gateway, GatewayRecord)>,
}
