//! Integers straight to every connected member: one stream to each, `/pimesh/live/1`
//! (`proto-specs/mesh.md`).
//!
//! Gossip costs a signature for each message at its author and a verification at each reader, and
//! reaches a member only once its subscription was heard. Between connected members the encrypted
//! connection itself says who speaks, so here a message is only its length and its bytes. What is
//! published while the stream is still being opened waits for it; a peer that does not keep up
//! loses the oldest. Who sends more than even the fastest peer takes can see so, and wait.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use super::frame;
use crate::{proto::iid::native::MESSAGE_BYTES_MAX, state::io::NetInput};

/// The stream protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/pimesh/live/1");

/// Bytes that may wait for one peer: some seconds of a slow radio link.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes may wait for the fastest peer before a sender of many had better wait.
const ROOM_BYTES: usize = QUEUE_BYTES / 4;

/// How long such a sender waits at most: a peer that takes nothing must not hold it.
const ROOM_TIME: Duration = Duration::from_secs(1);

/// How long the opening of a stream may take.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// Streams of one peer that are read at once. It has one; while a connection takes the place of
/// another, the last words of the old one still come.
pub(super) const READERS_PER_PEER_MAX: usize = 4;

/// How long a line that broke rests before it may be laid again.
const REST: Duration = Duration::from_secs(1);

/// How many bytes wait for the peer for which the fewest wait.
#[derive(Clone, Debug)]
pub(crate) struct Room(watch::Sender<usize>);

impl Default for Room {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Room {
    /// Waits until the fastest peer has taken most of what was sent.
    pub(crate) async fn wait(&self) {
        let mut waiting = self.0.subscribe();
        let enough = waiting.wait_for(|bytes| *bytes < ROOM_BYTES);
        // Too long, or the node is gone: either way it is no use to wait on.
        drop(timeout(ROOM_TIME, enough).await);
    }

    pub(super) fn set(&self, bytes: usize) {
        self.0
            .send_if_modified(|waiting| std::mem::replace(waiting, bytes) != bytes);
    }
}

/// How far a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The stream is being opened.
    Opening,
    /// Messages go out.
    Open,
    /// The peer does not speak this protocol.
    Unsupported,
    /// The stream failed.
    Broken,
}

/// The stream to one peer. When it is dropped, what waits still goes out, and then the stream ends.
#[derive(Debug)]
pub(super) struct Line {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    room: Room,
}

#[derive(Debug)]
struct Waiting {
    messages: VecDeque<Arc<[u8]>>,
    bytes: usize,
    phase: Phase,
    /// Nobody will send any more.
    ended: bool,
}

impl Line {
    /// Begins to open a stream.
    pub(super) fn lay(control: libp2p_stream::Control, peer: PeerId, room: Room) -> Self {
        let line = Self::new(room);
        tokio::spawn(Arc::clone(&line.queue).run(control, peer));
        line
    }

    fn new(room: Room) -> Self {
        let waiting = Waiting {
            messages: VecDeque::new(),
            bytes: 0,
            phase: Phase::Opening,
            ended: false,
        };
        let queue = Queue {
            waiting: Mutex::new(waiting),
            news: Notify::new(),
            room,
        };
        Self {
            queue: Arc::new(queue),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.queue.lock().phase
    }

    /// Returns how many bytes wait for the peer, or `None` if nothing is sent to it.
    pub(super) fn waiting(&self) -> Option<usize> {
        let waiting = self.queue.lock();
        (waiting.phase == Phase::Open).then_some(waiting.bytes)
    }

    /// Sends a message; returns how many older ones are lost for it.
    pub(super) fn send(&self, message: Arc<[u8]>) -> u64 {
        let mut waiting = self.queue.lock();
        if matches!(waiting.phase, Phase::Unsupported | Phase::Broken) {
            return 0;
        }
        waiting.bytes += message.len();
        waiting.messages.push_back(message);
        let mut lost = 0;
        while waiting.bytes > QUEUE_BYTES
            && let Some(oldest) = waiting.messages.pop_front()
        {
            waiting.bytes -= oldest.len();
            lost += 1;
        }
        drop(waiting);
        self.queue.news.notify_one();
        lost
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.news.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, control: libp2p_stream::Control, peer: PeerId) {
        let phase = match self.write(control, peer).await {
            Ok(()) => return,
            Err(phase) => phase,
        };
        if phase == Phase::Broken {
            tokio::time::sleep(REST).await;
        }
        let mut waiting = self.lock();
        waiting.phase = phase;
        waiting.messages.clear();
        waiting.bytes = 0;
        drop(waiting);
        self.room.set(0);
    }

    async fn write(&self, mut control: libp2p_stream::Control, peer: PeerId) -> Result<(), Phase> {
        // If the connection closes in this moment, libp2p-stream may never answer.
        let opened = timeout(OPENING_TIME, control.open_stream(peer, PROTOCOL)).await;
        let mut stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(_))) => {
                return Err(Phase::Unsupported);
            }
            Ok(Err(_)) | Err(_) => return Err(Phase::Broken),
        };
        self.lock().phase = Phase::Open;
        let mut bytes = Vec::new();
        while self.take(&mut bytes).await {
            let written = async {
                stream.write_all(&bytes).await?;
                stream.flush().await
            };
            written.await.map_err(|_| Phase::Broken)?;
        }
        // Closing tells the peer; what it makes of that does not matter.
        drop(timeout(OPENING_TIME, stream.close()).await);
        Ok(())
    }

    /// Takes everything that waits, each message behind its length; returns `false` at the end.
    async fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        loop {
            let ended = {
                let mut waiting = self.lock();
                for message in waiting.messages.drain(..) {
                    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(&message);
                }
                waiting.bytes = 0;
                waiting.ended
            };
            self.room.set(0);
            // What was sent before the end still goes out.
            if ended || !bytes.is_empty() {
                return !bytes.is_empty();
            }
            self.news.notified().await;
        }
    }
}

/// Reads the messages of a peer until its stream ends, and hands them to the loop. A loop that is
/// busy holds the peer back. A message that is too long ends the stream.
pub(super) async fn read(
    source: PeerId,
    mut stream: impl AsyncRead + Unpin,
    inputs: mpsc::Sender<NetInput>,
) {
    loop {
        let input = match read_message(&mut stream).await {
            Ok(Some(bytes)) => NetInput::Live { source, bytes },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Fails only when the node is stopping.
                drop(inputs.send(NetInput::LiveTooLong { source }).await);
                return;
            }
            // The stream ended, between two messages or within one that nobody will send again.
            Ok(None) | Err(_) => return,
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame::read_body(stream, length, |_| {}).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(byte: u8, length: usize) -> Arc<[u8]> {
        vec![byte; length].into()
    }

    #[tokio::test]
    async fn messages_that_wait_go_out_together_in_order() {
        let line = Line::new(Room::default());
        assert_eq!(line.send(message(1, 2)) + line.send(message(2, 3)), 0);
        let mut bytes = Vec::new();

        assert!(line.queue.take(&mut bytes).await);

        assert_eq!(bytes, [0, 0, 0, 2, 1, 1, 0, 0, 0, 3, 2, 2, 2]);
        let queue = Arc::clone(&line.queue);
        line.send(message(3, 1));
        drop(line);
        assert!(queue.take(&mut bytes).await, "what was sent still goes out");
        assert_eq!(bytes, [0, 0, 0, 1, 3]);
        assert!(!queue.take(&mut bytes).await);
    }

    async fn read_all(bytes: &[u8]) -> Vec<NetInput> {
        let (inputs, mut read_inputs) = mpsc::channel(8);
        read(
            PeerId::random(),
            futures::io::Cursor::new(bytes.to_vec()),
            inputs,
        )
        .await;
        let mut all = Vec::new();
        while let Some(input) = read_inputs.recv().await {
            all.push(input);
        }
        all
    }

    #[tokio::test]
    async fn messages_are_read_up_to_their_limit_and_a_longer_one_is_told() {
        let of = |length: usize| {
            let prefix = u32::try_from(length).expect("short").to_be_bytes();
            [&prefix[..], &vec![7; length]].concat()
        };
        let longest = [of(MESSAGE_BYTES_MAX), of(2)].concat();

        let all = read_all(&longest).await;
        assert!(
            matches!(&all[..], [NetInput::Live { bytes, .. }, NetInput::Live { .. }]
                if bytes.len() == MESSAGE_BYTES_MAX)
        );
        let all = read_all(&[of(2), of(MESSAGE_BYTES_MAX + 1), of(2)].concat()).await;
        assert!(
            matches!(
                &all[..],
                [NetInput::Live { .. }, NetInput::LiveTooLong { .. }]
            ),
            "{all:?}"
        );
        for cut in 1..6 {
            assert!(read_all(&of(2)[..cut]).await.is_empty(), "cut at {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_of_many_waits_for_the_fastest_peer_but_not_for_ever() {
        let room = Room::default();
        let line = Line::new(room.clone());
        line.send(message(1, ROOM_BYTES));
        room.set(ROOM_BYTES);
        let began = tokio::time::Instant::now();

        room.wait().await;
        assert_eq!(began.elapsed().as_secs(), ROOM_TIME.as_secs());
        let (mut bytes, waiting) = (Vec::new(), room.wait());
        assert!(line.queue.take(&mut bytes).await);
        waiting.await;
        assert_eq!(began.elapsed().as_secs(), ROOM_TIME.as_secs());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_keep_up_loses_the_oldest_and_no_memory_is_lost_to_it() {
        let line = Line::new(Room::default());
        let half = QUEUE_BYTES / 2;

        let lost: Vec<u64> = (0..4).map(|n| line.send(message(n, half))).collect();

        assert_eq!(lost, [0, 0, 1, 1]);
        let mut bytes = Vec::new();
        assert!(line.queue.take(&mut bytes).await);
        assert_eq!((bytes[4], bytes[8 + half]), (2, 3));
    }
}
