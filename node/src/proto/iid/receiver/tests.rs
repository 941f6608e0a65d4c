//! The receiver by hand: windows, jumps, ends of ranges, and how long it remembers.

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
