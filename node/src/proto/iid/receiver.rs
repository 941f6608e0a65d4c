//! The receiver: who may say what, how old it may be, and whether it came before.
//!
//! Specified in `proto-specs/iid.md`, section 9. A message is judged as a whole and before
//! anything is remembered, so a refused message leaves no trace. Which index belongs to which
//! source is asked of the caller, and so is the time.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::native::{Entry, FrameRef, Head, Message, Sequence, Ttl};
use super::refusal::{Ignored, Refusal, Rejected};
use super::{Iid, Index};

/// How far two clocks may differ before it matters, in milliseconds.
pub const SKEW_MS: u64 = 5_000;

/// How many sequences up to the highest are remembered of each source.
pub const WINDOW_SEQUENCES: u64 = 1_024;

/// How many sources are remembered, which takes about 1 MB.
pub const SOURCES_MAX: usize = 4_096;

/// How long after its last accepted frame a source must be remembered.
///
/// A frame was accepted at most one skew before it was sent, and is refused as expired the longest
/// time to live and one skew after that. From then on nothing can be replayed.
pub const MEMORY_MS: u64 = Ttl::MAX.as_ms() as u64 + 2 * SKEW_MS;

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW_SEQUENCES / WORD_BITS) as usize;

/// Remembers which frames of which source it has accepted.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    windows: BTreeMap<PeerId, Window>,
}

/// Remembers the highest sequence of one source, and which of the 1,024 up to it came.
#[derive(Clone, Debug)]
struct Window {
    highest: u64,
    /// The bit of a sequence is found by its remainder; those above the highest are reused.
    seen: [u64; WORDS],
    accepted_ms: u64,
}

impl Receiver {
    /// Makes a receiver that has seen nothing.
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// Judges a message, and remembers it if it is accepted.
    ///
    /// # Errors
    /// Fails as [`Receiver::check`] does, and then remembers nothing.
    pub fn receive(
        &mut self,
        source: &PeerId,
        message: &Message<'_>,
        may_send: impl Fn(Index, Entry) -> bool,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.check(source, message, may_send, now_ms)?;
        self.remember(source, message, now_ms);
        Ok(())
    }

    /// Judges a message without remembering it.
    ///
    /// `may_send` says whether the source may speak for an index; `now_ms` is the corrected clock
    /// in Unix milliseconds.
    ///
    /// # Errors
    /// Fails with the first reason that holds for any frame: an index the source may not use
    /// before a wrong time, and a wrong time before a sequence that came before.
    pub fn check(
        &self,
        source: &PeerId,
        message: &Message<'_>,
        may_send: impl Fn(Index, Entry) -> bool,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        for frame in message.frames() {
            check_indices(*frame, &may_send).map_err(Refusal::Reject)?;
        }
        for frame in message.frames() {
            check_time(frame.head(), now_ms).map_err(Refusal::Ignore)?;
        }
        self.check_sequences(source, message, now_ms)
            .map_err(Refusal::Ignore)
    }

    fn check_sequences(
        &self,
        source: &PeerId,
        message: &Message<'_>,
        now_ms: u64,
    ) -> Result<(), Ignored> {
        let Some(window) = self.windows.get(source) else {
            return self.check_room(now_ms);
        };
        if window.is_over(now_ms) {
            return Ok(());
        }
        message
            .frames()
            .iter()
            .try_for_each(|frame| window.check(frame.head().sequence))
    }

    /// Looks for room for one more source.
    ///
    /// Going through all sources is rare, and still cheaper than the signature of the message that
    /// asks for it.
    fn check_room(&self, now_ms: u64) -> Result<(), Ignored> {
        let has_room = self.windows.len() < SOURCES_MAX
            || self.windows.values().any(|window| window.is_over(now_ms));
        if has_room {
            Ok(())
        } else {
            Err(Ignored::Crowded)
        }
    }

    fn remember(&mut self, source: &PeerId, message: &Message<'_>, now_ms: u64) {
        if self.windows.len() >= SOURCES_MAX && !self.windows.contains_key(source) {
            self.windows.retain(|_, window| !window.is_over(now_ms));
        }
        let first = message.frames()[0].head().sequence;
        let window = self
            .windows
            .entry(*source)
            .or_insert_with(|| Window::new(first, now_ms));
        if window.is_over(now_ms) {
            *window = Window::new(first, now_ms);
        }
        for frame in message.frames() {
            window.remember(frame.head().sequence);
        }
        window.accepted_ms = now_ms;
    }
}

impl Window {
    fn new(first: Sequence, now_ms: u64) -> Window {
        Window {
            highest: first.0,
            seen: [0; WORDS],
            accepted_ms: now_ms,
        }
    }

    fn remember(&mut self, sequence: Sequence) {
        let sequence = sequence.0;
        if sequence > self.highest {
            self.make_room_up_to(sequence);
        }
        let (word, bit) = position(sequence);
        self.seen[word] |= bit;
    }

    fn make_room_up_to(&mut self, sequence: u64) {
        if sequence - self.highest >= WINDOW_SEQUENCES {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.highest + 1..=sequence {
                let (word, bit) = position(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.highest = sequence;
    }

    fn check(&self, sequence: Sequence) -> Result<(), Ignored> {
        let Some(behind) = self.highest.checked_sub(sequence.0) else {
            return Ok(());
        };
        if behind >= WINDOW_SEQUENCES {
            return Err(Ignored::TooOld(sequence));
        }
        let (word, bit) = position(sequence.0);
        if self.seen[word] & bit != 0 {
            return Err(Ignored::Duplicate(sequence));
        }
        Ok(())
    }

    /// Says whether all it remembers has expired, so that a source whose clock went back can start
    /// over.
    fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.accepted_ms) > MEMORY_MS
    }
}

fn check_indices(
    frame: FrameRef<'_>,
    may_send: impl Fn(Index, Entry) -> bool,
) -> Result<(), Rejected> {
    let entry = frame.head().entry;
    // Neighbours mostly share their index, and asking may be a look into several lists.
    let mut allowed = None;
    for Iid { index, .. } in frame.iids() {
        if allowed == Some(index) {
            continue;
        }
        if !may_send(index, entry) {
            return Err(Rejected::Index(index));
        }
        allowed = Some(index);
    }
    Ok(())
}

fn check_time(head: Head, now_ms: u64) -> Result<(), Ignored> {
    let ahead_ms = head.sent_ms.saturating_sub(now_ms);
    if ahead_ms > SKEW_MS {
        return Err(Ignored::Future { ahead_ms });
    }
    let age_ms = now_ms.saturating_sub(head.sent_ms);
    if age_ms > u64::from(head.ttl.as_ms()) + SKEW_MS {
        return Err(Ignored::Expired { age_ms });
    }
    Ok(())
}

/// Returns the word and the bit in it that stand for a sequence.
fn position(sequence: u64) -> (usize, u64) {
    let place = sequence % WINDOW_SEQUENCES;
    ((place / WORD_BITS) as usize, 1 << (place % WORD_BITS))
}
