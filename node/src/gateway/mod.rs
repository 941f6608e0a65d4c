//! Gateways for clients of older systems, each as its clients expect it.
//!
//! ```text
//!   client ──▶ gateway's task: sign-in, bytes ◀─▶ meaning ──commands──▶ the node's loop
//!                          ◀────────────── replies, events ─────────
//! ```
//!
//! A gateway is a user of the node like any other: it asks through its `Context` and hears events.
//! What it knows of a protocol is in `proto`; what is decided or kept is in `state`. Gateways are
//! opened and closed while the node runs ([`Gateways::apply`]), and one that cannot be opened stops
//! neither the node nor another gateway.
//!
//! | file | what |
//! | --- | --- |
//! | `kind` | what a gateway is to the node: the trait that it implements |
//! | `context` | what a gateway may ask of the node |
//! | `records` | a small durable space of each gateway's own |
//! | `visit` | one connection of a client, as people see it: listed, counted, kicked |
//! | `supervisor` | one gateway: started, tried again, stopped |
//! | `outbound` | this node as a client of foreign servers: what gateways have in common there |
//! | `refresh` | having a gateway read its files again |
//! | `tls` | certificates for gateways that strangers may reach |
//! | `p2sn` | P2SN: clients over TCP, and this node as a client |
//! | `iid` | IID and APIntIO: WebSocket sign-in, UDP, and this node as a client |
//! | `syft` | Syft agents: HTTP and WebSocket, and this node as a client |
//!
//! In the folder of a gateway, `mod.rs` implements the trait, and `routes.rs` serves what its words on
//! the command line ask for, under `/v1/gateways/NAME`. But for the list of them (`REGISTRY`), nothing
//! else here knows a gateway by name. `README.md` says how to add one.

mod backoff;
pub(crate) mod context;
pub mod iid;
mod kind;
mod outbound;
pub mod p2sn;
mod paced;
mod pinned;
pub mod records;
mod refresh;
mod standing;
mod supervisor;
pub mod syft;
pub mod tls;
pub mod visit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use serde::{Deserialize, Serialize};

pub use self::outbound::ServerStatus;
pub(crate) use self::supervisor::{Opened, Signals};
use self::{
    context::Context,
    kind::{Attached, Needs, Of, Registered},
    supervisor::Supervised,
    visit::Visitors,
};
use crate::{
    NodeHandle,
    config::gateway::Gateways as Config,
    events::Events,
    state::io::{Failure, Gateway},
};

/// The gateways, in the order in which they are listed. A new one is a line here, and its folder.
static REGISTRY: [&dyn Registered; 3] = [
    &Of::<iid::IidKind>::NEW,
    &Of::<p2sn::P2snKind>::NEW,
    &Of::<syft::SyftKind>::NEW,
];

/// How long a stop waits for clients to hear of it.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// All gateways, and who is behind them.
pub struct Gateways {
    visitors: Arc<Visitors>,
    context: Context,
    gateways: Mutex<BTreeMap<Gateway, Supervised>>,
    attached: Vec<Attached>,
    /// What was applied last. Held while gateways are opened and closed, so that two calls do not mix.
    applied: tokio::sync::Mutex<Option<Config>>,
    /// Gateways that go on with earlier settings, and why.
    refused: Mutex<BTreeMap<Gateway, String>>,
    /// Whether the node stops: nothing is opened any more.
    closed: AtomicBool,
}

/// One of the gateways.
type Kind = &'static dyn Registered;

/// A gateway, as `pimesh gateway list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Which.
    pub gateway: Gateway,
    /// Whether it is open.
    pub open: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Why it could not be opened, if it should be open. It is tried again.
    pub error: Option<String>,
    /// Time until it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
    /// Why it did not open with the settings that were asked for last; it goes on with those
    /// before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Clients that are signed in.
    pub clients: usize,
    /// Connections that are not signed in yet.
    pub signing_in: usize,
    /// Clients that signed in, since start.
    pub sign_ins: u64,
    /// Connections that were refused or sent away, since start.
    pub kicks: u64,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateways(..)")
    }
}

impl Gateways {
    pub(crate) fn new(node: NodeHandle, events: Events) -> Self {
        let visitors = Arc::new(Visitors::new(events));
        let context = Context::new(node, Arc::clone(&visitors));
        Self {
            attached: REGISTRY.map(|kind| kind.attach(&context)).into(),
            context,
            visitors,
            gateways: Mutex::default(),
            applied: tokio::sync::Mutex::new(None),
            refused: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Opens and closes gateways so that they are as configured. A gateway whose configuration is as it
    /// was stays open, and its clients stay connected.
    ///
    /// All that change are closed before any is opened: one may get the port of another. Returns
    /// when each has opened or is known not to open, which [`Gateways::list`] tells; a gateway that
    /// does not open is tried again until it does or is configured otherwise. One that was open, and
    /// does not open with its new settings, goes on with those before; as far as that can be seen
    /// before it is closed, its clients stay connected.
    pub async fn apply(&self, config: &Config) {
        let mut applied = self.applied.lock().await;
        let mut config = config.clone();
        let is_changed = |kind: &Kind| match applied.as_ref() {
            Some(earlier) => !kind.is_same(earlier, &config),
            None => true,
        };
        let mut changed: Vec<Kind> = REGISTRY.into_iter().filter(is_changed).collect();
        self.refused().clear();
        if let Some(earlier) = applied.as_ref() {
            let freed = self.ports_of(&changed, earlier);
            for kind in std::mem::take(&mut changed) {
                let probed = if self.is_open(kind.gateway()) {
                    self.probe(kind, earlier, &config, freed.clone()).await
                } else {
                    Ok(())
                };
                if let Err(why) = probed {
                    self.keep(kind, earlier, &mut config, why);
                    log_kept(kind.gateway());
                } else {
                    changed.push(kind);
                }
            }
        }
        let mut were_open = changed.clone();
        were_open.retain(|kind| self.is_open(kind.gateway()));
        for kind in &changed {
            self.shut(kind.gateway()).await;
        }
        self.start(&changed, &config);
        self.settle().await;
        if let Some(earlier) = applied.as_ref() {
            self.go_back(&were_open, earlier, &mut config).await;
        }
        let applying = self.attached.iter().map(|of| of.outbound.apply(&config));
        futures::future::join_all(applying).await;
        *applied = Some(config);
    }

    /// Tries what a running gateway would take with new settings; on a thread of its own, for it reads
    /// files.
    async fn probe(
        &self,
        kind: Kind,
        earlier: &Config,
        config: &Config,
        freed: BTreeSet<u16>,
    ) -> Result<(), String> {
        let (to, earlier) = (kind.needs(config), kind.needs(earlier));
        let home = self.context.home().to_owned();
        let probed = tokio::task::spawn_blocking(move || to.probe(&earlier, &freed, &home));
        probed.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Opens those of these gateways again with earlier settings that were open with them and are not
    /// with the new ones.
    async fn go_back(&self, were_open: &[Kind], earlier: &Config, config: &mut Config) {
        let mut failed = Vec::new();
        for kind in were_open.iter().copied() {
            let gateway = kind.gateway();
            let status = self.gateways().get(&gateway).map(Supervised::status);
            let Some(why) = status.and_then(|status| status.error) else {
                continue;
            };
            self.shut(gateway).await;
            self.keep(kind, earlier, config, why);
            failed.push(kind);
        }
        if failed.is_empty() {
            return;
        }
        self.start(&failed, config);
        self.settle().await;
        for gateway in failed.into_iter().map(Registered::gateway) {
            if self.is_open(gateway) {
                log_kept(gateway);
            } else {
                tracing::error!(
                    gateway = gateway.name(),
                    "the gateway opens neither with its new settings nor, at once, with those \
                     before; these are tried again"
                );
            }
        }
    }

    /// Has a gateway go on with its earlier settings.
    fn keep(&self, kind: Kind, earlier: &Config, config: &mut Config, why: String) {
        let gateway = kind.gateway();
        tracing::warn!(gateway = gateway.name(), %why, "the new settings of a gateway are refused");
        kind.copy(earlier, config);
        self.refused().insert(gateway, why);
    }

    fn start(&self, kinds: &[Kind], config: &Config) {
        for kind in kinds {
            if let Some(open) = kind.opener(config, &self.context) {
                let gateway = kind.gateway();
                let mut gateways = self.gateways();
                // Looked at under the lock under which `close` takes them all.
                if !self.closed.load(Ordering::Relaxed) {
                    gateways.insert(gateway, Supervised::start(gateway, open));
                }
            }
        }
    }

    /// Returns the ports that gateways which are open give back when they are closed.
    fn ports_of(&self, kinds: &[Kind], config: &Config) -> BTreeSet<u16> {
        let running = self.gateways();
        let of = |kind: &Kind| {
            let status = running.get(&kind.gateway()).map(Supervised::status);
            let bound = status.map(|status| status.addresses).unwrap_or_default();
            let Needs { tcp, udp, .. } = kind.needs(config);
            bound.into_iter().chain(tcp).chain(udp)
        };
        kinds
            .iter()
            .flat_map(of)
            .map(|address| address.port())
            .collect()
    }

    /// Waits until each gateway has opened or is known not to open.
    async fn settle(&self) {
        let (refreshed, settled): (Vec<_>, Vec<_>) = {
            let gateways = self.gateways();
            let both = |supervised: &Supervised| (supervised.refresh(), supervised.settled());
            gateways.values().map(both).unzip()
        };
        futures::future::join_all(settled).await;
        futures::future::join_all(refreshed).await;
    }

    fn is_open(&self, gateway: Gateway) -> bool {
        let gateways = self.gateways();
        gateways
            .get(&gateway)
            .is_some_and(|supervised| supervised.status().open)
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<Gateway, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a gateway. When this returns its ports are free.
    async fn shut(&self, gateway: Gateway) {
        let supervised = self.gateways().remove(&gateway);
        let Some(supervised) = supervised else {
            return;
        };
        supervised.stop().await;
        self.visitors.kick_all(gateway, "gateway_closed");
        tracing::info!(gateway = gateway.name(), "gateway closed");
    }

    /// Closes all gateways.
    pub(crate) fn close(&self) {
        for of in &self.attached {
            of.outbound.close();
        }
        let gateways = {
            let mut gateways = self.gateways();
            self.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *gateways)
        };
        for (gateway, supervised) in gateways {
            supervised.cancel();
            self.visitors.kick_all(gateway, "gateway_closed");
        }
    }

    /// Waits until the clients have heard that the gateways are closed, but not for long.
    pub(crate) async fn emptied(&self) {
        // Who is still here does not read; the system closes its connection.
        drop(tokio::time::timeout(GOODBYE_TIME, self.visitors.emptied()).await);
    }

    /// Returns what the control socket serves for them, each under its name.
    pub(crate) fn routes(&self) -> Router {
        let nest = |router: Router, of: &Attached| {
            let path = format!("/v1/gateways/{}", of.gateway.name());
            router.nest(&path, of.routes.clone())
        };
        self.attached.iter().fold(Router::new(), nest)
    }

    /// Returns how it stands with the foreign servers that this node is a client of.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        let each = self.attached.iter().map(|of| of.outbound.servers());
        each.flatten().collect()
    }

    /// Returns how the gateways are.
    #[must_use]
    pub fn list(&self) -> Vec<GatewayReport> {
        let gateways = self.gateways();
        let refused = self.refused().clone();
        let report = |gateway: Gateway| {
            let status = gateways.get(&gateway).map(Supervised::status);
            let status = status.unwrap_or_default();
            let counts = self.visitors.counts(gateway);
            GatewayReport {
                gateway,
                open: status.open,
                addresses: status.addresses,
                error: status.error,
                refused: refused.get(&gateway).cloned(),
                next_ms: status.next.map(|next| {
                    let wait = next.saturating_duration_since(Instant::now());
                    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
                }),
                clients: counts.signed_in,
                signing_in: counts.signing_in,
                sign_ins: counts.sign_ins,
                kicks: counts.kicks,
            }
        };
        REGISTRY.map(|kind| report(kind.gateway())).to_vec()
    }

    /// Returns who is connected.
    #[must_use]
    pub fn clients(&self) -> Vec<visit::ClientReport> {
        self.visitors.list()
    }

    /// Sends clients away: the one with this number, or all with this name.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn kick(&self, who: &str) -> Result<Vec<visit::ClientReport>, Failure> {
        let kicked = self.visitors.kick(who);
        if kicked.is_empty() {
            return Err(Failure::not_found(format!("no client is `{who}`"))
                .with_hint("`pimesh gateway clients` lists them; name a number or a name"));
        }
        Ok(kicked)
    }

    fn gateways(&self) -> MutexGuard<'_, BTreeMap<Gateway, Supervised>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn log_kept(gateway: Gateway) {
    tracing::warn!(
        gateway = gateway.name(),
        "the gateway goes on with its earlier settings"
    );
}
