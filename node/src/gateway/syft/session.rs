//! One WebSocket of a client (`proto-specs/syft.md`, section 6).
//!
//! ```text
//!   socket ─▶ reading ─▶ queue of 256 ─▶ bucket ─▶ post ─▶ the node's loop
//!   socket ◀─ writing ◀─ letters from the store, behind the row of this session
//!          ◀─ ping with the last row ─▶ pong: the client has them
//! ```
//!
//! Reading never waits for writing nor for the bucket, so pings are answered whatever else goes
//! on. Writing takes
//! letters from the disk as the socket takes them; a socket that takes nothing for ten seconds
//! loses its session, and the letters wait on. A letter counts as read when the pong to a ping
//! behind it came: everything before it has reached the client.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::{
    SinkExt, StreamExt,
    stream::{FuturesOrdered, SplitSink, SplitStream},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite;

use super::{
    Caller, SyftGateway,
    hub::{Line, Word},
    rate,
};
use crate::{
    gateway::visit::Visit,
    limits::{Bucket, Rate},
    proto::syft::{
        Message as SyftMessage, Reader, UserId,
        http::TokenId,
        letter::{Letter, LetterError, rendered, system_frame},
    },
    state::{
        io::{Failure, Reply},
        post::{Admitted, Ask},
    },
};

/// Frames of a client that wait for its bucket. What comes beyond is dropped, and the client is
/// told; the old server dropped at once.
const QUEUE_FRAMES_MAX: usize = 256;

/// Letters of one client that are on their way to the disk.
const POSTING_MAX: usize = 64;

/// How long a socket may take nothing.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often a quiet client is pinged. Go's clients give up after 60 s without a frame or a pong.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// How long a client may be silent, although it was pinged twice.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often at most a client is told that it is too fast.
const SLOW_DOWN_INTERVAL: Duration = Duration::from_secs(1);

/// What the old server said to a client that is too fast; unchanged clients show it.
const SLOW_DOWN: &str = "Rate limit exceeded. Please slow down.";

/// How a session ended, and with which close code: 1000 normal, 1002 protocol error, 1008 policy,
/// 1009 too large, 1012 restart (RFC 6455, section 7.4; the registry of close codes).
#[derive(Clone, Copy)]
enum End {
    Left(&'static str),
    Refused(u16, &'static str),
    Closing,
}

/// Who enters.
pub(super) struct Entry {
    pub(super) name: UserId,
    pub(super) token: TokenId,
    pub(super) user: Admitted,
    /// Which program it is.
    pub(super) reader: Reader,
    /// Listed from before the upgrade, so that a gateway that closes meanwhile says goodbye to it.
    pub(super) visit: Visit,
    /// Its place is taken as long as the session lasts.
    pub(super) _caller: Arc<Caller>,
}

/// What both halves of a session share.
struct Session {
    gateway: Arc<SyftGateway>,
    entry: Entry,
    line: Arc<Line>,
    /// The row in the ping that was not answered yet; 0 if there is none.
    asked: AtomicU64,
    /// It was answered: what was sent since may be asked for.
    answered: Notify,
}

/// Serves one client until it goes.
pub(super) async fn run(gateway: Arc<SyftGateway>, entry: Entry, socket: WebSocket) {
    entry.visit.signed_in(entry.name.as_str(), "");
    let user = entry.user.user.clone();
    let line = gateway.hub.join(user.clone(), entry.token);
    if let Some(warning) = &entry.user.warning {
        line.tell(warning.clone());
    }
    let arrived = gateway.node.ask_gateway(Ask::Arrived(user.clone())).await;
    let session = Session {
        gateway: Arc::clone(&gateway),
        line: Arc::clone(&line),
        entry,
        asked: AtomicU64::new(0),
        answered: Notify::new(),
    };
    let (mut sink, mut stream) = socket.split();
    let end = tokio::select! {
        end = session.read(&mut stream) => end,
        end = session.write(&mut sink) => end,
        () = session.entry.visit.kicked() => End::Closing,
        () = line.ended.cancelled() => End::Refused(1008, "token_revoked"),
    };
    gateway.hub.leave(&line);
    if arrived.is_ok() {
        // Not waited for: a node that is stopping answers nothing more, and a goodbye is due.
        tokio::spawn(async move { drop(gateway.node.ask_gateway(Ask::Left(user)).await) });
    }
    session.close(end, sink, stream).await;
}

impl Session {
    /// Takes frames, and carries them as fast as the client may.
    async fn read(&self, stream: &mut SplitStream<WebSocket>) -> End {
        let limits = &self.gateway.config.limits;
        let mut bucket = Bucket::new(Rate {
            per_second: limits.frames_per_second,
            burst: limits.frames_burst,
        });
        let mut queue: VecDeque<(Vec<u8>, rate::Taken)> = VecDeque::new();
        let mut posting = FuturesOrdered::new();
        let mut told = None;
        let mut silent_at = Instant::now() + SILENCE_MAX;
        loop {
            let ready_in = bucket
                .ready_at(1, self.gateway.now())
                .saturating_sub(self.gateway.now());
            // A full queue is the client's fault only if its bucket is empty; if the disk is behind,
            // the client waits for it.
            let may_read = queue.len() < QUEUE_FRAMES_MAX || !ready_in.is_zero();
            let may_post = !queue.is_empty() && posting.len() < POSTING_MAX;
            tokio::select! {
                biased;
                Some(result) = posting.next() => self.posted(result),
                () = wait(ready_in), if may_post => {
                    bucket.take(self.gateway.now());
                    if let Some((bytes, _taken)) = queue.pop_front()
                        && let Some(ask) = self.letter(&bytes)
                    {
                        match self.gateway.node.begin(ask.into()).await {
                            Ok(answer) => posting.push_back(answer),
                            Err(_) => return End::Closing,
                        }
                    }
                }
                came = stream.next(), if may_read => {
                    silent_at = Instant::now() + SILENCE_MAX;
                    match came {
                        Some(Ok(Message::Text(text))) => {
                            self.queue(text.as_bytes(), &mut queue, &mut told);
                        }
                        Some(Ok(Message::Binary(bytes))) => {
                            self.queue(&bytes, &mut queue, &mut told);
                        }
                        Some(Ok(Message::Pong(bytes))) => self.pong(&bytes).await,
                        Some(Ok(Message::Ping(_))) => {}
                        Some(Ok(Message::Close(_))) => {
                            self.carry_rest(queue).await;
                            return End::Left("closed");
                        }
                        Some(Err(error)) => {
                            self.carry_rest(queue).await;
                            return self.broken(&error);
                        }
                        None => {
                            self.carry_rest(queue).await;
                            return End::Left("connection_lost");
                        }
                    }
                }
                () = sleep_until(silent_at) => return End::Refused(1008, "silent"),
            }
        }
    }

    /// What a client sent before it went is carried, although its bucket is empty: it cannot send
    /// more, and has heard nothing that would make it send this again.
    async fn carry_rest(&self, queue: VecDeque<(Vec<u8>, rate::Taken)>) {
        for (bytes, _taken) in queue {
            if let Some(ask) = self.letter(&bytes) {
                // A node that is stopping takes nothing more.
                drop(self.gateway.node.begin(ask.into()).await);
            }
        }
    }

    fn queue(
        &self,
        bytes: &[u8],
        queue: &mut VecDeque<(Vec<u8>, rate::Taken)>,
        told: &mut Option<Instant>,
    ) {
        self.entry.visit.received(1);
        let room = self.gateway.frames.take(bytes.len());
        if queue.len() < QUEUE_FRAMES_MAX
            && let Some(room) = room
        {
            return queue.push_back((bytes.to_vec(), room));
        }
        self.gateway.count("frame", "too_fast");
        if told.is_none_or(|at| at.elapsed() >= SLOW_DOWN_INTERVAL) {
            *told = Some(Instant::now());
            self.line.tell(SLOW_DOWN.to_owned());
        }
    }

    /// Makes a letter of a frame, unless it is the agent's answer to a request. One that makes none
    /// is dropped; the session goes on.
    fn letter(&self, bytes: &[u8]) -> Option<Ask> {
        let letter = match SyftMessage::decode(bytes) {
            Ok(message) => {
                let Entry { name, user, .. } = &self.entry;
                Letter::of(self.gateway.forwards.sift(&user.user, name, message)?)
            }
            Err(_) => Err(LetterError::Malformed),
        };
        let mut letter = match letter {
            Ok(letter) => letter,
            Err(error) => {
                self.gateway.count("frame", error.name());
                // The old server ignored what it could not read without a word.
                if error != LetterError::Malformed {
                    self.line.tell(format!("Message dropped: {error}."));
                }
                return None;
            }
        };
        if letter.from != self.entry.name {
            self.gateway.count("frame", "forged_from");
            let text = format!("Message dropped: you are {}.", self.entry.name);
            self.line.tell(text);
            return None;
        }
        if letter.check(&self.entry.user.key).is_err() {
            self.gateway.count("frame", "wrong_signature");
            let text = "Message dropped: its signature is not yours.";
            self.line.tell(text.to_owned());
            return None;
        }
        Some(Ask::Post {
            user: self.entry.user.user.clone(),
            letter: Box::new(letter),
        })
    }

    fn posted(&self, result: Result<Reply, Failure>) {
        if let Err(failure) = result {
            self.line
                .tell(format!("Message dropped: {}", failure.message));
        }
    }

    /// The client has everything before the ping that it answers.
    async fn pong(&self, bytes: &[u8]) {
        let row = bytes.try_into().map(u64::from_be_bytes).unwrap_or(0);
        let asked = &self.asked;
        let is_answer = row != 0
            && asked
                .compare_exchange(row, 0, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if is_answer {
            let user = self.entry.user.user.clone();
            let taken = Ask::Taken { user, row };
            // Nobody waits for it: without it the client would get the letters again.
            drop(self.gateway.node.begin(taken.into()).await);
            self.answered.notify_one();
        }
    }

    fn broken(&self, error: &axum::Error) -> End {
        // axum and this crate share one version of the library.
        let cause = std::error::Error::source(error);
        let cause = cause.and_then(|cause| cause.downcast_ref::<tungstenite::Error>());
        if let Some(tungstenite::Error::Capacity(_)) = cause {
            self.gateway.count("frame", "too_large");
            return End::Refused(1009, "frame_too_large");
        }
        End::Left("connection_lost")
    }

    /// Sends what waits, and then what comes.
    async fn write(&self, sink: &mut SplitSink<WebSocket, Message>) -> End {
        let user = &self.entry.user.user;
        let mut row = self.entry.user.taken;
        let mut confirmed_up_to = row;
        let mut look = true;
        let mut ping_at = Instant::now() + PING_INTERVAL;
        loop {
            while let Some(word) = self.line.next_word() {
                let frame = match word {
                    Word::System(text) => {
                        system_frame(self.entry.name.as_str(), &text, self.gateway.unix_ms())
                    }
                    Word::Forward(frame) => frame,
                };
                if send(sink, Message::Text(frame.into())).await.is_err() {
                    return End::Refused(1008, "does_not_read");
                }
            }
            if look {
                let Ok(batch) = self.gateway.node.letters(user.clone(), row).await else {
                    return End::Closing;
                };
                // What comes behind this batch wakes this loop again.
                look = batch.is_cut;
                let count = batch.letters.len() as u64;
                for (next, frame) in batch.letters {
                    let frame = rendered(next, &frame, self.entry.reader);
                    if send(sink, Message::Text(frame.into())).await.is_err() {
                        return End::Refused(1008, "does_not_read");
                    }
                    row = next;
                }
                self.entry.visit.sent(count);
            }
            // One ping at a time carries a row; its pong wakes this loop.
            if row > confirmed_up_to
                && self
                    .asked
                    .compare_exchange(0, row, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
            {
                confirmed_up_to = row;
                let ping = Message::Ping(row.to_be_bytes().to_vec().into());
                if send(sink, ping).await.is_err() {
                    return End::Refused(1008, "does_not_read");
                }
                ping_at = Instant::now() + PING_INTERVAL;
            }
            if look {
                continue;
            }
            tokio::select! {
                () = self.line.woken() => look = true,
                () = self.answered.notified() => {}
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING_INTERVAL;
                    if send(sink, Message::Ping(Vec::new().into())).await.is_err() {
                        return End::Refused(1008, "does_not_read");
                    }
                }
            }
        }
    }

    async fn close(
        self,
        end: End,
        sink: SplitSink<WebSocket, Message>,
        stream: SplitStream<WebSocket>,
    ) {
        let (code, reason) = match end {
            End::Left(_) => (1000, ""),
            End::Refused(code, reason) => (code, reason),
            End::Closing => (1012, "restart"),
        };
        if let Ok(mut socket) = sink.reunite(stream) {
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            // A client that is gone, or does not read, needs no goodbye.
            let goodbye = socket.send(Message::Close(Some(frame)));
            drop(timeout(CLOSE_TIME, goodbye).await);
            // What the client had sent before it read the goodbye is taken, or the system would
            // cut the connection before that.
            let rest = async { while let Some(Ok(_)) = socket.next().await {} };
            drop(timeout(CLOSE_TIME, rest).await);
        }
        match end {
            End::Left(reason) => self.entry.visit.leave(reason),
            End::Refused(_, why) => self.entry.visit.refuse(why),
            End::Closing => self.entry.visit.leave("gateway_closed"),
        }
    }
}

/// Waits. A sleep of no length would last until the timer's next millisecond.
async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// How long a goodbye may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);

async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> Result<(), ()> {
    match timeout(WRITE_TIME, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_letter_whose_bucket_is_full_waits_for_no_tick_of_the_timer() {
        // Between two ticks.
        tokio::time::advance(Duration::from_micros(500)).await;
        assert!(wait(Duration::ZERO).now_or_never().is_some());
        assert!(wait(Duration::from_millis(20)).now_or_never().is_none());
    }
}
