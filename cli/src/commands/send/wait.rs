//! Waits until messages are delivered, also if the node restarts meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::Stream;
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
        follow::{Next, Retry, follow},
    },
    output::{self, Exit},
};

/// How long is waited for an outcome that was told and is not on the disk yet.
const OUTCOME_TIME: Duration = Duration::from_millis(100);

/// How often it is looked for. An outcome is written at once or, on a full disk, not at all.
const OUTCOME_LOOKS_MAX: u32 = 100;

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
        let mut retry = Retry::default();
        while !open.is_empty() {
            match retry.next(&mut self.events).await? {
                Some(Next::Item(EventBody::Sent(sent))) => {
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
                None | Some(Next::Again | Next::Item(EventBody::Lagged { .. })) => {
                    self.look(global, &mut open, &mut failed, &mut retry)
                        .await?;
                }
                Some(Next::Item(_)) => {}
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
        retry: &mut Retry,
    ) -> anyhow::Result<()> {
        let Some(waiting) = retry.answer(self.client.outbox().await)? else {
            return Ok(());
        };
        let waiting: BTreeSet<MessageId> = waiting.into_iter().map(|pending| pending.id).collect();
        let missed: Vec<MessageId> = open
            .keys()
            .filter(|id| !waiting.contains(id))
            .copied()
            .collect();
        for id in missed {
            let query = HistoryQuery {
                way: Way::Sent,
                id: Some(id),
                limit: Some(1),
                ..HistoryQuery::default()
            };
            let mut looks = 0;
            let (rows, outcome) = loop {
                let Some(rows) = retry.answer(self.client.history(&query).await)? else {
                    return Ok(());
                };
                let outcome = rows.first().map(|row| Outcome::from_text(&row.outcome));
                // It has ended, was told so, and that is not on the disk yet.
                if outcome != Some(None) {
                    break (rows, outcome);
                }
                looks += 1;
                if looks > OUTCOME_LOOKS_MAX {
                    anyhow::bail!("a message has ended, and its outcome could not be written");
                }
                tokio::time::sleep(OUTCOME_TIME).await;
            };
            let Some(to) = open.remove(&id) else {
                continue;
            };
            if global.json {
                drop(rows.iter().try_for_each(output::json));
            }
            match outcome.flatten() {
                None => failed.forgotten(&to),
                Some(Outcome::Delivered) => told(global, id, &to),
                Some(Outcome::Expired) => failed.expired(&to),
                Some(Outcome::Refused(why)) => failed.refused(&to, &why),
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
    exit: Option<Exit>,
}

impl Failed {
    fn expired(&mut self, to: &str) {
        self.add(Exit::TimedOut, format!("{to}: its time ran out"));
    }

    fn refused(&mut self, to: &str, why: &str) {
        self.add(Exit::Refused, format!("{to}: refused ({why})"));
    }

    fn forgotten(&mut self, to: &str) {
        let text = format!("{to}: not known, the history does not have it any more");
        self.add(Exit::Failed, text);
    }

    /// Adds a message; of several kinds of failure, a refusal is what the exit code says.
    fn add(&mut self, exit: Exit, text: String) {
        self.texts.push(text);
        if exit == Exit::Refused || self.exit.is_none() {
            self.exit = Some(exit);
        }
    }

    fn end(self) -> anyhow::Result<()> {
        let Some(exit) = self.exit else {
            return Ok(());
        };
        let text = format!("not delivered to {}", self.texts.join(", "));
        Err(output::with_exit(exit, text, None))
    }
}
