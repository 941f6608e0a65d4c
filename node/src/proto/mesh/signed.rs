//! A payload and the Ed25519 signature over its exact bytes.
//!
//! Every kind of payload has its own label, which is signed in front of it, so that a signature
//! over one kind can never be shown as a signature over another. Labels end in a zero byte, which
//! occurs in no text that a Syft key signs.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::DecodeError;

/// Says what a signature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(&'static [u8]);

impl Label {
    /// Membership certificates, signed by the mesh key.
    pub const CERTIFICATE: Self = Self(b"pimesh/certificate/1\0");
    /// Revocations, signed by the mesh key.
    pub const REVOCATION: Self = Self(b"pimesh/revocation/1\0");
    /// Proof that a joining node holds its messaging key, signed by that key.
    pub const JOIN: Self = Self(b"pimesh/join/1\0");
    /// Direct messages, signed by the messaging key.
    pub const DIRECT: Self = Self(b"pimesh/dm/1\0");

    /// That a member holds the mesh key, signed by that key.
    pub const HOLDER: Self = Self(b"pimesh/holder/1\0");
    /// Which further indices a member owns, signed by the mesh key.
    pub const INDICES: Self = Self(b"pimesh/indices/1\0");
    /// That a member left, signed by its messaging key.
    pub const LEFT: Self = Self(b"pimesh/left/1\0");

    /// Returns the bytes that are signed for `payload`.
    #[must_use]
    pub fn before(self, payload: &[u8]) -> Vec<u8> {
        [self.0, payload].concat()
    }
}

/// A payload and a signature that nobody has verified yet.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Signed {
    /// The encoded payload, as it was signed.
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
    /// 64 bytes of Ed25519 (RFC 8032).
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
}

/// The signature is not the key's over this payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is wrong")]
pub struct WrongSignature;

impl Signed {
    /// Signs a payload.
    #[must_use]
    pub fn sign(label: Label, payload: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&label.before(&payload)).to_bytes().to_vec();
        Self { payload, signature }
    }

    /// Verifies the signature strictly: canonical encodings only, no small-order keys.
    ///
    /// # Errors
    /// Returns [`WrongSignature`] if it is not the key's over this payload with this label.
    pub fn verify(&self, label: Label, key: &VerifyingKey) -> Result<(), WrongSignature> {
        let signature = Signature::from_slice(&self.signature).map_err(|_| WrongSignature)?;
        key.verify_strict(&label.before(&self.payload), &signature)
            .map_err(|_| WrongSignature)
    }

    /// Encodes both.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }

    /// Decodes both, verifying nothing.
    ///
    /// # Errors
    /// Returns [`DecodeError::Malformed`] if the bytes are no such pair.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        super::decode("signed payload", bytes)
    }
}
