//! Permits for connections: how many at once, in all and from one source.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Source;

/// A limit of open connections. Cheap to clone; clones share the limit.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    max: usize,
    per_source_max: usize,
    open: Arc<Mutex<BTreeMap<Source, usize>>>,
}

impl ConnectionLimit {
    /// Allows `max` connections, of which `per_source_max` from one source.
    #[must_use]
    pub fn new(max: usize, per_source_max: usize) -> Self {
        Self {
            max,
            per_source_max,
            open: Arc::default(),
        }
    }

    /// Returns a permit for one more connection from this source, if the limit allows one.
    #[must_use]
    pub fn acquire(&self, source: impl Into<Source>) -> Option<Permit> {
        let source = source.into();
        let mut open = self.open();
        let all: usize = open.values().sum();
        let here = open.get(&source).copied().unwrap_or(0);
        if all >= self.max || here >= self.per_source_max {
            return None;
        }
        open.insert(source, here + 1);
        Some(Permit {
            limit: self.clone(),
            source,
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Source, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permission for one open connection; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    limit: ConnectionLimit,
    source: Source,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limit.open();
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn permits_are_limited_in_all_and_for_each_source_and_come_back() {
        let limit = ConnectionLimit::new(3, 2);
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let first = limit.acquire(a).expect("free");
        let _second = limit.acquire(a).expect("free");
        assert!(limit.acquire(a).is_none(), "two from one address");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(
            limit.acquire(mapped).is_none(),
            "the same address, written otherwise"
        );
        let _third = limit.acquire(b).expect("free");
        assert!(limit.acquire(b).is_none(), "three in all");

        drop(first);

        assert!(limit.acquire(b).is_some());
    }
}
