//! The bytes of requests that are being read, of all peers together.
//!
//! Memory is taken as bytes come, and never for a length that a peer merely claims. When there is
//! no more, the oldest request of the peer with most of it gives way; its peer may ask again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    AsyncRead,
    future::{AbortHandle, Abortable},
};
use libp2p::PeerId;

use super::frame;
use crate::limits::Shares;

/// What is read at once. Cheap to clone; clones share the limit.
#[derive(Clone, Debug)]
pub(super) struct Reading(Arc<Mutex<Requests>>);

#[derive(Debug)]
struct Requests {
    shares: Shares<PeerId, u64>,
    handles: BTreeMap<u64, AbortHandle>,
    next: u64,
}

/// Why a request was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRead {
    /// Others needed its memory.
    GaveWay,
    /// The stream ended, or what came is no request.
    Broken,
}

impl Reading {
    /// Allows this many bytes in all.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Requests {
            shares: Shares::new(bytes_max),
            handles: BTreeMap::new(),
            next: 0,
        })))
    }

    /// Reads a request of at most `max` bytes.
    pub(super) async fn read(
        &self,
        peer: PeerId,
        io: &mut (impl AsyncRead + Unpin),
        max: usize,
    ) -> Result<Vec<u8>, NotRead> {
        let (handle, registration) = AbortHandle::new_pair();
        let request = self.begin(handle);
        let read = frame::read(io, max, |bytes| self.grow(peer, request.key, bytes));
        match Abortable::new(read, registration).await {
            Ok(read) => read.map_err(|_| NotRead::Broken),
            Err(_) => Err(NotRead::GaveWay),
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.lock().shares.used()
    }

    fn begin(&self, handle: AbortHandle) -> Begun<'_> {
        let mut requests = self.lock();
        let key = requests.next;
        requests.next += 1;
        requests.handles.insert(key, handle);
        Begun { reading: self, key }
    }

    fn grow(&self, peer: PeerId, key: u64, bytes: usize) {
        let mut requests = self.lock();
        for request in requests.shares.add(&peer, key, bytes) {
            if let Some(handle) = requests.handles.remove(&request) {
                handle.abort();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being read; its bytes are free for others when this is dropped.
struct Begun<'a> {
    reading: &'a Reading,
    key: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut requests = self.reading.lock();
        requests.shares.remove(self.key);
        requests.handles.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::AsyncWriteExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    const MAX: usize = 1024 * 1024;

    /// Waits for what needs no time: what never comes fails the test, as the clock is paused.
    async fn now<T>(what: impl Future<Output = T>) -> T {
        let bounded = tokio::time::timeout(Duration::from_secs(60), what);
        bounded.await.expect("it ends")
    }

    /// A stream on which a request of this length was begun, with so many bytes there.
    async fn begun(length: usize, there: usize) -> (impl AsyncRead + Unpin, impl Sized) {
        let (near, far) = tokio::io::duplex(2 * MAX);
        let mut far = far.compat();
        let length = u32::try_from(length).expect("short").to_be_bytes();
        far.write_all(&length).await.expect("there is room");
        far.write_all(&vec![7; there]).await.expect("there is room");
        (near.compat(), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_a_length_takes_no_memory_and_bytes_that_came_do() {
        let reading = Reading::new(MAX);
        let (mut io, _far) = begun(MAX, 0).await;
        let mut claimed = Box::pin(reading.read(PeerId::random(), &mut io, MAX));
        assert!(futures::poll!(&mut claimed).is_pending());
        assert!(reading.used() <= 16 * 1024, "{}", reading.used());
        let (mut io, _far) = begun(MAX, MAX / 4).await;
        let mut quarter = Box::pin(reading.read(PeerId::random(), &mut io, MAX));
        // Tokio lets a task read for so long only.
        for _ in 0..1000 {
            assert!(futures::poll!(&mut quarter).is_pending());
        }
        assert!(reading.used() >= MAX / 4, "{}", reading.used());
        assert!(reading.used() <= MAX / 2 + 32 * 1024, "{}", reading.used());

        drop((claimed, quarter));

        assert_eq!(reading.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_a_greedy_peer_give_way_and_another_peer_s_is_read() {
        let reading = Reading::new(MAX);
        let greedy = PeerId::random();
        let mut greedy_reads = Vec::new();
        for _ in 0..4 {
            let (mut io, far) = begun(MAX, MAX / 4).await;
            let reading = reading.clone();
            greedy_reads.push(tokio::spawn(async move {
                let read = reading.read(greedy, &mut io, MAX).await;
                drop(far);
                read
            }));
        }
        let (mut io, _far) = begun(MAX / 4, MAX / 4).await;

        let read = now(reading.read(PeerId::random(), &mut io, MAX)).await;

        assert_eq!(read.map(|bytes| bytes.len()), Ok(MAX / 4));
        let first = now(greedy_reads.swap_remove(0)).await.expect("it ends");
        assert_eq!(first, Err(NotRead::GaveWay));
        assert!(reading.used() <= MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_too_long_or_cut_off_is_broken() {
        let reading = Reading::new(MAX);
        let (mut io, _far) = begun(MAX + 1, 10).await;
        let read = now(reading.read(PeerId::random(), &mut io, MAX)).await;
        assert_eq!(read, Err(NotRead::Broken));
        let (mut io, far) = begun(11, 10).await;
        drop(far);
        let read = now(reading.read(PeerId::random(), &mut io, MAX)).await;
        assert_eq!(read, Err(NotRead::Broken));
        assert_eq!(reading.used(), 0);
    }
}
