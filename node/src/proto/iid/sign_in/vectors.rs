//! The known answers of `proto-specs/iid.md`, sections 5.3 to 5.5 and 5.8.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sha3::{Digest, Keccak256};

use super::{
    Heard, Policy, Refused, SignIn,
    client::{ClientHeard, ClientKey, ClientSignIn, Letter},
};
use crate::{
    proto::iid::{
        Index,
        address::{Address, EthereumAddress, EthereumKey, RsaAddress, RsaKey},
        lists::{Claims, Lists, Passwords},
        published,
    },
    vectors::{checked, load},
};

const DEFAULTS: Policy = Policy {
    rsa_bits_min: 1024,
    guests: true,
};

/// `iid/handshake.json`.
#[derive(Deserialize)]
struct Handshake {
    allow: String,
    keys: BTreeMap<String, Key>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Key {
    private_key: String,
    address: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    challenge: String,
    line: String,
    result: String,
    reason: Option<String>,
    first_text: Option<String>,
    index: Option<i32>,
    hello: Option<String>,
}

/// `iid/eip191.json`.
#[derive(Deserialize)]
struct Eip191 {
    signatures: Vec<Signed>,
    signature_forms: Forms,
}

#[derive(Deserialize)]
struct Signed {
    private_key: String,
    address: String,
    message: String,
    prefixed_hex: String,
    digest: String,
    signature: String,
    line: String,
}

#[derive(Deserialize)]
struct Forms {
    message: String,
    address: String,
    forms: Vec<Form>,
}

#[derive(Deserialize)]
struct Form {
    name: String,
    signature: String,
    gateway: String,
}

/// `iid/rsa.json`.
#[derive(Deserialize)]
struct Rsa {
    allow: String,
    allow_eth: String,
    keys: Vec<RsaCase>,
}

#[derive(Deserialize)]
struct RsaCase {
    bits: usize,
    private_pem: String,
    address: String,
    challenge: String,
    signature: String,
    line: String,
    letter: String,
    letter_line: String,
    letter_line_unity: String,
    wrong_line: String,
    hello: String,
    hello_letter: String,
}

/// `iid/password.json`.
#[derive(Deserialize)]
struct Password {
    allow: String,
    cases: Vec<PasswordCase>,
}

#[derive(Deserialize)]
struct PasswordCase {
    send: String,
    /// True, false, or "either".
    accept: Value,
    index: Option<i32>,
    hello: Option<String>,
}

fn allowed(text: &str) -> Lists {
    let (claims, skipped) = Claims::parse(text);
    assert_eq!(skipped, []);
    Lists {
        claims,
        ..Lists::default()
    }
}

fn heard(challenge: &str, line: &str, lists: &Lists) -> Heard {
    SignIn::with_challenge(challenge.to_owned()).hear(line, lists, &DEFAULTS)
}

/// Asserts that the line is accepted, and returns what the client is told.
fn hello(challenge: &str, line: &str, lists: &Lists) -> String {
    match heard(challenge, line, lists) {
        Heard::Accepted(signed_in) => {
            assert!(signed_in.hello.contains(&format!(" {} ", signed_in.index)));
            signed_in.hello
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_line_of_a_client_comes_to_what_is_recorded() {
    let file: Handshake = load("iid/handshake.json");
    let lists = allowed(&file.allow);
    for case in &file.cases {
        let heard = heard(&case.challenge, &case.line, &lists);
        match (case.result.as_str(), heard) {
            ("accept", Heard::Accepted(signed_in)) => {
                assert_eq!(Some(signed_in.index.0), case.index, "{}", case.name);
                assert_eq!(Some(signed_in.hello), case.hello, "{}", case.name);
            }
            ("ignore", Heard::Ignored) => {}
            ("refuse", Heard::Refused(refused)) => {
                let reason = match refused {
                    Refused::Form => "bad_form",
                    Refused::Challenge => "wrong_challenge",
                    Refused::Signature => "bad_signature",
                    Refused::NotAllowed => "unknown",
                    other => panic!("{}: {other:?}", case.name),
                };
                assert_eq!(Some(reason), case.reason.as_deref(), "{}", case.name);
                let first = Some(refused.texts()[0]);
                assert_eq!(first, case.first_text.as_deref(), "{}", case.name);
            }
            (_, other) => panic!("{}: expected {}, got {other:?}", case.name, case.result),
        }
    }
    checked("iid/handshake.json", file.cases.len());
}

#[test]
fn keys_have_the_addresses_recorded() {
    let file: Handshake = load("iid/handshake.json");
    for key in file.keys.values() {
        let own = EthereumKey::from_hex(&key.private_key).expect("a key");
        assert_eq!(own.address().to_string(), key.address);
    }
    checked("iid/handshake.json keys", file.keys.len());
}

#[test]
fn texts_are_signed_as_wallets_sign_them() {
    let file: Eip191 = load("iid/eip191.json");
    for case in &file.signatures {
        let key = EthereumKey::from_hex(&case.private_key).expect("a key");
        assert_eq!(key.address().to_string(), case.address);
        assert_eq!(key.sign(&case.message), case.signature, "{}", case.message);
        assert!(key.address().has_signed(&case.message, &case.signature));
        let prefixed = hex::decode(&case.prefixed_hex).expect("hex");
        assert_eq!(hex::encode(Keccak256::digest(prefixed)), case.digest);
        let line = format!("{}|{}|{}", case.message, case.address, case.signature);
        assert_eq!(line, case.line);
    }
    checked("iid/eip191.json signatures", file.signatures.len());
}

#[test]
fn signatures_are_taken_in_every_spelling_that_clients_have_and_no_other() {
    let forms = load::<Eip191>("iid/eip191.json").signature_forms;
    let address: EthereumAddress = forms.address.parse().expect("an address");
    for form in &forms.forms {
        let is_good = address.has_signed(&forms.message, &form.signature);
        let expected = match form.gateway.as_str() {
            "accept" => true,
            "refuse" => false,
            // High s: the crate recovers it and the published verifier takes it, so do we.
            "either" => true,
            other => panic!("{other}"),
        };
        assert_eq!(is_good, expected, "{}", form.name);
    }
    checked("iid/eip191.json forms", forms.forms.len());
}

#[test]
fn addresses_are_written_in_their_one_spelling() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Spelling>,
    }
    #[derive(Deserialize)]
    struct Spelling {
        lower: String,
        checksum: String,
    }
    let file: File = load("iid/eip55.json");
    for case in &file.cases {
        let address: EthereumAddress = case.lower.parse().expect("an address");
        assert_eq!(address.to_string(), case.checksum);
        assert_eq!(case.checksum.parse(), Ok(address));
    }
    checked("iid/eip55.json", file.cases.len());
}

#[test]
fn rsa_keys_sign_in_alone_and_by_letter() {
    let file: Rsa = load("iid/rsa.json");
    let lists = allowed(&format!("{}{}", file.allow, file.allow_eth));
    for case in &file.keys {
        let address = RsaAddress::parse(&case.address).expect("an address");
        assert_eq!(address.bits(), case.bits);
        let challenge = &case.challenge;
        assert_eq!(hello(challenge, &case.line, &lists), case.hello);
        for line in [&case.letter_line, &case.letter_line_unity] {
            assert_eq!(hello(challenge, line, &lists), case.hello_letter);
        }
        let wrong = heard(challenge, &case.wrong_line, &lists);
        assert_eq!(wrong, Heard::Refused(Refused::Signature), "{}", case.bits);
    }
    checked("iid/rsa.json", 4 * file.keys.len());
}

#[test]
fn our_rsa_keys_answer_as_recorded() {
    let file: Rsa = load("iid/rsa.json");
    for case in &file.keys {
        let key = RsaKey::parse(&case.private_pem).expect("a key");
        assert_eq!(key.address().to_string(), case.address);
        assert_eq!(key.sign(&case.challenge).as_ref(), Some(&case.signature));
        let greeting = format!("SIGN:{}", case.challenge);
        let letter: Letter = case.letter.parse().expect("a letter");
        for (letter, line) in [(None, &case.line), (Some(letter), &case.letter_line)] {
            let key = ClientKey::Rsa(key.clone());
            let mut client = ClientSignIn::new(key, letter).expect("its own letter");
            assert_eq!(client.hear(&greeting), ClientHeard::Answer(line.clone()));
        }
    }
    checked("iid/rsa.json our answers", 2 * file.keys.len());
}

/// Three of the passwords are published, so nothing counts as published in here.
/// `tests::published_secrets_are_refused_under_any_index` has the other side.
#[test]
fn passwords_come_to_what_is_recorded() {
    let file: Password = load("iid/password.json");
    let (passwords, skipped) = Passwords::read(&file.allow, &published::NONE);
    assert_eq!(skipped, []);
    let lists = Lists {
        passwords: Some(passwords),
        ..Lists::default()
    };
    for case in &file.cases {
        let mut sign_in = SignIn::new([0; 16]).taking_published();
        match (sign_in.hear(&case.send, &lists, &DEFAULTS), &case.accept) {
            (Heard::Accepted(signed_in), Value::Bool(true)) => {
                assert_eq!(Some(signed_in.index.0), case.index, "{}", case.send);
                assert_eq!(Some(signed_in.hello), case.hello, "{}", case.send);
            }
            (Heard::Refused(refused), Value::Bool(false)) => {
                assert_eq!(refused.texts(), ["INVALID SHA256"], "{}", case.send);
            }
            // Digits in capitals are the same hash to us.
            (Heard::Accepted(_), Value::String(either)) if either == "either" => {}
            (heard, expected) => panic!("{}: {expected}, got {heard:?}", case.send),
        }
    }
    checked("iid/password.json", file.cases.len());
}

#[test]
fn allow_lists_are_read_as_recorded() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<List>,
    }
    #[derive(Deserialize)]
    struct List {
        text: String,
        map: BTreeMap<String, i32>,
    }
    let file: File = load("iid/allow_list.json");
    for case in &file.cases {
        let (claims, _) = Claims::parse(&case.text);
        for (address, index) in &case.map {
            assert_eq!(claims.index_of(address), Some(Index(*index)), "{address}");
        }
        let listed: BTreeMap<String, i32> = claims
            .iter()
            .map(|(index, address)| (address.to_lowercase(), index.0))
            .collect();
        assert_eq!(listed, case.map);
        assert!(case.map.keys().all(|a| Address::parse(a).is_ok()));
    }
    checked("iid/allow_list.json", file.cases.len());
}
