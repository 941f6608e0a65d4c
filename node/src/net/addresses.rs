//! Where this node is reached, and what an address says.

use std::collections::BTreeSet;

use libp2p::{Multiaddr, multiaddr::Protocol as Part};

use crate::{
    proto::mesh::Address,
    state::io::{NetInput, Transport},
};

/// The addresses of this node.
#[derive(Debug)]
pub(super) struct Addresses {
    listeners: BTreeSet<Multiaddr>,
    announce: Vec<Address>,
    told: BTreeSet<Address>,
}

impl Addresses {
    /// A node that listens nowhere yet; `announce` are told beside its listeners.
    pub(super) const fn new(announce: Vec<Address>) -> Self {
        Self {
            listeners: BTreeSet::new(),
            announce,
            told: BTreeSet::new(),
        }
    }

    /// Returns where the node listens.
    pub(super) const fn listeners(&self) -> &BTreeSet<Multiaddr> {
        &self.listeners
    }

    /// Takes in that the node listens at this address.
    pub(super) fn listening(&mut self, address: Multiaddr) -> Option<NetInput> {
        self.listeners.insert(address);
        self.tell()
    }

    /// Takes in that the node listens at this address no more.
    pub(super) fn expired(&mut self, address: &Multiaddr) -> Option<NetInput> {
        self.listeners.remove(address);
        self.tell()
    }

    /// Returns what to tell others, if that changed.
    fn tell(&mut self) -> Option<NetInput> {
        let all = self.listeners.iter().filter(|a| !is_link_local(a));
        let all: Vec<&Multiaddr> = all.collect();
        let reachable: Vec<&Multiaddr> = all.iter().copied().filter(|a| !is_loopback(a)).collect();
        // A node that listens on loopback alone serves others on the same machine.
        let told = if reachable.is_empty() { all } else { reachable };
        let mut addresses: BTreeSet<Address> = told
            .into_iter()
            .filter_map(|a| Address::new(a.to_string()))
            .collect();
        addresses.extend(self.announce.iter().cloned());
        if addresses == self.told {
            return None;
        }
        self.told.clone_from(&addresses);
        Some(NetInput::OwnAddresses(addresses))
    }
}

fn is_link_local(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| matches!(part, Part::Ip6(ip) if ip.is_unicast_link_local()))
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Part::Ip4(ip) => ip.is_loopback(),
        Part::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// Returns an address without the peer id that may be part of it.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .filter(|part| !matches!(part, Part::P2p(_)))
        .collect()
}

/// Returns what a connection to an address runs over.
pub(super) fn transport_of(address: &Multiaddr) -> Transport {
    address
        .iter()
        .find_map(|part| match part {
            Part::QuicV1 | Part::Quic => Some(Transport::Quic),
            Part::Tcp(_) => Some(Transport::Tcp),
            _ => None,
        })
        .unwrap_or(Transport::Other)
}
