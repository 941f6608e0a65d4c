//! `[gateway.p2sn]`: the gateway for P2SN programs.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Span, loopback, value};
use crate::proto::p2sn::KeyPolicy;

/// The gateway for P2SN peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P2sn {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The member that gets the messages; this node if `None`.
    pub deliver_to: Option<String>,
    /// Least size of a peer's RSA key, in bits.
    pub min_key_bits: usize,
    /// Whether a client is refused whose key is not pinned to its address. Without it, each key
    /// is pinned beside the others: for programs that make a new key at each start.
    pub pin_clients: bool,
    /// How long a key exchange may take.
    pub exchange_time: Duration,
    /// How long a client may be silent between messages.
    pub idle_time: Duration,
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(super) struct P2snSection {
    enabled: bool,
    listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_to: Option<String>,
    min_key_bits: usize,
    pin_clients: bool,
    exchange_time: Span,
    idle_time: Span,
    connections_max: usize,
    connections_per_address_max: usize,
}

impl Default for P2snSection {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: loopback(5050),
            deliver_to: None,
            min_key_bits: KeyPolicy::default().bits_min,
            pin_clients: true,
            exchange_time: Span(Duration::from_secs(10)),
            idle_time: Span(Duration::from_secs(300)),
            connections_max: 256,
            connections_per_address_max: 32,
        }
    }
}

impl P2snSection {
    pub(super) fn into_p2sn(self) -> Result<P2sn, ConfigError> {
        if !(1024..=8192).contains(&self.min_key_bits) {
            let found = self.min_key_bits;
            return Err(value("gateway.p2sn.min_key_bits", "1024 to 8192", found));
        }
        let (Span(exchange_time), Span(idle_time)) = (self.exchange_time, self.idle_time);
        if !(1..=60).contains(&exchange_time.as_secs()) {
            let found = format_args!("{exchange_time:?}");
            return Err(value("gateway.p2sn.exchange_time", "1s to 1m", found));
        }
        if !(1..=86_400).contains(&idle_time.as_secs()) {
            let found = format_args!("{idle_time:?}");
            return Err(value("gateway.p2sn.idle_time", "1s to 1d", found));
        }
        let all = self.connections_max;
        if !(1..=4096).contains(&all) {
            return Err(value("gateway.p2sn.connections_max", "1 to 4096", all));
        }
        let each = self.connections_per_address_max;
        if !(1..=4096).contains(&each) {
            let key = "gateway.p2sn.connections_per_address_max";
            return Err(value(key, "1 to 4096", each));
        }
        Ok(P2sn {
            enabled: self.enabled,
            listen: self.listen,
            deliver_to: self.deliver_to,
            min_key_bits: self.min_key_bits,
            pin_clients: self.pin_clients,
            exchange_time,
            idle_time,
            connections_max: all,
            connections_per_address_max: each,
        })
    }
}
