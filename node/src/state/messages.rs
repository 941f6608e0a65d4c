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
//! after a growing wait, or at once when a connection opens. The recipient knows a repeated message by its place in
//! the sender's numbering: numbers grow, and a number that is not above the last one was stored
//! already. A sender numbers anew from each start (`epoch`), so that a restored backup of its
//! disk never reuses numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{
    After, Asked, CLOCK_SET_MS, Effects, State, clients,
    io::{
        Event, Failure, ForClient, InboundId, Incoming, NetOutput, Now, OutboundId, Outcome,
        Outgoing, OutgoingKind, Party, Protocol, Recipients, Record, Reply, RequestId, Via,
    },
    letters::{Arrived, seal_to_user},
    millis, not_stored,
    post::LetterRecord,
    report,
    users::Meant,
};
use crate::proto::{
    mesh::{
        MessageId,
        direct::{
            BATCH_TEXT_BYTES_MAX, Frame, Kind, MESSAGES_MAX, Request, Response, Status,
            TEXT_BYTES_MAX,
        },
        signed::Signed,
    },
    syft::{self, UserId},
};

/// Longest wait before a request is sent again while the connection is open.
const RESEND_MAX: Duration = Duration::from_secs(60);

/// How long an answer may take before the request is sent again.
const ANSWER_TIME: Duration = Duration::from_secs(45);

/// Most numberings that are remembered of one sender. A sender begins one at each start; the least
/// recently used is forgotten.
const EPOCHS_PER_SENDER_MAX: usize = 1000;

/// Most recipients of one `send`.
const RECIPIENTS_MAX: usize = 256;

/// Longest text to a user, in bytes: its envelope and frame are just below the 1 MiB that the old
/// clients take (`proto-specs/syft.md`, section 2).
const USER_TEXT_BYTES_MAX: usize = 785_000;

/// A message in the outbox.
#[derive(Debug)]
struct Waiting {
    message: Outgoing,
    /// When to give up, on the clock that never jumps.
    deadline: Duration,
    attempts: u32,
}

/// What waits for one recipient.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    under_way: Option<UnderWay>,
    failures: u32,
    resend_at: Option<Duration>,
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
    queues: BTreeMap<PeerId, Queue>,
    epoch: u64,
    next_sequence: u64,
    /// For each sender, its numberings with their last number, the least recently used first.
    marks: BTreeMap<PeerId, Vec<(u64, u64)>>,
    /// Senders whose messages are on their way to the disk.
    storing: BTreeMap<PeerId, u32>,
    /// Messages in the outbox and on their way into it.
    count: usize,
    bytes: usize,
    received: u64,
}

/// Messages on their way to the disk, to be accepted.
pub(super) struct Accepting {
    request: RequestId,
    messages: Vec<Outgoing>,
    /// Those for users of this very door are letters already.
    here: Vec<(Outgoing, LetterRecord)>,
}

/// Messages on their way to the disk, to be acknowledged.
pub(super) struct Receiving {
    sender: PeerId,
    inbound: InboundId,
    statuses: Vec<Status>,
    messages: Vec<Judged>,
    /// What they say to clients of this node's doors.
    answers: Vec<ForClient>,
}

/// A message that is good, and the mark that it moves.
struct Judged {
    mark: (u64, u64),
    arrived: Arrived,
}

impl Judged {
    fn record(&self, sender: PeerId) -> Vec<Record> {
        let mark = Record::Mark {
            sender,
            mark: self.mark,
        };
        match &self.arrived {
            Arrived::Opened(message) => vec![Record::Incoming(message.clone())],
            Arrived::Kept(letter) => vec![Record::Letter(Box::new(letter.clone())), mark],
            Arrived::Repeated => vec![mark],
        }
    }
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

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Returns what waits for a peer, in its order.
    pub(super) fn waiting_for(&self, peer: &PeerId) -> impl Iterator<Item = &Outgoing> {
        let queue = self.queues.get(peer).into_iter();
        queue.flat_map(|queue| queue.waiting.iter().map(|waiting| &waiting.message))
    }

    pub(super) fn count_for(&self, peer: &PeerId) -> usize {
        self.queues.get(peer).map_or(0, |queue| queue.waiting.len())
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let of_queue = |queue: &Queue| {
            let overdue = queue.under_way.as_ref().map(|under_way| under_way.overdue);
            let expiry = queue.waiting.iter().map(|waiting| waiting.deadline).min();
            [overdue, queue.resend_at, expiry]
                .into_iter()
                .flatten()
                .min()
        };
        self.queues.values().filter_map(of_queue).min()
    }

    /// The connection is gone, and with it the answer.
    pub(super) fn link_lost(&mut self, peer: &PeerId) {
        if let Some(queue) = self.queues.get_mut(peer) {
            queue.under_way = None;
            queue.resend_at = None;
        }
    }

    /// Takes room in the outbox, before messages go to the disk: while it is busy, more may come.
    pub(super) fn reserve(&mut self, messages: &[Outgoing]) {
        self.count += messages.len();
        self.bytes += messages.iter().map(|m| m.text.len()).sum::<usize>();
    }

    pub(super) fn release(&mut self, messages: &[Outgoing]) {
        self.count -= messages.len();
        self.bytes -= messages.iter().map(|m| m.text.len()).sum::<usize>();
    }

    /// Queues a message for which there is room.
    fn push(&mut self, message: Outgoing, now: Now) {
        let deadline = now.mono + time_left(message.created_ms, message.expires_ms, now);
        let queue = self.queues.entry(message.recipient).or_default();
        queue.waiting.push_back(Waiting {
            message,
            deadline,
            attempts: 0,
        });
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
    pub(super) fn send(
        &mut self,
        request: RequestId,
        to: &Recipients,
        text: String,
        via: Via,
        expiry: Option<Duration>,
        now: Now,
    ) {
        if let Recipients::Named(names) = to
            && let Some(client) = names.iter().find(|name| clients::is_client(name))
        {
            if names.len() > 1 {
                let failure = Failure::bad_request("a message to a client goes to it alone");
                return self.effects.fail(request, failure);
            }
            let expiry = expiry.unwrap_or(self.settings.expiry);
            return self.send_to_client(request, client, text, expiry, now);
        }
        let checked = self.check_send(to, &text, via);
        let recipients = match checked {
            Ok(recipients) => recipients,
            Err(failure) => return self.effects.fail(request, failure),
        };
        if via == Via::P2sn {
            let Meant::Member(peer) = recipients[0] else {
                let text = "P2SN goes to members only, not to users of a door";
                return self.effects.fail(request, Failure::bad_request(text));
            };
            return self.send_p2sn(request, peer, text);
        }
        let expiry = expiry.unwrap_or(self.settings.expiry);
        let (mut messages, mut here) = (Vec::with_capacity(recipients.len()), Vec::new());
        for recipient in recipients {
            let (peer, kind) = match recipient {
                Meant::Member(peer) => (peer, OutgoingKind::Member),
                Meant::User(user, door) => {
                    let name = self.full_name(&user, door);
                    (door, OutgoingKind::User { user, name })
                }
            };
            let message = self.outgoing(peer, kind, text.clone(), expiry, now);
            match &message.kind {
                OutgoingKind::User { user, .. } if peer == self.own.peer => {
                    let user = user.clone();
                    match self.own_letter(&message, &user, now) {
                        Ok(letter) => here.push((message, letter)),
                        Err(failure) => return self.effects.fail(request, failure),
                    }
                }
                _ => messages.push(message),
            }
        }
        self.messages.reserve(&messages);
        let mut records: Vec<Record> = messages.iter().cloned().map(Record::Outgoing).collect();
        for (message, letter) in &here {
            self.reserve_letter(letter);
            records.push(Record::Outgoing(message.clone()));
            records.push(Record::Letter(Box::new(letter.clone())));
            records.push(Record::Outcome {
                id: message.id,
                outcome: Outcome::Delivered,
                at_ms: now.unix_ms(),
            });
        }
        let accepting = Accepting {
            request,
            messages,
            here,
        };
        self.effects
            .store(records, Some(After::Accepted(accepting)));
    }

    /// Numbers a new message.
    pub(super) fn outgoing(
        &mut self,
        recipient: PeerId,
        kind: OutgoingKind,
        text: String,
        expiry: Duration,
        now: Now,
    ) -> Outgoing {
        let sequence = self.messages.next_sequence;
        self.messages.next_sequence += 1;
        Outgoing {
            id: MessageId(self.effects.random()),
            recipient,
            epoch: self.messages.epoch,
            sequence,
            created_ms: now.unix_ms(),
            expires_ms: now.unix_ms() + millis(expiry),
            kind,
            text,
        }
    }

    /// Says whether the outbox has room.
    pub(super) fn check_room(&self, count: usize, bytes: usize) -> Result<(), Failure> {
        let is_full = self.messages.count + count > self.settings.outbox_count_max
            || self.messages.bytes + bytes > self.settings.outbox_bytes_max;
        if !is_full {
            return Ok(());
        }
        Err(Failure::unavailable(format!(
            "the outbox is full: {} messages with {} bytes wait",
            self.messages.count, self.messages.bytes
        ))
        .with_hint("`pimesh outbox` shows for whom; limits are in `pimesh.toml`, [messages]"))
    }

    fn check_send(&self, to: &Recipients, text: &str, via: Via) -> Result<Vec<Meant>, Failure> {
        if self.membership.is_revoked() {
            return Err(Failure::conflict("this node was removed from its mesh")
                .with_hint("`pimesh join TICKET` enters a mesh again"));
        }
        if text.len() > TEXT_BYTES_MAX {
            let text = format!("a message has at most 1 MiB, got {} bytes", text.len());
            return Err(Failure::bad_request(text).with_hint("send it as a file instead"));
        }
        let recipients = match to {
            Recipients::All => {
                let members = self.membership.members();
                members.map(|(peer, _)| Meant::Member(peer)).collect()
            }
            Recipients::Named(names) => {
                let mut peers = names
                    .iter()
                    .take(RECIPIENTS_MAX)
                    .map(|name| self.recipient(name))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut seen = Vec::new();
                peers.retain(|meant| {
                    let is_new = !seen.contains(meant);
                    seen.push(meant.clone());
                    is_new
                });
                peers
            }
        };
        let to_user = recipients.iter().any(|to| matches!(to, Meant::User(..)));
        if to_user && text.len() > USER_TEXT_BYTES_MAX {
            let got = text.len();
            return Err(Failure::bad_request(format!(
                "a message to a user of a Syft door has at most {USER_TEXT_BYTES_MAX} bytes, got \
                 {got}: their clients take no more"
            )));
        }
        if recipients.is_empty() {
            return Err(Failure::conflict(
                "there is nobody to send to: the mesh has no other member",
            )
            .with_hint("`pimesh invite` makes a ticket for another machine"));
        }
        if via == Via::P2sn && recipients.len() > 1 {
            return Err(Failure::bad_request(
                "a P2SN message goes to one peer at a time",
            ));
        }
        if via == Via::Direct {
            self.check_room(recipients.len(), recipients.len() * text.len())?;
        }
        Ok(recipients)
    }

    /// Finds a member by name or peer id, or a user.
    fn recipient(&self, text: &str) -> Result<Meant, Failure> {
        match self.resolve(text) {
            Ok(peer) => Ok(Meant::Member(peer)),
            Err(failure) => match text.parse().ok().and_then(|name| self.meant(&name)) {
                Some(Meant::Member(peer)) if peer == self.own.peer => Err(failure),
                Some(meant) => Ok(meant),
                None => self.meant_at_server(text).ok_or(failure),
            },
        }
    }

    pub(super) fn messages_accepted(&mut self, accepted: Accepting, now: Now) {
        let Accepting {
            request,
            messages,
            here,
        } = accepted;
        let all = messages
            .iter()
            .chain(here.iter().map(|(message, _)| message));
        let reports = all.map(|message| self.report_accepted(message)).collect();
        self.effects.reply(request, Reply::Accepted(reports));
        self.queue_all(messages, now);
        for (message, letter) in here {
            self.letter_is_here(&letter);
            self.effects.event(Event::Sent(report::Sent {
                id: message.id,
                to: self.addressee(&message),
                peer_id: Party::Member(message.recipient),
                outcome: Outcome::Delivered,
                at_ms: now.unix_ms(),
                attempted: true,
            }));
        }
    }

    fn report_accepted(&self, message: &Outgoing) -> report::Accepted {
        report::Accepted {
            id: message.id,
            to: self.addressee(message),
            peer_id: Party::Member(message.recipient),
            expires_ms: message.expires_ms,
            via: Via::Direct,
        }
    }

    /// Returns whom a message is for, as people write it.
    fn addressee(&self, message: &Outgoing) -> String {
        match &message.kind {
            OutgoingKind::User { name, .. } => name.clone(),
            OutgoingKind::Member | OutgoingKind::Letter => self.name_of(&message.recipient),
        }
    }

    /// Queues messages that are on disk, and sends what can be sent.
    pub(super) fn queue_all(&mut self, messages: Vec<Outgoing>, now: Now) {
        let recipients: Vec<PeerId> = messages.iter().map(|m| m.recipient).collect();
        for message in messages {
            self.messages.push(message, now);
        }
        for peer in recipients {
            self.give_up_if_removed(peer, now);
            self.transmit(peer, now);
            self.wake_server(&peer);
        }
    }

    pub(super) fn messages_not_accepted(&mut self, accepted: Accepting, reason: &str) {
        self.messages.release(&accepted.messages);
        for (_, letter) in &accepted.here {
            self.release_letter(letter);
        }
        self.effects.fail(accepted.request, not_stored(reason));
    }

    /// Sends what waits for a peer, if it is there and nothing is under way.
    pub(super) fn transmit(&mut self, peer: PeerId, now: Now) {
        if !self.links.is_open(&peer) {
            return;
        }
        let users = self.users_waited_for(peer);
        let Some(queue) = self.messages.queues.get_mut(&peer) else {
            return;
        };
        let held_back = queue.resend_at.is_some_and(|at| at > now.mono);
        if queue.under_way.is_some() || queue.waiting.is_empty() || held_back {
            return;
        }
        let Some(terms) = self.membership.terms(&peer) else {
            return;
        };
        let own_name = self.membership.own_terms().name.as_str();
        let mut sealer = None;
        let (mut frames, mut ids, mut bytes) = (Vec::new(), Vec::new(), 0);
        for waiting in queue.waiting.iter_mut().take(MESSAGES_MAX) {
            bytes += waiting.message.text.len();
            if bytes > BATCH_TEXT_BYTES_MAX && !frames.is_empty() {
                break;
            }
            waiting.attempts += 1;
            ids.push(waiting.message.id);
            let message = &waiting.message;
            let rng = &mut self.effects.rng;
            let (kind, syft) = match &message.kind {
                OutgoingKind::Letter => (Kind::Letter, message.text.clone().into_bytes()),
                OutgoingKind::User { user, .. } => {
                    // Users are never forgotten as long as messages to them wait; if one were,
                    // the other side would refuse the empty frame, and the message would end.
                    let sealed = users.get(user).map(|(to, key)| {
                        let own = (own_name, &self.own.key);
                        seal_to_user(message, to, key, own, rng).encode()
                    });
                    (Kind::Letter, sealed.unwrap_or_default())
                }
                OutgoingKind::Member => {
                    let sealer = sealer.get_or_insert_with(|| {
                        let chance = syft::SealChance::from_rng(rng);
                        syft::Sealer::new(&terms.messaging_key, &chance)
                    });
                    let chance = syft::SealChance::from_rng(rng);
                    let content = sealer.seal(&message.text, &chance);
                    let (created_ms, to) = (message.created_ms, terms.name.as_str());
                    let syft =
                        syft::Message::signed(own_name, to, content, created_ms, &self.own.key);
                    (Kind::Member, syft.encode())
                }
            };
            let frame = Frame {
                id: message.id,
                sender: self.own.peer,
                recipient: peer,
                epoch: message.epoch,
                sequence: message.sequence,
                created_ms: message.created_ms,
                expires_ms: message.expires_ms,
                syft,
                kind,
            };
            frames.push(frame.sign(&self.own.key));
        }
        let id = self.effects.ask(Asked::Direct { peer });
        queue.resend_at = None;
        queue.under_way = Some(UnderWay {
            id,
            ids,
            overdue: now.mono + ANSWER_TIME,
        });
        let bytes = Request { messages: frames }.encode();
        self.effects.net(NetOutput::Request {
            peer,
            protocol: Protocol::Direct,
            id,
            bytes,
        });
    }

    /// Returns the users of a door for whom texts of this node wait, with how each is addressed.
    fn users_waited_for(&self, door: PeerId) -> BTreeMap<UserId, (UserId, syft::PublicKey)> {
        let queue = self.messages.queues.get(&door);
        let waiting = queue.iter().flat_map(|queue| &queue.waiting);
        let user = |waiting: &Waiting| match &waiting.message.kind {
            OutgoingKind::User { user, .. } => {
                let key = self.key_of(&Meant::User(user.clone(), door))?;
                Some((user.clone(), (self.known_as(user, door), key)))
            }
            OutgoingKind::Member | OutgoingKind::Letter => None,
        };
        waiting.take(MESSAGES_MAX).filter_map(user).collect()
    }

    pub(super) fn direct_answered(
        &mut self,
        peer: PeerId,
        id: OutboundId,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let Some(queue) = self.messages.queues.get_mut(&peer) else {
            return;
        };
        // An answer that comes after its request was given up says nothing about the next one.
        let Some(under_way) = queue.under_way.take_if(|under_way| under_way.id == id) else {
            return;
        };
        let answer = result
            .map_err(drop)
            .and_then(|b| Response::decode(&b).map_err(drop));
        let statuses = answer
            .map(|Response(statuses)| statuses)
            .unwrap_or_default();
        let settled = statuses
            .iter()
            .take_while(|&&status| status != Status::TryAgain)
            .count();
        let all = settled >= under_way.ids.len();
        if all {
            queue.failures = 0;
        } else {
            queue.failures = queue.failures.saturating_add(1);
            let wait = Duration::from_secs(1u64.checked_shl(queue.failures - 1).unwrap_or(60));
            queue.resend_at = Some(now.mono + self.effects.jitter(wait.min(RESEND_MAX)));
            self.effects.count("message_resent", 1);
        }
        let outcomes = under_way.ids.iter().zip(statuses).take(settled);
        self.settle(
            peer,
            outcomes
                .map(|(id, status)| (*id, outcome_of(status)))
                .collect(),
            now,
        );
        self.transmit(peer, now);
    }

    /// Takes messages out of the outbox, with what became of each.
    pub(super) fn settle(&mut self, peer: PeerId, outcomes: Vec<(MessageId, Outcome)>, now: Now) {
        if outcomes.is_empty() {
            return;
        }
        let at_ms = now.unix_ms();
        let mut records = Vec::with_capacity(outcomes.len());
        for (id, outcome) in outcomes {
            let Some(queue) = self.messages.queues.get_mut(&peer) else {
                return;
            };
            let Some(at) = queue.waiting.iter().position(|w| w.message.id == id) else {
                continue;
            };
            let Some(waiting) = queue.waiting.remove(at) else {
                continue;
            };
            self.messages
                .release(std::slice::from_ref(&waiting.message));
            let attempted = waiting.attempts > 0;
            records.push(Record::Outcome {
                id,
                outcome: outcome.clone(),
                at_ms,
            });
            let message = &waiting.message;
            if message.kind == OutgoingKind::Letter {
                self.letter_settled(id, &message.text, peer, &outcome);
                continue;
            }
            self.effects.event(Event::Sent(report::Sent {
                id,
                to: self.addressee(message),
                peer_id: Party::Member(peer),
                outcome,
                at_ms,
                attempted,
            }));
        }
        if self
            .messages
            .queues
            .get(&peer)
            .is_some_and(|q| q.waiting.is_empty())
        {
            self.messages.queues.remove(&peer);
        }
        self.effects.store(records, None);
    }

    pub(super) fn give_up_messages_to(&mut self, peer: PeerId, why: &str, now: Now) {
        let Some(queue) = self.messages.queues.get_mut(&peer) else {
            return;
        };
        queue.under_way = None;
        let refused = |w: &Waiting| (w.message.id, Outcome::Refused(why.to_owned()));
        let outcomes = queue.waiting.iter().map(refused).collect();
        self.settle(peer, outcomes, now);
    }

    /// A message may come into the outbox after its recipient was removed: its record was on the way
    /// to the disk, or the power failed between the removal and its consequences.
    fn give_up_if_removed(&mut self, peer: PeerId, now: Now) {
        if self.membership.is_removed(&peer) {
            self.give_up_messages_to(peer, "removed", now);
        }
    }

    pub(super) fn messages_due(&mut self, now: Now) {
        let peers: Vec<PeerId> = self.messages.queues.keys().copied().collect();
        for peer in peers {
            self.give_up_if_removed(peer, now);
            self.expire(peer, now);
            let Some(queue) = self.messages.queues.get_mut(&peer) else {
                continue;
            };
            if queue
                .under_way
                .as_ref()
                .is_some_and(|u| u.overdue <= now.mono)
            {
                queue.under_way = None;
                queue.failures = queue.failures.saturating_add(1);
                self.effects.count("message_resent", 1);
            }
            if queue.resend_at.is_some_and(|at| at <= now.mono) {
                queue.resend_at = None;
            }
            self.transmit(peer, now);
        }
    }

    /// Gives up messages whose time is over, but not while an answer may still come.
    fn expire(&mut self, peer: PeerId, now: Now) {
        let Some(queue) = self.messages.queues.get_mut(&peer) else {
            return;
        };
        let under_way = queue
            .under_way
            .as_ref()
            .map(|u| u.ids.as_slice())
            .unwrap_or_default();
        let mut outcomes = Vec::new();
        for waiting in &mut queue.waiting {
            if waiting.deadline > now.mono {
                continue;
            }
            if under_way.contains(&waiting.message.id) {
                waiting.deadline = now.mono + Duration::from_secs(1);
            } else {
                outcomes.push((waiting.message.id, Outcome::Expired));
            }
        }
        self.settle(peer, outcomes, now);
    }

    /// Judges the messages that a member brings, and has the good ones written to disk.
    pub(super) fn direct_request(
        &mut self,
        peer: PeerId,
        inbound: InboundId,
        bytes: &[u8],
        now: Now,
    ) {
        let Ok(request) = Request::decode(bytes) else {
            self.effects.refused(Some(peer), "message", "malformed");
            // The first message ends for its sender; without that he would try them for ever.
            return self.answer(inbound, vec![Status::Malformed]);
        };
        // While messages of this sender are on their way to the disk, what is known of its
        // numbering is about to change.
        let busy = self.messages.storing.contains_key(&peer);
        if busy || !self.membership.is_good(&peer, now) || self.membership.is_revoked() {
            return self.answer(inbound, vec![Status::TryAgain; request.messages.len()]);
        }
        let mut statuses = Vec::with_capacity(request.messages.len());
        let mut messages: Vec<Judged> = Vec::new();
        let own_key = self.own.key.clone();
        let mut opener = syft::Opener::new(&own_key);
        for signed in &request.messages {
            let status = match self.judge_message(&peer, signed, &messages, &mut opener, now) {
                Ok(message) => {
                    if let Arrived::Kept(letter) = &message.arrived {
                        self.reserve_letter(letter);
                    }
                    messages.push(message);
                    Status::Stored
                }
                Err(status) => status,
            };
            if !matches!(status, Status::Stored | Status::Duplicate) {
                self.effects.refused(Some(peer), "message", status.name());
            } else if status == Status::Duplicate {
                self.effects.count("message_duplicate", 1);
            }
            statuses.push(status);
        }
        if messages.is_empty() {
            return self.answer(inbound, statuses);
        }
        *self.messages.storing.entry(peer).or_default() += 1;
        let mut records: Vec<Record> = messages.iter().flat_map(|m| m.record(peer)).collect();
        let mut answers = Vec::new();
        for message in &messages {
            if let Arrived::Opened(message) = &message.arrived
                && message.user.is_none()
            {
                answers.extend(self.answer_in(&message.text, now));
            }
        }
        records.extend(answers.iter().cloned().map(Record::ForClient));
        let receiving = Receiving {
            sender: peer,
            inbound,
            statuses,
            messages,
            answers,
        };
        self.effects
            .store(records, Some(After::Received(receiving)));
    }

    fn judge_message(
        &mut self,
        peer: &PeerId,
        signed: &Signed,
        earlier: &[Judged],
        opener: &mut syft::Opener<'_>,
        now: Now,
    ) -> Result<Judged, Status> {
        let frame = Frame::decode(signed).map_err(|_| Status::Malformed)?;
        let terms = self.membership.terms(peer).ok_or(Status::TryAgain)?;
        Frame::verify(signed, &terms.messaging_key).map_err(|_| Status::WrongSignature)?;
        if frame.sender != *peer {
            return Err(Status::WrongSender);
        }
        if frame.recipient != self.own.peer {
            return Err(Status::WrongRecipient);
        }
        let in_batch = |m: &Judged| m.mark.0 == frame.epoch && frame.sequence <= m.mark.1;
        if self.messages.has(peer, frame.epoch, frame.sequence) || earlier.iter().any(in_batch) {
            return Err(Status::Duplicate);
        }
        let mark = (frame.epoch, frame.sequence);
        if frame.kind == Kind::Letter {
            let mut arrived = self.judge_letter(*peer, frame.id, &frame.syft, now)?;
            if let Arrived::Opened(message) = &mut arrived {
                message.mark = Some(mark);
            }
            return Ok(Judged { mark, arrived });
        }
        let message = syft::Message::decode(&frame.syft).map_err(|_| Status::Malformed)?;
        if message.from != terms.name.as_str() {
            return Err(Status::WrongSender);
        }
        if message.to != self.membership.own_terms().name.as_str() {
            return Err(Status::WrongRecipient);
        }
        message
            .verify(&terms.messaging_key)
            .map_err(|_| Status::WrongSignature)?;
        let text = opener
            .open(&message.content)
            .map_err(|_| Status::CannotOpen)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(Status::TooLarge);
        }
        let message = Incoming {
            id: frame.id,
            sender: Party::Member(*peer),
            user: None,
            mark: Some(mark),
            created_ms: frame.created_ms,
            received_ms: now.unix_ms(),
            via: Via::Direct,
            text: text.to_string(),
        };
        Ok(Judged {
            mark,
            arrived: Arrived::Opened(message),
        })
    }

    pub(super) fn messages_received(&mut self, received: Receiving, now: Now) {
        let Receiving {
            sender,
            inbound,
            statuses,
            messages,
            answers,
        } = received;
        self.messages.storing.remove(&sender);
        self.answer(inbound, statuses);
        for Judged { mark, arrived } in messages {
            self.messages.mark(sender, mark.0, mark.1);
            match arrived {
                Arrived::Opened(message) => self.report_received(message),
                Arrived::Kept(letter) => self.letter_is_here(&letter),
                Arrived::Repeated => self.effects.count("letter_duplicate", 1),
            }
        }
        self.answers_stored(answers, now);
    }

    pub(super) fn report_received(&mut self, message: Incoming) {
        self.messages.received += 1;
        let from = match &message.user {
            Some(user) => user.clone(),
            None => self.name_of_party(&message.sender),
        };
        self.effects.event(Event::Received(report::Received {
            id: message.id,
            from,
            peer_id: message.sender,
            created_ms: message.created_ms,
            received_ms: message.received_ms,
            via: message.via,
            text: message.text,
        }));
    }

    pub(super) fn messages_not_received(&mut self, received: Receiving) {
        let Receiving {
            sender,
            inbound,
            statuses,
            messages,
            answers,
        } = received;
        for message in &messages {
            if let Arrived::Kept(letter) = &message.arrived {
                self.release_letter(letter);
            }
        }
        self.answers_not_stored(&answers);
        self.messages.storing.remove(&sender);
        self.answer(inbound, vec![Status::TryAgain; statuses.len()]);
    }

    fn answer(&mut self, inbound: InboundId, statuses: Vec<Status>) {
        let bytes = Response(statuses).encode();
        self.effects.net(NetOutput::Respond { id: inbound, bytes });
    }

    pub(super) fn report_outbox(&self) -> Vec<report::Pending> {
        let queues = self.messages.queues.iter();
        let mut pending: Vec<report::Pending> = queues
            .flat_map(|(peer, queue)| {
                queue.waiting.iter().map(|waiting| report::Pending {
                    id: waiting.message.id,
                    to: self.addressee(&waiting.message),
                    peer_id: Party::Member(*peer),
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

fn outcome_of(status: Status) -> Outcome {
    match status {
        Status::Stored | Status::Duplicate => Outcome::Delivered,
        Status::TryAgain
        | Status::Malformed
        | Status::WrongSignature
        | Status::WrongSender
        | Status::WrongRecipient
        | Status::CannotOpen
        | Status::TooLarge
        | Status::MailboxFull => Outcome::Refused(status.name().to_owned()),
    }
}
