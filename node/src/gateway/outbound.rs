//! This node as a client of foreign servers: what gateways that are one have in common.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use super::standing::Standing;
use crate::{config::gateway::Gateways as Config, state::io::Gateway};

/// A foreign server that this node is a client of, whichever gateway speaks with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which gateway.
    pub gateway: Gateway,
    /// Where the server is.
    pub url: String,
    /// How it stands.
    pub state: String,
    /// What the owner of this node can do, if it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a gateway does as a client of servers of its kind, for as long as the node runs, whether the
/// gateway itself is open or not.
pub(super) trait Outbound: Send + Sync + 'static {
    /// Becomes a client of the configured servers, and of no others. Where the next attempt is
    /// waited for, it is made at once. What is returned ends when there is something to show.
    fn apply(&self, config: &Config) -> BoxFuture<'static, ()>;

    /// Returns how it stands with each of them.
    fn servers(&self) -> Vec<ServerStatus>;

    /// Is a client of none from here on.
    fn close(&self);
}

/// A gateway that is no client of any server.
impl Outbound for () {
    fn apply(&self, _: &Config) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        Vec::new()
    }

    fn close(&self) {}
}

/// Servers that are configured as `S` says and reported as `R` says, with a task for each.
pub(super) struct Servers<S, R> {
    /// `None` once the node stops.
    running: Mutex<Option<BTreeMap<S, Running<R>>>>,
}

/// The task that speaks with a server, and how that stands.
pub(super) struct Running<R> {
    pub(super) task: AbortHandle,
    pub(super) standing: Arc<Standing<R>>,
}

impl<S: Ord + Clone, R: Clone> Servers<S, R> {
    pub(super) const fn new() -> Self {
        Self {
            running: Mutex::new(Some(BTreeMap::new())),
        }
    }

    /// Ends what runs for servers that are not wanted, and starts those that are new.
    pub(super) fn set(&self, wanted: &[S], mut start: impl FnMut(S) -> Running<R>) {
        let mut running = self.running();
        let Some(running) = running.as_mut() else {
            return;
        };
        running.retain(|server, at_it| {
            let stays = wanted.contains(server);
            if !stays {
                at_it.task.abort();
            }
            stays
        });
        for server in wanted {
            match running.get(server) {
                Some(at_it) if !at_it.task.is_finished() => at_it.standing.retry_now(),
                // New, or its task has panicked.
                _ => {
                    running.insert(server.clone(), start(server.clone()));
                }
            }
        }
    }

    /// Returns how it stands with each server.
    pub(super) fn each<T>(&self, report: impl Fn(&Standing<R>) -> T) -> Vec<T> {
        let running = self.running();
        let all = running.iter().flat_map(BTreeMap::values);
        all.map(|at_it| report(&at_it.standing)).collect()
    }

    /// Ends all; none is started any more.
    pub(super) fn close(&self) {
        for (_, at_it) in self.running().take().into_iter().flatten() {
            at_it.task.abort();
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<BTreeMap<S, Running<R>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_that_are_not_wanted_end_and_none_starts_once_all_are_closed() {
        let servers = Servers::<&str, &str>::new();
        let mut started = Vec::new();
        let mut set = |wanted: &[&'static str]| {
            servers.set(wanted, |server| {
                let task = tokio::spawn(std::future::pending::<()>());
                started.push(server);
                Running {
                    task: task.abort_handle(),
                    standing: Arc::new(Standing::new(server)),
                }
            });
            servers.each(|standing| standing.report().0)
        };

        assert_eq!(set(&["a", "b"]), ["a", "b"]);
        assert_eq!(set(&["b", "c"]), ["b", "c"]);
        servers.close();
        assert!(set(&["a"]).is_empty());

        assert_eq!(started, ["a", "b", "c"]);
    }
}
