//! RSA keys, their PEM, and one encrypted block (`proto-specs/p2sn.md`, sections 1 and 5).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_core::CryptoRng;
use rsa::{
    BoxedUint, Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey,
    pkcs1::{
        DecodeRsaPrivateKey, DecodeRsaPublicKey, EncodeRsaPrivateKey, EncodeRsaPublicKey,
        LineEnding, RsaPrivateKeyRef,
    },
    pkcs8::SecretDocument,
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// SHA-256 of a public key's PKCS#1 DER, by which people and pins know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

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
    /// Smallest modulus, in bits. P2SN's own floor of 1,024 bits is below what is safe; a door
    /// has to ask for it.
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
    #[error("the text is no PKCS#1 PEM of an RSA public key")]
    Pem,
    /// Its modulus is smaller than the policy allows.
    #[error("an RSA key has at least {min} bits here, got {bits}")]
    Small {
        /// What came.
        bits: usize,
        /// The limit.
        min: usize,
    },
}

/// Why a block does not open. Failed padding is not among the reasons: it gives a synthetic
/// plaintext instead (implicit rejection), so that nobody learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is not standard base64.
    #[error("the frame is not base64")]
    Base64,
    /// It is not one block of the key, or not below its modulus.
    #[error("the frame is not one block of this key")]
    Block,
}

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
    /// Takes an RSA key.
    #[must_use]
    pub fn new(key: RsaPrivateKey) -> Self {
        Self {
            public: PublicKey(key.to_public_key()),
            key,
        }
    }

    /// Makes a key. Takes seconds on a small machine.
    ///
    /// # Errors
    /// Returns [`KeyError::Small`] for fewer than 1,024 bits.
    pub fn generate(bits: usize, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        let small = |_| KeyError::Small {
            bits,
            min: RsaPublicKey::MIN_SIZE,
        };
        RsaPrivateKey::new(rng, bits).map(Self::new).map_err(small)
    }

    /// Reads PKCS#1 PEM.
    ///
    /// # Errors
    /// Returns [`KeyError::Pem`] if the text is none.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        RsaPrivateKey::from_pkcs1_pem(pem)
            .map(Self::new)
            .map_err(|_| KeyError::Pem)
    }

    /// Reads PKCS#1 PEM that another program made: its primes may differ in size, as those of
    /// Python's `rsa` package do. Such a key is slower.
    ///
    /// # Errors
    /// Returns [`KeyError::Pem`] if the text is none.
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
        .map(Self::new)
        .map_err(|_| KeyError::Pem)
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

    /// Opens one block. The decryption is blinded. If the padding is wrong the result is a
    /// synthetic plaintext of plausible length, always the same for the same block.
    ///
    /// # Errors
    /// Returns what anybody can see to be wrong with the block.
    pub fn open(&self, block: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, BlockError> {
        let bytes = STANDARD.decode(block).map_err(|_| BlockError::Base64)?;
        if bytes.len() != self.key.size() {
            return Err(BlockError::Block);
        }
        self.key
            .decrypt_blinded(rng, Pkcs1v15Encrypt, &bytes)
            .map_err(|_| BlockError::Block)
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
    /// Reads PKCS#1 PEM as peers send it: any line breaks, text before it, no final newline.
    ///
    /// # Errors
    /// Returns why the key is not taken.
    pub fn from_pem(pem: &str, policy: KeyPolicy) -> Result<Self, KeyError> {
        let (_, from) = pem.split_once(PEM_BEGIN).ok_or(KeyError::Pem)?;
        let (body, _) = from.split_once(PEM_END).ok_or(KeyError::Pem)?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| KeyError::Pem)?;
        // The crate refuses moduli outside 1,024 to 8,192 bits, and exponents that are even,
        // below 3 or above 2^33.
        let key = RsaPublicKey::from_pkcs1_der(&der).map_err(|_| KeyError::Pem)?;
        let key = Self(key);
        if key.bits() < policy.bits_min {
            return Err(KeyError::Small {
                bits: key.bits(),
                min: policy.bits_min,
            });
        }
        Ok(key)
    }

    /// Writes PKCS#1 PEM in lines of 64 with a final newline.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0
            .to_pkcs1_pem(LineEnding::LF)
            .expect("two numbers are DER")
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
