//! A running node: the one loop that owns the swarm, the state and the way to the disk.
//!
//! ```text
//!   net ────────┐                         ┌──▶ net
//!   commands ───┤                         ├──▶ replies
//!   store ──────┼──▶ State::handle ──▶ ───┼──▶ store
//!   time ───────┘    one input,           └──▶ events: log, counters, followers
//!                    then all outputs
//! ```
//!
//! The loop decides nothing. It takes one input, does all that follows from it, and then the next.
//! Inputs that are ready at once are taken in one turn, at the end of which integers are
//! published: those that were asked for together travel together, and a lone one never waits.

mod builder;
mod error;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p_identity::PeerId;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    builder::{Node, NodeBuilder},
    error::StartError,
};
use crate::{
    clock::Clock,
    config::Config,
    control::{Control, server, share::share},
    events::Events,
    files,
    gateway::Gateways,
    handle::{Asked, NodeHandle, ReadLetters, Surroundings},
    home,
    identity::{self, Identity, KeyRing, Kind, Passphrase},
    net::{self, Net},
    proto::{
        mesh::{
            NodeName,
            certificate::{Certificate, MeshKey},
        },
        p2sn::PrivateKey,
    },
    rng::random,
    rsa,
    state::{
        self, Setup, State,
        io::{Event, Failure, Input, KeyFile, NetInput, Now, Output, RequestId, Ticket},
    },
    store::{Completion, Letters, Store},
};

/// Completions of the store that wait for the loop.
const COMPLETIONS: usize = 4096;

/// Most inputs of one turn of the loop.
const TURN_INPUTS: usize = 256;

/// How long a start waits for all listeners to have an address.
const LISTEN_TIME: Duration = Duration::from_secs(3);

/// What a node needs to start.
struct Options {
    home: PathBuf,
    config: Config,
    /// The name to wish for if the configuration has none.
    fallback_name: NodeName,
    /// What opens the key files.
    passphrase: Option<Passphrase>,
}

/// What the loop owns.
struct Loop {
    state: State,
    net: Net,
    store: Store,
    peer: PeerId,
    clock: Clock,
    completions: mpsc::Receiver<Completion>,
    /// Where completions come from that are not of the store.
    done: mpsc::Sender<Completion>,
    commands: mpsc::Receiver<Asked>,
    events: Events,
    listeners: Arc<Mutex<Vec<String>>>,
    replies: HashMap<RequestId, oneshot::Sender<Result<state::io::Reply, Failure>>>,
    next_request: u64,
    handle: NodeHandle,
    gateways: Arc<Gateways>,
    rsa: Option<oneshot::Receiver<PrivateKey>>,
    /// Tells the gateways the RSA key.
    rsa_made: watch::Sender<Option<PrivateKey>>,
    home: PathBuf,
    socket: PathBuf,
    servers: Servers,
}

/// What serves the node in tasks of its own. They end with it, also if it does not come to its start,
/// or if its loop panics.
struct Servers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    gateways: Arc<Gateways>,
}

impl Servers {
    fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.gateways.close();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Loop {
    /// Starts a node: keys, store, state, network, control socket. Then [`Self::run`] it, and open the
    /// gateways: they ask the loop.
    async fn start(options: Options) -> Result<Self, StartError> {
        let Options {
            home,
            config,
            fallback_name,
            passphrase,
        } = options;
        let phrase = passphrase.as_ref();
        identity::prepare_home(&home)?;
        let files = home::missing(&home)?;
        if !files.is_empty() {
            let home = home.clone();
            return Err(StartError::Incomplete { home, files });
        }
        let held_a_node = home::held_a_node(&home)?;
        let (done, completions) = mpsc::channel(COMPLETIONS);
        // Fails only when the node is gone, and then nobody waits for the completion.
        let of_store = done.clone();
        let of_store = move |completion| drop(of_store.blocking_send(completion));
        // The lock of the home folder comes before anything that writes to it, and the store is set
        // up before the first key is made: an empty one beside a key has lost something.
        let (store, loaded) = if held_a_node {
            Store::reopen(&home, of_store)?
        } else {
            Store::open(&home, of_store)?
        };
        match files::remove_unfinished(&home) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed what was cut off while it was written"),
            Err(why) => tracing::warn!(%why, "could not look for unfinished files"),
        }
        match store.copy() {
            Some(Ok(copy)) => tracing::info!(
                copy = %copy.display(),
                "the store was brought to a new format; this copy is what an earlier pimesh reads"
            ),
            Some(Err(why)) => tracing::warn!(
                %why,
                "the store was brought to a new format, and could not be copied before"
            ),
            None => {}
        }
        let Identity { node, messaging } = match loaded.certificate {
            Some(_) => Identity::load(&home, phrase)?,
            None => Identity::load_or_create(&home, phrase)?,
        };
        let mesh = loaded.certificate.as_deref().map(Certificate::mesh_of);
        if let Some(Ok(mesh)) = &mesh {
            identity::settle_mesh_key(&home, phrase, mesh)?;
        }
        let mesh_key = match &loaded.certificate {
            Some(certificate) => own_mesh_key(&home, phrase, certificate)?,
            None => Some(identity::load_or_create_mesh_key(&home, phrase)?),
        };
        identity::list_all(&home, mesh_key.is_some())?;
        let peer = node.public().to_peer_id();
        let clock = Clock::start();
        let setup = Setup {
            peer,
            messaging_key: messaging,
            mesh_key_exported: mesh_key
                .as_ref()
                .is_some_and(|key| identity::is_exported(&home, &key.mesh())),
            mesh_key,
            name: config.name.clone().unwrap_or(fallback_name),
            seed: random(),
            settings: config.settings.clone(),
        };
        let state = State::new(setup, loaded, clock.now())?;
        let net = Net::new(
            &net::Config {
                listen: config.network.listen.clone(),
                announce: config.network.announce.clone(),
                mdns: config.network.mdns,
                connections_max: config.network.connections_max,
                memory_bytes_max: config.network.memory_bytes_max,
            },
            &node,
        )?;
        let events = Events::new(peer);
        let listeners = Arc::new(Mutex::new(Vec::new()));
        let (rsa_made, rsa_for_gateways) = watch::channel(None);
        let (handle, commands) = NodeHandle::new(Surroundings {
            home: home.clone(),
            listeners: listeners.clone(),
            events: events.clone(),
            keys: Arc::new(KeyRing::new(home.clone(), passphrase.clone())),
            history: Arc::new(store.history()?),
            letters: letter_reader(store.letters()?),
            room: net.room(),
            clock: clock.clone(),
            rsa: rsa_for_gateways,
        });
        let gateways = Arc::new(Gateways::new(handle.clone(), events.clone()));
        let rsa = rsa::prepare(&home, passphrase, config.rsa_bits);
        let socket = config
            .control
            .socket
            .clone()
            .unwrap_or_else(|| home.join("control.sock"));
        let mut node = Self {
            state,
            net,
            store,
            peer,
            clock,
            completions,
            done,
            commands,
            events,
            listeners,
            replies: HashMap::new(),
            next_request: 0,
            handle,
            servers: Servers {
                tasks: Vec::new(),
                gateways: Arc::clone(&gateways),
            },
            gateways,
            rsa: Some(rsa),
            rsa_made,
            home,
            socket,
        };
        node.drain();
        node.wait_for_listeners(config.network.listen.len()).await;
        node.serve(&config)?;
        node.servers.tasks.extend(node.clock.follow(config.ntp));
        node.servers.tasks.push(node.clock.watch());
        Ok(node)
    }

    fn control(&self) -> Control {
        Control::new(self.handle.clone(), Arc::clone(&self.gateways))
    }

    /// Runs until `stop` is done; then writes what still waits, and ends.
    async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let timeout = self.state.poll_timeout();
            let deadline =
                timeout.map(|at| tokio::time::Instant::from_std(self.clock.started() + at));
            tokio::select! {
                input = self.net.next() => self.feed(Input::Net(input)),
                Some(completion) = self.completions.recv() => self.complete(completion),
                Some(asked) = self.commands.recv() => self.command(asked),
                key = ready(&mut self.rsa) => self.rsa_made(key),
                () = self.clock.confirmed() => self.feed(Input::ClockConfirmed),
                () = sleep_until(deadline) => {
                    self.state.handle_timeout(self.now());
                    self.drain();
                }
                () = &mut stop => break,
            }
            self.finish_turn();
        }
        self.stop().await;
    }

    /// Takes what else is ready, within a limit, and publishes the integers of this turn.
    fn finish_turn(&mut self) {
        for _ in 0..TURN_INPUTS {
            if let Ok(completion) = self.completions.try_recv() {
                self.complete(completion);
            } else if let Ok(asked) = self.commands.try_recv() {
                self.command(asked);
            } else {
                break;
            }
        }
        self.net.flush();
    }

    fn feed(&mut self, input: Input) {
        if matches!(input, Input::Net(NetInput::OwnAddresses { .. })) {
            let mut listeners = self
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *listeners = self.net.listeners();
        }
        let now = self.now();
        self.state.handle(input, now);
        self.drain();
    }

    fn complete(&mut self, completion: Completion) {
        self.feed(match completion {
            Completion::Stored(ticket) => Input::Stored(ticket),
            Completion::Failed(ticket, reason) => Input::StoreFailed(ticket, reason),
            Completion::Measured(disk) => Input::Disk(disk),
        });
    }

    fn command(&mut self, (command, reply): Asked) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.replies.insert(request, reply);
        self.feed(Input::Control(request, command));
    }

    fn rsa_made(&mut self, key: Option<PrivateKey>) {
        self.rsa = None;
        if let Some(key) = key {
            self.rsa_made.send_replace(Some(key.clone()));
            self.net.set_rsa(key);
        }
    }

    /// Does everything that follows from the last input.
    fn drain(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Net(output) => self.net.act(output),
                Output::Reply(request, result) => {
                    if let Some(reply) = self.replies.remove(&request) {
                        // An asker that is gone needs no answer.
                        drop(reply.send(result));
                    }
                }
                Output::Store(ticket, records) => {
                    if let Err(reason) = self.store.write(ticket, records) {
                        let now = self.now();
                        self.state.handle(Input::StoreFailed(ticket, reason), now);
                    }
                }
                Output::KeyFile(ticket, file) => self.change_key_file(ticket, file),
                Output::Event(event) => self.tell(event),
            }
        }
    }

    /// Changes the file with the mesh key on a thread of its own: sealing it takes a while.
    fn change_key_file(&self, ticket: Ticket, file: KeyFile) {
        let (keys, done) = (Arc::clone(self.handle.keys()), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let completion = match keys.change_mesh_key(&file) {
                Ok(()) => Completion::Stored(ticket),
                Err(error) => Completion::Failed(ticket, error.to_string()),
            };
            // Fails only when the node is gone.
            drop(done.blocking_send(completion));
        });
    }

    fn tell(&mut self, event: Event) {
        if matches!(event, Event::Joined { .. })
            && let Err(error) = identity::remove_mesh_key(&self.home)
        {
            tracing::warn!(%error, "the key of the mesh that this node left is still there");
        }
        self.events.tell(event);
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    async fn wait_for_listeners(&mut self, wanted: usize) {
        let deadline = tokio::time::Instant::now() + LISTEN_TIME;
        while self.net.listeners().len() < wanted {
            tokio::select! {
                input = self.net.next() => self.feed(Input::Net(input)),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
    }

    fn serve(&mut self, config: &Config) -> Result<(), StartError> {
        let path = self.socket.clone();
        let failed = |path: String| move |source| StartError::Control { path, source };
        let unix = server::serve_unix(&path, self.control())
            .map_err(failed(path.display().to_string()))?;
        self.servers.tasks.push(tokio::spawn(unix));
        if let Some(group) = &config.control.socket_group {
            share(&path, group).map_err(failed(path.display().to_string()))?;
        }
        if let Some(address) = config.control.tcp {
            let token = self.home.join("control.token");
            let tcp = server::serve_tcp(address, &token, self.control())
                .map_err(failed(address.to_string()))?;
            self.servers.tasks.push(tokio::spawn(tcp));
        }
        Ok(())
    }

    async fn stop(mut self) {
        self.servers.abort();
        self.gateways.emptied().await;
        // The next start replaces a socket that could not be removed.
        drop(std::fs::remove_file(&self.socket));
        self.net.goodbye().await;
        self.completions.close();
        self.store.close();
    }
}

/// Returns the key of the mesh that this node is in, if it holds it. The key of another mesh is no
/// part of this node: a power cut may have left it behind when the node joined.
fn own_mesh_key(
    home: &Path,
    phrase: Option<&Passphrase>,
    certificate: &[u8],
) -> Result<Option<MeshKey>, StartError> {
    let key = identity::load_mesh_key(home, phrase)?;
    let mesh = Certificate::mesh_of(certificate).ok();
    let other = key.as_ref().filter(|key| Some(key.mesh()) != mesh);
    if let Some(other) = other {
        tracing::warn!(mesh = %other.mesh(), "`mesh.key` is the key of another mesh and is not used");
        identity::forget(home, Kind::Mesh.file_name())?;
        return Ok(None);
    }
    Ok(key)
}

async fn ready(rsa: &mut Option<oneshot::Receiver<PrivateKey>>) -> Option<PrivateKey> {
    match rsa {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Reads letters for the gateway of Syft agents.
fn letter_reader(letters: Letters) -> Arc<ReadLetters> {
    Arc::new(move |user, after| letters.read(user, after).map_err(|e| e.to_string()))
}
