//! Aligned columns with a header.
//!
//! A cell is broken between words only, so that a key, a port or a number in it can be copied. On a
//! terminal that is too narrow for all columns, the last one, which is the longest in most tables,
//! stands below the others; if that is not enough, each row becomes a block of lines.

use pimesh_node::text::visible;

use super::{
    INDENT, answer,
    fold::{LongWords, fold, text_columns},
    terminal,
};

/// Prints aligned columns with a header; returns how many lines that took.
///
/// Each cell stays in its column: a line break or a control character in it is shown as an escape.
/// Without a terminal one row is one line.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<usize> {
    let width = terminal().map(|(_, columns)| columns);
    // A word of a stranger may be longer than the terminal is wide; then it is broken as in every
    // other line.
    let shown = fold(&draw(header, rows, width), INDENT, width, LongWords::Break);
    answer(&shown)?;
    Ok(shown.lines().count())
}

/// Columns between two columns.
const GAP: usize = 2;

/// Columns that the last cell of a row has at least beside the others, unless it is shorter: in less
/// a text takes too many lines.
const LAST_MIN: usize = 24;

fn draw(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(cell).into_owned()).collect())
        .collect();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let all = || std::iter::once(&header).chain(&rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| widest(all().filter_map(|row| row.get(column)), text_columns))
        .collect();
    let Some(last) = header.len().checked_sub(1) else {
        return String::new();
    };
    let before_last: usize = widths[..last].iter().map(|width| width + GAP).sum();
    let lasts = || all().filter_map(|row| row.get(last));
    let last_min = widest(lasts(), longest_word).max(LAST_MIN.min(widths[last]));
    let fits = |columns| width.is_none_or(|width| columns <= width);
    let lines: Vec<String> = if fits(before_last + last_min) {
        let indent = " ".repeat(before_last);
        all()
            .map(|row| fold(&padded(row, &widths), &indent, width, LongWords::Keep))
            .collect()
    } else if fits(before_last.saturating_sub(GAP)) {
        all()
            .map(|row| {
                let (last, others) = row
                    .split_last()
                    .map_or(("", [].as_slice()), |(l, o)| (l, o));
                let below = fold(&format!("{INDENT}{last}"), INDENT, width, LongWords::Break);
                format!("{}\n{below}", padded(others, &widths))
            })
            .collect()
    } else {
        let blocks = rows.iter().map(|row| block(&header, row, width));
        return blocks.collect::<Vec<_>>().join("\n\n");
    };
    lines.join("\n")
}

/// Writes cells beside each other.
fn padded(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(
            ' ',
            width.saturating_sub(text_columns(cell)) + GAP,
        ));
    }
    line.trim_end().to_owned()
}

/// Writes a row as one line for each cell, with the name of its column in front.
fn block(header: &[String], row: &[String], width: Option<usize>) -> String {
    let names = widest(header.iter(), text_columns);
    let lines = header.iter().zip(row).map(|(name, cell)| {
        let line = padded(&[name.clone(), cell.clone()], &[names, 0]);
        fold(&line, INDENT, width, LongWords::Break)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn widest<'a>(cells: impl Iterator<Item = &'a String>, measure: impl Fn(&str) -> usize) -> usize {
    cells.map(|cell| measure(cell)).max().unwrap_or(0)
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace().map(text_columns).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        let row = |row: &&[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn columns_are_aligned_and_a_row_is_a_line() {
        let drawn = draw(
            &["NAME", "STATE"],
            &rows(&[&["kitchen", "up"], &["厨", "down"], &["a\nb", "\u{1b}[2J"]]),
            None,
        );

        let expected = "NAME     STATE\nkitchen  up\n厨       down\na\\nb     \\u{1b}[2J";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_narrow_terminal_breaks_cells_and_not_lines() {
        let long = "dial in 12 s: no route to host (os error 113) after a long while of trying";

        let drawn = draw(
            &["NAME", "STATE", "WHERE"],
            &rows(&[&["kitchen", "down", long]]),
            Some(48),
        );

        assert!(drawn.lines().all(|line| line.len() <= 48), "{drawn}");
        let second = drawn.lines().nth(2).expect("it is broken");
        assert!(second.starts_with(&" ".repeat(16)), "{drawn}");
        let words = drawn.split_whitespace().filter(|word| long.contains(word));
        assert_eq!(words.count(), long.split(' ').count(), "{drawn}");
    }

    /// What people copy, or read as one: names, keys, addresses with ports.
    fn whole(drawn: &str, words: &[&str]) {
        assert!(
            drawn.lines().all(|line| text_columns(line) <= 80),
            "{drawn}"
        );
        for word in words {
            assert!(drawn.contains(word), "{word} is broken in\n{drawn}");
        }
    }

    #[test]
    fn at_eighty_columns_nothing_that_is_copied_is_broken() {
        let key = "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592";
        let name = "n".repeat(63);
        let ip6 = "[2001:db8:1234:5678:9abc:def0:1234:5678]:46301";
        let peers = [
            "NAME", "INDEX", "KEY", "STATE", "SEEN", "RTT", "CLOCK", "OUTBOX", "WHERE",
        ];
        let place = format!("{ip6} quic");
        let row = |name, index, place| {
            let columns = [
                name, index, "mesh", "up", "now", "12.3 ms", "+10.2 ms", "128", place,
            ];
            columns.map(str::to_owned).to_vec()
        };
        for (name, index) in [("kitchen", "7"), (name.as_str(), "7, 100..109, 200..209")] {
            for place in [place.as_str(), "192.168.100.107:46301 quic"] {
                let drawn = draw(&peers, &[row(name, index, place)], Some(80));
                whole(&drawn, &[name, index, place]);
            }
        }
        let keys = [
            "ADDRESS",
            "CLIENT",
            "BITS",
            "STATE",
            "WAITING",
            "FINGERPRINT",
        ];
        let client = "p2sn:127.0.0.1/5d41402abc4b2a76";
        let drawn = draw(
            &keys,
            &rows(&[&["192.168.100.107", client, "2048", "pinned", "-", key]]),
            Some(80),
        );
        whole(&drawn, &["192.168.100.107", client, key]);
        assert_eq!(drawn.lines().count(), 4, "{drawn}");
    }

    #[test]
    fn a_row_of_long_cells_becomes_a_block() {
        let long = "x".repeat(30);

        let drawn = draw(
            &["NAME", "NODE", "KEY"],
            &rows(&[&[&long, &long, "k"], &["a", "b", "c"]]),
            Some(40),
        );

        let expected = format!("NAME  {long}\nNODE  {long}\nKEY   k\n\nNAME  a\nNODE  b\nKEY   c");
        assert_eq!(drawn, expected);
    }
}
