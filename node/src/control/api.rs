//! The bodies of requests and answers on the control socket. Field names are part of the interface.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`report::Status`] and the program's version |
//! | `GET /v1/peers` | | list of [`report::Peer`] |
//! | `DELETE /v1/peers/{peer}` | | [`report::Removed`] |
//! | `GET /v1/who` | | list of [`report::Who`]: nodes, users, clients |
//! | `POST /v1/trust` | [`NewTrust`] | [`report::Trusted`] |
//! | `POST /v1/peers/{peer}/indices` | [`GiveIndices`] | [`report::GivenIndices`] |
//! | `POST /v1/peers/{peer}/vouch` | [`Vouch`] | [`report::Vouched`] |
//! | `POST /v1/invites` | [`NewInvite`] | [`report::Invite`] |
//! | `GET /v1/invites` | | list of [`report::OpenInvite`]: tickets that may still be used |
//! | `DELETE /v1/invites` | | list of [`report::OpenInvite`], those that were cancelled: all |
//! | `DELETE /v1/invites/{ticket}` | | the same, of the one with this id or name |
//! | `POST /v1/rename` | [`NewName`] | [`report::Renamed`] |
//! | `POST /v1/leave` | [`Leave`] | [`report::Left`] |
//! | `POST /v1/mesh-key/share` | [`ShareMeshKey`] | [`report::KeyShared`] |
//! | `POST /v1/mesh-key/reload` | | `null`, once the file with the mesh key was looked at again |
//! | `POST /v1/join` | [`Join`] | [`report::Joined`] |
//! | `POST /v1/messages` | [`NewMessage`] | list of [`report::Accepted`] |
//! | `GET /v1/messages` | [`HistoryQuery`] as the query | list of [`HistoryRow`] |
//! | `GET /v1/messages/stream` | the same | one [`HistoryRow`] a line |
//! | `DELETE /v1/messages` | [`Deletion`] as the query | [`Deleted`] |
//! | `GET /v1/outbox` | | list of [`report::Pending`] |
//! | `POST /v1/integers` | [`NewIntegers`] | [`report::Published`] |
//! | `GET /v1/integers` | | list of [`report::Integer`], the last of each index |
//! | `GET /v1/integers/stream` | | one [`report::Integer`] or [`Lost`] a line, without end |
//! | `POST /v1/integers/stream` | integers between white space, [`StreamQuery`] as the query | [`Streamed`] |
//! | `GET /v1/gateways` | | list of [`GatewayReport`] |
//! | `…  /v1/gateways/NAME/…` | | what a gateway serves itself: `routes.rs` in its folder |
//! | `GET /v1/servers` | | list of [`ServerStatus`](crate::gateway::ServerStatus): foreign servers that the node is a client of |
//! | `GET /v1/clients` | | list of [`ClientReport`](crate::gateway::visit::ClientReport) |
//! | `DELETE /v1/clients/{client}` | | the same, of those who were sent away: a number, or a name |
//! | `GET /v1/users` | | list of [`User`](crate::state::post::User): the members, and the users of their Syft gateways |
//! | `POST /v1/reload` | | `null`, once `pimesh.toml` was read again |
//! | `GET /v1/events` | [`EventQuery`] as the query | server-sent events, each an [`EventBody`] |
//! | `GET /metrics` | | counters as Prometheus reads them |
//!
//! An error is answered with its status code and a [`Failure`]. 503 means that the same may work
//! later, 500 that the owner of the node has to look. 429 means that the integers are over
//! the budget; its field `over_budget` says how many would go out now, and when to try again. The
//! stream waits by itself. A stream that is quiet sends an empty line (or a comment) each 15 s.

mod events;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::events::{EventBody, EventQuery};
pub use crate::handle::{Counted, Deleted, Deletion, HISTORY_DEFAULT, HistoryQuery, HistoryRow};
pub use crate::state::io::Way;
use crate::{
    clock,
    gateway::GatewayReport,
    proto::{
        iid::{Index, Value},
        mesh::{ranges::Ranges, vouched::Vouched},
    },
    state::{
        Wanted,
        io::{At, Failure, Recipients, SendVia},
        report,
    },
};

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the running program.
    pub version: String,
    /// The home folder.
    pub home: String,
    /// Where the node listens.
    pub listeners: Vec<String>,
    /// The gateways for clients of older systems.
    pub gateways: Vec<GatewayReport>,
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
    /// Further indices that it owns: a list of `7` or `100..109`.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub further: Ranges,
    /// What it may speak for as a gateway: `none`, `all` (if absent) or `A..B`.
    #[serde(default)]
    pub vouched: Vouched,
    /// How long the ticket is good, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
}

impl From<NewInvite> for Wanted {
    fn from(invite: NewInvite) -> Self {
        let NewInvite {
            name,
            index,
            further,
            vouched,
            lifetime_s,
        } = invite;
        Self {
            name,
            index,
            further,
            vouched,
            lifetime: lifetime_s.map(Duration::from_secs),
        }
    }
}

/// The body of `POST /v1/peers/{peer}/vouch`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// What the member may speak for as a gateway: `none`, `all` or `A..B`.
    pub vouched: Vouched,
}

/// The body of `POST /v1/peers/{peer}/indices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveIndices {
    /// The further indices that the member owns from here on, each `7` or `A..B`; none takes all
    /// back.
    pub further: Ranges,
}

/// The body of `POST /v1/rename`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    /// The member: its name or peer id; this node itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The new name.
    pub name: String,
}

/// The body of `POST /v1/leave`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Whether to leave even if nobody else is known to hold the mesh key.
    #[serde(default)]
    pub sure: bool,
}

/// The body of `POST /v1/mesh-key/share`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareMeshKey {
    /// The member, by name or peer id.
    pub peer: String,
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
#[derive(Clone, derive_more::Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// To whom: `"all"`, or `{"named": ["pi-1"]}`.
    pub to: Recipients,
    /// The text.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// The protocol.
    #[serde(default)]
    pub via: SendVia,
    /// How long to keep trying, in seconds: 1 to 2,592,000, which are 30 days.
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

/// The body of `POST /v1/trust`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTrust {
    /// A member's name or peer id, or a user.
    pub who: String,
    /// Whether the bare name is to mean this user, instead of whether a changed key is accepted.
    #[serde(default)]
    pub name: bool,
}

/// The answer to `POST /v1/integers/stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// How many integers went out: all of them. It takes as long as the budget needs.
    pub count: usize,
}

/// A line of an integer stream that says how many integers were lost because the reader was slow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// How many events were lost; each holds one integer or a few.
    pub lost: u64,
}
