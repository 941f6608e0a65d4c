//! What the commands print: answers to stdout, everything else to stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use pimesh_node::control::client::ClientError;
use serde::Serialize;

/// An error with something to try.
#[derive(Debug)]
struct Hinted {
    text: String,
    hint: String,
}

/// Makes an error with something to try.
pub(crate) fn hinted(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        text: text.into(),
        hint: hint.into(),
    })
}

impl Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Hinted {}

/// Prints the chain of causes once, and what to try.
#[expect(clippy::print_stderr, reason = "this is where errors are printed")]
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    let hint = error.chain().find_map(|cause| {
        let of_client = cause
            .downcast_ref::<ClientError>()
            .and_then(ClientError::hint);
        of_client.or_else(|| cause.downcast_ref::<Hinted>().map(|h| h.hint.clone()))
    });
    if let Some(hint) = hint {
        eprintln!("\nhint: {hint}");
    }
}

/// Says whether somebody closed the pipe that we print to, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints a line of the answer.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Prints one JSON object.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Prints a line for people, beside the answer.
#[expect(clippy::print_stderr, reason = "this is where notes are printed")]
pub(crate) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Says whether a person reads stdout.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints aligned columns with a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Writes a Unix millisecond as local time.
pub(crate) fn local_time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(
        || unix_ms.to_string(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}

/// Writes a duration in its largest unit or two.
pub(crate) fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Writes microseconds as milliseconds.
pub(crate) fn millis(us: i64) -> String {
    format!("{}.{:01} ms", us / 1000, (us % 1000).abs() / 100)
}
