//! What the node tells about itself: the bodies of replies and events.
//!
//! The field names are part of the interface: the control API and `--json` print them as they
//! stand here. Times are Unix milliseconds; durations name their unit.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::io::{ClientId, Direction, Encoding, Outcome, Party, Transport, Via};
use crate::proto::{
    iid::{Date, Index, Value},
    mesh::{self, Address, MessageId},
};

/// What to do about two machines with one identity.
pub const COPIED_HINT: &str = "stop one of them; if both are needed, delete the home folder of the \
                               copy (`pimesh status` on it names the folder) and let it join again \
                               with a new ticket. The warning goes away 5 minutes after one \
                               of them has stopped";

/// The node, as `pimesh status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The node's name in the mesh.
    pub name: String,
    /// Its libp2p peer id.
    pub peer_id: PeerId,
    /// The mesh: the hexadecimal public half of the mesh key.
    pub mesh: String,
    /// The index it owns.
    pub index: Index,
    /// Further indices that it owns.
    #[serde(default)]
    pub further: mesh::ranges::Ranges,
    /// Whether it holds the mesh key and may invite.
    pub may_invite: bool,
    /// Names of the members that are known to hold the mesh key, this node included.
    #[serde(default)]
    pub mesh_key_holders: Vec<String>,
    /// Whether one of them is known to have exported it to a file.
    #[serde(default)]
    pub mesh_key_exported: bool,
    /// What a person should do about the mesh key, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_key_warning: Option<MeshKeyWarning>,
    /// Whether it was taken out of the mesh.
    pub revoked: bool,
    /// Base64 of the messaging key.
    pub messaging_key: String,
    /// Fingerprint of the RSA key, once there is one.
    pub rsa_fingerprint: Option<String>,
    /// When its certificate ends.
    pub certificate_expires_ms: u64,
    /// Addresses under which others may reach it.
    pub addresses: Vec<Address>,
    /// Members of the mesh, this node included.
    pub members: usize,
    /// Members that are connected.
    pub connected: usize,
    /// Invites that may still be used.
    pub invites: usize,
    /// Messages in the outbox.
    pub outbox_count: usize,
    /// Their bytes.
    pub outbox_bytes: usize,
    /// Messages received since start.
    pub received: u64,
    /// Integers received since start.
    pub integers_received: u64,
    /// Integers sent since start.
    pub integers_sent: u64,
    /// Time since start.
    pub uptime_ms: u64,
    /// Whether the calendar clock looks set.
    pub clock_set: bool,
    /// Whether the calendar clock is ahead of what can be, so that nothing is deleted by its date.
    #[serde(default)]
    pub clock_doubted: bool,
    /// How far the clocks of this node and of the connected members are apart, in microseconds, as
    /// far as they were compared.
    pub clock_spread_us: u64,
    /// Members whose identity two machines have at the same time, this node included.
    #[serde(default)]
    pub copied: Vec<String>,
    /// Whether this node is one of two machines with one identity.
    #[serde(default)]
    pub own_copied: bool,
}

/// What is wrong with where the mesh key is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshKeyWarning {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub todo: String,
}

/// How it stands with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// This node itself.
    Own,
    /// Connected and verified.
    Up,
    /// A connection is being made or verified.
    Connecting,
    /// Not connected; the next dial is due.
    Down,
}

/// One member, as `pimesh peers` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peer {
    /// The name in its certificate.
    pub name: String,
    /// Its libp2p peer id.
    pub peer_id: PeerId,
    /// The index it owns.
    pub index: Index,
    /// Further indices that it owns.
    #[serde(default)]
    pub further: mesh::ranges::Ranges,
    /// What it may speak for as a gateway.
    pub vouched: mesh::vouched::Vouched,
    /// Whether it is known to hold the mesh key.
    #[serde(default)]
    pub holds_mesh_key: bool,
    /// How it stands.
    pub state: PeerState,
    /// Where it is connected.
    pub address: Option<Address>,
    /// What that connection runs over.
    pub transport: Option<Transport>,
    /// Who dialled it.
    pub direction: Option<Direction>,
    /// Last round trip, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Its clock minus ours, in microseconds.
    pub clock_offset_us: Option<i64>,
    /// When the state last changed.
    pub since_ms: Option<u64>,
    /// Time until the next dial, if it is down.
    pub next_dial_ms: Option<u64>,
    /// Dials in a row that failed.
    pub attempts: u32,
    /// Why the last dial or connection failed.
    pub last_error: Option<String>,
    /// Every address known for it, best first.
    pub addresses: Vec<Address>,
    /// Messages waiting for it.
    pub outbox_count: usize,
    /// Fingerprint of its pinned RSA key.
    pub rsa_fingerprint: Option<String>,
    /// Fingerprint of another RSA key that it showed and that was refused.
    pub rsa_changed: Option<String>,
    /// When its certificate ends.
    pub certificate_expires_ms: u64,
    /// Whether two machines have its identity at the same time.
    #[serde(default)]
    pub copied: bool,
}

/// A ticket, as `pimesh invite` prints it. Whoever has it can enter the mesh once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invite {
    /// The ticket's text.
    pub ticket: String,
    /// What it is called in the list of tickets; no secret.
    pub id: String,
    /// The name it gives, if it gives one.
    pub name: Option<String>,
    /// The index it gives.
    pub index: Index,
    /// Further indices that it gives.
    #[serde(default)]
    pub further: mesh::ranges::Ranges,
    /// What the new member may speak for as a gateway.
    pub vouched: mesh::vouched::Vouched,
    /// When it ends.
    pub expires_ms: u64,
    /// What is wrong with the ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("index", &self.index)
            .field("vouched", &self.vouched)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// A ticket that may still be used, as `pimesh invite --list` shows it. Its text is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvite {
    /// What `pimesh invite --cancel` takes.
    pub id: String,
    /// The name it gives, if it gives one.
    pub name: Option<String>,
    /// The index it gives.
    pub index: Index,
    /// Further indices that it gives.
    #[serde(default)]
    pub further: mesh::ranges::Ranges,
    /// What the new member may speak for as a gateway.
    pub vouched: mesh::vouched::Vouched,
    /// When it ends.
    pub expires_ms: u64,
}

/// What `pimesh mesh-key share` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShared {
    /// The member that has the key on disk from here on.
    pub name: String,
    /// Its peer id.
    pub peer_id: PeerId,
}

/// What `pimesh leave` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The mesh that this node left.
    pub mesh: String,
    /// The mesh of its own that it is in from here on.
    pub own_mesh: String,
    /// Names of the members that heard it.
    pub told: Vec<String>,
    /// Names of the members that did not: they hear it from others, or never.
    pub not_told: Vec<String>,
    /// Messages to them that were given up.
    pub dropped_messages: usize,
}

/// What `pimesh rename` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The member.
    pub peer_id: PeerId,
    /// What it was called.
    pub was: String,
    /// What it is called from here on.
    pub name: String,
    /// Who could be taken for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What a member is called, and what it was called before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The member, or former member.
    pub peer_id: PeerId,
    /// Its latest name.
    pub name: String,
    /// Those before it, the oldest first.
    pub earlier: Vec<String>,
    /// Whether it is a member here and now; this node itself is one.
    pub member: bool,
}

/// What `pimesh join` brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Joined {
    /// The mesh.
    pub mesh: String,
    /// This node's name in it.
    pub name: String,
    /// This node's index in it.
    pub index: Index,
    /// Names of the other members.
    pub members: Vec<String>,
}

/// What `pimesh peers remove` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The name it had.
    pub name: String,
    /// Its peer id.
    pub peer_id: PeerId,
    /// Messages to it that were given up.
    pub dropped_messages: usize,
    /// Whether it was known to hold the mesh key. A removal does not take the key from it, so it can
    /// still let others in and remove members. Only a new mesh has another key.
    #[serde(default)]
    pub held_mesh_key: bool,
}

/// Somebody who can be written to, as `pimesh who` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// What `pimesh send` calls it: the shortest name that means it.
    pub name: String,
    /// The node: itself, the one with the gateway, or this one, as a client of a server.
    pub node: String,
    /// The gateway; `None` for a node's owner.
    pub gateway: Option<String>,
    /// The foreign server, if it is a user of one.
    pub server: Option<String>,
    /// Whether it is connected; `None` if that cannot be known.
    pub present: Option<bool>,
    /// When that last changed, Unix ms, if this node saw it.
    pub since_ms: Option<u64>,
    /// Whether what is written to it is encrypted up to its own program.
    pub sealed: bool,
    /// Its pinned key: base64, of P2SN clients the fingerprint.
    pub key: Option<String>,
    /// Another key that was offered and refused; `pimesh trust` accepts it.
    pub offered_key: Option<String>,
    /// Whether its name without `@NODE` means it at this node.
    pub has_short_name: bool,
    /// Whom that name means as well, or instead.
    pub short_name_means: Option<String>,
    /// Messages that wait here for it.
    pub waiting: usize,
}

/// What `pimesh trust` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The name of the member or the user.
    pub name: String,
    /// The peer id of the member, or of the user's node; of a user of a foreign server the server.
    pub peer_id: Party,
    /// Fingerprint of the key that is pinned from here on; `None` if the next one shown is.
    pub fingerprint: Option<String>,
}

/// What `pimesh peers indices` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenIndices {
    /// The member's name.
    pub name: String,
    /// Its peer id.
    pub peer_id: PeerId,
    /// The index in its certificate.
    pub index: Index,
    /// The further ones that it owns from here on.
    pub further: mesh::ranges::Ranges,
}

/// What `pimesh peers vouch` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// The member's name.
    pub name: String,
    /// Its peer id.
    pub peer_id: PeerId,
    /// What it may speak for as a gateway from here on.
    pub vouched: mesh::vouched::Vouched,
    /// When its new certificate ends.
    pub certificate_expires_ms: u64,
}

/// A message that is on disk and will be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// Name of the recipient.
    pub to: String,
    /// Peer id of the recipient, or a client's name.
    pub peer_id: Party,
    /// When sending is given up.
    pub expires_ms: u64,
    /// Through which protocol.
    pub via: Via,
    /// What the sender has to know about the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A message in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its id.
    pub id: MessageId,
    /// Name of the recipient.
    pub to: String,
    /// Peer id of the recipient, or a client's name.
    pub peer_id: Party,
    /// Its bytes of text.
    pub bytes: usize,
    /// When it was accepted.
    pub created_ms: u64,
    /// When sending is given up.
    pub expires_ms: u64,
    /// How often it was sent without an answer.
    pub attempts: u32,
}

/// A message that came in.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Received {
    /// Its id.
    pub id: MessageId,
    /// Name of the sender.
    pub from: String,
    /// Peer id of the sender, or a client's name.
    pub peer_id: Party,
    /// When the sender accepted it, by the sender's clock.
    pub created_ms: u64,
    /// When it came.
    pub received_ms: u64,
    /// Through which protocol.
    pub via: Via,
    /// The text.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How it stands for bytes.
    #[serde(default, skip_serializing_if = "Encoding::is_utf8")]
    pub encoding: Encoding,
}

/// A message that left the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// Name of the recipient.
    pub to: String,
    /// Peer id of the recipient, or a client's name.
    pub peer_id: Party,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When.
    pub at_ms: u64,
    /// Whether it had been sent at least once before it ended.
    pub attempted: bool,
    /// What the sender has to know about the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Integers of one node that arrived together. As JSON each has all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Singles", try_from = "Singles")]
#[non_exhaustive]
pub struct Integers {
    /// The node that speaks.
    pub source: PeerId,
    /// Its name.
    pub name: String,
    /// When it sent them, by its clock.
    pub sent_ms: u64,
    /// When they came, in microseconds since 1970.
    pub received_us: u64,
    /// Its clock minus ours in microseconds, if measured.
    pub clock_offset_us: Option<i64>,
    /// Whether the dates are times at which to carry the integers out.
    pub held: bool,
    /// Whether they entered the mesh through a gateway.
    pub bridged: bool,
    /// The client they came from, if they entered through a gateway of this very node.
    pub client: Option<ClientId>,
    /// Whether these are last known values handed over, not live ones.
    pub last_known: bool,
    /// The integers, in the sender's order.
    pub iids: Vec<crate::proto::iid::Iid>,
}

impl Integers {
    /// Takes them apart.
    #[must_use]
    pub fn singles(&self) -> Vec<Integer> {
        let one = |iid: &crate::proto::iid::Iid| Integer {
            index: iid.index,
            value: iid.value,
            date: iid.date,
            from: self.name.clone(),
            peer_id: self.source,
            sent_ms: self.sent_ms,
            received_us: self.received_us,
            clock_offset_us: self.clock_offset_us,
            held: self.held,
            bridged: self.bridged,
            last_known: self.last_known,
        };
        self.iids.iter().map(one).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Singles {
    integers: Vec<Integer>,
}

impl From<Integers> for Singles {
    fn from(integers: Integers) -> Self {
        Self {
            integers: integers.singles(),
        }
    }
}

impl TryFrom<Singles> for Integers {
    type Error = &'static str;

    fn try_from(Singles { integers }: Singles) -> Result<Self, Self::Error> {
        let iid = |one: &Integer| crate::proto::iid::Iid {
            index: one.index,
            value: one.value,
            date: one.date,
        };
        let iids = integers.iter().map(iid).collect();
        let first = integers.into_iter().next().ok_or("there is no integer")?;
        Ok(Self {
            source: first.peer_id,
            name: first.from,
            sent_ms: first.sent_ms,
            received_us: first.received_us,
            clock_offset_us: first.clock_offset_us,
            held: first.held,
            bridged: first.bridged,
            client: None,
            last_known: first.last_known,
            iids,
        })
    }
}

/// One integer, as `pimesh int --listen --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integer {
    /// Whom it speaks for.
    pub index: Index,
    /// The value.
    pub value: Value,
    /// The date it carries.
    pub date: Date,
    /// Name of the node it came from.
    pub from: String,
    /// Peer id of that node.
    pub peer_id: PeerId,
    /// When that node sent it, by its clock.
    pub sent_ms: u64,
    /// When it came, in microseconds since 1970.
    pub received_us: u64,
    /// That node's clock minus ours in microseconds, if measured.
    pub clock_offset_us: Option<i64>,
    /// Whether the date is a time at which to carry it out.
    pub held: bool,
    /// Whether it entered the mesh through a gateway.
    pub bridged: bool,
    /// Whether it is a last known value handed over, not a live one.
    pub last_known: bool,
}

/// What `pimesh int` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The index spoken for.
    pub index: Index,
    /// How many integers went out.
    pub count: usize,
    /// Members that are connected and so may hear them.
    pub connected: usize,
    /// The date they carry.
    pub date: Date,
}

/// A pinned RSA key of an old P2SN client or server, as `pimesh p2sn keys` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct P2snKey {
    /// Where: of a client its IP address, of a server host and port.
    pub address: String,
    /// What a client is called in the inbox and in `pimesh send`.
    pub name: Option<String>,
    /// Fingerprint of the key.
    pub fingerprint: String,
    /// Its size.
    pub bits: usize,
    /// Whether it was refused because another is pinned; `pimesh p2sn trust` accepts it.
    pub refused: bool,
    /// Messages that wait for this client.
    pub waiting: usize,
}
