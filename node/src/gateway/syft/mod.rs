//! The gateway for Syft agents (`proto-specs/syft.md`, sections 5 to 9).
//!
//! ```text
//!   agent ─▶ TLS? ─▶ HTTP: http.rs ─┬─▶ register, log in: tokens.rs
//!                                   ├─▶ ask one's own agent: forward.rs
//!                                   └─▶ /ws: session.rs ─▶ letters ─▶ the node's loop
//!                                              ▲                          │ events
//!                                              └── hub.rs: who is to look ◀┘
//! ```
//!
//! The other way round, `server.rs` makes the node a client of a foreign server.
//!
//! Unchanged Python, Go and Electron clients connect here as they did to their central server. The
//! gateway passes letters on unopened; it holds no key of a user. What waits for a user is on disk,
//! and a session reads it from there at the pace of its client, so a client that does not read
//! costs no memory.
//!
//! When the gateway closes, nothing that comes after that is answered: quiet connections end at once, a
//! request that was read already has a second, and sessions are sent away with a goodbye.

mod forward;
mod http;
mod hub;
mod rate;
mod revoked;
mod routes;
pub mod server;
mod session;
mod tokens;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{forward::Forwards, hub::Hub, revoked::Revoked, server::Outgoing, tokens::Tokens};
use super::{
    Opened, Signals,
    kind::{Kind, Needs},
    tls::{self, TlsError},
};
use crate::{
    accept::accept_next,
    config::gateway::{
        Gateways,
        syft::{Syft, Tls},
    },
    cross_site::{Bodies, Hosts, Policy},
    gateway::context::Context,
    limits::{Buckets, ConnectionLimit, Permit, Source},
    proto::syft::http::Challenges,
    state::io::Gateway,
};

/// How long a TLS handshake, and the head of a request, may take.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a request that is under way when the gateway closes may still take.
const ENDING_TIME: Duration = Duration::from_secs(1);

/// Why the gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyftError {
    /// The address.
    #[error("could not listen at {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secret of the tokens.
    #[error("could not read or make the secret of the tokens, {0}")]
    Secret(PathBuf, #[source] io::Error),
}

/// Returns what web pages may ask.
fn policy(config: &Syft) -> Policy {
    let hosts = match config.tls {
        // Without TLS the gateway is on loopback, and behind whatever name the owner gives it.
        Tls::Off => {
            let own = tls::own_names(IpAddr::from([0, 0, 0, 0]));
            Hosts::Named([own, config.hosts.clone()].concat())
        }
        // A stranger's name needs a certificate of that name.
        Tls::SelfSigned | Tls::Files(_) => Hosts::Any,
    };
    Policy {
        origins: config.cors_origins.clone(),
        hosts,
        bodies: Bodies::NoForms,
    }
}

/// What all tasks of the gateway share.
struct SyftGateway {
    node: Context,
    config: Syft,
    /// What web pages may ask.
    policy: Policy,
    tokens: Tokens,
    revoked: Revoked,
    challenges: std::sync::Mutex<Challenges>,
    hub: Arc<Hub>,
    forwards: Forwards,
    failures: Buckets<Source>,
    registrations: Buckets<Source>,
    frames: rate::Room,
    started: std::time::Instant,
    /// Cancelled when the gateway closes, before its sessions are sent away.
    closing: CancellationToken,
}

/// A connection of a client: where it comes from, and its place.
struct Caller {
    address: SocketAddr,
    _permit: Permit,
}

/// The gateway, as the list of gateways has it.
pub(super) struct SyftKind;

impl Kind for SyftKind {
    const GATEWAY: Gateway = Gateway::Syft;
    type Settings = Syft;
    type Error = SyftError;

    fn settings(config: &Gateways) -> &Syft {
        &config.syft
    }

    fn settings_mut(config: &mut Gateways) -> &mut Syft {
        &mut config.syft
    }

    fn is_enabled(settings: &Syft) -> bool {
        settings.enabled
    }

    fn needs(settings: &Syft) -> Needs {
        Needs {
            tcp: vec![settings.listen],
            udp: vec![],
            tls: match &settings.tls {
                Tls::Files(files) => Some(files.clone()),
                Tls::Off | Tls::SelfSigned => None,
            },
        }
    }

    fn open(
        settings: Syft,
        context: Context,
        signals: Signals,
    ) -> impl Future<Output = Result<Opened, SyftError>> + Send {
        open(settings, context, signals)
    }

    type Outbound = Outgoing;

    fn outbound(context: Context) -> Outgoing {
        Outgoing::new(context)
    }

    fn routes(context: Context, outbound: Arc<Outgoing>) -> Router {
        routes::routes(context, outbound)
    }
}

async fn open(config: Syft, node: Context, signals: Signals) -> Result<Opened, SyftError> {
    let home = node.home().to_owned();
    let secret = home.join("syft.secret");
    let tokens = Tokens::load(
        &secret,
        config.limits.token_lifetime,
        config.limits.token_grace,
    )
    .map_err(|source| SyftError::Secret(secret, source))?;
    let tls = match &config.tls {
        Tls::Off => None,
        Tls::Files(files) => Some(tls::acceptor(files, &home)?),
        Tls::SelfSigned => {
            let names = tls::own_names(config.listen.ip());
            let files = tls::self_signed(&home.join("syft"), names)?;
            let sha256 = tls::fingerprint(&files.certificate)?;
            tracing::info!(gateway = "syft", %sha256, "certificate of the node's own");
            // Their paths begin with the home folder already.
            Some(tls::acceptor(&files, Path::new(""))?)
        }
    };
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| SyftError::Listen(config.listen, source))?;
    let addresses = listener.local_addr().into_iter().collect();
    let connections = ConnectionLimit::new(
        config.limits.connections_max,
        config.limits.connections_per_address_max,
    );
    let hub = Arc::new(Hub::default());
    let gateway = Arc::new(SyftGateway {
        tokens,
        revoked: Revoked::new(node.records(Gateway::Syft)),
        challenges: std::sync::Mutex::default(),
        hub: Arc::clone(&hub),
        forwards: Forwards::default(),
        failures: Buckets::new(rate::FAILURES),
        registrations: Buckets::new(rate::registrations(config.limits.registrations_burst)),
        frames: rate::Room::default(),
        started: std::time::Instant::now(),
        policy: policy(&config),
        config,
        node: node.clone(),
        closing: signals.stop,
    });
    let events = node.events();
    let serve = async move {
        tokio::select! {
            () = accept(listener, tls, connections, gateway) => {}
            () = hub.follow(events) => {}
        }
    };
    Ok(Opened {
        addresses,
        serve: Box::pin(serve),
        stops_itself: true,
    })
}

/// Takes connections until the gateway closes, and waits then for those that are no sessions.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: ConnectionLimit,
    gateway: Arc<SyftGateway>,
) {
    // Those that are no sessions: a session leaves its connection's task, and says goodbye itself.
    let mut tasks = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = accept_next(&listener) => accepted,
            Some(_) = tasks.join_next() => continue,
            () = gateway.closing.cancelled() => break,
        };
        let Some(permit) = connections.acquire(address.ip()) else {
            gateway.count("connection", "too_many");
            continue;
        };
        let caller = Caller {
            address,
            _permit: permit,
        };
        tasks.spawn(greet(stream, caller, tls.clone(), Arc::clone(&gateway)));
    }
    drop(listener);
    let ended = async { while tasks.join_next().await.is_some() {} };
    // The others end where they are.
    drop(tokio::time::timeout(ENDING_TIME, ended).await);
}

async fn greet(
    stream: TcpStream,
    caller: Caller,
    tls: Option<TlsAcceptor>,
    gateway: Arc<SyftGateway>,
) {
    // Small frames are worth more sent at once than together.
    drop(stream.set_nodelay(true));
    match tls {
        None => serve(stream, caller, gateway).await,
        Some(tls) => {
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(HEAD_TIME, tls.accept(stream)) => accepted,
                () = gateway.closing.cancelled() => return,
            };
            match accepted {
                Ok(Ok(stream)) => serve(stream, caller, gateway).await,
                Ok(Err(_)) | Err(_) => gateway.count("connection", "tls"),
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    gateway: Arc<SyftGateway>,
) {
    let (caller, closing) = (Arc::new(caller), gateway.closing.clone());
    let service = hyper::service::service_fn(move |request| {
        let (gateway, caller) = (Arc::clone(&gateway), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(http::answer(gateway, caller, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection of the Syft gateway ended");
    }
}

impl SyftGateway {
    /// Counts something that was refused; the words become labels of a counter.
    fn count(&self, what: &'static str, why: &'static str) {
        self.node.tell(crate::state::io::Event::Refused {
            peer: None,
            what,
            why,
        });
    }

    /// Time since the gateway opened: what challenges and buckets count in.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Calendar time in milliseconds since 1970, by the node's clock. Records of revoked tokens end
    /// by the same one, so none of them is taken for good by another.
    fn unix_ms(&self) -> u64 {
        self.node.clock().now().unix_ms()
    }
}
