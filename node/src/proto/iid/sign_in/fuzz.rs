//! What holds for all texts that come while somebody signs in, and for all lists (see
//! [`crate::fuzz`]).

use super::{
    client::{ClientHeard, ClientKey, ClientSignIn},
    *,
};
use crate::{
    fuzz::{bytes_of, fuzz, recorded},
    proto::iid::{
        address::{EthereumKey, RsaAddress, rsa},
        lists::{Claims, Letters, Passwords, allow, deny},
    },
};

const POLICY: Policy = Policy {
    rsa_bits_min: 1024,
    guests: false,
};

fn claims() -> Claims {
    let texts = [
        recorded("iid/handshake.json", "allow"),
        recorded("iid/rsa.json", "allow"),
    ];
    Claims::parse(&texts.concat().concat()).0
}

#[test]
fn whoever_is_accepted_is_listed_answered_the_challenge_and_is_accepted_once() {
    let mut corpus = bytes_of(recorded("iid/handshake.json", "line"));
    corpus.extend(bytes_of(recorded("iid/rsa.json", "letter_line_unity")));
    corpus.extend(bytes_of(recorded("iid/password.json", "send")));
    let lists = Lists {
        claims: claims(),
        passwords: Some(Passwords::parse(&recorded("iid/password.json", "allow").concat()).0),
        ..Lists::default()
    };
    let indices = [7, 8, 42, 101, 102, 104];
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else {
            return false;
        };
        // Whatever the text begins with is the challenge, as far as it could be one.
        let challenge: String = text.trim_start().chars().take(36).collect();
        let mut sign_in = SignIn::with_challenge(challenge);
        match sign_in.hear(text, &lists, &POLICY) {
            Heard::Ignored => assert!(!text.contains('|')),
            Heard::Refused(refused) => assert!(!refused.texts().is_empty()),
            Heard::Accepted(signed_in) => {
                assert!(indices.contains(&signed_in.index.0));
                let hello = format!("HELLO {} ", signed_in.index);
                assert!(signed_in.hello.starts_with(&hello));
                let again = sign_in.hear(text, &lists, &POLICY);
                assert_eq!(again, Heard::Refused(Refused::Challenge));
                let mut other = SignIn::new([0; 16]);
                let elsewhere = other.hear(text, &lists, &POLICY);
                assert_eq!(elsewhere, Heard::Refused(Refused::Challenge));
                return true;
            }
        }
        false
    });
}

#[test]
fn lists_hold_what_was_put_in_and_not_what_was_taken_out() {
    let mut corpus = bytes_of(recorded("iid/allow_list.json", "text"));
    corpus.extend(bytes_of(recorded("iid/handshake.json", "allow")));
    corpus.extend(bytes_of(recorded("iid/password.json", "allow")));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().count();
        let (claims, skipped) = Claims::parse(&text);
        assert!(claims.iter().count() + skipped.len() <= lines);
        assert!(Passwords::parse(&text).1.len() <= lines);
        assert!(Letters::parse(&text.replace(':', ">")).1.len() <= lines);
        let Some((index, address)) = claims.iter().next() else {
            return false;
        };
        assert_eq!(claims.index_of(address), Some(index));
        assert_eq!(allow(&text, index, address).as_deref(), Ok(&*text));
        let moved = allow(&text, Index(12), address).expect("it is listed");
        assert_eq!(Claims::parse(&moved).0.index_of(address), Some(Index(12)));
        let (without, removed) = deny(&moved, address);
        assert!(removed > 0);
        assert_eq!(Claims::parse(&without).0.index_of(address), None);
        assert_eq!(deny(&without, address), (without.clone(), 0));
        true
    });
}

#[test]
fn an_rsa_address_is_the_text_it_came_in_and_within_bounds() {
    let corpus = bytes_of(recorded("iid/rsa.json", "address"));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Some(address) = str::from_utf8(bytes)
            .ok()
            .and_then(|t| RsaAddress::parse(t).ok())
        else {
            return false;
        };
        assert_eq!(address.to_string().as_bytes(), bytes);
        assert!((rsa::BITS_MIN..=rsa::BITS_MAX).contains(&address.bits()));
        assert!(!address.has_signed("", ""));
        true
    });
}

/// The XML inside is out of reach of changed base58, so it is changed by itself.
#[test]
fn an_rsa_key_in_xml_is_within_bounds() {
    let corpus = bytes_of(recorded("iid/rsa.json", "public_xml"));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = format!("{}{}", rsa::TAG, bs58::encode(bytes).into_string());
        let Ok(address) = RsaAddress::parse(&text) else {
            return false;
        };
        assert!((rsa::BITS_MIN..=rsa::BITS_MAX).contains(&address.bits()));
        true
    });
}

#[test]
fn a_client_signs_one_challenge_and_nothing_else() {
    let key = EthereumKey::from_bytes(&[1; 32]).expect("in range");
    let challenges = recorded("iid/handshake.json", "challenge");
    let mut corpus = bytes_of(challenges.iter().map(|c| format!("SIGN:{c}")));
    corpus.extend(bytes_of(recorded("iid/handshake.json", "hello")));
    corpus.extend(bytes_of(recorded("iid/handshake.json", "first_text")));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let client =
            || ClientSignIn::new(ClientKey::Ethereum(key.clone()), None).expect("no letter");
        let mut fresh = client();
        let mut answered = client();
        answered.hear(&format!("SIGN:{}", challenges[0]));
        let after = answered.hear(&text);
        assert!(!matches!(after, ClientHeard::Answer(_)), "signed twice");
        let ClientHeard::Answer(line) = fresh.hear(&text) else {
            return matches!(after, ClientHeard::SignedIn { .. });
        };
        let challenge = text.strip_prefix("SIGN:").expect("signed only with that");
        assert_eq!(challenge.len(), 36);
        let is_of_uuid = |b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f');
        assert!(challenge.bytes().all(is_of_uuid));
        assert!(line.starts_with(challenge));
        true
    });
}
