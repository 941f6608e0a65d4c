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
//! Give it bytes, take outputs until there is none, and call it again at `poll_timeout`. It reads
//! no clock and no randomness of its own. Opening a block takes milliseconds to tens of them: run
//! a session where that disturbs nobody. Whether a key is the pinned one, and what a message
//! means, the owner decides.

use std::{collections::VecDeque, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use super::{
    frames::{Cut, END, Frames},
    io::{Limits, Output, Reason, SendError},
    keys::{KeyError, KeyPolicy, PrivateKey, PublicKey},
};

const PUBKEY: &[u8] = b"P2SN:PUBKEY";
const KEYCHECK: &[u8] = b"P2SN:KEYCHECK";
const ERRORKEY: &[u8] = b"P2SN:ERRORKEY";
const NULL: &[u8] = b"P2SN:NULL";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

#[derive(Debug)]
enum Phase {
    /// Client: waits for the server's key. Server: waits for `PUBKEY`.
    Start,
    /// Either: waits for the owner's word on the peer's key.
    Judging(PublicKey),
    /// Client: has sent its key check and waits for `PUBKEY`.
    Checked(PublicKey),
    /// Client: has sent its key and waits for the server's key check.
    Shown(PublicKey),
    /// Server: has sent its key and waits for the client's key check.
    Checking,
    /// Server: waits for the client's key.
    Asking,
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
        self.handle_timeout(now);
        let mut rest = bytes;
        while !rest.is_empty() && !matches!(self.phase, Phase::Closed) {
            let taken = self.frames.push(rest, self.cut());
            if taken == 0 {
                return self.close(Reason::TooLong);
            }
            rest = &rest[taken..];
            self.advance(rng, now);
        }
    }

    /// Goes on with the key of [`Output::PeerKey`]. Does nothing if none waits.
    pub fn accept_key(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        self.handle_timeout(now);
        let Phase::Judging(key) = &self.phase else {
            return;
        };
        let key = key.clone();
        let Some(check) = key.seal(KEYCHECK, rng) else {
            return self.close(Reason::BadKey(KeyError::Unusable));
        };
        self.write(check.as_bytes());
        match self.role {
            Role::Client => self.phase = Phase::Checked(key),
            Role::Server => self.establish(key, now),
        }
        self.advance(rng, now);
    }

    /// Ends the session because of the key of [`Output::PeerKey`]. Does nothing if none waits.
    pub fn refuse_key(&mut self) {
        match (&self.phase, self.role) {
            (Phase::Judging(_), Role::Client) => self.close(Reason::KeyRefused),
            (Phase::Judging(_), Role::Server) => self.refuse(Reason::KeyRefused),
            (_, Role::Client | Role::Server) => {}
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
        self.handle_timeout(now);
        let (Role::Client, Phase::Ready(key)) = (self.role, &self.phase) else {
            return Err(SendError::NotReady);
        };
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

    /// Answers [`Output::Message`] as the server. A reply that is too long is cut. Does nothing
    /// if no message waits for one; a reply that comes late ends the session instead (rule
    /// P2SN-REPLY-IN-TIME).
    pub fn reply(&mut self, reply: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        self.handle_timeout(now);
        let (Role::Server, Phase::Replying(key)) = (self.role, &self.phase) else {
            return;
        };
        let key = key.clone();
        let reply = &reply[..reply.len().min(key.message_bytes_max())];
        let Some(block) = key.seal(reply, rng) else {
            return self.close(Reason::BadKey(KeyError::Unusable));
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
        self.close(match self.phase {
            Phase::Ready(_) => Reason::IdleTimeout,
            Phase::Replying(_) => Reason::ReplyTimeout,
            Phase::Start
            | Phase::Judging(_)
            | Phase::Checked(_)
            | Phase::Shown(_)
            | Phase::Checking
            | Phase::Asking
            | Phase::Closed => Reason::ExchangeTimeout,
        });
    }

    fn advance(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        while self.may_read() {
            let Some(frame) = self.frames.next(self.cut()) else {
                return;
            };
            self.frame(&frame, rng, now);
        }
    }

    /// Says what completes a frame: in the message phase one block of our own key does.
    fn cut(&self) -> Cut {
        match self.phase {
            Phase::Ready(_) | Phase::Replying(_) => Cut::AtBlock(self.own.public().block_chars()),
            Phase::Start
            | Phase::Judging(_)
            | Phase::Checked(_)
            | Phase::Shown(_)
            | Phase::Checking
            | Phase::Asking
            | Phase::Closed => Cut::AtEnd,
        }
    }

    /// Says whether the next frame is wanted: not while the owner has to say something.
    const fn may_read(&self) -> bool {
        match self.phase {
            Phase::Judging(_) | Phase::Closed => false,
            Phase::Replying(_) => matches!(self.role, Role::Client),
            Phase::Start
            | Phase::Checked(_)
            | Phase::Shown(_)
            | Phase::Checking
            | Phase::Asking
            | Phase::Ready(_) => true,
        }
    }

    fn frame(&mut self, frame: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        match (frame, self.role) {
            (NULL, _) => self.close(Reason::Ended),
            (ERRORKEY, _) => self.close(Reason::PeerRefused),
            (_, Role::Client) => self.frame_for_client(frame, rng, now),
            (_, Role::Server) => self.frame_for_server(frame, rng, now),
        }
    }

    fn frame_for_client(&mut self, frame: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Start => {
                if let Err(error) = self.judge(frame) {
                    self.close(Reason::BadKey(error));
                }
            }
            Phase::Checked(key) if frame == PUBKEY => {
                let pem = STANDARD.encode(self.own.public().to_pem());
                self.write(pem.as_bytes());
                self.phase = Phase::Shown(key);
            }
            Phase::Shown(key) => {
                if self.opens_to_keycheck(frame, rng) {
                    self.establish(key, now);
                } else {
                    self.close(Reason::CheckFailed);
                }
            }
            Phase::Replying(key) => match self.own.open(frame, rng) {
                Ok(reply) => {
                    self.outputs.push_back(Output::Reply(reply));
                    self.phase = Phase::Ready(key);
                    self.deadline = now + self.limits.idle;
                }
                Err(_) => self.close(Reason::BadBlock),
            },
            Phase::Judging(_)
            | Phase::Checked(_)
            | Phase::Checking
            | Phase::Asking
            | Phase::Ready(_)
            | Phase::Closed => self.close(Reason::OutOfOrder),
        }
    }

    fn frame_for_server(&mut self, frame: &[u8], rng: &mut impl CryptoRng, now: Duration) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Start if frame == PUBKEY => self.show_key(),
            // Rule P2SN-NEW-EXCHANGE.
            Phase::Ready(_) if frame == PUBKEY => {
                self.deadline = now + self.limits.exchange;
                self.show_key();
            }
            Phase::Checking => {
                if self.opens_to_keycheck(frame, rng) {
                    self.write(PUBKEY);
                    self.phase = Phase::Asking;
                } else {
                    self.refuse(Reason::CheckFailed);
                }
            }
            Phase::Asking => {
                if let Err(error) = self.judge(frame) {
                    self.refuse(Reason::BadKey(error));
                }
            }
            Phase::Ready(key) => match self.own.open(frame, rng) {
                Ok(message) => {
                    self.outputs.push_back(Output::Message(message));
                    self.phase = Phase::Replying(key);
                    self.deadline = now + self.limits.reply;
                }
                Err(_) => self.refuse(Reason::BadBlock),
            },
            Phase::Start
            | Phase::Judging(_)
            | Phase::Checked(_)
            | Phase::Shown(_)
            | Phase::Replying(_)
            | Phase::Closed => self.close(Reason::OutOfOrder),
        }
    }

    fn show_key(&mut self) {
        let pem = self.own.public().to_pem();
        self.write(pem.as_bytes());
        self.phase = Phase::Checking;
    }

    /// Hands a peer's key to the owner, if it is one.
    fn judge(&mut self, frame: &[u8]) -> Result<(), KeyError> {
        let key = PublicKey::from_frame(frame, self.policy)?;
        self.outputs.push_back(Output::PeerKey(key.clone()));
        self.phase = Phase::Judging(key);
        Ok(())
    }

    fn opens_to_keycheck(&self, frame: &[u8], rng: &mut impl CryptoRng) -> bool {
        self.own
            .open(frame, rng)
            .is_ok_and(|opened| opened.ct_eq(KEYCHECK).into())
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

    /// Ends the session as the server, with the one answer to whatever was wrong.
    fn refuse(&mut self, reason: Reason) {
        self.write(ERRORKEY);
        self.close(reason);
    }

    fn close(&mut self, reason: Reason) {
        self.phase = Phase::Closed;
        self.frames = Frames::default();
        self.outputs.push_back(Output::Closed(reason));
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
