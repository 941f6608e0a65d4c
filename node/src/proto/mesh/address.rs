//! A place to dial, as text. Nobody in the pure half looks inside.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place to dial, as text. Only `net` looks inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Longest address that is kept or told to others, in bytes. A multiaddr with an IPv6 address,
    /// QUIC and a peer id has about 120.
    pub const BYTES_MAX: usize = 256;

    /// Takes the text of an address, or `None` if it is empty or longer than [`Self::BYTES_MAX`].
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let legal = !text.is_empty()
            && text.len() <= Self::BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic());
        legal.then_some(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
