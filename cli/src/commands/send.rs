//! `pimesh send`

mod wait;
mod words;

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, ValueEnum};
use pimesh_node::{
    control::api::NewMessage,
    proto::mesh::direct::TEXT_BYTES_MAX,
    state::{
        io::{SendVia, Via},
        report::Accepted,
    },
};

use self::{wait::Waiting, words::Split};
use super::{Global, duration, input::read_text, texts::text, whole_seconds};
use crate::output;

/// Send an encrypted message to one member, to several, or to all
///
/// Returns once the message is on this node's disk; it is kept and tried until the other node has
/// it on its disk, or its time is over.
///
/// The last word is the text. Put a text of several words into quotes. With several members, a text
/// of one word stands behind `--`, so that a forgotten quote sends nothing to a member whose name is
/// one of the words.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pimesh send pi-1 \"door open\"\n  \
                        pimesh send pi-1 pi-2 \"door open\" --wait\n  \
                        pimesh send pi-1 pi-2 -- hello\n  \
                        pimesh send pi-1 \"-5 degrees\"\n  \
                        date | pimesh send --all -")]
pub(super) struct Send {
    /// Members (or a P2SN client by its name, such as `p2sn:127.0.0.1/5d41402abc4b2a76`), and at the
    /// end the text, or `-` to read it from standard input
    #[arg(value_names = ["PEER", "TEXT"], num_args = 1.., value_parser = text)]
    pub(super) words: Vec<String>,
    /// The text, whatever it looks like
    #[arg(last = true, value_name = "TEXT")]
    pub(super) text: Option<String>,
    /// Send to every member
    #[arg(long)]
    pub(super) all: bool,
    /// Wait until every recipient has it on disk
    #[arg(long)]
    wait: bool,
    /// How long to wait [default: as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
    /// How long the message is kept trying: 1s to 30d [default: `messages.expiry`]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Protocol: `direct`, or `p2sn` for one short message at once or not at all
    #[arg(long, value_enum, default_value = "direct")]
    via: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Direct,
    P2sn,
}

impl Send {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let (wait, timeout, via) = (self.wait, self.timeout, self.via);
        let expiry_s = self.expires.map(whole_seconds);
        let Split { to, text } = words::split(self.words, self.text, self.all)?;
        let text = checked(match text {
            Some(text) => text,
            None => read_message()?,
        })?;
        let client = global.client()?;
        // Followed before sending, so that a fast delivery is not missed.
        let waiting = if wait && via == Protocol::Direct {
            Some(Waiting::begin(&client).await?)
        } else {
            None
        };
        let message = NewMessage {
            to,
            text,
            via: match via {
                Protocol::Direct => SendVia::Direct,
                Protocol::P2sn => SendVia::P2sn,
            },
            expiry_s,
        };
        let accepted = client.send(&message).await?;
        let warnings: BTreeSet<&String> =
            accepted.iter().filter_map(|a| a.warning.as_ref()).collect();
        for warning in warnings {
            output::note(format!("warning: {warning}"));
        }
        let shown = show(global, &accepted);
        let Some(waiting) = waiting else {
            return shown.map_err(|error| error.context("the message was accepted"));
        };
        // What cannot be printed is waited for all the same.
        let delivered = waiting.until_delivered(global, accepted);
        match timeout {
            None => delivered.await?,
            Some(time) => match tokio::time::timeout(time, delivered).await {
                Ok(delivered) => delivered?,
                Err(_) => return Err(too_late(time)),
            },
        }
        shown.map_err(|error| error.context("the message was delivered"))
    }
}

fn too_late(time: Duration) -> anyhow::Error {
    output::with_exit(
        output::Exit::TimedOut,
        format!("not delivered within {}", output::span(time)),
        Some("the message is kept and tried on; `pimesh outbox` shows it".to_owned()),
    )
}

fn show(global: &Global, accepted: &[Accepted]) -> anyhow::Result<()> {
    if global.json {
        return accepted.iter().try_for_each(output::json);
    }
    accepted.iter().try_for_each(|accepted| {
        let what = if accepted.via == Via::P2sn && accepted.peer_id.member().is_some() {
            "delivered"
        } else {
            "accepted"
        };
        output::line(format!("{what} {} for {}", accepted.id, accepted.to))
    })
}

/// Reads the text of a message from standard input; an empty one is hardly meant.
pub(super) fn read_message() -> anyhow::Result<String> {
    let text = read_text("the message", TEXT_BYTES_MAX)?;
    if text.is_empty() {
        return Err(output::wrong(
            "standard input is empty: nothing was sent",
            "to send an empty message, write `\"\"` in the place of `-`",
        ));
    }
    Ok(text)
}

fn checked(text: String) -> anyhow::Result<String> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(text);
    }
    Err(output::wrong(
        format!(
            "a message has at most {TEXT_BYTES_MAX} bytes (1 MiB), got {}",
            text.len()
        ),
        "nothing was sent; send it in parts, or send where it can be found",
    ))
}
