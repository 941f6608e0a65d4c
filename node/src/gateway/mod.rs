//! Doors for clients of older systems, each as its clients expect it.
//!
//! ```text
//!   client ──▶ door's task: sign-in, bytes ◀─▶ meaning ──commands──▶ the node's loop
//!                          ◀────────────── replies, events ─────────
//! ```
//!
//! A door is a user of the node like any other: it asks through the [`NodeHandle`] and hears events.
//! What it knows of a protocol is in `proto`; what is decided or kept is in `state`. Doors are
//! opened and closed while the node runs ([`Gateways::apply`]), and one that cannot be opened stops
//! neither the node nor another door.
//!
//! | file | what |
//! | --- | --- |
//! | `visit` | one connection of a client, as people see it: listed, counted, kicked |
//! | `places` | how many connections there may be, in all and from one address |
//! | `tls` | certificates for doors that strangers may reach |
//! | `iid` | IID and APIntIO: WebSocket sign-in, UDP |

pub mod places;
pub mod tls;
pub mod visit;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use self::visit::{Visit, Visitors};
use crate::{
    NodeHandle,
    config::gateway::Gateways as Config,
    events::Events,
    state::io::{Failure, Gateway},
};

/// All doors, and who is behind them.
pub struct Gateways {
    visitors: Arc<Visitors>,
    doors: Mutex<BTreeMap<Gateway, Door>>,
    /// What was applied last. Held while doors are opened and closed, so that two calls do not mix.
    applied: tokio::sync::Mutex<Option<Config>>,
}

/// One door.
struct Door {
    addresses: Vec<SocketAddr>,
    error: Option<String>,
    task: Option<AbortHandle>,
}

/// A door, as `pimesh gateway list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorReport {
    /// Which.
    pub gateway: Gateway,
    /// Whether it is open.
    pub open: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Why it could not be opened, if it should be open.
    pub error: Option<String>,
    /// Clients that are signed in.
    pub clients: usize,
    /// Connections that are not signed in yet.
    pub signing_in: usize,
    /// Clients that signed in, since start.
    pub sign_ins: u64,
    /// Connections that were sent away, since start.
    pub kicks: u64,
}

/// A door that was opened: where it listens, and the task that serves it.
pub(crate) struct Opened {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) serve: futures::future::BoxFuture<'static, ()>,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateways(..)")
    }
}

impl Gateways {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            visitors: Arc::new(Visitors::new(events)),
            doors: Mutex::default(),
            applied: tokio::sync::Mutex::new(None),
        }
    }

    /// Opens and closes doors so that they are as configured. A door whose configuration is as it
    /// was stays open, and its clients stay connected.
    pub async fn apply(&self, config: &Config, node: &NodeHandle) {
        let mut applied = self.applied.lock().await;
        let earlier = applied.as_ref();
        let _ = (earlier, node);
        *applied = Some(config.clone());
    }

    /// Closes a door, and opens it again if it is to be open.
    async fn replace<E: std::error::Error>(
        &self,
        gateway: Gateway,
        open: Option<impl Future<Output = Result<Opened, E>>>,
    ) {
        self.shut(gateway);
        let Some(open) = open else { return };
        let door = match open.await {
            Ok(Opened { addresses, serve }) => {
                for address in &addresses {
                    tracing::info!(gateway = gateway.name(), %address, "gateway open");
                }
                Door {
                    addresses,
                    error: None,
                    task: Some(tokio::spawn(serve).abort_handle()),
                }
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(gateway = gateway.name(), %error, "could not open the gateway");
                Door {
                    addresses: Vec::new(),
                    error: Some(error),
                    task: None,
                }
            }
        };
        self.doors().insert(gateway, door);
    }

    fn shut(&self, gateway: Gateway) {
        let door = self.doors().remove(&gateway);
        if let Some(task) = door.and_then(|door| door.task) {
            task.abort();
            self.visitors.kick_all(gateway, "gateway_closed");
            tracing::info!(gateway = gateway.name(), "gateway closed");
        }
    }

    /// Closes all doors.
    pub(crate) fn close(&self) {
        for gateway in [Gateway::Iid, Gateway::P2sn, Gateway::Syft] {
            self.shut(gateway);
        }
    }

    /// Registers a connection of a client. It is listed until the visit is dropped.
    pub(crate) fn arrive(&self, gateway: Gateway, address: SocketAddr) -> Visit {
        self.visitors.arrive(gateway, address)
    }

    /// Returns how the doors are.
    #[must_use]
    pub fn list(&self) -> Vec<DoorReport> {
        let doors = self.doors();
        let report = |gateway: Gateway| {
            let door = doors.get(&gateway);
            let counts = self.visitors.counts(gateway);
            DoorReport {
                gateway,
                open: door.is_some_and(|door| door.task.is_some()),
                addresses: door.map(|door| door.addresses.clone()).unwrap_or_default(),
                error: door.and_then(|door| door.error.clone()),
                clients: counts.signed_in,
                signing_in: counts.signing_in,
                sign_ins: counts.sign_ins,
                kicks: counts.kicks,
            }
        };
        [Gateway::Iid, Gateway::P2sn, Gateway::Syft]
            .map(report)
            .to_vec()
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

    fn doors(&self) -> MutexGuard<'_, BTreeMap<Gateway, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
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
