//! What a session says and is told (`proto-specs/p2sn.md`, sections 2, 3 and 5).

use std::{fmt, time::Duration};

use super::keys::{KeyError, PublicKey};

/// How long a session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a whole exchange.
    pub exchange: Duration,
    /// From a message to its reply, on either side.
    pub reply: Duration,
    /// Without a message.
    pub idle: Duration,
}

impl Limits {
    /// Returns the limits of a socket with an old client at the other end.
    ///
    /// It waits 3 s for a reply and takes a later one for the answer to its next message (rule
    /// P2SN-REPLY-IN-TIME). Half a second of them is for the way.
    #[must_use]
    pub fn old_clients() -> Self {
        Self {
            reply: Duration::from_millis(2_500),
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// Returns the limits of a stream between two nodes.
    fn default() -> Self {
        Self {
            exchange: Duration::from_secs(10),
            // Longer than old clients wait: a reply means that the message is on disk, and a
            // memory card may take seconds for that.
            reply: Duration::from_secs(10),
            idle: Duration::from_secs(300),
        }
    }
}

/// What a session wants.
#[derive(PartialEq, Eq)]
pub enum Output {
    /// Write these bytes, in one write: the real server reads once for each frame.
    Write(Vec<u8>),
    /// The peer showed this key: say `accept_key` or `refuse_key`.
    PeerKey(PublicKey),
    /// Both sides have checked both keys.
    Established,
    /// The client sent this: answer with `reply`.
    Message(Vec<u8>),
    /// The server answered this.
    Reply(Vec<u8>),
    /// The session is over: close the connection. Nothing comes after it.
    Closed(Reason),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            Self::PeerKey(key) => write!(f, "PeerKey({key:?})"),
            Self::Established => f.write_str("Established"),
            Self::Message(bytes) => write!(f, "Message({} bytes)", bytes.len()),
            Self::Reply(bytes) => write!(f, "Reply({} bytes)", bytes.len()),
            Self::Closed(reason) => write!(f, "Closed({reason:?})"),
        }
    }
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
    /// The peer's key is no key, too small or too large.
    BadKey(KeyError),
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
            Self::BadKey(_) => "bad_key",
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
        let text = match self {
            Self::Ended => "the peer ended the session",
            Self::PeerRefused => "the peer said that a key check failed",
            Self::OutOfOrder => "the peer sent a frame out of order",
            Self::TooLong => "the peer sent a frame that is too long",
            Self::BadKey(error) => return write!(f, "the peer's RSA key is refused: {error}"),
            Self::KeyRefused => "the peer's RSA key is not the pinned one",
            Self::CheckFailed => "a key check failed",
            Self::BadBlock => "the peer sent a message that is not one block",
            Self::ExchangeTimeout => "the key exchange took too long",
            Self::ReplyTimeout => "no reply came in time",
            Self::IdleTimeout => "no message came for a long time",
        };
        f.write_str(text)
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
