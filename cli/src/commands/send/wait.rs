//! Waits until messages are delivered, also if the node restarts meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use futures::{Stream, StreamExt};
use pimesh_node::{
    control::{
        api::{EventBody, HistoryQuery, Way},
        client::{Client, ClientError},
    },
    proto::mesh::MessageId,
    state::{io::Outcome, report::Accepted},
};

use crate::{
    commands::{
        Global,
        follow::{Next, follow, or_gone},
    },
    output::{self, Exit},
};

/// Rows of the history that are looked through for an outcome that was missed.
const ROWS: u64 = 1000;

/// What the history says of a message that was delivered.
const DELIVERED: [&str; 2] = ["delivered", "read"];

/// Follows what becomes of messages.
pub(super) struct Waiting<'a> {
    client: &'a Client,
    events: Box<dyn Stream<Item = Result<Next<EventBody>, ClientError>> + Unpin + 'a>,
}

/// Which messages have no outcome yet, and whom they are for.
type Open = BTreeMap<MessageId, String>;

impl<'a> Waiting<'a> {
    /// Begins to follow: before the messages are sent, so that nothing is missed.
    pub(super) async fn begin(client: &'a Client) -> anyhow::Result<Self> {
        let events = follow(async || client.events_of(&["sent"]).await).await?;
        let events = Box::new(events);
        Ok(Self { client, events })
    }

    /// Waits for the outcome of each message.
    pub(super) async fn until_delivered(
        mut self,
        global: &Global,
        accepted: Vec<Accepted>,
    ) -> anyhow::Result<()> {
        let warned = accepted.iter().filter(|a| a.warning.is_some());
        let warned: BTreeSet<MessageId> = warned.map(|a| a.id).collect();
        let mut open: Open = accepted.into_iter().map(|a| (a.id, a.to)).collect();
        let mut failed = Failed::default();
        while !open.is_empty() {
            match self.events.next().await.context("the events ended")?? {
                Next::Item(EventBody::Sent(sent)) => {
                    let Some(to) = open.remove(&sent.id) else {
                        continue;
                    };
                    if global.json {
                        drop(output::json(&sent));
                    }
                    if let Some(warning) = &sent.warning
                        && !warned.contains(&sent.id)
                    {
                        output::note(format!("warning: {warning}"));
                    }
                    match &sent.outcome {
                        Outcome::Delivered => told(global, sent.id, &to),
                        Outcome::Expired => failed.expired(&to),
                        Outcome::Refused(why) => failed.refused(&to, why),
                    }
                }
                Next::Again | Next::Item(EventBody::Lagged { .. }) => {
                    self.look(global, &mut open, &mut failed).await?;
                }
                Next::Item(_) => {}
            }
        }
        failed.end()
    }

    /// Looks up what was missed while the node was gone or too fast.
    async fn look(
        &self,
        global: &Global,
        open: &mut Open,
        failed: &mut Failed,
    ) -> anyhow::Result<()> {
        let Some(waiting) = or_gone(self.client.outbox().await)? else {
            return Ok(());
        };
        let waiting: BTreeSet<MessageId> = waiting.into_iter().map(|pending| pending.id).collect();
        if open.keys().all(|id| waiting.contains(id)) {
            return Ok(());
        }
        let query = HistoryQuery {
            way: Way::Sent,
            limit: Some(ROWS),
            ..HistoryQuery::default()
        };
        let Some(rows) = or_gone(self.client.history(&query).await)? else {
            return Ok(());
        };
        for row in rows.iter().filter(|row| !row.outcome.is_empty()) {
            let Some(to) = open.remove(&row.id) else {
                continue;
            };
            if global.json {
                drop(output::json(row));
            }
            match row.outcome.as_str() {
                outcome if DELIVERED.contains(&outcome) => told(global, row.id, &to),
                "expired" => failed.expired(&to),
                why => failed.refused(&to, why.strip_prefix("refused: ").unwrap_or(why)),
            }
        }
        Ok(())
    }
}

/// Says that a message was delivered. If nobody reads that, the exit code still says it.
fn told(global: &Global, id: MessageId, to: &str) {
    if !global.json {
        drop(output::line(format!("delivered {id} to {to}")));
    }
}

/// Messages that were not delivered.
#[derive(Debug, Default)]
struct Failed {
    texts: Vec<String>,
    refused: bool,
}

impl Failed {
    fn expired(&mut self, to: &str) {
        self.texts.push(format!("{to}: its time ran out"));
    }

    fn refused(&mut self, to: &str, why: &str) {
        self.texts.push(format!("{to}: refused ({why})"));
        self.refused = true;
    }

    fn end(self) -> anyhow::Result<()> {
        if self.texts.is_empty() {
            return Ok(());
        }
        let exit = if self.refused {
            Exit::Refused
        } else {
            Exit::TimedOut
        };
        let text = format!("not delivered to {}", self.texts.join(", "));
        Err(output::with_exit(exit, text, None))
    }
}
