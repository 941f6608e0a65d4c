//! `pimesh join`

use std::io::Read;

use anyhow::Context;
use clap::Args;

use super::Global;
use crate::output;

/// Enter the mesh of the machine that printed the ticket
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-1$ pimesh invite\n  pi-2$ pimesh join pimesh1:…")]
pub(super) struct Join {
    /// The ticket, or `-` to read it from standard input
    ticket: String,
}

impl Join {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let ticket = if self.ticket == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(16 * 1024)
                .read_to_string(&mut text)
                .context("read the ticket")?;
            text
        } else {
            self.ticket
        };
        let joined = global.client()?.join(ticket).await?;
        if global.json {
            return output::json(&joined);
        }
        output::line(format!(
            "joined as {} with index {}",
            joined.name, joined.index
        ))
    }
}
