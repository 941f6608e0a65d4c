//! Ethereum addresses and what wallets sign (`proto-specs/iid.md`, section 5.4): EIP-191, EIP-55.
//!
//! Only texts are signed in here, never transactions. The curve and the hash come from crates.

use std::{fmt, str::FromStr};

use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use super::AddressError;

/// The length of an address: so much of the hash of the public key is kept.
pub const ADDRESS_BYTES: usize = 20;

/// The length of a private key.
pub const KEY_BYTES: usize = 32;

/// r and s; a signature has one byte more, v.
const RS_BYTES: usize = 64;

/// Is what an Ethereum key is known by. Its text is in EIP-55 spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EthereumAddress([u8; ADDRESS_BYTES]);

/// Is a key that signs as an Ethereum address.
#[derive(Clone)]
pub struct EthereumKey {
    key: SigningKey,
    address: EthereumAddress,
}

/// Why bytes or a text are no private key. What they were is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EthereumKeyError {
    /// The text is of another form.
    #[error("an Ethereum private key is 64 hexadecimal digits, with or without `0x`")]
    Form,
    /// The number is none of the group.
    #[error("an Ethereum private key is not 0 and below the order of secp256k1")]
    Range,
}

impl EthereumAddress {
    /// Says whether the wallet of this address signed the text.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        recover(text, signature).as_ref() == Some(self)
    }

    fn of(key: &VerifyingKey) -> Self {
        let point = key.to_sec1_point(false);
        // The first byte says that both coordinates follow; it is not hashed.
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        Self(std::array::from_fn(|i| {
            hash[hash.len() - ADDRESS_BYTES + i]
        }))
    }
}

/// Reads 40 digits after `0x`. Their case may be wrong: nobody checks the sum that it holds.
impl FromStr for EthereumAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").ok_or(AddressError::Ethereum)?;
        let mut bytes = [0; ADDRESS_BYTES];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError::Ethereum)?;
        Ok(Self(bytes))
    }
}

/// Writes the EIP-55 spelling: a letter is large where the hash of the digits has 8 or more.
impl fmt::Display for EthereumAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let hash = hex::encode(Keccak256::digest(&digits));
        f.write_str("0x")?;
        for (digit, sum) in digits.chars().zip(hash.chars()) {
            let is_large = sum >= '8';
            write!(
                f,
                "{}",
                if is_large {
                    digit.to_ascii_uppercase()
                } else {
                    digit
                }
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for EthereumAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EthereumAddress({self})")
    }
}

impl EthereumKey {
    /// Takes a key as the 32 bytes it is.
    ///
    /// # Errors
    /// Fails if the number is out of range, which random bytes never are in practice.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, EthereumKeyError> {
        let key = SigningKey::from_slice(bytes).map_err(|_| EthereumKeyError::Range)?;
        let address = EthereumAddress::of(key.verifying_key());
        Ok(Self { key, address })
    }

    /// Reads the hexadecimal digits that wallets export, with or without `0x`.
    ///
    /// # Errors
    /// Fails if the text is of another form or the number out of range.
    pub fn from_hex(text: &str) -> Result<Self, EthereumKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let digits = without_0x(text.trim());
        hex::decode_to_slice(digits, &mut *bytes).map_err(|_| EthereumKeyError::Form)?;
        Self::from_bytes(&bytes)
    }

    /// Returns the 32 bytes, to be kept on disk.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(self.key.to_bytes().into())
    }

    /// Returns the address that the key signs as.
    #[must_use]
    pub const fn address(&self) -> EthereumAddress {
        self.address
    }

    /// Signs a text as wallets do: `0x` and 130 digits, v 27 or 28, s in the lower half.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let (signature, recovery) = self.key.sign_prehash_recoverable(&digest(text));
        let v = 27 + u8::from(recovery.is_y_odd());
        format!("0x{}{v:02x}", hex::encode(signature.to_bytes()))
    }
}

impl fmt::Debug for EthereumKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EthereumKey(of {})", self.address)
    }
}

/// Returns whose signature of the text it is, if it is one.
fn recover(text: &str, signature: &str) -> Option<EthereumAddress> {
    let mut bytes = [0; RS_BYTES + 1];
    hex::decode_to_slice(without_0x(signature), &mut bytes).ok()?;
    let (rs, v) = (&bytes[..RS_BYTES], bytes[RS_BYTES]);
    let signature = Signature::from_slice(rs).ok()?;
    let recovery = RecoveryId::new(is_y_odd(v)?, false);
    let key = VerifyingKey::recover_from_prehash(&digest(text), &signature, recovery).ok()?;
    Some(EthereumAddress::of(&key))
}

/// Reads v as wallets (27, 28), hardware (0, 1) and signers with a chain (35 and above) write it.
const fn is_y_odd(v: u8) -> Option<bool> {
    match v {
        0 | 1 => Some(v == 1),
        27 | 28 => Some(v == 28),
        35.. => Some((v - 35) % 2 == 1),
        2..=26 | 29..=34 => None,
    }
}

/// Hashes a text as EIP-191 `personal_sign` has it.
fn digest(text: &str) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    hasher.update(format!("\x19Ethereum Signed Message:\n{}", text.len()));
    hasher.update(text);
    hasher.finalize().into()
}

/// Python clients with current libraries send no `0x` (`hexbytes` from 1.0 dropped it).
fn without_0x(text: &str) -> &str {
    text.strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "1cd24e9042488a92b80058b6c7df505e132828179fe83d1fac994dfb9e6b1e41";

    #[test]
    fn a_key_is_the_bytes_it_was_read_from_and_never_printed() {
        let key = EthereumKey::from_hex(&format!(" 0x{DIGITS}\n")).expect("a key");

        assert_eq!(hex::encode(*key.to_bytes()), DIGITS);
        assert_eq!(
            format!("{key:?}"),
            "EthereumKey(of 0xaeC963aC8DF14a807ab97715c564b7bD3973503A)"
        );
    }

    #[test]
    fn numbers_out_of_range_and_other_texts_are_no_keys() {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

        let refused = |text: &str| EthereumKey::from_hex(text).expect_err("no key");

        assert_eq!(refused(&"0".repeat(64)), EthereumKeyError::Range);
        assert_eq!(refused(order), EthereumKeyError::Range);
        assert_eq!(refused(&DIGITS[1..]), EthereumKeyError::Form);
        assert_eq!(refused(""), EthereumKeyError::Form);
        assert_eq!(refused("clear text"), EthereumKeyError::Form);
    }
}
