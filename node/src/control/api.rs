//! The bodies of requests and answers on the control socket. Field names are part of the interface.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`report::Status`] and the program's version |
//! | `GET /v1/peers` | | list of [`report::Peer`] |
//! | `DELETE /v1/peers/{peer}` | | [`report::Removed`] |
//! | `POST /v1/peers/{peer}/trust` | | [`report::Trusted`] |
//! | `POST /v1/peers/{peer}/vouch` | [`Vouch`] | [`report::Vouched`] |
//! | `POST /v1/invites` | [`NewInvite`] | [`report::Invite`] |
//! | `POST /v1/join` | [`Join`] | [`report::Joined`] |
//! | `POST /v1/messages` | [`NewMessage`] | list of [`report::Accepted`] |
//! | `GET /v1/messages` | [`HistoryQuery`] as the query | list of [`HistoryRow`] |
//! | `GET /v1/outbox` | | list of [`report::Pending`] |
//! | `POST /v1/integers` | [`NewIntegers`] | [`report::Published`] |
//! | `GET /v1/integers` | | list of [`report::Integer`], the last of each index |
//! | `GET /v1/integers/stream` | | one [`report::Integer`] or [`Lost`] a line, without end |
//! | `POST /v1/integers/stream` | integers between white space, [`StreamQuery`] as the query | [`Streamed`] |
//! | `GET /v1/gateways` | | list of [`DoorReport`] |
//! | `GET /v1/gateways/iid/servers` | | list of [`ServerReport`](crate::gateway::iid::upstream::ServerReport) |
//! | `GET /v1/clients` | | list of [`ClientReport`](crate::gateway::visit::ClientReport) |
//! | `DELETE /v1/clients/{client}` | | the same, of those who were sent away: a number, or a name |
//! | `GET /v1/users` | | list of [`User`](crate::state::post::User): everybody who can be written to |
//! | `DELETE /v1/users/{user}` | | `null`, once a user of this node's door is gone |
//! | `POST /v1/reload` | | `null`, once `pimesh.toml` was read again |
//! | `POST /v1/p2sn/send` | [`NewP2snMessage`] | [`P2snReplied`] |
//! | `GET /v1/p2sn/keys` | | list of [`report::P2snKey`] |
//! | `POST /v1/p2sn/trust` | [`P2snAddress`] | list of [`report::P2snKey`], what is pinned |
//! | `POST /v1/p2sn/forget` | [`P2snAddress`] | list of [`report::P2snKey`], what was pinned |
//! | `GET /v1/events` | [`EventQuery`] as the query | server-sent events, each an [`EventBody`] |
//! | `GET /metrics` | | counters as Prometheus reads them |
//!
//! An error is answered with its status code and a [`Failure`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    gateway::DoorReport,
    proto::{
        iid::{Index, Value},
        mesh::{MessageId, vouched::Vouched},
    },
    state::{
        io::{At, ClientId, Direction, Event, Failure, Gateway, Recipients, Transport, Via},
        post::LetterNews,
        report,
    },
};

/// Longest body of a request, in bytes: a message of 1 MiB of which JSON writes each byte with six
/// (`\u0001`), and room for the rest. Streams of integers have no limit, for they are not collected.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the running program.
    pub version: String,
    /// The home folder.
    pub home: String,
    /// Where the node listens.
    pub listeners: Vec<String>,
    /// The doors for clients of older systems.
    pub gateways: Vec<DoorReport>,
    /// Where its time comes from.
    pub clock: clock::Report,
    /// The rest.
    #[serde(flatten)]
    pub node: report::Status,
}

/// The body of `POST /v1/invites`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvite {
    /// The new member's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// What it may speak for as a gateway: `none`, `all` (if absent) or `A..B`.
    #[serde(default)]
    pub vouched: Vouched,
    /// How long the ticket is good, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
}

/// The body of `POST /v1/peers/{peer}/vouch`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// What the member may speak for as a gateway: `none`, `all` or `A..B`.
    pub vouched: Vouched,
}

/// The body of `POST /v1/join`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The ticket.
    pub ticket: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Join(..)")
    }
}

/// The body of `POST /v1/messages`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// To whom: `"all"`, or `{"named": ["pi-1"]}`.
    pub to: Recipients,
    /// The text.
    pub text: String,
    /// The protocol.
    #[serde(default)]
    pub via: Via,
    /// How long to keep trying, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_s: Option<u64>,
}

/// The body of `POST /v1/integers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewIntegers {
    /// The index to speak for; the node's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// The values.
    pub values: Vec<Value>,
    /// When to carry them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

/// The query of `POST /v1/integers/stream`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// The index to speak for; the node's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// When to carry them out: at this Unix millisecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_unix_ms: Option<u64>,
    /// When to carry them out: so many milliseconds after the node takes each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_ms: Option<u64>,
}

impl StreamQuery {
    /// Asks for this index and this time.
    #[must_use]
    pub const fn new(index: Option<Index>, at: Option<At>) -> Self {
        let (at_unix_ms, in_ms) = match at {
            None => (None, None),
            Some(At::UnixMs(ms)) => (Some(ms), None),
            Some(At::InMs(ms)) => (None, Some(ms)),
        };
        Self {
            index,
            at_unix_ms,
            in_ms,
        }
    }

    /// Returns when to carry the integers out.
    ///
    /// # Errors
    /// Fails if both ways to say it are used.
    pub fn at(&self) -> Result<Option<At>, Failure> {
        match (self.at_unix_ms, self.in_ms) {
            (None, None) => Ok(None),
            (Some(ms), None) => Ok(Some(At::UnixMs(ms))),
            (None, Some(ms)) => Ok(Some(At::InMs(ms))),
            (Some(_), Some(_)) => Err(Failure::bad_request(
                "one of `at_unix_ms` and `in_ms`, not both",
            )),
        }
    }
}

/// The body of `POST /v1/p2sn/send`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewP2snMessage {
    /// The server: `HOST` or `HOST:PORT`.
    pub to: String,
    /// The text.
    pub text: String,
    /// How long all of it may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The answer to `POST /v1/p2sn/send`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct P2snReplied {
    /// The server, with its port.
    pub address: String,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// Size of its key.
    pub bits: usize,
    /// What it replied, as text.
    pub reply: String,
    /// What it replied, in hexadecimal, if it was no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_hex: Option<String>,
}

/// The body of `POST /v1/p2sn/trust` and `POST /v1/p2sn/forget`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct P2snAddress {
    /// A client's IP address, or a server's `HOST` or `HOST:PORT`.
    pub address: String,
}

/// The answer to `POST /v1/integers/stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// How many integers went out.
    pub count: usize,
}

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

/// A line of an integer stream that says how many integers were lost because the reader was slow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// How many events were lost; each holds one integer or a few.
    pub lost: u64,
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

/// The query of `GET /v1/messages`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Which way they went.
    #[serde(default)]
    pub way: Way,
    /// From or to this member or client only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// At this Unix millisecond or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Behind this row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// With this text in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// At most so many, up to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One message of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Its place; rows grow in the order in which messages came.
    pub row: i64,
    /// Its id.
    pub id: MessageId,
    /// Name of the other side.
    pub name: String,
    /// Peer id of the other side, or the name of a client.
    pub peer_id: String,
    /// When the sender accepted it.
    pub created_ms: u64,
    /// When it came, or when its outcome was known.
    pub at_ms: u64,
    /// The protocol: `direct` or `p2sn`.
    pub via: String,
    /// How sending ended; empty while it waits, and for received ones.
    pub outcome: String,
    /// The text.
    pub text: String,
}

/// What the field `event` of an [`EventBody`] says, for each kind of event.
pub const KINDS: [&str; 25] = [
    "peer_up",
    "peer_down",
    "member_added",
    "member_removed",
    "joined",
    "revoked",
    "received",
    "sent",
    "integers",
    "key_changed",
    "client_key_changed",
    "key_exchanged",
    "refused",
    "counted",
    "store_failed",
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
        Event::MemberRemoved { .. } => "member_removed",
        Event::Joined { .. } => "joined",
        Event::Revoked => "revoked",
        Event::Received(_) => "received",
        Event::Sent(_) => "sent",
        Event::Integers(_) => "integers",
        Event::KeyChanged { .. } => "key_changed",
        Event::ClientKeyChanged { .. } => "client_key_changed",
        Event::KeyExchanged { .. } => "key_exchanged",
        Event::Refused { .. } => "refused",
        Event::Counted { .. } => "counted",
        Event::StoreFailed { .. } => "store_failed",
        Event::ClientSignedIn { .. } => "client_signed_in",
        Event::ClientLeft { .. } => "client_left",
        Event::ClientKicked { .. } => "client_kicked",
        Event::Presence { .. } => "presence",
        Event::LetterWaits { .. } => "letter_waits",
        Event::Letter(_) => "letter",
        Event::TellUser { .. } => "tell_user",
        Event::UserGone { .. } => "user_gone",
        Event::NameTaken { .. } => "name_taken",
        Event::UserKeyChanged { .. } => "user_key_changed",
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
    /// A member was taken out of the mesh.
    MemberRemoved {
        /// Its name.
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
        /// Why.
        reason: String,
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
        /// Why.
        why: String,
    },
    /// A user of a door came or went.
    Presence {
        /// The name under which the mesh knows him.
        name: String,
        /// Whether a client of his is connected.
        online: bool,
    },
    /// A letter waits for the clients of a user of this door.
    LetterWaits {
        /// The user; `None` for all.
        user: Option<String>,
    },
    /// A letter came further.
    Letter(LetterNews),
    /// A user of this door is told something.
    TellUser {
        /// The user.
        user: String,
        /// What.
        text: String,
    },
    /// A user of this door was taken out.
    UserGone {
        /// The user.
        user: String,
    },
    /// The name of a user of this door belongs to a user of another one.
    NameTaken {
        /// The user of this door.
        user: String,
        /// The node to which it belongs.
        door: String,
    },
    /// A door showed another key for a user than the pinned one; it is refused.
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
            Event::MemberRemoved { peer, name } => Self::MemberRemoved {
                name,
                peer_id: peer.to_string(),
            },
            Event::Joined { mesh, name } => Self::Joined { mesh, name },
            Event::Revoked => Self::Revoked,
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
            Event::NameTaken { user, door, .. } => Self::NameTaken {
                user: user.into(),
                door,
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
            Event::StoreFailed { reason } => Self::StoreFailed { reason },
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

/// Takes integers that arrived together apart.
#[must_use]
pub fn singles(integers: &report::Integers) -> Vec<report::Integer> {
    let one = |iid: &crate::proto::iid::Iid| report::Integer {
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
