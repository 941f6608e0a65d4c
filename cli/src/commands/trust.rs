//! `pimesh trust`

use clap::Args;

use super::Global;
use crate::output;

/// Accept a changed key, or say for good whom a name means
///
/// The first key that a node hears of for somebody is pinned, and so is the first one who has a name.
/// Another key is refused, and another one of the same name is called USER@NODE, until you decide
/// here. `pimesh who` shows what there is to decide. Your word holds at this node.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh trust pi-2                  # its changed RSA key (P2SN)\n  \
                        pimesh trust alice@pi-2            # her changed key\n  \
                        pimesh trust --name alice@pi-2     # `alice` means her from here on"
)]
pub(super) struct Trust {
    /// A member by name or peer id, a user, or with `--name` USER@NODE
    who: String,
    /// Let the name without `@NODE` mean this user; keys stay as they are
    #[arg(long)]
    name: bool,
}

impl Trust {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let trusted = global.client()?.trust(&self.who, self.name).await?;
        if global.json {
            return output::json(&trusted);
        }
        if self.name {
            let bare = trusted
                .name
                .rsplit_once('@')
                .map_or(&*trusted.name, |(bare, _)| bare);
            return output::line(format!("{bare} means {} from here on", trusted.name));
        }
        let key = trusted
            .fingerprint
            .unwrap_or_else(|| "the one shown next".to_owned());
        output::line(format!("the key of {} is {key}", trusted.name))
    }
}
