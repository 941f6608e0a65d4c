//! The receiver: who may say what, how old it may be, and whether it came before.
//!
//! Specified in `proto-specs/iid.md`, section 9. A message is judged as a whole and before
//! anything is remembered, so a refused message leaves no trace. Which index belongs to which
//! source is asked of the caller, and so is the time.

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

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::date::Date;
    use super::super::native::Frame;
    use super::*;

    const NOW_MS: u64 = 1_736_463_172_000;
    const MINE: Index = Index(7);

    #[test]
    fn frames_out_of_order_are_each_accepted_once() {
        let mut receiver = Receiver::new();
        let source = source(1);

        for sequence in [100, 98, 99, 101] {
            assert_eq!(receive(&mut receiver, &source, &[sequence], NOW_MS), Ok(()));
        }

        for sequence in [98, 99, 100, 101] {
            let duplicate = Err(Refusal::Ignore(Ignored::Duplicate(Sequence(sequence))));
            assert_eq!(
                receive(&mut receiver, &source, &[sequence], NOW_MS),
                duplicate
            );
        }
    }

    #[test]
    fn the_window_is_as_wide_as_specified() {
        let mut receiver = Receiver::new();
        let source = source(1);
        receive(&mut receiver, &source, &[2_000], NOW_MS).unwrap();

        let inside = receive(&mut receiver, &source, &[977], NOW_MS);
        let outside = receive(&mut receiver, &source, &[976], NOW_MS);

        assert_eq!(inside, Ok(()));
        assert_eq!(
            outside,
            Err(Refusal::Ignore(Ignored::TooOld(Sequence(976))))
        );
    }

    #[test]
    fn a_jump_forgets_only_what_falls_out_of_the_window() {
        let mut receiver = Receiver::new();
        let source = source(1);
        receive(&mut receiver, &source, &[10], NOW_MS).unwrap();
        receive(&mut receiver, &source, &[11], NOW_MS).unwrap();

        receive(&mut receiver, &source, &[1_034], NOW_MS).unwrap();

        let outside = receive(&mut receiver, &source, &[10], NOW_MS);
        let inside = receive(&mut receiver, &source, &[11], NOW_MS);
        let between = receive(&mut receiver, &source, &[1_033], NOW_MS);
        assert_eq!(outside, Err(Refusal::Ignore(Ignored::TooOld(Sequence(10)))));
        assert_eq!(
            inside,
            Err(Refusal::Ignore(Ignored::Duplicate(Sequence(11))))
        );
        assert_eq!(between, Ok(()));
    }

    #[test]
    fn a_jump_over_the_whole_window_leaves_no_bit_behind() {
        let mut receiver = Receiver::new();
        let source = source(1);
        for sequence in 0..1_024 {
            receive(&mut receiver, &source, &[sequence], NOW_MS).unwrap();
        }

        receive(&mut receiver, &source, &[1_000_000], NOW_MS).unwrap();

        for sequence in 998_977..1_000_000 {
            assert_eq!(receive(&mut receiver, &source, &[sequence], NOW_MS), Ok(()));
        }
    }

    #[test]
    fn a_window_agrees_with_a_plain_list_of_what_came() {
        let mut window = Window::new(Sequence(5_000), NOW_MS);
        let mut came = std::collections::BTreeSet::new();
        let mut highest = 5_000_u64;
        let mut random = 1_u64;

        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let sequence = (highest + (random >> 33) % 60).saturating_sub((random >> 40) % 1_100);
            let expected = if sequence + 1_024 <= highest {
                Err(Ignored::TooOld(Sequence(sequence)))
            } else if came.contains(&sequence) {
                Err(Ignored::Duplicate(Sequence(sequence)))
            } else {
                Ok(())
            };
            assert_eq!(window.check(Sequence(sequence)), expected);
            if expected.is_ok() {
                window.remember(Sequence(sequence));
                came.insert(sequence);
                highest = highest.max(sequence);
            }
        }
    }

    #[test]
    fn sequences_end_at_the_largest_and_do_not_wrap() {
        let mut receiver = Receiver::new();
        let source = source(1);

        assert_eq!(
            receive(&mut receiver, &source, &[u64::MAX - 1], NOW_MS),
            Ok(())
        );
        assert_eq!(receive(&mut receiver, &source, &[u64::MAX], NOW_MS), Ok(()));
        assert_eq!(
            receive(&mut receiver, &source, &[u64::MAX - 1_023], NOW_MS),
            Ok(())
        );

        let duplicate = Err(Refusal::Ignore(Ignored::Duplicate(Sequence(u64::MAX))));
        let wrapped = Err(Refusal::Ignore(Ignored::TooOld(Sequence(0))));
        assert_eq!(
            receive(&mut receiver, &source, &[u64::MAX], NOW_MS),
            duplicate
        );
        assert_eq!(receive(&mut receiver, &source, &[0], NOW_MS), wrapped);
    }

    #[test]
    fn a_source_may_begin_with_any_sequence() {
        for sequence in [0, 1, 1_736_463_172_000_000, u64::MAX] {
            let mut receiver = Receiver::new();
            assert_eq!(
                receive(&mut receiver, &source(1), &[sequence], NOW_MS),
                Ok(())
            );
        }
    }

    #[test]
    fn one_bad_frame_refuses_the_message_and_nothing_of_it_is_remembered() {
        let mut receiver = Receiver::new();
        let source = source(1);
        receive(&mut receiver, &source, &[2], NOW_MS).unwrap();

        let refused = receive(&mut receiver, &source, &[1, 2, 3], NOW_MS);
        let rest = receive(&mut receiver, &source, &[1, 3], NOW_MS);

        assert_eq!(
            refused,
            Err(Refusal::Ignore(Ignored::Duplicate(Sequence(2))))
        );
        assert_eq!(rest, Ok(()));
    }

    #[test]
    fn a_message_wider_than_the_window_is_remembered_in_full() {
        let mut receiver = Receiver::new();
        let source = source(1);

        assert_eq!(
            receive(&mut receiver, &source, &[1, 5_000, 5_001], NOW_MS),
            Ok(())
        );

        for sequence in [1, 5_000, 5_001] {
            assert!(
                receive(&mut receiver, &source, &[sequence], NOW_MS).is_err(),
                "{sequence}"
            );
        }
    }

    #[test]
    fn an_index_that_is_not_allowed_outweighs_an_expired_frame_before_it() {
        let bytes = Message::encode(&[frame(1, MINE, 1), frame(2, Index(8), NOW_MS)]).unwrap();
        let message = Message::decode(&bytes).unwrap();

        let verdict = Receiver::new().check(&source(1), &message, is_mine, NOW_MS);

        assert_eq!(verdict, Err(Refusal::Reject(Rejected::Index(Index(8)))));
    }

    #[test]
    fn checking_alone_remembers_nothing() {
        let receiver = Receiver::new();
        let bytes = frame(1, MINE, NOW_MS).encode();
        let message = Message::decode(&bytes).unwrap();

        for _ in 0..2 {
            assert_eq!(
                receiver.check(&source(1), &message, is_mine, NOW_MS),
                Ok(())
            );
        }
    }

    #[test]
    fn times_at_the_ends_of_their_range_do_not_overflow() {
        let mut receiver = Receiver::new();
        let late = frame(1, MINE, u64::MAX).encode();
        let early = frame(2, MINE, 0).encode();
        let late = Message::decode(&late).unwrap();
        let early = Message::decode(&early).unwrap();

        let future = receiver.receive(&source(1), &late, is_mine, 0).unwrap_err();
        let expired = receiver
            .receive(&source(1), &early, is_mine, u64::MAX)
            .unwrap_err();

        assert_eq!((future.name(), expired.name()), ("future", "expired"));
        assert_eq!(
            receiver.receive(&source(1), &late, is_mine, u64::MAX),
            Ok(())
        );
    }

    #[test]
    fn an_accepted_frame_cannot_be_replayed_however_long_its_window_is_kept() {
        let mut receiver = Receiver::new();
        let head = Head {
            ttl: Ttl::MAX,
            ..frame(1, MINE, NOW_MS + 5_000).head()
        };
        let bytes = Frame::new(head, frame(1, MINE, 0).into_iids())
            .unwrap()
            .encode();
        let message = Message::decode(&bytes).unwrap();
        receiver
            .receive(&source(1), &message, is_mine, NOW_MS)
            .unwrap();

        let mut replay_after = |ms| {
            receiver
                .receive(&source(1), &message, is_mine, NOW_MS + ms)
                .unwrap_err()
                .name()
        };

        assert_eq!(replay_after(1), "duplicate");
        assert_eq!(replay_after(610_000), "duplicate");
        assert_eq!(replay_after(610_001), "expired");
    }

    #[test]
    fn a_source_that_starts_over_lower_is_heard_again_after_the_longest_life() {
        let mut receiver = Receiver::new();
        let source = source(1);
        receive(&mut receiver, &source, &[50_000], NOW_MS).unwrap();

        let before = receive(&mut receiver, &source, &[3], NOW_MS + 610_000);
        let after = receive(&mut receiver, &source, &[3], NOW_MS + 610_001);
        let again = receive(&mut receiver, &source, &[3], NOW_MS + 610_002);

        assert_eq!(before, Err(Refusal::Ignore(Ignored::TooOld(Sequence(3)))));
        assert_eq!(after, Ok(()));
        assert_eq!(again, Err(Refusal::Ignore(Ignored::Duplicate(Sequence(3)))));
    }

    #[test]
    fn a_further_source_waits_until_the_quietest_may_be_forgotten() {
        let mut receiver = Receiver::new();
        for number in 0..4_096 {
            receive(
                &mut receiver,
                &source(number),
                &[1],
                NOW_MS + u64::from(number),
            )
            .unwrap();
        }
        receive(&mut receiver, &source(0), &[2], NOW_MS + 5_000).unwrap();

        let crowded = receive(&mut receiver, &source(5_000), &[1], NOW_MS + 610_001);
        let known = receive(&mut receiver, &source(0), &[3], NOW_MS + 610_001);
        let room = receive(&mut receiver, &source(5_000), &[1], NOW_MS + 610_002);
        let crowded_again = receive(&mut receiver, &source(5_001), &[1], NOW_MS + 610_002);
        let kept = receive(&mut receiver, &source(2), &[1], NOW_MS + 610_002);

        assert_eq!(crowded, Err(Refusal::Ignore(Ignored::Crowded)));
        assert_eq!(known, Ok(()));
        assert_eq!(room, Ok(()));
        assert_eq!(crowded_again, Err(Refusal::Ignore(Ignored::Crowded)));
        assert_eq!(kept, Err(Refusal::Ignore(Ignored::Duplicate(Sequence(1)))));
        assert_eq!(receiver.windows.len(), 4_096);
    }

    fn receive(
        receiver: &mut Receiver,
        source: &PeerId,
        sequences: &[u64],
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let frames: Vec<Frame> = sequences.iter().map(|s| frame(*s, MINE, now_ms)).collect();
        let bytes = Message::encode(&frames).unwrap();
        receiver.receive(source, &Message::decode(&bytes).unwrap(), is_mine, now_ms)
    }

    fn frame(sequence: u64, index: Index, sent_ms: u64) -> Frame {
        let head = Head {
            entry: Entry::Native,
            held: false,
            ttl: Ttl::DEFAULT,
            sequence: Sequence(sequence),
            sent_ms,
        };
        Frame::new(
            head,
            vec![Iid {
                index,
                value: Value(5),
                date: Date(0),
            }],
        )
        .unwrap()
    }

    fn is_mine(index: Index, entry: Entry) -> bool {
        index == MINE && entry == Entry::Native
    }

    /// A peer id is an identity multihash of an Ed25519 key; any 32 bytes will do.
    fn source(number: u32) -> PeerId {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        bytes[6..10].copy_from_slice(&number.to_le_bytes());
        PeerId::from_bytes(&bytes).unwrap()
    }
}

#[cfg(test)]
mod vectors {
    use serde::Deserialize;

    use super::super::native::guest_index;
    use super::*;

    #[derive(Deserialize)]
    struct Native {
        registry: BTreeMap<String, Vec<i32>>,
        gateways: BTreeMap<String, Vec<i32>>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        source: String,
        now_ms: String,
        hex: String,
        verdict: String,
        why: Option<String>,
    }

    #[test]
    fn every_frame_gets_the_recorded_verdict_alone_and_as_a_message() {
        let native: Native = crate::vectors::load("iid/native.json");
        let mut of_frames = Receiver::new();
        let mut of_messages = Receiver::new();

        for case in &native.cases {
            let bytes = hex::decode(&case.hex).unwrap();
            let frame = FrameRef::decode(&bytes).map(Message::from);
            let message = Message::decode(&bytes);
            assert_verdict(&native, case, &mut of_frames, frame);
            assert_verdict(&native, case, &mut of_messages, message);
        }

        crate::vectors::checked("iid/native.json", native.cases.len());
    }

    fn assert_verdict(
        native: &Native,
        case: &Case,
        receiver: &mut Receiver,
        decoded: Result<Message<'_>, Refusal>,
    ) {
        let source: PeerId = case.source.parse().unwrap();
        let now_ms = case.now_ms.parse().unwrap();
        let may_send = |index, entry| may_send(native, &source, index, entry);
        let judged =
            decoded.and_then(|message| receiver.receive(&source, &message, may_send, now_ms));
        let (verdict, why) = match judged {
            Ok(()) => ("accept", None),
            Err(Refusal::Ignore(ignored)) => ("ignore", Some(ignored.name())),
            Err(Refusal::Reject(rejected)) => ("reject", Some(rejected.name())),
        };
        assert_eq!(
            (verdict, why),
            (case.verdict.as_str(), case.why.as_deref()),
            "{}",
            case.name
        );
    }

    /// A peer in no list has one guest index; a gateway speaks for its clients, and only so.
    fn may_send(native: &Native, source: &PeerId, index: Index, entry: Entry) -> bool {
        let name = source.to_string();
        let has = |list: &BTreeMap<String, Vec<i32>>| {
            list.get(&name)
                .is_some_and(|indices| indices.contains(&index.0))
        };
        match entry {
            Entry::Bridged => has(&native.gateways),
            Entry::Native if native.registry.contains_key(&name) => has(&native.registry),
            Entry::Native => index == guest_index(source),
        }
    }
}
