//! A P2SN session on any stream of bytes: the session machine of `proto/p2sn` with a clock, chance,
//! and threads for its RSA.
//!
//! The streams between members (`net/p2sn.rs`), the gateway for old clients and the client of plain
//! P2SN servers (`gateway/p2sn`) run it. It opens no socket and decides nothing: whoever owns the
//! session says what becomes of a key, a message and a reply.
//!
//! RSA takes milliseconds to tens of them, so every step of the machine runs on a blocking thread
//! and the task waits for it. Sessions that share their [`Steps`] compete with each other and with
//! nobody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    proto::p2sn::{KeyPolicy, Limits, Output, PrivateKey, PublicKey, Reason, SendError, Session},
    rng::random,
};

/// How long the peer may take to read what one step of a session writes: a few kilobytes.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// Whoever decides for a session.
///
/// Nothing is read from the peer while one of these is under way, and the session's deadlines
/// hold all the same.
pub(crate) trait Owner {
    /// Says whether to go on with the key that the peer showed.
    fn judge(&mut self, key: &PublicKey) -> impl Future<Output = bool> + Send;

    /// Is told that both sides have checked both keys, and as the client returns what to send.
    /// A client without a message closes.
    fn established(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Returns the answer to a message, as the server; `None` ends the session without one.
    fn message(&mut self, bytes: Vec<u8>) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Is told that the answer to the last message was handed to the connection.
    fn answered(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Takes the reply to its message, as the client; then the session closes.
    fn replied(&mut self, bytes: Vec<u8>) -> impl Future<Output = ()> + Send;
}

/// What a session is from its beginning.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The node's own key.
    pub(crate) own: PrivateKey,
    /// Which keys of the peer are taken.
    pub(crate) policy: KeyPolicy,
    /// How long things may take.
    pub(crate) limits: Limits,
    /// Where its RSA is done.
    pub(crate) steps: Steps,
}

/// Threads for RSA, at most so many at once for all sessions that share them.
#[derive(Clone, Debug)]
pub(crate) struct Steps(Arc<Semaphore>);

impl Steps {
    /// Allows this many at once.
    pub(crate) fn at_once(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }
}

/// Why a session ended before it was complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The session machine says so.
    #[error("{0}")]
    Session(Reason),
    /// The peer closed the connection.
    #[error("the peer ended the session")]
    Closed,
    /// The connection broke.
    #[error("{0}")]
    Broken(#[from] std::io::Error),
    /// What is written is not taken.
    #[error("the peer does not read")]
    NotRead,
    /// The message cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The owner gave no answer, or the node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl Ended {
    /// Returns a short constant for counters.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Session(reason) => reason.name(),
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::NotRead => "not_read",
            Self::Send(_) => "not_sent",
            Self::Stopping => "stopping",
        }
    }
}

/// Runs a session as the client until its message is answered, or, without a message, until the
/// keys are exchanged.
pub(crate) async fn run_client<S, O>(stream: S, terms: Terms, owner: &mut O) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    O: Owner + Send,
{
    Running::new(stream, terms, true, owner).run().await
}

/// Runs a session as the server until it ends, for whatever reason.
pub(crate) async fn run_server<S, O>(stream: S, terms: Terms, owner: &mut O) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    O: Owner + Send,
{
    match Running::new(stream, terms, false, owner).run().await {
        Ok(()) => Ended::Closed,
        Err(ended) => ended,
    }
}

/// The session machine with what it needs, to travel to a blocking thread and back.
struct Machine {
    session: Session,
    rng: ChaCha20Rng,
    started: Instant,
}

impl Machine {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns how long the machine may wait for whatever comes next.
    fn patience(&self) -> Duration {
        let deadline = self.session.poll_timeout().unwrap_or_default();
        deadline.saturating_sub(self.now())
    }
}

struct Running<'a, S, O> {
    stream: S,
    owner: &'a mut O,
    is_client: bool,
    steps: Steps,
    /// Absent only while a step runs.
    machine: Option<Machine>,
}

impl<'a, S, O> Running<'a, S, O>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    O: Owner + Send,
{
    fn new(stream: S, terms: Terms, is_client: bool, owner: &'a mut O) -> Self {
        let Terms {
            own,
            policy,
            limits,
            steps,
        } = terms;
        let session = if is_client {
            Session::client(own, policy, limits, Duration::ZERO)
        } else {
            Session::server(own, policy, limits, Duration::ZERO)
        };
        let machine = Machine {
            session,
            rng: ChaCha20Rng::from_seed(random()),
            started: Instant::now(),
        };
        Self {
            stream,
            owner,
            is_client,
            steps,
            machine: Some(machine),
        }
    }

    async fn run(mut self) -> Result<(), Ended> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if self.act().await? {
                // Closing tells the peer; what it makes of that does not matter.
                drop(timeout(WRITE_TIME, self.stream.close()).await);
                return Ok(());
            }
            let patience = self.patience();
            let read = tokio::select! {
                read = self.stream.read(&mut buffer) => Some(read?),
                () = sleep(patience) => None,
            };
            match read {
                Some(0) => return Err(Ended::Closed),
                Some(count) => {
                    let bytes = buffer[..count].to_vec();
                    self.step(move |m, now| m.session.handle_input(&bytes, &mut m.rng, now))
                        .await?;
                }
                None => self.time_out().await?,
            }
        }
    }

    /// Does what the session wants, and says whether it is complete.
    async fn act(&mut self) -> Result<bool, Ended> {
        while let Some(output) = self.machine.as_mut().and_then(|m| m.session.poll_output()) {
            match output {
                Output::Write(bytes) => self.write(&bytes).await?,
                Output::PeerKey(key) => self.judge(&key).await?,
                Output::Established => match self.owner.established().await {
                    Some(message) => {
                        self.step(move |m, now| m.session.send(&message, &mut m.rng, now))
                            .await??;
                    }
                    None if self.is_client => return Ok(true),
                    None => {}
                },
                Output::Message(bytes) => self.message(bytes).await?,
                Output::Reply(bytes) => {
                    self.owner.replied(bytes).await;
                    return Ok(true);
                }
                Output::Closed(reason) => return Err(Ended::Session(reason)),
            }
        }
        Ok(false)
    }

    async fn judge(&mut self, key: &PublicKey) -> Result<(), Ended> {
        match timeout(self.patience(), self.owner.judge(key)).await {
            Ok(true) => {
                self.step(|m, now| m.session.accept_key(&mut m.rng, now))
                    .await
            }
            Ok(false) => self.step(|m, _| m.session.refuse_key()).await,
            Err(_) => self.time_out().await,
        }
    }

    async fn message(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        match timeout(self.patience(), self.owner.message(bytes)).await {
            Ok(Some(reply)) => {
                self.step(move |m, now| m.session.reply(&reply, &mut m.rng, now))
                    .await?;
                // The block is the first thing that the session wants after a reply in time.
                match self.machine.as_mut().and_then(|m| m.session.poll_output()) {
                    Some(Output::Write(block)) => {
                        self.write(&block).await?;
                        self.owner.answered().await;
                        Ok(())
                    }
                    Some(Output::Closed(reason)) => Err(Ended::Session(reason)),
                    _ => Ok(()),
                }
            }
            Ok(None) => Err(Ended::Stopping),
            Err(_) => self.time_out().await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A peer that does not read holds a session no longer than this.
        timeout(WRITE_TIME, write)
            .await
            .map_err(|_| Ended::NotRead)??;
        Ok(())
    }

    async fn time_out(&mut self) -> Result<(), Ended> {
        self.step(|m, now| m.session.handle_timeout(now)).await
    }

    fn patience(&self) -> Duration {
        self.machine
            .as_ref()
            .map_or(Duration::ZERO, Machine::patience)
    }

    /// Runs a step where its RSA disturbs nobody.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut Machine, Duration) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let permit = self.steps.0.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Ended::Stopping)?;
        let mut machine = self.machine.take().ok_or(Ended::Stopping)?;
        let run = move || {
            // The thread keeps the permit even if the session is dropped meanwhile.
            let _permit = permit;
            let now = machine.now();
            let result = step(&mut machine, now);
            (machine, result)
        };
        let (machine, result) = tokio::task::spawn_blocking(run)
            .await
            .map_err(|_| Ended::Stopping)?;
        self.machine = Some(machine);
        Ok(result)
    }
}
