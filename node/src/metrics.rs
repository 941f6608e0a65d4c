//! Counters, and the text that Prometheus reads.

use std::fmt;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::state::io::{Event, Outcome};

type Labelled = Family<Vec<(&'static str, &'static str)>, Counter>;

/// Defines [`Metrics`]: the name of a field is the name that Prometheus reads, and its comment the help.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $Kind:ty,)+) => {
        /// Everything that is counted.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ $name: $Kind,)+
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("pimesh");
                $(
                    let $name = <$Kind>::default();
                    let help = concat!($($help),+).trim();
                    registry.register(stringify!($name), help, $name.clone());
                )+
                Self { registry, $($name,)+ }
            }
        }
    };
}

metrics! {
    /// What came from outside and was refused
    refused: Labelled,
    /// What was dropped or repeated at a limit
    limits: Labelled,
    /// Messages that left the outbox
    messages_sent: Labelled,
    /// Messages that came
    messages_received: Counter,
    /// Integers that came from other nodes
    integers_received: Counter,
    /// Integers that were sent from here
    integers_sent: Counter,
    /// Members that connected
    peers_connects: Counter,
    /// Groups of records that could not be written
    store_failures: Counter,
    /// Members that are connected
    peers_connected: Gauge,
    /// Clients that are signed in
    gateway_clients: Family<Vec<(&'static str, &'static str)>, Gauge>,
    /// Clients that signed in
    gateway_sign_ins: Labelled,
    /// Clients that were sent away
    gateway_kicks: Labelled,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
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
                self.limits
                    .get_or_create(&vec![("what", *what)])
                    .inc_by(*times);
            }
            Event::Sent(sent) => {
                let outcome = match sent.outcome {
                    Outcome::Delivered => "delivered",
                    Outcome::Expired => "expired",
                    Outcome::Refused(_) => "refused",
                };
                self.messages_sent
                    .get_or_create(&vec![("outcome", outcome)])
                    .inc();
            }
            Event::Received(_) => {
                self.messages_received.inc();
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
                self.peers_connects.inc();
                self.peers_connected.inc();
            }
            Event::PeerDown { .. } => {
                self.peers_connected.dec();
            }
            Event::StoreFailed { .. } => {
                self.store_failures.inc();
            }
            Event::ClientSignedIn { gateway, .. } => {
                let labels = vec![("gateway", gateway.name())];
                self.gateway_sign_ins.get_or_create(&labels).inc();
                self.gateway_clients.get_or_create(&labels).inc();
            }
            Event::ClientLeft { gateway, .. } => {
                let labels = vec![("gateway", gateway.name())];
                self.gateway_clients.get_or_create(&labels).dec();
            }
            Event::ClientKicked { gateway, why, .. } => {
                let labels = vec![("gateway", gateway.name()), ("why", *why)];
                self.gateway_kicks.get_or_create(&labels).inc();
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
            | Event::DiskSpace { .. }
            | Event::Lagged { .. } => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are part of the interface: dashboards and alarms have them.
    #[test]
    fn what_prometheus_reads_has_the_names_that_it_had() {
        // What has labels is shown once it has counted.
        let m = Metrics::default();
        for labelled in [
            &m.refused,
            &m.limits,
            &m.messages_sent,
            &m.gateway_sign_ins,
            &m.gateway_kicks,
        ] {
            drop(labelled.get_or_create(&Vec::new()));
        }
        drop(m.gateway_clients.get_or_create(&Vec::new()));
        let text = m.encode();
        let lines = text.lines().filter(|line| line.starts_with("# HELP "));
        let lines: Vec<_> = lines
            .map(|line| line.trim_start_matches("# HELP pimesh_"))
            .collect();
        let expected = [
            "refused What came from outside and was refused.",
            "limits What was dropped or repeated at a limit.",
            "messages_sent Messages that left the outbox.",
            "messages_received Messages that came.",
            "integers_received Integers that came from other nodes.",
            "integers_sent Integers that were sent from here.",
            "peers_connects Members that connected.",
            "store_failures Groups of records that could not be written.",
            "peers_connected Members that are connected.",
            "gateway_clients Clients that are signed in.",
            "gateway_sign_ins Clients that signed in.",
            "gateway_kicks Clients that were sent away.",
        ];
        assert_eq!(lines, expected);
    }
}
