//! P2SN: an RSA key exchange and short encrypted messages.
//!
//! Specified in `proto-specs/p2sn.md`. One session machine serves the libp2p stream
//! `/pimesh/p2sn/1` and the sockets of the old Python clients; it opens neither. P2SN
//! authenticates nobody: whoever runs a session compares the peer's key with a pinned one.
//!
//! | file | what |
//! | --- | --- |
//! | `keys` | RSA keys, their PEM, one encrypted block |
//! | `frames` | frames cut out of whatever pieces the bytes come in |
//! | `io` | what a session says and is told |
//! | `names` | what keys are pinned to, and what clients are called |
//! | `session` | both roles of the exchange, and the messages after it |

mod frames;
mod io;
mod keys;
mod names;
mod session;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod vectors;

pub use self::{
    io::{Limits, Output, Reason, SendError},
    keys::{BlockError, Fingerprint, KeyError, KeyPolicy, PrivateKey, PublicKey},
    names::{NoAddress, PORT, PinAddress},
    session::Session,
};

/// The stream protocol inside the mesh.
pub const STREAM_PROTOCOL: &str = "/pimesh/p2sn/1";

/// What this node answers to a message once it is on disk.
pub const ACKNOWLEDGEMENT: &[u8] = b"P2SN:OK";

/// What this node answers, encrypted like a message, to one that it cannot take.
pub const UNEXPECTED_ERROR: &[u8] = b"P2SN:UNEXPECTEDERROR";
