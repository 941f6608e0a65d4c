//! What members bring: judged, written to disk, and only then acknowledged.

use std::time::Duration;

use libp2p_identity::PeerId;

use crate::{
    proto::{
        mesh::{
            ClientName,
            direct::{Frame, Kind, Request, Response, Status, TEXT_BYTES_MAX},
            signed::Signed,
        },
        syft,
    },
    state::{
        After, Expiry, State,
        capacity::NoRoom,
        clients::NotForClient,
        io::{Encoding, Event, ForClient, InboundId, Incoming, NetOutput, Now, Party, Record, Via},
        letters::Arrived,
        report,
    },
};

/// Messages on their way to the disk, to be acknowledged.
pub(in crate::state) struct Receiving {
    sender: PeerId,
    inbound: InboundId,
    statuses: Vec<Status>,
    messages: Vec<Judged>,
    /// What they say to clients of this node's gateways.
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
            Arrived::ForClient(message, _) => vec![Record::ForClient(message.clone()), mark],
            Arrived::Repeated => vec![mark],
        }
    }
}

impl State {
    /// Judges the messages that a member brings, and has the good ones written to disk.
    pub(in crate::state) fn direct_request(
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
        if busy
            || !self.membership.is_good(&peer, self.believed(now))
            || self.membership.is_revoked()
        {
            return self.answer(inbound, vec![Status::TryAgain; request.messages.len()]);
        }
        if let Err(no_room) = self.check_disk() {
            self.effects.refused(Some(peer), "message", no_room.name());
            return self.answer(inbound, vec![Status::TryAgain; request.messages.len()]);
        }
        let mut statuses = Vec::with_capacity(request.messages.len());
        let mut messages: Vec<Judged> = Vec::new();
        let own_key = self.own.key.clone();
        let mut opener = syft::Opener::new(&own_key);
        // What was stored behind a message that may come again would make that one a duplicate.
        let mut is_held_up = false;
        for signed in &request.messages {
            if is_held_up {
                statuses.push(Status::TryAgain);
                continue;
            }
            let judged = self.judge_message(&peer, signed, &messages, &mut opener, now);
            let status = match judged.and_then(|message| self.within_share(message, now)) {
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
            // The same holds for a refusal for good, if this answer is lost and the request comes
            // again: the watermark says that everything up to it is stored.
            is_held_up = !matches!(status, Status::Stored | Status::Duplicate);
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
                answers.extend(self.answer_in(&message.text, peer, now));
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

    /// Takes room on the disk for a message that is good.
    fn within_share(&mut self, message: Judged, now: Now) -> Result<Judged, Status> {
        let Some((sender, bytes)) = message.arrived.share() else {
            return Ok(message);
        };
        let status = match self.take_share(&sender, bytes, now) {
            Ok(()) => return Ok(message),
            Err(NoRoom::Share) => Status::MailboxFull,
            Err(NoRoom::Disk) => Status::TryAgain,
        };
        if let Arrived::ForClient(message, _) = &message.arrived {
            self.clients.release(message);
        }
        Err(status)
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
        if !self.is_called(peer, &message.from) {
            return Err(self.misnamed(&message.from, Status::WrongSender));
        }
        if !self.is_called(&self.own.peer, &message.to) {
            return Err(self.misnamed(&message.to, Status::WrongRecipient));
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
        if let Kind::Client(client) = &frame.kind {
            let arrived = self.arrived_for_client(*peer, client, &text, &frame, now)?;
            return Ok(Judged { mark, arrived });
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
            encoding: Encoding::Utf8,
        };
        Ok(Judged {
            mark,
            arrived: Arrived::Opened(message),
        })
    }

    /// Takes a member's text for a client of this node.
    fn arrived_for_client(
        &mut self,
        peer: PeerId,
        client: &ClientName,
        text: &str,
        frame: &Frame,
        now: Now,
    ) -> Result<Arrived, Status> {
        let lifetime_ms = frame.expires_ms.saturating_sub(frame.created_ms);
        let expiry = Expiry::capped(Duration::from_millis(lifetime_ms));
        let message = self
            .for_client(
                client.as_str(),
                Encoding::Utf8,
                text.to_owned(),
                expiry,
                Some(peer),
                now,
            )
            .map_err(|refused| match refused {
                NotForClient::Unknown => Status::WrongRecipient,
                NotForClient::NoHex | NotForClient::TooLong { .. } => Status::TooLarge,
                NotForClient::Full { .. } => Status::MailboxFull,
            })?;
        Ok(Arrived::ForClient(message, peer))
    }

    /// Says whether a member, or this node, has this name, or had it: who wrote may not have heard
    /// of the new one, and the peer ids are right in any case.
    fn is_called(&self, peer: &PeerId, name: &str) -> bool {
        self.name_of_any(peer) == name || self.names.had(peer, name)
    }

    /// Judges a name that is not that of the peer. If no member has it, news of a new name may be
    /// on the way to this node, and the message must not be lost for that.
    fn misnamed(&self, name: &str, wrong: Status) -> Status {
        if self.members_named(name).is_empty() {
            Status::TryAgain
        } else {
            wrong
        }
    }

    pub(in crate::state) fn messages_received(&mut self, received: Receiving, now: Now) {
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
                Arrived::ForClient(message, _) => self.waits_for_client(message, now),
                Arrived::Repeated => self.effects.count("letter_duplicate", 1),
            }
        }
        for message in answers {
            self.waits_for_client(message, now);
        }
    }

    pub(in crate::state) fn messages_not_received(&mut self, received: Receiving) {
        let Receiving {
            sender,
            inbound,
            statuses,
            messages,
            answers,
        } = received;
        for message in &messages {
            if let Some((sender, bytes)) = message.arrived.share() {
                self.give_back_share(&sender, bytes);
            }
            match &message.arrived {
                Arrived::Kept(letter) => self.release_letter(letter),
                Arrived::ForClient(message, _) => self.clients.release(message),
                Arrived::Opened(_) | Arrived::Repeated => {}
            }
        }
        for answer in &answers {
            self.clients.release(answer);
        }
        self.messages.storing.remove(&sender);
        self.answer(inbound, vec![Status::TryAgain; statuses.len()]);
    }

    pub(in crate::state) fn report_received(&mut self, message: Incoming) {
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
            encoding: message.encoding,
        }));
    }

    fn answer(&mut self, inbound: InboundId, statuses: Vec<Status>) {
        let bytes = Response(statuses).encode();
        self.effects.net(NetOutput::Respond { id: inbound, bytes });
    }
}
