//! Who signs in: an Ethereum address or an RSA key (`proto-specs/iid.md`, section 5.4).
//!
//! An address is read once, here, into a type that cannot be wrong. Whether anybody lets it in is
//! not decided here (`lists.rs`, `sign_in.rs`).

pub mod ethereum;
pub mod rsa;

use std::fmt;

pub use self::{
    ethereum::{EthereumAddress, EthereumKey},
    rsa::{RsaAddress, RsaKey},
};

/// Is one of the two kinds of address.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// The last 20 bytes of the hash of a secp256k1 key.
    Ethereum(EthereumAddress),
    /// An RSA key, which is its own address.
    Rsa(RsaAddress),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It begins like neither kind.
    #[error("an address begins with `0x` or `{}`", rsa::TAG)]
    Kind,
    /// It is no Ethereum address.
    #[error("an Ethereum address is `0x` and 40 hexadecimal digits")]
    Ethereum,
    /// What follows the tag is not base58, or longer than that of the largest key.
    #[error(
        "an RSA address is at most {} characters of base58",
        rsa::ADDRESS_CHARS_MAX
    )]
    Base58,
    /// What base58 holds is no .NET XML key.
    #[error("an RSA address holds <RSAKeyValue> with <Modulus> and <Exponent> in base64")]
    Xml,
    /// Its modulus is too small to be safe or too large to reckon with.
    #[error(
        "an RSA key has {} to {} bits, got {bits}",
        rsa::BITS_MIN,
        rsa::BITS_MAX
    )]
    Size {
        /// What came.
        bits: usize,
    },
    /// Modulus or exponent cannot be those of an RSA key.
    #[error("the modulus of an RSA key is odd, its exponent odd, at least 3 and below 2^33")]
    Key,
}

impl Address {
    /// Reads an address of either kind.
    ///
    /// # Errors
    /// Fails if the text is none.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with("0x") {
            text.parse().map(Self::Ethereum)
        } else if text.starts_with(rsa::TAG) {
            RsaAddress::parse(text).map(Self::Rsa)
        } else {
            Err(AddressError::Kind)
        }
    }

    /// Says whether the signature is by the key of this address over the text.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        match self {
            Self::Ethereum(address) => address.has_signed(text, signature),
            Self::Rsa(address) => address.has_signed(text, signature),
        }
    }

    /// Returns a text of at most 42 characters to tell it by, for logs and lists.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Ethereum(address) => address.to_string(),
            Self::Rsa(address) => address.short(),
        }
    }
}

/// Writes the address in its one spelling: EIP-55, or the text of the RSA key.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethereum(address) => address.fmt(f),
            Self::Rsa(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.short())
    }
}
