//! How many failed sessions and messages the gateway takes: rules P2SN-FAILURES and P2SN-MESSAGES.
//!
//! Many programs may share an address, so what one of them does wrong is counted against its key
//! first. A key costs a stranger nothing, so each failure counts for its address as well; there it
//! slows down, and does not lock.
//!
//! A connection takes its unit from the address when it begins and has it back when its exchange is
//! complete. So an address never has more failures than units, however many connections it
//! has at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    limits::{Buckets, LogLimit, Rate, Source},
    proto::p2sn::Fingerprint,
};

/// Sessions of one source that failed, whatever key they showed: so many at once, and then one each
/// second. Each lets a stranger try one block of its own making on this node's key, and takes one of
/// the two places for RSA for some milliseconds. More than a place for each connection that an
/// address has by default, and three times what one broken program uses of it before its key is
/// refused.
const OF_SOURCE: Rate = Rate {
    per_second: 1,
    burst: 60,
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
    of_source: Buckets<Source>,
    of_key: Buckets<(Source, Fingerprint)>,
    messages: Buckets<Source>,
    log: Mutex<LogLimit<(Source, &'static str)>>,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            of_source: Buckets::new(OF_SOURCE),
            of_key: Buckets::new(OF_KEY),
            messages: Buckets::new(MESSAGES),
            log: Mutex::default(),
        }
    }

    /// Waits until a connection of this source may begin, if that is soon.
    pub(super) async fn may_begin(&self, source: Source) -> Option<Turn<'_>> {
        let turn = async {
            while !self.of_source.take(&source, self.now()) {
                tokio::time::sleep(TURN_INTERVAL).await;
            }
        };
        tokio::time::timeout(TURN_TIME, turn).await.ok()?;
        Some(Turn {
            budgets: self,
            source,
            is_out: true,
        })
    }

    /// Says whether a session may go on with this key.
    pub(super) fn may_use(&self, source: Source, key: Fingerprint) -> bool {
        self.of_key
            .has_units(&(source, key), FAILURE_UNITS, self.now())
    }

    /// Says whether this source may send a message, and counts it.
    pub(super) fn may_send(&self, source: Source) -> bool {
        self.messages.take(&source, self.now())
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

/// The turn of one connection. It costs its address nothing unless the session fails.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    budgets: &'a Budgets,
    source: Source,
    /// Whether a unit was taken from the address and not given back.
    is_out: bool,
}

impl Turn<'_> {
    /// Takes in that the exchange is complete.
    pub(super) fn succeeded(&mut self) {
        if std::mem::take(&mut self.is_out) {
            self.budgets.of_source.give_back(&self.source, 1);
        }
    }

    /// Counts that the session failed, with the key that it showed.
    pub(super) fn failed(mut self, key: Option<Fingerprint>) {
        let Budgets {
            of_source, of_key, ..
        } = self.budgets;
        let now = self.budgets.now();
        if !std::mem::take(&mut self.is_out) {
            of_source.take(&self.source, now);
        }
        if let Some(key) = key {
            of_key.charge(&(self.source, key), FAILURE_UNITS, now);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.succeeded();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::FutureExt;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn key(number: u32) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Fingerprint(bytes)
    }

    /// The turn of a connection that has to wait for nothing.
    fn at_once(budgets: &Budgets, source: Source) -> Option<Turn<'_>> {
        budgets.may_begin(source).now_or_never().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_failed_twenty_times_is_refused_and_others_of_its_address_are_not() {
        let budgets = Budgets::new();
        for _ in 0..19 {
            let turn = at_once(&budgets, source(1)).expect("a turn");
            turn.failed(Some(key(1)));
        }
        assert!(budgets.may_use(source(1), key(1)));

        let turn = at_once(&budgets, source(1)).expect("a turn");
        turn.failed(Some(key(1)));

        assert!(!budgets.may_use(source(1), key(1)));
        assert!(budgets.may_use(source(1), key(2)));
        assert!(budgets.may_use(source(2), key(1)), "behind another address");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_goes_on_failing_does_so_twenty_times_a_minute() {
        let budgets = Budgets::new();
        let mut failed = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            let mut count = 0;
            while begun.elapsed() < MINUTE {
                while count < 1000
                    && let Some(turn) = at_once(&budgets, source(1))
                    && budgets.may_use(source(1), key(1))
                {
                    turn.failed(Some(key(1)));
                    count += 1;
                }
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            failed.push(count);
        }
        // Twenty at once, and twenty in each minute.
        assert!((39..=40).contains(&failed[0]), "{failed:?}");
        assert!((19..=21).contains(&failed[1]), "{failed:?}");
        assert!((19..=21).contains(&failed[2]), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_of_one_key_that_fail_at_the_same_time_all_count() {
        let budgets = Budgets::new();
        let turns: Vec<_> = (0..32)
            .filter_map(|_| at_once(&budgets, source(1)))
            .collect();
        assert!(budgets.may_use(source(1), key(1)));
        for turn in turns {
            turn.failed(Some(key(1)));
        }

        // Twelve more than there were: 36 s, and 3 s for one more.
        tokio::time::advance(Duration::from_millis(38_900)).await;
        assert!(!budgets.may_use(source(1), key(1)));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(budgets.may_use(source(1), key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_a_new_key_for_each_failure_is_slowed_down() {
        let budgets = Budgets::new();
        let mut failed = 0;
        let begun = Instant::now();
        while begun.elapsed() < MINUTE {
            while failed < 1000
                && let Some(turn) = at_once(&budgets, source(1))
            {
                failed += 1;
                assert!(budgets.may_use(source(1), key(failed)));
                turn.failed(Some(key(failed)));
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!((119..=120).contains(&failed), "{failed}");
        assert!(at_once(&budgets, source(2)).is_some(), "another address");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_after_the_exchange_count_for_the_address_as_well() {
        let budgets = Budgets::new();
        for number in 0..60 {
            let mut turn = at_once(&budgets, source(1)).expect("a turn");
            turn.succeeded();
            turn.failed(Some(key(number)));
        }
        assert!(at_once(&budgets, source(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_is_slowed_down_and_not_locked() {
        let budgets = Budgets::new();
        for _ in 0..60 {
            at_once(&budgets, source(1)).expect("a turn").failed(None);
        }

        assert!(at_once(&budgets, source(2)).is_some(), "another address");
        assert!(budgets.may_use(source(1), key(1)));
        for _ in 0..3 {
            let begun = Instant::now();
            let turn = budgets.may_begin(source(1)).await;
            let waited = begun.elapsed();
            assert!((500..1500).contains(&waited.as_millis()), "{waited:?}");
            turn.expect("its turn comes").failed(None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_do_not_fail_cost_an_address_nothing() {
        let budgets = Budgets::new();
        for _ in 0..1000 {
            at_once(&budgets, source(1)).expect("a turn").succeeded();
            // Sent away, or cut off because the gateway closes.
            drop(at_once(&budgets, source(1)).expect("a turn"));
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
