//! Who gives way when something is full: the oldest of the source that holds most.
//!
//! A fixed share for each source would refuse many nodes behind one address although there is
//! room. Here a source may hold what nobody else needs, and loses it again when another one comes.

use std::collections::{BTreeMap, BTreeSet};

/// What sources hold of something that is limited. Keys tell the age: a smaller one is older.
#[derive(Debug)]
pub struct Shares<S, K> {
    max: usize,
    used: usize,
    holders: BTreeMap<K, (S, usize)>,
    sources: BTreeMap<S, Held<K>>,
}

/// What one source holds.
#[derive(Debug)]
struct Held<K> {
    units: usize,
    keys: BTreeSet<K>,
}

impl<S: Ord + Clone, K: Ord + Copy> Shares<S, K> {
    /// Allows this many units in all.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            used: 0,
            holders: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Gives a holder further units. Returns the holders that give way for it, which hold nothing
    /// any more; the one that asks may be among them.
    pub fn add(&mut self, source: &S, key: K, units: usize) -> Vec<K> {
        let (_, holds) = (self.holders.entry(key)).or_insert_with(|| (source.clone(), 0));
        *holds = holds.saturating_add(units);
        let held = (self.sources.entry(source.clone())).or_insert_with(|| Held {
            units: 0,
            keys: BTreeSet::new(),
        });
        held.keys.insert(key);
        held.units = held.units.saturating_add(units);
        self.used = self.used.saturating_add(units);
        let mut given_way = Vec::new();
        while self.used > self.max
            && let Some(oldest) = self.oldest_of_heaviest()
        {
            self.remove(oldest);
            given_way.push(oldest);
        }
        given_way
    }

    /// Takes back what a holder holds. One that gave way holds nothing.
    pub fn remove(&mut self, key: K) {
        let Some((source, units)) = self.holders.remove(&key) else {
            return;
        };
        self.used -= units;
        if let Some(held) = self.sources.get_mut(&source) {
            held.units -= units;
            held.keys.remove(&key);
            if held.keys.is_empty() {
                self.sources.remove(&source);
            }
        }
    }

    /// Returns how many units are held in all.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Among sources that hold the same, the one with the oldest holder gives way.
    fn oldest_of_heaviest(&self) -> Option<K> {
        let heaviest = self.sources.values().max_by(|one, other| {
            (one.units.cmp(&other.units)).then_with(|| other.keys.first().cmp(&one.keys.first()))
        });
        heaviest.and_then(|held| held.keys.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_heaviest_source_gives_way_and_a_newcomer_always_gets_in() {
        let mut shares = Shares::new(4);
        for key in 1..=4 {
            assert!(shares.add(&"crowd", key, 1).is_empty());
        }

        assert_eq!(shares.add(&"a", 5, 1), [1]);
        assert_eq!(shares.add(&"crowd", 6, 1), [2], "its own, not another's");
        assert_eq!(shares.add(&"b", 7, 1), [3]);
        assert_eq!(shares.add(&"c", 8, 1), [4]);
        // Now each has one: the oldest of all.
        assert_eq!(shares.add(&"d", 9, 1), [5]);
        assert_eq!(shares.used(), 4);
    }

    #[test]
    fn what_is_given_back_makes_room() {
        let mut shares = Shares::new(2);
        assert!(shares.add(&"a", 1, 1).is_empty());
        assert!(shares.add(&"a", 2, 1).is_empty());
        shares.remove(1);
        shares.remove(1);

        assert!(shares.add(&"b", 3, 1).is_empty());
        assert_eq!(shares.used(), 2);
        shares.remove(2);
        shares.remove(3);
        assert_eq!(shares.used(), 0);
        assert!(shares.sources.is_empty() && shares.holders.is_empty());
    }

    #[test]
    fn units_count_and_not_holders_and_one_that_wants_more_than_there_is_gives_way_itself() {
        let mut shares = Shares::new(100);
        for key in 1..=10 {
            assert!(shares.add(&"many small", key, 5).is_empty());
        }
        assert!(shares.add(&"large", 11, 50).is_empty());

        assert_eq!(shares.add(&"large", 11, 10), [11]);
        assert_eq!(shares.used(), 50);
        assert_eq!(shares.add(&"large", 12, 200), [12]);
    }
}
