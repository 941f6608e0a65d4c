//! How long a message is kept trying, within bounds.

use std::time::Duration;

use super::io::{Failure, Now};

/// How long a message is kept trying: from [`Self::MIN`] to [`Self::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(Duration);

impl Expiry {
    /// Shortest time: what tells it counts seconds. The time in `pimesh.toml` is for all messages,
    /// and a minute at least.
    pub const MIN: Duration = Duration::from_secs(1);

    /// Longest time, 30 days, for one message as for all in `pimesh.toml`: as long as what waits
    /// holds a place in the outbox, and a row of the history that is not pruned.
    pub const MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// What is in force if nothing else is said.
    pub const DEFAULT: Self = Self(Duration::from_secs(7 * 24 * 60 * 60));

    /// Takes a time that is within the bounds.
    ///
    /// # Errors
    /// Returns what is wrong with another one.
    pub fn new(time: Duration) -> Result<Self, ExpiryError> {
        if (Self::MIN..=Self::MAX).contains(&time) {
            Ok(Self(time))
        } else {
            Err(ExpiryError(time))
        }
    }

    /// Takes the nearest time that is within the bounds.
    pub(super) fn capped(time: Duration) -> Self {
        Self(time.clamp(Self::MIN, Self::MAX))
    }

    /// Returns how long it is.
    #[must_use]
    pub const fn time(self) -> Duration {
        self.0
    }

    /// Returns when it is over for a message that is accepted now, Unix ms.
    pub(super) fn end_ms(self, now: Now) -> u64 {
        now.unix_ms().saturating_add(super::millis(self.0))
    }
}

/// Why a time is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is kept trying for 1 s to 30 days, not for {} s", .0.as_secs())]
pub struct ExpiryError(Duration);

impl From<ExpiryError> for Failure {
    fn from(error: ExpiryError) -> Self {
        Self::bad_request(error.to_string()).with_hint(
            "`--expires 30d` is the longest; without it `messages.expiry` in `pimesh.toml` is in \
             force",
        )
    }
}
