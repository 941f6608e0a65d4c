//! All users that are known, found by their name and by their place.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::ValuesMut},
    ops::Deref,
};

use super::Entry;
use crate::{
    proto::syft::UserId,
    state::{io::Place, work::look},
};

/// A user's id, and where.
pub(super) type Key = (UserId, Place);

/// The users. They read like a map; what changes them keeps the users of each place together, so
/// that nobody has to look at all users to find those of one.
#[derive(Default)]
pub(super) struct Entries {
    all: BTreeMap<Key, Entry>,
    of_places: BTreeMap<Place, BTreeSet<UserId>>,
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
        let (id, place) = &key;
        let of_place = self.of_places.entry(*place).or_default();
        of_place.insert(id.clone());
        self.all.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let (id, place) = key;
        if let Some(of_place) = self.of_places.get_mut(place) {
            of_place.remove(id);
            if of_place.is_empty() {
                self.of_places.remove(place);
            }
        }
        self.all.remove(key)
    }

    /// Removes the users of a place.
    pub(super) fn forget_place(&mut self, place: Place) {
        let ids = self.of_places.remove(&place).unwrap_or_default();
        for id in ids {
            self.all.remove(&(id, place));
        }
    }

    /// Returns the gateways that have users.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.of_places.keys().copied()
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.all.get_mut(key)
    }

    pub(super) fn values_mut(&mut self) -> ValuesMut<'_, Key, Entry> {
        self.all.values_mut()
    }

    /// Returns the users of a place.
    pub(super) fn of_place(&self, place: Place) -> impl Iterator<Item = &Entry> {
        let ids = self.of_places.get(&place).into_iter().flatten();
        ids.filter_map(move |id| {
            look();
            self.all.get(&(id.clone(), place))
        })
    }

    /// Returns how many users a place has, without a look at them.
    pub(super) fn count_of(&self, place: Place) -> usize {
        self.of_places.get(&place).map_or(0, BTreeSet::len)
    }
}
