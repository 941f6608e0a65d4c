//! What this node is, and where it can be reached.

use libp2p_identity::PeerId;

use super::io::OwnReach;
use crate::proto::{
    mesh::{Address, NodeName},
    syft,
};

/// What this node is: the same for its whole life, but for where it can be reached.
pub(super) struct Own {
    pub(super) peer: PeerId,
    /// What signs and opens its direct messages.
    pub(super) key: syft::SigningKey,
    /// What it would like to be called.
    wish: NodeName,
    addresses: Vec<Address>,
    reach: OwnReach,
}

impl Own {
    pub(super) const fn new(peer: PeerId, key: syft::SigningKey, wish: NodeName) -> Self {
        Self {
            peer,
            key,
            wish,
            addresses: Vec::new(),
            reach: OwnReach::Nowhere,
        }
    }

    /// Returns what the node would like to be called.
    pub(super) const fn wish(&self) -> &NodeName {
        &self.wish
    }

    /// Takes in where the node can be reached from now on.
    pub(super) fn found(&mut self, addresses: Vec<Address>, reach: OwnReach) {
        self.addresses = addresses;
        self.reach = reach;
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    pub(super) const fn reach(&self) -> OwnReach {
        self.reach
    }
}
