//! What a client sends through a gateway, and what the gateway makes of it (`proto-specs/syft.md`,
//! sections 4, 6 and 7).
//!
//! A letter is parsed once. `content` and `signature` stay the texts that the sender wrote, because
//! they are what is signed; `id`, `status` and the two flags that a client may have written are left
//! behind, because receivers would believe them. `timestamp` stays as well, but for a client that
//! would compute another number from it than the one that was signed ([`rendered`]).

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{
    envelope::check_envelope,
    forward::is_request,
    identity::{PublicKey, WrongSignature},
    message::{FRAME_BYTES_MAX, Message},
    time::{Reader, Timestamp},
    user::UserId,
};

/// Longest time text that is relayed, in bytes; longer ones mean nothing to any reader.
const TIMESTAMP_BYTES_MAX: usize = 64;

/// Longest signature text, in bytes: base64 of 64 bytes.
const SIGNATURE_BYTES_MAX: usize = 88;

/// Longest content that fits into a frame however it is escaped: at worst a byte becomes six.
const SURE_CONTENT_BYTES: usize = (FRAME_BYTES_MAX - 4096) / 6;

/// Bytes that a gateway adds to a frame at most: 22 for `"id":`, 16 digits and a comma, and 10 for
/// another text of a time. The shortest text that has another one is `2025-05-16T12:00:00.1Z`, and
/// the longest that is written for it has 32 bytes.
pub const ID_BYTES_MAX: usize = 32;

/// Whom a letter is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// One user.
    User(UserId),
    /// Everybody but the sender.
    Broadcast,
}

/// A frame of a client that may be relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who sends it, as it says.
    pub from: UserId,
    /// Whom it is for.
    pub to: Addressee,
    /// What is relayed, and what is signed.
    message: Message,
}

/// Why a frame is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// No JSON object with the right members. The old server ignores it without a word.
    #[error("the frame is no Syft message")]
    Malformed,
    /// A sender or recipient that cannot exist.
    #[error("`from` or `to` is no user id")]
    Name,
    /// A direct message without the five members of an envelope, or with wrong lengths. One such
    /// frame ends a Go client.
    #[error("a direct message has an envelope of five members with their lengths")]
    Envelope,
    /// With the number that the gateway puts before it, it would be longer than readers take: a Go
    /// client ends at such a frame, at each start again.
    #[error("a frame has at most {FRAME_BYTES_MAX} bytes with the number that it gets")]
    TooLong,
    /// A broadcast that has Go clients do what their own users may ask for.
    #[error("a broadcast is no forward message")]
    Forward,
}

impl LetterError {
    /// Returns a short constant for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Name => "name",
            Self::Envelope => "envelope",
            Self::TooLong => "too_long",
            Self::Forward => "forward",
        }
    }
}

impl Letter {
    /// Reads what a client sent; believes nothing in it.
    ///
    /// # Errors
    /// Returns why it is not relayed.
    pub fn decode(bytes: &[u8]) -> Result<Self, LetterError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(LetterError::Malformed);
        }
        let message = Message::decode(bytes).map_err(|_| LetterError::Malformed)?;
        Self::of(message)
    }

    /// Takes a message as a letter.
    ///
    /// # Errors
    /// Returns why it is not relayed.
    pub fn of(message: Message) -> Result<Self, LetterError> {
        let time = message.timestamp.as_deref().ok_or(LetterError::Malformed)?;
        // Go drops a frame whose time it cannot read, and so did the old server.
        let readable =
            time.len() <= TIMESTAMP_BYTES_MAX && Timestamp::from_text(time).exact_nanos().is_some();
        let signature = message.signature.as_deref().unwrap_or_default();
        if !readable || signature.len() > SIGNATURE_BYTES_MAX {
            return Err(LetterError::Malformed);
        }
        let from = message.from.parse().map_err(|_| LetterError::Name)?;
        let to = match message.to.as_str() {
            "broadcast" => Addressee::Broadcast,
            user => Addressee::User(user.parse().map_err(|_| LetterError::Name)?),
        };
        if to != Addressee::Broadcast {
            check_envelope(&message.content).map_err(|_| LetterError::Envelope)?;
        } else if is_request(&message.content) {
            return Err(LetterError::Forward);
        }
        let letter = Self {
            from,
            to,
            message: Message {
                id: None,
                status: None,
                is_forward_message: false,
                signature: (!signature.is_empty()).then(|| signature.to_owned()),
                ..message
            },
        };
        let may_be_long = letter.content().len() > SURE_CONTENT_BYTES;
        if may_be_long && letter.encode().len() + ID_BYTES_MAX > FRAME_BYTES_MAX {
            return Err(LetterError::TooLong);
        }
        Ok(letter)
    }

    /// Returns the envelope, or the text of a broadcast.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.message.content
    }

    /// Says whether there is a signature at all.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.message.signature.is_some()
    }

    /// Verifies the signature, if there is one. Clients show a letter without as `unsigned`. From
    /// here on the text of the time says which number was signed.
    ///
    /// # Errors
    /// Returns [`WrongSignature`] if there is one and it is not this key's.
    pub fn check(&mut self, key: &PublicKey) -> Result<(), WrongSignature> {
        if self.is_signed() {
            self.message.tell_signed(key)
        } else {
            Ok(())
        }
    }

    /// Returns what a repetition of this letter has in common with it, and no other letter has:
    /// a signature covers sender, recipient, time and content.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        let Message {
            from,
            to,
            timestamp,
            content,
            signature,
            ..
        } = &self.message;
        // The decoded bytes, so that another spelling of one signature is the same letter.
        let signature = STANDARD.decode(signature.as_deref().unwrap_or_default());
        match signature {
            Ok(bytes) if !bytes.is_empty() => hash.update(bytes),
            _ => {
                for part in [from, to, timestamp.as_deref().unwrap_or_default(), content] {
                    hash.update((part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        Fingerprint(hash[..16].try_into().expect("16 of 32 bytes"))
    }

    /// Returns the frame as it is stored and carried: without an id.
    #[must_use]
    pub fn encode(&self) -> String {
        String::from_utf8(self.message.encode()).expect("JSON is UTF-8")
    }
}

/// Names a letter among all: 128 bits of a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({})", hex::encode(self.0))
    }
}

/// Makes the frame for a client of a stored one: with the number that the old clients expect, and
/// with a time from which this client computes the number that was signed, if there is one.
#[must_use]
pub fn rendered(row: u64, stored: &str, reader: Reader) -> String {
    let mut frame = String::with_capacity(stored.len() + ID_BYTES_MAX);
    // JavaScript and Python's readers of JSON hold integers below 2^53 exactly.
    write!(frame, "{{\"id\":{},", row & ((1 << 53) - 1)).expect("writing to a string");
    let rest = stored.strip_prefix('{').unwrap_or(stored);
    match around_time(rest) {
        None => frame.push_str(rest),
        Some((before, time, after)) => {
            frame.push_str(before);
            frame.push_str(&Timestamp::from_text(time).text_for(reader));
            frame.push_str(after);
        }
    }
    frame
}

/// Finds the text of the time in a stored frame. Inside of texts JSON has no quotes without a
/// backslash before them, so this is the first member of that name, and a time has no escapes.
fn around_time(frame: &str) -> Option<(&str, &str, &str)> {
    const NAME: &str = ",\"timestamp\":\"";
    let start = frame.find(NAME)? + NAME.len();
    let (before, rest) = frame.split_at(start);
    let (time, after) = rest.split_at(rest.find('"')?);
    Some((before, time, after))
}

/// Makes the frame with which a gateway itself speaks to a user.
#[must_use]
pub fn system_frame(to: &str, text: &str, unix_ms: u64) -> String {
    let message = Message {
        id: Some(0),
        from: "system".to_owned(),
        to: to.to_owned(),
        timestamp: Some(Timestamp::on_grid(unix_ms).as_str().to_owned()),
        content: text.to_owned(),
        status: Some("error".to_owned()),
        signature: None,
        is_forward_message: false,
    };
    String::from_utf8(message.encode()).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proto::syft::{SealChance, SigningKey, seal};

    fn envelope(to: &SigningKey) -> String {
        let chance = &mut <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([3; 32]);
        seal("door open", to.public(), &SealChance::from_rng(chance))
    }

    fn frame() -> Value {
        let key = SigningKey::from_seed(&[7; 32]);
        let content = envelope(&SigningKey::from_seed(&[8; 32]));
        let message = Message::signed("alice", "bob", content, 1_747_396_800_124, &key);
        serde_json::from_slice(&message.encode()).expect("JSON")
    }

    fn decode(frame: &Value) -> Result<Letter, LetterError> {
        Letter::decode(frame.to_string().as_bytes())
    }

    #[test]
    fn what_is_signed_is_relayed_to_the_letter_and_what_a_client_adds_is_not() {
        let sent = frame();
        let mut claimed = sent.clone();
        claimed["id"] = json!(77);
        claimed["status"] = json!("verified");
        claimed["is_forward_message"] = json!(true);
        claimed["is_broadcast"] = json!(true);

        let mut letter = decode(&claimed).expect("a letter");

        let relayed = rendered(5, &letter.encode(), Reader::Go);
        let relayed: Value = serde_json::from_str(&relayed).expect("JSON");
        let mut expected = sent;
        expected["id"] = json!(5);
        assert_eq!(relayed, expected);
        assert_eq!(
            letter.check(SigningKey::from_seed(&[7; 32]).public()),
            Ok(())
        );
    }

    #[test]
    fn a_time_is_passed_on_as_it_was_written() {
        for time in ["2025-05-16T12:00:00.100000+00:00", "2025-05-16T12:00:00Z"] {
            let mut sent = frame();
            sent["timestamp"] = json!(time);
            sent["signature"] = json!("");
            let letter = decode(&sent).expect("a letter");
            let relayed: Value = serde_json::from_str(&letter.encode()).expect("JSON");
            assert_eq!(relayed["timestamp"], time);
            assert_eq!(relayed.get("signature"), None);
        }
    }

    #[test]
    fn the_time_is_rewritten_for_a_reader_and_nothing_else_is() {
        let mut sent = frame();
        sent["from"] = json!("a\",\"timestamp\":\"2025-05-16T12:00:00Z\\");
        sent["timestamp"] = json!("2025-05-16T12:00:00.123457+00:00");
        let message: Message = serde_json::from_value(sent.clone()).expect("a message");
        let stored = String::from_utf8(message.encode()).expect("text");
        for (reader, time) in [
            (Reader::Python, "2025-05-16T12:00:00.123457+00:00"),
            (Reader::Go, "2025-05-16T12:00:00.123457024Z"),
        ] {
            let frame = rendered(5, &stored, reader);
            let frame: Value = serde_json::from_str(&frame).expect("JSON");
            let mut expected = sent.clone();
            expected["id"] = json!(5);
            expected["timestamp"] = json!(time);
            assert_eq!(frame, expected, "{reader:?}");
        }
    }

    #[test]
    fn what_would_harm_a_reader_is_not_relayed() {
        let changed = |member: &str, value: Value| {
            let mut frame = frame();
            frame[member] = value;
            decode(&frame).map(drop)
        };
        for (member, value, error) in [
            ("timestamp", json!("yesterday"), LetterError::Malformed),
            ("timestamp", json!(null), LetterError::Malformed),
            ("id", json!("7"), LetterError::Malformed),
            ("content", json!({}), LetterError::Malformed),
            ("content", json!("hello"), LetterError::Envelope),
            ("to", json!("system"), LetterError::Name),
            ("from", json!("a|b"), LetterError::Name),
        ] {
            assert_eq!(
                changed(member, value.clone()),
                Err(error),
                "{member} {value}"
            );
        }
        // A nonce of another length ends Go's clients.
        for (member, lengths) in [
            ("ephemeral_public_key", &[0, 31, 33][..]),
            ("key_nonce", &[0, 23, 25]),
            ("encrypted_key", &[0, 47, 49]),
            ("data_nonce", &[0, 8, 11, 13, 16, 128]),
            ("encrypted_content", &[0, 15]),
        ] {
            for &length in lengths {
                let content = frame()["content"].as_str().expect("text").to_owned();
                let mut envelope: Value = serde_json::from_str(&content).expect("JSON");
                envelope[member] = json!(STANDARD.encode(vec![7; length]));
                let content = json!(envelope.to_string());
                let refused = changed("content", content);
                assert_eq!(refused, Err(LetterError::Envelope), "{member} of {length}");
            }
        }
        assert_eq!(
            Letter::decode(b"[1]").map(drop),
            Err(LetterError::Malformed)
        );
    }

    #[test]
    fn no_frame_is_longer_with_its_number_than_readers_take() {
        let of = |length: usize| {
            let mut sent = frame();
            sent["to"] = json!("broadcast");
            sent["signature"] = json!("");
            sent["content"] = json!("");
            sent["timestamp"] = json!("2025-05-16T12:00:00.1Z");
            let around = decode(&sent).expect("a letter").encode().len();
            sent["content"] = json!("x".repeat(length - around));
            decode(&sent).map(|letter| {
                let longest = "2025-05-16T12:00:00.100000+00:00";
                let stored = letter.encode();
                let stored = stored.replace("2025-05-16T12:00:00.1Z", longest);
                rendered(u64::MAX, &stored, Reader::Python).len()
            })
        };
        let longest = FRAME_BYTES_MAX - ID_BYTES_MAX;
        assert!(of(longest).expect("fits") <= FRAME_BYTES_MAX);
        assert_eq!(of(longest + 1), Err(LetterError::TooLong));
    }

    #[test]
    fn a_content_that_is_not_measured_fits_however_it_is_escaped() {
        let mut sent = frame();
        sent["to"] = json!("broadcast");
        sent["signature"] = json!("");
        sent["content"] = json!("\u{1}".repeat(SURE_CONTENT_BYTES));
        let user = "u".repeat(super::super::USER_ID_BYTES_MAX);
        sent["from"] = json!(user);
        let message = serde_json::from_value(sent).expect("a message");
        let letter = Letter::of(message).expect("a letter");
        assert!(rendered(u64::MAX, &letter.encode(), Reader::Go).len() <= FRAME_BYTES_MAX);
    }

    #[test]
    fn a_broadcast_that_asks_agents_for_something_is_refused() {
        for (content, expected) in [
            (
                r#"{"type":"forward","message":"x"}"#,
                Err(LetterError::Forward),
            ),
            (
                r#" {"Type":"register_document"}"#,
                Err(LetterError::Forward),
            ),
            (r#"{"type":"append_document"}"#, Err(LetterError::Forward)),
            (r#"{"type":"query","message":"x"}"#, Ok(())),
            ("forward", Ok(())),
        ] {
            let mut sent = frame();
            sent["to"] = json!("broadcast");
            sent["content"] = json!(content);
            assert_eq!(decode(&sent).map(drop), expected, "{content}");
        }
    }

    #[test]
    fn a_broadcast_is_a_plain_text_and_the_flag_makes_none() {
        let mut sent = frame();
        sent["to"] = json!("broadcast");
        sent["content"] = json!("hello");
        assert_eq!(decode(&sent).expect("a letter").to, Addressee::Broadcast);
        let mut flagged = frame();
        flagged["is_broadcast"] = json!(true);
        let to = decode(&flagged).expect("a letter").to;
        assert_eq!(to, Addressee::User("bob".parse().expect("an id")));
    }

    #[test]
    fn a_repeated_letter_has_the_same_fingerprint_and_another_one_has_not() {
        let print = |frame: &Value| decode(frame).expect("a letter").fingerprint();
        let mut again = frame();
        again["id"] = json!(9);
        assert_eq!(print(&frame()), print(&again));
        let mut unsigned = frame();
        unsigned["signature"] = json!("");
        let mut later = unsigned.clone();
        later["timestamp"] = json!("2025-05-16T12:00:01Z");
        assert_ne!(print(&frame()), print(&unsigned));
        assert_ne!(print(&unsigned), print(&later));
    }

    #[test]
    fn the_number_of_a_frame_is_one_that_every_reader_holds() {
        let stored = r#"{"from":"a"}"#;
        let number = |row| rendered(row, stored, Reader::Unknown);
        assert_eq!(number(7), r#"{"id":7,"from":"a"}"#);
        assert_eq!(number((1 << 53) + 1), r#"{"id":1,"from":"a"}"#);
    }
}
