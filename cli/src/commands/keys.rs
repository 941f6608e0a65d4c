//! `pimesh mesh-key` and `pimesh passphrase`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use pimesh_node::{
    Config,
    control::client::ClientError,
    identity::{self, KeyFileError, Passphrase},
    store::{self, HomeLock},
};
use serde::Serialize;

use super::{
    Global,
    input::{is_typed, read_line},
};
use crate::output;

/// Back up the mesh key, or bring it to another node so that it can invite, too
///
/// The mesh key says who is a member: whoever has it can invite and remove. It is made on the first
/// node, in `mesh.key` in its home folder; several members may hold it. An export is always sealed
/// with a passphrase.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-1$ pimesh mesh-key share pi-2\n  \
                        pi-1$ pimesh mesh-key export mesh.backup\n  \
                        pi-2$ pimesh mesh-key import mesh.backup")]
pub(super) struct MeshKey {
    #[command(subcommand)]
    action: MeshKeyAction,
}

#[derive(Debug, Subcommand)]
enum MeshKeyAction {
    /// Write the key to a file, sealed with a passphrase that is asked for
    Export {
        /// The file; it must not exist yet
        file: PathBuf,
    },
    /// Take the key from a file
    Import {
        /// The file
        file: PathBuf,
    },
    /// Give the key to another member, which must be connected; it can invite, too, at once
    ///
    /// It cannot be taken back: a member that is removed later still has the key.
    Share {
        /// Its name or peer id
        peer: String,
    },
    /// Say whether this node holds a mesh key
    Status,
}

#[derive(Serialize)]
struct MeshKeyStatus {
    held: bool,
    mesh: Option<String>,
}

impl MeshKey {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        if let MeshKeyAction::Share { peer } = &self.action {
            let shared = global.client()?.share_mesh_key(peer).await?;
            if global.json {
                return output::json(&shared);
            }
            return output::line(format!("{} holds the mesh key, too", shared.name));
        }
        let home = global.home()?;
        // Said before anybody types a passphrase.
        check_files(&self.action, &home)?;
        let passphrase = passphrase_for(&home, &pimesh_node::Config::load(&home)?)?;
        match self.action {
            MeshKeyAction::Share { .. } => {}
            MeshKeyAction::Export { file } => {
                let seal = ask_new("passphrase for the exported file")?;
                let key = identity::export_mesh_key(&home, passphrase.as_ref(), &file, &seal)?;
                output::note(format!(
                    "exported the key of mesh {} to {}",
                    key.mesh(),
                    file.display()
                ));
                tell_node(global).await?;
            }
            MeshKeyAction::Import { file } => {
                let seal = ask("passphrase of the exported file")?;
                // A store that cannot be read says nothing; the node says why when it starts.
                let mesh = store::mesh_of(&home).unwrap_or_default();
                let phrase = passphrase.as_ref();
                let key = identity::import_mesh_key(&home, phrase, &file, &seal, mesh);
                let key = key.map_err(import_failed)?;
                let from = if tell_node(global).await? {
                    "from here on"
                } else {
                    "from the node's next start"
                };
                output::note(format!(
                    "imported the key of mesh {}; it counts {from}",
                    key.mesh()
                ));
            }
            MeshKeyAction::Status => {
                let key = identity::load_mesh_key(&home, passphrase.as_ref())?;
                let mesh = key.map(|key| key.mesh().to_string());
                if global.json {
                    return output::json(&MeshKeyStatus {
                        held: mesh.is_some(),
                        mesh,
                    });
                }
                output::line(mesh.map_or_else(
                    || "this node holds no mesh key".to_owned(),
                    |mesh| format!("this node holds the key of mesh {mesh}"),
                ))?;
            }
        }
        Ok(())
    }
}

/// Says what to do when a mesh key is not taken.
fn import_failed(error: identity::KeyFileError) -> anyhow::Error {
    let hint = match &error {
        identity::KeyFileError::OtherMesh { .. } => {
            "import a key that a holder of this node's mesh exported; `pimesh status` shows its mesh"
        }
        identity::KeyFileError::Exists { .. } => {
            "if the key that is there is of no use, rename its file and import again"
        }
        _ => return error.into(),
    };
    output::hinted(error.to_string(), hint)
}

/// Checks that the files are there that are read, and not there that are written.
fn check_files(action: &MeshKeyAction, home: &Path) -> anyhow::Result<()> {
    match action {
        MeshKeyAction::Export { file } => {
            if !identity::has_mesh_key(home) {
                return Err(output::hinted(
                    "this node does not hold the mesh key",
                    "`pimesh status` says who does; `pimesh mesh-key share` there brings it here",
                ));
            }
            anyhow::ensure!(!file.exists(), "{} exists already", file.display());
        }
        MeshKeyAction::Import { file } => {
            std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?;
        }
        MeshKeyAction::Share { .. } | MeshKeyAction::Status => {}
    }
    Ok(())
}

/// Has the node look at the file with the mesh key again; returns whether one runs.
async fn tell_node(global: &Global) -> anyhow::Result<bool> {
    match global.client()?.reload_mesh_key().await {
        Ok(()) => Ok(true),
        Err(ClientError::NoSocket(_) | ClientError::Dead(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Seal the key files with a passphrase, or open them for good
///
/// Stop the node first; as long as it runs, nothing is changed. Afterwards `pimesh run` asks for the passphrase on a terminal, or reads it
/// from `identity.passphrase_file`.
#[derive(Debug, Args)]
pub(super) struct PassphraseCommand {
    #[command(subcommand)]
    action: PassphraseAction,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum PassphraseAction {
    /// Set or change the passphrase
    Set,
    /// Store the keys without a passphrase
    Remove,
}

impl PassphraseCommand {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let home = global.home()?;
        // A node that runs would make further keys with the passphrase that it was started with.
        let _lock = HomeLock::take(&home)?;
        let old = passphrase_for(&home, &pimesh_node::Config::load(&home)?)?;
        let new = match self.action {
            PassphraseAction::Set => Some(ask_new("new passphrase")?),
            PassphraseAction::Remove => None,
        };
        let changed = identity::change_passphrase(&home, old.as_ref(), new.as_ref())?;
        let changed = output::count(changed, "key file");
        output::note(format!("changed {changed} in {}", home.display()));
        Ok(())
    }
}

/// Returns the passphrase of the key files: from the configured file, or asked for if the files are
/// sealed.
pub(super) fn passphrase_for(home: &Path, config: &Config) -> anyhow::Result<Option<Passphrase>> {
    if let Some(file) = &config.passphrase_file {
        return Ok(Some(Passphrase::from_file(file)?));
    }
    match identity::is_sealed(home) {
        Ok(true) if is_typed() => Ok(Some(ask("passphrase of the key files")?)),
        Ok(_) | Err(KeyFileError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Longest passphrase on standard input, in bytes.
const PASSPHRASE_BYTES_MAX: usize = 4096;

fn ask(prompt: &str) -> anyhow::Result<Passphrase> {
    if !is_typed() {
        let line = read_line("the passphrase", PASSPHRASE_BYTES_MAX)?;
        return Ok(Passphrase::new(line.into()));
    }
    let text = rpassword::prompt_password(format!("{prompt}: ")).context("read the passphrase")?;
    Ok(Passphrase::new(text.into()))
}

fn ask_new(prompt: &str) -> anyhow::Result<Passphrase> {
    let least = Passphrase::BYTES_MIN;
    let first = ask(&format!("{prompt} (at least {least} characters)"))?;
    if !first.is_long_enough() {
        return Err(output::wrong(
            format!("the passphrase is too short: it has to have at least {least} characters"),
            "several words are easy to remember; nothing was changed",
        ));
    }
    if is_typed() {
        let second = ask("once more")?;
        if first != second {
            return Err(output::wrong(
                "the two passphrases differ",
                "try again; nothing was changed",
            ));
        }
    }
    Ok(first)
}
