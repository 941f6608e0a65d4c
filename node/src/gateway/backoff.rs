//! How long the node waits before it tries a foreign server again: exponential, with full jitter,
//! and anew from the beginning after a connection that lasted.

use std::time::Duration;

/// The first wait is below this, and each further one below twice the bound of the one before.
const BASE: Duration = Duration::from_secs(1);

/// No wait is longer.
const MAX: Duration = Duration::from_secs(60);

/// How long a connection has to last until the waits begin anew.
const STABLE: Duration = Duration::from_secs(30);

/// The waits between attempts at one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns the wait after an attempt whose connection lasted this long. `chance` is uniform.
    pub(crate) fn next(&mut self, lasted: Duration, chance: u64) -> Duration {
        if lasted >= STABLE {
            self.attempts = 0;
        }
        let bound = BASE.saturating_mul(1 << self.attempts.min(6)).min(MAX);
        self.attempts = self.attempts.saturating_add(1);
        let us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(chance % us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_minute_and_begin_anew_after_a_connection_that_lasted() {
        let mut backoff = Backoff::default();
        // The longest wait of each bound: chance is one less than a multiple of every bound.
        let chance = 64 * 60 * 1_000_000 - 1;
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(backoff.next(Duration::ZERO, chance).as_millis());
        }
        assert_eq!(
            waits,
            [999, 1999, 3999, 7999, 15_999, 31_999, 59_999, 59_999]
        );
        let wait = backoff.next(STABLE, chance);
        assert_eq!(wait.as_millis(), 999);
        assert_eq!(
            backoff.next(Duration::ZERO, 0),
            Duration::ZERO,
            "full jitter"
        );
    }
}
