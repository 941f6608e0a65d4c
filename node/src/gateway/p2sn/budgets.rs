//! How many failed sessions and messages the gateway takes: rules P2SN-FAILURES and P2SN-MESSAGES.
//!
//! Many programs may share an address, so what one of them does wrong is counted against its key
//! as soon as it has shown one. Before that nothing tells it from the others: then the address is
//! slowed down, and not locked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    limits::{Buckets, LogLimit, Rate, Source},
    proto::p2sn::Fingerprint,
};

/// Sessions of one source that failed before a key was shown: so many at once, and then one each
/// second. Each lets a stranger try one block of its own making on this node's key, and an attack
/// of that kind needs thousands.
const UNKNOWN: Rate = Rate {
    per_second: 1,
    burst: 20,
};

/// Sessions of one key at one source that failed: twenty at once, and then twenty a minute.
const OF_KEY: Rate = Rate {
    per_second: 1,
    burst: 20 * FAILURE_UNITS,
};

/// What a failure takes from the bucket of its key.
const FAILURE_UNITS: u32 = 3;

/// Messages of one source, so that a flood does not push everything else out of the history.
const MESSAGES: Rate = Rate {
    per_second: 20,
    burst: 1200,
};

/// How long a connection waits for its turn. Clients wait 3 s for the first answer.
const TURN_TIME: Duration = Duration::from_millis(2500);

/// How often a connection looks for its turn.
const TURN_INTERVAL: Duration = Duration::from_millis(100);

/// What sources and keys did of late.
#[derive(Debug)]
pub(super) struct Budgets {
    started: Instant,
    unknown: Buckets<Source>,
    of_key: Buckets<(Source, Fingerprint)>,
    messages: Buckets<Source>,
    log: Mutex<LogLimit<(Source, &'static str)>>,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            unknown: Buckets::new(UNKNOWN),
            of_key: Buckets::new(OF_KEY),
            messages: Buckets::new(MESSAGES),
            log: Mutex::default(),
        }
    }

    /// Waits until a connection of this source may begin; says whether it may. One from a source
    /// that did nothing wrong begins at once.
    pub(super) async fn may_begin(&self, source: Source) -> bool {
        if self.unknown.has(&source, self.now()) {
            return true;
        }
        let turn = async {
            while !self.unknown.take(&source, self.now()) {
                tokio::time::sleep(TURN_INTERVAL).await;
            }
        };
        tokio::time::timeout(TURN_TIME, turn).await.is_ok()
    }

    /// Says whether a session may go on with this key.
    pub(super) fn may_use(&self, source: Source, key: Fingerprint) -> bool {
        self.of_key.has(&(source, key), self.now())
    }

    /// Says whether this source may send a message, and counts it.
    pub(super) fn may_send(&self, source: Source) -> bool {
        self.messages.take(&source, self.now())
    }

    /// Counts a session that failed, with the key that it showed. At the limit nothing is left to
    /// be taken.
    pub(super) fn failed(&self, source: Source, key: Option<Fingerprint>) {
        match key {
            Some(key) => {
                let key = (source, key);
                self.of_key.take_units(&key, FAILURE_UNITS, self.now());
            }
            None => {
                self.unknown.take(&source, self.now());
            }
        }
    }

    /// Returns how many lines of this kind were left out, if one may be written.
    pub(super) fn log(&self, source: Source, kind: &'static str) -> Option<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.admit((source, kind), self.now())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    const KEYS: [Fingerprint; 2] = [Fingerprint([1; 32]), Fingerprint([2; 32])];

    #[test]
    fn a_key_that_failed_twenty_times_is_refused_and_others_of_its_address_are_not() {
        let budgets = Budgets::new();
        for _ in 0..19 {
            budgets.failed(source(1), Some(KEYS[0]));
        }
        assert!(budgets.may_use(source(1), KEYS[0]));

        budgets.failed(source(1), Some(KEYS[0]));

        assert!(!budgets.may_use(source(1), KEYS[0]));
        assert!(budgets.may_use(source(1), KEYS[1]));
        assert!(
            budgets.may_use(source(2), KEYS[0]),
            "behind another address"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_without_a_key_is_slowed_down_and_not_locked() {
        let budgets = Budgets::new();
        for _ in 0..22 {
            budgets.failed(source(1), None);
        }

        assert!(budgets.may_begin(source(2)).await, "another address");
        assert!(budgets.may_use(source(1), KEYS[0]));
        for _ in 0..3 {
            let begun = Instant::now();
            assert!(budgets.may_begin(source(1)).await, "its turn comes");
            let waited = begun.elapsed();
            assert!((500..1500).contains(&waited.as_millis()), "{waited:?}");
            budgets.failed(source(1), None);
        }
    }

    #[test]
    fn messages_of_a_source_have_a_budget() {
        let budgets = Budgets::new();
        let taken = (0..1300).filter(|_| budgets.may_send(source(1))).count();
        assert!((1200..1260).contains(&taken), "{taken}");
        assert!(budgets.may_send(source(2)));
    }
}
