//! The known answers of `proto-specs/p2sn.md`, section 7.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    BlockError, KeyError, Limits, Output, PrivateKey, PublicKey, Reason, Session,
    frames::END,
    samples::{ANY_SIZE, Exchange, private, rng},
};
use crate::vectors::{checked, load};

const NOW: Duration = Duration::ZERO;

/// `p2sn/reject.json`.
#[derive(Deserialize)]
struct Reject {
    frames: Vec<Frame>,
    public_keys: Vec<BadKey>,
}

#[derive(Deserialize)]
struct Frame {
    key: String,
    why: String,
    kind: String,
    frame_hex: Option<String>,
    repeat: Option<Repeat>,
}

#[derive(Deserialize)]
struct Repeat {
    byte_hex: String,
    count: usize,
}

#[derive(Deserialize)]
struct BadKey {
    why: String,
    pem: String,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        match (&self.frame_hex, &self.repeat) {
            (Some(frame), None) => hex::decode(frame).expect("hex"),
            (None, Some(repeat)) => hex::decode(repeat.byte_hex.repeat(repeat.count)).expect("hex"),
            _ => panic!("either a frame or a repetition: {}", self.why),
        }
    }
}

fn server(own: &PrivateKey) -> Session {
    Session::server(own.clone(), ANY_SIZE, Limits::default(), NOW)
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn written_hex(output: Option<&Output>) -> String {
    match output {
        Some(Output::Write(bytes)) => hex::encode(bytes),
        other => panic!("expected a write, got {other:?}"),
    }
}

#[test]
fn keys_of_the_real_programs_are_read_and_written_byte_for_byte() {
    let file = Exchange::load();
    for key in &file.keys {
        let own = PrivateKey::from_foreign_pem(&key.private_pem).expect("a private key");
        assert_eq!(own.public().to_pem(), key.public_pem, "{}", key.id);
        assert_eq!(own.public().bits(), key.bits, "{}", key.id);
        assert_eq!(
            *own.to_pem().expect("two primes"),
            key.private_pem,
            "{}",
            key.id
        );
        let read = PublicKey::from_pem(&key.public_pem, ANY_SIZE);
        assert_eq!(read.as_ref(), Ok(own.public()), "{}", key.id);
    }
    checked("p2sn/exchange.json keys", file.keys.len());
}

#[test]
fn both_roles_show_their_key_byte_for_byte_as_the_real_programs() {
    let file = Exchange::load();
    for key in &file.keys {
        let own = private(&key.id);
        let mut session = server(&own);
        session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
        let shown = written_hex(outputs(&mut session).first());
        assert_eq!(
            shown, key.server_pubkey_frame_hex,
            "{} as the server",
            key.id
        );

        let mut session = Session::client(own, ANY_SIZE, Limits::default(), NOW);
        let server_key = hex::decode(&key.server_pubkey_frame_hex).expect("hex");
        session.handle_input(&server_key, &mut rng(), NOW);
        session.accept_key(&mut rng(), NOW);
        session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
        let shown = written_hex(outputs(&mut session).last());
        assert_eq!(
            shown, key.client_pubkey_frame_hex,
            "{} as the client",
            key.id
        );
    }
    checked("p2sn/exchange.json frames of keys", 2 * file.keys.len());
}

#[test]
fn blocks_of_the_real_programs_open() {
    let file = Exchange::load();
    for case in &file.decrypt {
        let own = private(&case.key);
        let frame = hex::decode(&case.frame_hex).expect("hex");
        let block = frame.strip_suffix(&[END]).expect("an end");
        let plaintext = hex::decode(&case.plaintext_hex).expect("hex");

        let checked_too = own.open_checked(block, &mut rng());
        assert_eq!(
            checked_too,
            Ok(Some(plaintext.clone())),
            "{}",
            case.plaintext_hex
        );
        assert_eq!(
            own.open(block, &mut rng()),
            Ok(plaintext),
            "{}",
            case.plaintext_hex
        );
    }
    checked("p2sn/exchange.json decrypt", file.decrypt.len());
}

/// Says whether a block is a number below the modulus. One that was sealed for another key, or has
/// a flipped bit, may be or not.
fn is_in_range(own: &PrivateKey, block: &[u8]) -> bool {
    let block = STANDARD.decode(block).expect("base64");
    // Both have the length of the modulus, so they compare as numbers.
    let modulus = own.public().modulus();
    assert_eq!(block.len(), modulus.len());
    block < modulus
}

#[test]
fn bad_blocks_are_refused_for_the_reason_given() {
    let file: Reject = load("p2sn/reject.json");
    for case in &file.frames {
        let own = private(&case.key);
        let bytes = case.bytes();
        let block = bytes.strip_suffix(&[END]).unwrap_or(&bytes);
        let opened = own.open_checked(block, &mut rng());
        let expected = match case.kind.as_str() {
            "decrypt" if is_in_range(&own, block) => matches!(opened, Ok(None)),
            "decrypt" | "range" => opened == Err(BlockError::Range),
            "base64" => opened == Err(BlockError::Base64),
            "length" | "size" => matches!(opened, Err(BlockError::Length { .. })),
            "empty" => matches!(opened, Err(BlockError::Length { got: 0, .. })),
            kind => panic!("unknown kind `{kind}`: {}", case.why),
        };
        assert!(expected, "{} ({}): {opened:?}", case.why, case.kind);
    }
    checked("p2sn/reject.json blocks", file.frames.len());
}

/// Rule P2SN-ONE-ANSWER: in the place of the key check, each is answered alike.
#[test]
fn bad_frames_end_the_exchange_with_one_constant_answer() {
    let file: Reject = load("p2sn/reject.json");
    for case in &file.frames {
        let mut session = server(&private(&case.key));
        session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
        outputs(&mut session);

        session.handle_input(&case.bytes(), &mut rng(), NOW);

        let expected = match case.kind.as_str() {
            "size" => vec![Output::Closed(Reason::TooLong)],
            _ => vec![
                Output::Write(b"P2SN:ERRORKEY\x04".to_vec()),
                Output::Closed(Reason::CheckFailed),
            ],
        };
        assert_eq!(
            outputs(&mut session),
            expected,
            "{} ({})",
            case.why,
            case.kind
        );
    }
    checked("p2sn/reject.json frames", file.frames.len());
}

#[test]
fn bad_public_keys_are_refused_for_the_reason_given() {
    let file: Reject = load("p2sn/reject.json");
    for case in &file.public_keys {
        let expected = match case.why.as_str() {
            "modulus of 512 bits: under every limit" => KeyError::Small {
                bits: 512,
                min: 1024,
            },
            "public exponent 1" => KeyError::Exponent,
            _ => KeyError::Pem,
        };
        assert_eq!(
            PublicKey::from_pem(&case.pem, ANY_SIZE),
            Err(expected),
            "{}",
            case.why
        );
    }
    checked("p2sn/reject.json keys", file.public_keys.len());
}
