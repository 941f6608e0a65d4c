//! What is on a simulated disk.

use std::{cmp::Reverse, collections::BTreeSet};

use libp2p_identity::PeerId;

use crate::{
    proto::mesh::MessageId,
    state::{
        CLOCK_SET_MS, ROW_BYTES, date_of_history,
        io::{GatewayRecord, Invite, Loaded, Outgoing, Party, Record, RecordChange},
        post::UserRecord,
    },
};

/// A message in the inbox.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) sender: PeerId,
    pub(super) id: MessageId,
    pub(super) text: String,
    at_ms: u64,
}

/// What is on a machine's disk at some moment.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) loaded: Loaded,
    pub(super) inbox: Vec<Received>,
    /// Every message that ever was in the outbox.
    pub(super) sent: BTreeSet<MessageId>,
    /// The history, the oldest first.
    history: Vec<Kept>,
    /// The dates of all messages that were ever in the history.
    dates: BTreeSet<u64>,
}

/// A message in the history.
#[derive(Clone)]
struct Kept {
    /// From whom, or `None` if it was sent from here.
    from: Option<PeerId>,
    id: MessageId,
    bytes: u64,
}

impl Disk {
    /// Returns what a start finds. As in the real store, the messages tell the date if none was
    /// written.
    pub(super) fn load(&self) -> Loaded {
        let mut loaded = self.loaded.clone();
        let of_history = || date_of_history(self.dates.iter().copied());
        loaded.date_ms = loaded.date_ms.or_else(of_history);
        loaded
    }

    pub(super) fn write(&mut self, record: Record) {
        let on = &mut self.loaded;
        match record {
            Record::JoinedMesh { certificate } => {
                on.certificate = Some(certificate);
                on.members.clear();
                on.revocations.clear();
                on.statements.clear();
                on.addresses.clear();
                on.invites.clear();
            }
            Record::Renewed { certificate } => on.certificate = Some(certificate),
            // Certificates are kept in the order in which they were learned; the last one counts.
            Record::Member { certificate, .. } => on.members.push(certificate),
            Record::Revocation { revocation, .. } => on.revocations.push(revocation),
            Record::Statement { statement, .. } => on.statements.push(statement),
            Record::Invite(invite) => {
                on.invites
                    .retain(|i: &Invite| i.secret_hash != invite.secret_hash);
                on.invites.push(invite);
            }
            Record::ForgetInvite { secret_hash } => {
                on.invites.retain(|i| i.secret_hash != secret_hash);
            }
            Record::Name { peer, name } => on.names.push((peer, name)),
            Record::Addresses { peer, addresses } => {
                on.addresses.retain(|(p, _)| *p != peer);
                on.addresses.push((peer, addresses));
            }
            Record::Outgoing(message) => {
                self.sent.insert(message.id);
                self.dates.insert(message.created_ms);
                keep(&mut self.history, None, message.id, &message.text);
                on.outbox.push(message);
            }
            Record::Outcome { id, .. } => {
                on.outbox.retain(|m: &Outgoing| m.id != id);
                on.for_clients.retain(|m| m.id != id);
            }
            Record::Incoming(message) => {
                let Party::Member(sender) = message.sender else {
                    return;
                };
                if let Some((epoch, sequence)) = message.mark {
                    on.marks.retain(|(p, e, _)| (*p, *e) != (sender, epoch));
                    on.marks.push((sender, epoch, sequence));
                }
                keep(&mut self.history, Some(sender), message.id, &message.text);
                self.dates.insert(message.received_ms);
                self.inbox.push(Received {
                    sender,
                    id: message.id,
                    text: message.text,
                    at_ms: message.received_ms,
                });
            }
            Record::Pin {
                peer,
                fingerprint,
                bits,
            } => {
                on.pins.retain(|(p, ..)| *p != peer);
                on.pins.push((peer, fingerprint, bits));
            }
            Record::Mark { sender, mark } => {
                on.marks.retain(|(p, e, _)| (*p, *e) != (sender, mark.0));
                on.marks.push((sender, mark.0, mark.1));
            }
            Record::User(mut user) => {
                let is_same = |u: &UserRecord| (&u.id, u.place) == (&user.id, user.place);
                if let Some(known) = on.users.iter().position(is_same) {
                    // As in the real store, which knows these better than a record.
                    let known = on.users.remove(known);
                    user.taken = known.taken;
                    user.registered_ms = known.registered_ms;
                }
                on.users.push(*user);
            }
            Record::ForgetPin { user, server } => {
                on.users
                    .retain(|u| (&u.id, u.place) != (&user, server.into()));
            }
            Record::ForgetUser { id, node } => {
                on.users.retain(|u| (&u.id, u.place) != (&id, node.into()));
                on.letters
                    .retain(|letter| letter.user.as_ref() != Some(&id));
            }
            Record::ForgetUsersOf { node } => on.users.retain(|u| u.place != node),
            Record::Letter(letter) => {
                on.seen.push(letter.fingerprint);
                on.letters.push(*letter);
            }
            Record::Seen(fingerprint) => on.seen.push(fingerprint),
            Record::LettersTaken { user, row } => {
                for known in on.users.iter_mut().filter(|known| known.id == user) {
                    known.taken = known.taken.max(row);
                }
                on.letters
                    .retain(|l| l.user.as_ref() != Some(&user) || l.row > row);
            }
            Record::LettersGone { rows } => on.letters.retain(|l| !rows.contains(&l.row)),
            Record::Date { unix_ms } => on.date_ms = Some(unix_ms),
            Record::Prune {
                before_ms,
                bytes_max,
            } => {
                let stays = |at_ms| at_ms < CLOCK_SET_MS || at_ms >= before_ms;
                self.inbox.retain(|message| stays(message.at_ms));
                self.prune(bytes_max);
            }
            Record::Restamp { unix_ms } => {
                let undated = self.inbox.iter_mut().filter(|m| m.at_ms < CLOCK_SET_MS);
                undated.for_each(|message| message.at_ms = unix_ms);
            }
            Record::OfGateway(gateway, change) => {
                let key = match &change {
                    RecordChange::Put(record) => &record.key,
                    RecordChange::Delete(key) => key,
                };
                let is_it =
                    |(of, record): &(_, GatewayRecord)| *of == gateway && record.key == *key;
                on.records.retain(|kept| !is_it(kept));
                if let RecordChange::Put(record) = change {
                    on.records.push((gateway, record));
                }
            }
            Record::ClientPin {
                address,
                fingerprint,
                bits,
            } => {
                on.client_pins
                    .retain(|(known, key, _)| (known, key) != (&address, &fingerprint));
                on.client_pins.push((address, fingerprint, bits));
            }
            Record::ForgetClientPin {
                address,
                fingerprint,
            } => {
                on.client_pins
                    .retain(|(known, key, _)| (known, key) != (&address, &fingerprint));
            }
            Record::ForClient(message) => on.for_clients.push(message),
            Record::Read { .. } | Record::DeleteHistory(_) => {}
        }
    }

    /// Deletes the oldest message of whoever has most, as long as there are too many.
    fn prune(&mut self, bytes_max: u64) {
        let waits = |kept: &Kept| self.loaded.outbox.iter().any(|m| m.id == kept.id);
        while self.history.iter().map(|kept| kept.bytes).sum::<u64>() > bytes_max {
            let bytes_of = |from: Option<PeerId>| {
                let of_one = self.history.iter().filter(|kept| kept.from == from);
                of_one.map(|kept| kept.bytes).sum::<u64>()
            };
            let goes = self
                .history
                .iter()
                .enumerate()
                .filter(|(_, kept)| !waits(kept));
            let heaviest = goes.max_by_key(|(at, kept)| (bytes_of(kept.from), Reverse(*at)));
            let Some((at, _)) = heaviest else { return };
            self.history.remove(at);
        }
    }

    /// Returns what the history weighs, and what of it cannot be pruned because it waits.
    pub(super) fn history_bytes(&self) -> (u64, u64) {
        let waits = |kept: &&Kept| self.loaded.outbox.iter().any(|m| m.id == kept.id);
        let all = self.history.iter().map(|kept| kept.bytes).sum();
        let waiting = self.history.iter().filter(waits).map(|kept| kept.bytes);
        (all, waiting.sum())
    }

    /// Returns what all messages of a sender weigh that ever came.
    pub(super) fn bytes_from(&self, sender: &PeerId) -> u64 {
        let of_sender = self.inbox.iter().filter(|m| m.sender == *sender);
        of_sender.map(|m| m.text.len() as u64 + ROW_BYTES).sum()
    }

    pub(super) fn received(&self, id: MessageId) -> bool {
        self.inbox.iter().any(|message| message.id == id)
    }
}

fn keep(history: &mut Vec<Kept>, from: Option<PeerId>, id: MessageId, text: &str) {
    let bytes = text.len() as u64 + ROW_BYTES;
    history.push(Kept { from, id, bytes });
}
