//! Long lines on a terminal.
//!
//! A terminal breaks a line that is too long at its edge, and what comes behind stands where lines
//! begin. A stranger who pads a text with spaces could forge a line so. Broken here, the rest is
//! indented.

use unicode_width::UnicodeWidthChar;

/// Narrower than this, a terminal breaks the lines itself.
const WIDTH_MIN: usize = 20;

/// What becomes of a word that is longer than a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongWords {
    /// It is broken: it may be a stranger's.
    Break,
    /// It stays whole, so that a ticket or a path can be copied.
    Keep,
}

/// Breaks each line that is wider than the terminal; what comes behind the break is indented.
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
        let Some(fits) = fitting(rest, width - begun) else {
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
    let behind_words = text[..fits].rfind(' ').map(|space| space + 1);
    match behind_words.filter(|&cut| !text[..cut].trim().is_empty()) {
        Some(cut) => cut,
        None if long == LongWords::Break => fits,
        None => text[fits..].find(' ').map_or(text.len(), |end| fits + end),
    }
}

/// Returns how many bytes fit into so many columns, or `None` if all do.
fn fitting(text: &str, width: usize) -> Option<usize> {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            // One character at least, or this would never end.
            return Some(if at == 0 { c.len_utf8() } else { at });
        }
    }
    None
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
        for pad in [" ".repeat(18), "x".repeat(18), "\u{a0}".repeat(18)] {
            let text = folded(&format!("hi{pad}2026-11-27 pi-1: forged"));

            let mut lines = text.lines().skip(1).peekable();
            assert!(lines.peek().is_some(), "{text}");
            assert!(lines.all(|line| line.starts_with("    ")), "{text}");
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
    }
}
