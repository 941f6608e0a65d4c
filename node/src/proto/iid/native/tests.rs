//! The native form by hand: limits, order, and what a flipped bit does.

use super::super::Value;
use super::super::date::Date;
use super::*;

#[test]
fn a_message_of_one_frame_is_exactly_the_frame() {
    let frame = frame(7, 3);

    let bytes = Message::encode(std::slice::from_ref(&frame)).unwrap();

    assert_eq!(bytes, frame.encode());
    assert_eq!(bytes.len(), 24 + 3 * 16);
    assert_eq!(Frame::decode(&bytes), Ok(frame));
}

#[test]
fn frames_come_out_of_a_message_as_they_went_in() {
    let frames = [
        frame(1, 64),
        frame(2, 1),
        frame(900, 17),
        frame(u64::MAX, 64),
    ];

    let bytes = Message::encode(&frames).unwrap();
    let message = Message::decode(&bytes).unwrap();

    assert_eq!(bytes.len(), 4 * 24 + (64 + 1 + 17 + 64) * 16);
    assert!(
        message
            .frames()
            .iter()
            .map(|frame| frame.to_frame())
            .eq(frames)
    );
}

#[test]
fn two_frames_are_no_lone_frame() {
    let bytes = Message::encode(&[frame(1, 1), frame(2, 1)]).unwrap();

    assert_eq!(Frame::decode(&bytes), Err(FormError::Trailing(40).into()));
}

#[test]
fn sequences_in_a_message_grow_and_never_stay() {
    let same = [frame(5, 1), frame(5, 1)];
    let order = FormError::Order {
        first: Sequence(5),
        then: Sequence(5),
    };
    let bytes = same.iter().flat_map(Frame::encode).collect::<Vec<u8>>();

    assert_eq!(Message::encode(&same), Err(order));
    assert_eq!(Message::decode(&bytes), Err(order.into()));
    assert!(Message::encode(&[frame(6, 1), frame(5, 1)]).is_err());
}

#[test]
fn a_message_ends_at_sixty_four_kibibytes() {
    let full: Vec<Frame> = (0..62).map(|sequence| frame(sequence, 64)).collect();
    let mut frames = full.clone();
    frames.push(frame(62, 33));
    assert_eq!(Message::encode(&full).unwrap().len(), 64_976);

    let fits = Message::encode(&frames);
    frames.push(frame(63, 1));
    let long = frames.iter().flat_map(Frame::encode).collect::<Vec<u8>>();

    assert_eq!(fits.unwrap().len(), 65_528);
    assert_eq!(Message::encode(&frames), Err(FormError::Long(65_568)));
    assert_eq!(Message::decode(&long), Err(FormError::Long(65_568).into()));
}

#[test]
fn a_message_without_a_frame_is_not_made() {
    assert_eq!(Message::encode(&[]), Err(FormError::Short(0)));
    assert_eq!(Message::decode(&[]), Err(FormError::Short(0).into()));
}

#[test]
fn only_the_first_byte_of_a_message_may_name_a_later_version() {
    let mut bytes = Message::encode(&[frame(1, 1), frame(2, 1)]).unwrap();

    bytes[40] = 2;
    assert_eq!(Message::decode(&bytes), Err(FormError::Version(2).into()));
    bytes[0] = 2;
    assert_eq!(
        Message::decode(&bytes),
        Err(Refusal::Ignore(Ignored::Version(2)))
    );
    assert_eq!(Message::decode(&[2; 23]), Err(FormError::Short(23).into()));
}

#[test]
fn no_truncated_message_is_decoded() {
    let bytes = Message::encode(&[frame(1, 2), frame(2, 3)]).unwrap();

    for length in 0..bytes.len() {
        let decoded = Message::decode(&bytes[..length]);
        let ends_after_the_first_frame = length == 56;
        assert_eq!(
            decoded.is_ok(),
            ends_after_the_first_frame,
            "{length} bytes"
        );
    }
}

#[test]
fn a_flipped_bit_is_refused_or_decodes_to_what_the_bytes_say() {
    let bytes = Message::encode(&[frame(1, 2), frame(2, 3)]).unwrap();

    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check_decoder(&flipped);
    }
}

#[test]
fn a_ttl_is_between_one_millisecond_and_ten_minutes() {
    assert_eq!(Ttl::from_ms(0), Err(FormError::Ttl(0)));
    assert_eq!(Ttl::from_ms(1).map(Ttl::as_ms), Ok(1));
    assert_eq!(Ttl::from_ms(600_000), Ok(Ttl::MAX));
    assert_eq!(Ttl::from_ms(600_001), Err(FormError::Ttl(600_001)));
}

#[test]
fn held_values_live_ten_seconds_longer_than_the_latest_of_them_waits() {
    let now_ms = 1_736_463_172_000;
    let of_dates = |dates: &[u64]| {
        let iids: Vec<Iid> = dates.iter().map(|date| iid(1, *date)).collect();
        Ttl::of_held(&iids, now_ms).as_ms()
    };

    assert_eq!(of_dates(&[1_736_463_172_500, 1_736_463_175_000]), 13_000);
    assert_eq!(of_dates(&[1_736_463_171_000]), 10_000);
    assert_eq!(of_dates(&[0, 18_446_744_073_709_551_615]), 10_000);
    assert_eq!(of_dates(&[1_736_463_762_000]), 600_000);
    assert_eq!(of_dates(&[1_736_463_762_001]), 600_000);
    assert_eq!(of_dates(&[9_999_999_999_999]), 600_000);
}

#[test]
fn the_id_of_a_message_is_that_of_its_first_frame() {
    let source = "12D3KooWLQ3dcT9tAB9ddB568mhXKRWvVcmwbp86rUMBu2rhTKpE"
        .parse()
        .unwrap();
    let bytes = Message::encode(&[frame(5, 1), frame(6, 1)]).unwrap();

    assert_eq!(
        message_id_of(&source, &bytes),
        message_id(&source, Sequence(5))
    );
    assert_eq!(
        message_id_of(&source, &bytes[..15]),
        message_id(&source, Sequence(0))
    );
}

/// What decodes must encode to the same bytes again: nothing was passed over.
fn check_decoder(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        let frames: Vec<Frame> = message.frames().iter().map(|f| f.to_frame()).collect();
        assert_eq!(Message::encode(&frames).unwrap(), bytes);
    }
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
    }
}

fn frame(sequence: u64, count: i32) -> Frame {
    let head = Head {
        entry: Entry::Native,
        held: false,
        ttl: Ttl::DEFAULT,
        sequence: Sequence(sequence),
        sent_ms: 1_736_463_172_000,
    };
    let iids = (0..count)
        .map(|value| iid(value, 1_736_463_172_000))
        .collect();
    Frame::new(head, iids).unwrap()
}

fn iid(value: i32, date: u64) -> Iid {
    Iid {
        index: Index(7),
        value: Value(value),
        date: Date(date),
    }
}
