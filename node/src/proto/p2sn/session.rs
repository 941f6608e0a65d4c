//! Both roles of the exchange, and the messages after it (`proto-specs/p2sn.md`, sections 2 to 4).
//!
//! ```text
//! client                                     server
//!   PUBKEY                     ──────────▶
//!   (PeerKey: accept_key?)     ◀──────────   its PEM
//!   sealed KEYCHECK            ──────────▶   opens?
//!                              ◀──────────   PUBKEY
//!   base64 of its PEM          ──────────▶   (PeerKey: accept_key?)
//!   opens? Established         ◀──────────   sealed KEYCHECK; Established
//!   send: sealed message       ──────────▶   Message
//!   Reply                      ◀──────────   reply: sealed reply
//! ```
//!
//! Give it bytes, take outputs until there is none. It reads no clock and no randomness of its
//! own. Opening a block takes milliseconds to tens of them: run a session where that disturbs
//! nobody.

use std::{collections::VecDeque, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::CryptoRng;

use super::{
    frames::{END, Frames},
    keys::{KeyPolicy, PrivateKey, PublicKey},
};

const PUBKEY: &[u8] = b"P2SN:PUBKEY";
const KEYCHECK: &[u8] = b"P2SN:KEYCHECK";
const ERRORKEY: &[u8] = b"P2SN:ERRORKEY";
const NULL: &[u8] = b"P2SN:NULL";

/// How long a session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the whole exchange.
    pub exchange: Duration,
    /// For the reply to a message.
    pub reply: Duration,
    /// Without a message.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            exchange: Duration::from_secs(10),
            // The real client gives up after 3 s; with a slow disk at the other end, ours waits
            // longer than it makes others wait.
            reply: Duration::from_secs(10),
            idle: Duration::from_secs(300),
        }
    }
}

/// What a session wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes, in one write: the real server reads once for each frame.
    Write(Vec<u8>),
    /// The peer showed this key: say [`Session::accept_key`] or [`Session::refuse_key`].
    PeerKey(PublicKey),
    /// Both sides have checked both keys.
    Established,
    /// The client sent this: answer with [`Session::reply`].
    Message(Vec<u8>),
    /// The server answered this.
    Reply(Vec<u8>),
    /// The session is over: close the connection. Nothing comes after it.
    Closed(Reason),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer said so.
    Ended,
    /// The peer said that a key check failed.
    PeerRefused,
    /// A frame was not what is due at this point.
    OutOfOrder,
    /// More bytes than a frame has.
    TooLong,
    /// The peer's key is no key or too small.
    BadKey,
    /// The owner refused the peer's key.
    KeyRefused,
    /// The peer does not hold our public key, or not its own private one.
    CheckFailed,
    /// A message was not one block.
    BadBlock,
    /// The exchange took too long.
    ExchangeTimeout,
    /// No reply came in time.
    ReplyTimeout,
    /// No message came for a long time.
    IdleTimeout,
}

impl Reason {
    /// Returns a short constant for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::PeerRefused => "peer_refused",
            Self::OutOfOrder => "out_of_order",
            Self::TooLong => "too_long",
            Self::BadKey => "bad_key",
            Self::KeyRefused => "key_refused",
            Self::CheckFailed => "check_failed",
            Self::BadBlock => "bad_block",
            Self::ExchangeTimeout => "exchange_timeout",
            Self::ReplyTimeout => "reply_timeout",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the peer ended the session",
            Self::PeerRefused => "the peer said that a key check failed",
            Self::OutOfOrder => "the peer sent a frame out of order",
            Self::TooLong => "the peer sent a frame that is too long",
            Self::BadKey => "the peer's RSA key is not usable or too small",
            Self::KeyRefused => "the peer's RSA key is not the pinned one",
            Self::CheckFailed => "a key check failed",
            Self::BadBlock => "the peer sent a message that is not one block",
            Self::ExchangeTimeout => "the key exchange took too long",
            Self::ReplyTimeout => "no reply came in time",
            Self::IdleTimeout => "no message came for a long time",
        })
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// P2SN messages are one block, and the peer's key sets its size.
    #[error("a P2SN message to this peer has at most {max} bytes, got {got}")]
    TooLong {
        /// The limit.
        max: usize,
        /// The message's length.
        got: usize,
    },
    /// The exchange is not complete, the session is over, or a reply is still due.
    #[error("the session cannot send a message at this point")]
    NotReady,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

#[derive(Debug)]
enum Phase {
    /// Client: waits for the server's PEM. Server: waits for `PUBKEY`.
    Start,
    /// Waits for the owner's word on the peer's key.
    Judging(PublicKey),
    /// Client: waits for `PUBKEY`.
    Asked(PublicKey),
    /// Client: waits for the server's key check. Server: waits for the client's.
    Check(Option<PublicKey>),
    /// Server: waits for the client's key.
    ClientKey,
    /// The exchange is complete.
    Ready(PublicKey),
    /// Client: waits for the reply. Server: waits for the owner's reply.
    Replying(PublicKey),
    Closed,
}

/// One P2SN session, from the first byte to the close.
#[derive(Debug)]
pub struct Session {
    role: Role,
    own: PrivateKey,
    policy: KeyPolicy,
    limits: Limits,
    phase: Phase,
    frames: Frames,
    outputs: VecDeque<Output>,
    deadline: Duration,
}

impl Session {
    /// Begins a session as the side that asks.
    #[must_use]
    pub fn client(own: PrivateKey, policy: KeyPolicy, limits: Limits, now: Duration) -> Self {
        let mut session = Self::new(Role::Client, own, policy, limits, now);
        session.write(PUBKEY);
        session
    }

    /// Begins a session as the side that is asked.
    #[must_use]
    pub fn server(own: PrivateKey, policy: KeyPolicy, limits: Limits, now: Duration) -> Self {
        Self::new(Role::Server, own, policy, limits, now)
    }

    fn new(role: Role, own: PrivateKey, policy: KeyPolicy, limits: Limits, now: Duration) -> Self {
        Self {
            role,
            own,
            policy,
            limits,
            phase: Phase::Start,
            frames: Frames::default(),
            outputs: VecDeque::new(),
            deadline: now + limits.exchange,
        }
    }

    /// Takes bytes that came, in any pieces.
    pub fn handle_input(&mut self, bytes: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if self.frames.push(bytes).is_err() {
            return self.close(Reason::TooLong);
        }
        self.advance(rng, now);
    }

    /// Goes on with the key of [`Output::PeerKey`].
    pub fn accept_key(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        let Phase::Judging(key) = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        let Some(check) = key.seal(KEYCHECK, rng) else {
            return self.close(Reason::BadKey);
        };
        self.write(check.as_bytes());
        match self.role {
            Role::Client => self.phase = Phase::Asked(key),
            Role::Server => self.establish(key, now),
        }
        self.advance(rng, now);
    }

    /// Ends the session because of the key of [`Output::PeerKey`].
    pub fn refuse_key(&mut self) {
        if matches!(self.phase, Phase::Judging(_)) {
            if self.role == Role::Server {
                self.write(ERRORKEY);
            }
            self.close(Reason::KeyRefused);
        }
    }

    /// Sends a message as the client; its reply comes as [`Output::Reply`].
    ///
    /// # Errors
    /// Returns why it cannot be sent; the session is as it was.
    pub fn send(
        &mut self,
        message: &[u8],
        rng: &mut impl CryptoRng,
        now: Duration,
    ) -> Result<(), SendError> {
        let Phase::Ready(key) = &self.phase else {
            return Err(SendError::NotReady);
        };
        if self.role != Role::Client {
            return Err(SendError::NotReady);
        }
        let too_long = SendError::TooLong {
            max: key.message_bytes_max(),
            got: message.len(),
        };
        let block = key.seal(message, rng).ok_or(too_long)?;
        let key = key.clone();
        self.write(block.as_bytes());
        self.phase = Phase::Replying(key);
        self.deadline = now + self.limits.reply;
        Ok(())
    }

    /// Answers [`Output::Message`] as the server. A reply that is too long is cut.
    pub fn reply(&mut self, reply: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        if self.role != Role::Server {
            return;
        }
        let Phase::Replying(key) = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        let reply = &reply[..reply.len().min(key.message_bytes_max())];
        let Some(block) = key.seal(reply, rng) else {
            return self.close(Reason::BadKey);
        };
        self.write(block.as_bytes());
        self.phase = Phase::Ready(key);
        self.deadline = now + self.limits.idle;
        self.advance(rng, now);
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!matches!(self.phase, Phase::Closed)).then_some(self.deadline)
    }

    /// Ends the session if its time is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now) {
            return;
        }
        let reason = match (&self.phase, self.role) {
            (Phase::Ready(_), _) => Reason::IdleTimeout,
            (Phase::Replying(_), _) => Reason::ReplyTimeout,
            _ => Reason::ExchangeTimeout,
        };
        self.close(reason);
    }

    fn advance(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        while self.may_read() {
            let block_chars =
                matches!(self.phase, Phase::Ready(_)).then(|| self.own.public().block_chars());
            match self.frames.next(block_chars) {
                Ok(Some(frame)) => self.frame(&frame, rng, now),
                Ok(None) => return,
                Err(_) => return self.close(Reason::TooLong),
            }
        }
    }

    /// Says whether the next frame is wanted: not while the owner has to say something.
    const fn may_read(&self) -> bool {
        match &self.phase {
            Phase::Judging(_) | Phase::Closed => false,
            Phase::Replying(_) => matches!(self.role, Role::Client),
            _ => true,
        }
    }

    fn frame(&mut self, frame: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        match frame {
            NULL => return self.close(Reason::Ended),
            ERRORKEY => return self.close(Reason::PeerRefused),
            _ => {}
        }
        match (self.role, std::mem::replace(&mut self.phase, Phase::Closed)) {
            // A new exchange may begin in the message phase.
            (Role::Server, Phase::Start | Phase::Ready(_)) if frame == PUBKEY => {
                let pem = self.own.public().to_pem();
                self.write(pem.as_bytes());
                self.phase = Phase::Check(None);
                self.deadline = now + self.limits.exchange;
            }
            (Role::Server, Phase::Check(_)) => {
                if !self.opens_to_keycheck(frame, rng) {
                    self.write(ERRORKEY);
                    return self.close(Reason::CheckFailed);
                }
                self.write(PUBKEY);
                self.phase = Phase::ClientKey;
            }
            (Role::Server, Phase::ClientKey) => {
                if !self.judge(client_key(frame)) {
                    self.write(ERRORKEY);
                    self.close(Reason::BadKey);
                }
            }
            (Role::Server, Phase::Ready(key)) => match self.own.open(frame, rng) {
                Ok(message) => {
                    self.outputs.push_back(Output::Message(message));
                    self.phase = Phase::Replying(key);
                    self.deadline = now + self.limits.reply;
                }
                Err(_) => {
                    self.write(ERRORKEY);
                    self.close(Reason::BadBlock);
                }
            },
            (Role::Client, Phase::Start) => {
                if !self.judge(String::from_utf8(frame.to_vec()).ok()) {
                    self.close(Reason::BadKey);
                }
            }
            (Role::Client, Phase::Asked(key)) if frame == PUBKEY => {
                let pem = STANDARD.encode(self.own.public().to_pem());
                self.write(pem.as_bytes());
                self.phase = Phase::Check(Some(key));
            }
            (Role::Client, Phase::Check(Some(key))) => {
                if self.opens_to_keycheck(frame, rng) {
                    self.establish(key, now);
                } else {
                    self.close(Reason::CheckFailed);
                }
            }
            (Role::Client, Phase::Replying(key)) => match self.own.open(frame, rng) {
                Ok(reply) => {
                    self.outputs.push_back(Output::Reply(reply));
                    self.phase = Phase::Ready(key);
                    self.deadline = now + self.limits.idle;
                }
                Err(_) => self.close(Reason::BadBlock),
            },
            _ => self.close(Reason::OutOfOrder),
        }
    }

    /// Hands a peer's key to the owner, if it is one.
    fn judge(&mut self, pem: Option<String>) -> bool {
        let key = pem.and_then(|pem| PublicKey::from_pem(&pem, self.policy).ok());
        let Some(key) = key else { return false };
        self.outputs.push_back(Output::PeerKey(key.clone()));
        self.phase = Phase::Judging(key);
        true
    }

    fn opens_to_keycheck(&self, frame: &[u8], rng: &mut impl CryptoRng) -> bool {
        self.own
            .open(frame, rng)
            .is_ok_and(|opened| opened == KEYCHECK)
    }

    fn establish(&mut self, key: PublicKey, now: Duration) {
        self.phase = Phase::Ready(key);
        self.deadline = now + self.limits.idle;
        self.outputs.push_back(Output::Established);
    }

    fn write(&mut self, frame: &[u8]) {
        self.outputs
            .push_back(Output::Write([frame, &[END]].concat()));
    }

    fn close(&mut self, reason: Reason) {
        self.phase = Phase::Closed;
        self.outputs.push_back(Output::Closed(reason));
    }
}

/// Reads the client's key: base64 of the PEM, or the PEM itself.
fn client_key(frame: &[u8]) -> Option<String> {
    let text = str::from_utf8(frame).ok()?;
    if text.contains("-----BEGIN") {
        return Some(text.to_owned());
    }
    let decoded = STANDARD.decode(text.trim()).ok()?;
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
