//! Who hears what: integers from the node go to the clients of their index, or to all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use crate::{
    gateway::context::Context,
    proto::iid::{
        Iid, Index,
        budget::{Budget, Limits, Span},
        lists::Lists,
        sign_in::SignedIn,
    },
    state::io::{ClientId, Event},
};

/// The clients that are signed in, and what their indices have sent.
pub(super) struct Hub {
    all_indices: bool,
    limits: Limits,
    started: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    listeners: BTreeMap<Index, HashMap<ClientId, Listener>>,
    /// Kept when the clients of an index go: coming back must not make its budget anew. At most as
    /// many as the lists have indices.
    budgets: HashMap<Index, Budget>,
}

struct Listener {
    queue: Arc<Queue>,
    who: SignedIn,
    revoked: CancellationToken,
}

impl Hub {
    pub(super) fn new(all_indices: bool, limits: Limits) -> Self {
        Self {
            all_indices,
            limits,
            started: Instant::now(),
            table: Mutex::default(),
        }
    }

    /// Hands out what the node hears and what its own clients send, until the node stops.
    pub(super) async fn run(self: Arc<Self>, node: Context) {
        let mut events = node.events();
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Event::Integers(integers) = &*event
                        && !integers.last_known
                    {
                        self.hand_out(&integers.iids);
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "integers came faster than clients can be told");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn hand_out(&self, iids: &[Iid]) {
        let table = self.table();
        if self.all_indices {
            let all = table.listeners.values().flat_map(HashMap::values);
            all.for_each(|listener| listener.queue.push(iids));
            return;
        }
        for run in iids.chunk_by(|one, next| one.index == next.index) {
            let Some(listeners) = run.first().and_then(|iid| table.listeners.get(&iid.index))
            else {
                continue;
            };
            listeners
                .values()
                .for_each(|listener| listener.queue.push(run));
        }
    }

    /// Adds a client. It hears everything from here on, until what is returned is dropped.
    pub(super) fn join(self: &Arc<Self>, client: ClientId, who: SignedIn) -> Seat {
        let (queue, revoked) = (Arc::new(Queue::default()), CancellationToken::new());
        let seat = Seat {
            hub: Arc::clone(self),
            client,
            index: who.index,
            queue: Arc::clone(&queue),
            revoked: revoked.clone(),
        };
        let listener = Listener {
            queue,
            who,
            revoked,
        };
        let mut table = self.table();
        let of_index = table.listeners.entry(seat.index).or_default();
        of_index.insert(client, listener);
        seat
    }

    /// Counts bytes of integers that an index sends.
    ///
    /// # Errors
    /// Returns the window that is full.
    pub(super) fn spend(&self, index: Index, bytes: u64) -> Result<(), Span> {
        let now = self.started.elapsed();
        let mut table = self.table();
        let budget = table.budgets.entry(index).or_default();
        budget.spend(bytes, &self.limits, now)
    }

    /// Says whether an index may send anything at all now.
    ///
    /// # Errors
    /// Returns the window that is full.
    pub(super) fn may_send(&self, index: Index) -> Result<(), Span> {
        let now = self.started.elapsed();
        let mut table = self.table();
        let Some(budget) = table.budgets.get_mut(&index) else {
            return Ok(());
        };
        budget.check(1, &self.limits, now)
    }

    /// Sends away whoever could not sign in any more.
    pub(super) fn judge_again(&self, lists: &Lists) {
        let table = self.table();
        for listener in table.listeners.values().flat_map(HashMap::values) {
            if !listener.who.is_still_allowed(lists) {
                listener.revoked.cancel();
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's place among those who hear.
pub(super) struct Seat {
    hub: Arc<Hub>,
    client: ClientId,
    pub(super) index: Index,
    pub(super) queue: Arc<Queue>,
    /// Cancelled when the lists do not allow the client any more.
    pub(super) revoked: CancellationToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.hub.table();
        if let Some(of_index) = table.listeners.get_mut(&self.index) {
            of_index.remove(&self.client);
            if of_index.is_empty() {
                table.listeners.remove(&self.index);
            }
        }
    }
}
