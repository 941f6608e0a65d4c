//! `/pimesh/key/1`: a member that holds the mesh key gives it to another one.
//!
//! The key is sealed to the other member's messaging key, so the bytes of the connection, or of
//! a core dump of the network code, do not show it. The answer comes when the key is on the
//! disk of the receiver, and not before.

use zeroize::Zeroizing;

use super::{DecodeError, certificate::MeshKey, decode};
use crate::proto::syft;

/// Longest request, in bytes: an envelope around 64 characters has about 300.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Longest answer, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 64;

/// The mesh key in an envelope for one member (`proto-specs/syft.md`, section 2).
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The envelope, as JSON.
    pub sealed: String,
}

/// What the receiver made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Answer {
    /// Not now; later may be better, for example because the disk is full.
    TryAgain = 0,
    /// It is on disk, or was there already.
    Stored = 1,
    /// It is no key of this mesh, or was not sealed for this member.
    Refused = 2,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request(..)")
    }
}

impl Request {
    /// Seals the key for a member.
    #[must_use]
    pub fn seal(key: &MeshKey, to: &syft::PublicKey, chance: &syft::SealChance) -> Self {
        let text = Zeroizing::new(hex::encode(*key.to_seed()));
        Self {
            sealed: syft::seal(&text, to, chance),
        }
    }

    /// Opens it; `None` if it was not sealed for this key, or holds no mesh key.
    #[must_use]
    pub fn open(&self, key: &syft::SigningKey) -> Option<MeshKey> {
        let text = syft::open(&self.sealed, key).ok()?;
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.as_bytes(), &mut *seed).ok()?;
        Some(MeshKey::from_seed(&seed))
    }

    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let sealed = self.sealed.clone();
        prost::Message::encode_to_vec(&WireRequest { sealed })
    }

    /// Decodes a request; opens nothing.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "key request";
        super::at_most(WHAT, "bytes", bytes.len(), REQUEST_BYTES_MAX)?;
        let WireRequest { sealed } = decode(WHAT, bytes)?;
        Ok(Self { sealed })
    }
}

impl Answer {
    /// Encodes the answer.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let answer = self as i32;
        prost::Message::encode_to_vec(&WireAnswer { answer })
    }

    /// Decodes an answer. Numbers of later versions count as "not now".
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "key answer";
        super::at_most(WHAT, "bytes", bytes.len(), RESPONSE_BYTES_MAX)?;
        let WireAnswer { answer } = decode(WHAT, bytes)?;
        Ok(Self::try_from(answer).unwrap_or(Self::TryAgain))
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireRequest {
    #[prost(string, tag = "1")]
    sealed: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct WireAnswer {
    #[prost(enumeration = "Answer", tag = "1")]
    answer: i32,
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    fn chance() -> syft::SealChance {
        syft::SealChance::from_rng(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32]))
    }

    #[test]
    fn the_key_is_opened_by_the_member_that_it_was_sealed_for_and_nobody_else() {
        let key = MeshKey::from_seed(&[5; 32]);
        let to = syft::SigningKey::from_seed(&[7; 32]);
        let request = Request::seal(&key, to.public(), &chance());

        let read = Request::decode(&request.encode()).expect("legal");

        let opened = read.open(&to).expect("opens");
        assert_eq!(opened.to_seed(), key.to_seed());
        assert!(read.open(&syft::SigningKey::from_seed(&[8; 32])).is_none());
        assert!(!format!("{read:?}").contains(&read.sealed));
    }

    #[test]
    fn an_envelope_without_a_key_opens_to_nothing() {
        let to = syft::SigningKey::from_seed(&[7; 32]);
        for text in ["", "hello", &"ab".repeat(31), &"ab".repeat(33)] {
            let sealed = syft::seal(text, to.public(), &chance());
            assert!(Request { sealed }.open(&to).is_none(), "{text}");
        }
    }

    #[test]
    fn every_answer_survives_the_journey_and_later_ones_mean_not_now() {
        for answer in [Answer::TryAgain, Answer::Stored, Answer::Refused] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        let later = prost::Message::encode_to_vec(&WireAnswer { answer: 9 });
        assert_eq!(Answer::decode(&later), Ok(Answer::TryAgain));
        assert!(Request::decode(&[0; REQUEST_BYTES_MAX + 1]).is_err());
        assert!(Answer::decode(&[0; RESPONSE_BYTES_MAX + 1]).is_err());
    }
}
