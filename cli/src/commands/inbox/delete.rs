//! `pimesh inbox delete`

use std::io::IsTerminal;

use anyhow::Context;
use clap::Args;
use pimesh_node::{
    control::api::{Deletion, Way},
    proto::mesh::MessageId,
};

use super::{Global, time};
use crate::output;

/// Delete messages from the history of this node
///
/// What fits everything that is given is deleted. Messages that still wait in the outbox stay. The
/// room is free for new messages at once, and goes back to the disk within a minute.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh inbox delete 4f1c2a33b08e4d0f9a7be6d1c2f3a4b5\n  \
                  pimesh inbox delete --from pi-1 --before 30d\n  pimesh inbox delete --all --sent"
)]
pub(super) struct Delete {
    /// The message with this id, as `--json` shows it
    id: Option<MessageId>,
    /// Only from (or with `--sent`, to) this member, client or user
    #[arg(long, value_name = "PEER")]
    from: Option<String>,
    /// Only those before then: `30d`, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<u64>,
    /// All of them
    #[arg(long, conflicts_with_all = ["id", "from", "before"])]
    all: bool,
    /// Messages that were sent, in the place of those that came
    #[arg(long)]
    sent: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let is_nothing = self.id.is_none() && self.from.is_none() && self.before.is_none();
        if is_nothing && !self.all {
            return Err(output::wrong(
                "nothing says which messages to delete",
                "give an id, `--from PEER`, `--before TIME`, or `--all`",
            ));
        }
        let client = global.client()?;
        let mut deletion = Deletion {
            way: if self.sent { Way::Sent } else { Way::Received },
            id: self.id,
            peer: self.from,
            before_ms: self.before,
            all: self.all,
            dry_run: true,
            ..Deletion::default()
        };
        let found = client.delete_history(&deletion).await?;
        if found.count == 0 && self.id.is_some() {
            return Err(output::hinted(
                "no message with this id is in the history",
                "`pimesh --json inbox` shows ids; `--sent` is for those that were sent",
            ));
        }
        if found.count > 0 && !self.yes {
            confirm(found.count)?;
        }
        deletion.dry_run = false;
        // What came since the question is not meant.
        deletion.up_to = Some(found.up_to);
        let deleted = client.delete_history(&deletion).await?;
        if global.json {
            return output::json(&deleted);
        }
        output::line(format!("deleted {}", messages(deleted.count)))
    }
}

fn confirm(count: u64) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(output::hinted(
            format!(
                "this would delete {}, and nobody can be asked here",
                messages(count)
            ),
            "`--yes` deletes them without asking",
        ));
    }
    output::ask(&format!("delete {}? [y/N] ", messages(count)));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    anyhow::ensure!(
        answer.trim().eq_ignore_ascii_case("y"),
        "nothing was deleted"
    );
    Ok(())
}

fn messages(count: u64) -> String {
    output::count(count, "message")
}
