//! What holds for all bytes and texts that come as integers (see [`crate::fuzz`]).

use super::{
    native::{FRAME_IIDS_MAX, Frame, MESSAGE_BYTES_MAX, Message, message_id, message_id_of},
    receiver::{Receiver, SKEW_MS},
    text::Shortcut,
    *,
};
use crate::fuzz::{bytes_of, bytes_of_hex, fuzz, recorded};

const NOW: Date = Date(1_736_463_172_123);

fn messages() -> Vec<Vec<u8>> {
    let mut corpus = bytes_of_hex(recorded("iid/native.json", "hex"));
    // Two frames are a message if their sequences grow.
    corpus.push([&corpus[0][..], &corpus[1]].concat());
    corpus
}

#[test]
fn a_form_is_the_bytes_it_came_in() {
    let mut corpus = bytes_of_hex(recorded("iid/codec.json", "hex"));
    corpus.extend(bytes_of_hex(recorded("iid/lengths.json", "hex")));
    fuzz(bolero::check!(), &corpus, |bytes| {
        match Form::decode(bytes) {
            Ok(form) => {
                assert_eq!(form.encode(), bytes);
                let iid = form.restamp(Index(7), NOW);
                assert_eq!((iid.index, Iid::decode(&iid.encode())), (Index(7), iid));
                true
            }
            Err(LengthError::Stray(length)) => {
                assert!(length < 16 && length % 4 != 0 || length == 0, "{length}");
                false
            }
            Err(LengthError::TooLong(length)) => {
                assert!(length > 16, "{length}");
                false
            }
        }
    });
}

#[test]
fn a_shortcut_is_the_numbers_that_were_typed() {
    let mut corpus = bytes_of(recorded("iid/text_shortcuts.json", "text"));
    corpus.push(format!("iid:1,2,{}", i64::MAX).into_bytes());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(shortcut) = text.parse::<Shortcut>() else {
            return false;
        };
        let typed: Vec<i64> = text
            .trim_start_matches(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+'))
            .split(|c: char| c == ',' || c.is_ascii_whitespace())
            .filter_map(|word| word.parse().ok())
            .collect();
        let read = match shortcut {
            Shortcut::Integer(value) => vec![value.0.into()],
            Shortcut::IndexInteger(index, value) => vec![index.0.into(), value.0.into()],
            Shortcut::Delayed {
                index,
                value,
                delay_ms,
            } => vec![index.0.into(), value.0.into(), delay_ms],
        };
        assert_eq!(read, typed);
        if let Ok(Form::IndexIntegerDate(iid)) = shortcut.to_form(NOW) {
            assert_eq!(i128::from(iid.date.0) - i128::from(NOW.0), read[2].into());
            assert!(i64::try_from(iid.date.0).is_ok());
        }
        true
    });
}

#[test]
fn every_date_has_a_reading_and_numbers_are_the_texts_they_came_in() {
    let mut corpus = bytes_of(recorded("iid/dates.json", "date"));
    corpus.extend(bytes_of(recorded("iid/codec.json", "date")));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let plain = text.trim_start_matches('+');
        let plain = plain.trim_start_matches('0');
        if let Ok(value) = text.parse::<Value>() {
            assert_eq!(text.parse(), Ok(Index(value.0)));
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        let Ok(date) = text.parse::<Date>() else {
            return false;
        };
        assert_eq!(date.to_string().trim_start_matches('0'), plain);
        let reading = date.reading();
        assert!(!reading.kind.name().is_empty());
        // Nothing that is read as a moment lies outside the years 1900 to 10000, but for tags.
        let years = -2_208_988_800_000..=253_402_300_800_000;
        let tagged = matches!(reading.kind, date::DateKind::Tagged(_));
        assert!(
            reading
                .unix_ms
                .is_none_or(|ms| tagged || years.contains(&ms))
        );
        true
    });
}

#[test]
fn frames_and_messages_are_the_bytes_they_came_in() {
    let source = crate::proto::mesh::peer_of_seed(1);
    fuzz(bolero::check!(), &messages(), |bytes| {
        let id = message_id_of(&source, bytes);
        if let Ok(frame) = Frame::decode(bytes) {
            assert_eq!(frame.encode(), bytes);
        }
        let Ok(message) = Message::decode(bytes) else {
            assert!(Frame::decode(bytes).is_err());
            return false;
        };
        let frames: Vec<Frame> = message.frames().iter().map(|f| f.to_frame()).collect();
        assert_eq!(Message::encode(&frames).as_deref(), Ok(bytes));
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert!(
            frames
                .iter()
                .all(|f| (1..=FRAME_IIDS_MAX).contains(&f.iids().len()))
        );
        assert!(frames.is_sorted_by(|a, b| a.head().sequence < b.head().sequence));
        assert_eq!(id, message_id(&source, frames[0].head().sequence));
        true
    });
}

#[test]
fn a_message_is_accepted_once_and_only_in_its_time() {
    let source = crate::proto::mesh::peer_of_seed(1);
    let corpus = messages();
    let before = Message::decode(&corpus[0]).expect("a message");
    let now_ms = before.frames()[0].head().sent_ms;
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(message) = Message::decode(bytes) else {
            return false;
        };
        let mut receiver = Receiver::new();
        receiver
            .receive(&source, &before, |_, _| true, now_ms)
            .expect("fresh");
        let nobody = receiver.receive(&source, &message, |_, _| false, now_ms);
        assert!(nobody.is_err());
        if receiver
            .receive(&source, &message, |_, _| true, now_ms)
            .is_err()
        {
            return true;
        }
        for head in message.frames().iter().map(|frame| frame.head()) {
            let age_ms = i128::from(now_ms) - i128::from(head.sent_ms);
            let skew_ms = i128::from(SKEW_MS);
            assert!((-skew_ms..=i128::from(head.ttl.as_ms()) + skew_ms).contains(&age_ms));
        }
        let again = receiver.receive(&source, &message, |_, _| true, now_ms);
        assert!(again.is_err(), "accepted twice");
        true
    });
}
