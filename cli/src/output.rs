//! What the commands print: answers to stdout, everything else to stderr.
//!
//! But for the log (`log`), nothing else in this program writes to stdout or stderr. What is printed
//! may come from a stranger (texts, names, reasons), and a terminal obeys control characters. So
//! [`line()`], [`note()`], [`message()`], [`table()`] and the errors show such characters as escapes and break
//! lines before the terminal does, so that no text can begin a line of its own. JSON has escapes of its own. Only [`generated`] prints a text as
//! it is.

mod error;
mod fold;
mod json;
mod table;
mod units;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

pub(crate) use pimesh_node::text::count;
use pimesh_node::text::{visible, visible_lines};
use serde::Serialize;

use self::fold::{LongWords, fold};
pub(crate) use self::{
    error::{Exit, Printed, hinted, print_error, print_usage, with_exit, wrong},
    json::encode as json_text,
    table::table,
    units::{age, bytes, clock_offset, date, indices, local_time, millis, span},
};

/// What stands in front of the lines of a text but the first. No line of the program's own begins so.
const INDENT: &str = "    ";

/// Prints a line of the answer. A line break in it is shown as `\n`.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    fold_line(text, LongWords::Break)
}

/// As [`line()`], but keeps long words whole, so that a path or an address can be copied. Only for a
/// line without a word from outside.
pub(crate) fn own_line(text: impl Display) -> anyhow::Result<()> {
    fold_line(text, LongWords::Keep)
}

fn fold_line(text: impl Display, long: LongWords) -> anyhow::Result<()> {
    let text = visible(&text.to_string()).into_owned();
    answer(&fold(&text, INDENT, width(&io::stdout()), long))
}

/// Prints a message: its first line behind the head, the others indented.
pub(crate) fn message(head: &str, text: &str) -> anyhow::Result<()> {
    let text = format!("{}{}", visible(head), visible_lines(text, INDENT));
    answer(&fold(&text, INDENT, width(&io::stdout()), LongWords::Break))
}

/// Prints what this program made itself, such as an example file, as it is.
pub(crate) fn generated(text: &str) -> anyhow::Result<()> {
    answer(text.trim_end())
}

/// Prints one JSON object. It is exact: what a terminal would obey is escaped as JSON does it.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    answer(&json::encode(value)?)
}

/// Prints a line for people, beside the answer. A line break in it is shown as `\n`.
pub(crate) fn note(text: impl Display) {
    let text = visible(&text.to_string()).into_owned();
    aside(&fold(&text, INDENT, width(&io::stderr()), LongWords::Break));
}

/// Prints a picture made of several lines, beside the answer.
pub(crate) fn picture(text: &str) {
    aside(text);
}

/// Asks a question beside the answer; the cursor stays behind it.
pub(crate) fn ask(question: &str) {
    let mut err = io::stderr().lock();
    let question = visible(question).into_owned();
    let question = fold(&question, INDENT, width(&io::stderr()), LongWords::Break);
    drop(write!(err, "{question}").and_then(|()| err.flush()));
}

/// Shows how far a command is, on a terminal only; each call takes the place of the last one.
pub(crate) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        ask_over(text);
    }
}

/// Takes the progress away.
pub(crate) fn progress_ends() {
    if io::stderr().is_terminal() {
        ask_over("");
    }
}

/// Takes the place of what was printed before on a terminal: so many lines up, and all below gone.
pub(crate) fn rewind(lines: usize) -> anyhow::Result<()> {
    if lines > 0 && is_terminal() {
        let mut out = io::stdout().lock();
        write!(out, "\x1b[{lines}A\x1b[J").map_err(Printed::from)?;
    }
    Ok(())
}

/// Says whether a person reads stdout.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns the rows and columns of the terminal behind stdout, if there is one.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    size(&io::stdout())
}

fn ask_over(text: &str) {
    let mut err = io::stderr().lock();
    drop(write!(err, "\r\x1b[K{}", visible(text)).and_then(|()| err.flush()));
}

fn answer(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(written.map_err(Printed::from)?)
}

/// What is said beside the answer is lost if nobody takes it: the command goes on.
fn aside(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

fn width(of: &(impl IsTerminal + std::os::fd::AsFd)) -> Option<usize> {
    size(of).map(|(_, columns)| columns)
}

fn size(of: &(impl IsTerminal + std::os::fd::AsFd)) -> Option<(usize, usize)> {
    let (columns, rows) = of
        .is_terminal()
        .then(|| terminal_size::terminal_size_of(of))
        .flatten()?;
    Some((usize::from(rows.0), usize::from(columns.0)))
}
