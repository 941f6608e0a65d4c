//! An end to connections that are being closed.
//!
//! libp2p lets the muxer say goodbye before it closes a connection, and waits for that without a
//! limit; until then the connection counts, and holds its socket. TCP never lets the goodbye be
//! written to a peer that reads nothing: its kernel answers each probe of the closed window. So a
//! goodbye has a time here, and a limited number of places, of which the oldest of the address with
//! most of them ends for a newer one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, BoxFuture},
};
use libp2p::core::{
    StreamMuxer,
    muxing::{StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt, SubstreamBox},
};

use super::places::Places;
use crate::limits::Source;

/// How long a goodbye may take. It is some dozen bytes, which a peer that reads takes within a
/// round trip, and one whose connection ends without a goodbye notices that as well.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Most connections that say goodbye at once. Each holds a socket and its buffers.
pub(super) const CLOSING_MAX: usize = 64;

/// The connections that say goodbye. Cheap to clone.
#[derive(Clone)]
pub(super) struct Goodbyes(Places);

impl Goodbyes {
    pub(super) fn new() -> Self {
        Self(Places::new(CLOSING_MAX))
    }

    /// Returns the muxer of a connection with a peer at this source, with an end to its goodbye.
    pub(super) fn limit(&self, muxer: StreamMuxerBox, source: Source) -> StreamMuxerBox {
        StreamMuxerBox::new(Limited {
            state: State::Open(muxer),
            source,
            places: self.0.clone(),
        })
    }
}

/// A muxer whose goodbye has an end.
struct Limited {
    state: State,
    source: Source,
    places: Places,
}

enum State {
    Open(StreamMuxerBox),
    Closing(BoxFuture<'static, io::Result<()>>),
}

impl Limited {
    /// Returns the muxer, unless it is being closed.
    fn muxer(&mut self) -> io::Result<&mut StreamMuxerBox> {
        match &mut self.state {
            State::Open(muxer) => Ok(muxer),
            State::Closing(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl StreamMuxer for Limited {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<SubstreamBox>> {
        self.muxer()?.poll_inbound_unpin(cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<SubstreamBox>> {
        self.muxer()?.poll_outbound_unpin(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.muxer()?.poll_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.state, State::Open(_)) {
            let (handle, registration) = AbortHandle::new_pair();
            let place = self.places.take(&self.source, handle);
            let nothing = State::Closing(std::future::ready(Ok(())).boxed());
            if let State::Open(muxer) = std::mem::replace(&mut self.state, nothing) {
                let goodbye = async move {
                    let _place = place;
                    let goodbye = tokio::time::timeout(CLOSING_TIME, muxer.close()).await;
                    goodbye.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                };
                let goodbye = Abortable::new(goodbye, registration);
                let gave_way = |_| Err(io::Error::other("gave way to a newer goodbye"));
                let goodbye = goodbye.map(move |done| done.unwrap_or_else(gave_way));
                self.state = State::Closing(goodbye.boxed());
            }
        }
        match &mut self.state {
            State::Open(_) => Poll::Pending,
            State::Closing(goodbye) => goodbye.poll_unpin(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::future::join_all;
    use libp2p::{core::upgrade::InboundConnectionUpgrade, yamux};
    use tokio::{
        io::{AsyncReadExt, DuplexStream},
        time::Instant,
    };
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    /// A connection through a pipe that holds so many bytes; its goodbye has 12.
    async fn connection(
        goodbyes: &Goodbyes,
        from: u8,
        bytes: usize,
    ) -> (DuplexStream, StreamMuxerBox) {
        let (peer, stream) = tokio::io::duplex(bytes);
        let config = yamux::Config::default();
        let muxer = config.upgrade_inbound(stream.compat(), "").await;
        let muxer = StreamMuxerBox::new(muxer.expect("nothing to agree upon"));
        (peer, goodbyes.limit(muxer, source(from)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_that_is_read_is_whole() {
        let (mut peer, muxer) = connection(&Goodbyes::new(), 1, 8).await;
        let mut read = Vec::new();

        let (closed, heard) = tokio::join!(muxer.close(), peer.read_to_end(&mut read));

        closed.expect("the peer reads");
        heard.expect("the stream ends");
        assert_eq!(read, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_that_nobody_reads_ends() {
        let (_peer, muxer) = connection(&Goodbyes::new(), 1, 8).await;
        let begun = Instant::now();

        muxer.close().await.expect_err("nobody reads");

        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_goodbyes_from_one_address_ends_itself_and_no_other_one() {
        let goodbyes = Goodbyes::new();
        let mut peers = Vec::new();
        let mut closing = Vec::new();
        // The first one is from elsewhere.
        for from in std::iter::once(2).chain([1; CLOSING_MAX + 9]) {
            let (peer, muxer) = connection(&goodbyes, from, 8).await;
            peers.push(peer);
            closing.push(async { (Instant::now(), muxer.close().await, Instant::now()) });
        }

        let closed = join_all(closing).await;

        let at_once = |(begun, _, ended): &(Instant, io::Result<()>, Instant)| begun == ended;
        let gave_way: Vec<usize> = (0..closed.len())
            .filter(|at| at_once(&closed[*at]))
            .collect();
        assert_eq!(gave_way, (1..=10).collect::<Vec<_>>());
    }
}
