//! JSON that is safe on a terminal.

use std::io;

use pimesh_node::text::is_hidden;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Writes JSON in one line. Characters that a terminal would obey, or that change the direction of
/// text, are escaped; so the value is the same.
pub(crate) fn encode(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Escaping))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut begun = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_hidden(*c)) {
            writer.write_all(&fragment.as_bytes()[begun..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            begun = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[begun..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_exact_and_has_nothing_that_a_terminal_obeys() {
        let text = "a\u{1b}[2J\u{9b}1m\u{202e}\u{e0041}\u{7f}\n\"é 厨";

        let encoded = encode(&serde_json::json!({ "text": text })).expect("encodes");

        assert!(!encoded.chars().any(is_hidden), "{encoded}");
        let decoded: serde_json::Value = serde_json::from_str(&encoded).expect("is JSON");
        assert_eq!(decoded["text"], text);
        assert!(encoded.contains("é 厨"), "{encoded}");
    }
}
