//! How many integers a sender may send: a token bucket for each, and two for this node itself.
//!
//! Specified in `proto-specs/iid.md`, section 9 (the budget of a source, OWN-BUDGET) and section 10
//! (BRIDGED-SHARE). What is over the budget of a source is ignored by every receiver, so a node keeps
//! to it by itself, and says what it did not send.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use crate::state::{
    Settings,
    io::{Failure, OverBudget},
};

/// How much of the budget that the others allow this node uses. The rest is for integers that come
/// closer together than they were sent.
const OWN_SHARE: f64 = 0.95;

/// How much of it its gateways' clients may use. The rest stays for the node, so that a crowd of
/// clients never silences it.
const BRIDGED_SHARE: f64 = 0.8;

/// Integers that waited go out in batches of this part of what a second allows: a message for each
/// would cost more than the integer.
const PACE: f64 = 0.1;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Duration,
}

/// How fast a bucket fills, and its size.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// Returns this share of the budget; of the smallest one it holds one integer all the same.
    fn of(settings: &Settings, share: f64) -> Self {
        let per_second = f64::from(settings.budget_per_second) * share;
        let burst = f64::from(settings.budget_burst) * share;
        Self {
            per_second,
            burst: burst.max(per_second).max(cost(1)),
        }
    }
}

/// The buckets of all senders. A rate of 0 turns them off.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    of: BTreeMap<PeerId, Bucket>,
    own: Option<Bucket>,
    bridged: Option<Bucket>,
}

impl Budgets {
    /// Takes integers out of another node's budget, if there are as many left.
    pub(super) fn spend(
        &mut self,
        source: PeerId,
        count: usize,
        settings: &Settings,
        now: Duration,
    ) -> bool {
        if settings.budget_per_second == 0 {
            return true;
        }
        let rate = Rate::of(settings, 1.0);
        let bucket = self
            .of
            .entry(source)
            .or_insert_with(|| Bucket::full(rate, now));
        bucket.fill(rate, now);
        bucket.take(count)
    }

    /// Takes integers of a client out of this node's own budget, if there are as many left.
    pub(super) fn spend_bridged(
        &mut self,
        count: usize,
        settings: &Settings,
        now: Duration,
    ) -> bool {
        if settings.budget_per_second == 0 {
            return true;
        }
        let (own_rate, rate) = (
            Rate::of(settings, OWN_SHARE),
            Rate::of(settings, BRIDGED_SHARE),
        );
        let own = self.own.get_or_insert_with(|| Bucket::full(own_rate, now));
        own.fill(own_rate, now);
        let bridged = self.bridged.get_or_insert_with(|| Bucket::full(rate, now));
        bridged.fill(rate, now);
        own.has(count) && bridged.take(count) && own.take(count)
    }

    /// Takes integers that this node itself says out of its budget.
    ///
    /// # Errors
    /// Says how many would go out now, and when more will; then nothing was taken.
    pub(super) fn spend_own(
        &mut self,
        count: usize,
        settings: &Settings,
        now: Duration,
    ) -> Result<(), Failure> {
        if settings.budget_per_second == 0 {
            return Ok(());
        }
        let rate = Rate::of(settings, OWN_SHARE);
        let own = self.own.get_or_insert_with(|| Bucket::full(rate, now));
        own.fill(rate, now);
        if own.take(count) {
            return Ok(());
        }
        let budget = own.left(count, rate);
        let text = format!(
            "{} more than the other nodes take now: they take {} of a node in a second, and {} at \
             once",
            if count == 1 {
                "1 integer is".to_owned()
            } else {
                format!("{count} integers are")
            },
            settings.budget_per_second,
            settings.budget_burst
        );
        let hint = format!("wait for {} ms, or send fewer at once", budget.retry_ms);
        Err(Failure::over_budget(text, budget).with_hint(hint))
    }
}

impl Bucket {
    const fn full(rate: Rate, now: Duration) -> Self {
        Self {
            tokens: rate.burst,
            filled: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Duration) {
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        self.filled = now;
    }

    fn has(&self, count: usize) -> bool {
        self.tokens >= cost(count)
    }

    fn take(&mut self, count: usize) -> bool {
        let has = self.has(count);
        if has {
            self.tokens -= cost(count);
        }
        has
    }

    /// Returns how many of these would go out now, and how long until a pace of them does.
    fn left(&self, count: usize, rate: Rate) -> OverBudget {
        let pace = (rate.per_second * PACE).max(1.0).min(cost(count)).floor();
        let missing = (pace - self.tokens).max(0.0);
        // At least a millisecond, so that nobody asks in a circle.
        let retry_ms = (missing / rate.per_second * 1000.0).ceil().max(1.0);
        // Both are positive and small.
        let (left, retry_ms) = (self.tokens as usize, retry_ms as u64);
        let fits = if missing > 0.0 { 0 } else { left };
        OverBudget { fits, retry_ms }
    }
}

const fn cost(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mesh::peer_of_seed;

    const fn at_ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn with_the_smallest_budget_an_integer_is_sent_now_and_then() {
        let settings = Settings {
            budget_per_second: 1,
            budget_burst: 1,
            ..Settings::default()
        };
        let (mut own, mut bridged, mut others) =
            (Budgets::default(), Budgets::default(), Budgets::default());
        let source = peer_of_seed(2);

        assert!(own.spend_own(1, &settings, at_ms(0)).is_ok());
        let refused = own.spend_own(1, &settings, at_ms(0)).expect_err("no more");
        let retry_ms = refused.over_budget.expect("it says when").retry_ms;
        assert_eq!(retry_ms, 1053);
        assert!(own.spend_own(1, &settings, at_ms(retry_ms)).is_ok());
        for second in [0, 2, 4] {
            let now = at_ms(second * 1000);
            assert!(bridged.spend_bridged(1, &settings, now), "{second}");
            assert!(!bridged.spend_bridged(1, &settings, now), "{second}");
        }
        for ms in [0, retry_ms] {
            assert!(others.spend(source, 1, &settings, at_ms(ms)), "{ms}");
        }
    }
}
