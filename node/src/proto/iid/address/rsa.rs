//! RSA keys as the Unity clients write them (`proto-specs/iid.md`, section 5.4): tag
//! `pBit4096B58Pkcs1SHA256`, then base58 of a .NET XML key; signatures are PKCS#1 v1.5, SHA-256.
//!
//! ```text
//! pBit4096B58Pkcs1SHA256 ‖ base58( <RSAKeyValue><Modulus>base64</Modulus><Exponent>base64</Exponent></RSAKeyValue> )
//! ```
//!
//! The tag says 4096, the published keys have 1024 bits. How small is too small is the gateway's
//! to say; here is only what no RSA key can be.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rsa::{
    BoxedUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey,
    pkcs1::DecodeRsaPrivateKey,
    pkcs8::DecodePrivateKey,
    traits::{PrivateKeyParts, PublicKeyParts},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::AddressError;

/// What an address begins with; a private key of the same shape has a capital P.
pub const TAG: &str = "pBit4096B58Pkcs1SHA256";

/// Smallest and largest modulus, in bits: below, a key is broken at home; above, one operation
/// takes seconds on a small machine. The `rsa` crate has the same two.
pub const BITS_MIN: usize = RsaPublicKey::MIN_SIZE;
/// See [`BITS_MIN`].
pub const BITS_MAX: usize = RsaPublicKey::MAX_SIZE;

/// Least bits of a modulus that has as many bytes as one of [`BITS_MIN`].
const BITS_LEAST: usize = BITS_MIN - 7;

/// Longest address without its tag: 8,192 bits and an exponent of 33 give 1,457 bytes of XML, and
/// each takes 1.366 characters. Decoding base58 takes time that grows as the square.
pub const ADDRESS_CHARS_MAX: usize = 2_000;

/// Longest signature in base58, that of 8,192 bits.
const SIGNATURE_CHARS_MAX: usize = 1_400;

const PRIVATE_TAG: &str = "PBit4096B58Pkcs1SHA256";

/// Longest private key in base58: its XML has six more numbers, which are 3.5 moduli long.
const PRIVATE_CHARS_MAX: usize = 5 * ADDRESS_CHARS_MAX;

/// How many characters of an address show who it is: keys of one size all begin alike.
const SHORT_CHARS: usize = 12;

/// Is an RSA key in the text that the allow list holds. Another text of the same key is another
/// address; and case counts, for base58 tells letters apart by it.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaAddress {
    text: String,
    key: RsaPublicKey,
}

/// Is a key that signs as an RSA address.
#[derive(Clone)]
pub struct RsaKey {
    key: RsaPrivateKey,
    address: RsaAddress,
}

/// Why a text is no private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RsaKeyError {
    /// It is neither of the two forms.
    #[error(
        "an RSA private key is a PEM of PKCS#8 or PKCS#1, or text that begins with `{PRIVATE_TAG}`"
    )]
    Form,
    /// Its numbers do not belong together.
    #[error("the numbers of the RSA key do not belong together")]
    Numbers,
    /// Its public half is refused.
    #[error(transparent)]
    Public(#[from] AddressError),
}

impl RsaAddress {
    /// Reads an address with its tag.
    ///
    /// # Errors
    /// Fails if the text is none, or if no key of that size or exponent is safe.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let body = text.strip_prefix(TAG).ok_or(AddressError::Kind)?;
        let xml = base58(body, ADDRESS_CHARS_MAX).ok_or(AddressError::Base58)?;
        let (modulus, exponent) = public_numbers(&xml).ok_or(AddressError::Xml)?;
        let key = public_key(&modulus, &exponent)?;
        Ok(Self {
            text: text.to_owned(),
            key,
        })
    }

    /// Says whether this key signed the text.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        let padding = Pkcs1v15Sign::new::<Sha256>();
        base58(signature, SIGNATURE_CHARS_MAX).is_some_and(|bytes| {
            self.key
                .verify(padding, &Sha256::digest(text), &bytes)
                .is_ok()
        })
    }

    /// Returns the size of the modulus in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.key.n().bits_vartime() as usize
    }

    /// Returns SHA-256 of the modulus without leading zeros: it knows a key in any spelling.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let bytes = self.key.n_bytes();
        Sha256::digest(without_zeros(&bytes)).into()
    }

    /// Returns the tag and the end of the address, for logs and lists.
    pub(super) fn short(&self) -> String {
        let end = self.text.len().saturating_sub(SHORT_CHARS).max(TAG.len());
        format!("{TAG}…{}", &self.text[end..])
    }

    fn of(key: RsaPublicKey) -> Result<Self, AddressError> {
        let number = |bytes: &[u8]| STANDARD.encode(without_zeros(bytes));
        let xml = format!(
            "{OPEN}<Modulus>{}</Modulus><Exponent>{}</Exponent>{CLOSE}",
            number(&key.n_bytes()),
            number(&key.e_bytes()),
        );
        Self::parse(&format!("{TAG}{}", bs58::encode(xml).into_string()))
    }
}

impl fmt::Display for RsaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RsaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaAddress({})", self.short())
    }
}

impl RsaKey {
    /// Reads a private key: PEM, or what the Unity client exports.
    ///
    /// # Errors
    /// Fails if the text is neither, or no key that may be used.
    pub fn parse(text: &str) -> Result<Self, RsaKeyError> {
        let text = text.trim();
        let key = match text.strip_prefix(PRIVATE_TAG) {
            Some(body) => private_key(body)?,
            None => RsaPrivateKey::from_pkcs8_pem(text)
                .or_else(|_| RsaPrivateKey::from_pkcs1_pem(text))
                .map_err(|_| RsaKeyError::Form)?,
        };
        let address = RsaAddress::of(key.to_public_key())?;
        Ok(Self { key, address })
    }

    /// Returns the address that the key signs as.
    #[must_use]
    pub const fn address(&self) -> &RsaAddress {
        &self.address
    }

    /// Signs a text, or returns `None` if the computation came out wrong. It is blinded by numbers
    /// that only the holder of the key can foresee, so that its time tells nothing.
    #[must_use]
    pub fn sign(&self, text: &str) -> Option<String> {
        let secret = Zeroizing::new(self.key.d().to_be_bytes());
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            Sha256::new()
                .chain_update(b"pimesh iid blinding")
                .chain_update(&*secret)
                .chain_update(text)
                .finalize()
                .into(),
        );
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let padding = Pkcs1v15Sign::new::<Sha256>();
        let signature = self
            .key
            .sign_with_rng(&mut rng, padding, &Sha256::digest(text));
        Some(bs58::encode(signature.ok()?).into_string())
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey(of {})", self.address.short())
    }
}

const OPEN: &str = "<RSAKeyValue>";
const CLOSE: &str = "</RSAKeyValue>";

fn base58(text: &str, chars_max: usize) -> Option<Vec<u8>> {
    if text.len() > chars_max {
        return None;
    }
    bs58::decode(text).into_vec().ok()
}

/// Reads exactly what .NET writes: nothing between, before or after the two members.
fn public_numbers(xml: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = str::from_utf8(xml)
        .ok()?
        .strip_prefix(OPEN)?
        .strip_suffix(CLOSE)?;
    let (modulus, exponent) = body
        .strip_prefix("<Modulus>")?
        .strip_suffix("</Exponent>")?
        .split_once("</Modulus><Exponent>")?;
    Some((
        STANDARD.decode(modulus).ok()?,
        STANDARD.decode(exponent).ok()?,
    ))
}

fn public_key(modulus: &[u8], exponent: &[u8]) -> Result<RsaPublicKey, AddressError> {
    let modulus = without_zeros(modulus);
    let bits = bits_of(modulus);
    if !is_large_enough(bits, BITS_MIN) || bits > BITS_MAX {
        return Err(AddressError::Size { bits });
    }
    let modulus = number(modulus).ok_or(AddressError::Key)?;
    let exponent = number(without_zeros(exponent)).ok_or(AddressError::Key)?;
    // The crate refuses an exponent that is even, 1, or of more than 33 bits.
    RsaPublicKey::new_with_size_limits(modulus, exponent, BITS_LEAST..=BITS_MAX)
        .map_err(|_| AddressError::Key)
}

/// Says whether a modulus has as many bytes as the smallest that is taken: some programs make keys
/// that lack a bit of what was asked for.
#[must_use]
pub const fn is_large_enough(bits: usize, bits_min: usize) -> bool {
    bits.div_ceil(8) >= bits_min.div_ceil(8)
}

fn private_key(body: &str) -> Result<RsaPrivateKey, RsaKeyError> {
    let xml = Zeroizing::new(base58(body, PRIVATE_CHARS_MAX).ok_or(RsaKeyError::Form)?);
    let xml = str::from_utf8(&xml).map_err(|_| RsaKeyError::Form)?;
    let member = |name: &str| {
        let (_, from) = xml.split_once(&format!("<{name}>"))?;
        let (value, _) = from.split_once(&format!("</{name}>"))?;
        let bytes = Zeroizing::new(STANDARD.decode(value).ok()?);
        number(without_zeros(&bytes))
    };
    let [Some(n), Some(e), Some(d), Some(p), Some(q)] =
        ["Modulus", "Exponent", "D", "P", "Q"].map(member)
    else {
        return Err(RsaKeyError::Form);
    };
    RsaPrivateKey::from_components(n, e, d, vec![p, q]).map_err(|_| RsaKeyError::Numbers)
}

fn number(bytes: &[u8]) -> Option<BoxedUint> {
    let bits = u32::try_from(bytes.len() * 8).ok()?;
    BoxedUint::from_be_slice(bytes, bits).ok()
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    &bytes[zeros..]
}

/// Returns the length in bits of a number without leading zero bytes.
fn bits_of(bytes: &[u8]) -> usize {
    bytes
        .first()
        .map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(modulus: &[u8], exponent: &[u8]) -> Result<RsaAddress, AddressError> {
        let number = |bytes: &[u8]| STANDARD.encode(bytes);
        let (modulus, exponent) = (number(modulus), number(exponent));
        let xml =
            format!("{OPEN}<Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent>{CLOSE}");
        RsaAddress::parse(&format!("{TAG}{}", bs58::encode(xml).into_string()))
    }

    #[test]
    fn keys_out_of_bounds_are_refused() {
        let modulus = [0xff; 128];
        let even = [&[0xff; 127][..], &[0xfe]].concat();

        assert_eq!(address(&modulus, &[1, 0, 1]).map(|a| a.bits()), Ok(1024));
        assert_eq!(address(&[0xff; 1024], &[3]).map(|a| a.bits()), Ok(8192));
        let widest = [1, 0xff, 0xff, 0xff, 0xff];
        assert!(address(&[0xff; 1024], &widest).is_ok());
        assert_eq!(
            address(&[0xff; 127], &[3]),
            Err(AddressError::Size { bits: 1016 })
        );
        let zeros = [&[0; 9][..], &[0x7f], &[0xff; 127]].concat();
        assert_eq!(
            address(&zeros, &[3]).map(|a| a.bits()),
            Ok(1023),
            "as many bytes as 1024"
        );
        assert_eq!(
            address(&[&[1][..], &[0xff; 1024]].concat(), &[3]),
            Err(AddressError::Size { bits: 8193 })
        );
        assert_eq!(address(&even, &[3]), Err(AddressError::Key));
        for exponent in [
            &[][..],
            &[0],
            &[1],
            &[2],
            &[4],
            &[2, 0, 0, 0, 1],
            &[0xff; 9],
        ] {
            assert_eq!(
                address(&modulus, exponent),
                Err(AddressError::Key),
                "{exponent:?}"
            );
        }
    }

    #[test]
    fn what_is_no_key_in_xml_in_base58_is_refused() {
        let tagged =
            |xml: &str| RsaAddress::parse(&format!("{TAG}{}", bs58::encode(xml).into_string()));

        assert_eq!(RsaAddress::parse("0x00"), Err(AddressError::Kind));
        assert_eq!(RsaAddress::parse(TAG), Err(AddressError::Xml));
        assert_eq!(
            RsaAddress::parse(&format!("{TAG}0OIl")),
            Err(AddressError::Base58)
        );
        let long = format!("{TAG}{}", "z".repeat(ADDRESS_CHARS_MAX + 1));
        assert_eq!(RsaAddress::parse(&long), Err(AddressError::Base58));
        assert_eq!(
            tagged("<RSAKeyValue></RSAKeyValue>"),
            Err(AddressError::Xml)
        );
        let blank = "<RSAKeyValue> <Modulus>/w==</Modulus><Exponent>Aw==</Exponent></RSAKeyValue>";
        assert_eq!(tagged(blank), Err(AddressError::Xml));
    }
}
