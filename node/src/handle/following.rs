//! Following a node: events, received messages, and what becomes of a message that was sent.
//!
//! Events may be lost by a reader that is too slow. Messages are not: they are read from the disk by
//! their rows, and an event only wakes the reader.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{HistoryQuery, HistoryRow, NodeHandle, Pages};
use crate::state::{
    io::{Event, Failure, Outcome, Way},
    report,
};

/// What happens at a node, from the call of [`NodeHandle::subscribe`] on.
pub struct Events {
    node: NodeHandle,
    events: broadcast::Receiver<Arc<Event>>,
}

/// A reader of events was too slow, and the oldest ones are gone: so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events are lost: the reader was too slow")]
pub struct EventsLost(pub u64);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events(..)")
    }
}

impl Events {
    /// Waits for the next event; `None` once the node has stopped. Whoever stops waiting misses
    /// nothing.
    ///
    /// # Errors
    /// Says how many events were lost, if the reader was more than 4096 behind; the next call goes on
    /// behind them.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, EventsLost> {
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Ok(event) => Ok(Some(event)),
                Err(RecvError::Lagged(lost)) => Err(EventsLost(lost)),
                Err(RecvError::Closed) => Ok(None),
            },
            () = self.node.commands.closed() => Ok(None),
        }
    }
}

/// Where a reader of received messages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begin {
    /// With the oldest message that is on disk.
    Oldest,
    /// With the first one behind this row: [`HistoryRow::row`] of the last message that the reader
    /// has dealt with, in this run or an earlier one. Rows are never given twice, unless the store is
    /// replaced by an older or a new one: then a row that is not there yet is refused.
    After(i64),
    /// With the first one that comes from here on.
    Now,
}

/// Received messages, in the order in which they came. None comes twice, and none is missed by a
/// reader that is slow; only those that were deleted, or were pruned for their age or the space they
/// take, before they were read.
#[derive(Debug)]
pub struct Inbox {
    node: NodeHandle,
    events: Events,
    /// The row of the last message that was returned.
    after: i64,
    /// Messages that were read from the disk.
    page: VecDeque<HistoryRow>,
    /// Where further ones are read, while there may be some.
    pages: Option<Pages>,
    /// Whether there may be messages on the disk that were not read.
    may_have_more: bool,
}

impl Inbox {
    /// Waits for the next message; `None` once the node has stopped. Whoever stops waiting misses
    /// nothing.
    ///
    /// # Errors
    /// Returns why messages cannot be read; the next call tries again.
    pub async fn next(&mut self) -> Result<Option<HistoryRow>, Failure> {
        loop {
            if let Some(message) = self.page.pop_front() {
                self.after = message.row;
                return Ok(Some(message));
            }
            if self.may_have_more {
                match self.read().await {
                    Err(_) if self.node.commands.is_closed() => return Ok(None),
                    read => read?,
                }
                continue;
            }
            match self.events.next().await {
                Ok(Some(event)) => self.may_have_more = matches!(*event, Event::Received(_)),
                Err(EventsLost(_)) => self.may_have_more = true,
                Ok(None) => return Ok(None),
            }
        }
    }

    /// Reads a page. Between its waits nothing is forgotten: it may be dropped at each.
    async fn read(&mut self) -> Result<(), Failure> {
        let pages = match &mut self.pages {
            Some(pages) => pages,
            None => {
                let pages = self.node.history(received(Some(self.after))).await?;
                self.pages.insert(pages)
            }
        };
        match pages.next().await {
            Ok(Some(page)) => self.page = page.into(),
            Ok(None) => {
                self.pages = None;
                self.may_have_more = false;
            }
            Err(failure) => {
                self.pages = None;
                return Err(failure);
            }
        }
        Ok(())
    }
}

fn received(after: Option<i64>) -> HistoryQuery {
    HistoryQuery {
        way: Way::Received,
        after,
        all: after.is_some(),
        limit: after.is_none().then_some(0),
        ..HistoryQuery::default()
    }
}

/// A message that is on this node's disk, and on its way.
#[derive(Debug)]
pub struct Sending {
    node: NodeHandle,
    events: Events,
    accepted: report::Accepted,
    outcome: Option<Outcome>,
    /// Whether the event that tells the outcome may be lost.
    is_unsure: bool,
    /// How often the outcome was looked for since the message left the outbox.
    looks: u32,
}

/// How long is waited for an outcome that was told and is not on the disk yet: its record waits for
/// others, at most so long, and for the disk.
const OUTCOME_TIME: Duration = Duration::from_millis(100);

/// How often it is looked for. An outcome is written at once or, on a full disk, not at all.
const OUTCOME_LOOKS_MAX: u32 = 100;

impl Sending {
    pub(super) const fn new(node: NodeHandle, events: Events, accepted: report::Accepted) -> Self {
        Self {
            node,
            events,
            accepted,
            outcome: None,
            is_unsure: false,
            looks: 0,
        }
    }

    /// Returns what was accepted: the message's id, the recipient, and when sending is given up.
    #[must_use]
    pub const fn accepted(&self) -> &report::Accepted {
        &self.accepted
    }

    /// Waits until the recipient has the message on its disk. A wait that ends too early may be
    /// begun again: the message is kept and tried meanwhile.
    ///
    /// # Errors
    /// [`TimedOut`](crate::FailureKind::TimedOut) says that it is not there within `timeout`, or that
    /// its time is over; [`Refused`](crate::FailureKind::Refused) that the recipient does not take it.
    pub async fn delivered(&mut self, timeout: Duration) -> Result<(), Failure> {
        let to = self.accepted.to.clone();
        let Ok(outcome) = tokio::time::timeout(timeout, self.outcome()).await else {
            let text = format!("not delivered to {to} within {timeout:?}");
            return Err(Failure::timed_out(text).with_hint("the message is kept and tried on"));
        };
        match outcome? {
            Outcome::Delivered => Ok(()),
            Outcome::Expired => {
                let text = format!("not delivered to {to}: its time ran out");
                Err(Failure::timed_out(text))
            }
            Outcome::Refused(why) => {
                let text = format!("not delivered to {to}: refused ({why})");
                Err(Failure::refused(text))
            }
        }
    }

    async fn outcome(&mut self) -> Result<Outcome, Failure> {
        loop {
            if let Some(outcome) = &self.outcome {
                return Ok(outcome.clone());
            }
            if self.is_unsure {
                let waits = self.node.outbox().await?;
                self.outcome = self.look().await?;
                // While it waits, the event is still to come. If it does not, and has no outcome, that
                // one is on its way to the disk.
                if self.outcome.is_none() && !waits.iter().any(|m| m.id == self.accepted.id) {
                    self.looks += 1;
                    if self.looks > OUTCOME_LOOKS_MAX {
                        let text = "the message has ended, and its outcome could not be written";
                        return Err(Failure::unavailable(text));
                    }
                    tokio::time::sleep(OUTCOME_TIME).await;
                } else {
                    self.is_unsure = false;
                }
                continue;
            }
            match self.events.next().await {
                Ok(Some(event)) => {
                    if let Event::Sent(sent) = &*event
                        && sent.id == self.accepted.id
                    {
                        self.outcome = Some(sent.outcome.clone());
                    }
                }
                Err(EventsLost(_)) => self.is_unsure = true,
                Ok(None) => return Err(Failure::unavailable("the node is stopping")),
            }
        }
    }

    /// Looks up on the disk what an event may have said that is lost.
    async fn look(&self) -> Result<Option<Outcome>, Failure> {
        let query = HistoryQuery {
            way: Way::Sent,
            id: Some(self.accepted.id),
            all: true,
            ..HistoryQuery::default()
        };
        let page = self.node.history(query).await?.next().await?;
        // What waits is never deleted.
        let Some(row) = page.and_then(|page| page.into_iter().next()) else {
            let text = "the history does not have the message any more";
            return Err(Failure::not_found(text));
        };
        Ok(Outcome::from_text(&row.outcome))
    }
}

impl NodeHandle {
    /// Follows what happens from here on: connections, members, integers, messages.
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events {
            node: self.clone(),
            events: self.events(),
        }
    }

    /// Reads received messages, those that are there and those that come.
    ///
    /// # Errors
    /// Returns why they cannot be read.
    pub async fn inbox(&self, begin: Begin) -> Result<Inbox, Failure> {
        let events = self.subscribe();
        let after = match begin {
            Begin::Oldest => 0,
            Begin::After(row) => self.check_row(row).await?,
            // Behind the last of those that are there.
            Begin::Now => self.history(received(None)).await?.after(),
        };
        Ok(Inbox {
            node: self.clone(),
            events,
            after,
            page: VecDeque::new(),
            pages: None,
            may_have_more: true,
        })
    }
}
