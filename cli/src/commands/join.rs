//! `pimesh join`

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use futures::StreamExt;
use pimesh_node::{
    control::{api::EventBody, client::Client},
    state::report::Joined,
};

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
        let client = global.client()?;
        let joined = if std::io::stderr().is_terminal() {
            join_and_tell(&client, ticket).await?
        } else {
            client.join(ticket).await?
        };
        if global.json {
            return output::json(&joined);
        }
        output::line(format!(
            "joined as {} with index {}",
            joined.name, joined.index
        ))
    }
}

/// Joins, and tells meanwhile what is tried and what came of it.
async fn join_and_tell(client: &Client, ticket: String) -> anyhow::Result<Joined> {
    let mut events = client.events_of(&["join_tries", "join_tried"]).await?;
    let joining = client.join(ticket);
    tokio::pin!(joining);
    loop {
        let event = tokio::select! {
            joined = &mut joining => return Ok(joined?),
            Some(event) = events.next() => event,
        };
        match event {
            Ok(EventBody::JoinTries { addresses, for_ms }) => {
                let time = output::span(Duration::from_millis(for_ms));
                output::note(format!("trying for at most {time}:"));
                for address in addresses {
                    output::note(format!("  {address}"));
                }
            }
            Ok(EventBody::JoinTried { address, reason }) => {
                output::note(format!("{address}: {reason}"));
            }
            // The answer says what else there is to say.
            Ok(_) | Err(_) => {}
        }
    }
}
