//! Texts on the command line that begin with a minus.
//!
//! The parser takes every word that begins with a minus for an option, and `-5 degrees` is none. Such
//! a word of `send` is marked before it is parsed, by a character that no argument can have.

use std::{convert::Infallible, ffi::OsString};

/// Stands in front of a word that is a text. The system ends arguments at this character.
const MARK: char = '\0';

/// Marks the words of a `send` that cannot be options.
pub(crate) fn mark(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut is_send, mut is_over) = (false, false);
    let args = args.into_iter().map(|arg| {
        let text = arg.to_str().filter(|text| is_send && is_text(text));
        let marked = text
            .filter(|_| !is_over)
            .map(|text| format!("{MARK}{text}"));
        is_send |= arg == "send";
        is_over |= arg == "--";
        marked.map_or(arg, OsString::from)
    });
    args.collect()
}

/// Takes the mark off.
pub(super) fn text(word: &str) -> Result<String, Infallible> {
    Ok(word.strip_prefix(MARK).unwrap_or(word).to_owned())
}

/// Says whether a word begins with a minus, and is no option: neither `--word` nor `-w`.
fn is_text(word: &str) -> bool {
    let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
        return false;
    };
    let is_option = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_one_word = !name.contains(char::is_whitespace);
    !name.is_empty() && !(is_option && (is_one_word || name.contains('=')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_marked_and_an_option_is_not() {
        for word in ["-5 degrees", "-5", "--- cut here", "- tea", "-x is open"] {
            assert!(is_text(word), "{word}");
        }
        for word in [
            "-",
            "--",
            "--all",
            "-v",
            "--timeout=1 s",
            "hello",
            "",
            "--wiat",
        ] {
            assert!(!is_text(word), "{word}");
        }
        let args = ["pimesh", "-5", "send", "a", "-5", "--", "-5"];
        let marked = mark(args.map(OsString::from));
        assert_eq!(marked, ["pimesh", "-5", "send", "a", "\0-5", "--", "-5"]);
        assert_eq!(text("\0-5"), Ok("-5".to_owned()));
        assert_eq!(text("hello"), Ok("hello".to_owned()));
    }
}
