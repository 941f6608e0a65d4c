//! `pimesh`: encrypted messages and integers between Raspberry Pis, with no server.
//!
//! One file for each command in `commands/`. All but `run`, `demo` and the ones that work on files
//! ask the running node through its control socket, and nothing else.

mod commands;
mod log;
mod output;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::{commands::Cli, output::Printed};

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(commands::mark(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.json();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => output::print_error(&error, json).into(),
    }
}

/// Answers a command line that is no command: help, the version, or what is wrong with it.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ if wants_json => output::print_usage(error).into(),
        _ => error.exit(),
    }
}

/// Says whether the reader of our answer went away, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        cause
            .downcast_ref::<Printed>()
            .is_some_and(Printed::is_closed_pipe)
    })
}
