//! From the outbox to the recipient: requests, their answers, and giving up.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{Queue, UnderWay, Waiting};
use crate::{
    proto::{
        mesh::{
            MessageId,
            direct::{BATCH_TEXT_BYTES_MAX, Frame, Kind, MESSAGES_MAX, Request, Response, Status},
        },
        syft::{self, UserId, letter::Letter},
    },
    state::{
        Asked, State,
        io::{
            Endpoint, Event, NetOutput, Now, OutboundId, Outcome, Outgoing, OutgoingKind, Party,
            Place, Protocol, Record,
        },
        letters::seal_to_user,
        report,
    },
};

/// Longest wait before a request is sent again while the connection is open.
const RESEND_MAX: Duration = Duration::from_secs(60);

/// How long an answer may take before the request is sent again.
const ANSWER_TIME: Duration = Duration::from_secs(45);

/// How long a text to a user waits after its gateway said that there is no such user: news of
/// another name of one of the two are told each minute.
const UNKNOWN_USER_TIME: Duration = Duration::from_secs(2 * 60);

/// How long messages of one kind, for which keys or names do not come right, hold up those of another
/// kind: a new certificate spreads within a minute, and a lost key file may take a person longer.
const HELD_UP_MAX: Duration = Duration::from_secs(60 * 60);

impl State {
    /// Queues messages that are on disk, and sends what can be sent.
    pub(in crate::state) fn queue_all(&mut self, messages: Vec<Outgoing>, now: Now) {
        let recipients: Vec<Place> = messages.iter().map(|m| m.recipient).collect();
        // The clock may have leapt ahead while they were written.
        let believed = self.believed(now);
        for message in messages {
            self.messages.push(message, believed);
        }
        for place in recipients {
            self.give_up_if_moved(&place, now);
            match place {
                Place::Node(peer) => {
                    self.give_up_if_removed(peer, now);
                    self.transmit(peer, now);
                }
                Place::Server(server) => self.wake_server(server),
            }
        }
    }

    /// Sends what waits for a peer, if it is there and nothing is under way.
    pub(in crate::state) fn transmit(&mut self, peer: PeerId, now: Now) {
        if !self.links.is_open(&peer) {
            return;
        }
        let is_ready = self.messages.of_node(&peer).is_some_and(|queue| {
            let held_back = queue.resend_at.is_some_and(|at| at > now.mono);
            queue.under_way.is_none() && !queue.waiting.is_empty() && !held_back
        });
        if !is_ready {
            return;
        }
        if let Some(until) = self.waits_for_comparison(&peer, now) {
            return self.messages.hold_back(&peer, until);
        }
        let users = self.users_waited_for(peer);
        let Some(queue) = self.messages.of_node_mut(&peer) else {
            return;
        };
        let Some(terms) = self.membership.terms(&peer) else {
            return;
        };
        let own_name = self.membership.own_terms().name.as_str();
        let mut sealer = None;
        let (mut frames, mut ids, mut bytes) = (Vec::new(), Vec::new(), 0);
        queue.waiting.attempt(|waiting| {
            bytes += waiting.message.text.len();
            let is_enough = bytes > BATCH_TEXT_BYTES_MAX && !frames.is_empty();
            if is_enough || frames.len() >= MESSAGES_MAX {
                return false;
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
                OutgoingKind::Member | OutgoingKind::Client { .. } => {
                    let sealer = sealer.get_or_insert_with(|| {
                        let chance = syft::SealChance::from_rng(rng);
                        syft::Sealer::new(&terms.messaging_key, &chance)
                    });
                    let chance = syft::SealChance::from_rng(rng);
                    let content = sealer.seal(&message.text, &chance);
                    let (created_ms, to) = (message.created_ms, terms.name.as_str());
                    let syft =
                        syft::Message::signed(own_name, to, content, created_ms, &self.own.key);
                    let kind = match &message.kind {
                        OutgoingKind::Client { client, .. } => Kind::Client(client.clone()),
                        _ => Kind::Member,
                    };
                    (kind, syft.encode())
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
            true
        });
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

    /// Returns the users of a gateway for whom texts of this node wait, with how each is addressed.
    fn users_waited_for(&self, gateway: PeerId) -> BTreeMap<UserId, (UserId, syft::PublicKey)> {
        let queue = self.messages.of_node(&gateway);
        let waiting = queue.iter().flat_map(|queue| queue.waiting.iter());
        let user = |waiting: &Waiting| match &waiting.message.kind {
            OutgoingKind::User { user, .. } => {
                let key = self.key_of(&Endpoint::user(user.clone(), gateway))?;
                Some((user.clone(), (self.known_as(user, gateway), key)))
            }
            OutgoingKind::Member | OutgoingKind::Client { .. } | OutgoingKind::Letter => None,
        };
        waiting.take(MESSAGES_MAX).filter_map(user).collect()
    }

    pub(in crate::state) fn direct_answered(
        &mut self,
        peer: PeerId,
        id: OutboundId,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let Some(queue) = self.messages.of_node_mut(&peer) else {
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
        let is_letter = |id: &MessageId| {
            let waiting = queue.waiting.get(*id);
            waiting.is_some_and(|w| w.message.kind == OutgoingKind::Letter)
        };
        let are_letters: Vec<bool> = under_way.ids.iter().map(is_letter).collect();
        let mut settled = settled(&statuses, &are_letters);
        if statuses.iter().any(is_taken) {
            queue.held_up_since = None;
        }
        let next = under_way.ids.get(settled).zip(statuses.get(settled));
        if let Some((id, status)) = next
            && queue.has_held_up_long_enough(*id, *status, now)
        {
            settled += 1;
        } else if let Some(status) = statuses.get(settled).filter(|&&s| s != Status::TryAgain) {
            self.effects
                .refused(Some(peer), "own_message", status.name());
        }
        let all = settled >= under_way.ids.len();
        if all || settled > 0 {
            // The first one that was not taken comes first in the next request.
            queue.failures = 0;
        } else {
            queue.failures = queue.failures.saturating_add(1);
            let wait = Duration::from_secs(1u64.checked_shl(queue.failures - 1).unwrap_or(60));
            queue.resend_at = Some(now.mono + self.effects.jitter(wait.min(RESEND_MAX)));
            self.effects.count("message_resent", 1);
        }
        let outcomes = under_way.ids.iter().zip(statuses).take(settled);
        self.settle(
            Place::Node(peer),
            outcomes
                .map(|(id, status)| (*id, outcome_of(status)))
                .collect(),
            now,
        );
        self.transmit(peer, now);
    }

    pub(in crate::state) fn messages_due(&mut self, now: Now) {
        let places: Vec<Place> = self.messages.recipients().collect();
        for place in places {
            self.expire(place, now);
            let Place::Node(peer) = place else { continue };
            self.give_up_if_removed(peer, now);
            let Some(queue) = self.messages.of_node_mut(&peer) else {
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
    fn expire(&mut self, place: Place, now: Now) {
        let Some(queue) = self.messages.queues.get_mut(&place) else {
            return;
        };
        let under_way = queue
            .under_way
            .as_ref()
            .map(|u| u.ids.as_slice())
            .unwrap_or_default();
        let mut outcomes = Vec::new();
        for id in queue.waiting.due(now.mono) {
            if under_way.contains(&id) {
                let later = now.mono + Duration::from_secs(1);
                queue.waiting.put_off(id, later);
            } else {
                outcomes.push((id, Outcome::Expired));
            }
        }
        self.settle(place, outcomes, now);
    }

    /// A message may come into the outbox after its recipient was removed: its record was on the way
    /// to the disk, or the power failed between the removal and its consequences.
    fn give_up_if_removed(&mut self, peer: PeerId, now: Now) {
        if self.membership.is_removed(&peer) {
            self.give_up_messages_to(peer, "removed", now);
        }
    }

    pub(in crate::state) fn give_up_messages_to(&mut self, peer: PeerId, why: &str, now: Now) {
        let Some(queue) = self.messages.of_node_mut(&peer) else {
            return;
        };
        queue.under_way = None;
        let refused = |w: &Waiting| (w.message.id, Outcome::Refused(why.to_owned()));
        let outcomes = queue.waiting.iter().map(refused).collect();
        self.settle(Place::Node(peer), outcomes, now);
    }

    /// A user of this gateway is gone. Nothing takes the user's messages any more, and they would
    /// hold up what is behind them.
    pub(in crate::state) fn give_up_messages_of(&mut self, user: &UserId, now: Now) {
        let is_his = |waiting: &&Waiting| {
            let message = &waiting.message;
            let letter = Letter::decode(message.text.as_bytes());
            message.kind == OutgoingKind::Letter
                && letter.is_ok_and(|letter| self.local(&letter.from).as_ref() == Some(user))
        };
        let mut all = Vec::new();
        for (place, queue) in &self.messages.queues {
            let his = queue.waiting.iter().filter(is_his);
            let ended = his.map(|w| (w.message.id, Outcome::Refused("user_gone".to_owned())));
            all.push((*place, ended.collect::<Vec<_>>()));
        }
        for (place, ended) in all.into_iter().filter(|(_, ended)| !ended.is_empty()) {
            if let Some(queue) = self.messages.queues.get_mut(&place) {
                queue.under_way = None;
            }
            self.settle(place, ended, now);
            if let Place::Node(peer) = place {
                self.transmit(peer, now);
            }
        }
    }

    /// Takes messages out of the outbox, with what became of each.
    pub(in crate::state) fn settle(
        &mut self,
        place: Place,
        outcomes: Vec<(MessageId, Outcome)>,
        now: Now,
    ) {
        if outcomes.is_empty() {
            return;
        }
        let at_ms = now.unix_ms();
        let mut records = Vec::with_capacity(outcomes.len());
        for (id, outcome) in outcomes {
            let Some(queue) = self.messages.queues.get_mut(&place) else {
                return;
            };
            let Some(waiting) = queue.waiting.remove(id) else {
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
                if let Place::Node(peer) = place {
                    self.letter_settled(id, &message.text, peer, &outcome);
                }
                continue;
            }
            self.effects.event(Event::Sent(report::Sent {
                id,
                to: self.addressee(message),
                peer_id: Party::from(place),
                outcome,
                at_ms,
                attempted,
                warning: place.node().and_then(|peer| self.copy_warning(&peer)),
            }));
        }
        if self
            .messages
            .queues
            .get(&place)
            .is_some_and(|q| q.waiting.is_empty())
        {
            self.messages.queues.remove(&place);
        }
        self.effects.store(records, None);
    }
}

/// Returns how many of the messages of a request have come to an end.
///
/// A message whose keys or names do not fit is tried again, sealed and signed anew: a certificate
/// may be on its way, or a lost key is restored. A letter is carried as its client wrote it and will
/// not change. Nor is anything tried again once the recipient has taken what stands behind it: it
/// would be a duplicate there.
fn settled(statuses: &[Status], are_letters: &[bool]) -> usize {
    let taken = statuses.iter().rposition(is_taken);
    let is_settled = |at: usize, status: Status| {
        let is_letter = are_letters.get(at).copied().unwrap_or_default();
        let is_overtaken = taken.is_some_and(|taken| at < taken);
        status != Status::TryAgain && (!status.may_pass() || is_letter || is_overtaken)
    };
    let mut all = statuses.iter().enumerate();
    all.position(|(at, status)| !is_settled(at, *status))
        .unwrap_or(statuses.len())
}

const fn is_taken(status: &Status) -> bool {
    matches!(status, Status::Stored | Status::Duplicate)
}

impl Queue {
    /// Notes that the first message was not taken, and says whether it has to end for that, because
    /// nothing behind it is taken, either.
    ///
    /// What stands behind it and is of the same kind would not be taken if it came first, except to
    /// another user. So it waits as long as it may, unless it is in the way of others.
    fn has_held_up_long_enough(&mut self, id: MessageId, status: Status, now: Now) -> bool {
        let Some(first) = self.waiting.get(id).filter(|_| status != Status::TryAgain) else {
            return false;
        };
        let since = *self.held_up_since.get_or_insert(now.mono);
        let kind = &first.message.kind;
        let is_user = matches!(
            kind,
            OutgoingKind::User { .. } | OutgoingKind::Client { .. }
        );
        if is_user && status == Status::WrongRecipient {
            return now.mono >= since + UNKNOWN_USER_TIME;
        }
        let kind = std::mem::discriminant(&first.message.kind);
        let is_other = |w: &Waiting| std::mem::discriminant(&w.message.kind) != kind;
        now.mono >= since + HELD_UP_MAX && self.waiting.iter().any(is_other)
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
