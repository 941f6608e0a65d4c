//! Errors: what could not be done, why, what to try, and the exit code.

use std::{fmt::Display, io};

use pimesh_node::{
    control::client::ClientError,
    net::NetError,
    node::StartError,
    state::io::{Failure, FailureKind},
    store::StoreError,
    text::{visible, visible_lines},
};
use serde::Serialize;

use super::{INDENT, LongWords, aside, fold, json, width};

/// How a command ended that was not done. `--help` and the README list these codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// It could not be done.
    Failed = 1,
    /// The command, or what it was given, is wrong.
    WrongCommand = 2,
    /// There is no running node to ask.
    NotRunning = 3,
    /// What was named does not exist.
    UnknownName = 4,
    /// It was not done in time.
    TimedOut = 5,
    /// The other side refused.
    Refused = 6,
}

impl Exit {
    /// Returns the exit code.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// An error with something to try, or with an exit code of its own.
#[derive(Debug)]
struct Hinted {
    text: String,
    hint: Option<String>,
    exit: Exit,
}

/// Makes an error with something to try.
pub(crate) fn hinted(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    with_exit(Exit::Failed, text, Some(hint.into()))
}

/// Makes an error about a command that is wrong.
pub(crate) fn wrong(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    with_exit(Exit::WrongCommand, text, Some(hint.into()))
}

/// Makes an error with an exit code.
pub(crate) fn with_exit(
    exit: Exit,
    text: impl Into<String>,
    hint: Option<String>,
) -> anyhow::Error {
    let text = text.into();
    anyhow::Error::new(Hinted { text, hint, exit })
}

impl Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Hinted {}

/// Why an answer could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output")]
pub(crate) struct Printed(#[from] io::Error);

impl Printed {
    /// Says whether the reader of a pipe went away, as `head` does.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// An error as `--json` prints it.
#[derive(Serialize)]
struct Body<'a> {
    kind: Exit,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Prints the chain of causes once, and what to try; returns the exit code. With `--json` that is
/// one object on stderr.
pub(crate) fn print_error(error: &anyhow::Error, json: bool) -> u8 {
    let exit = error.chain().find_map(exit_of).unwrap_or(Exit::Failed);
    let hint = error.chain().find_map(hint_of);
    let hint = hint.or_else(|| error.chain().find_map(hint_of_the_system));
    print(exit, &chain(error), hint.as_deref(), json);
    exit.code()
}

/// Writes the chain of causes, each once: some libraries print their cause in their own text, too.
fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// Returns what to try about a file or a socket of somebody else.
fn hint_of_the_system(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let error: &io::Error = cause.downcast_ref()?;
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        "this user may not do that: run the command as the node's user, or as root".to_owned()
    })
}

/// Prints an error of the command line itself, as clap words it.
pub(crate) fn print_usage(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    print(Exit::WrongCommand, message, Some(rest.trim()), true);
    Exit::WrongCommand.code()
}

fn print(exit: Exit, message: &str, hint: Option<&str>, json: bool) {
    if json {
        let message = message.to_owned();
        let kind = exit;
        let body = Body {
            kind,
            message,
            hint,
        };
        if let Ok(text) = json::encode(&body) {
            aside(&text);
        }
        return;
    }
    let width = width(&io::stderr());
    let message = format!("error: {}", visible_lines(message, INDENT));
    aside(&fold(&message, INDENT, width, LongWords::Break));
    if let Some(hint) = hint {
        let hint = format!("\nhint: {}", visible(hint));
        aside(&fold(&hint, INDENT, width, LongWords::Break));
    }
}

fn exit_of(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(hinted) = cause.downcast_ref::<Hinted>() {
        return Some(hinted.exit);
    }
    Some(match cause.downcast_ref::<ClientError>()? {
        ClientError::NoSocket(_) | ClientError::Dead(_) => Exit::NotRunning,
        ClientError::Silent { .. } | ClientError::Busy(_) => Exit::TimedOut,
        ClientError::Failure(Failure { kind, .. }) => match kind {
            FailureKind::BadRequest => Exit::WrongCommand,
            FailureKind::NotFound => Exit::UnknownName,
            FailureKind::TimedOut => Exit::TimedOut,
            FailureKind::Refused => Exit::Refused,
            FailureKind::Conflict
            | FailureKind::Unavailable
            | FailureKind::Fault
            | FailureKind::OverBudget
            | _ => Exit::Failed,
        },
        ClientError::Io { .. }
        | ClientError::Broken(_)
        | ClientError::NotUnderstood(_)
        | ClientError::TooLong(_) => Exit::Failed,
    })
}

fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(hinted) = cause.downcast_ref::<Hinted>() {
        return hinted.hint.clone();
    }
    let of_client = cause
        .downcast_ref::<ClientError>()
        .and_then(ClientError::hint);
    let of_start = || cause.downcast_ref().and_then(StartError::hint);
    let of_net = || cause.downcast_ref().and_then(NetError::hint);
    let of_store = || cause.downcast_ref().and_then(StoreError::hint);
    of_client
        .or_else(of_start)
        .or_else(of_store)
        .or_else(of_net)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let failure = |kind| {
            let failure = Failure {
                kind,
                ..Failure::conflict("it is so")
            };
            anyhow::Error::new(ClientError::Failure(failure)).context("while asking")
        };
        for (error, code) in [
            (anyhow::anyhow!("something"), 1),
            (wrong("this", "that"), 2),
            (ClientError::NoSocket("/x".into()).into(), 3),
            (ClientError::Dead("/x".into()).into(), 3),
            (failure(FailureKind::BadRequest), 2),
            (failure(FailureKind::NotFound), 4),
            (failure(FailureKind::TimedOut), 5),
            (failure(FailureKind::Refused), 6),
            (failure(FailureKind::Conflict), 1),
        ] {
            assert_eq!(print_error(&error, true), code, "{error:#}");
        }
    }

    #[test]
    fn a_hint_is_found_behind_a_context() {
        let error = Err::<(), _>(hinted("this", "try that")).context("while asking");

        let error = error.expect_err("it is one");

        assert_eq!(error.chain().find_map(hint_of).as_deref(), Some("try that"));
        assert_eq!(chain(&error), "while asking: this");
    }

    #[test]
    fn a_file_of_somebody_else_is_explained() {
        let of = |kind| anyhow::Error::new(io::Error::from(kind)).context("write this");
        let hint = |error: &anyhow::Error| {
            error
                .chain()
                .find_map(hint_of_the_system)
                .unwrap_or_default()
        };

        assert!(hint(&of(io::ErrorKind::PermissionDenied)).contains("as root"));
        assert_eq!(hint(&of(io::ErrorKind::StorageFull)), "");
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = io::Error::from(io::ErrorKind::AddrInUse);
        let outer = io::Error::other(cause);
        let error = anyhow::Error::new(outer).context("could not listen");

        assert_eq!(chain(&error), "could not listen: address in use");
    }
}
