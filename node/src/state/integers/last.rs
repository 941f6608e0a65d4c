//! The last integer of each index, with a share for each source: one that speaks for very many indices
//! pushes out its own before those of others.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::Last;
use crate::{
    limits::Shares,
    proto::{iid::Index, mesh::sync::LAST_INTEGERS_MAX},
};

/// The last integers.
#[derive(Debug)]
pub(super) struct LastValues {
    /// Each with its place, which says how long its source has had it.
    all: BTreeMap<Index, (u64, Last)>,
    places: Shares<PeerId, u64>,
    indices: BTreeMap<u64, Index>,
    next_place: u64,
}

impl Default for LastValues {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            places: Shares::new(LAST_INTEGERS_MAX),
            indices: BTreeMap::new(),
            next_place: 0,
        }
    }
}

impl LastValues {
    pub(super) fn get(&self, index: Index) -> Option<&Last> {
        self.all.get(&index).map(|(_, last)| last)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Last> {
        self.all.values().map(|(_, last)| last)
    }

    /// Keeps the last integer of an index in the place of an earlier one.
    pub(super) fn keep(&mut self, last: Last) {
        let index = last.integer.iid.index;
        let source = last.integer.source;
        if let Some((place, known)) = self.all.get_mut(&index) {
            let place = *place;
            let was = std::mem::replace(known, last);
            if was.integer.source == source {
                return;
            }
            self.give_up(place);
            return self.take_place(index, &source);
        }
        // Its place is known below.
        self.all.insert(index, (0, last));
        self.take_place(index, &source);
    }

    fn take_place(&mut self, index: Index, source: &PeerId) {
        let place = self.next_place;
        self.next_place += 1;
        if let Some((of_index, _)) = self.all.get_mut(&index) {
            *of_index = place;
        }
        self.indices.insert(place, index);
        for place in self.places.add(source, place, 1) {
            if let Some(index) = self.indices.remove(&place) {
                self.all.remove(&index);
            }
        }
    }

    fn give_up(&mut self, place: u64) {
        self.places.remove(place);
        self.indices.remove(&place);
    }
}
