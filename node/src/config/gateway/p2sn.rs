//! `[gateway.p2sn]`: the gateway for P2SN programs.

use std::{net::SocketAddr, time::Duration};

use super::{ConfigError, Span, loopback, value};
use crate::{
    config::section::{Key, section},
    proto::p2sn::KeyPolicy,
};

/// The gateway for P2SN peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P2sn {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who gets the messages: a member, user or client; this node if `None`.
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

/// Its sections of `pimesh.toml`.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[("gateway.p2sn", P2snSection::KEYS)];

section! {
    pub(super) struct P2snSection {
        /// The gateway for P2SN peers: `pimesh gateway enable p2sn`.
        enabled: bool = false;
        listen: SocketAddr = loopback(5050);
        /// Who gets the messages: a member, user or client. Default: this node.
        deliver_to: Option<String> = None, r#""pi-2""#;
        /// Least size of a peer's RSA key, 1024 to 8192 bits. Old peers have 1024, which is weak.
        min_key_bits: usize = KeyPolicy::default().bits_min;
        /// Whether a client is refused whose key is not the one that was first seen at its address.
        /// Programs that make a new key at each start need `false`.
        pin_clients: bool = true;
        /// How long a key exchange may take, and how long a client may be silent between messages.
        exchange_time: Span = Span(Duration::from_secs(10));
        idle_time: Span = Span(Duration::from_secs(300));
        /// Most connections, in all and from one address.
        connections_max: usize = 256;
        connections_per_address_max: usize = 32;
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
