//! Names of nodes and of messages.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name the owner gave a node: 1 to 63 bytes of ASCII letters, digits, `-`, `_` and `.`.
///
/// 63 bytes is the longest label of a host name (RFC 1035, section 2.3.4), and node names usually
/// are host names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Names that mean something else where a node's name may stand.
const RESERVED: [&str; 4] = ["all", "broadcast", "server", "system"];

impl NodeName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 63;

    /// Takes a name that somebody chooses now. Nodes that have such a name already keep it, so
    /// [`str::parse`] takes more.
    ///
    /// # Errors
    /// Returns why it is no name, or why commands could not take it.
    pub fn chosen(text: &str) -> Result<Self, NameError> {
        if text.starts_with('-') {
            return Err(NameError::Dash(text.to_owned()));
        }
        text.parse()
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes a legal name of any text, for example of a host name: what is not allowed becomes `-`.
    #[must_use]
    pub fn from_any(text: &str) -> Self {
        let kept: String = text
            .chars()
            .map(|c| if is_legal(c) { c } else { '-' })
            .take(Self::BYTES_MAX)
            .collect();
        let trimmed = kept.trim_matches('-');
        trimmed.parse().unwrap_or_else(|_| Self("node".to_owned()))
    }

    /// Returns this name with `-number` behind it, shortened to fit.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let keep = self.0.len().min(Self::BYTES_MAX - suffix.len());
        Self(format!("{}{suffix}", &self.0[..keep]))
    }
}

/// Why a text is no node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("a name has 1 to 63 characters, got {0}")]
    Length(usize),
    /// A character that is not allowed.
    #[error("a name has letters, digits, `-`, `_` and `.`, got {0:?}")]
    Character(char),
    /// It looks like an option.
    #[error("a name does not begin with `-`, got `{0}`: commands would take it for an option")]
    Dash(String),
    /// A word with another meaning.
    #[error("the name `{0}` is reserved")]
    Reserved(String),
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(NameError::Length(text.len()));
        }
        if let Some(c) = text.chars().find(|&c| !is_legal(c)) {
            return Err(NameError::Character(c));
        }
        if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(text)) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

const fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Names one message in the whole mesh: 16 random bytes, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(pub [u8; 16]);

/// Why a text is no message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 32 hexadecimal digits")]
pub struct MessageIdError;

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| MessageIdError)?;
        Ok(Self(id))
    }
}

impl TryFrom<String> for MessageId {
    type Error = MessageIdError;

    fn try_from(text: String) -> Result<Self, MessageIdError> {
        text.parse()
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        hex::encode(id.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_an_option_is_not_chosen_but_known_where_it_is() {
        let refused = NameError::Dash("--all".to_owned());
        assert_eq!(NodeName::chosen("--all"), Err(refused));
        assert_eq!(NodeName::chosen("pi-1"), "pi-1".parse());
        // Certificates of earlier versions may bear it.
        assert!("-x".parse::<NodeName>().is_ok());
    }

    #[test]
    fn a_name_is_what_a_host_name_may_be() {
        for good in ["pi-1", "kitchen", "a", "Pi_4.local", &"x".repeat(63)] {
            assert_eq!(
                good.parse::<NodeName>().map(String::from),
                Ok(good.to_owned())
            );
        }
        assert_eq!("".parse::<NodeName>(), Err(NameError::Length(0)));
        assert_eq!(
            "x".repeat(64).parse::<NodeName>(),
            Err(NameError::Length(64))
        );
        assert_eq!("a|b".parse::<NodeName>(), Err(NameError::Character('|')));
        assert_eq!("a/b".parse::<NodeName>(), Err(NameError::Character('/')));
        assert_eq!("küche".parse::<NodeName>(), Err(NameError::Character('ü')));
        assert_eq!(
            "All".parse::<NodeName>(),
            Err(NameError::Reserved("All".to_owned()))
        );
    }

    #[test]
    fn any_host_name_gives_a_legal_name() {
        assert_eq!(NodeName::from_any("Küche 1").as_str(), "K-che-1");
        assert_eq!(NodeName::from_any("").as_str(), "node");
        assert_eq!(NodeName::from_any("all").as_str(), "node");
        assert_eq!(NodeName::from_any(&"é".repeat(100)).as_str(), "node");
        assert_eq!(
            NodeName::from_any(&"x".repeat(63))
                .numbered(12)
                .as_str()
                .len(),
            63
        );
    }

    #[test]
    fn a_message_id_is_32_hexadecimal_digits() {
        let id = MessageId([0xab; 16]);

        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("ab".parse::<MessageId>(), Err(MessageIdError));
        assert_eq!("zz".repeat(16).parse::<MessageId>(), Err(MessageIdError));
    }
}
