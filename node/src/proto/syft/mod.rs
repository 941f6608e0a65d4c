//! Syft: signed messages with an envelope that only the recipient opens.
//!
//! Specified in `proto-specs/syft.md`, sections 1 to 7. Sockets, and who may do what, are not in
//! here.
//!
//! | file | what |
//! | --- | --- |
//! | `identity` | Ed25519 keys, and the X25519 keys that follow from them |
//! | `key_file` | public keys as the programs of Syft keep them in files |
//! | `envelope` | the five members that hide a text |
//! | `time` | times as texts, and the two numbers that may have been signed |
//! | `message` | the JSON message, its signature, and what a receiver makes of it |
//! | `user` | the names of users |
//! | `letter` | what a client sends through a gateway, and what the gateway relays |
//! | `forward` | requests that a user's own agent answers |
//! | `gateway` | bodies of HTTP, challenges and the claims of tokens |

mod envelope;
pub mod forward;
pub mod http;
mod identity;
mod key_file;
pub mod letter;
mod message;
mod time;
mod user;

#[cfg(test)]
mod fuzz;

pub use self::{
    envelope::{EnvelopeError, Opener, SealChance, Sealer, check_envelope, open, seal},
    identity::{KeyError, PublicKey, SigningKey, WrongSignature},
    key_file::{KEY_FILE_BYTES_MAX, KeyFileError},
    message::{FRAME_BYTES_MAX, FrameError, Message, Received, Trust, receive},
    time::{Reader, Timestamp},
    user::{
        DESCRIPTIONS_BYTES_MAX, DESCRIPTIONS_MAX, Descriptions, DescriptionsError, TITLE_BYTES_MAX,
        USER_ID_BYTES_MAX, UserId, UserIdError,
    },
};
