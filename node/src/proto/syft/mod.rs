//! Syft: signed messages with an envelope that only the recipient opens.
//!
//! Specified in `proto-specs/syft.md`, sections 1 to 4. The HTTP and WebSocket surface of a Syft
//! server is not in here.
//!
//! | file | what |
//! | --- | --- |
//! | `identity` | Ed25519 keys, and the X25519 keys that follow from them |
//! | `envelope` | the five members that hide a text |
//! | `time` | times as texts, and the two numbers that may have been signed |
//! | `message` | the JSON message, its signature, and what a receiver makes of it |

mod envelope;
mod identity;
mod message;
mod time;

#[cfg(test)]
mod fuzz;

pub use self::{
    envelope::{EnvelopeError, Opener, SealChance, Sealer, check_envelope, open, seal},
    identity::{KeyError, PublicKey, SigningKey, WrongSignature},
    message::{FRAME_BYTES_MAX, FrameError, Message, Received, Trust, receive},
    time::Timestamp,
};
