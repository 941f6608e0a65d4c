//! Counters, and the text that Prometheus reads.

use std::fmt;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::state::io::{Event, Outcome};

type Labelled = Family<Vec<(&'static str, &'static str)>, Counter>;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    refused: Labelled,
    counted: Labelled,
    sent: Labelled,
    received: Counter,
    integers_received: Counter,
    integers_sent: Counter,
    connects: Counter,
    store_failures: Counter,
    connected: Gauge,
    clients: Family<Vec<(&'static str, &'static str)>, Gauge>,
    sign_ins: Labelled,
    kicks: Labelled,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pimesh"),
            refused: Family::default(),
            counted: Family::default(),
            sent: Family::default(),
            received: Counter::default(),
            integers_received: Counter::default(),
            integers_sent: Counter::default(),
            connects: Counter::default(),
            store_failures: Counter::default(),
            connected: Gauge::default(),
            clients: Family::default(),
            sign_ins: Family::default(),
            kicks: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "refused",
            "What came from outside and was refused",
            metrics.refused.clone(),
        );
        registry.register(
            "limits",
            "What was dropped or repeated at a limit",
            metrics.counted.clone(),
        );
        registry.register(
            "messages_sent",
            "Messages that left the outbox",
            metrics.sent.clone(),
        );
        registry.register(
            "messages_received",
            "Messages that came",
            metrics.received.clone(),
        );
        registry.register(
            "integers_received",
            "Integers that came from other nodes",
            metrics.integers_received.clone(),
        );
        registry.register(
            "integers_sent",
            "Integers that were sent from here",
            metrics.integers_sent.clone(),
        );
        registry.register(
            "peers_connects",
            "Members that connected",
            metrics.connects.clone(),
        );
        registry.register(
            "store_failures",
            "Groups of records that could not be written",
            metrics.store_failures.clone(),
        );
        registry.register(
            "peers_connected",
            "Members that are connected",
            metrics.connected.clone(),
        );
        registry.register(
            "gateway_clients",
            "Clients that are signed in",
            metrics.clients.clone(),
        );
        registry.register(
            "gateway_sign_ins",
            "Clients that signed in",
            metrics.sign_ins.clone(),
        );
        registry.register(
            "gateway_kicks",
            "Clients that were sent away",
            metrics.kicks.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts an event; `own` says whether integers were sent from here.
    pub fn count(&self, event: &Event, own: &libp2p_identity::PeerId) {
        match event {
            Event::Refused { what, why, .. } => {
                self.refused
                    .get_or_create(&vec![("what", *what), ("why", *why)])
                    .inc();
            }
            Event::Counted { what, times } => {
                self.counted
                    .get_or_create(&vec![("what", *what)])
                    .inc_by(*times);
            }
            Event::Sent(sent) => {
                let outcome = match sent.outcome {
                    Outcome::Delivered => "delivered",
                    Outcome::Expired => "expired",
                    Outcome::Refused(_) => "refused",
                };
                self.sent.get_or_create(&vec![("outcome", outcome)]).inc();
            }
            Event::Received(_) => {
                self.received.inc();
            }
            Event::Integers(integers) => {
                let count = integers.iids.len() as u64;
                if integers.source == *own {
                    self.integers_sent.inc_by(count);
                } else if !integers.last_known {
                    self.integers_received.inc_by(count);
                }
            }
            Event::PeerUp { .. } => {
                self.connects.inc();
                self.connected.inc();
            }
            Event::PeerDown { .. } => {
                self.connected.dec();
            }
            Event::StoreFailed { .. } => {
                self.store_failures.inc();
            }
            Event::ClientSignedIn { gateway, .. } => {
                let labels = vec![("gateway", gateway.name())];
                self.sign_ins.get_or_create(&labels).inc();
                self.clients.get_or_create(&labels).inc();
            }
            Event::ClientLeft { gateway, .. } => {
                let labels = vec![("gateway", gateway.name())];
                self.clients.get_or_create(&labels).dec();
            }
            Event::ClientKicked { gateway, why, .. } => {
                let labels = vec![("gateway", gateway.name()), ("why", *why)];
                self.kicks.get_or_create(&labels).inc();
            }
            Event::MemberAdded { .. }
            | Event::MemberRemoved { .. }
            | Event::MemberRenamed { .. }
            | Event::MemberLeft { .. }
            | Event::Left { .. }
            | Event::MeshKeyReceived { .. }
            | Event::Joined { .. }
            | Event::Revoked
            | Event::Copied { .. }
            | Event::JoinTries { .. }
            | Event::JoinTried { .. }
            | Event::CopyGone { .. }
            | Event::KeyChanged { .. }
            | Event::ClientKeyChanged { .. }
            | Event::KeyExchanged { .. }
            | Event::Presence { .. }
            | Event::LetterWaits { .. }
            | Event::Letter(_)
            | Event::TellUser { .. }
            | Event::UserGone { .. }
            | Event::NameConflict { .. }
            | Event::ClockDoubted { .. }
            | Event::ClockBelieved
            | Event::UserKeyChanged { .. }
            | Event::DiskSpace { .. } => {}
        }
    }

    /// Returns the text that Prometheus reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}
