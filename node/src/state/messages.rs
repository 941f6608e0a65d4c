//! Direct messages: from "accepted" on our disk to "stored" on the recipient's.
//!
//! ```text
//! send ─▶ Store ─▶ Stored: accepted ─▶ request with a few messages ─▶ recipient: Store
//!                                                                        │
//!          outbox row goes ◀─ Delivered ◀─ answer: one status each ◀─ Stored
//! ```
//!
//! One request at a time is under way to a recipient, so its messages stay in order and a
//! recipient that was away for days is not flooded. A request without an answer is sent again
//! after a growing wait, or at once when a connection opens. The recipient knows a repeated message
//! by its place in the sender's numbering: numbers grow, and a number that is not above the last
//! one was stored already. A sender numbers anew from each start (`epoch`), so that a restored
//! backup of its disk never reuses numbers.
//!
//! Here is what is known; `accepting`, `carrying` and `receiving` are the three steps.

mod accepting;
mod carrying;
mod queue;
mod receiving;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use self::queue::{Line, Waiting};
pub(super) use self::{accepting::Accepting, receiving::Receiving};
use super::{
    CLOCK_SET_MS, Effects, State,
    capacity::weight,
    io::{Now, OutboundId, Outgoing, OutgoingKind, Party, Place},
    report,
    work::look,
};
use crate::proto::mesh::MessageId;

/// Most numberings that are remembered of one sender. A sender begins one at each start; the least
/// recently used is forgotten.
const EPOCHS_PER_SENDER_MAX: usize = 1000;

/// What waits for one recipient.
#[derive(Debug, Default)]
struct Queue {
    waiting: Line,
    under_way: Option<UnderWay>,
    failures: u32,
    resend_at: Option<Duration>,
    /// Since when the recipient takes nothing because of what stands first.
    held_up_since: Option<Duration>,
}

/// The one request that has no answer yet.
#[derive(Debug)]
struct UnderWay {
    id: OutboundId,
    ids: Vec<MessageId>,
    overdue: Duration,
}

/// The outbox, and what is known of the numbering of other senders.
pub(super) struct Messages {
    queues: BTreeMap<Place, Queue>,
    epoch: u64,
    next_sequence: u64,
    /// For each sender, its numberings with their last number, the least recently used first.
    marks: BTreeMap<PeerId, Vec<(u64, u64)>>,
    /// Senders whose messages are on their way to the disk.
    storing: BTreeMap<PeerId, u32>,
    /// Messages in the outbox and on their way into it.
    count: usize,
    bytes: usize,
    /// What of them is in the history weighs there.
    history_bytes: u64,
    received: u64,
}

impl Messages {
    pub(super) fn load(
        outbox: Vec<Outgoing>,
        marks: Vec<(PeerId, u64, u64)>,
        effects: &mut Effects,
        now: Now,
    ) -> Self {
        let mut messages = Self {
            queues: BTreeMap::new(),
            epoch: u64::from_le_bytes(effects.random()),
            next_sequence: 1,
            marks: BTreeMap::new(),
            storing: BTreeMap::new(),
            count: 0,
            bytes: 0,
            history_bytes: 0,
            received: 0,
        };
        for (sender, epoch, sequence) in marks {
            messages
                .marks
                .entry(sender)
                .or_default()
                .push((epoch, sequence));
        }
        messages.reserve(&outbox);
        for message in outbox {
            messages.push(message, now);
        }
        messages
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what messages that wait weigh in the history, where they stay until they have ended.
    pub(super) const fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Returns what waits for a place, in its order.
    pub(super) fn waiting_for(&self, place: impl Into<Place>) -> impl Iterator<Item = &Outgoing> {
        let queue = self.queues.get(&place.into()).into_iter();
        queue.flat_map(|queue| queue.waiting.iter().map(|waiting| &waiting.message))
    }

    /// Returns all that waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Outgoing> {
        let queues = self.queues.values();
        queues.flat_map(|queue| queue.waiting.iter().map(|waiting| &waiting.message))
    }

    /// Returns those for whom something waits.
    pub(super) fn recipients(&self) -> impl Iterator<Item = Place> {
        self.queues.keys().copied()
    }

    fn of_node(&self, peer: &PeerId) -> Option<&Queue> {
        self.queues.get(&Place::Node(*peer))
    }

    fn of_node_mut(&mut self, peer: &PeerId) -> Option<&mut Queue> {
        self.queues.get_mut(&Place::Node(*peer))
    }

    pub(super) fn count_for(&self, peer: &PeerId) -> usize {
        self.of_node(peer).map_or(0, |queue| queue.waiting.len())
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let of_queue = |queue: &Queue| {
            let overdue = queue.under_way.as_ref().map(|under_way| under_way.overdue);
            look();
            let expiry = queue.waiting.next_deadline();
            [overdue, queue.resend_at, expiry]
                .into_iter()
                .flatten()
                .min()
        };
        self.queues.values().filter_map(of_queue).min()
    }

    /// The connection is gone, and with it the answer.
    pub(super) fn link_lost(&mut self, peer: &PeerId) {
        if let Some(queue) = self.of_node_mut(peer) {
            queue.under_way = None;
            queue.resend_at = None;
        }
    }

    /// Takes room in the outbox, before messages go to the disk: while it is busy, more may come.
    pub(super) fn reserve(&mut self, messages: &[Outgoing]) {
        self.count += messages.len();
        self.bytes += messages.iter().map(|m| m.text.len()).sum::<usize>();
        self.history_bytes += history_weight(messages);
    }

    pub(super) fn release(&mut self, messages: &[Outgoing]) {
        self.count -= messages.len();
        self.bytes -= messages.iter().map(|m| m.text.len()).sum::<usize>();
        self.history_bytes -= history_weight(messages);
    }

    /// Queues a message for which there is room.
    fn push(&mut self, message: Outgoing, now: Now) {
        let deadline = now.mono + time_left(message.created_ms, message.expires_ms, now);
        let queue = self.queues.entry(message.recipient).or_default();
        queue.waiting.push(Waiting::new(message, deadline));
    }

    /// Sends what was held back at the next turn.
    pub(super) fn resend_now(&mut self, peer: &PeerId) {
        if let Some(queue) = self.of_node_mut(peer) {
            queue.resend_at = None;
        }
    }

    pub(super) fn hold_back(&mut self, peer: &PeerId, until: Duration) {
        if let Some(queue) = self.of_node_mut(peer) {
            queue.resend_at = Some(until);
        }
    }

    /// Says whether by this date a message of an earlier run to this peer has lost its time. Only
    /// the date says how old those are.
    pub(super) fn is_over_by(&self, peer: &PeerId, now: Now) -> bool {
        let queue = self.of_node(peer).into_iter();
        let waiting = queue.flat_map(|queue| queue.waiting.iter());
        let mut earlier = waiting.filter(|waiting| waiting.message.epoch != self.epoch);
        earlier.any(|Waiting { message, .. }| {
            look();
            time_left(message.created_ms, message.expires_ms, now).is_zero()
        })
    }

    /// Shortens the time of messages of an earlier run to what the date leaves them.
    pub(super) fn count_time_anew(&mut self, now: Now) {
        let epoch = self.epoch;
        for queue in self.queues.values_mut() {
            queue.waiting.hasten(|message| {
                let left = time_left(message.created_ms, message.expires_ms, now);
                (message.epoch != epoch).then_some(now.mono + left)
            });
        }
    }

    /// Says whether a message of this numbering was received already.
    fn has(&self, sender: &PeerId, epoch: u64, sequence: u64) -> bool {
        let marks = self.marks.get(sender);
        marks.is_some_and(|marks| {
            marks
                .iter()
                .any(|&(e, last)| e == epoch && sequence <= last)
        })
    }

    fn mark(&mut self, sender: PeerId, epoch: u64, sequence: u64) {
        let marks = self.marks.entry(sender).or_default();
        marks.retain(|&(known, _)| known != epoch);
        marks.push((epoch, sequence));
        if marks.len() > EPOCHS_PER_SENDER_MAX {
            marks.remove(0);
        }
    }
}

/// Returns what messages weigh in the history. What is carried for users is not in it.
fn history_weight(messages: &[Outgoing]) -> u64 {
    let own = messages.iter().filter(|m| m.kind != OutgoingKind::Letter);
    own.map(|m| weight(m.text.len())).sum()
}

/// Returns how long a message may still be tried.
///
/// Between two runs only the calendar clock knows how much time went by, and a Pi's may have been
/// wrong: a message that was accepted before the clock was set keeps its whole time.
pub(super) fn time_left(created_ms: u64, expires_ms: u64, now: Now) -> Duration {
    let lifetime = expires_ms.saturating_sub(created_ms);
    let clock_was_set = created_ms >= CLOCK_SET_MS && now.unix_ms() >= CLOCK_SET_MS;
    let left = expires_ms.saturating_sub(now.unix_ms()).min(lifetime);
    Duration::from_millis(if clock_was_set { left } else { lifetime })
}

impl State {
    /// Returns whom a message is for, as people write it.
    fn addressee(&self, message: &Outgoing) -> String {
        match &message.kind {
            OutgoingKind::User { name, .. } | OutgoingKind::Client { name, .. } => name.clone(),
            OutgoingKind::Member | OutgoingKind::Letter => self.place_name(&message.recipient),
        }
    }

    pub(super) fn report_outbox(&self) -> Vec<report::Pending> {
        let queues = self.messages.queues.iter();
        let mut pending: Vec<report::Pending> = queues
            .flat_map(|(place, queue)| {
                queue.waiting.iter().map(|waiting| report::Pending {
                    id: waiting.message.id,
                    to: self.addressee(&waiting.message),
                    peer_id: Party::from(*place),
                    bytes: waiting.message.text.len(),
                    created_ms: waiting.message.created_ms,
                    expires_ms: waiting.message.expires_ms,
                    attempts: waiting.attempts,
                })
            })
            .chain(self.clients.pending())
            .collect();
        pending.sort_by_key(|p| p.created_ms);
        pending
    }
}
