//! How many bytes of integers an index may send in a minute, an hour, a day and a month
//! (`proto-specs/iid.md`, section 5.9).
//!
//! Windows slide: each is cut into slices, and the oldest slice leaves as a new one begins. So a
//! window forgets a byte at most one slice later than it could. What the limits are is up to the
//! operator; who is kicked, and what it is told, is up to the gateway.

use std::time::Duration;

/// Most bytes in each window; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In a minute.
    pub minute: u64,
    /// In an hour.
    pub hour: u64,
    /// In a day.
    pub day: u64,
    /// In 30 days.
    pub month: u64,
}

impl Default for Limits {
    /// 100 integers a second for a minute, a gamepad at 60 Hz for the rest.
    fn default() -> Self {
        Self {
            minute: 96_000,
            hour: 4_000_000,
            day: 40_000_000,
            month: 600_000_000,
        }
    }
}

/// A span of time with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// 60 s.
    Minute,
    /// 60 min.
    Hour,
    /// 24 h.
    Day,
    /// 30 days.
    Month,
}

impl Span {
    const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// Returns its name, as kicked clients are told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Month => "MONTH",
        }
    }

    const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
            Self::Month => 30 * 24 * 60 * 60,
        })
    }

    const fn limit(self, limits: &Limits) -> u64 {
        match self {
            Self::Minute => limits.minute,
            Self::Hour => limits.hour,
            Self::Day => limits.day,
            Self::Month => limits.month,
        }
    }
}

/// Slices of a window.
const SLICES: usize = 60;

/// The last bytes of one index.
#[derive(Clone, Debug)]
pub struct Budget {
    windows: [Window; 4],
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            windows: Span::ALL.map(Window::new),
        }
    }
}

impl Budget {
    /// Counts bytes that came at this time, if they fit into every window. Times do not go back.
    ///
    /// # Errors
    /// Returns the first window they do not fit into; then nothing is counted.
    pub fn spend(&mut self, bytes: u64, limits: &Limits, now: Duration) -> Result<(), Span> {
        self.check(bytes, limits, now)?;
        for window in &mut self.windows {
            window.add(bytes);
        }
        Ok(())
    }

    /// Says whether this many bytes fit at this time.
    ///
    /// # Errors
    /// Returns the first window they do not fit into.
    pub fn check(&mut self, bytes: u64, limits: &Limits, now: Duration) -> Result<(), Span> {
        for (window, span) in self.windows.iter_mut().zip(Span::ALL) {
            window.advance(now);
            let limit = span.limit(limits);
            if limit != 0 && window.sum.saturating_add(bytes) > limit {
                return Err(span);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Window {
    slice: Duration,
    slices: [u64; SLICES],
    /// Number of the newest slice since the beginning of time.
    newest: u64,
    sum: u64,
}

impl Window {
    const fn new(span: Span) -> Self {
        Self {
            slice: Duration::from_millis(span.length().as_millis() as u64 / SLICES as u64),
            slices: [0; SLICES],
            newest: 0,
            sum: 0,
        }
    }

    /// Lets go of what is older than the window.
    fn advance(&mut self, now: Duration) {
        let slice = u64::try_from(now.as_millis() / self.slice.as_millis()).unwrap_or(u64::MAX);
        let passed = slice.saturating_sub(self.newest);
        for step in 1..=passed.min(SLICES as u64) {
            let at = Self::place(self.newest.saturating_add(step));
            self.sum -= self.slices[at];
            self.slices[at] = 0;
        }
        self.newest = self.newest.max(slice);
    }

    fn add(&mut self, bytes: u64) {
        let at = Self::place(self.newest);
        self.slices[at] = self.slices[at].saturating_add(bytes);
        self.sum = self.sum.saturating_add(bytes);
    }

    const fn place(slice: u64) -> usize {
        (slice % SLICES as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        minute: 100,
        hour: 150,
        day: 0,
        month: 0,
    };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_window_is_full_until_its_oldest_bytes_have_left_it() {
        let mut budget = Budget::default();

        assert_eq!(budget.spend(60, &LIMITS, at(10)), Ok(()));
        assert_eq!(budget.spend(40, &LIMITS, at(40)), Ok(()));
        assert_eq!(budget.spend(1, &LIMITS, at(69)), Err(Span::Minute));
        assert_eq!(budget.spend(50, &LIMITS, at(70)), Ok(()), "60 have left");
        assert_eq!(budget.spend(1, &LIMITS, at(100)), Err(Span::Hour));
        assert_eq!(budget.spend(60, &LIMITS, at(10 + 3660)), Ok(()));
    }

    #[test]
    fn bytes_that_do_not_fit_are_not_counted() {
        let mut budget = Budget::default();

        assert_eq!(budget.spend(101, &LIMITS, at(0)), Err(Span::Minute));
        assert_eq!(budget.spend(100, &LIMITS, at(0)), Ok(()));
    }

    #[test]
    fn nought_is_no_limit() {
        let limits = Limits {
            minute: 0,
            hour: 0,
            ..LIMITS
        };
        let mut budget = Budget::default();
        for second in 0..100 {
            assert_eq!(budget.spend(u64::MAX / 64, &limits, at(second)), Ok(()));
        }
    }

    #[test]
    fn the_defaults_let_a_gamepad_run_all_day_and_a_flood_for_a_minute_only() {
        let limits = Limits::default();
        let mut budget = Budget::default();
        for second in 0..(10 * 60 * 60) {
            let gamepad = 60 * 16;
            assert_eq!(budget.spend(gamepad, &limits, at(second)), Ok(()));
        }
        let mut budget = Budget::default();
        let flood = 101 * 16;
        let kicked = (0..120).find(|second| budget.spend(flood, &limits, at(*second)).is_err());
        assert_eq!(kicked, Some(59));
    }
}
