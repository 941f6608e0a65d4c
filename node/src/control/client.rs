//! What the command line uses to speak with a running node.
//!
//! | file | what |
//! | --- | --- |
//! | `error` | why the node did not do what was asked |
//! | `transport` | one request and its answer, within limits of time and length |
//! | `streams` | answers and bodies without end, line by line |
//! | `requests` | calls about the node itself, messages and integers |
//! | `history` | calls about the history of messages |
//! | `members` | calls about members |
//! | `gateways` | calls about gateways and who is behind them, and those that a gateway itself answers |

mod error;
mod gateways;
mod history;
mod members;
mod requests;
mod streams;
mod transport;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{error::ClientError, gateways::GatewayClient};

/// How long the node may be silent before it counts as not answering. It says something each 15 s on
/// a stream (`KEEP_ALIVE` in `server`), and answers a command in far less than this.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How much longer than [`SILENCE_MAX`] the node may take for what itself waits for another
/// machine: each of these ends by its own limit before.
const OTHERS_TIME: Duration = Duration::from_secs(60);

/// A way to a running node. Each call has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// How long the node may be silent.
    silence: Duration,
}

impl Client {
    /// Will speak with the node behind this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            silence: SILENCE_MAX,
        }
    }

    /// Lets the node be silent for this long instead of [`SILENCE_MAX`].
    #[must_use]
    pub fn patient(&self, silence: Duration) -> Self {
        Self {
            silence,
            ..self.clone()
        }
    }

    /// Returns the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
