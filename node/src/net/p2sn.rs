//! P2SN sessions on libp2p streams.
//!
//! Each session has a task of its own. RSA takes milliseconds to tens of them, so every step of the
//! session machine runs on a blocking thread, and the task waits for it.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    identity::random,
    proto::p2sn::{KeyPolicy, Limits, Output, PrivateKey, Reason, STREAM_PROTOCOL, Session},
    state::io::{NetInput, SessionId},
};

/// The stream protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(STREAM_PROTOCOL);

/// What the state says to a session.
#[derive(Debug)]
pub(super) enum Word {
    /// Go on with the peer's key, or end.
    Verdict(bool),
    /// Answer the peer's message.
    Reply(Vec<u8>),
}

/// Words that wait for one session. The state says one thing for each it is told.
pub(super) const WORDS: usize = 4;

/// How long the peer may take to read what one step of a session writes: a few kilobytes.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// One session to run.
pub(super) struct Task {
    pub(super) id: SessionId,
    pub(super) peer: PeerId,
    pub(super) own: PrivateKey,
    pub(super) message: Option<Vec<u8>>,
    pub(super) inputs: mpsc::Sender<NetInput>,
    pub(super) words: mpsc::Receiver<Word>,
}

/// The session machine with what it needs, to travel to a blocking thread and back.
struct Machine {
    session: Session,
    rng: ChaCha20Rng,
    started: Instant,
}

impl Machine {
    fn new(own: PrivateKey, is_client: bool) -> Self {
        let (policy, limits) = (KeyPolicy::default(), Limits::default());
        let session = if is_client {
            Session::client(own, policy, limits, Duration::ZERO)
        } else {
            Session::server(own, policy, limits, Duration::ZERO)
        };
        Self {
            session,
            rng: ChaCha20Rng::from_seed(random()),
            started: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs a step where its RSA disturbs nobody.
    async fn step<T: Send + 'static>(
        mut self,
        step: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Result<(Self, T), String> {
        let run = move || {
            let result = step(&mut self);
            (self, result)
        };
        let ended = tokio::task::spawn_blocking(run).await;
        ended.map_err(|_| "the session's thread ended".to_owned())
    }
}

impl Task {
    /// Runs a session on a stream, or tells why there is no stream.
    pub(super) async fn run(mut self, stream: Result<Stream, String>) {
        let reason = match stream {
            Ok(stream) => match self.talk(stream).await {
                Ok(()) => "complete".to_owned(),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        };
        let Self {
            id: session, peer, ..
        } = self;
        self.tell(NetInput::P2snClosed {
            session,
            peer,
            reason,
        })
        .await;
    }

    async fn talk(&mut self, mut stream: Stream) -> Result<(), String> {
        let is_client = matches!(self.id, SessionId::Ours(_));
        let mut machine = Machine::new(self.own.clone(), is_client);
        let mut buffer = [0; READ_BYTES];
        loop {
            let mut done = false;
            while let Some(output) = machine.session.poll_output() {
                match self.act(&mut stream, output).await? {
                    Next::Go => {}
                    Next::Send(message) => {
                        let send = move |m: &mut Machine| {
                            let now = m.now();
                            m.session.send(&message, &mut m.rng, now)
                        };
                        let (back, sent) = machine.step(send).await?;
                        sent.map_err(|error| error.to_string())?;
                        machine = back;
                    }
                    Next::End => done = true,
                }
            }
            if done {
                // Closing tells the peer; what it makes of that does not matter.
                drop(timeout(WRITE_TIME, stream.close()).await);
                return Ok(());
            }
            let wait = machine
                .session
                .poll_timeout()
                .map_or(Duration::ZERO, |at| at.saturating_sub(machine.now()));
            let step: Box<dyn FnOnce(&mut Machine) + Send> = tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) => return Err(Reason::Ended.to_string()),
                    Ok(count) => {
                        let bytes = buffer[..count].to_vec();
                        Box::new(move |m| {
                            let now = m.now();
                            m.session.handle_input(&bytes, &mut m.rng, now);
                        })
                    }
                    Err(error) => return Err(error.to_string()),
                },
                word = self.words.recv() => match word {
                    Some(Word::Verdict(true)) => Box::new(|m| {
                        let now = m.now();
                        m.session.accept_key(&mut m.rng, now);
                    }),
                    Some(Word::Verdict(false)) => Box::new(|m| m.session.refuse_key()),
                    Some(Word::Reply(bytes)) => Box::new(move |m| {
                        let now = m.now();
                        m.session.reply(&bytes, &mut m.rng, now);
                    }),
                    None => return Err("the node is stopping".to_owned()),
                },
                () = tokio::time::sleep(wait) => Box::new(|m| {
                    let now = m.now();
                    m.session.handle_timeout(now);
                }),
            };
            (machine, ()) = machine.step(step).await?;
        }
    }

    async fn act(&mut self, stream: &mut Stream, output: Output) -> Result<Next, String> {
        let Self {
            id: session, peer, ..
        } = *self;
        match output {
            Output::Write(bytes) => {
                let write = async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                };
                // A peer that does not read holds a session no longer than this.
                let written = timeout(WRITE_TIME, write).await;
                written
                    .map_err(|_| "the peer does not read".to_owned())?
                    .map_err(|error| error.to_string())?;
            }
            Output::PeerKey(key) => {
                let (fingerprint, bits) = (key.fingerprint(), key.bits());
                self.tell(NetInput::P2snKey {
                    session,
                    peer,
                    fingerprint,
                    bits,
                })
                .await;
            }
            Output::Established => {
                self.tell(NetInput::P2snEstablished { session, peer }).await;
                if let Some(message) = self.message.take() {
                    return Ok(Next::Send(message));
                }
                // An exchange alone is complete; the client closes.
                if matches!(session, SessionId::Ours(_)) {
                    return Ok(Next::End);
                }
            }
            Output::Message(bytes) => {
                self.tell(NetInput::P2snMessage {
                    session,
                    peer,
                    bytes,
                })
                .await;
            }
            Output::Reply(bytes) => {
                self.tell(NetInput::P2snReplied { session, bytes }).await;
                return Ok(Next::End);
            }
            Output::Closed(reason) => return Err(reason.to_string()),
        }
        Ok(Next::Go)
    }

    async fn tell(&self, input: NetInput) {
        // Fails only when the node is stopping.
        drop(self.inputs.send(input).await);
    }
}

/// What follows from an output.
enum Next {
    Go,
    Send(Vec<u8>),
    End,
}
