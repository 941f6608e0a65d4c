//! A listener with a limit of open connections, a share of it for commands that follow something,
//! and an end to clients that do not read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use crate::state::io::Failure;

/// Connections open at once.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Connections on which something is followed or streamed, at once. The other places are for
/// commands that are soon done.
pub(super) const STREAMS_MAX: usize = 48;

/// How long telling a client that there is no place may take.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Clients that are told so at once; others are hung up on.
const REFUSALS_MAX: usize = 64;

/// How long a client may take to read something of what is sent to it.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(30);

/// A listener that takes [`CONNECTIONS_MAX`] connections and tells the others why it does not take
/// them.
pub(super) struct Limited<L> {
    listener: L,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl<L> Limited<L> {
    pub(super) fn new(listener: L) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Placed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (io, address) = self.listener.accept().await;
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return (Placed::new(io, place), address);
            }
            if let Ok(refusal) = Arc::clone(&self.refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    // A client that does not hear it is gone.
                    drop(tokio::time::timeout(REFUSAL_TIME, refuse(io)).await);
                    drop(refusal);
                });
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn refuse(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let text = format!("{CONNECTIONS_MAX} control connections are open already");
    let failure = Failure::unavailable(text).with_hint("end a command that follows something");
    let body = serde_json::to_string(&failure)?;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await?;
    // A socket that is closed with an unread request in it loses the answer.
    let mut unread = [0; 4096];
    while io.read(&mut unread).await? > 0 {}
    Ok(())
}

/// The places for commands that follow or stream something. Cheap to clone.
#[derive(Clone)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Streams {
    /// Takes a place, which is free again when what is returned is dropped.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let text = format!("{STREAMS_MAX} commands that follow something run already");
            Failure::unavailable(text).with_hint("end one of them")
        })
    }
}

/// A connection that holds a place.
pub(super) struct Placed<I> {
    io: I,
    /// When the client has to have read something, while something waits for it.
    reading: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Placed<I> {
    const fn new(io: I, place: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            reading: None,
            _place: place,
        }
    }

    /// Returns what a write came to, or an error if it has waited for too long.
    fn within_time<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.reading = None;
            return written;
        }
        let deadline = || Box::pin(tokio::time::sleep(WRITE_TIME));
        ready!(self.reading.get_or_insert_with(deadline).as_mut().poll(cx));
        let text = "the client does not read";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Placed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Placed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.within_time(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.within_time(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> (Placed<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let places = Arc::new(Semaphore::new(1));
        let place = places.try_acquire_owned().expect("is free");
        (Placed::new(near, place), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_ended_and_a_slow_one_is_not() {
        let (mut near, mut far) = placed();
        let slow = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..20 {
                tokio::time::sleep(WRITE_TIME / 2).await;
                far.read_exact(&mut byte).await.expect("there is more");
            }
            far
        });
        near.write_all(&[0; 84]).await.expect("is read in time");
        let _far = slow.await.expect("ends");
        let began = tokio::time::Instant::now();

        let error = near.write_all(&[0; 84]).await.expect_err("nobody reads");

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), WRITE_TIME.as_secs());
    }
}
