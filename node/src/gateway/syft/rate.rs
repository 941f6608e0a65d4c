//! How fast is too fast: buckets that fill with time, and room for frames that wait.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Wrong tokens and signatures from one address. A client that lost its connection tries at once
/// and then every five seconds, so this stands in nobody's way.
pub(super) const FAILURES: Rate = Rate {
    per_second: 10,
    burst: 200,
};

/// Registrations from one address.
pub(super) const REGISTRATIONS: Rate = Rate {
    per_second: 5,
    burst: 2048,
};

/// Addresses that are remembered; at the limit those whose buckets are full again go first.
const ADDRESSES_MAX: usize = 4096;

/// Bytes of frames that wait to be carried, of all clients together: what a Pi can spare.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How often, and how often at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

/// A bucket: each take empties it a little, time fills it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket will be full, on a clock that never jumps.
    full_at: Duration,
}

impl Bucket {
    pub(super) const fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: Duration::ZERO,
        }
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(1) / self.rate.per_second
    }

    /// Returns when there will be enough for one take, which may be now.
    pub(super) fn ready_at(&self, now: Duration) -> Duration {
        let depth = self.cost() * self.rate.burst;
        (self.full_at + self.cost()).saturating_sub(depth).max(now)
    }

    /// Takes, if there is enough.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if self.ready_at(now) > now {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.cost();
        true
    }

    fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

/// A bucket for each address.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Rate,
    of: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            of: Mutex::default(),
        }
    }

    /// Takes from the bucket of an address, if there is enough.
    pub(super) fn take(&self, address: IpAddr, now: Duration) -> bool {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if of.len() >= ADDRESSES_MAX {
            of.retain(|_, bucket| !bucket.is_full(now));
        }
        if of.len() >= ADDRESSES_MAX {
            return false;
        }
        let address = address.to_canonical();
        let bucket = of.entry(address).or_insert(Bucket::new(self.rate));
        bucket.take(now)
    }

    /// Says whether there is enough, and takes nothing.
    pub(super) fn has(&self, address: IpAddr, now: Duration) -> bool {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.get(&address.to_canonical())
            .is_none_or(|bucket| bucket.ready_at(now) <= now)
    }
}

/// Room for frames that wait, shared by all clients. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// Room that is taken; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken {
            room: self.clone(),
            bytes,
        };
        (before + bytes <= WAITING_BYTES_MAX).then_some(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn a_burst_passes_and_then_one_at_each_interval() {
        let rate = Rate {
            per_second: 5,
            burst: 10,
        };
        let mut bucket = Bucket::new(rate);
        let taken = (0..20).filter(|_| bucket.take(START)).count();
        assert_eq!(taken, 10);
        let next = bucket.ready_at(START);
        assert_eq!(next, START + Duration::from_millis(200));
        assert!(!bucket.take(next.saturating_sub(Duration::from_millis(1))));
        assert!(bucket.take(next));
        let later = START + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 10);
    }

    #[test]
    fn each_address_has_a_bucket_of_its_own() {
        let buckets = Buckets::new(Rate {
            per_second: 1,
            burst: 1,
        });
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        assert!(buckets.take(a, START));
        assert!(!buckets.take(a, START));
        assert!(!buckets.has(a, START));
        assert!(buckets.take(b, START));
    }

    #[test]
    fn room_comes_free_when_what_took_it_is_gone() {
        let room = Room::default();
        let all = room.take(WAITING_BYTES_MAX).expect("empty");
        assert!(room.take(1).is_none());
        drop(all);
        assert!(room.take(1).is_some());
    }
}
