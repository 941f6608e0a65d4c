//! `pimesh home`

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use pimesh_node::{
    home::{self, HomeError},
    identity,
    store::FILE_NAME,
};
use serde::Serialize;

use super::Global;
use crate::output;

/// See what belongs to the home folder, go on without a lost file, or begin a new node
///
/// A node does not start when a part of its home folder is missing: new keys would make it another
/// node. Restore the file, or say here that it is lost for good. Stop the node first.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh home show\n  pimesh home forget rsa.key    # a new one is made\n  \
                  pimesh home begin-anew        # a new node, which has to be invited again"
)]
pub(super) struct Home {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the parts of the node in this folder, and which are missing
    Show,
    /// Go on without a file that is lost for good
    ///
    /// `mesh.key`: this node can invite nobody until it is imported again. `rsa.key`: the others
    /// refuse the new one until `pimesh trust`. `pimesh.db`: the messages are lost. A node that
    /// holds the mesh key goes on in its mesh, makes itself a member anew, perhaps with another
    /// index, and hears of the others when they reach it; any other node has to be invited again. `pimesh.db-wal`: what was written last is lost. `node.key` and
    /// `messaging.key` make the node the one that it is; without them, begin anew.
    Forget {
        /// The file, by its name in the home folder
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
    },
    /// Put the keys and the messages aside, so that the next start begins a new node
    ///
    /// They go into a folder in the home folder; `pimesh.toml` and what gateways use stay.
    BeginAnew {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct Part<'a> {
    file: &'a str,
    missing: bool,
}

impl Home {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let home = global.home()?;
        match self.action {
            Action::Show => show(global, &home),
            Action::Forget { files } => {
                for file in &files {
                    home::forget(&home, file).map_err(with_hint)?;
                    let then = match file.as_str() {
                        FILE_NAME if identity::has_mesh_key(&home) => {
                            ": this node holds the mesh key and makes itself a member of its mesh \
                             anew; look at its index in `pimesh status`"
                        }
                        FILE_NAME => ": the node has to be invited again",
                        _ => "",
                    };
                    output::note(format!("the next start goes on without {file}{then}"));
                }
                Ok(())
            }
            Action::BeginAnew { yes } => {
                let parts = home::parts(&home)?;
                if parts.is_empty() {
                    output::note(format!("no node was ever started in {}", home.display()));
                    return Ok(());
                }
                if !yes {
                    confirm(&format!("put the node in {} aside?", home.display()))?;
                }
                let (aside, files) = home::begin_anew(&home)?;
                output::note(format!(
                    "put {} into {}; the next `pimesh run` begins a new node",
                    files.join(", "),
                    aside.display()
                ));
                Ok(())
            }
        }
    }
}

fn confirm(question: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdin().is_terminal(),
        "beginning a new node needs `--yes` here"
    );
    output::ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    anyhow::ensure!(
        matches!(answer.trim(), "y" | "Y" | "yes"),
        "nothing was changed"
    );
    Ok(())
}

fn show(global: &Global, home: &Path) -> anyhow::Result<()> {
    let parts = home::parts(home)?;
    if global.json {
        return parts.iter().try_for_each(|part| {
            output::json(&Part {
                file: &part.file,
                missing: !part.is_there,
            })
        });
    }
    if parts.is_empty() {
        output::note(format!("no node was ever started in {}", home.display()));
        return Ok(());
    }
    let state = |is_there| if is_there { "there" } else { "MISSING" };
    let rows: Vec<_> = parts
        .iter()
        .map(|part| vec![part.file.clone(), state(part.is_there).to_owned()])
        .collect();
    output::table(&["FILE", "STATE"], &rows)?;
    Ok(())
}

fn with_hint(error: HomeError) -> anyhow::Error {
    match error {
        HomeError::Needed(_) => output::hinted(
            error.to_string(),
            "restore it from a backup, or `pimesh home begin-anew`",
        ),
        HomeError::NotMissing(_) => output::hinted(
            error.to_string(),
            "`pimesh home show` lists what is; only a lost file can be forgotten",
        ),
        HomeError::Keys(_)
        | HomeError::Store(_)
        | HomeError::Folder { .. }
        | HomeError::Move { .. } => error.into(),
    }
}
