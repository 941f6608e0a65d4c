//! How much one server may send, and how often it is in the log.
//!
//! A server that sends more is read more slowly, so that what is too much waits at the server. The
//! share outlives the connection: a new one does not fill the buckets.

use std::time::{Duration, Instant};

use crate::limits::{Bucket, LogLimit, Rate};

/// Frames that a server may send. The old server passes on five in a second from each user; after
/// an absence up to a burst of them comes at once.
const FRAMES: Rate = Rate {
    per_second: 20,
    burst: 1000,
};

/// Bytes that a server may send: four of the longest messages at once, then one in eight seconds.
const BYTES: Rate = Rate {
    per_second: 128 * 1024,
    burst: 4 * 1024 * 1024,
};

/// What a server may still send, and what the log has of it.
#[derive(Debug)]
pub(super) struct Share {
    started: Instant,
    frames: Bucket,
    bytes: Bucket,
    log: LogLimit<&'static str>,
}

impl Share {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            frames: Bucket::new(FRAMES),
            bytes: Bucket::new(BYTES),
            log: LogLimit::default(),
        }
    }

    /// Takes a frame of this length, or returns how long it has to wait.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Duration> {
        self.take_at(bytes, self.started.elapsed())
    }

    fn take_at(&mut self, bytes: usize, now: Duration) -> Result<(), Duration> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let ready = self
            .frames
            .ready_at(1, now)
            .max(self.bytes.ready_at(bytes, now));
        if ready > now {
            return Err(ready - now);
        }
        let taken = self.frames.take(now) && self.bytes.take_units(bytes, now);
        debug_assert!(taken, "both buckets have enough");
        Ok(())
    }

    /// Says whether a line of this kind is to be logged, with the number of lines since the last
    /// one that were not.
    pub(super) fn log(&mut self, kind: &'static str) -> Option<u64> {
        self.log.admit(kind, self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_waits() {
        const NOW: Duration = Duration::from_secs(100);
        let mut share = Share::new();
        let taken = (0..5000).filter(|_| share.take_at(100, NOW).is_ok());
        assert_eq!(taken.count(), 1000);
        assert_eq!(share.take_at(100, NOW), Err(Duration::from_millis(50)));

        let mut share = Share::new();
        let taken = (0..100).filter(|_| share.take_at(1 << 20, NOW).is_ok());
        assert_eq!(taken.count(), 4);
        assert_eq!(share.take_at(1 << 20, NOW), Err(Duration::from_secs(8)));
        let later = NOW + Duration::from_secs(8);
        assert_eq!(share.take_at(1 << 20, later), Ok(()));
    }
}
