//! All users that are known, found by their name and by their gateway.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::ValuesMut},
    ops::Deref,
};

use libp2p_identity::PeerId;

use super::Entry;
use crate::{proto::syft::UserId, state::work::look};

/// A user's id at a gateway, and the gateway.
pub(super) type Key = (UserId, PeerId);

/// The users. They read like a map; what changes them keeps the users of each gateway together, so
/// that nobody has to look at all users to find those of one.
#[derive(Default)]
pub(super) struct Entries {
    all: BTreeMap<Key, Entry>,
    of_gateways: BTreeMap<PeerId, BTreeSet<UserId>>,
}

impl Deref for Entries {
    type Target = BTreeMap<Key, Entry>;

    fn deref(&self) -> &BTreeMap<Key, Entry> {
        &self.all
    }
}

impl FromIterator<(Key, Entry)> for Entries {
    fn from_iter<I: IntoIterator<Item = (Key, Entry)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (key, entry) in entries {
            all.insert(key, entry);
        }
        all
    }
}

impl Entries {
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        let (id, gateway) = &key;
        let of_gateway = self.of_gateways.entry(*gateway).or_default();
        of_gateway.insert(id.clone());
        self.all.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let (id, gateway) = key;
        if let Some(of_gateway) = self.of_gateways.get_mut(gateway) {
            of_gateway.remove(id);
            if of_gateway.is_empty() {
                self.of_gateways.remove(gateway);
            }
        }
        self.all.remove(key)
    }

    /// Removes the users of a gateway.
    pub(super) fn forget_gateway(&mut self, gateway: PeerId) {
        let ids = self.of_gateways.remove(&gateway).unwrap_or_default();
        for id in ids {
            self.all.remove(&(id, gateway));
        }
    }

    /// Returns the gateways that have users.
    pub(super) fn gateways(&self) -> impl Iterator<Item = PeerId> {
        self.of_gateways.keys().copied()
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.all.get_mut(key)
    }

    pub(super) fn values_mut(&mut self) -> ValuesMut<'_, Key, Entry> {
        self.all.values_mut()
    }

    /// Returns the users of a gateway.
    pub(super) fn of_gateway(&self, gateway: PeerId) -> impl Iterator<Item = &Entry> {
        let ids = self.of_gateways.get(&gateway).into_iter().flatten();
        ids.filter_map(move |id| {
            look();
            self.all.get(&(id.clone(), gateway))
        })
    }

    /// Returns how many users a gateway has, without a look at them.
    pub(super) fn count_of(&self, gateway: PeerId) -> usize {
        self.of_gateways.get(&gateway).map_or(0, BTreeSet::len)
    }
}
