//! Integers that passed just now, to break circles: what comes back is recognised by its index,
//! value and date.
//!
//! Only dates that are times tell one integer from another. Dates that are counters or nothing
//! repeat for good reasons (a key pressed twice), so such integers are never recognised.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::proto::iid::{Date, Iid, Index, Value};

/// Dates from here on are times: 10^8 (`proto-specs/iid.md`, section 2.3).
const TIME_MIN: Date = Date(100_000_000);

/// Most integers that are remembered.
const RECENT_MAX: usize = 65_536;

type Key = (Index, Value, Date);

/// What passed within a span of time.
#[derive(Debug)]
pub(super) struct Recent {
    span: Duration,
    known: HashMap<Key, Instant>,
    order: VecDeque<(Key, Instant)>,
}

impl Recent {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Says whether the date of an integer tells it from others.
    pub(super) fn is_told_apart(iid: &Iid) -> bool {
        iid.date >= TIME_MIN
    }

    /// Says whether an integer is remembered.
    pub(super) fn knows(&self, iid: &Iid) -> bool {
        let at = self.known.get(&(iid.index, iid.value, iid.date));
        at.is_some_and(|at| at.elapsed() < self.span)
    }

    /// Remembers an integer; says whether it was remembered already.
    pub(super) fn remember(&mut self, iid: &Iid, now: Instant) -> bool {
        if !Self::is_told_apart(iid) {
            return false;
        }
        while let Some(&(key, at)) = self.order.front() {
            if now.duration_since(at) < self.span && self.order.len() < RECENT_MAX {
                break;
            }
            self.order.pop_front();
            if self.known.get(&key) == Some(&at) {
                self.known.remove(&key);
            }
        }
        let key = (iid.index, iid.value, iid.date);
        self.order.push_back((key, now));
        self.known.insert(key, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_recent_for_a_while_if_its_date_is_a_time() {
        let iid = |date| Iid {
            index: Index(7),
            value: Value(1),
            date: Date(date),
        };
        let (dated, start) = (iid(1_700_000_000_000), Instant::now());
        let mut recent = Recent::new(Duration::from_secs(2));

        assert!(!recent.remember(&dated, start));
        assert!(recent.remember(&dated, start + Duration::from_millis(1999)));
        assert!(!recent.remember(&dated, start + Duration::from_millis(3999)));
        for _ in 0..2 {
            assert!(!recent.remember(&iid(0), start), "key presses repeat");
        }
    }
}
