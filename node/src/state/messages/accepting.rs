//! From `send` to "accepted": who is meant, whether there is room, and what goes to the disk.

use crate::{
    proto::mesh::{MessageId, direct::TEXT_BYTES_MAX},
    state::{
        After, Expiry, State,
        clients::encoding_of,
        io::{
            Encoding, Endpoint, Event, Failure, ForClient, Now, Outcome, Outgoing, OutgoingKind,
            Party, Place, Recipients, Record, Reply, RequestId, SendVia, Via,
        },
        post::{LetterRecord, UserRecord},
        report,
    },
};

/// Most names in one `send`: as many as a mesh has members.
const RECIPIENTS_MAX: usize = 256;

/// Longest text to a user, in bytes: its envelope and frame are just below the 1 MiB that the old
/// clients take (`proto-specs/syft.md`, section 2).
const USER_TEXT_BYTES_MAX: usize = 785_000;

/// Messages on their way to the disk, to be accepted.
pub(in crate::state) struct Accepting {
    request: RequestId,
    messages: Vec<Outgoing>,
    /// Those for users of this very gateway are letters already.
    here: Vec<(Outgoing, LetterRecord)>,
    /// Those for clients of this node.
    for_clients: Vec<ForClient>,
    /// Users of foreign servers, as they were known and as they are from here on.
    written_to: Vec<(UserRecord, UserRecord)>,
}

impl State {
    pub(in crate::state) fn send(
        &mut self,
        request: RequestId,
        to: &Recipients,
        text: String,
        via: SendVia,
        expiry: Option<Expiry>,
        now: Now,
    ) {
        let checked = self.check_send(to, &text, via);
        let recipients = match checked {
            Ok(recipients) => recipients,
            Err(failure) => return self.effects.fail(request, failure),
        };
        if via == SendVia::P2sn {
            match recipients[0].0 {
                Endpoint::Node(peer) => return self.send_p2sn(request, peer, text),
                // A script of this node gets it over P2SN in any case.
                Endpoint::Client(_, node) if node == self.own.peer => {}
                Endpoint::User(..) | Endpoint::Client(..) => {
                    let text = "P2SN goes to members only, not to those behind their gateways";
                    return self.effects.fail(request, Failure::bad_request(text));
                }
            }
        }
        let expiry = expiry.unwrap_or(self.settings.expiry);
        let mut messages = Vec::with_capacity(recipients.len());
        let (mut here, mut for_clients) = (Vec::new(), Vec::new());
        for (recipient, encoding) in recipients {
            let name = self.full_name_of(&recipient);
            let (place, kind) = match recipient {
                Endpoint::Client(client, node) if node == self.own.peer => {
                    let text = text.clone();
                    let made = self.for_client(client.as_str(), encoding, text, expiry, None, now);
                    match made {
                        Ok(message) => for_clients.push(message),
                        Err(why) => {
                            self.release_clients(&for_clients);
                            return self.effects.fail(request, why.failure(client.as_str()));
                        }
                    }
                    continue;
                }
                Endpoint::Client(client, node) => {
                    (Place::Node(node), OutgoingKind::Client { client, name })
                }
                Endpoint::Node(peer) => (Place::Node(peer), OutgoingKind::Member),
                Endpoint::User(user, place) => (place, OutgoingKind::User { user, name }),
            };
            let message = self.outgoing(place, kind, text.clone(), expiry, now);
            match &message.kind {
                OutgoingKind::User { user, .. } if place == self.own.peer => {
                    let user = user.clone();
                    match self.own_letter(&message, &user, now) {
                        Ok(letter) => here.push((message, letter)),
                        Err(failure) => {
                            self.release_clients(&for_clients);
                            return self.effects.fail(request, failure);
                        }
                    }
                }
                _ => messages.push(message),
            }
        }
        self.messages.reserve(&messages);
        let mut records: Vec<Record> = messages.iter().cloned().map(Record::Outgoing).collect();
        let written_to = |message: &Outgoing| {
            let after = self.written_to(&message.recipient, &message.kind, now)?;
            let user = self.users.get(&after.id, after.place)?;
            Some((user.record.clone(), after))
        };
        let written_to: Vec<_> = messages.iter().filter_map(written_to).collect();
        let users = written_to.iter().map(|(_, after)| after.clone());
        records.extend(users.map(|user| Record::User(Box::new(user))));
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
        records.extend(for_clients.iter().cloned().map(Record::ForClient));
        let accepting = Accepting {
            request,
            messages,
            here,
            for_clients,
            written_to,
        };
        self.effects
            .store(records, Some(After::Accepted(accepting)));
    }

    fn check_send(
        &self,
        to: &Recipients,
        text: &str,
        via: SendVia,
    ) -> Result<Vec<(Endpoint, Encoding)>, Failure> {
        if text.len() > TEXT_BYTES_MAX {
            let text = format!(
                "a message has at most {TEXT_BYTES_MAX} bytes (1 MiB), got {}",
                text.len()
            );
            return Err(Failure::bad_request(text)
                .with_hint("send it in parts, or send where it can be found"));
        }
        let recipients = match to {
            Recipients::All => {
                let members = self.membership.members();
                let node = |peer| (Endpoint::Node(peer), Encoding::Utf8);
                members.map(|(peer, _)| node(peer)).collect()
            }
            Recipients::Named(names) => {
                check_count(names.len())?;
                let mut peers = names
                    .iter()
                    .map(|name| self.recipient_in_encoding(name))
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
        let to_user = recipients
            .iter()
            .any(|(to, _)| matches!(to, Endpoint::User(..)));
        if to_user && text.len() > USER_TEXT_BYTES_MAX {
            let got = text.len();
            return Err(Failure::bad_request(format!(
                "a message to a user of a Syft gateway has at most {USER_TEXT_BYTES_MAX} bytes, got \
                 {got}: their clients take no more"
            )));
        }
        if recipients.is_empty() {
            return Err(Failure::conflict(
                "there is nobody to send to: the mesh has no other member",
            )
            .with_hint("`pimesh invite` makes a ticket for another machine"));
        }
        if via == SendVia::P2sn && recipients.len() > 1 {
            return Err(Failure::bad_request(
                "a P2SN message goes to one peer at a time",
            ));
        }
        // Clients of this node have room of their own, and need no mesh.
        let is_own =
            |to: &Endpoint| matches!(to, Endpoint::Client(_, node) if *node == self.own.peer);
        let others = recipients.iter().filter(|(to, _)| !is_own(to)).count();
        if others > 0 && self.membership.is_revoked() {
            return Err(Failure::conflict("this node was removed from its mesh")
                .with_hint("`pimesh join TICKET` enters a mesh again"));
        }
        if others > 0 && via == SendVia::Direct {
            self.check_room(others, others.saturating_mul(text.len()))?;
        }
        Ok(recipients)
    }

    /// Finds a recipient; the text for a client of this node may be hexadecimal digits: rule P2SN-BYTES.
    fn recipient_in_encoding(&self, name: &str) -> Result<(Endpoint, Encoding), Failure> {
        let (bare, encoding) = encoding_of(name);
        if encoding == Encoding::Hex
            && let Ok(endpoint @ Endpoint::Client(..)) = self.recipient(bare)
        {
            if !matches!(&endpoint, Endpoint::Client(_, node) if *node == self.own.peer) {
                let text = format!("`{bare}` is at another node, which takes text alone");
                return Err(Failure::bad_request(text));
            }
            return Ok((endpoint, encoding));
        }
        Ok((self.recipient(name)?, Encoding::Utf8))
    }

    /// Numbers a new message.
    pub(in crate::state) fn outgoing(
        &mut self,
        recipient: Place,
        kind: OutgoingKind,
        text: String,
        expiry: Expiry,
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
            expires_ms: expiry.end_ms(now),
            kind,
            text,
        }
    }

    /// Says whether the outbox has room.
    pub(in crate::state) fn check_room(&self, count: usize, bytes: usize) -> Result<(), Failure> {
        let is_full = self.messages.count.saturating_add(count) > self.settings.outbox_count_max
            || self.messages.bytes.saturating_add(bytes) > self.settings.outbox_bytes_max;
        if !is_full {
            return Ok(());
        }
        Err(Failure::unavailable(format!(
            "the outbox is full: what waits is {} with {}",
            crate::text::count(self.messages.count, "message"),
            crate::text::count(self.messages.bytes, "byte")
        ))
        .with_hint("`pimesh outbox` shows for whom; limits are in `pimesh.toml`, [messages]"))
    }

    pub(in crate::state) fn messages_accepted(&mut self, accepted: Accepting, now: Now) {
        let Accepting {
            request,
            messages,
            here,
            for_clients,
            written_to,
        } = accepted;
        for (before, after) in written_to {
            self.user_changed(before, after, now);
        }
        let all = messages
            .iter()
            .chain(here.iter().map(|(message, _)| message));
        let reports = all.map(|message| self.report_accepted(message));
        let of_clients = for_clients.iter();
        let of_clients = of_clients.map(|message| self.report_accepted_for_client(message));
        let reports = reports.chain(of_clients).collect();
        self.effects.reply(request, Reply::Accepted(reports));
        for message in for_clients {
            self.waits_for_client(message, now);
        }
        self.queue_all(messages, now);
        for (message, letter) in here {
            self.letter_is_here(&letter);
            self.effects.event(Event::Sent(report::Sent {
                id: message.id,
                to: self.addressee(&message),
                peer_id: Party::from(message.recipient),
                outcome: Outcome::Delivered,
                at_ms: now.unix_ms(),
                attempted: true,
                warning: None,
            }));
        }
    }

    fn report_accepted(&self, message: &Outgoing) -> report::Accepted {
        report::Accepted {
            id: message.id,
            to: self.addressee(message),
            peer_id: Party::from(message.recipient),
            expires_ms: message.expires_ms,
            via: Via::Direct,
            warning: message
                .recipient
                .node()
                .and_then(|peer| self.copy_warning(&peer))
                .or_else(|| self.key_warning(message)),
        }
    }

    /// Says that another key was offered for the user that a message is for.
    fn key_warning(&self, message: &Outgoing) -> Option<String> {
        let OutgoingKind::User { user, .. } = &message.kind else {
            return None;
        };
        self.users.get(user, message.recipient)?.record.shown?;
        let name = self.known_as(user, message.recipient);
        Some(format!(
            "another key was offered for {name}, and this is encrypted with the earlier one; if the \
             new one is right, `pimesh trust {name}` and send again"
        ))
    }

    fn release_clients(&mut self, messages: &[ForClient]) {
        for message in messages {
            self.clients.release(message);
        }
    }

    pub(in crate::state) fn messages_not_accepted(&mut self, accepted: Accepting, reason: &str) {
        self.messages.release(&accepted.messages);
        self.release_clients(&accepted.for_clients);
        for (_, letter) in &accepted.here {
            self.release_letter(letter);
        }
        self.effects
            .fail(accepted.request, Failure::not_stored(reason));
    }
}

/// Says whether so many names may stand in one `send`.
fn check_count(names: usize) -> Result<(), Failure> {
    match names {
        0 => Err(Failure::bad_request("a message needs a recipient")
            .with_hint("name a member, or `all`")),
        1..=RECIPIENTS_MAX => Ok(()),
        _ => Err(Failure::bad_request(format!(
            "one `send` names at most {RECIPIENTS_MAX} recipients, got {names}"
        ))
        .with_hint("send it in parts, or to `all`")),
    }
}
