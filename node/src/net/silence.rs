//! Ends a TCP stream on which nothing is heard.
//!
//! TCP itself gives a dead peer up after many minutes, and libp2p's ping reports a failure only
//! after a second one, which may take up to 20 s. Here every byte from the peer counts as a sign of
//! life: members ping each other at short intervals, so a live link is never silent for long, not
//! even while a slow radio is busy with a large message the other way. (QUIC has its idle timeout
//! for this.)

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// A stream that fails with [`io::ErrorKind::TimedOut`] once nothing was read for a time.
pub(super) struct Watched<S> {
    stream: S,
    limit: Duration,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            heard: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(limit)),
        }
    }

    /// Moves the alarm to the end of the silence so far; a read only notes its time.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let until = self.heard + self.limit;
            if until <= Instant::now() {
                let text = format!("nothing was heard for {} s", self.limit.as_secs());
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => self.poll_silence(cx).map(Err),
            ready => {
                self.heard = Instant::now();
                ready
            }
        }
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
