//! The gateway for IID and APIntIO clients: WebSocket sign-in, integers both ways, UDP
//! (`proto-specs/iid.md`, sections 5, 6 and 10).
//!
//! ```text
//!  client ─ws─▶ connection ──Bridge──▶ the node's loop ──Integers──▶ hub ─▶ queue ─▶ connection ─ws─▶ client
//!  datagram ──▶ udp::input ──────┘      (and the mesh)        └──▶ udp::output ──▶ datagram
//! ```
//!
//! What a client sends comes back to it the same way as what comes from the mesh, so all who hear
//! an index hear one order. Judging what clients say at sign-in is `proto::iid::sign_in`.

mod connection;
mod echo;
mod hub;
mod lists;
mod queue;
mod routes;
mod udp;
pub mod upstream;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::{hub::Hub, lists::CurrentLists, upstream::Upstreams};
use super::{
    Opened, Signals,
    kind::{self, Needs},
    tls::{self, TlsError},
    visit::Visit,
};
use crate::{
    accept::accept_next,
    config::gateway::{Gateways, iid::Iid as Config},
    cross_site::{Bodies, Hosts, Policy},
    gateway::context::Context,
    limits::{ConnectionLimit, LogLimit, Permit, Source},
    proto::iid::sign_in::Refused,
    state::io::{Command, Gateway},
};

pub use self::lists::{LIST_BYTES_MAX, ListFileError};

/// Most connections that have not signed in, in all and from one address.
const UNANSWERED_MAX: usize = 1024;
const UNANSWERED_PER_ADDRESS_MAX: usize = 64;

/// How long a TLS handshake and the request for a WebSocket may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Why the gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot listen there.
    #[error("could not listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A list of who may sign in.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What goes out would come in again.
    #[error(
        "integers sent to {output} (`udp_out`) would come in again at {input} (`udp_in`): \
         give them different ports"
    )]
    UdpLoop {
        /// The target.
        output: SocketAddr,
        /// Where datagrams are taken.
        input: SocketAddr,
    },
}

/// What all connections of the gateway share.
struct IidGateway {
    config: Config,
    node: Context,
    policy: Policy,
    lists: CurrentLists,
    hub: Arc<Hub>,
    /// Limits of all connections, and of those that have not signed in.
    connections: ConnectionLimit,
    unanswered: ConnectionLimit,
    tls: Option<TlsAcceptor>,
    started: Instant,
    /// Refused sign-ins, which a person may have to know of.
    refusals: Mutex<LogLimit<(Source, &'static str)>>,
}

impl IidGateway {
    /// Writes why a client was not let in: the first time in a minute.
    fn log_refusal(&self, address: SocketAddr, refused: Refused) {
        let source = Source::from(address.ip());
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let more = refusals.admit((source, refused.name()), self.started.elapsed());
        if let Some(more) = more {
            tracing::info!(%source, reason = %refused, more, "an IID client was not let in");
        }
    }
}

/// Which of the two published servers a listener stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Port 4615.
    Push,
    /// Port 4616, which greets with where the manual is.
    Listen,
}

/// The gateway, as the list of gateways has it.
pub(super) struct IidKind;

impl kind::Kind for IidKind {
    const GATEWAY: Gateway = Gateway::Iid;
    type Settings = Config;
    type Error = OpenError;

    fn settings(config: &Gateways) -> &Config {
        &config.iid
    }

    fn settings_mut(config: &mut Gateways) -> &mut Config {
        &mut config.iid
    }

    fn is_enabled(settings: &Config) -> bool {
        settings.enabled
    }

    fn needs(settings: &Config) -> Needs {
        let listen = [Some(settings.listen), settings.listen_only];
        Needs {
            tcp: listen.into_iter().flatten().collect(),
            udp: settings.udp_in.into_iter().collect(),
            tls: settings.tls.clone(),
        }
    }

    fn open(
        settings: Config,
        context: Context,
        signals: Signals,
    ) -> impl Future<Output = Result<Opened, OpenError>> + Send {
        open(settings, context, signals)
    }

    type Outbound = Upstreams;

    fn outbound(context: Context) -> Upstreams {
        Upstreams::new(context)
    }

    fn routes(_: Context, outbound: Arc<Upstreams>) -> Router {
        routes::routes(outbound)
    }
}

async fn open(config: Config, node: Context, signals: Signals) -> Result<Opened, OpenError> {
    let home = node.home();
    let files = lists::Files::new(&config, home);
    let tls = config.tls.as_ref();
    let tls = tls.map(|files| tls::acceptor(files, home)).transpose()?;
    if let Some(input) = config.udp_in {
        udp::check_loops(input, &config.udp_out)?;
    }
    let wanted = [
        (Some(config.listen), Kind::Push),
        (config.listen_only, Kind::Listen),
    ];
    let mut listeners = Vec::new();
    for (address, kind) in wanted {
        if let Some(address) = address {
            listeners.push((listen(address).await?, kind));
        }
    }
    let addresses = listeners
        .iter()
        .filter_map(|(listener, _)| listener.local_addr().ok());
    let addresses = addresses.collect();
    let output = udp::Output::open(&config.udp_out).await?;
    let input = match config.udp_in {
        Some(address) => {
            let client = node.reserve();
            Some(udp::Input::open(address, config.udp_in_index, client).await?)
        }
        None => None,
    };
    let gateway = Arc::new(IidGateway {
        lists: CurrentLists::load(files)?,
        hub: Arc::new(Hub::new(config.all_indices, config.limits.budget)),
        connections: ConnectionLimit::new(
            config.limits.connections_max,
            config.limits.connections_max,
        ),
        unanswered: ConnectionLimit::new(UNANSWERED_MAX, UNANSWERED_PER_ADDRESS_MAX),
        // Who signs in is known by a key or a password and by nothing that a browser adds by itself,
        // so a page has no more than any program: the published pages are on sites of their own.
        policy: Policy {
            origins: config.origins.clone(),
            hosts: Hosts::Any,
            bodies: Bodies::Any,
        },
        config,
        node,
        tls,
        started: Instant::now(),
        refusals: Mutex::default(),
    });
    Ok(Opened {
        addresses,
        serve: Box::pin(serve(gateway, listeners, output, input, signals)),
        stops_itself: true,
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, OpenError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| OpenError::Listen { address, source })
}

async fn serve(
    gateway: Arc<IidGateway>,
    listeners: Vec<(TcpListener, Kind)>,
    output: udp::Output,
    input: Option<udp::Input>,
    signals: Signals,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for (listener, kind) in listeners {
        tasks.spawn(accept(Arc::clone(&gateway), listener, kind));
    }
    tasks.spawn(Arc::clone(&gateway.hub).run(gateway.node.clone()));
    let own_input = input.as_ref().map(udp::Input::client);
    tasks.spawn(output.run(gateway.node.clone(), own_input));
    if let Some(input) = input {
        tasks.spawn(input.run(gateway.node.clone()));
    }
    let (refresh, node) = (signals.refresh, gateway.node.clone());
    tasks.spawn(async move {
        tell_indices(&gateway).await;
        loop {
            let waiting = gateway.lists.changed(&refresh).await;
            gateway.hub.judge_again(&gateway.lists.get());
            tell_indices(&gateway).await;
            drop(waiting);
        }
    });
    tokio::select! {
        () = signals.stop.cancelled() => {}
        () = async { while tasks.join_next().await.is_some() {} } => {}
    }
    // The tasks hold the sockets: these are closed when all have ended.
    tasks.shutdown().await;
    drop(node.ask(Command::ClientIndices(BTreeSet::new())).await);
}

/// Tells the node which indices its clients have, so that it gives none of them to a new member.
async fn tell_indices(gateway: &IidGateway) {
    let lists = gateway.lists.get();
    let allowed = lists.claims.iter().map(|(index, _)| index);
    let indices = allowed.chain(gateway.config.udp_in_index).collect();
    // Fails only while the node stops.
    drop(gateway.node.ask(Command::ClientIndices(indices)).await);
}

/// Takes connections. Each has a task of its own, which ends by itself when the gateway closes, for
/// its client is then sent away.
async fn accept(gateway: Arc<IidGateway>, listener: TcpListener, kind: Kind) {
    loop {
        let (stream, address) = accept_next(&listener).await;
        let permit = gateway.connections.acquire(address.ip());
        let (Some(permit), Some(unanswered)) = (permit, gateway.unanswered.acquire(address.ip()))
        else {
            // Not listed, so that a flood of connections is no flood of events.
            gateway.node.count("iid_no_place");
            continue;
        };
        let visit = gateway.node.arrive(Gateway::Iid, address);
        // A value is 16 bytes; waiting to fill a packet would cost more than it saves.
        drop(stream.set_nodelay(true));
        let arrival = Arrival {
            gateway: Arc::clone(&gateway),
            kind,
            visit,
            _permit: permit,
            unanswered,
        };
        tokio::spawn(arrival.receive(stream));
    }
}

/// A connection that was taken and is nothing yet.
struct Arrival {
    gateway: Arc<IidGateway>,
    kind: Kind,
    visit: Visit,
    _permit: Permit,
    unanswered: Permit,
}

impl Arrival {
    async fn receive(self, stream: TcpStream) {
        let Some(tls) = self.gateway.tls.clone() else {
            return connection::serve(self, stream).await;
        };
        match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection::serve(self, stream).await,
            Ok(Err(_)) => self.visit.refuse("no_tls"),
            Err(_) => self.visit.refuse("handshake_timeout"),
        }
    }
}

/// Returns the list of letters that were taken back, for those who edit it.
#[must_use]
pub fn revoked_file(home: &std::path::Path) -> PathBuf {
    home.join(lists::REVOKED)
}

/// Returns the allow list of a configuration, for those who edit it.
#[must_use]
pub fn claims_file(config: &Config, home: &std::path::Path) -> PathBuf {
    lists::Files::new(config, home).claims
}
