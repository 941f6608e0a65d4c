//! One connection of a client, as people see it: listed, counted, and sent away by hand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    state::io::{ClientId, Event, Gateway},
};

/// A client, as `pimesh gateway clients` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Its connection.
    pub client: ClientId,
    /// Which gateway.
    pub gateway: Gateway,
    /// From where.
    pub address: SocketAddr,
    /// Who it is; `None` while it signs in.
    pub name: Option<String>,
    /// What else there is to say of it, for example its index or the size of its key.
    pub detail: String,
    /// Since when it is connected, Unix ms.
    pub since_ms: u64,
    /// What it sent: integers or messages.
    pub received: u64,
    /// What it was sent.
    pub sent: u64,
}

/// How many there are behind one gateway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) signed_in: usize,
    pub(super) signing_in: usize,
    pub(super) sign_ins: u64,
    pub(super) kicks: u64,
}

/// Everybody who is connected.
pub(super) struct Visitors {
    events: Events,
    table: Mutex<Table>,
    /// Told when the last one has gone.
    empty: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    clients: BTreeMap<ClientId, Entry>,
    /// Sign-ins and kicks of each gateway since start.
    totals: BTreeMap<Gateway, (u64, u64)>,
}

struct Entry {
    gateway: Gateway,
    address: SocketAddr,
    since_ms: u64,
    name: Option<String>,
    detail: String,
    traffic: Arc<Traffic>,
    kick: CancellationToken,
    kick_reason: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Visitors {
    pub(super) fn new(events: Events) -> Self {
        Self {
            events,
            table: Mutex::default(),
            empty: Notify::new(),
        }
    }

    /// Lists a connection that was opened at this date, Unix ms.
    pub(super) fn arrive(
        self: &Arc<Self>,
        gateway: Gateway,
        address: SocketAddr,
        since_ms: u64,
    ) -> Visit {
        let traffic = Arc::new(Traffic::default());
        let kick = CancellationToken::new();
        let mut table = self.table();
        let client = ClientId(table.next);
        table.next += 1;
        let entry = Entry {
            gateway,
            address,
            since_ms,
            name: None,
            detail: String::new(),
            traffic: Arc::clone(&traffic),
            kick: kick.clone(),
            kick_reason: None,
        };
        table.clients.insert(client, entry);
        Visit {
            visitors: Arc::clone(self),
            client,
            address,
            traffic,
            kick,
            reason: Reason::Left("ended"),
        }
    }

    /// Returns a name for a connection that is not listed.
    pub(super) fn reserve(&self) -> ClientId {
        let mut table = self.table();
        let client = ClientId(table.next);
        table.next += 1;
        client
    }

    pub(super) fn count(&self, what: &'static str) {
        self.events.tell(Event::Counted { what, times: 1 });
    }

    pub(super) fn list(&self) -> Vec<ClientReport> {
        let table = self.table();
        table.clients.iter().map(report).collect()
    }

    pub(super) fn counts(&self, gateway: Gateway) -> Counts {
        let table = self.table();
        let (sign_ins, kicks) = table.totals.get(&gateway).copied().unwrap_or_default();
        let of_gateway = table.clients.values().filter(|e| e.gateway == gateway);
        let (signed_in, signing_in): (Vec<_>, Vec<_>) = of_gateway.partition(|e| e.name.is_some());
        Counts {
            signed_in: signed_in.len(),
            signing_in: signing_in.len(),
            sign_ins,
            kicks,
        }
    }

    /// Sends away the client with this number, or all with this name.
    pub(super) fn kick(&self, who: &str) -> Vec<ClientReport> {
        let number = who.parse().ok().map(ClientId);
        let mut table = self.table();
        let chosen = |(client, entry): &(&ClientId, &mut Entry)| {
            Some(**client) == number || entry.name.as_deref() == Some(who)
        };
        let kick = |(client, entry): (&ClientId, &mut Entry)| {
            entry.kick_reason = Some("by_hand");
            entry.kick.cancel();
            report((client, entry))
        };
        table.clients.iter_mut().filter(chosen).map(kick).collect()
    }

    /// Sends everybody behind a gateway away.
    pub(super) fn kick_all(&self, gateway: Gateway, reason: &'static str) {
        let mut table = self.table();
        let of_gateway = table.clients.values_mut().filter(|e| e.gateway == gateway);
        for entry in of_gateway {
            entry.kick_reason = Some(reason);
            entry.kick.cancel();
        }
    }

    /// Waits until nobody is connected.
    pub(super) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            tokio::pin!(empty);
            // From here on the last one is not missed.
            empty.as_mut().enable();
            if self.table().clients.is_empty() {
                return;
            }
            empty.await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report((client, entry): (&ClientId, impl std::ops::Deref<Target = Entry>)) -> ClientReport {
    ClientReport {
        client: *client,
        gateway: entry.gateway,
        address: entry.address,
        name: entry.name.clone(),
        detail: entry.detail.clone(),
        since_ms: entry.since_ms,
        received: entry.traffic.received.load(Ordering::Relaxed),
        sent: entry.traffic.sent.load(Ordering::Relaxed),
    }
}

/// A client's presence. It is listed until this is dropped, and how it ended is told then.
pub(crate) struct Visit {
    visitors: Arc<Visitors>,
    client: ClientId,
    address: SocketAddr,
    traffic: Arc<Traffic>,
    kick: CancellationToken,
    reason: Reason,
}

#[derive(Clone, Copy)]
enum Reason {
    Left(&'static str),
    Kicked(&'static str),
}

impl Visit {
    /// Returns the connection's name.
    pub(crate) const fn id(&self) -> ClientId {
        self.client
    }

    /// Returns where the connection comes from.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says who it is. Comes once.
    pub(crate) fn signed_in(&self, name: impl Into<String>, detail: impl Into<String>) {
        let name = name.into();
        let mut table = self.visitors.table();
        let Some(entry) = table.clients.get_mut(&self.client) else {
            return;
        };
        entry.name = Some(name.clone());
        entry.detail = detail.into();
        let (gateway, address) = (entry.gateway, entry.address);
        table.totals.entry(gateway).or_default().0 += 1;
        drop(table);
        self.visitors.events.tell(Event::ClientSignedIn {
            gateway,
            client: self.client,
            name,
            address,
        });
    }

    /// Counts what it sent.
    pub(crate) fn received(&self, count: u64) {
        self.traffic.received.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts what it was sent.
    pub(crate) fn sent(&self, count: u64) {
        self.traffic.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until somebody sends this client away.
    pub(crate) fn kicked(&self) -> impl Future<Output = ()> + use<> {
        self.kick.clone().cancelled_owned()
    }

    /// Says that it went of itself, and why.
    pub(crate) fn leave(mut self, reason: &'static str) {
        self.reason = Reason::Left(reason);
    }

    /// Says that it was sent away, and why; a short constant for the counter.
    pub(crate) fn refuse(mut self, why: &'static str) {
        self.reason = Reason::Kicked(why);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut table = self.visitors.table();
        let Some(entry) = table.clients.remove(&self.client) else {
            return;
        };
        let by_hand = entry.kick_reason.map(Reason::Kicked);
        let reason = by_hand.unwrap_or(self.reason);
        if matches!(reason, Reason::Kicked(_)) {
            table.totals.entry(entry.gateway).or_default().1 += 1;
        }
        if table.clients.is_empty() {
            self.visitors.empty.notify_waiters();
        }
        drop(table);
        let Entry {
            gateway,
            address,
            name,
            ..
        } = entry;
        let client = self.client;
        if let Reason::Kicked(why) = reason {
            self.visitors.events.tell(Event::ClientKicked {
                gateway,
                client,
                name: name.clone(),
                address,
                why,
            });
        }
        if let Some(name) = name {
            let (Reason::Left(reason) | Reason::Kicked(reason)) = reason;
            self.visitors.events.tell(Event::ClientLeft {
                gateway,
                client,
                name,
                reason,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::PeerId;

    use super::*;

    fn visitors() -> (Arc<Visitors>, tokio::sync::broadcast::Receiver<Arc<Event>>) {
        let events = Events::new(PeerId::random());
        let followed = events.follow();
        (Arc::new(Visitors::new(events)), followed)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_client_is_listed_from_its_arrival_to_its_end() {
        let (visitors, mut events) = visitors();
        let visit = visitors.arrive(Gateway::Iid, address(1), 1);
        assert_eq!(visitors.counts(Gateway::Iid).signing_in, 1);

        visit.signed_in("7", "0xabc");
        visit.received(3);
        visit.sent(4);

        let [client] = &visitors.list()[..] else {
            panic!("one client")
        };
        assert_eq!(
            (client.name.as_deref(), client.received, client.sent),
            (Some("7"), 3, 4)
        );
        assert!(matches!(
            &*events.try_recv().expect("told"),
            Event::ClientSignedIn { .. }
        ));
        visit.leave("closed");
        assert!(matches!(
            &*events.try_recv().expect("told"),
            Event::ClientLeft {
                reason: "closed",
                ..
            }
        ));
        assert!(visitors.list().is_empty());
        let counts = visitors.counts(Gateway::Iid);
        assert_eq!((counts.signed_in, counts.sign_ins, counts.kicks), (0, 1, 0));
    }

    #[tokio::test]
    async fn a_gateway_is_empty_when_the_last_client_has_gone() {
        use futures::FutureExt;
        let (visitors, _events) = visitors();
        visitors.emptied().now_or_never().expect("nobody is here");
        let [first, second] = [1, 2].map(|port| visitors.arrive(Gateway::Iid, address(port), 1));
        let mut emptied = Box::pin(visitors.emptied());
        assert!(emptied.as_mut().now_or_never().is_none());

        drop(first);
        assert!(emptied.as_mut().now_or_never().is_none());
        drop(second);

        emptied.now_or_never().expect("both have gone");
    }

    #[tokio::test]
    async fn clients_are_kicked_by_number_or_by_name_and_that_is_told() {
        let (visitors, mut events) = visitors();
        let first = visitors.arrive(Gateway::Iid, address(1), 1);
        let second = visitors.arrive(Gateway::Syft, address(2), 1);
        second.signed_in("alice", "");
        events.try_recv().expect("signed in");

        assert_eq!(visitors.kick("bob").len(), 0);
        assert_eq!(visitors.kick("alice").len(), 1);
        assert_eq!(visitors.kick(&first.id().0.to_string()).len(), 1);
        first.kicked().await;
        second.kicked().await;
        first.leave("closed");
        drop(second);

        let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert!(
            matches!(
                told.iter().map(|e| &**e).collect::<Vec<_>>()[..],
                [
                    Event::ClientKicked {
                        name: None,
                        why: "by_hand",
                        ..
                    },
                    Event::ClientKicked {
                        name: Some(_),
                        why: "by_hand",
                        ..
                    },
                    Event::ClientLeft {
                        reason: "by_hand",
                        ..
                    },
                ]
            ),
            "{told:?}"
        );
    }
}
