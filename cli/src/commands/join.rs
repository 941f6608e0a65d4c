//! `pimesh join`

use clap::Args;

use super::{Global, input::read_text};
use crate::output;

/// Enter the mesh of the machine that printed the ticket
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-1$ pimesh invite\n  pi-2$ pimesh join pimesh1:…")]
pub(super) struct Join {
    /// The ticket, or `-` to read it from standard input
    ticket: String,
}

/// Longest ticket on standard input, in bytes: several times the longest one, for white space in it.
const TICKET_BYTES_MAX: usize = 16 * 1024;

impl Join {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let ticket = if self.ticket == "-" {
            read_text("the ticket", TICKET_BYTES_MAX)?
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
