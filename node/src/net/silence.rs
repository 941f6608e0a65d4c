//! Ends a TCP stream on which nothing is heard.
//!
//! TCP itself gives a dead peer up after many minutes, and libp2p's ping reports a failure only
//! after a second one, which may take up to 20 s. Here every byte from the peer counts as a sign of
//! life: members ping each other at short intervals, so a live link is never silent for long, not
//! even while a slow radio is busy with a large message the other way. (QUIC has its idle timeout
//! for this.)

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// A stream that fails with [`io::ErrorKind::TimedOut`] once nothing was read for a time.
///
/// A busy stream is read thousands of times a second, so a read that finds something only raises a
/// flag, and clock and timer are looked at when there is nothing more to read.
pub(super) struct Watched<S> {
    stream: S,
    limit: Duration,
    /// Whether something was read since `heard_at`.
    heard: bool,
    heard_at: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Whom the alarm wakes.
    waker: Option<Waker>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            heard: false,
            heard_at: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(limit)),
            waker: None,
        }
    }

    /// Looks whether the silence is over its limit.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if std::mem::take(&mut self.heard) {
            self.heard_at = Instant::now();
        }
        let is_set = self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if is_set && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let until = self.heard_at + self.limit;
            if until <= Instant::now() {
                let text = format!("nothing was heard for {} s", self.limit.as_secs());
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            self.alarm.as_mut().reset(until);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn noted<T>(&mut self, cx: &mut Context<'_>, read: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if read.is_pending() {
            return self.poll_silence(cx).map(Err);
        }
        self.heard = true;
        read
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.noted(cx, read)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read_vectored(cx, buffers);
        self.noted(cx, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_fails_after_its_limit() {
        let (_peer, stream) = tokio::io::duplex(64);
        let mut watched = Watched::new(stream.compat(), LIMIT);
        let began = Instant::now();

        let failed = watched.read(&mut [0; 8]).await.expect_err("silence");

        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_from_the_peer_begins_the_time_anew() {
        let (peer, stream) = tokio::io::duplex(64);
        let mut watched = Watched::new(stream.compat(), LIMIT);
        let began = Instant::now();
        tokio::spawn(async move {
            let mut peer = peer.compat();
            for _ in 0..3 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                peer.write_all(b"!").await.expect("writes");
            }
            std::future::pending::<()>().await;
        });

        for _ in 0..3 {
            assert_eq!(watched.read(&mut [0; 8]).await.expect("alive"), 1);
        }
        watched.read(&mut [0; 8]).await.expect_err("silence");

        assert_eq!(began.elapsed().as_secs(), 3 * 7 + 8);
    }
}
