//! Keeps one gateway open: starts it, tries again for as long as it cannot start, and stops it so
//! that its port is free when [`Supervised::stop`] returns.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, refresh::Refresh};
use crate::{rng::random, state::io::Gateway};

/// How long a change of settings waits to hear whether a gateway opens. Binding a port and reading
/// a few files takes milliseconds; on a busy Pi with a slow card it may take a second.
const OPENING_TIME: Duration = Duration::from_secs(5);

/// Starts a gateway once; returns why it cannot be started. It may be called again.
pub(super) type Open =
    Box<dyn Fn(Signals) -> BoxFuture<'static, Result<Opened, String>> + Send + Sync>;

/// What a running gateway is told.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// Files beside the configuration may have changed.
    pub(crate) refresh: Arc<Refresh>,
    /// The gateway is to stop. One whose sockets are all in [`Opened::serve`] itself, and in no
    /// tasks of its own, need not look: that future is dropped.
    pub(crate) stop: CancellationToken,
}

/// A gateway that was opened: where it listens, and what serves it.
///
/// Its sockets are closed when `serve` has ended or was dropped.
pub(crate) struct Opened {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) serve: BoxFuture<'static, ()>,
    /// Whether `serve` looks at [`Signals::stop`], and has to be waited for.
    pub(crate) stops_itself: bool,
}

/// How it stands with a gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) open: bool,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) error: Option<String>,
    /// When it is tried again.
    pub(super) next: Option<Instant>,
    /// How often it was tried.
    attempts: u64,
}

/// A gateway that is to be open.
pub(super) struct Supervised {
    gateway: Gateway,
    status: watch::Receiver<Status>,
    retry: Arc<Notify>,
    signals: Signals,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts a gateway, and keeps trying if it cannot be started.
    pub(super) fn start(gateway: Gateway, open: Open) -> Self {
        let (told, status) = watch::channel(Status::default());
        let (refresh, retry) = (Arc::default(), Arc::new(Notify::new()));
        let signals = Signals {
            refresh,
            stop: CancellationToken::new(),
        };
        let keeper = Keeper {
            gateway,
            open,
            told,
            retry: Arc::clone(&retry),
            signals: signals.clone(),
        };
        let task = tokio::spawn(keeper.run());
        Self {
            gateway,
            status,
            retry,
            signals,
            task,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Says that files beside the configuration may have changed. What is returned ends when they
    /// were read, or after a moment.
    pub(super) fn refresh(&self) -> impl Future<Output = ()> + use<> {
        let read = self.signals.refresh.ask();
        // One that takes longer, or is closed meanwhile, is not waited for.
        async move { drop(timeout(OPENING_TIME, read).await) }
    }

    /// Has a gateway that could not be started tried again without waiting. What is returned ends
    /// when the outcome is known, or after a moment.
    pub(super) fn settled(&self) -> impl Future<Output = ()> + use<> {
        let (retry, mut status) = (Arc::clone(&self.retry), self.status.clone());
        async move {
            let before = status.borrow().clone();
            if before.open {
                return;
            }
            if before.error.is_some() {
                retry.notify_one();
            }
            let outcome = status.wait_for(|now| now.open || now.attempts > before.attempts);
            // One that takes longer is shown as it is by then.
            drop(timeout(OPENING_TIME, outcome).await);
        }
    }

    /// Tells the gateway to stop. Its sockets may still be open when this returns.
    pub(super) fn cancel(&self) {
        self.signals.stop.cancel();
    }

    /// Stops the gateway. When this returns its sockets are closed, and their ports are free.
    pub(super) async fn stop(self) {
        self.cancel();
        if let Err(error) = self.task.await {
            let gateway = self.gateway.name();
            tracing::error!(gateway, %error, "a gateway ended with an error");
        }
    }
}

/// The task of a gateway.
struct Keeper {
    gateway: Gateway,
    open: Open,
    told: watch::Sender<Status>,
    retry: Arc<Notify>,
    signals: Signals,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let mut opening = (self.open)(self.signals.clone());
            let opened = tokio::select! {
                opened = &mut opening => opened,
                () = self.signals.stop.cancelled() => {
                    // It may hold a socket until it hears of it.
                    drop(timeout(OPENING_TIME, opening).await);
                    return;
                }
            };
            let error = match opened {
                Ok(opened) => {
                    self.serve(opened).await;
                    self.signals.refresh.ended();
                    if self.signals.stop.is_cancelled() {
                        return;
                    }
                    "it ended".to_owned()
                }
                Err(error) => error,
            };
            let wait = backoff.next(begun.elapsed(), u64::from_le_bytes(random()));
            self.failed(error, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.retry.notified() => {}
                () = self.signals.stop.cancelled() => return,
            }
        }
    }

    /// Serves until the gateway is to stop; then its sockets are closed.
    async fn serve(&self, opened: Opened) {
        let Opened {
            addresses,
            mut serve,
            stops_itself,
        } = opened;
        for address in &addresses {
            tracing::info!(gateway = self.gateway.name(), %address, "gateway open");
        }
        self.told.send_modify(|status| {
            *status = Status {
                open: true,
                addresses,
                attempts: status.attempts + 1,
                ..Status::default()
            };
        });
        tokio::select! {
            () = &mut serve => {}
            () = self.signals.stop.cancelled() => {
                if stops_itself {
                    serve.await;
                }
            }
        }
    }

    fn failed(&self, error: String, wait: Duration) {
        let gateway = self.gateway.name();
        let is_same = self.told.borrow().error.as_ref() == Some(&error);
        if is_same {
            tracing::debug!(gateway, %error, ?wait, "could not open the gateway");
        } else {
            tracing::warn!(gateway, %error, ?wait, "could not open the gateway; it is tried again");
        }
        self.told.send_modify(|status| {
            *status = Status {
                error: Some(error),
                next: Some(Instant::now() + wait),
                attempts: status.attempts + 1,
                ..Status::default()
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A gateway that listens in a task of its own, as IID does.
    fn listening(address: SocketAddr) -> Open {
        Box::new(move |signals| {
            async move {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|error| error.to_string())?;
                let addresses = listener.local_addr().into_iter().collect();
                let serve = async move {
                    let mut tasks = tokio::task::JoinSet::new();
                    tasks.spawn(async move {
                        loop {
                            drop(listener.accept().await);
                        }
                    });
                    signals.stop.cancelled().await;
                    tasks.shutdown().await;
                };
                Ok(Opened {
                    addresses,
                    serve: serve.boxed(),
                    stops_itself: true,
                })
            }
            .boxed()
        })
    }

    #[tokio::test]
    async fn a_gateway_that_was_stopped_can_be_started_at_the_same_port_at_once() {
        let first = Supervised::start(Gateway::Iid, listening(([127, 0, 0, 1], 0).into()));
        first.settled().await;
        let address = first.status().addresses[0];
        first.stop().await;
        for _ in 0..100 {
            let again = Supervised::start(Gateway::Iid, listening(address));
            again.settled().await;
            let status = again.status();
            assert!(status.open, "{:?}", status.error);
            again.stop().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_cannot_start_is_tried_again_and_says_why_until_then() {
        let failures = Arc::new(Mutex::new(vec!["no memory", "port taken", "port taken"]));
        let open: Open = Box::new(move |_| {
            let failure = failures.lock().expect("not poisoned").pop();
            async move {
                match failure {
                    Some(why) => Err(why.to_owned()),
                    None => Ok(Opened {
                        addresses: Vec::new(),
                        serve: std::future::pending().boxed(),
                        stops_itself: false,
                    }),
                }
            }
            .boxed()
        });
        let gateway = Supervised::start(Gateway::P2sn, open);
        gateway.settled().await;
        let status = gateway.status();
        assert_eq!(status.error.as_deref(), Some("port taken"));
        assert!(!status.open && status.next.is_some());

        let mut open = gateway.status.clone();
        let opened = timeout(Duration::from_secs(60), open.wait_for(|status| status.open));

        let status = opened.await.expect("in time").expect("it runs").clone();
        assert_eq!(status.error, None);
        assert_eq!(status.attempts, 4);
        gateway.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_is_asked_for_again_is_tried_without_waiting() {
        let tries = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tries);
        let open: Open = Box::new(move |_| {
            *counted.lock().expect("not poisoned") += 1;
            std::future::ready(Err("port taken".to_owned())).boxed()
        });
        let gateway = Supervised::start(Gateway::Syft, open);
        gateway.settled().await;
        let at = tokio::time::Instant::now();
        gateway.settled().await;

        assert_eq!(at.elapsed(), Duration::ZERO);
        assert_eq!(*tries.lock().expect("not poisoned"), 2);
        gateway.stop().await;
    }
}
