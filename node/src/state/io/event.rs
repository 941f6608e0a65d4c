//! What happened, for people, logs, counters and programs that follow the node.

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use super::{ClientId, Direction, Gateway, Transport};
use crate::{
    proto::{
        iid::Index,
        mesh::Address,
        p2sn,
        syft::{PublicKey, UserId},
    },
    state::{post::LetterNews, report},
};

/// Something that happened, for people, logs, counters and programs that follow the node.
///
/// Its JSON is what `GET /v1/events` tells: the names of variants and fields are part of the
/// interface. `W` is a short constant, which goes into a counter; who reads the JSON has a `String`.
#[derive(Clone, Debug, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(tag = "event", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Event<W = &'static str> {
    /// A member is connected and verified.
    PeerUp {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
        /// Where it is.
        address: Address,
        /// What the connection runs over.
        transport: Transport,
        /// Who dialled.
        direction: Direction,
        /// How long it had been away, in milliseconds, if it was here before in this run.
        away_ms: Option<u64>,
    },
    /// The last connection to a member is gone.
    PeerDown {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A member is known that was not before.
    MemberAdded {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
        /// Its index.
        index: Index,
    },
    /// A member, or this node itself, has another name from here on.
    MemberRenamed {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// What it was called.
        was: String,
        /// Its name.
        name: String,
    },
    /// A member was taken out of the mesh.
    MemberRemoved {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// This node begins to enter a mesh, and tries the inviter's addresses.
    JoinTries {
        /// The addresses.
        addresses: Vec<Address>,
        /// How long it tries, in milliseconds.
        for_ms: u64,
    },
    /// An address of the inviter led nowhere.
    JoinTried {
        /// The address.
        address: Address,
        /// Why.
        reason: String,
    },
    /// A member has left the mesh.
    MemberLeft {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// This node has left its mesh, and is in one of its own.
    Left {
        /// The mesh that it left.
        mesh: String,
    },
    /// A member gave this node the mesh key, and it is on disk.
    MeshKeyReceived {
        /// The member.
        #[serde(rename = "peer_id")]
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
    /// Two machines have the identity of one member at the same time.
    Copied {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
        /// Whether it is this node.
        own: bool,
        /// The member that told so, if this node did not find out by itself.
        told_by: Option<String>,
    },
    /// Two machines with the identity of one member were not seen for a while.
    CopyGone {
        /// The member.
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// A message came and is on disk.
    Received(report::Received),
    /// A message left the outbox.
    Sent(report::Sent),
    /// Integers came, or were sent from here.
    Integers(report::Integers),
    /// A member showed another RSA key than the pinned one.
    KeyChanged {
        /// The member.
        #[serde(rename = "peer_id")]
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
        #[serde(rename = "peer_id")]
        peer: PeerId,
        /// Its name.
        name: String,
        /// Fingerprint of its key.
        fingerprint: p2sn::Fingerprint,
        /// Size of its key.
        bits: usize,
    },
    /// A user of a gateway came or went.
    Presence {
        /// The name under which the mesh knows him.
        name: String,
        /// Whether a client of his is connected.
        online: bool,
    },
    /// A letter waits for the clients of a user of this gateway, or of all of them; or a message for
    /// the foreign server of this name.
    LetterWaits {
        /// The user; a server by its name.
        user: Option<UserId>,
    },
    /// A letter came further.
    Letter(LetterNews),
    /// A user of this gateway is to be told something.
    TellUser {
        /// The user.
        user: UserId,
        /// What.
        text: String,
    },
    /// A user of this gateway was taken out.
    UserGone {
        /// The user.
        user: UserId,
    },
    /// A node has a user of a name that means somebody else here. The name goes on meaning that one.
    NameConflict {
        /// The name.
        name: UserId,
        /// The node that uses it, too.
        node: String,
        /// Whom it means: a node, or `user@node`.
        means: String,
    },
    /// A gateway showed another key for a user than the pinned one.
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
        #[serde(rename = "peer_id")]
        peer: Option<PeerId>,
        /// What it was; a short constant for the counter, for example `certificate`.
        what: W,
        /// Why; a short constant for the counter, for example `expired`.
        why: W,
    },
    /// Something was dropped or repeated at a limit or for lack of a peer.
    Counted {
        /// What happened; a short constant for the counter, for example `message_resent`.
        what: W,
        /// How often.
        times: u64,
    },
    /// The calendar clock is ahead of what can be: nothing is deleted or given up by its date.
    ClockDoubted {
        /// How far ahead of the date that is known to have come.
        ahead_ms: u64,
    },
    /// The calendar clock is believed again.
    ClockBelieved,
    /// The store could not write.
    StoreFailed {
        /// Why.
        reason: String,
    },
    /// The room on the disk went below the reserve, or is there again. Below it nothing is taken from
    /// outside.
    DiskSpace {
        /// Whether there is too little.
        is_low: bool,
        /// What is left, in bytes.
        free_bytes: u64,
        /// What there should be, in bytes.
        reserve_bytes: u64,
    },
    /// A client of a gateway has signed in.
    ClientSignedIn {
        /// Which gateway.
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
        /// Which gateway.
        gateway: Gateway,
        /// Its connection.
        client: ClientId,
        /// Who it was.
        name: String,
        /// Why; a short constant.
        reason: W,
    },
    /// A client was sent away: before it signed in, or for what it did.
    ClientKicked {
        /// Which gateway.
        gateway: Gateway,
        /// Its connection.
        client: ClientId,
        /// Who it was, if it had signed in.
        name: Option<String>,
        /// From where.
        address: SocketAddr,
        /// Why; a short constant for the counter.
        why: W,
    },
    /// The follower was too slow, and events were lost.
    Lagged {
        /// How many.
        lost: u64,
    },
}

impl<W> Event<W> {
    /// What the field `event` of the JSON says, for each kind of event.
    pub const KINDS: &'static [&'static str] = <Self as VariantNames>::VARIANTS;

    /// Returns which of the [`KINDS`](Self::KINDS) this is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}
