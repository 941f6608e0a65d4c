//! Where this node is reached, and what an address says.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol as Part};
use tokio::time::Instant;

use super::ranking::{Ranking, ip_of, needs_zone};
use crate::{
    proto::mesh::Address,
    state::io::{NetInput, OwnReach, Transport},
};

/// How long after a change the interfaces are looked at once more: routes come after addresses.
const SETTLED: Duration = Duration::from_secs(3);

/// The addresses of this node.
#[derive(Debug)]
pub(super) struct Addresses {
    listeners: BTreeSet<Multiaddr>,
    announce: Vec<Address>,
    ranking: Ranking,
    told: Option<(Vec<Address>, OwnReach)>,
    look_again: Option<Instant>,
}

impl Addresses {
    /// A node that listens nowhere yet; `announce` are told before its listeners.
    pub(super) fn new(announce: Vec<Address>) -> Self {
        Self {
            listeners: BTreeSet::new(),
            announce,
            ranking: Ranking::read(),
            told: None,
            look_again: None,
        }
    }

    /// Returns where the node listens.
    pub(super) const fn listeners(&self) -> &BTreeSet<Multiaddr> {
        &self.listeners
    }

    /// Takes in that the node listens at this address.
    pub(super) fn listening(&mut self, address: Multiaddr) -> Option<NetInput> {
        self.listeners.insert(address);
        self.interfaces_changed()
    }

    /// Takes in that the node listens at this address no more.
    pub(super) fn expired(&mut self, address: &Multiaddr) -> Option<NetInput> {
        self.listeners.remove(address);
        self.interfaces_changed()
    }

    /// Looks at the interfaces now, and once more soon.
    pub(super) fn interfaces_changed(&mut self) -> Option<NetInput> {
        self.look_again = Some(Instant::now() + SETTLED);
        self.look()
    }

    /// Returns when to call [`Self::look_again`].
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.look_again
    }

    /// Looks at the interfaces, as was planned.
    pub(super) fn look_again(&mut self) -> Option<NetInput> {
        self.look_again = None;
        self.look()
    }

    /// Returns what to tell others, if that changed.
    fn look(&mut self) -> Option<NetInput> {
        self.ranking = Ranking::read();
        let told = self.to_tell();
        if self.told.as_ref() == Some(&told) {
            return None;
        }
        self.told = Some(told.clone());
        let (addresses, reach) = told;
        Some(NetInput::OwnAddresses { addresses, reach })
    }

    fn to_tell(&self) -> (Vec<Address>, OwnReach) {
        let with_ip = self.listeners.iter().filter_map(|a| Some((a, ip_of(a)?)));
        let (own, reachable): (Vec<_>, Vec<_>) = with_ip
            .filter(|(_, ip)| !needs_zone(*ip))
            .partition(|(_, ip)| ip.is_loopback());
        let reach = match (
            reachable.is_empty(),
            self.announce.is_empty(),
            own.is_empty(),
        ) {
            (true, true, true) => OwnReach::Nowhere,
            (true, true, false) => OwnReach::Machine,
            _ => OwnReach::Network,
        };
        // A node that listens on loopback alone serves others on the same machine.
        let listening = if reachable.is_empty() { own } else { reachable };
        let mut listening: Vec<Multiaddr> = listening.into_iter().map(|(a, _)| a.clone()).collect();
        self.ranking.sort_own(&mut listening);
        let listening = listening.iter().filter_map(|a| Address::new(a.to_string()));
        let mut addresses = self.announce.clone();
        for address in listening {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        (addresses, reach)
    }

    /// Puts the addresses at which to dial a peer in order. Those at which this very node listens
    /// lead to nobody else, and are returned apart: machines have containers with the same
    /// addresses, or an earlier address of each other.
    pub(super) fn for_dialling(&self, addresses: &[Address]) -> (Vec<Multiaddr>, Vec<Address>) {
        let (mut others, mut own) = (Vec::new(), Vec::new());
        for address in addresses {
            match address.as_str().parse::<Multiaddr>() {
                Ok(parsed) if self.listeners.contains(&parsed) => own.push(address.clone()),
                Ok(parsed) => others.push(parsed),
                Err(_) => {}
            }
        }
        self.ranking.sort_for_dialling(&mut others);
        (others, own)
    }
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
