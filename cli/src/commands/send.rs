//! `pimesh send`

use std::{collections::BTreeMap, io::Read, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use pimesh_node::{
    control::api::{EventBody, NewMessage},
    proto::mesh::{MessageId, direct::TEXT_BYTES_MAX},
    state::{
        io::{Outcome, Recipients, Via},
        report::Accepted,
    },
};

use super::{Global, duration};
use crate::output;

/// Send an encrypted message to one member, to several, or to all
///
/// Returns once the message is on this node's disk; it is kept and tried until the other node has
/// it on its disk, or its time is over.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pimesh send pi-1 \"door open\"\n  \
                        pimesh send pi-1 pi-2 \"door open\" --wait\n  \
                        date | pimesh send --all -")]
pub(super) struct Send {
    /// Members (or a P2SN client by its name, such as `p2sn:127.0.0.1/5d41402abc4b2a76`), and at the
    /// end the text, or `-` to read it from standard input
    #[arg(required = true, value_names = ["PEER", "TEXT"], num_args = 1..)]
    pub(super) words: Vec<String>,
    /// Send to every member
    #[arg(long)]
    all: bool,
    /// Wait until every recipient has it on disk
    #[arg(long)]
    wait: bool,
    /// How long to wait [default: as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
    /// How long the message is kept trying [default: `messages.expiry`]
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
        let (to, text) = self.split()?;
        let client = global.client()?;
        // Followed before sending, so that a fast delivery is not missed.
        let events = if self.wait {
            Some(client.events().await?)
        } else {
            None
        };
        let message = NewMessage {
            to,
            text,
            via: match self.via {
                Protocol::Direct => Via::Direct,
                Protocol::P2sn => Via::P2sn,
            },
            expiry_s: self.expires.map(|d| d.as_secs().max(1)),
        };
        let accepted = client.send(&message).await?;
        if global.json {
            accepted.iter().try_for_each(output::json)?;
        } else {
            for accepted in &accepted {
                let what = if accepted.via == Via::P2sn && accepted.peer_id.member().is_some() {
                    "delivered"
                } else {
                    "accepted"
                };
                output::line(format!("{what} {} for {}", accepted.id, accepted.to))?;
            }
        }
        match events {
            Some(events) if self.via == Protocol::Direct => {
                let waiting = wait_for(global, accepted, events);
                match self.timeout {
                    Some(time) => tokio::time::timeout(time, waiting).await.map_err(|_| {
                        output::hinted(
                            format!("not delivered within {}", output::span(time)),
                            "the message is kept and tried on; `pimesh outbox` shows it",
                        )
                    })?,
                    None => waiting.await,
                }
            }
            _ => Ok(()),
        }
    }

    fn split(&self) -> anyhow::Result<(Recipients, String)> {
        let (text, peers) = self.words.split_last().context("there is no text")?;
        let to = match (self.all, peers) {
            (true, []) => Recipients::All,
            (true, _) => anyhow::bail!("name members or say `--all`, not both"),
            (false, []) => {
                return Err(output::hinted(
                    "there is no text, or nobody to send it to",
                    "write `pimesh send PEER TEXT`; `pimesh peers` lists the members",
                ));
            }
            (false, peers) => Recipients::Named(peers.to_vec()),
        };
        let text = if text == "-" {
            read_text()?
        } else {
            text.clone()
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(output::hinted(
                format!("a message has at most 1 MiB, got {} bytes", text.len()),
                "larger things go as files",
            ));
        }
        Ok((to, text))
    }
}

pub(super) fn read_text() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let limit = TEXT_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .context("read standard input")?;
    let text = String::from_utf8(bytes).context("a message is text in UTF-8")?;
    Ok(text
        .strip_suffix('\n')
        .map_or_else(|| text.clone(), str::to_owned))
}

async fn wait_for(
    global: &Global,
    accepted: Vec<Accepted>,
    mut events: impl futures::Stream<
        Item = Result<EventBody, pimesh_node::control::client::ClientError>,
    > + Unpin,
) -> anyhow::Result<()> {
    let mut waiting: BTreeMap<MessageId, String> =
        accepted.into_iter().map(|a| (a.id, a.to)).collect();
    let mut failed = Vec::new();
    while !waiting.is_empty() {
        let event = events.next().await.context("the node stopped")??;
        let EventBody::Sent(sent) = event else {
            continue;
        };
        let Some(to) = waiting.remove(&sent.id) else {
            continue;
        };
        if global.json {
            output::json(&sent)?;
        }
        match &sent.outcome {
            Outcome::Delivered if global.json => {}
            Outcome::Delivered => output::line(format!("delivered {} to {to}", sent.id))?,
            Outcome::Expired => failed.push(format!("{to}: its time ran out")),
            Outcome::Refused(why) => failed.push(format!("{to}: refused ({why})")),
        }
    }
    anyhow::ensure!(failed.is_empty(), "not delivered to {}", failed.join(", "));
    Ok(())
}
