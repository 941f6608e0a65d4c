//! RSA keys, their PEM, and one encrypted block (`proto-specs/p2sn.md`, sections 1, 5 and 6).
//!
//! Nothing in here says to anybody but a test whether the padding of a block was right.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT},
};
use rand_core::CryptoRng;
use rsa::{
    BoxedUint, Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey,
    pkcs1::{
        DecodeRsaPrivateKey, EncodeRsaPrivateKey, EncodeRsaPublicKey, LineEnding, RsaPrivateKeyRef,
        RsaPublicKeyRef,
    },
    pkcs8::SecretDocument,
    traits::PublicKeyParts,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// SHA-256 of a public key's PKCS#1 DER, by which people and pins know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        hex::encode(fingerprint.0)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Which keys of peers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Smallest modulus, in bits. P2SN's own floor of 1,024 bits is below what is safe; a gateway
    /// has to ask for it. A modulus of as many bytes is large enough: Python's `rsa` package makes
    /// keys of 2,047 bits where 2,048 are asked for, about three of ten.
    pub bits_min: usize,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self { bits_min: 2048 }
    }
}

/// Why a key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no PKCS#1 PEM of an RSA key.
    #[error("the text is no PKCS#1 PEM of an RSA key")]
    Pem,
    /// Its modulus is smaller than the policy allows.
    #[error("an RSA key has at least {min} bits here, got {bits}")]
    Small {
        /// What came.
        bits: usize,
        /// The limit.
        min: usize,
    },
    /// Its modulus is so large that reckoning with it takes too long.
    #[error("an RSA key has at most {max} bits, got {bits}")]
    Large {
        /// What came.
        bits: usize,
        /// The limit.
        max: usize,
    },
    /// Its public exponent makes it weak or slow.
    #[error("the public exponent of an RSA key is odd, at least 3 and below 2^33")]
    Exponent,
    /// Nothing can be sealed with it.
    #[error("the RSA key seals nothing")]
    Unusable,
}

/// Why a block does not open. Failed padding is not among the reasons: it gives a synthetic
/// plaintext instead (implicit rejection), so that nobody learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is not standard base64.
    #[error("the frame is not base64")]
    Base64,
    /// It is not as long as one block.
    #[error("a block of this key has {expected} bytes, got {got}")]
    Length {
        /// The length of the key's modulus.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// As a number it is not below the modulus.
    #[error("the block is not below the modulus of this key")]
    Range,
}

/// Smallest and largest modulus, in bits: below, a key is broken at home; above, one operation
/// takes seconds on a small machine. The `rsa` crate has the same two.
const BITS_MIN: usize = RsaPublicKey::MIN_SIZE;
const BITS_MAX: usize = RsaPublicKey::MAX_SIZE;

/// Least bits of a modulus that has as many bytes as one of [`BITS_MIN`].
const BITS_LEAST: usize = BITS_MIN - 7;

/// Bytes that PKCS#1 v1.5 takes away from a block (RFC 8017, section 7.2.1).
const PADDING_BYTES: usize = 11;

const PEM_BEGIN: &str = "-----BEGIN RSA PUBLIC KEY-----";
const PEM_END: &str = "-----END RSA PUBLIC KEY-----";

/// A key that opens blocks.
#[derive(Clone)]
pub struct PrivateKey {
    key: RsaPrivateKey,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a key. Takes seconds on a small machine.
    ///
    /// # Errors
    /// Returns [`KeyError::Small`] for fewer than 1,024 bits, [`KeyError::Large`] for more than
    /// 8,192.
    pub fn generate(bits: usize, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        check_bits(bits, BITS_MIN)?;
        let small = |_| KeyError::Small {
            bits,
            min: BITS_MIN,
        };
        RsaPrivateKey::new(rng, bits)
            .map_err(small)
            .and_then(Self::new)
    }

    /// Reads PKCS#1 PEM.
    ///
    /// # Errors
    /// Returns [`KeyError::Pem`] if the text is none, or that the key's size is out of bounds.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        RsaPrivateKey::from_pkcs1_pem(pem)
            .map_err(|_| KeyError::Pem)
            .and_then(Self::new)
    }

    /// Reads PKCS#1 PEM that another program made: its primes may differ in size, as those of
    /// Python's `rsa` package do. Such a key is slower.
    ///
    /// # Errors
    /// Returns [`KeyError::Pem`] if the text is none, or that the key's size is out of bounds.
    pub fn from_foreign_pem(pem: &str) -> Result<Self, KeyError> {
        let (_, document) = SecretDocument::from_pem(pem).map_err(|_| KeyError::Pem)?;
        let parts: RsaPrivateKeyRef<'_> = document.decode_msg().map_err(|_| KeyError::Pem)?;
        let bits = u32::try_from(parts.modulus.as_bytes().len() * 8).map_err(|_| KeyError::Pem)?;
        let number =
            |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).map_err(|_| KeyError::Pem);
        RsaPrivateKey::from_components_with_wide_primes(
            number(parts.modulus.as_bytes())?,
            number(parts.public_exponent.as_bytes())?,
            number(parts.private_exponent.as_bytes())?,
            vec![
                number(parts.prime1.as_bytes())?,
                number(parts.prime2.as_bytes())?,
            ],
        )
        .map_err(|_| KeyError::Pem)
        .and_then(Self::new)
    }

    /// Writes PKCS#1 PEM.
    ///
    /// # Errors
    /// Returns [`KeyError::Pem`] if the key has more than two primes.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.key
            .to_pkcs1_pem(LineEnding::LF)
            .map_err(|_| KeyError::Pem)
    }

    /// Returns the public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Opens one block (rule P2SN-IMPLICIT-REJECTION). The decryption is blinded. If the padding is
    /// wrong the result is a synthetic plaintext of plausible length, always the same for the
    /// same block, so `Ok` proves nothing about who sealed it or how.
    ///
    /// # Errors
    /// Returns what anybody can see to be wrong with the block.
    pub fn open(&self, block: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, BlockError> {
        let bytes = self.block_bytes(block)?;
        // A fault inside the computation is answered alike: nobody learns of it.
        self.key
            .decrypt_blinded(rng, Pkcs1v15Encrypt, &bytes)
            .map_err(|_| BlockError::Range)
    }

    /// Opens one block and tells wrong padding, as `None`, from right. Whoever can ask this of a
    /// key can decrypt with it (Bleichenbacher), so it exists in tests alone.
    #[cfg(test)]
    pub(super) fn open_checked(
        &self,
        block: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Option<Vec<u8>>, BlockError> {
        let bytes = self.block_bytes(block)?;
        let number = BoxedUint::from_be_slice(&bytes, self.key.n_bits_precision())
            .map_err(|_| BlockError::Range)?;
        let opened = rsa::hazmat::rsa_decrypt_and_check(&self.key, Some(rng), &number)
            .map_err(|_| BlockError::Range)?;
        let padded = opened.to_be_bytes();
        Ok(unpad(&padded[padded.len() - bytes.len()..]).map(<[u8]>::to_vec))
    }

    /// Takes the RSA key, if its size is within bounds.
    fn new(key: RsaPrivateKey) -> Result<Self, KeyError> {
        let public = PublicKey(key.to_public_key());
        check_bits(public.bits(), BITS_MIN)?;
        Ok(Self { key, public })
    }

    fn block_bytes(&self, block: &[u8]) -> Result<Vec<u8>, BlockError> {
        let bytes = STANDARD_PAD_INDIFFERENT
            .decode(block)
            .map_err(|_| BlockError::Base64)?;
        let expected = self.key.size();
        if bytes.len() != expected {
            return Err(BlockError::Length {
                expected,
                got: bytes.len(),
            });
        }
        Ok(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public.fingerprint())
    }
}

/// A key that seals blocks.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(RsaPublicKey);

impl PublicKey {
    /// Reads PKCS#1 PEM as peers send it (rule P2SN-PEM-TOLERANCE): any line breaks, text before
    /// it, no final newline.
    ///
    /// # Errors
    /// Returns why the key is not taken.
    pub fn from_pem(pem: &str, policy: KeyPolicy) -> Result<Self, KeyError> {
        let (_, from) = pem.split_once(PEM_BEGIN).ok_or(KeyError::Pem)?;
        let (body, _) = from.split_once(PEM_END).ok_or(KeyError::Pem)?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| KeyError::Pem)?;
        let parts = RsaPublicKeyRef::try_from(&der[..]).map_err(|_| KeyError::Pem)?;
        // First what is cheap to see, then the crate's own checks, which reckon with the modulus.
        check_bits(
            bits_of(parts.modulus.as_bytes()),
            policy.bits_min.max(BITS_MIN),
        )?;
        check_exponent(parts.public_exponent.as_bytes())?;
        let number = |bytes: &[u8]| {
            let bits = u32::try_from(bytes.len() * 8).map_err(|_| KeyError::Pem)?;
            BoxedUint::from_be_slice(bytes, bits).map_err(|_| KeyError::Pem)
        };
        RsaPublicKey::new_with_size_limits(
            number(parts.modulus.as_bytes())?,
            number(parts.public_exponent.as_bytes())?,
            BITS_LEAST..=BITS_MAX,
        )
        .map(Self)
        .map_err(|_| KeyError::Pem)
    }

    /// Reads a key as it comes in a frame: PEM, or base64 of it (rule P2SN-KEY-FRAME).
    ///
    /// # Errors
    /// Returns why the key is not taken.
    pub(super) fn from_frame(frame: &[u8], policy: KeyPolicy) -> Result<Self, KeyError> {
        let text = str::from_utf8(frame).map_err(|_| KeyError::Pem)?;
        if text.contains("-----BEGIN") {
            return Self::from_pem(text, policy);
        }
        let pem = STANDARD_PAD_INDIFFERENT
            .decode(text.trim())
            .map_err(|_| KeyError::Pem)?;
        Self::from_pem(str::from_utf8(&pem).map_err(|_| KeyError::Pem)?, policy)
    }

    /// Writes PKCS#1 PEM in lines of 64 with a final newline.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0
            .to_pkcs1_pem(LineEnding::LF)
            .expect("two numbers are DER")
    }

    /// Returns the modulus, as long as a block.
    #[cfg(test)]
    pub(super) fn modulus(&self) -> Vec<u8> {
        self.0.n_bytes().into_vec()
    }

    /// Returns the size of the modulus in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.0.n().bits_vartime() as usize
    }

    /// Returns what the key is known by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let der = self.0.to_pkcs1_der().expect("two numbers are DER");
        Fingerprint(Sha256::digest(der.as_bytes()).into())
    }

    /// Returns the length of the longest message, in bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.0.size() - PADDING_BYTES
    }

    /// Returns the length of one sealed block in base64, in characters.
    #[must_use]
    pub fn block_chars(&self) -> usize {
        self.0.size().div_ceil(3) * 4
    }

    /// Seals a message as one block, or returns `None` if it is too long.
    #[must_use]
    pub fn seal(&self, message: &[u8], rng: &mut impl CryptoRng) -> Option<String> {
        if message.len() > self.message_bytes_max() {
            return None;
        }
        let block = self.0.encrypt(rng, Pkcs1v15Encrypt, message).ok()?;
        Some(STANDARD.encode(block))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits, {})", self.bits(), self.fingerprint())
    }
}

fn check_bits(bits: usize, min: usize) -> Result<(), KeyError> {
    if bits.div_ceil(8) < min.div_ceil(8) {
        return Err(KeyError::Small { bits, min });
    }
    if bits > BITS_MAX {
        return Err(KeyError::Large {
            bits,
            max: BITS_MAX,
        });
    }
    Ok(())
}

/// Says whether e is odd and 3 ≤ e < 2^33.
fn check_exponent(bytes: &[u8]) -> Result<(), KeyError> {
    const BEYOND: u64 = 1 << 33;
    let mut wide = [0; 8];
    let start = wide
        .len()
        .checked_sub(bytes.len())
        .ok_or(KeyError::Exponent)?;
    wide[start..].copy_from_slice(bytes);
    let e = u64::from_be_bytes(wide);
    if e % 2 == 1 && (3..BEYOND).contains(&e) {
        Ok(())
    } else {
        Err(KeyError::Exponent)
    }
}

/// Returns the length in bits of a number without leading zero bytes.
fn bits_of(bytes: &[u8]) -> usize {
    bytes
        .first()
        .map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize)
}

/// Takes the padding of PKCS#1 v1.5 off: 0, 2, at least eight bytes that are not 0, then 0.
#[cfg(test)]
fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let rest = padded.strip_prefix(&[0, 2])?;
    let zero = rest.iter().position(|&b| b == 0)?;
    (zero >= 8).then(|| &rest[zero + 1..])
}

#[cfg(test)]
mod tests;
