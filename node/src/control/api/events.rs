//! Events, as `GET /v1/events` tells them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    proto::iid::{Iid, Index},
    state::{
        io::{ClientId, Direction, Event, Failure, Gateway, Transport},
        post::LetterNews,
        report,
    },
};

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only events of these [`KINDS`], with commas between them; all if absent. That events were
    /// lost is told in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<String>,
}

impl EventQuery {
    /// Returns which kinds are wanted, or `None` for all.
    ///
    /// # Errors
    /// Fails at a kind that does not exist.
    pub fn wanted(&self) -> Result<Option<Vec<&'static str>>, Failure> {
        let known = |kind: &str| {
            KINDS.into_iter().find(|k| *k == kind).ok_or_else(|| {
                Failure::bad_request(format!("there are no events of the kind `{kind}`"))
                    .with_hint(format!("the kinds are {}", KINDS.join(", ")))
            })
        };
        let kinds = self.kinds.as_ref().map(|k| k.split(',').map(known));
        kinds.map(Iterator::collect).transpose()
    }
}

/// An event, as the stream of events tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// A member is connected and verified.
    PeerUp {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// Where it is.
        address: String,
        /// What the connection runs over.
        transport: Transport,
        /// Who dialled.
        direction: Direction,
        /// How long it had been away, if it was here before.
        away_ms: Option<u64>,
    },
    /// The last connection to a member is gone.
    PeerDown {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// Why.
        reason: String,
    },
    /// A member is known that was not before.
    MemberAdded {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// Its index.
        index: Index,
    },
    /// A member, or this node itself, has another name from here on.
    MemberRenamed {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// What it was called.
        was: String,
    },
    /// A member was taken out of the mesh.
    MemberRemoved {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
    /// This node begins to enter a mesh.
    JoinTries {
        /// The inviter's addresses.
        addresses: Vec<String>,
        /// How long it tries.
        for_ms: u64,
    },
    /// An address of the inviter led nowhere.
    JoinTried {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// A member has left the mesh.
    MemberLeft {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
    /// This node has left its mesh, and is in one of its own.
    Left {
        /// The mesh that it left.
        mesh: String,
    },
    /// A member gave this node the mesh key.
    MeshKeyReceived {
        /// The member's name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
    /// This node has entered a mesh.
    Joined {
        /// The mesh.
        mesh: String,
        /// Its name there.
        name: String,
    },
    /// This node was taken out of its mesh.
    Revoked,
    /// Two machines have the identity of one member at the same time.
    Copied {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// Whether it is this node.
        own: bool,
        /// The member that told so, if this node did not find out by itself.
        told_by: Option<String>,
    },
    /// Two machines with the identity of one member were not seen for a while.
    CopyGone {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
    /// A message came and is on disk.
    Received(report::Received),
    /// A message left the outbox.
    Sent(report::Sent),
    /// Integers came, or were sent from here.
    Integers {
        /// The integers.
        integers: Vec<report::Integer>,
    },
    /// A member showed another RSA key than the pinned one.
    KeyChanged {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// The pinned fingerprint.
        pinned: String,
        /// The fingerprint it showed.
        shown: String,
    },
    /// An old P2SN client or server showed another RSA key than the pinned one.
    ClientKeyChanged {
        /// Its address: of a client the IP address, of a server host and port.
        address: String,
        /// The fingerprint that was pinned last.
        pinned: String,
        /// The fingerprint it showed.
        shown: String,
    },
    /// A P2SN key exchange is complete.
    KeyExchanged {
        /// The member's name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// Fingerprint of its key.
        fingerprint: String,
        /// Size of its key.
        bits: usize,
    },
    /// Something from outside was refused.
    Refused {
        /// Peer id of who sent it, if that is known.
        peer_id: Option<String>,
        /// What it was.
        what: String,
        /// Why.
        why: String,
    },
    /// Something was dropped or repeated.
    Counted {
        /// What happened.
        what: String,
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
    /// The room on the disk went below the reserve, or is there again.
    DiskSpace {
        /// Whether there is too little, so that nothing is taken from outside.
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
        /// Why.
        reason: String,
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
        /// Why.
        why: String,
    },
    /// A user of a gateway came or went.
    Presence {
        /// The name under which the mesh knows him.
        name: String,
        /// Whether a client of his is connected.
        online: bool,
    },
    /// A letter waits for the clients of a user of this gateway.
    LetterWaits {
        /// The user; `None` for all.
        user: Option<String>,
    },
    /// A letter came further.
    Letter(LetterNews),
    /// A user of this gateway is told something.
    TellUser {
        /// The user.
        user: String,
        /// What.
        text: String,
    },
    /// A user of this gateway was taken out.
    UserGone {
        /// The user.
        user: String,
    },
    /// A node has a user of a name that means somebody else here.
    NameConflict {
        /// The name.
        name: String,
        /// The node that uses it, too.
        node: String,
        /// Whom it means: a node, or `user@node`.
        means: String,
    },
    /// A gateway showed another key for a user than the pinned one; it is refused.
    UserKeyChanged {
        /// The user.
        name: String,
        /// Base64 of the pinned key.
        pinned: String,
        /// Base64 of the key that was shown.
        shown: String,
    },
    /// The reader was too slow: this many events were lost.
    Lagged {
        /// How many.
        lost: u64,
    },
}

impl From<&Event> for EventBody {
    fn from(event: &Event) -> Self {
        match event.clone() {
            Event::PeerUp {
                peer,
                name,
                address,
                transport,
                direction,
                away,
            } => Self::PeerUp {
                name,
                peer_id: peer.to_string(),
                address: address.to_string(),
                transport,
                direction,
                away_ms: away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX)),
            },
            Event::PeerDown { peer, name, reason } => Self::PeerDown {
                name,
                peer_id: peer.to_string(),
                reason,
            },
            Event::MemberAdded { peer, name, index } => Self::MemberAdded {
                name,
                peer_id: peer.to_string(),
                index,
            },
            Event::MemberRenamed { peer, was, name } => Self::MemberRenamed {
                name,
                peer_id: peer.to_string(),
                was,
            },
            Event::MemberRemoved { peer, name } => Self::MemberRemoved {
                name,
                peer_id: peer.to_string(),
            },
            Event::JoinTries { addresses, for_ms } => Self::JoinTries {
                addresses: addresses.iter().map(ToString::to_string).collect(),
                for_ms,
            },
            Event::JoinTried { address, reason } => Self::JoinTried {
                address: address.to_string(),
                reason,
            },
            Event::MemberLeft { peer, name } => Self::MemberLeft {
                name,
                peer_id: peer.to_string(),
            },
            Event::Left { mesh } => Self::Left { mesh },
            Event::MeshKeyReceived { peer, name } => Self::MeshKeyReceived {
                name,
                peer_id: peer.to_string(),
            },
            Event::Joined { mesh, name } => Self::Joined { mesh, name },
            Event::Revoked => Self::Revoked,
            Event::Copied {
                peer,
                name,
                own,
                told_by,
            } => Self::Copied {
                name,
                peer_id: peer.to_string(),
                own,
                told_by,
            },
            Event::CopyGone { peer, name } => Self::CopyGone {
                name,
                peer_id: peer.to_string(),
            },
            Event::Received(received) => Self::Received(received),
            Event::Sent(sent) => Self::Sent(sent),
            Event::Integers(integers) => Self::Integers {
                integers: singles(&integers),
            },
            Event::KeyChanged {
                peer,
                name,
                pinned,
                shown,
            } => Self::KeyChanged {
                name,
                peer_id: peer.to_string(),
                pinned: pinned.to_string(),
                shown: shown.to_string(),
            },
            Event::ClientKeyChanged {
                address,
                pinned,
                shown,
            } => Self::ClientKeyChanged {
                address,
                pinned: pinned.to_string(),
                shown: shown.to_string(),
            },
            Event::KeyExchanged {
                peer,
                name,
                fingerprint,
                bits,
            } => Self::KeyExchanged {
                name,
                peer_id: peer.to_string(),
                fingerprint: fingerprint.to_string(),
                bits,
            },
            Event::Presence { name, online } => Self::Presence { name, online },
            Event::LetterWaits { user } => Self::LetterWaits {
                user: user.map(String::from),
            },
            Event::Letter(news) => Self::Letter(news),
            Event::TellUser { user, text } => Self::TellUser {
                user: user.into(),
                text,
            },
            Event::UserGone { user } => Self::UserGone { user: user.into() },
            Event::NameConflict { name, node, means } => Self::NameConflict {
                name: name.into(),
                node,
                means,
            },
            Event::UserKeyChanged {
                name,
                pinned,
                shown,
            } => Self::UserKeyChanged {
                name,
                pinned: pinned.to_base64(),
                shown: shown.to_base64(),
            },
            Event::Refused { peer, what, why } => Self::Refused {
                peer_id: peer.map(|peer| peer.to_string()),
                what: what.to_owned(),
                why: why.to_owned(),
            },
            Event::Counted { what, times } => Self::Counted {
                what: what.to_owned(),
                times,
            },
            Event::ClockDoubted { ahead_ms } => Self::ClockDoubted { ahead_ms },
            Event::ClockBelieved => Self::ClockBelieved,
            Event::StoreFailed { reason } => Self::StoreFailed { reason },
            Event::DiskSpace {
                is_low,
                free_bytes,
                reserve_bytes,
            } => Self::DiskSpace {
                is_low,
                free_bytes,
                reserve_bytes,
            },
            Event::ClientSignedIn {
                gateway,
                client,
                name,
                address,
            } => Self::ClientSignedIn {
                gateway,
                client,
                name,
                address,
            },
            Event::ClientLeft {
                gateway,
                client,
                name,
                reason,
            } => Self::ClientLeft {
                gateway,
                client,
                name,
                reason: reason.to_owned(),
            },
            Event::ClientKicked {
                gateway,
                client,
                name,
                address,
                why,
            } => Self::ClientKicked {
                gateway,
                client,
                name,
                address,
                why: why.to_owned(),
            },
        }
    }
}

/// What the field `event` of an [`EventBody`] says, for each kind of event.
pub const KINDS: [&str; 36] = [
    "peer_up",
    "peer_down",
    "member_added",
    "member_renamed",
    "member_removed",
    "join_tries",
    "join_tried",
    "member_left",
    "left",
    "mesh_key_received",
    "joined",
    "revoked",
    "copied",
    "copy_gone",
    "received",
    "sent",
    "integers",
    "key_changed",
    "client_key_changed",
    "key_exchanged",
    "refused",
    "counted",
    "store_failed",
    "disk_space",
    "clock_doubted",
    "clock_believed",
    "client_signed_in",
    "client_left",
    "client_kicked",
    "presence",
    "letter_waits",
    "letter",
    "tell_user",
    "user_gone",
    "name_taken",
    "user_key_changed",
];

/// Returns which of the [`KINDS`] an event is.
#[must_use]
pub const fn kind(event: &Event) -> &'static str {
    match event {
        Event::PeerUp { .. } => "peer_up",
        Event::PeerDown { .. } => "peer_down",
        Event::MemberAdded { .. } => "member_added",
        Event::MemberRenamed { .. } => "member_renamed",
        Event::MemberRemoved { .. } => "member_removed",
        Event::JoinTries { .. } => "join_tries",
        Event::JoinTried { .. } => "join_tried",
        Event::MemberLeft { .. } => "member_left",
        Event::Left { .. } => "left",
        Event::MeshKeyReceived { .. } => "mesh_key_received",
        Event::Joined { .. } => "joined",
        Event::Revoked => "revoked",
        Event::Copied { .. } => "copied",
        Event::CopyGone { .. } => "copy_gone",
        Event::Received(_) => "received",
        Event::Sent(_) => "sent",
        Event::Integers(_) => "integers",
        Event::KeyChanged { .. } => "key_changed",
        Event::ClientKeyChanged { .. } => "client_key_changed",
        Event::KeyExchanged { .. } => "key_exchanged",
        Event::Refused { .. } => "refused",
        Event::Counted { .. } => "counted",
        Event::ClockDoubted { .. } => "clock_doubted",
        Event::ClockBelieved => "clock_believed",
        Event::StoreFailed { .. } => "store_failed",
        Event::DiskSpace { .. } => "disk_space",
        Event::ClientSignedIn { .. } => "client_signed_in",
        Event::ClientLeft { .. } => "client_left",
        Event::ClientKicked { .. } => "client_kicked",
        Event::Presence { .. } => "presence",
        Event::LetterWaits { .. } => "letter_waits",
        Event::Letter(_) => "letter",
        Event::TellUser { .. } => "tell_user",
        Event::UserGone { .. } => "user_gone",
        Event::NameConflict { .. } => "name_conflict",
        Event::UserKeyChanged { .. } => "user_key_changed",
    }
}

/// Takes integers that arrived together apart.
#[must_use]
pub fn singles(integers: &report::Integers) -> Vec<report::Integer> {
    let one = |iid: &Iid| report::Integer {
        index: iid.index,
        value: iid.value,
        date: iid.date,
        from: integers.name.clone(),
        peer_id: integers.source,
        sent_ms: integers.sent_ms,
        received_us: integers.received_us,
        clock_offset_us: integers.clock_offset_us,
        held: integers.held,
        bridged: integers.bridged,
        last_known: integers.last_known,
    };
    integers.iids.iter().map(one).collect()
}
