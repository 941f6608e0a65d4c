//! Text from outside, made safe for a terminal and a log.
//!
//! A terminal obeys control characters, and it shows text in another order for characters that
//! change its direction. So a stranger could clear a screen, set its title or forge a line. What a
//! reader could not see is shown as `\u{…}`.

use std::borrow::Cow;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Joins two characters to one picture or keeps them apart: ZERO WIDTH (NON-)JOINER. Emoji and
/// several scripts need them.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];

/// Replaces each character that a reader cannot see, or that moves other text, by its escape.
///
/// Joiners stay between characters that are not ASCII.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !is_hidden(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let after = rest.peek().copied();
        let joins = JOINERS.contains(&c) && is_letterlike(before) && is_letterlike(after);
        if is_hidden(c) && !joins {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        before = Some(c);
    }
    Cow::Owned(shown)
}

/// Writes a number of things: `1 member`, `2 members`. The name of one thing gets an `s`.
#[must_use]
pub fn count(number: impl TryInto<u64>, one: &str) -> String {
    // What fits into no `u64` is many.
    let number = number.try_into().unwrap_or(u64::MAX);
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {one}{ending}")
}

/// As [`visible`], but keeps line breaks, with `indent` behind each, so that no line of the text
/// can be taken for a line of the program's own.
#[must_use]
pub fn visible_lines(text: &str, indent: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(visible).collect();
    lines.join(&format!("\n{indent}"))
}

/// As [`visible`], cut to a number of characters, with `…` in place of the rest.
#[must_use]
pub fn visible_start(text: &str, chars_max: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(chars_max) else {
        return visible(text).into_owned();
    };
    format!("{}…", visible(&text[..end]))
}

/// Returns true for a character that has no picture of its own: control, format, line separator,
/// or not assigned to anything.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(
        c.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
    )
}

fn is_letterlike(c: Option<char>) -> bool {
    c.is_some_and(|c| !c.is_ascii() && !is_hidden(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!(count(0_u64, "member"), "0 members");
        assert_eq!(count(1_usize, "member"), "1 member");
        assert_eq!(count(2_u32, "key file"), "2 key files");
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_as_an_escape() {
        for (text, shown) in [
            ("door open", "door open"),
            ("\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("\u{2066}a\u{2069}", "\\u{2066}a\\u{2069}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{feff}a\u{200b}", "\\u{feff}a\\u{200b}"),
            ("\u{e0041}", "\\u{e0041}"),
            ("Küche 厨房 مطبخ", "Küche 厨房 مطبخ"),
        ] {
            assert_eq!(visible(text), shown, "{text:?}");
        }
    }

    #[test]
    fn joiners_stay_where_writing_needs_them() {
        let family = "👩\u{200d}👧";
        let persian = "می\u{200c}خواهم";
        assert_eq!(visible(family), family);
        assert_eq!(visible(persian), persian);
        assert_eq!(visible("al\u{200d}ice"), "al\\u{200d}ice");
        assert_eq!(visible("é\u{200c}"), "é\\u{200c}");
    }

    #[test]
    fn no_line_of_a_text_begins_where_lines_of_the_program_begin() {
        let forged = "hello\r\n2026-11-27 10:00:00  pi-1: forged\rline";
        assert_eq!(
            visible_lines(forged, "    "),
            "hello\n    2026-11-27 10:00:00  pi-1: forged\\rline"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(visible_start("äöü", 3), "äöü");
        assert_eq!(visible_start("äöü\n", 3), "äöü…");
        assert_eq!(visible_start("\n\n\n", 2), "\\n\\n…");
    }
}
