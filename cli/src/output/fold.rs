//! Long lines on a terminal.
//!
//! A terminal breaks a line that is too long at its edge, and what comes behind stands where lines
//! begin. A stranger who pads a text with spaces could forge a line so. Broken here, the rest is
//! indented.

use unicode_width::UnicodeWidthChar;

/// Narrower than this, a terminal has no room for indented lines, and breaks lines itself.
const WIDTH_MIN: usize = 8;

/// Asks for the picture of the character before it, which is two columns wide: VARIATION SELECTOR-16.
const AS_PICTURE: char = '\u{fe0f}';

/// What becomes of a word that is longer than a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongWords {
    /// It is broken: it may be a stranger's, and what the terminal breaks itself begins a line.
    Break,
    /// It stays whole, so that a ticket or a path of our own can be copied.
    Keep,
}

/// Breaks each line that is wider than the terminal; what comes behind the break is indented.
/// The indent leaves a column at least.
pub(super) fn fold(text: &str, indent: &str, width: Option<usize>, long: LongWords) -> String {
    let Some(width) = width.filter(|&width| width >= WIDTH_MIN) else {
        return text.to_owned();
    };
    let lines = text.split('\n');
    let lines: Vec<String> = lines
        .map(|line| fold_line(line, indent, width, long))
        .collect();
    lines.join("\n")
}

fn fold_line(line: &str, indent: &str, width: usize, long: LongWords) -> String {
    let mut folded = String::new();
    let mut rest = line;
    loop {
        let begun = if folded.is_empty() { 0 } else { indent.len() };
        let Some(fits) = fitting(rest, width.saturating_sub(begun)) else {
            folded.push_str(rest);
            return folded;
        };
        let cut = cut(rest, fits, long);
        folded.push_str(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
        if rest.is_empty() {
            return folded;
        }
        folded.push('\n');
        folded.push_str(indent);
    }
}

/// Returns where to break: behind the last word that fits.
fn cut(text: &str, fits: usize, long: LongWords) -> usize {
    let mut spaces = text[..fits].char_indices().rev();
    let last_space = spaces.find(|(_, c)| c.is_whitespace());
    let behind_words = last_space.map(|(at, c)| at + c.len_utf8());
    match behind_words.filter(|&cut| !text[..cut].trim().is_empty()) {
        Some(cut) => cut,
        None if long == LongWords::Break => fits,
        None => text[fits..]
            .find(char::is_whitespace)
            .map_or(text.len(), |end| fits + end),
    }
}

/// Returns how many bytes fit into so many columns, or `None` if all do.
fn fitting(text: &str, width: usize) -> Option<usize> {
    let mut used = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        used += columns(c, chars.peek().map(|&(_, next)| next));
        if used > width {
            // One character at least, or this would never end.
            return Some(if at == 0 { c.len_utf8() } else { at });
        }
    }
    None
}

/// Returns how many columns a text takes at most.
pub(super) fn text_columns(text: &str) -> usize {
    let mut used = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        used += columns(c, chars.peek().copied());
    }
    used
}

/// Returns how many columns a character takes at most. What a terminal may draw as one picture is
/// counted as its parts: a line that is too short forges nothing.
fn columns(c: char, next: Option<char>) -> usize {
    let own = c.width().unwrap_or(0);
    if next == Some(AS_PICTURE) {
        own.max(2)
    } else {
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        fold(text, "    ", Some(20), LongWords::Break)
    }

    #[test]
    fn a_long_line_is_broken_between_words_and_indented() {
        let text = "one two three four five six";
        assert_eq!(folded(text), "one two three four\n    five six");
        assert_eq!(folded("short"), "short");
        let wide = folded(&"厨".repeat(15));
        assert_eq!(wide, format!("{}\n    {}", "厨".repeat(10), "厨".repeat(5)));
        let long = "x".repeat(100);
        assert_eq!(fold(&long, "    ", None, LongWords::Break), long);
    }

    #[test]
    fn padding_forges_no_line() {
        let pads = [
            " ",
            "x",
            "\u{a0}",
            "\u{2007}",
            "\u{3000}",
            "❤\u{fe0f}",
            "👩\u{200d}👧",
        ];
        for pad in pads.map(|pad| pad.repeat(18)) {
            let text = folded(&format!("hi{pad}2026-11-27 pi-1: forged"));

            let mut lines = text.lines().skip(1).peekable();
            assert!(lines.peek().is_some(), "{text}");
            assert!(lines.all(|line| line.starts_with("    ")), "{text}");
            // What a terminal counts that draws two columns for each heart, woman and girl.
            let is_wide = |c: char| matches!(c, '❤' | '👩' | '👧' | '\u{3000}');
            let is_none = |c: char| matches!(c, '\u{fe0f}' | '\u{200d}');
            let width = |c| {
                if is_wide(c) {
                    2
                } else {
                    usize::from(!is_none(c))
                }
            };
            for line in text.lines() {
                assert!(line.chars().map(width).sum::<usize>() <= 20, "{line}");
            }
        }
    }

    #[test]
    fn a_ticket_stays_whole() {
        let ticket = format!("pimesh1:{}", "x".repeat(100));
        let text = format!("on the other machine: {ticket} there");

        let folded = fold(&text, "    ", Some(30), LongWords::Keep);

        let lines: Vec<&str> = folded.lines().collect();
        let indented = format!("    {ticket}");
        assert_eq!(lines, ["on the other machine:", &indented, "    there"]);
        let behind = fold(
            &format!("{ticket}\u{a0}there"),
            "    ",
            Some(30),
            LongWords::Keep,
        );
        assert_eq!(behind, format!("{ticket}\n    there"));
    }
}
