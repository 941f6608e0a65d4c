//! What is asked through the control socket and by gateways, and the answers.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ClientId, Gateway, GatewayRecord, Keep, Selection, SendVia};
use crate::{
    proto::{
        iid::{Iid, Index, Value},
        mesh::{certificate::MeshKey, ranges::Ranges, vouched::Vouched},
    },
    state::{
        Expiry, Settings, Wanted, clients,
        post::{Ask, Told},
        report,
    },
};

/// What is asked through the control socket.
#[derive(Clone, derive_more::Debug)]
pub enum Command {
    /// What is this node, and how is it?
    Status,
    /// Who is in the mesh?
    Peers,
    /// Make a ticket for a new member.
    Invite(Wanted),
    /// Which tickets may still be used?
    Invites,
    /// Make tickets useless.
    CancelInvites {
        /// The short id or the name of one; all of them if `None`.
        which: Option<String>,
    },
    /// Give a member another name.
    Rename {
        /// Its name or peer id; this node itself if `None`.
        peer: Option<String>,
        /// From here on.
        name: String,
    },
    /// What are members called, and what were they called before?
    Names,
    /// Enter a mesh.
    Join {
        /// The ticket, as `invite` printed it.
        #[debug("{} bytes", ticket.len())]
        ticket: String,
    },
    /// Leave the mesh.
    Leave {
        /// Whether this node leaves even if nobody else holds the mesh key.
        sure: bool,
    },
    /// Give the mesh key to a member.
    ShareMeshKey {
        /// Its name or peer id.
        peer: String,
    },
    /// The file with the mesh key was looked at again.
    MeshKeyFile {
        /// The key in it.
        key: Option<MeshKey>,
        /// Whether it was ever exported.
        exported: bool,
    },
    /// Take a member out of the mesh.
    Remove {
        /// Its name or peer id.
        peer: String,
    },
    /// Who can be written to?
    Who,
    /// Accept the changed key of a member (RSA) or of a user, or that a name means a user.
    Trust {
        /// A member's name or peer id, or a user.
        who: String,
        /// Whether it is about the name: `alice` means `alice@node` from here on.
        name: bool,
    },
    /// These indices are those of clients of this node's gateways, in the place of those before.
    ClientIndices(BTreeSet<Index>),
    /// State which further indices a member owns, in the place of those that it owned.
    GiveIndices {
        /// The member: name or peer id.
        peer: String,
        /// The indices beside the one in its certificate; none takes all back.
        further: Ranges,
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
        #[debug("{} bytes", text.len())]
        text: String,
        /// How.
        via: SendVia,
        /// How long to keep trying; the configured time if `None`.
        expiry: Option<Expiry>,
    },
    /// Something about old P2SN clients and servers.
    P2sn(clients::Question),
    /// Something about what a gateway keeps for itself.
    Keep(Gateway, Keep),
    /// Delete messages from the history; those that wait in the outbox stay.
    DeleteHistory(Selection),
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
    /// Which index is this node's own? Gateways ask again and again, so it is only that.
    OwnIndex,
    /// Something that a gateway for Syft agents asks.
    Gateway(Box<Ask>),
    /// Replace the settings that the state uses.
    Configure(Box<Settings>),
}

impl Command {
    /// Makes [`Self::Send`].
    ///
    /// # Errors
    /// Fails if a message may not be kept for so long.
    pub fn send(
        to: Recipients,
        text: String,
        via: SendVia,
        expiry: Option<Duration>,
    ) -> Result<Self, Failure> {
        Ok(Self::Send {
            to,
            text,
            via,
            expiry: expiry.map(Expiry::new).transpose()?,
        })
    }
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

/// When an integer is meant to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// At this Unix millisecond.
    UnixMs(u64),
    /// This many milliseconds from the moment the node takes the command.
    InMs(u64),
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
    /// To [`Command::Invites`].
    Invites(Vec<report::OpenInvite>),
    /// To [`Command::CancelInvites`]: these are cancelled, on disk.
    InvitesCancelled(Vec<report::OpenInvite>),
    /// To [`Command::Rename`]: the new certificate is on disk here.
    Renamed(report::Renamed),
    /// To [`Command::Names`].
    Names(Vec<report::Names>),
    /// To [`Command::Join`].
    Joined(report::Joined),
    /// To [`Command::Leave`]: this node is in a mesh of its own, on disk.
    Left(report::Left),
    /// To [`Command::ShareMeshKey`]: the key is on the member's disk.
    KeyShared(report::KeyShared),
    /// To [`Command::Remove`].
    Removed(report::Removed),
    /// To [`Command::Who`].
    Who(Vec<report::Who>),
    /// To [`Command::Trust`].
    Trusted(report::Trusted),
    /// To [`Command::GiveIndices`]: the statement is on disk here.
    IndicesGiven(report::GivenIndices),
    /// To [`Command::Vouch`]: the new certificate is on disk here.
    Vouched(report::Vouched),
    /// To [`Command::Send`]: every message is on disk (or, via P2SN, on the peer's disk).
    Accepted(Vec<report::Accepted>),
    /// To [`Command::P2sn`].
    P2sn(clients::Answer),
    /// To [`Command::DeleteHistory`]: they are gone.
    HistoryDeleted,
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
    /// To [`Command::OwnIndex`].
    OwnIndex(Index),
    /// To [`Command::Gateway`].
    Told(Told),
    /// To [`Command::Keep`]: what was asked for; none to a change, which is on disk.
    Kept(Vec<GatewayRecord>),
    /// To [`Command::Configure`] and [`Command::MeshKeyFile`].
    Configured,
}

/// Why a command could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// What the asker can do about it.
    pub kind: FailureKind,
    /// What could not be done and why.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When to try again, of [`FailureKind::OverBudget`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_budget: Option<OverBudget>,
}

/// What the budget still allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverBudget {
    /// How many integers would go out at this moment.
    pub fits: usize,
    /// How long until more do, in milliseconds.
    pub retry_ms: u64,
}

/// What the asker can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The request cannot be carried out as it is.
    BadRequest,
    /// What it names does not exist.
    NotFound,
    /// It does not fit the node's present state.
    Conflict,
    /// It may work later.
    Unavailable,
    /// Something is wrong with the node, such as its disk; its owner has to look.
    Fault,
    /// It was not done in time; it may work later.
    TimedOut,
    /// Another machine refused it.
    Refused,
    /// It is more than the budget allows now; [`Failure::over_budget`] says when to try again.
    OverBudget,
}

impl Failure {
    /// Makes a failure that the asker can mend by asking differently.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(FailureKind::BadRequest, message)
    }

    /// Makes a failure about something that does not exist.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// Makes a failure about the state the node is in.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Conflict, message)
    }

    /// Makes a failure that may pass.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, message)
    }

    /// Makes a failure about the node itself, which asking again does not mend.
    #[must_use]
    pub fn fault(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Fault, message)
    }

    /// Makes a failure about something that took too long.
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(FailureKind::TimedOut, message)
    }

    /// Makes a failure about a refusal by another machine.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Refused, message)
    }

    /// Makes a failure of integers that the others would not take now.
    #[must_use]
    pub fn over_budget(message: impl Into<String>, budget: OverBudget) -> Self {
        Self {
            over_budget: Some(budget),
            ..Self::new(FailureKind::OverBudget, message)
        }
    }

    /// Makes the failure of a command whose records are not on disk.
    pub(in crate::state) fn not_stored(reason: &str) -> Self {
        Self::unavailable(format!("could not write to disk: {reason}"))
            .with_hint("`pimesh doctor` checks the disk")
    }

    /// Adds what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            over_budget: None,
        }
    }
}
