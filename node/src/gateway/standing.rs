//! How it stands with a foreign server: what is reported, and the wait for the next attempt.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The report on a server, with the time of the next attempt to connect.
#[derive(Debug)]
pub(crate) struct Standing<R> {
    inner: Mutex<Inner<R>>,
    retry: Notify,
}

#[derive(Debug)]
struct Inner<R> {
    report: R,
    due: Option<Instant>,
}

impl<R: Clone> Standing<R> {
    pub(crate) fn new(report: R) -> Self {
        Self {
            inner: Mutex::new(Inner { report, due: None }),
            retry: Notify::new(),
        }
    }

    /// Changes the report.
    pub(crate) fn change(&self, change: impl FnOnce(&mut R)) {
        change(&mut self.inner().report);
    }

    /// Returns the report, and how long it is until the next attempt.
    pub(crate) fn report(&self) -> (R, Option<Duration>) {
        let inner = self.inner();
        let wait = inner
            .due
            .map(|due| due.saturating_duration_since(Instant::now()));
        (inner.report.clone(), wait)
    }

    /// Waits for the next attempt, which [`Self::retry_now`] brings forward.
    pub(crate) async fn wait(&self, wait: Duration) {
        let retry = self.retry.notified();
        self.inner().due = Some(Instant::now() + wait);
        drop(tokio::time::timeout(wait, retry).await);
        self.inner().due = None;
    }

    /// Has the next attempt made now, if one is waited for.
    pub(crate) fn retry_now(&self) {
        self.retry.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a duration in milliseconds, for reports.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_reported_and_can_be_ended() {
        const HOUR: Duration = Duration::from_secs(3600);
        let standing = Standing::new("waiting");
        // Nobody waits: the next wait is not shorter for it.
        standing.retry_now();
        let waiting = async {
            standing.wait(HOUR).await;
            assert_eq!(standing.report(), ("waiting", None));
        };
        let looking = async {
            tokio::task::yield_now().await;
            let (_, wait) = standing.report();
            assert!(wait.is_some_and(|wait| wait > HOUR / 2), "{wait:?}");
            standing.retry_now();
        };
        let begun = tokio::time::Instant::now();
        tokio::join!(waiting, looking);
        assert!(begun.elapsed() < HOUR);
    }
}
