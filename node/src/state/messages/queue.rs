//! Messages for one recipient: in their order, and by when each is given up.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Deref,
    time::Duration,
};

use crate::{
    proto::mesh::MessageId,
    state::{io::Outgoing, work::look},
};

/// A message in the outbox.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Outgoing,
    /// When to give up, on the clock that never jumps.
    deadline: Duration,
    pub(super) attempts: u32,
}

impl Waiting {
    pub(super) const fn new(message: Outgoing, deadline: Duration) -> Self {
        Self {
            message,
            deadline,
            attempts: 0,
        }
    }
}

/// The messages. They read like a queue; what changes them keeps the deadlines in order, so that
/// nobody has to look at all of them to know what is due.
#[derive(Debug, Default)]
pub(super) struct Line {
    messages: VecDeque<Waiting>,
    deadlines: BTreeSet<(Duration, MessageId)>,
}

impl Deref for Line {
    type Target = VecDeque<Waiting>;

    fn deref(&self) -> &VecDeque<Waiting> {
        &self.messages
    }
}

impl Line {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.deadlines
            .insert((waiting.deadline, waiting.message.id));
        self.messages.push_back(waiting);
    }

    /// Attempts to send the messages in their order, as many as `attempt` takes.
    pub(super) fn attempt(&mut self, mut attempt: impl FnMut(&mut Waiting) -> bool) {
        for waiting in &mut self.messages {
            look();
            if !attempt(waiting) {
                return;
            }
        }
    }

    /// Takes a message out. Most often it is among the first.
    pub(super) fn remove(&mut self, id: MessageId) -> Option<Waiting> {
        let at = self.messages.iter().position(|waiting| {
            look();
            waiting.message.id == id
        })?;
        let waiting = self.messages.remove(at)?;
        self.deadlines.remove(&(waiting.deadline, id));
        Some(waiting)
    }

    /// Returns when the first message is to be given up.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Returns what is to be given up by now.
    pub(super) fn due(&self, now: Duration) -> Vec<MessageId> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| {
            look();
            *deadline <= now
        });
        due.map(|(_, id)| *id).collect()
    }

    /// Gives messages an earlier deadline, where there is one.
    pub(super) fn hasten(&mut self, deadline: impl Fn(&Outgoing) -> Option<Duration>) {
        for waiting in &mut self.messages {
            look();
            let Some(sooner) = deadline(&waiting.message).filter(|at| *at < waiting.deadline)
            else {
                continue;
            };
            let id = waiting.message.id;
            self.deadlines.remove(&(waiting.deadline, id));
            waiting.deadline = sooner;
            self.deadlines.insert((sooner, id));
        }
    }

    /// Gives a message another deadline.
    pub(super) fn put_off(&mut self, id: MessageId, until: Duration) {
        let found = self.messages.iter_mut().find(|waiting| {
            look();
            waiting.message.id == id
        });
        if let Some(waiting) = found {
            self.deadlines.remove(&(waiting.deadline, id));
            waiting.deadline = until;
            self.deadlines.insert((until, id));
        }
    }
}
