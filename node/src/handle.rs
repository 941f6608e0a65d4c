//! How the control socket, gateways and programs that embed a node speak with the node's loop.
//!
//! | file | what |
//! | --- | --- |
//! | `asks` | one method for each command, with the type of its answer |
//! | `following` | events, received messages, what becomes of a message that was sent |
//! | `history` | messages that are on disk: read page by page, and deleted |

mod asks;
mod following;
mod history;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use self::asks::does_not_fit;
pub use self::{
    following::{Begin, Events, EventsLost, Inbox, Sending},
    history::Pages,
    history::{Counted, Deleted, Deletion, HISTORY_DEFAULT, HistoryQuery, HistoryRow},
};
use crate::{
    clock::Clock,
    events,
    identity::KeyRing,
    net::live::Room,
    proto::{iid::Date, p2sn::PrivateKey, syft::UserId},
    state::io::{Command, Event, Failure, Reply},
    store::{Batch, History},
};

/// Commands that wait for the loop. More askers than this wait their turn.
const COMMANDS: usize = 256;

/// A command, and where its answer goes.
pub(crate) type Asked = (Command, oneshot::Sender<Result<Reply, Failure>>);

/// Letters, or why they cannot be read.
type LettersRead = Result<Batch, String>;

pub(crate) type ReadLetters = dyn Fn(&UserId, u64) -> LettersRead + Send + Sync;

/// What a node shows besides its state.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) home: PathBuf,
    pub(crate) listeners: Arc<std::sync::Mutex<Vec<String>>>,
    pub(crate) events: events::Events,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) history: Arc<History>,
    pub(crate) letters: Arc<ReadLetters>,
    pub(crate) room: Room,
    pub(crate) clock: Clock,
    /// The RSA key, once there is one.
    pub(crate) rsa: watch::Receiver<Option<PrivateKey>>,
}

/// A running node, for those who ask it. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Asked>,
    surroundings: Surroundings,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeHandle(..)")
    }
}

impl NodeHandle {
    pub(crate) fn new(surroundings: Surroundings) -> (Self, mpsc::Receiver<Asked>) {
        let (commands, asked) = mpsc::channel(COMMANDS);
        let handle = Self {
            commands,
            surroundings,
        };
        (handle, asked)
    }

    /// Asks the node something that has no method of its own, and waits for its answer.
    ///
    /// # Errors
    /// Returns why the command could not be carried out.
    pub async fn ask(&self, command: Command) -> Result<Reply, Failure> {
        self.begin(command).await?.await
    }

    /// Gives a command to the node; what is returned waits for its answer. Commands that are given
    /// one after the other are carried out in that order.
    pub(crate) async fn begin(
        &self,
        command: Command,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<>, Failure> {
        let stopping = || Failure::unavailable("the node is stopping");
        let (sender, answer) = oneshot::channel();
        let sent = self.commands.send((command, sender)).await;
        sent.map_err(|_| stopping())?;
        Ok(async move { answer.await.map_err(|_| stopping())? })
    }

    /// Waits until the fastest member has taken most of the integers so far, at most for a second.
    /// Whoever broadcasts many in a row asks this before each command; without it, integers that
    /// even the fastest member does not take are lost.
    pub async fn room(&self) {
        self.surroundings.room.wait().await;
    }

    /// Follows what happens from here on. A reader that is too slow loses the oldest events, and is
    /// told how many.
    pub(crate) fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.surroundings.events.follow()
    }

    /// Tells what happened at a gateway.
    pub(crate) fn tell(&self, event: Event) {
        self.surroundings.events.tell(event);
    }

    /// Returns the counters as Prometheus reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.surroundings.events.metrics().encode()
    }

    /// Returns the node's clocks: dates that a gateway makes are read here.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.surroundings.clock
    }

    /// Looks at the file with the mesh key again: it was imported, or exported.
    ///
    /// # Errors
    /// Returns why the file cannot be read.
    pub async fn reload_mesh_key(&self) -> Result<(), Failure> {
        let keys = Arc::clone(self.keys());
        let read = tokio::task::spawn_blocking(move || keys.mesh()).await;
        let read = read.map_err(|_| Failure::unavailable("the node is stopping"))?;
        let (key, exported) =
            read.map_err(|e| Failure::fault(format!("could not read the mesh key: {e}")))?;
        self.ask(Command::MeshKeyFile { key, exported }).await?;
        Ok(())
    }

    /// Returns the date that integers get here and now.
    pub(crate) fn date(&self) -> Date {
        Date(self.clock().now().unix_ms())
    }

    /// Returns the keys with which this node is a client of older systems.
    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.surroundings.keys
    }

    /// Returns the node's RSA key, which may still be made.
    pub(crate) fn rsa(&self) -> watch::Receiver<Option<PrivateKey>> {
        self.surroundings.rsa.clone()
    }

    /// Returns the home folder.
    pub(crate) fn home(&self) -> &Path {
        &self.surroundings.home
    }

    /// Reads the next letters of a user of this node's gateway behind a row.
    pub(crate) async fn letters(&self, user: UserId, after: u64) -> LettersRead {
        let read = Arc::clone(&self.surroundings.letters);
        let rows = tokio::task::spawn_blocking(move || read(&user, after));
        rows.await.map_err(|_| "the node is stopping".to_owned())?
    }

    /// Returns the messages that are on disk.
    pub(crate) const fn stored(&self) -> &Arc<History> {
        &self.surroundings.history
    }

    /// Returns where the node listens.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        let listeners = self.surroundings.listeners.lock();
        listeners.map(|l| l.clone()).unwrap_or_default()
    }
}
