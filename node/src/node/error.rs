//! Why a node cannot start.

use std::path::PathBuf;

use crate::{
    home::{self, HomeError},
    identity::KeyFileError,
    net::NetError,
    state,
    store::StoreError,
};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The keys.
    #[error("could not load the keys")]
    Keys(#[from] KeyFileError),
    /// The store.
    #[error("could not open the store")]
    Store(#[from] StoreError),
    /// The state.
    #[error("could not start from what is stored")]
    State(#[from] state::StartError),
    /// What is in the home folder cannot be told.
    #[error("could not look at the home folder")]
    Home(#[from] HomeError),
    /// A part of the home folder is missing.
    #[error("{} holds a node, and lacks {}", home.display(), files.join(", "))]
    Incomplete {
        /// The home folder.
        home: PathBuf,
        /// What is missing.
        files: Vec<String>,
    },
    /// The network.
    #[error("could not set up the network")]
    Net(#[from] NetError),
    /// The control socket.
    #[error("could not make the control socket {path}")]
    Control {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// Returns what to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        const ANEW: &str = "`pimesh home begin-anew` puts what is left aside and begins a new node, \
                            which has to be invited again";
        const CLOSED_SINCE: &str = "if an earlier pimesh or another program has closed the store since \
                                    this one was killed, nothing is missing; ";
        match self {
            Self::Incomplete { files, .. } => Some(format!(
                "restore it from a backup (is every disk mounted?); {}`pimesh home forget {}` goes \
                 on without it where that is possible; {ANEW}",
                if files.iter().any(|file| file == home::LOG) {
                    CLOSED_SINCE
                } else {
                    ""
                },
                files.join(" ")
            )),
            Self::Keys(KeyFileError::Lost { .. }) | Self::Store(StoreError::Emptied(_)) => Some(
                format!("restore it from a backup (is every disk mounted?); {ANEW}"),
            ),
            Self::State(state::StartError::OtherNode(_) | state::StartError::OtherMessagingKey) => {
                Some(format!(
                    "restore `pimesh.db`, `node.key` and `messaging.key` from one backup; {ANEW}"
                ))
            }
            Self::Store(error) => error.hint(),
            Self::Net(error) => error.hint(),
            Self::Keys(_) | Self::State(_) | Self::Home(_) | Self::Control { .. } => None,
        }
    }
}
