//! Accepting connections of a listener, also when it cannot accept any for a while.

use std::{
    io,
    net::SocketAddr,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::Instant,
};

use crate::limits::LogLimit;

/// How long to wait when no connection could be accepted: usually there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Which failures were logged: those of all listeners are the same when descriptors run out.
static FAILURES: LazyLock<Failures> = LazyLock::new(Failures::default);

/// Returns the next connection, however long it takes.
pub(crate) async fn accept_next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    accepted(|| listener.accept()).await
}

/// A listener of axum's that accepts as [`accept_next`] does.
pub(crate) struct Accepting<L>(pub(crate) L);

impl Listener for Accepting<TcpListener> {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        accept_next(&self.0).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Listener for Accepting<UnixListener> {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let listener = &self.0;
        accepted(|| listener.accept()).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Accepts until it succeeds, with a pause behind each failure.
async fn accepted<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            // The connection ended before it was accepted: the next one may be there already.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(suppressed) = FAILURES.admit(&error) {
                    tracing::warn!(%error, suppressed, "could not accept a connection");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Failures to accept: one line of a kind in a minute.
struct Failures {
    log: Mutex<LogLimit<Option<i32>>>,
    began: Instant,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            log: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl Failures {
    /// Returns how many lines were left out since the last one, if this one is to be written.
    fn admit(&self, error: &io::Error) -> Option<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.admit(error.raw_os_error(), self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Too many open files, as Linux numbers it.
    const EMFILE: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn running_out_of_descriptors_is_logged_once_a_minute_and_counted() {
        let failures = Failures::default();
        let error = io::Error::from_raw_os_error(EMFILE);
        let mut lines = Vec::new();

        for _ in 0..1200 {
            lines.extend(failures.admit(&error));
            tokio::time::advance(PAUSE).await;
        }

        assert_eq!(lines, [0, 599]);
    }

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_failures_with_pauses() {
        let (began, tries) = (Instant::now(), Cell::new(0));

        let number = accepted(|| {
            tries.set(tries.get() + 1);
            std::future::ready(match tries.get() {
                4 => Ok(7),
                _ => Err(io::Error::from_raw_os_error(EMFILE)),
            })
        })
        .await;

        assert_eq!((number, tries.get()), (7, 4));
        assert_eq!(began.elapsed(), 3 * PAUSE);
    }
}
