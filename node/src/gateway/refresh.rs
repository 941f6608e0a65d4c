//! Having a gateway read the files beside its settings again, and waiting until it has.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, oneshot};

/// Tells a gateway that files may have changed. What is said after that counts only once the
/// gateway has read them, so those who tell it can wait.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    asked: Notify,
    waiting: Mutex<Waiting>,
    /// Whether the gateway has such files.
    is_heard: AtomicBool,
}

/// Those who wait; they are told when this is dropped.
pub(crate) type Waiting = Vec<oneshot::Sender<()>>;

impl Refresh {
    /// Says that files may have changed. What is returned ends when they were read, at once if the
    /// gateway has none.
    pub(crate) fn ask(&self) -> impl Future<Output = ()> + use<> {
        let (told, read) = oneshot::channel();
        if self.is_heard.load(Ordering::Relaxed) {
            self.waiting().push(told);
            self.asked.notify_one();
        }
        async move { drop(read.await) }
    }

    /// Waits until it is asked. The first call says that the gateway has files.
    pub(crate) async fn asked(&self) -> Waiting {
        self.is_heard.store(true, Ordering::Relaxed);
        self.asked.notified().await;
        std::mem::take(&mut *self.waiting())
    }

    /// The gateway has stopped: requests to refresh it end.
    pub(crate) fn ended(&self) {
        self.is_heard.store(false, Ordering::Relaxed);
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_a_gateway_that_has_stopped() {
        let refresh = Refresh::default();
        assert!(refresh.asked().now_or_never().is_none());
        let waits = refresh.ask();

        refresh.ended();

        waits.await;
        refresh.ask().await;
    }

    #[tokio::test]
    async fn who_asks_waits_until_the_files_were_read_and_not_where_there_are_none() {
        let refresh = Refresh::default();
        refresh.ask().await;

        assert!(
            refresh.asked().now_or_never().is_none(),
            "listens from here on"
        );
        let mut read = Box::pin(refresh.ask());
        assert!(read.as_mut().now_or_never().is_none());
        let waiting = refresh.asked().await;
        assert!(read.as_mut().now_or_never().is_none(), "not read yet");
        drop(waiting);
        read.await;
    }
}
