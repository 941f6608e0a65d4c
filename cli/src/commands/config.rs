//! `pimesh config`

use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};
use pimesh_node::config::{Config as NodeConfig, FILE_NAME, example, in_force, read_file};

use super::Global;
use crate::output;

/// Show or check the configuration
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh config example > ~/.local/share/pimesh/pimesh.toml\n  \
                        pimesh config check"
)]
pub(super) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every setting in force, as it would stand in `pimesh.toml`
    Show,
    /// Check `pimesh.toml`, or another file
    Check {
        /// The file [default: `pimesh.toml` in the home folder]
        file: Option<std::path::PathBuf>,
    },
    /// Print every key with its default and its meaning, as TOML
    Example,
    /// Print where `pimesh.toml` is looked for
    Path,
}

impl Config {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        match self.action {
            Action::Example => output::generated(&example()),
            Action::Path => {
                let path = global.home()?.join(FILE_NAME);
                if global.json {
                    return output::json(&serde_json::json!({ "path": path }));
                }
                output::own_line(path.display())
            }
            Action::Show => {
                let path = global.home()?.join(FILE_NAME);
                let text = if path.exists() {
                    text_of(&path)?
                } else {
                    String::new()
                };
                let settings = in_force(&text).with_context(|| illegal(&path))?;
                if global.json {
                    return output::json(&settings);
                }
                output::generated(&settings.to_string())
            }
            Action::Check { file } => {
                let path = match file {
                    Some(file) => file,
                    None => global.home()?.join(FILE_NAME),
                };
                NodeConfig::parse(&text_of(&path)?).with_context(|| illegal(&path))?;
                if global.json {
                    return output::json(&serde_json::json!({ "path": path, "good": true }));
                }
                output::own_line(format!("{} is good", path.display()))
            }
        }
    }
}

fn illegal(path: &Path) -> String {
    format!("{} is not legal", path.display())
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    read_file(path).with_context(|| format!("read {}", path.display()))
}
