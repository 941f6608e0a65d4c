//! Starting a node, and what whoever started it holds.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use libp2p_identity::PeerId;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Loop, Options, StartError};
use crate::{
    config::Config, control::Control, handle::NodeHandle, identity::Passphrase,
    proto::mesh::NodeName,
};

/// A node that is about to start.
#[derive(Debug)]
pub struct NodeBuilder {
    home: PathBuf,
    name: Option<NodeName>,
    config: Config,
    passphrase: Option<Passphrase>,
}

impl NodeBuilder {
    /// Sets the name to wish for in the mesh, in the place of the configured one. Without both it is
    /// the host name.
    #[must_use]
    pub fn name(mut self, name: NodeName) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the configuration. Without it everything has its default; [`Config::load`] reads
    /// `pimesh.toml` of the home folder, [`Config::parse`] a text.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets what opens the key files, if they are sealed.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// Starts the node, on a task of the runtime that this is called in. The first start in a home
    /// folder makes the keys and a mesh of one. The node serves its control socket, so `pimesh --home`
    /// works with it as with one of `pimesh run`. Returns once each gateway is open, or failed (then it
    /// is tried again), or took longer than some seconds.
    ///
    /// # Errors
    /// Returns why it cannot start.
    pub async fn start(self) -> Result<Node, StartError> {
        let mut config = self.config;
        config.name = self.name.or(config.name);
        let of_gateways = config.gateways.clone();
        let started = Loop::start(Options {
            home: self.home,
            config,
            fallback_name: NodeName::from_any(&host_name()),
            passphrase: self.passphrase,
        });
        let started = started.await?;
        let gateways = Arc::clone(&started.gateways);
        let (stop, stopped) = oneshot::channel();
        let node = Node {
            handle: started.handle.clone(),
            control: started.control(),
            peer: started.peer,
            socket: started.socket.clone(),
            stop,
            running: tokio::spawn(started.run(async move { drop(stopped.await) })),
        };
        // The loop runs already, so a gateway that opens slowly delays only the return of this function.
        gateways.apply(&of_gateways).await;
        Ok(node)
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

/// A node that runs. What can be asked of it is at [`NodeHandle`], which this stands for; tasks
/// of their own take a [`Self::handle`].
///
/// [`Self::shutdown`] ends it. Dropped, it ends as well, but nobody waits until it has.
pub struct Node {
    handle: NodeHandle,
    control: Control,
    peer: PeerId,
    socket: PathBuf,
    /// Dropped, it stops the loop.
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.peer)
    }
}

impl Deref for Node {
    type Target = NodeHandle;

    fn deref(&self) -> &NodeHandle {
        &self.handle
    }
}

impl Node {
    /// Begins to start the node of a home folder, which is made if it is not there.
    #[must_use]
    pub fn builder(home: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder {
            home: home.into(),
            name: None,
            config: Config::default(),
            passphrase: None,
        }
    }

    /// Returns a way to speak with the node, for another task.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Returns what its control socket shows and changes.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Returns its peer id.
    #[must_use]
    pub const fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Returns its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops the node: closes gateways, says goodbye to the others, and writes what still waits.
    ///
    /// # Panics
    /// Goes on with the panic of the node's loop, if that ended with one.
    pub async fn shutdown(self) {
        self.run_until(async {}).await;
    }

    /// Waits until `stop` is done, and stops the node.
    ///
    /// # Panics
    /// See [`Self::shutdown`]; a panic of the loop is not waited for until `stop` is done.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) {
        let ended = tokio::select! {
            ended = &mut self.running => ended,
            () = stop => {
                drop(self.stop);
                self.running.await
            }
        };
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
