//! Messages for one recipient: in their order, and by when each is given up.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The messages in their order, with an index by id and one by deadline, so that no search looks at
/// all of them.
#[derive(Debug, Default)]
pub(super) struct Line {
    messages: BTreeMap<Place, Waiting>,
    places: BTreeMap<MessageId, Place>,
    deadlines: BTreeSet<(Duration, MessageId)>,
    next: Place,
}

/// Where a message stands in its line; grows.
type Place = u64;

impl Line {
    pub(super) fn push(&mut self, waiting: Waiting) {
        let id = waiting.message.id;
        self.deadlines.insert((waiting.deadline, id));
        self.places.insert(id, self.next);
        self.messages.insert(self.next, waiting);
        self.next += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.messages.values()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn get(&self, id: MessageId) -> Option<&Waiting> {
        look();
        self.messages.get(self.places.get(&id)?)
    }

    /// Attempts to send the messages in their order, as many as `attempt` takes.
    pub(super) fn attempt(&mut self, mut attempt: impl FnMut(&mut Waiting) -> bool) {
        for waiting in self.messages.values_mut() {
            look();
            if !attempt(waiting) {
                return;
            }
        }
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, id: MessageId) -> Option<Waiting> {
        look();
        let waiting = self.messages.remove(&self.places.remove(&id)?)?;
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
        for waiting in self.messages.values_mut() {
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
        look();
        let place = self.places.get(&id);
        if let Some(waiting) = place.and_then(|place| self.messages.get_mut(place)) {
            self.deadlines.remove(&(waiting.deadline, id));
            waiting.deadline = until;
            self.deadlines.insert((until, id));
        }
    }
}
