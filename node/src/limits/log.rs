//! The first line of a kind per minute; the rest is counted.

use std::{collections::BTreeMap, time::Duration};

/// How long one line stands for all of its kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Kinds that are remembered. Beyond it the kinds whose interval is over are forgotten; if that is
/// not enough, new kinds stay out of the log until one is.
const KINDS_MAX: usize = 1024;

/// Decides which lines of the log are written, so that nobody outside can fill the disk with them.
///
/// A kind is what makes two lines the same for a reader, for example what was refused, why, and to
/// which peer.
#[derive(Debug)]
pub struct LogLimit<K> {
    kinds: BTreeMap<K, Kind>,
    /// Lines of kinds that are not remembered.
    untold: u64,
}

/// A kind of line: when one was last written, and how many were not since then.
#[derive(Clone, Copy, Debug)]
struct Kind {
    written: Duration,
    suppressed: u64,
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        Self {
            kinds: BTreeMap::new(),
            untold: 0,
        }
    }
}

impl<K: Ord> LogLimit<K> {
    /// Returns `Some` if a line of this kind is to be written, with the number of lines that were
    /// suppressed since the last one.
    pub fn admit(&mut self, kind: K, now: Duration) -> Option<u64> {
        if let Some(known) = self.kinds.get_mut(&kind) {
            if now.saturating_sub(known.written) < INTERVAL {
                known.suppressed = known.suppressed.saturating_add(1);
                return None;
            }
            let suppressed = std::mem::take(&mut known.suppressed);
            known.written = now;
            return Some(suppressed);
        }
        if self.kinds.len() >= KINDS_MAX {
            self.kinds
                .retain(|_, kind| now.saturating_sub(kind.written) < INTERVAL);
        }
        if self.kinds.len() >= KINDS_MAX {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        let kind_state = Kind {
            written: now,
            suppressed: 0,
        };
        self.kinds.insert(kind, kind_state);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_line_of_a_kind_is_written_in_a_minute_and_the_rest_is_counted() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.admit("a", at(0)), Some(0));
        assert_eq!(limit.admit("a", at(1)), None);
        assert_eq!(limit.admit("a", at(59)), None);
        assert_eq!(limit.admit("b", at(59)), Some(0), "another kind");
        assert_eq!(limit.admit("a", at(60)), Some(2));
        assert_eq!(limit.admit("a", at(61)), None);
    }

    #[test]
    fn the_kinds_are_limited_and_what_they_hide_is_counted() {
        let mut limit = LogLimit::default();
        let written = (0..5000)
            .filter(|kind| limit.admit(*kind, at(0)).is_some())
            .count();
        assert_eq!(written, 1024);
        assert_eq!(limit.admit(9999, at(60)), Some(5000 - 1024));
    }
}
