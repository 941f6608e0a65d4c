//! The native protocols of the mesh, as `proto-specs/mesh.md` describes them.
//!
//! | file | what |
//! | --- | --- |
//! | `address` | places to dial |
//! | `name` | names of nodes and messages |
//! | `client_name` | names of clients that have no key |
//! | `signed` | a payload and the signature over its exact bytes |
//! | `certificate` | who is a member, and who no longer is |
//! | `ranges` | further indices that a member owns |
//! | `statement` | what is said of members beside their certificates |
//! | `vouched` | what a member may speak for as a gateway |
//! | `ticket` | what `pimesh invite` prints |
//! | `member` | `/pimesh/member/1`: how a connection is opened |
//! | `sync` | `/pimesh/sync/1`: what members tell each other |
//! | `direct` | `/pimesh/dm/1`: direct messages |
//! | `key` | `/pimesh/key/1`: the mesh key for another member |
//! | `users` | `/pimesh/users/1`: what a gateway tells of its users |
//!
//! Everything is protobuf (proto3), because every libp2p implementation brings it along. Bytes
//! are decoded once into types that cannot be wrong; what is signed is kept as the bytes that
//! came, never encoded again.

pub mod address;
pub mod certificate;
mod client_name;
pub mod direct;
pub mod key;
pub mod member;
pub mod name;
pub mod ranges;
pub mod signed;
pub mod statement;
pub mod sync;
pub mod ticket;
pub mod users;
pub mod vouched;

#[cfg(test)]
mod fuzz;

pub use self::{
    address::Address,
    client_name::ClientName,
    name::{MessageId, NodeName},
};

/// Why bytes of the native protocols were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no protobuf message of the expected kind.
    #[error("the bytes are no {what}")]
    Malformed {
        /// The expected kind.
        what: &'static str,
    },
    /// A field is absent, has the wrong size or an illegal value.
    #[error("the field `{field}` of a {what} is not legal")]
    Field {
        /// The kind of message.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// More bytes or items than the protocol allows.
    #[error("a {what} has at most {max} {unit}, got {got}")]
    TooLarge {
        /// The kind of message.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What came.
        got: usize,
        /// What is counted.
        unit: &'static str,
    },
}

/// Decodes a protobuf message, naming its kind on failure.
fn decode<M: prost::Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|_| DecodeError::Malformed { what })
}

/// Takes a field of exactly `N` bytes.
fn array<const N: usize>(
    what: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], DecodeError> {
    bytes
        .try_into()
        .map_err(|_| DecodeError::Field { what, field })
}

/// Takes a field that holds a peer id.
fn peer(
    what: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<libp2p_identity::PeerId, DecodeError> {
    libp2p_identity::PeerId::from_bytes(bytes).map_err(|_| DecodeError::Field { what, field })
}

/// Refuses more than `max` items.
fn at_most(
    what: &'static str,
    unit: &'static str,
    got: usize,
    max: usize,
) -> Result<(), DecodeError> {
    if got > max {
        return Err(DecodeError::TooLarge {
            what,
            max,
            got,
            unit,
        });
    }
    Ok(())
}

/// Returns a peer id that is the same in every run.
#[cfg(test)]
pub(crate) fn peer_of_seed(seed: u8) -> libp2p_identity::PeerId {
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    keypair.public().to_peer_id()
}

/// Longest text that is read as a peer id, in bytes. Those of Ed25519 keys have 52, the longest that
/// libp2p makes 57.
const PEER_ID_TEXT_MAX: usize = 64;

/// Reads a peer id as people write it. The time that base58 takes grows with the square of its
/// length, so a longer text is not looked at.
#[must_use]
pub fn parse_peer(text: &str) -> Option<libp2p_identity::PeerId> {
    let is_short = text.len() <= PEER_ID_TEXT_MAX;
    is_short.then(|| text.parse().ok()).flatten()
}
