//! Why the node did not do what was asked.

use std::{path::PathBuf, time::Duration};

use crate::state::io::{Failure, FailureKind};

/// Why the node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("could not reach the node: no socket at `{0}`")]
    NoSocket(PathBuf),
    /// There is a socket, but nobody behind it.
    #[error("could not reach the node: nobody answers at `{0}`")]
    Dead(PathBuf),
    /// The socket cannot be used.
    #[error("could not reach the node at `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer broke off.
    #[error("the node's answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is not what this program expects.
    #[error("the node's answer is not understood; `pimesh doctor` compares versions")]
    NotUnderstood(#[source] serde_json::Error),
    /// The answer, or a line of it, has no end.
    #[error("the node's answer is too long: more than {} MiB", .0 >> 20)]
    TooLong(usize),
    /// Nothing comes, although there is a connection.
    #[error("the node at `{path}` did not answer: nothing came for {} s", waited.as_secs())]
    Silent {
        /// Where it is.
        path: PathBuf,
        /// How long nothing came.
        waited: Duration,
        /// Whether it may do what was asked all the same.
        may_act: bool,
    },
    /// The node takes no connection.
    #[error("the node at `{0}` takes no connections: too many wait already")]
    Busy(PathBuf),
    /// The node says no.
    #[error("{}", .0.message)]
    Failure(Failure),
}

impl ClientError {
    /// Returns true if no node runs in this home folder.
    #[must_use]
    pub const fn is_not_running(&self) -> bool {
        matches!(self, Self::NoSocket(_) | Self::Dead(_))
    }

    /// Returns what to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSocket(_) | Self::Dead(_) => {
                Some("start it with `pimesh run`, or name another home with `--home`".to_owned())
            }
            Self::Failure(failure) => failure.hint.clone(),
            Self::Io { .. } => Some(
                "does this user own the node's home folder, or is it in the node's group \
                 (`control.socket_group`)? A user who was put into a group logs in anew"
                    .to_owned(),
            ),
            Self::Silent { may_act: true, .. } => Some(
                "the node may be stopped or very busy, and may still do what was asked; look at \
                 its log, and at `pimesh outbox` or `pimesh status` before trying again"
                    .to_owned(),
            ),
            Self::Silent { may_act: false, .. } | Self::Busy(_) => Some(
                "the node may be stopped or very busy: look at its log, or restart it".to_owned(),
            ),
            Self::TooLong(_) => Some("ask for less, for example with `--limit`".to_owned()),
            Self::Broken(_) | Self::NotUnderstood(_) => None,
        }
    }

    /// Says whether the node is gone, does not answer, or has no place for the question now, so that
    /// the same may work later; otherwise it gave an answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::NoSocket(_)
            | Self::Dead(_)
            | Self::Io { .. }
            | Self::Broken(_)
            | Self::Silent { .. }
            | Self::Busy(_) => true,
            Self::Failure(failure) => failure.kind == FailureKind::Unavailable,
            Self::NotUnderstood(_) | Self::TooLong(_) => false,
        }
    }
}
