//! The names of clients that have no key of their own.

use std::{fmt, sync::Arc};

/// The name of a client, given by its gateway: the name of the gateway, a colon, and what the gateway knows
/// it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(Arc<str>);

/// Longest name of a client, in bytes: an IPv6 address with a zone and a fingerprint fit.
const CLIENT_NAME_BYTES_MAX: usize = 128;

impl ClientName {
    /// Takes a text that is one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let (node, rest) = text.split_once(':')?;
        let is_gateway = !node.is_empty()
            && node
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_word = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic());
        let fits = text.len() <= CLIENT_NAME_BYTES_MAX;
        (is_gateway && is_word && fits).then(|| Self(text.into()))
    }

    /// Returns the name of the gateway.
    #[must_use]
    pub fn gateway(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
