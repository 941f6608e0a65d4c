//! Ed25519 keys, and the X25519 keys that follow from them (`proto-specs/syft.md`, section 1).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A key that signs messages and opens envelopes.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    opening: crypto_box::SecretKey,
    public: PublicKey,
}

impl SigningKey {
    /// Makes the key of 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifying = key.verifying_key();
        let opening = Zeroizing::new(key.to_scalar_bytes());
        Self {
            opening: crypto_box::SecretKey::from(*opening),
            public: PublicKey {
                verifying,
                sealing: verifying.to_montgomery().to_bytes(),
            },
            key,
        }
    }

    /// Returns the 32 secret bytes.
    #[must_use]
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// Returns the public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    pub(super) const fn opening(&self) -> &crypto_box::SecretKey {
        &self.opening
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public)
    }
}

/// A key that verifies messages and seals envelopes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    verifying: VerifyingKey,
    sealing: [u8; 32],
}

/// Why bytes are no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of 32 bytes.
    #[error("a public key is base64 of 32 bytes")]
    Form,
    /// Not a point of the prime-order subgroup in its one encoding.
    #[error("the bytes are no usable Ed25519 public key")]
    Point,
}

/// The signature is not the key's over these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is wrong")]
pub struct WrongSignature;

impl PublicKey {
    /// Takes 32 bytes. Points that are off the curve, of small order, outside the prime-order
    /// subgroup or encoded in a second way are refused.
    ///
    /// # Errors
    /// Returns [`KeyError::Point`] for those.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let point = CompressedEdwardsY(*bytes)
            .decompress()
            .ok_or(KeyError::Point)?;
        let canonical = point.compress().as_bytes() == bytes;
        if !canonical || point.is_small_order() || !point.is_torsion_free() {
            return Err(KeyError::Point);
        }
        let verifying = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
        Ok(Self {
            verifying,
            sealing: point.to_montgomery().to_bytes(),
        })
    }

    /// Takes standard base64 of the 32 bytes.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::Form)?;
        Self::from_bytes(&bytes.try_into().map_err(|_| KeyError::Form)?)
    }

    /// Returns standard base64 of the 32 bytes.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.as_bytes())
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.verifying.as_bytes()
    }

    /// Verifies a signature strictly: `S` below the group order, no small-order points.
    ///
    /// # Errors
    /// Returns [`WrongSignature`] if it is not this key's over these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &[u8; 64]) -> Result<(), WrongSignature> {
        let signature = Signature::from_bytes(signature);
        self.verifying
            .verify_strict(bytes, &signature)
            .map_err(|_| WrongSignature)
    }

    pub(super) fn sealing(&self) -> crypto_box::PublicKey {
        crypto_box::PublicKey::from(self.sealing)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::from_base64(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_base64()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod vectors {
    use super::*;
    use crate::vectors::{bytes, checked, load};

    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
        public_keys_to_refuse: Vec<Refused>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        seed: String,
        ed25519_public: String,
        public_key_base64: String,
        x25519_private: String,
        x25519_public: String,
        challenge: String,
        challenge_signature: String,
        challenge_signature_synaptic: String,
    }

    #[derive(Deserialize)]
    struct Refused {
        name: String,
        ed25519_public: String,
    }

    #[test]
    fn keys_follow_from_seeds_as_in_the_real_clients() {
        let file: File = load("syft/identity.json");

        for case in &file.cases {
            let key = SigningKey::from_seed(&bytes(&case.seed));
            let public = PublicKey::from_bytes(&bytes(&case.ed25519_public)).expect(&case.name);
            assert_eq!(key.public(), &public, "{}", case.name);
            assert_eq!(public.to_base64(), case.public_key_base64, "{}", case.name);
            let clamped = curve25519_dalek::scalar::clamp_integer(key.opening.to_bytes());
            assert_eq!(hex::encode(clamped), case.x25519_private, "{}", case.name);
            assert_eq!(
                hex::encode(public.sealing),
                case.x25519_public,
                "{}",
                case.name
            );
            assert_eq!(
                hex::encode(key.public.sealing),
                case.x25519_public,
                "{}",
                case.name
            );

            let signature = STANDARD.encode(key.sign(case.challenge.as_bytes()));
            assert_eq!(signature, case.challenge_signature, "{}", case.name);
            let decoded = STANDARD.decode(&case.challenge).expect("base64");
            let synaptic = STANDARD.encode(key.sign(&decoded));
            assert_eq!(synaptic, case.challenge_signature_synaptic, "{}", case.name);
        }
        checked("syft/identity.json cases", file.cases.len());
    }

    #[test]
    fn unusable_public_keys_are_refused() {
        let file: File = load("syft/identity.json");

        for case in &file.public_keys_to_refuse {
            let read = PublicKey::from_bytes(&bytes(&case.ed25519_public));
            assert_eq!(read, Err(KeyError::Point), "{}", case.name);
        }
        checked(
            "syft/identity.json keys to refuse",
            file.public_keys_to_refuse.len(),
        );
    }

    #[test]
    fn the_seed_is_not_printed() {
        let printed = format!("{:?}", SigningKey::from_seed(&[0xab; 32]));

        assert!(
            !printed.contains("abab") && !printed.contains("171"),
            "{printed}"
        );
    }
}
