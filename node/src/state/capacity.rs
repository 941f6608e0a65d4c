//! How much is taken in: the room on the disk, and each sender's share of the history.
//!
//! The history has a limit, and the oldest messages of whoever has most make room for new ones.
//! That keeps a sender from pushing out the messages of others. It does not keep it from pushing
//! out its own before anybody has read them, and from filling the disk until then; so each sender
//! may bring a share of the history in a day, and hears `mailbox_full` beyond it.
//!
//! On a small disk the limit is half of it.
//!
//! Messages that a member brings for users of this gateway come out of its share, too, as they wait
//! on the same disk.
//!
//! When the disk has less room than the reserve, nothing from outside is taken: members keep their
//! messages and try again. What waits here can still be sent, and marks be written.

use std::time::Duration;

use super::{
    After, State,
    changes::Change,
    io::{Disk, Event, Failure, Incoming, Now, Party, Place, Record, Reply, RequestId, Selection},
};
use crate::limits::{Buckets, Rate};

/// What a message weighs beside its text, in bytes: its row, three entries in indices, the mark of
/// its sender. It is also in the format of the store.
pub const ROW_BYTES: u64 = 256;

/// One sender may bring the history's limit divided by this in a day.
const SHARE: u64 = 4;

/// How long it takes until a share is whole again, in seconds.
const SHARE_SECONDS: u64 = 24 * 60 * 60;

/// The reserve on a large disk, in bytes: what commits and copies of the largest requests take
/// between two measurements, many times over.
const RESERVE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The reserve on a small disk is its size divided by this.
const RESERVE_PART: u64 = 8;

/// The disk has room again when it has the reserve and this part of it more.
const RESERVE_MORE: u64 = 4;

/// The history has at most its disk's size divided by this, whatever the settings say.
const HISTORY_PART_MAX: u64 = 2;

/// A history that takes more than its disk's size divided by this is pruned for the reserve. A
/// smaller one is not what fills the disk, and is left alone.
const HISTORY_PART_LEAST: u64 = 8;

/// Messages that wait for users have at most the disk's size divided by this. With the history and
/// the reserve, an eighth of a small disk is left.
const LETTERS_PART_MAX: u64 = 4;

/// How far the history grows over its limit before it is pruned: the limit divided by this.
const PRUNE_PART: u64 = 64;

/// How long nothing is pruned by weight after that failed: what is wrong with a disk lasts, and each
/// attempt is written to the log.
const PRUNE_RETRY: Duration = Duration::from_secs(60);

/// Bytes on the disk for each byte in the history: once in the log, and once in its place.
const COPIES: u64 = 2;

/// Who brings messages, for the shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    /// A member, with all its users; or a foreign server.
    Place(Place),
    /// All P2SN clients: names are free, so each of them alone would have no limit.
    Clients,
}

impl From<&Party> for Sender {
    fn from(party: &Party) -> Self {
        match party {
            Party::Member(peer) => Self::Place(Place::Node(*peer)),
            Party::Server(server) => Self::Place(Place::Server(*server)),
            Party::Client(_) => Self::Clients,
        }
    }
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The sender has brought its share of today.
    Share,
    /// The disk has no more than the reserve.
    Disk,
}

impl NoRoom {
    /// Returns a short constant for the counter.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Share => "mailbox_full",
            Self::Disk => "disk_full",
        }
    }

    /// Returns the same for whoever asked.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Share => Failure::unavailable(
                "the mailbox is full: this sender has brought its share of today",
            )
            .with_hint("try again later; `history_size_max` of the node sets the share"),
            Self::Disk => Failure::unavailable("the disk of the node is nearly full")
                .with_hint("free some space there, or delete messages with `pimesh inbox delete`"),
        }
    }
}

/// The room on the disk, and the shares of senders.
pub(super) struct Capacity {
    /// What was measured last; before that, there is room.
    disk: Option<Disk>,
    is_low: bool,
    /// Weight of the history by what was measured and what was added since.
    history_bytes: u64,
    /// What was written since the last measurement.
    written_bytes: u64,
    /// What the shares are made from.
    limit_bytes: u64,
    shares: Buckets<Sender>,
    pruning: Pruning,
}

/// Whether the history is being pruned by what it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pruning {
    Idle,
    UnderWay,
    /// It failed, and is tried again from this time on.
    Failed(Duration),
}

impl Capacity {
    pub(super) fn new(history_bytes_max: u64) -> Self {
        Self {
            disk: None,
            is_low: false,
            history_bytes: 0,
            written_bytes: 0,
            limit_bytes: history_bytes_max,
            shares: Buckets::new(share_of(history_bytes_max)),
            pruning: Pruning::Idle,
        }
    }

    /// Counts what goes to the disk.
    pub(super) fn add(&mut self, records: &[Record]) {
        for record in records {
            let history = match record {
                Record::Incoming(message) => weight(message.text.len()),
                Record::Outgoing(message) => weight(message.text.len()),
                Record::ForClient(message) => weight(message.text.len()),
                _ => 0,
            };
            let letter = match record {
                Record::Letter(letter) => weight(letter.frame.len()),
                _ => 0,
            };
            self.history_bytes = self.history_bytes.saturating_add(history);
            self.written_bytes = self.written_bytes.saturating_add(history + letter);
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let written = self.written_bytes.saturating_mul(COPIES);
        Some(self.disk?.free_bytes.saturating_sub(written))
    }

    /// Returns from which free space on there is room again.
    fn enough_bytes(&self) -> u64 {
        let reserve = self.reserve_bytes();
        reserve + reserve / RESERVE_MORE
    }

    fn reserve_bytes(&self) -> u64 {
        self.disk.map_or(0, |disk| disk_reserve(disk.size_bytes))
    }
}

/// Returns the free space below which nothing is taken in from others, in bytes, on a disk of this
/// size.
#[must_use]
pub fn disk_reserve(size_bytes: u64) -> u64 {
    (size_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX)
}

/// Returns what one message weighs.
pub(super) fn weight(text_bytes: usize) -> u64 {
    u64::try_from(text_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(ROW_BYTES)
}

/// Returns what one message takes of a share.
fn units(bytes: usize) -> u32 {
    u32::try_from(weight(bytes)).unwrap_or(u32::MAX)
}

/// Returns what one sender may bring: so much at once, and as much again in a day.
fn share_of(history_bytes_max: u64) -> Rate {
    let share = u32::try_from(history_bytes_max / SHARE).unwrap_or(u32::MAX);
    Rate {
        per_second: share / u32::try_from(SHARE_SECONDS).unwrap_or(u32::MAX),
        burst: share,
    }
}

impl State {
    /// Says whether the disk has room for what comes from outside.
    pub(super) fn check_disk(&self) -> Result<(), NoRoom> {
        if self.capacity.is_low {
            return Err(NoRoom::Disk);
        }
        Ok(())
    }

    /// Takes room for a message of somebody else, with so many bytes, out of its sender's share.
    pub(super) fn take_share(&self, sender: &Party, bytes: usize, now: Now) -> Result<(), NoRoom> {
        self.check_disk()?;
        let shares = &self.capacity.shares;
        if !shares.take_units(&sender.into(), units(bytes), now.mono) {
            return Err(NoRoom::Share);
        }
        Ok(())
    }

    /// Gives that room back: the message did not come to the disk, and will come again.
    pub(super) fn give_back_share(&self, sender: &Party, bytes: usize) {
        let shares = &self.capacity.shares;
        shares.give_back(&sender.into(), units(bytes));
    }

    /// The same for a message that is answered with a failure.
    pub(super) fn has_room_for(
        &mut self,
        request: RequestId,
        what: &'static str,
        message: &Incoming,
        now: Now,
    ) -> bool {
        let taken = self.take_share(&message.sender, message.text.len(), now);
        if let Err(no_room) = taken {
            self.effects.refused(None, what, no_room.name());
            self.effects.fail(request, no_room.failure());
        }
        taken.is_ok()
    }

    /// The disk was measured: makes room on it if the history takes much of it.
    pub(super) fn disk_measured(&mut self, disk: Disk, now: Now) {
        let capacity = &mut self.capacity;
        if matches!(capacity.pruning, Pruning::Failed(until) if until <= now.mono) {
            capacity.pruning = Pruning::Idle;
        }
        // Of a disk that does not say how large it is, nothing is known.
        capacity.disk = Some(disk).filter(|disk| disk.size_bytes > 0);
        capacity.written_bytes = 0;
        capacity.history_bytes = disk.history_bytes;
        self.resize_shares();
        self.look_at_capacity();
        let least = disk.size_bytes / HISTORY_PART_LEAST;
        if self.capacity.is_low && disk.history_bytes > least {
            let missing = self.capacity.enough_bytes().saturating_sub(disk.free_bytes);
            let bytes_max = disk.history_bytes.saturating_sub(missing).max(least);
            self.prune_history(bytes_max);
        }
    }

    /// Records go to the disk.
    pub(super) fn writing(&mut self, records: &[Record]) {
        self.capacity.add(records);
        self.look_at_capacity();
    }

    /// Notices that the room on the disk goes below the reserve or is there again, and prunes a
    /// history that has grown over its limit.
    fn look_at_capacity(&mut self) {
        let capacity = &mut self.capacity;
        let free_bytes = capacity.free_bytes().unwrap_or(u64::MAX);
        let limit = if capacity.is_low {
            capacity.enough_bytes()
        } else {
            capacity.reserve_bytes()
        };
        let is_low = free_bytes < limit;
        if is_low != capacity.is_low {
            capacity.is_low = is_low;
            let event = Event::DiskSpace {
                is_low,
                free_bytes,
                reserve_bytes: limit,
            };
            self.effects.event(event);
        }
        let max = self.capacity.limit_bytes;
        if self.capacity.history_bytes > max.saturating_add(max / PRUNE_PART) {
            self.prune_history(max);
        }
    }

    /// Has the history pruned by what it weighs, unless nothing of it can be deleted; the age of
    /// messages is another matter, for which the clock has to be right.
    fn prune_history(&mut self, bytes_max: u64) {
        let waiting = self.messages.history_bytes() + self.clients.history_bytes();
        let least = self.capacity.limit_bytes / PRUNE_PART;
        let has_some = self.capacity.history_bytes > waiting.saturating_add(least);
        if !has_some || self.capacity.pruning != Pruning::Idle {
            return;
        }
        self.capacity.history_bytes = bytes_max.max(waiting);
        self.capacity.pruning = Pruning::UnderWay;
        let prune = Record::Prune {
            before_ms: 0,
            bytes_max,
        };
        self.effects.store(vec![prune], Some(After::Pruned));
    }

    pub(super) const fn pruned(&mut self) {
        self.capacity.pruning = Pruning::Idle;
    }

    pub(super) fn not_pruned(&mut self, now: Now) {
        self.capacity.pruning = Pruning::Failed(now.mono + PRUNE_RETRY);
    }

    /// Deletes messages that a person chose.
    pub(super) fn delete_history(&mut self, request: RequestId, chosen: Selection) {
        let record = Record::DeleteHistory(chosen);
        let asked = Some((request, Reply::HistoryDeleted));
        self.change(asked, vec![record], Change::Disk);
    }

    /// Settings have come, or the size of the disk is known: makes the shares anew if the limit of
    /// the history changes with that.
    pub(super) fn resize_shares(&mut self) {
        let capacity = &mut self.capacity;
        let part = capacity.disk.map(|disk| disk.size_bytes / HISTORY_PART_MAX);
        let limit = self.settings.history_bytes_max;
        let limit = limit.min(part.unwrap_or(u64::MAX));
        if limit != capacity.limit_bytes {
            capacity.limit_bytes = limit;
            capacity.shares = Buckets::new(share_of(limit));
        }
    }

    /// Returns what messages that wait for users may weigh together.
    pub(super) fn letters_limit(&self) -> u64 {
        let size = self.capacity.disk.map(|disk| disk.size_bytes);
        size.map_or(u64::MAX, |size| size / LETTERS_PART_MAX)
    }

    /// Returns how much history is kept.
    pub(super) const fn history_limit(&self) -> u64 {
        self.capacity.limit_bytes
    }
}
