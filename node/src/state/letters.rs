//! Letters of Syft users: from "accepted" on a disk to a client that has them.
//!
//! ```text
//!   client ─▶ post ─┬─▶ a user here:        Store ─▶ mailbox ─▶ his clients ─▶ taken: read
//!                   ├─▶ everybody here:     Store ─▶ broadcasts, each user at his own row
//!                   ├─▶ this node:          opened, Store ─▶ inbox
//!                   └─▶ another gateway:       outbox (messages.rs), unopened
//! ```
//!
//! A letter has a row; rows grow. A user's letters are those addressed to him and the broadcasts of
//! others, in the order of their rows, and he has all up to one row: that is all there is to know
//! for "in order" and "once". The frames stay on disk: the state knows rows and
//! lengths, and gateways read the frames from the store.

mod posting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use libp2p_identity::PeerId;

pub(super) use self::posting::{Posting, seal_to_user};
use super::{
    CLOCK_SET_MS, State,
    capacity::weight,
    io::{
        Encoding, Endpoint, Event, Failure, ForClient, Incoming, Now, Outcome, Party, Record, Via,
    },
    millis,
    post::{LetterNews, LetterRecord, Stage, UserRecord},
};
use crate::proto::{
    mesh::{MessageId, direct},
    syft::{
        self, UserId,
        letter::{Addressee, Fingerprint, Letter},
    },
};

/// Letters that are known as carried, so that a repetition is carried once: an hour of a busy mesh,
/// and 4 MiB of memory.
pub const FINGERPRINTS_MAX: usize = 65_536;

/// Broadcasts that are kept for users who are away.
const BROADCASTS_MAX: usize = 1_000;

/// Their bytes.
const BROADCAST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the state knows of a letter on disk.
#[derive(Debug)]
struct Waiting {
    id: MessageId,
    node: PeerId,
    from: String,
    bytes: usize,
    at_ms: u64,
}

/// What waits for one user of this gateway.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    rows: BTreeMap<u64, Waiting>,
    bytes: usize,
    /// The last row that he has.
    taken: u64,
}

/// Whose messages wait here, for the shares of the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// All users of another gateway: it names them as it likes.
    Gateway(PeerId),
    /// A user of this one.
    User(String),
}

/// All letters on this disk.
#[derive(Default)]
pub(super) struct Letters {
    own: Option<PeerId>,
    mailboxes: BTreeMap<UserId, Mailbox>,
    broadcasts: BTreeMap<u64, Waiting>,
    broadcast_bytes: usize,
    /// What waits of each holder weighs, and all together.
    held: BTreeMap<Holder, u64>,
    held_bytes: u64,
    next_row: u64,
    seen: BTreeSet<Fingerprint>,
    seen_order: VecDeque<Fingerprint>,
}

/// A letter that was taken out: its row, for whom it was unless for all, and what it was.
type Gone = (u64, Option<UserId>, Waiting);

/// What becomes of a letter that came.
pub(super) enum Arrived {
    /// It waits for a user here, or for all.
    Kept(LetterRecord),
    /// It was for this node itself.
    Opened(Incoming),
    /// It waits for a client of this node that has no key; this member brought it.
    ForClient(ForClient, PeerId),
    /// It was here before.
    Repeated,
}

impl Arrived {
    /// Returns out of whose share it comes, and its bytes there.
    pub(super) fn share(&self) -> Option<(Party, usize)> {
        match self {
            Self::Kept(letter) => Some((Party::Member(letter.node), letter.frame.len())),
            Self::Opened(message) => Some((message.sender.clone(), message.text.len())),
            Self::ForClient(message, node) => Some((Party::Member(*node), message.text.len())),
            Self::Repeated => None,
        }
    }
}

impl Letters {
    pub(super) fn load(
        users: &[UserRecord],
        letters: Vec<LetterRecord>,
        seen: Vec<Fingerprint>,
        own: PeerId,
    ) -> Self {
        let mut all = Self {
            own: Some(own),
            next_row: 1,
            ..Self::default()
        };
        for user in users.iter().filter(|user| user.place == own) {
            all.begin(user);
            all.next_row = all.next_row.max(user.taken.saturating_add(1));
        }
        for letter in &letters {
            all.keep(letter);
        }
        for fingerprint in seen {
            all.see(fingerprint);
        }
        all
    }

    /// Makes the mailbox of a user of this gateway.
    pub(super) fn begin(&mut self, user: &UserRecord) {
        let mailbox = self.mailboxes.entry(user.id.clone()).or_default();
        mailbox.taken = user.taken;
    }

    /// Removes it, with all that is in it; returns the rows of that.
    pub(super) fn end(&mut self, user: &UserId) -> Vec<u64> {
        self.take(user).rows.into_keys().collect()
    }

    /// Takes the mailbox of a user out.
    pub(super) fn take(&mut self, user: &UserId) -> Mailbox {
        let mailbox = self.mailboxes.remove(user).unwrap_or_default();
        for waiting in mailbox.rows.values() {
            self.let_go(waiting);
        }
        mailbox
    }

    /// Puts it back.
    pub(super) fn put_back(&mut self, user: &UserId, mailbox: Mailbox) {
        for waiting in mailbox.rows.values() {
            self.hold(waiting);
        }
        self.mailboxes.insert(user.clone(), mailbox);
    }

    pub(super) const fn last_row(&self) -> u64 {
        self.next_row - 1
    }

    pub(super) fn taken_by(&self, user: &UserId) -> u64 {
        self.mailboxes.get(user).map_or(0, |mailbox| mailbox.taken)
    }

    pub(super) fn count_for(&self, user: &UserId, is_here: bool) -> usize {
        let mailbox = self.mailboxes.get(user).filter(|_| is_here);
        mailbox.map_or(0, |mailbox| mailbox.rows.len())
    }

    fn keep(&mut self, letter: &LetterRecord) {
        self.next_row = self.next_row.max(letter.row.saturating_add(1));
        let waiting = Waiting {
            id: letter.id,
            node: letter.node,
            from: letter.from.clone(),
            bytes: letter.bytes,
            at_ms: letter.at_ms,
        };
        match &letter.user {
            None => {
                self.hold(&waiting);
                self.broadcast_bytes += letter.bytes;
                self.broadcasts.insert(letter.row, waiting);
            }
            Some(user) => {
                if self.mailboxes.contains_key(user) {
                    self.hold(&waiting);
                }
                if let Some(mailbox) = self.mailboxes.get_mut(user) {
                    mailbox.bytes += letter.bytes;
                    mailbox.rows.insert(letter.row, waiting);
                }
            }
        }
    }

    fn drop_again(&mut self, letter: &LetterRecord) {
        let gone = match &letter.user {
            None => {
                let gone = self.broadcasts.remove(&letter.row);
                self.broadcast_bytes -= gone.as_ref().map_or(0, |waiting| waiting.bytes);
                gone
            }
            Some(user) => self.mailboxes.get_mut(user).and_then(|mailbox| {
                let gone = mailbox.rows.remove(&letter.row)?;
                mailbox.bytes -= gone.bytes;
                Some(gone)
            }),
        };
        if let Some(waiting) = gone {
            self.let_go(&waiting);
        }
    }

    fn holder(&self, gateway: PeerId, from: &str) -> Holder {
        if self.own == Some(gateway) {
            Holder::User(from.to_owned())
        } else {
            Holder::Gateway(gateway)
        }
    }

    fn hold(&mut self, waiting: &Waiting) {
        let holder = self.holder(waiting.node, &waiting.from);
        *self.held.entry(holder).or_default() += weight(waiting.bytes);
        self.held_bytes += weight(waiting.bytes);
    }

    fn let_go(&mut self, waiting: &Waiting) {
        let holder = self.holder(waiting.node, &waiting.from);
        self.held_bytes -= weight(waiting.bytes);
        if let Some(held) = self.held.get_mut(&holder) {
            *held -= weight(waiting.bytes);
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }

    /// Says whether a message of so many bytes has room on the disk: one holder has at most half of
    /// what the others leave, so that there is always some for another one.
    fn has_room(&self, gateway: PeerId, from: &str, bytes: usize, bytes_max: u64) -> bool {
        let holder = self.holder(gateway, from);
        let held = self.held.get(&holder).copied().unwrap_or_default();
        let left = bytes_max.saturating_sub(self.held_bytes - held);
        held.saturating_add(weight(bytes)) <= left / 2
    }

    fn see(&mut self, fingerprint: Fingerprint) {
        if self.seen.insert(fingerprint) {
            self.seen_order.push_back(fingerprint);
        }
        if self.seen_order.len() > FINGERPRINTS_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    fn forget(&mut self, fingerprint: Fingerprint) {
        if self.seen.remove(&fingerprint) {
            self.seen_order.retain(|known| *known != fingerprint);
        }
    }

    /// Takes letters out that have waited too long.
    fn prune(&mut self, now_ms: u64, age_max_ms: u64) -> Vec<Gone> {
        let mut gone = Vec::new();
        for (user, mailbox) in &mut self.mailboxes {
            for (row, waiting) in take_old(&mut mailbox.rows, now_ms, age_max_ms) {
                mailbox.bytes -= waiting.bytes;
                gone.push((row, Some(user.clone()), waiting));
            }
        }
        for (row, waiting) in take_old(&mut self.broadcasts, now_ms, age_max_ms) {
            self.broadcast_bytes -= waiting.bytes;
            gone.push((row, None, waiting));
        }
        for (.., waiting) in &gone {
            self.let_go(waiting);
        }
        gone
    }

    /// Takes broadcasts out as long as there are too many: the first ones of the gateway that has
    /// most, and there of the user who has most. Returns their rows.
    fn prune_broadcasts(&mut self) -> Vec<u64> {
        let mut rows = Vec::new();
        loop {
            let first = if self.broadcast_bytes > BROADCAST_BYTES_MAX {
                self.first_of_heaviest(|waiting| waiting.bytes)
            } else if self.broadcasts.len() > BROADCASTS_MAX {
                self.first_of_heaviest(|_| 1)
            } else {
                None
            };
            let Some((row, waiting)) =
                first.and_then(|row| Some((row, self.broadcasts.remove(&row)?)))
            else {
                return rows;
            };
            self.broadcast_bytes -= waiting.bytes;
            self.let_go(&waiting);
            rows.push(row);
        }
    }

    fn first_of_heaviest(&self, amount: impl Fn(&Waiting) -> usize) -> Option<u64> {
        let all = || self.broadcasts.iter();
        let gateway = heaviest(all().map(|(_, w)| (w.node, amount(w))))?;
        let its = || all().filter(|(_, w)| w.node == gateway);
        let from = heaviest(its().map(|(_, w)| (w.from.as_str(), amount(w))))?;
        its().find(|(_, w)| w.from == from).map(|(row, _)| *row)
    }
}

/// Returns whose amounts are the largest together.
fn heaviest<K: Ord + Copy>(amounts: impl Iterator<Item = (K, usize)>) -> Option<K> {
    let mut sums = BTreeMap::<K, usize>::new();
    for (key, amount) in amounts {
        *sums.entry(key).or_default() += amount;
    }
    let heaviest = sums.into_iter().max_by_key(|(_, sum)| *sum);
    heaviest.map(|(key, _)| key)
}

/// Takes rows out that are too old. One that came while the clock was not set waits from the first
/// look after that.
fn take_old(
    rows: &mut BTreeMap<u64, Waiting>,
    now_ms: u64,
    age_max_ms: u64,
) -> Vec<(u64, Waiting)> {
    for waiting in rows.values_mut() {
        if waiting.at_ms < CLOCK_SET_MS {
            waiting.at_ms = now_ms;
        }
    }
    let is_old = |waiting: &Waiting| waiting.at_ms < now_ms.saturating_sub(age_max_ms);
    let old = rows.iter().filter(|(_, waiting)| is_old(waiting));
    let old: Vec<u64> = old.map(|(row, _)| *row).collect();
    let take = |row| rows.remove(&row).map(|waiting| (row, waiting));
    old.into_iter().filter_map(take).collect()
}

impl State {
    /// A letter is on this disk: clients may read it, and its sender may know.
    pub(super) fn letter_is_here(&mut self, letter: &LetterRecord) {
        let to = letter.user.as_ref();
        if to.is_none() {
            self.prune_broadcasts();
        }
        self.effects.event(Event::LetterWaits {
            user: letter.user.clone(),
        });
        self.effects.event(Event::Letter(LetterNews {
            id: letter.id,
            from: letter.from.clone(),
            to: to.map_or_else(|| "broadcast".to_owned(), ToString::to_string),
            stage: Stage::Delivered,
        }));
    }

    /// Makes the record of a letter for a user of this gateway, or for all of them.
    fn kept(
        &mut self,
        letter: &Letter,
        id: MessageId,
        node: PeerId,
        to: Option<&UserId>,
        sender: Option<&UserId>,
        now: Now,
    ) -> Result<LetterRecord, (&'static str, Failure)> {
        let frame = letter.encode();
        let from = letter.from.to_string();
        let bytes_max = self.letters_limit();
        if !self.letters.has_room(node, &from, frame.len(), bytes_max) {
            let text = "The messages that wait for users take too much of the node's disk.";
            return Err(("mailbox_full", Failure::unavailable(text)));
        }
        if let Some(to) = to {
            let limits = &self.settings.letters;
            let mailbox = self.letters.mailboxes.get(to);
            let (count, bytes) = mailbox.map_or((0, 0), |m| (m.rows.len(), m.bytes));
            if count >= limits.count_max || bytes + frame.len() > limits.bytes_max {
                let text = format!(
                    "{to} is away and has {} with {} waiting; no more are kept.",
                    crate::text::count(count, "message"),
                    crate::text::count(bytes, "byte"),
                );
                return Err(("mailbox_full", Failure::unavailable(text)));
            }
        }
        let row = self.letters.next_row;
        self.letters.next_row += 1;
        Ok(LetterRecord {
            row,
            id,
            user: to.cloned(),
            sender: sender.cloned(),
            from,
            node,
            at_ms: now.unix_ms(),
            fingerprint: letter.fingerprint(),
            bytes: frame.len(),
            frame,
        })
    }

    /// Opens a letter that is for this node itself.
    fn open_letter(
        &self,
        letter: &Letter,
        id: MessageId,
        node: PeerId,
        user: &UserId,
        now: Now,
    ) -> Result<Incoming, &'static str> {
        if !letter.is_signed() {
            return Err("unsigned");
        }
        let text = syft::open(letter.content(), &self.own.key).map_err(|_| "cannot_open")?;
        if text.len() > direct::TEXT_BYTES_MAX {
            return Err("too_large");
        }
        Ok(Incoming {
            id,
            sender: Party::Member(node),
            user: Some(self.full_name(user, node)),
            mark: None,
            created_ms: now.unix_ms(),
            received_ms: now.unix_ms(),
            via: Via::Syft,
            text: text.to_string(),
            encoding: Encoding::Utf8,
        })
    }

    /// Judges a letter that a gateway brought. It was signed by the gateway; what its user signed is
    /// verified once more with the key that is pinned for him.
    pub(super) fn judge_letter(
        &mut self,
        node: PeerId,
        id: MessageId,
        bytes: &[u8],
        now: Now,
    ) -> Result<Arrived, direct::Status> {
        use direct::Status;
        let mut letter = Letter::decode(bytes).map_err(|_| Status::Malformed)?;
        let from = self.sender_at(node, &letter.from)?;
        let key = self.key_of(&from).ok_or(Status::TryAgain)?;
        // What a node says under its own name needs no signature, unless a user here has that name.
        if matches!(from, Endpoint::Node(_))
            && !letter.is_signed()
            && matches!(self.meant(&letter.from), Some(Endpoint::User(..)))
        {
            return Err(Status::WrongSender);
        }
        letter.check(&key).map_err(|_| Status::WrongSignature)?;
        if self.letters.seen.contains(&letter.fingerprint()) {
            return Ok(Arrived::Repeated);
        }
        let here = self.own.peer;
        let to = match &letter.to {
            Addressee::Broadcast => None,
            Addressee::User(name) => match self.meant(name).or_else(|| self.meant_here(name)) {
                Some(Endpoint::User(user, at)) if at == here => Some(user),
                Some(Endpoint::Node(peer)) if peer == here => {
                    let Endpoint::User(user, _) = from else {
                        return Err(Status::WrongSender);
                    };
                    let opened = self.open_letter(&letter, id, node, &user, now);
                    return opened.map(Arrived::Opened).map_err(|_| Status::CannotOpen);
                }
                _ => return Err(Status::WrongRecipient),
            },
        };
        self.kept(&letter, id, node, to.as_ref(), None, now)
            .map(Arrived::Kept)
            .map_err(|_| Status::MailboxFull)
    }

    /// A user of this gateway whose name belongs to another one by now: what was sent to him before
    /// the sender's gateway knew is for him all the same.
    fn meant_here(&self, name: &UserId) -> Option<Endpoint> {
        self.local(name)
            .map(|user| Endpoint::user(user, self.own.peer))
    }

    /// Finds whom a gateway speaks for: itself, or a user of its own.
    fn sender_at(&self, node: PeerId, from: &UserId) -> Result<Endpoint, direct::Status> {
        use direct::Status;
        // What a node says under its own name is its own, also where a user has that name.
        let is_own_name = self.name_of(&node) == from.as_str();
        if is_own_name && self.users.get(from, node).is_none() {
            return Ok(Endpoint::Node(node));
        }
        match self.meant(from) {
            Some(Endpoint::Node(peer)) if peer == node => Ok(Endpoint::Node(node)),
            Some(Endpoint::User(user, at)) if at == node => Ok(Endpoint::User(user, at)),
            // The name means nobody here, and that does not pass by itself.
            None if self.users.get(from, node).is_some() => Err(Status::WrongSender),
            // Its news of a new user may still be on the way.
            None => Err(Status::TryAgain),
            Some(_) => Err(Status::WrongSender),
        }
    }

    pub(super) fn letters_seen(&self, fingerprint: Fingerprint) -> bool {
        self.letters.seen.contains(&fingerprint)
    }

    pub(super) fn see_letter(&mut self, fingerprint: Fingerprint) {
        self.letters.see(fingerprint);
    }

    pub(super) fn forget_letter(&mut self, fingerprint: Fingerprint) {
        self.letters.forget(fingerprint);
    }

    /// Takes room for a letter that a gateway brought, before it goes to the disk.
    pub(super) fn reserve_letter(&mut self, letter: &LetterRecord) {
        self.letters.see(letter.fingerprint);
        self.letters.keep(letter);
    }

    pub(super) fn release_letter(&mut self, letter: &LetterRecord) {
        self.letters.forget(letter.fingerprint);
        self.letters.drop_again(letter);
    }

    /// A client of a user has his letters up to this row.
    pub(super) fn taken(&mut self, user: &UserId, row: u64, now: Now) {
        let Some(mailbox) = self.letters.mailboxes.get_mut(user) else {
            return;
        };
        let row = row.min(self.letters.next_row - 1);
        if row <= mailbox.taken {
            return;
        }
        mailbox.taken = row;
        let rest = mailbox.rows.split_off(&(row + 1));
        let read = std::mem::replace(&mut mailbox.rows, rest);
        mailbox.bytes -= read.values().map(|waiting| waiting.bytes).sum::<usize>();
        let mut records = vec![Record::LettersTaken {
            user: user.clone(),
            row,
        }];
        for waiting in read.into_values() {
            self.letters.let_go(&waiting);
            if waiting.node == self.own.peer {
                records.push(Record::Read {
                    id: waiting.id,
                    recipient: self.own.peer,
                });
            } else {
                self.tell_read(waiting.node, waiting.id, now);
            }
            self.letter_news(waiting.id, waiting.from, user.to_string(), Stage::Read);
        }
        self.effects.store(records, None);
    }

    fn letter_news(&mut self, id: MessageId, from: String, to: String, stage: Stage) {
        let news = LetterNews {
            id,
            from,
            to,
            stage,
        };
        self.effects.event(Event::Letter(news));
    }

    /// A gateway says that a user of its has read a letter from here.
    pub(super) fn heard_read(&mut self, node: PeerId, id: MessageId, _now: Now) {
        let to = self.name_of_any(&node);
        let recipient = node;
        self.effects
            .store(vec![Record::Read { id, recipient }], None);
        self.letter_news(id, String::new(), to, Stage::Read);
    }

    /// A letter that was on its way to another gateway has come to its end.
    pub(super) fn letter_settled(
        &mut self,
        id: MessageId,
        frame: &str,
        node: PeerId,
        outcome: &Outcome,
    ) {
        let Ok(letter) = Letter::decode(frame.as_bytes()) else {
            return;
        };
        let to = match &letter.to {
            Addressee::Broadcast => "broadcast".to_owned(),
            Addressee::User(name) => name.to_string(),
        };
        let stage = match outcome {
            Outcome::Delivered => Stage::Delivered,
            Outcome::Expired => Stage::Expired,
            Outcome::Refused(why) => Stage::Refused(why.clone()),
        };
        let is_lost = stage != Stage::Delivered && letter.to != Addressee::Broadcast;
        if is_lost && let Some(user) = self.local(&letter.from) {
            let node = self.name_of_any(&node);
            let why = match outcome {
                Outcome::Refused(why) => why.clone(),
                _ => "its time ran out".to_owned(),
            };
            let here = self.name_of_any(&self.own.peer);
            let other_sender = direct::Status::WrongSender.name();
            let what_to_do = if why == other_sender && letter.from == user {
                format!(" There {user} means somebody else: log in as {user}@{here}.")
            } else {
                String::new()
            };
            let text =
                format!("Your message to {to} did not reach the node {node}: {why}.{what_to_do}");
            self.effects.event(Event::TellUser { user, text });
        }
        self.letter_news(id, letter.from.to_string(), to, stage);
    }

    /// Forgets broadcasts that are too many.
    fn prune_broadcasts(&mut self) {
        let rows = self.letters.prune_broadcasts();
        if !rows.is_empty() {
            self.effects.store(vec![Record::LettersGone { rows }], None);
        }
    }

    /// Forgets letters whose time is over, and tells their senders.
    pub(super) fn prune_letters(&mut self, now: Now) {
        // A clock that is not set says nothing about age.
        if now.unix_ms() < CLOCK_SET_MS {
            return;
        }
        let age_max_ms = millis(self.settings.letters.age_max);
        let gone = self.letters.prune(now.unix_ms(), age_max_ms);
        if gone.is_empty() {
            return;
        }
        let rows = gone.iter().map(|(row, ..)| *row).collect();
        self.effects.store(vec![Record::LettersGone { rows }], None);
        let mut lost = BTreeMap::<_, usize>::new();
        for (_, user, waiting) in gone {
            let Some(user) = user else { continue };
            self.effects.count("letter_expired", 1);
            if waiting.node == self.own.peer {
                *lost
                    .entry((waiting.from.clone(), user.clone()))
                    .or_default() += 1;
            }
            self.letter_news(waiting.id, waiting.from, user.to_string(), Stage::Expired);
        }
        for ((from, to), count) in lost {
            let name = from.parse().ok();
            if let Some(user) = name.and_then(|name| self.local(&name)) {
                let were = if count == 1 { "was" } else { "were" };
                let text = format!(
                    "{count} of your messages to {to} waited too long for him and {were} dropped."
                );
                self.effects.event(Event::TellUser { user, text });
            }
        }
    }
}
