//! The gateway for P2SN programs, and the node as a client of their servers
//! (`proto-specs/p2sn.md`, sections 9 and 10).
//!
//! ```text
//!   program ──TCP──▶ session ──Judge──▶ state: pinned keys
//!                            ──Deliver─▶ state: inbox, or outbox for a member; then OK
//!                            ◀──Take──── state: what waits for this client, in the place of OK
//! ```
//!
//! The sessions themselves are in `p2sn_session`. P2SN proves nobody's identity: what comes through
//! here is marked with the address and the key it came with, and is worth no more than that.
//!
//! | file | what |
//! | --- | --- |
//! | `budgets` | how many failures and messages a key or an address has |
//! | `client` | one connection of a client |
//! | `send` | this node as the client |
//! | `routes` | what the command line asks for |

mod budgets;
mod client;
mod routes;
mod send;

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use futures::FutureExt;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use self::{budgets::Budgets, client::Client, send::Sender};
pub use self::{
    routes::P2snAddress,
    send::{NewP2snMessage, P2snReplied},
};
use super::{
    Opened, Signals,
    kind::{Kind, Needs},
};
use crate::{
    accept::accept_next,
    config::gateway::{Gateways, p2sn::P2sn as Config},
    gateway::context::Context,
    limits::{ConnectionLimit, Permit},
    p2sn_session::{Steps, Terms},
    proto::p2sn::{KeyPolicy, Limits},
    state::io::Gateway,
};

/// Threads for the RSA of all clients of the gateway. Half of a Pi's cores, so that a flood leaves the
/// other half to the mesh.
const STEPS_AT_ONCE: usize = 2;

/// Why the gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// It cannot listen.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The gateway, as the list of gateways has it.
pub(super) struct P2snKind;

impl Kind for P2snKind {
    const GATEWAY: Gateway = Gateway::P2sn;
    type Settings = Config;
    type Error = OpenError;

    fn settings(config: &Gateways) -> &Config {
        &config.p2sn
    }

    fn settings_mut(config: &mut Gateways) -> &mut Config {
        &mut config.p2sn
    }

    fn is_enabled(settings: &Config) -> bool {
        settings.enabled
    }

    fn needs(settings: &Config) -> Needs {
        Needs {
            tcp: vec![settings.listen],
            ..Needs::default()
        }
    }

    fn open(
        settings: Config,
        context: Context,
        _signals: Signals,
    ) -> impl Future<Output = Result<Opened, OpenError>> + Send {
        open(settings, context)
    }

    type Outbound = Sender;

    fn outbound(context: Context) -> Sender {
        Sender::new(context)
    }

    fn routes(context: Context, outbound: Arc<Sender>) -> Router {
        routes::routes(context, outbound)
    }
}

async fn open(config: Config, node: Context) -> Result<Opened, OpenError> {
    let address = config.listen;
    let failed = |source| OpenError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let addresses = vec![listener.local_addr().map_err(failed)?];
    let gateway = Arc::new(P2snGateway {
        connections: ConnectionLimit::new(
            config.connections_max,
            config.connections_per_address_max,
        ),
        budgets: Budgets::new(),
        steps: Steps::at_once(STEPS_AT_ONCE),
        config,
        node,
    });
    Ok(Opened {
        addresses,
        serve: serve(listener, gateway).boxed(),
        stops_itself: false,
    })
}

/// What all connections of the gateway share.
struct P2snGateway {
    config: Config,
    node: Context,
    connections: ConnectionLimit,
    budgets: Budgets,
    steps: Steps,
}

/// Serves until it is dropped, and all its connections with it.
async fn serve(listener: TcpListener, gateway: Arc<P2snGateway>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, address) = accept_next(&listener) => {
                if let Some(permit) = gateway.admit(address) {
                    connections.spawn(Arc::clone(&gateway).connection(stream, address, permit));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl P2snGateway {
    /// Takes a permit for a connection. A connection without one is not listed, so that a flood of
    /// connections is no flood of events.
    fn admit(&self, address: SocketAddr) -> Option<Permit> {
        let permit = self.connections.acquire(address.ip());
        if permit.is_none() {
            self.node.count("p2sn_no_place");
        }
        permit
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, _permit: Permit) {
        // Answers are small and waited for. A socket that refuses this works all the same.
        drop(stream.set_nodelay(true));
        let Some(turn) = self.budgets.may_begin(address.ip().into()).await else {
            return self.node.count("p2sn_failed_too_often");
        };
        let visit = self.node.arrive(Gateway::P2sn, address);
        Client::new(&self, address, visit, turn).run(stream).await;
    }

    /// Returns what a session is from its beginning, once this node has an RSA key.
    async fn terms(&self) -> Option<Terms> {
        let mut own = self.node.rsa();
        let own = own.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(Terms {
            own,
            policy: KeyPolicy {
                bits_min: self.config.min_key_bits,
            },
            limits: Limits {
                exchange: self.config.exchange_time,
                idle: self.config.idle_time,
                ..Limits::old_clients()
            },
            steps: self.steps.clone(),
        })
    }
}
