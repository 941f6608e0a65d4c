//! How the text of a message stands for its bytes.

use serde::{Deserialize, Serialize};

/// How the text of a message stands for its bytes. Only P2SN carries bytes that are no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// It is the text, in UTF-8.
    #[default]
    Utf8,
    /// It is hexadecimal digits, two for each byte.
    Hex,
}

impl Encoding {
    /// Returns bytes as text: as it stands if they are UTF-8, and else in hexadecimal digits.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> (Self, String) {
        match String::from_utf8(bytes) {
            Ok(text) => (Self::Utf8, text),
            Err(error) => (Self::Hex, hex::encode(error.as_bytes())),
        }
    }

    /// Returns the bytes of a text; `None` if it is not encoded like this.
    #[must_use]
    pub fn bytes(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Hex => hex::decode(text).ok(),
        }
    }

    /// Says whether the text is the message.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        *self == Self::Utf8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b""[..], b"door open", b"\xff\x00\x80", "\u{e4}".as_bytes()] {
            let (encoding, text) = Encoding::of(bytes.to_vec());
            assert_eq!(encoding.bytes(&text).as_deref(), Some(bytes));
        }
        assert_eq!(Encoding::of(vec![0xff, 0]).1, "ff00");
        assert_eq!(Encoding::Hex.bytes("0"), None);
        assert_eq!(Encoding::Hex.bytes("door"), None);
    }
}
