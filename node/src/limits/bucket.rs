//! Token buckets: each take empties a bucket a little, time fills it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Keys that [`Buckets`] remembers. Beyond it, the key whose bucket is closest to full is
/// forgotten, which loses the least.
const KEYS_MAX: usize = 4096;

/// How much per second, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units that come back in a second. At least 1.
    pub per_second: u32,
    /// Units in a full bucket.
    pub burst: u32,
}

impl Rate {
    /// How long time takes to bring back this many units.
    fn time_for(&self, units: u32) -> Duration {
        Duration::from_secs(1).saturating_mul(units) / self.per_second.max(1)
    }
}

/// One token bucket, full at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// When the bucket will be full.
    full_at: Duration,
}

impl Bucket {
    /// Makes a full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: Duration::ZERO,
        }
    }

    /// Returns when there will be enough for this many units, which may be now. More units than
    /// the burst need a full bucket.
    #[must_use]
    pub fn ready_at(&self, units: u32, now: Duration) -> Duration {
        let empty = self.rate.time_for(self.rate.burst);
        let wanted = self.rate.time_for(units.min(self.rate.burst));
        (self.full_at.saturating_add(wanted))
            .saturating_sub(empty)
            .max(now)
    }

    /// Takes one unit if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.take_units(1, now)
    }

    /// Takes this many units if there are enough; otherwise takes nothing.
    ///
    /// More units than the burst are taken from a full bucket, which then stays empty for longer.
    pub fn take_units(&mut self, units: u32, now: Duration) -> bool {
        if self.ready_at(units, now) > now {
            return false;
        }
        self.full_at = self
            .full_at
            .max(now)
            .saturating_add(self.rate.time_for(units));
        true
    }

    /// Takes this many units, whether they are there or not: what is missing has to come back
    /// first. Nobody owes more than a full bucket.
    pub fn charge(&mut self, units: u32, now: Duration) {
        let most = now.saturating_add(self.rate.time_for(self.rate.burst).saturating_mul(2));
        let full_at = self.full_at.max(now);
        self.full_at = (full_at.saturating_add(self.rate.time_for(units))).min(most.max(full_at));
    }

    /// Gives back units that were taken for nothing. A bucket is never more than full.
    pub fn give_back(&mut self, units: u32) {
        self.full_at = self.full_at.saturating_sub(self.rate.time_for(units));
    }
}

/// A token bucket for each key, for example for each [`Source`](super::Source).
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    buckets: Mutex<BTreeMap<K, Bucket>>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// Makes a full bucket for each key.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes one unit from the bucket of this key if there is one.
    pub fn take(&self, key: &K, now: Duration) -> bool {
        self.take_units(key, 1, now)
    }

    /// Takes this many units from the bucket of this key if there are enough.
    pub fn take_units(&self, key: &K, units: u32, now: Duration) -> bool {
        self.change(key, now, |bucket| bucket.take_units(units, now))
    }

    /// Takes this many units from the bucket of this key, whether they are there or not.
    pub fn charge(&self, key: &K, units: u32, now: Duration) {
        self.change(key, now, |bucket| bucket.charge(units, now));
    }

    /// Gives back units that were taken from the bucket of this key.
    pub fn give_back(&self, key: &K, units: u32) {
        // One that was forgotten since then is full.
        if let Some(bucket) = self.lock().get_mut(key) {
            bucket.give_back(units);
        }
    }

    /// Returns true if the bucket of this key has a unit; takes nothing.
    pub fn has(&self, key: &K, now: Duration) -> bool {
        self.has_units(key, 1, now)
    }

    /// Returns true if the bucket of this key has this many units; takes nothing.
    pub fn has_units(&self, key: &K, units: u32, now: Duration) -> bool {
        self.lock()
            .get(key)
            .is_none_or(|bucket| bucket.ready_at(units, now) <= now)
    }

    fn change<T>(&self, key: &K, now: Duration, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut buckets = self.lock();
        if !buckets.contains_key(key) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets
            .entry(key.clone())
            .or_insert_with(|| Bucket::new(self.rate));
        change(bucket)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets full buckets, and if there are none, the fullest one.
fn make_room<K: Ord + Clone>(buckets: &mut BTreeMap<K, Bucket>, now: Duration) {
    if buckets.len() < KEYS_MAX {
        return;
    }
    buckets.retain(|_, bucket| bucket.full_at > now);
    if buckets.len() < KEYS_MAX {
        return;
    }
    let fullest = buckets.iter().min_by_key(|(_, bucket)| bucket.full_at);
    if let Some(key) = fullest.map(|(key, _)| key.clone()) {
        buckets.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);
    const RATE: Rate = Rate {
        per_second: 5,
        burst: 10,
    };

    #[test]
    fn a_burst_passes_and_then_one_at_each_interval() {
        let mut bucket = Bucket::new(RATE);
        let taken = (0..20).filter(|_| bucket.take(START)).count();
        assert_eq!(taken, 10);

        let next = bucket.ready_at(1, START);

        assert_eq!(next, START + Duration::from_millis(200));
        assert!(!bucket.take(next.saturating_sub(Duration::from_millis(1))));
        assert!(bucket.take(next));
        let later = START + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 10);
    }

    #[test]
    fn several_units_are_taken_together_or_not_at_all() {
        let mut bucket = Bucket::new(RATE);
        assert!(bucket.take_units(7, START));
        assert!(!bucket.take_units(4, START));
        assert!(bucket.take_units(3, START), "the refused take cost nothing");
    }

    #[test]
    fn more_than_the_burst_needs_a_full_bucket_and_empties_it_for_longer() {
        let mut bucket = Bucket::new(RATE);
        assert!(bucket.take_units(20, START));
        assert_eq!(bucket.ready_at(1, START).as_millis(), 102_200);
        assert!(!bucket.take_units(20, START + Duration::from_secs(3)));
        assert!(bucket.take_units(20, START + Duration::from_secs(4)));
    }

    #[test]
    fn what_was_given_back_can_be_taken_again_and_no_more_than_a_full_bucket() {
        let mut bucket = Bucket::new(RATE);
        assert!(bucket.take_units(10, START));

        bucket.give_back(4);
        assert!(!bucket.take_units(5, START));
        assert!(bucket.take_units(4, START));

        bucket.give_back(50);
        assert!(bucket.take_units(10, START));
        assert!(!bucket.take(START));
    }

    #[test]
    fn what_is_charged_beyond_the_bucket_has_to_come_back_first_but_no_more_than_a_full_one() {
        let mut bucket = Bucket::new(RATE);
        bucket.charge(15, START);
        assert_eq!(bucket.ready_at(1, START).as_millis(), 101_200);
        bucket.charge(1000, START);
        assert_eq!(bucket.ready_at(1, START).as_millis(), 102_200);
        bucket.charge(1, START);
        assert_eq!(bucket.ready_at(1, START).as_millis(), 102_200);
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let buckets = Buckets::new(Rate {
            per_second: 1,
            burst: 1,
        });
        assert!(buckets.take(&"a", START));
        assert!(!buckets.take(&"a", START));
        assert!(!buckets.has(&"a", START));
        assert!(buckets.take(&"b", START));
    }

    #[test]
    fn many_keys_keep_no_newcomer_out_and_the_busiest_stays_known() {
        let buckets = Buckets::new(RATE);
        assert!(buckets.take_units(&u32::MAX, 10, START));
        for key in 0..10_000 {
            assert!(buckets.take(&key, START), "{key}");
        }
        assert!(buckets.lock().len() <= 4096);
        assert!(!buckets.take(&u32::MAX, START), "its bucket is still empty");
    }
}
