//! `pimesh rename`

use clap::Args;

use super::Global;
use crate::output;

/// Give a member another name, or this node itself; needs the mesh key
///
/// Keys, index and everything else stay. Messages that are there already keep the name that the
/// member had then.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh rename kitchen           # this node\n  \
                        pimesh rename pi-2 kitchen      # another member"
)]
pub(super) struct Rename {
    /// The member, by name or peer id [default: this node], and its new name
    #[arg(value_names = ["PEER", "NAME"], num_args = 1..=2, required = true)]
    words: Vec<String>,
}

impl Rename {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let (peer, name) = match self.words.as_slice() {
            [peer, name] => (Some(peer.as_str()), name),
            [name] => (None, name),
            _ => anyhow::bail!("a name is needed"),
        };
        let renamed = global.client()?.rename(peer, name).await?;
        if global.json {
            return output::json(&renamed);
        }
        if let Some(warning) = &renamed.warning {
            output::note(format!("warning: {warning}"));
        }
        if renamed.was == renamed.name {
            return output::line(format!("{} has that name already", renamed.name));
        }
        output::line(format!("{} is {} from here on", renamed.was, renamed.name))
    }
}
