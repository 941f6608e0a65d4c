//! What holds for all bytes and texts that come from a Syft client (see [`crate::fuzz`]).

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::Value;

use super::*;
use crate::{
    fuzz::{bytes_of, bytes_of_hex, fuzz, recorded, round_trip},
    vectors::load,
};

/// The texts that were signed, by the key that signed them.
fn signed() -> Vec<(PublicKey, BTreeSet<String>)> {
    let file: Value = load("syft/signature.json");
    let mut signed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in file["cases"].as_array().expect("cases") {
        let text = |member: &str| case[member].as_str().map(str::to_owned);
        if let (Some(key), Some(text)) = (text("signer_public"), text("canonical")) {
            signed.entry(key).or_default().insert(text);
        }
    }
    let key = |(key, texts)| (public(&bytes_of_hex([key])[0]), texts);
    signed.into_iter().map(key).collect()
}

fn public(bytes: &[u8]) -> PublicKey {
    PublicKey::from_bytes(bytes.try_into().expect("32 bytes")).expect("a key")
}

fn receiver() -> SigningKey {
    let seed = &bytes_of_hex(recorded("syft/receive.json", "receiver_seed"))[0];
    SigningKey::from_seed(seed[..].try_into().expect("32 bytes"))
}

#[test]
fn no_message_verifies_but_the_signed_ones() {
    let file: Value = load("syft/signature.json");
    let cases = file["cases"].as_array().expect("cases");
    let mut corpus = bytes_of(cases.iter().map(|case| case["message"].to_string()));
    corpus.retain(|message| message.len() < 4096);
    let deep = "[".repeat(10_000);
    corpus.extend(["from", "x"].map(|member| format!("{{\"{member}\":{deep}").into_bytes()));
    let signed = signed();
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Some(message) = round_trip(bytes, Message::decode, Message::encode) else {
            return false;
        };
        let mut verified = false;
        for (key, texts) in &signed {
            if message.verify(key).is_err() {
                continue;
            }
            let time = Timestamp::from_text(message.timestamp.as_deref().unwrap_or_default());
            let Message {
                from, to, content, ..
            } = &message;
            let says = |nanos| texts.contains(&format!("{from}|{to}|{nanos}|{content}"));
            assert!(time.candidates().any(says), "{message:?}");
            verified = true;
        }
        verified
    });
}

#[test]
fn a_received_frame_is_trusted_only_if_it_was_sent_so() {
    let frames = recorded("syft/receive.json", "frame");
    let file: Value = load("syft/receive.json");
    let directory: BTreeMap<String, PublicKey> =
        serde_json::from_value(file["directory"].clone()).expect("keys");
    let own_key = receiver();
    let receive = |frame: &[u8]| {
        let key_of = |user: &str| directory.get(user).copied();
        receive(frame, "bob", &own_key, key_of)
    };
    fuzz(bolero::check!(), &bytes_of(frames), |bytes| {
        let Ok(received) = receive(bytes) else {
            return false;
        };
        if received.trust == Trust::Verified {
            let message = Message::decode(bytes).expect("received");
            let key = directory.get(&message.from).expect("a known sender");
            assert_eq!(message.verify(key), Ok(()));
        }
        true
    });
}

#[test]
fn no_envelope_opens_to_a_text_that_was_not_sealed() {
    let key = receiver();
    let mut envelopes = recorded("syft/envelope_open.json", "envelope");
    envelopes.extend(recorded("syft/envelope_reject.json", "envelope"));
    envelopes.retain(|envelope| envelope.len() < 4096);
    let mut sealed = BTreeSet::from_iter(recorded("syft/envelope_open.json", "plaintext"));
    sealed.extend(recorded("syft/envelope_reject.json", "plaintext"));
    fuzz(bolero::check!(), &bytes_of(envelopes.clone()), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let opened = open(&text, &key);
        let mut used = Opener::new(&key);
        used.open(&envelopes[0])
            .expect("recorded as one that opens");
        assert_eq!(used.open(&text), opened);
        let form = check_envelope(&text);
        assert_eq!(form.is_err(), opened == Err(EnvelopeError::Form));
        opened.is_ok_and(|opened| {
            assert!(sealed.contains(&*opened), "{}", *opened);
            true
        })
    });
}

#[test]
fn a_public_key_is_the_text_it_came_in() {
    let mut corpus = bytes_of(recorded("syft/identity.json", "public_key_base64"));
    let refused = bytes_of_hex(recorded("syft/identity.json", "ed25519_public"));
    corpus.extend(refused);
    corpus.push([&corpus[0][..], b"\n"].concat());
    fuzz(bolero::check!(), &corpus, |bytes| {
        if let Ok(bytes) = bytes.try_into() {
            let read = PublicKey::from_bytes(bytes);
            assert!(read.is_err() || read.is_ok_and(|key| key.as_bytes() == bytes));
        }
        let text = String::from_utf8_lossy(bytes);
        let Ok(key) = PublicKey::from_base64(&text) else {
            return false;
        };
        assert_eq!(key.to_base64(), text);
        assert_eq!(PublicKey::from_bytes(key.as_bytes()), Ok(key));
        assert!(key.verify(b"", &[0; 64]).is_err());
        let chance = SealChance::from_rng(&mut ChaCha20Rng::from_seed([3; 32]));
        assert_eq!(check_envelope(&seal("x", &key, &chance)), Ok(()));
        true
    });
}

#[test]
fn a_time_stays_its_text_and_means_at_most_two_numbers() {
    let mut corpus = bytes_of(recorded("syft/timestamp.json", "text"));
    corpus.push(format!("2025-05-16T12:00:00.{}Z", "1".repeat(70)).into_bytes());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let time = Timestamp::from_text(&*text);
        assert_eq!(time.as_str(), text);
        let numbers: Vec<i128> = time.candidates().collect();
        match (time.exact_nanos(), time.python_nanos()) {
            (Some(exact), Some(python)) => {
                // Python keeps microseconds, in a float with 53 bits.
                assert!((i128::from(exact) - python).abs() < 1 << 14, "{time}");
            }
            (Some(_), None) => panic!("{time}: what Go reads, Python reads"),
            (None, Some(_)) | (None, None) => {}
        }
        assert!(numbers.len() <= 2 && text.len() <= 64 || numbers.is_empty());
        !numbers.is_empty()
    });
}

#[test]
fn the_time_we_sign_with_is_one_number_and_not_later() {
    // From 2023 on there is one number; until 2116 it is less than a second earlier.
    const EXACT_FROM_MS: u64 = 1_672_531_200_000;
    const EXACT_UNTIL_MS: u64 = 4_611_686_018_000;
    let times = [
        1_747_396_800_127,
        1 << 41,
        EXACT_UNTIL_MS - 1,
        // Year 8517.
        206_622_368_596_000,
        u64::MAX,
    ];
    let corpus = times.map(|ms: u64| ms.to_le_bytes().to_vec());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Some(number) = bytes.first_chunk() else {
            return false;
        };
        let ms = u64::from_le_bytes(*number);
        let time = Timestamp::on_grid(ms);
        let numbers: Vec<i128> = time.candidates().collect();
        let nanos = i128::from(ms) * 1_000_000;
        assert!(numbers[0] <= nanos, "{ms}: {time}");
        if ms >= EXACT_FROM_MS {
            assert_eq!(numbers.len(), 1, "{ms}: {time}");
        }
        if (EXACT_FROM_MS..EXACT_UNTIL_MS).contains(&ms) {
            assert!(nanos - numbers[0] < 1_000_000_000, "{ms}: {time}");
        }
        true
    });
}

#[test]
fn a_letter_is_relayed_as_it_reads_and_nothing_else_is() {
    let file: Value = load("syft/signature.json");
    let cases = file["cases"].as_array().expect("cases");
    let mut corpus = bytes_of(cases.iter().map(|case| case["message"].to_string()));
    corpus.extend(bytes_of(recorded("syft/receive.json", "frame")));
    corpus.retain(|message| message.len() < 4096);
    fuzz(bolero::check!(), &corpus, |bytes| {
        let encode = |letter: &letter::Letter| letter.encode().into_bytes();
        let Some(letter) = round_trip(bytes, letter::Letter::decode, encode) else {
            return false;
        };
        let message = Message::decode(bytes).expect("a message");
        let time = |message: &Message| Timestamp::from_text(message.timestamp.as_deref().unwrap());
        let signed = time(&message).candidates().next();
        for reader in [Reader::Python, Reader::Go, Reader::Unknown] {
            let relayed = letter::rendered(1, &letter.encode(), reader);
            assert!(relayed.len() <= FRAME_BYTES_MAX);
            let relayed = Message::decode(relayed.as_bytes()).expect("a message");
            assert!(
                time(&relayed)
                    .candidates()
                    .any(|nanos| Some(nanos) == signed)
            );
            assert_eq!(relayed.content, message.content);
            assert_eq!(
                (relayed.from, relayed.to),
                (message.from.clone(), message.to.clone())
            );
            assert_eq!(relayed.status, None);
            assert!(!relayed.is_forward_message);
        }
        assert_ne!(letter.from.as_str(), "system");
        true
    });
}

#[test]
fn a_registration_names_a_user_that_can_be_named_again() {
    let key = receiver().public().to_base64();
    let corpus = bytes_of(
        ["alice", "bob@example.org@pi-1", "system", "a|b"].map(|id| {
            serde_json::json!({"user_id": id, "username": "x", "public_key": key}).to_string()
        }),
    );
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(body) = serde_json::from_slice::<http::Registration>(bytes) else {
            return false;
        };
        let Ok(user) = body.check() else {
            return false;
        };
        assert_eq!(user.id.as_str().parse::<UserId>(), Ok(user.id.clone()));
        assert!(!user.id.as_str().contains(['|', '/']));
        true
    });
}

#[test]
fn what_an_agent_is_asked_is_one_frame_and_what_it_answers_is_read() {
    use forward::{Kind, Request};
    let corpus = bytes_of([
        r#"{"type":"forward","query":"\"\\\u0001"}"#,
        r#"{"type":"forward","message":"x"}"#,
        r#"{"type":"register_document","filename":"a","content":"b","metadata":{"c":"d"}}"#,
        r#"{"type":"forward","message":"{\"type\":\"forward_response\",\"message\":\"x\"}"}"#,
    ]);
    let user: UserId = "alice".parse().expect("an id");
    fuzz(bolero::check!(), &corpus, |bytes| {
        let mut is_one = false;
        for kind in [Kind::Query, Kind::Register, Kind::Append] {
            let Ok(request) = Request::read(kind, bytes) else {
                continue;
            };
            is_one = true;
            if let Ok(frame) = request.frame(&user, 0) {
                let message = Message::decode(frame.as_bytes()).expect("a message");
                assert!(frame.len() <= FRAME_BYTES_MAX && message.is_forward_message);
                assert!(forward::may_answer(&message));
                // What a gateway asks has the form of an answer.
                request.answer(&message.content).expect("two layers");
            }
            drop(std::str::from_utf8(bytes).map(|text| request.answer(text)));
        }
        is_one
    });
}

#[test]
fn a_key_file_is_one_key_or_none() {
    let base64 = receiver().public().to_base64();
    let mut der = hex::decode("302a300506032b6570032100").expect("hexadecimal digits");
    der.extend(receiver().public().as_bytes());
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let hex = hex::encode(receiver().public().as_bytes());
    let corpus = bytes_of([base64, pem, hex.repeat(2), hex]);
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        let Ok(key) = PublicKey::from_key_file(text) else {
            return false;
        };
        assert_eq!(PublicKey::from_key_file(&key.to_base64()), Ok(key));
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
        true
    });
}
