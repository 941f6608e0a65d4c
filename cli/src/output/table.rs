//! Aligned columns with a header.

use comfy_table::{ContentArrangement, Table, presets};
use pimesh_node::text::visible;

use super::{
    INDENT, answer,
    fold::{LongWords, fold},
    terminal,
};

/// Prints aligned columns with a header; returns how many lines that took.
///
/// Each cell stays in its column: a line break or a control character in it is shown as an escape.
/// On a terminal that is too narrow, long cells are broken inside their columns; elsewhere one row is
/// one line.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<usize> {
    let width = terminal().map(|(_, columns)| columns);
    // What is wider than the table counts, such as joined emoji, is broken as every other line.
    let shown = fold(&draw(header, rows, width), INDENT, width, LongWords::Break);
    answer(&shown)?;
    Ok(shown.lines().count())
}

fn draw(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    match width {
        Some(width) => {
            let width = u16::try_from(width).unwrap_or(u16::MAX);
            // The gap behind the last column is cut off again.
            table.set_width(width.saturating_add(GAP));
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.trim_fmt()
}

/// Columns between two columns.
const GAP: u16 = 2;

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
            Some(40),
        );

        assert!(drawn.lines().all(|line| line.len() <= 40), "{drawn}");
        let words = drawn.split_whitespace().filter(|word| long.contains(word));
        assert_eq!(words.count(), long.split(' ').count(), "{drawn}");
    }
}
