//! `pimesh`: encrypted messages and integers between Raspberry Pis, with no server.
//!
//! One file for each command in `commands/`. All but `run`, `demo` and the ones that work on files
//! ask the running node through its control socket, and nothing else.

mod commands;
mod log;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::{commands::Cli, output::is_closed_pipe};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
