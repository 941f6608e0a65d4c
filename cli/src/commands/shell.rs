//! `pimesh completions` and `pimesh man`

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::output;

/// Print completions for a shell
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "Example:\n  pimesh completions bash > \
                        ~/.local/share/bash-completion/completions/pimesh")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pimesh", &mut text);
        output::generated(&String::from_utf8_lossy(&text))
    }
}

/// Print the man page, or write one for each command into a folder
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.folder {
            Some(folder) => {
                std::fs::create_dir_all(&folder).context("make the folder")?;
                clap_mangen::generate_to(Cli::command(), folder).context("write the man pages")
            }
            None => {
                let mut text = Vec::new();
                clap_mangen::Man::new(Cli::command())
                    .render(&mut text)
                    .context("write the man page")?;
                output::generated(&String::from_utf8_lossy(&text))
            }
        }
    }
}
