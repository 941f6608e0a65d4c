//! What the recorded lines do not show: letters that are withdrawn, published secrets, limits, and
//! the client against the server.

use super::{
    client::{ClientHeard, ClientKey, ClientSignIn, IGNORED_MAX as CLIENT_IGNORED_MAX, Letter},
    *,
};
use crate::proto::iid::{
    address::{EthereumKey, RsaKey},
    lists::{Claims, Letters, Passwords},
    published::{self, RSA_DEMONSTRATION},
};

const POLICY: Policy = Policy {
    rsa_bits_min: 1024,
    guests: true,
};

const CHALLENGE: &str = "f2b136fe-5702-4607-8ec1-abbd724699b8";

impl SignIn {
    /// Lets published secrets pass: for known answers that were made with them.
    pub(super) fn taking_published(mut self) -> Self {
        self.published = &published::NONE;
        self
    }
}

fn wallet(byte: u8) -> EthereumKey {
    EthereumKey::from_bytes(&[byte; 32]).expect("in range")
}

fn letter(master: &EthereumKey, coaster: &EthereumKey) -> Letter {
    let coaster = coaster.address().to_string();
    let signature = master.sign(&coaster);
    format!("{coaster}|\n{}|\n{signature}", master.address())
        .parse()
        .expect("a letter")
}

fn sign_in() -> SignIn {
    SignIn::with_challenge(CHALLENGE.to_owned())
}

fn answer(key: &EthereumKey) -> String {
    format!("{CHALLENGE}|{}|{}", key.address(), key.sign(CHALLENGE))
}

fn answer_by_letter(master: &EthereumKey, coaster: &EthereumKey) -> String {
    let key = ClientKey::Ethereum(coaster.clone());
    let mut client = ClientSignIn::new(key, Some(letter(master, coaster))).expect("its letter");
    match client.hear(&format!("SIGN:{CHALLENGE}")) {
        ClientHeard::Answer(line) => line,
        other => panic!("{other:?}"),
    }
}

fn lists(claims: &str) -> Lists {
    Lists {
        claims: Claims::parse(claims).0,
        ..Lists::default()
    }
}

fn refusal(heard: Heard) -> Refused {
    match heard {
        Heard::Refused(refused) => refused,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn the_greeting_is_a_version_4_uuid_of_the_random_bytes() {
    let all = SignIn::new([0xff; 16]);
    let none = SignIn::new([0; 16]);

    assert_eq!(all.greeting(), "SIGN:ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(none.greeting(), "SIGN:00000000-0000-4000-8000-000000000000");
}

#[test]
fn client_and_server_of_ours_agree() {
    let key = wallet(1);
    let lists = lists(&format!("7:{}", key.address()));
    let mut server = SignIn::new([9; 16]);
    let mut client = ClientSignIn::new(ClientKey::Ethereum(key.clone()), None).expect("no letter");

    let ClientHeard::Answer(line) = client.hear(&server.greeting()) else {
        panic!("no answer");
    };
    let Heard::Accepted(signed_in) = server.hear(&line, &lists, &POLICY) else {
        panic!("not accepted");
    };

    assert_eq!(signed_in.method, Method::Ethereum);
    assert_eq!(signed_in.address, key.address().to_string());
    let (index, rest) = (Index(7), key.address().to_string());
    let heard = client.hear(&signed_in.hello);
    assert_eq!(heard, ClientHeard::SignedIn { index, rest });
}

#[test]
fn a_challenge_is_used_once() {
    let key = wallet(1);
    let lists = lists(&format!("7:{}", key.address()));
    let line = answer(&key);

    let mut accepted = sign_in();
    assert!(matches!(
        accepted.hear(&line, &lists, &POLICY),
        Heard::Accepted(_)
    ));
    let again = accepted.hear(&line, &lists, &POLICY);
    assert_eq!(refusal(again), Refused::Challenge);

    let mut refused = sign_in();
    let first = refused.hear("a|b", &lists, &POLICY);
    assert_eq!(refusal(first), Refused::Form);
    let after = refused.hear(&line, &lists, &POLICY);
    assert_eq!(refusal(after), Refused::Challenge);
    assert_eq!(refusal(refused.hear_binary()), Refused::Challenge);
}

#[test]
fn eight_messages_that_mean_nothing_are_taken_and_no_more() {
    let key = wallet(1);
    let lists = lists(&format!("7:{}", key.address()));
    let mut patient = sign_in();
    let mut flooded = sign_in();

    for _ in 0..IGNORED_MAX / 2 {
        for sign_in in [&mut patient, &mut flooded] {
            let text = sign_in.hear("Hello, Server!", &lists, &POLICY);
            assert_eq!(text, Heard::Ignored);
            assert_eq!(sign_in.hear_binary(), Heard::Ignored);
        }
    }

    let answered = patient.hear(&answer(&key), &lists, &POLICY);
    assert!(matches!(answered, Heard::Accepted(_)));
    assert_eq!(refusal(flooded.hear_binary()), Refused::TooMuch);
    let late = flooded.hear(&answer(&key), &lists, &POLICY);
    assert_eq!(refusal(late), Refused::Challenge);
}

#[test]
fn a_text_that_is_too_long_is_refused_unread() {
    let key = wallet(1);
    let lists = lists(&format!("7:{}", key.address()));
    let line = answer(&key);
    let padded = |to: usize| format!("{line}{}", " ".repeat(to - line.len()));

    let longest = sign_in().hear(&padded(8_192), &lists, &POLICY);
    let longer = sign_in().hear(&padded(8_193), &lists, &POLICY);

    assert!(matches!(longest, Heard::Accepted(_)));
    assert_eq!(refusal(longer), Refused::TooMuch);
}

#[test]
fn guests_come_in_where_guests_are_let_in() {
    let key = wallet(1);
    let guest = lists(&format!("-5:{}", key.address()));
    let zero = lists(&format!("0:{}", key.address()));
    let closed = Policy {
        guests: false,
        ..POLICY
    };

    let refused = refusal(sign_in().hear(&answer(&key), &guest, &closed));

    assert_eq!(refused, Refused::Guest);
    assert_eq!(refused.texts(), ["GUEST DISABLED"]);
    let by_zero = sign_in().hear(&answer(&key), &zero, &closed);
    assert!(matches!(by_zero, Heard::Accepted(_)));

    let password = Lists {
        passwords: Some(Passwords::parse(&format!("-5:{}", hex::encode(hash_of("horse")))).0),
        ..Lists::default()
    };
    let by_password = sign_in().hear("SHA256:horse", &password, &closed);
    assert_eq!(refusal(by_password), Refused::Guest);
}

#[test]
fn a_letter_can_be_revoked() {
    let (master, coaster) = (wallet(1), wallet(2));
    let (m, c) = (master.address(), coaster.address());
    let line = answer_by_letter(&master, &coaster);
    let mut lists = lists(&format!("42:{m}"));
    let Heard::Accepted(before) = sign_in().hear(&line, &lists, &POLICY) else {
        panic!("a good letter");
    };
    assert_eq!(before.method, Method::EthereumLetter);
    assert_eq!(before.hello, format!("HELLO 42 {m} {c}"));
    assert_eq!(before.coaster, Some(c.to_string()));

    for revoked in [
        format!("{m}>{c}"),
        format!("{m}>*"),
        format!("*>{c}"),
        c.to_string(),
    ] {
        lists.revoked = Letters::parse(&revoked).0;
        let after = refusal(sign_in().hear(&line, &lists, &POLICY));
        assert_eq!(after, Refused::LetterRevoked, "{revoked}");
    }
    let own = sign_in().hear(&answer(&master), &lists, &POLICY);
    assert!(matches!(own, Heard::Accepted(_)), "the master itself is in");
}

#[test]
fn who_is_in_by_a_letter_stays_while_the_letter_and_the_claim_are_good() {
    let (master, coaster) = (wallet(1), wallet(2));
    let (m, c) = (master.address(), coaster.address());
    let good = lists(&format!("42:{m}"));
    let heard = sign_in().hear(&answer_by_letter(&master, &coaster), &good, &POLICY);
    let Heard::Accepted(signed_in) = heard else {
        panic!("a good letter");
    };
    let mut revoked = lists(&format!("42:{m}"));
    revoked.revoked = Letters::parse(&format!("{m}>{c}")).0;

    assert!(signed_in.is_still_allowed(&good));
    assert!(!signed_in.is_still_allowed(&revoked));
    assert!(!signed_in.is_still_allowed(&lists(&format!("43:{m}"))));
    assert!(!signed_in.is_still_allowed(&lists("")));
}

#[test]
fn with_a_list_of_letters_only_those_are_good() {
    let (master, coaster, other) = (wallet(1), wallet(2), wallet(3));
    let mut lists = lists(&format!("42:{}", master.address()));
    let listed = format!("{}>{}", master.address(), coaster.address());
    lists.letters = Some(Letters::parse(&listed).0);

    let good = sign_in().hear(&answer_by_letter(&master, &coaster), &lists, &POLICY);
    let bad = sign_in().hear(&answer_by_letter(&master, &other), &lists, &POLICY);

    assert!(matches!(good, Heard::Accepted(_)));
    assert_eq!(refusal(bad), Refused::LetterNotListed);
}

/// On *push* a letter that anybody can read is a valid answer by itself.
#[test]
fn a_letter_without_a_signature_of_the_challenge_is_nothing() {
    let (master, coaster) = (wallet(1), wallet(2));
    let lists = lists(&format!(
        "42:{}\n43:{}",
        master.address(),
        coaster.address()
    ));
    let letter = letter(&master, &coaster);

    let alone = sign_in().hear(&letter.to_string(), &lists, &POLICY);
    assert_eq!(refusal(alone), Refused::Challenge);

    let old = answer_by_letter(&master, &coaster);
    let mut next = SignIn::with_challenge(CHALLENGE.replace('f', "e"));
    assert_eq!(
        refusal(next.hear(&old, &lists, &POLICY)),
        Refused::Challenge
    );
}

#[test]
fn published_secrets_are_refused_under_any_index() {
    // The key of 0x24f9… is in the run client's repository, and so is its letter of −42.
    let key =
        EthereumKey::from_hex("7c970571a47942b8e06bd011881f401d71a38bd3d3d8c14441d0f8d7e2d8ac8c")
            .expect("a key");
    let letter = "0x24f917bE56be75F13BC5d8A1612e2eff2aF090d4|0x9e85522e84c970431cEac4031Fbd2c24D8943527|0xe9877dd5dda081d5550be509bb2aa2cd8ccf6a44bf590f7996213a5e766c24b640e0d4ceeebb0edb653d632d7543d06a809a826e39fcd28d555fa0b6fb00f9f81b";
    let mut client = ClientSignIn::new(
        ClientKey::Ethereum(key.clone()),
        Some(letter.parse().expect("a good letter")),
    )
    .expect("its letter");
    let ClientHeard::Answer(by_letter) = client.hear(&format!("SIGN:{CHALLENGE}")) else {
        panic!("no answer");
    };
    // A list cannot hold them, so make one that was not read from a file.
    let mut lists = lists("");
    for address in [
        &key.address().to_string(),
        "0x9e85522e84c970431cEac4031Fbd2c24D8943527",
    ] {
        lists
            .claims
            .insert(Index(7), Address::parse(address).expect("an address"));
    }
    lists.passwords = Some(Passwords::default());
    let rsa = format!("{CHALLENGE}|{RSA_DEMONSTRATION}|2");

    for line in [
        &answer(&key),
        &by_letter,
        &rsa,
        "SHA256:Potato",
        "sha256: HelloWorld",
    ] {
        let refused = refusal(sign_in().hear(line, &lists, &POLICY));
        assert_eq!(refused, Refused::Published, "{line}");
    }
    // So it is the list of published secrets that stops them.
    for line in [&answer(&key), &by_letter] {
        let taken = sign_in().taking_published().hear(line, &lists, &POLICY);
        assert!(matches!(taken, Heard::Accepted(_)), "{line}");
    }
}

#[test]
fn a_letter_of_a_published_master_is_refused_whoever_the_coaster_is() {
    // The master's own key is not in the open, a letter of its is: so here stands another that is.
    let master =
        EthereumKey::from_hex("df2541a2a722be6211bacfd1f8b15993445914ac8b75b419664c544c7e27323e")
            .expect("a key");
    let mut lists = lists("");
    lists
        .claims
        .insert(Index(7), Address::Ethereum(master.address()));

    let heard = sign_in().hear(&answer_by_letter(&master, &wallet(2)), &lists, &POLICY);

    assert_eq!(refusal(heard), Refused::Published);
}

#[test]
fn passwords_are_off_without_a_list() {
    let refused = refusal(sign_in().hear("SHA256:horse", &lists(""), &POLICY));

    assert_eq!(refused, Refused::Password);
}

#[test]
fn rsa_keys_below_the_minimum_of_the_gateway_are_refused() {
    let file: serde_json::Value = crate::vectors::load("iid/rsa.json");
    let text = |member: &str| file["keys"][0][member].as_str().expect("a text").to_owned();
    let lists = lists(file["allow"].as_str().expect("a text"));
    let strict = Policy {
        rsa_bits_min: 2048,
        ..POLICY
    };
    let hear = |policy: &Policy| {
        SignIn::with_challenge(text("challenge")).hear(&text("line"), &lists, policy)
    };

    let Heard::Accepted(signed_in) = hear(&POLICY) else {
        panic!("1,024 bits are taken by default");
    };
    assert_eq!(signed_in.method, Method::Rsa);
    assert_eq!(signed_in.address, "pBit4096B58Pkcs1SHA256…MbpkEqR7KGVT");
    let small = Refused::SmallKey {
        bits: 1024,
        min: 2048,
    };
    assert_eq!(refusal(hear(&strict)), small);
}

/// Letters that differ in case alone are another key, and one may be made to fit.
#[test]
fn the_case_of_an_rsa_address_counts() {
    let file: serde_json::Value = crate::vectors::load("iid/rsa.json");
    let address = file["keys"][0]["address"].as_str().expect("a text");
    let (claims, _) = Claims::parse(&format!("7:{address}"));

    assert_eq!(claims.index_of(address), Some(Index(7)));
    assert_eq!(claims.index_of(&address.replace("GVT", "gvt")), None);
}

#[test]
fn refusals_have_names_and_say_what_is_told() {
    let asked = [
        "ASK ADMIN FOR A CLAIM TO BE ADDED",
        "RTFM:https://github.com/pimesh/pimesh",
    ];

    assert_eq!(Refused::NotAllowed.texts(), asked);
    assert_eq!(Refused::Published.texts(), asked);
    assert_eq!(Refused::Signature.texts(), ["FAIL TO SIGN"]);
    assert_eq!(Refused::Password.texts(), ["INVALID SHA256"]);
    assert_eq!(Refused::LetterNotListed.name(), "letter_not_listed");
    assert_eq!(Method::RsaLetter.to_string(), "rsa letter");
    assert_eq!(
        format!("{:?}", sign_in()),
        "SignIn { ignored: 0, is_over: false, .. }"
    );
}

fn client() -> ClientSignIn {
    ClientSignIn::new(ClientKey::Ethereum(wallet(1)), None).expect("no letter")
}

fn is_refused(heard: &ClientHeard) -> bool {
    matches!(heard, ClientHeard::Refused(_))
}

#[test]
fn nothing_is_signed_but_a_challenge() {
    for asked in [
        "0x24f917bE56be75F13BC5d8A1612e2eff2aF090d4",
        "",
        "F2B136FE-5702-4607-8EC1-ABBD724699B8",
        "f2b136fe-5702-4607-8ec1-abbd724699b8x",
        "f2b136fe-5702-4607-8ec1-abbd724699b8\n",
        " f2b136fe-5702-4607-8ec1-abbd724699b8",
        "f2b136fe5702-4607-8ec1-abbd724699b8-",
        "f2b136fe-5702-4607-8ec1-abbd724699b",
        "f2b136fe-5702-4607-8ec1-abbd724699bg",
        "f2b136fe-5702-4607-8ec1-abbd7246é9b",
        "------------------------------------",
        "000000000000000000000000000000000000",
    ] {
        let heard = client().hear(&format!("SIGN:{asked}"));
        assert!(is_refused(&heard), "{asked}: {heard:?}");
    }
}

#[test]
fn a_second_challenge_is_not_answered() {
    let mut client = client();

    assert_eq!(
        client.hear("MANUAL:https://example.org"),
        ClientHeard::Ignore
    );
    assert!(matches!(
        client.hear(&format!("SIGN:{CHALLENGE}")),
        ClientHeard::Answer(_)
    ));
    let second = client.hear("SIGN:00000000-5702-4607-8ec1-abbd724699b8");

    assert!(is_refused(&second));
    assert!(
        is_refused(&client.hear("HELLO 7 0x00")),
        "and that is the end"
    );
}

#[test]
fn a_hello_counts_only_after_the_answer_and_with_an_index() {
    assert!(is_refused(&client().hear("HELLO 7 0x00")));
    for (hello, index) in [
        ("HELLO -7 a b", Some(-7)),
        ("HELLO x 0x00", None),
        ("HELLO 8", Some(8)),
    ] {
        let mut client = client();
        client.hear(&format!("SIGN:{CHALLENGE}"));
        client.hear("ECC COASTER SIGNED MASTER:0x00 COASTER:0x00");
        match (client.hear(hello), index) {
            (ClientHeard::SignedIn { index, .. }, Some(expected)) => assert_eq!(index.0, expected),
            (ClientHeard::Refused(_), None) => {}
            (other, _) => panic!("{hello}: {other:?}"),
        }
    }
}

#[test]
fn what_a_server_says_is_bounded_and_fit_to_be_shown() {
    let mut talked_to = client();
    for _ in 0..CLIENT_IGNORED_MAX {
        assert_eq!(talked_to.hear("welcome"), ClientHeard::Ignore);
    }

    assert!(is_refused(&talked_to.hear("welcome")));
    assert!(is_refused(&client().hear(&"x".repeat(TEXT_BYTES_MAX + 1))));
    let shouted = format!("ASK ADMIN\u{1b}[2J\n{}", "x".repeat(1_000));
    let ClientHeard::Refused(why) = client().hear(&shouted) else {
        panic!("a refusal");
    };
    assert!(why.starts_with("ASK ADMIN[2Jxxx"), "{why}");
    assert_eq!(why.len(), 200);
}

#[test]
fn a_letter_is_checked_before_it_is_used() {
    let (master, coaster, other) = (wallet(1), wallet(2), wallet(3));
    let good = letter(&master, &coaster).to_string();
    let forged = good.replace(&master.address().to_string(), &other.address().to_string());

    assert_eq!(
        forged.parse::<Letter>(),
        Err(client::LetterError::Signature)
    );
    assert_eq!("a|b".parse::<Letter>(), Err(client::LetterError::Form));
    let for_other = ClientSignIn::new(ClientKey::Ethereum(other), good.parse().ok());
    assert_eq!(for_other.err(), Some(client::LetterError::OtherKey));
}

#[test]
fn a_private_key_of_a_unity_client_is_read() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rsa::{
        RsaPrivateKey,
        pkcs8::DecodePrivateKey,
        traits::{PrivateKeyParts, PublicKeyParts},
    };
    let file: serde_json::Value = crate::vectors::load("iid/rsa.json");
    let pem = file["keys"][0]["private_pem"].as_str().expect("a text");
    let key = RsaPrivateKey::from_pkcs8_pem(pem).expect("a key");
    let number = |bytes: &[u8]| STANDARD.encode(bytes);
    let xml = format!(
        "<RSAKeyValue><Modulus>{}</Modulus><Exponent>AQAB</Exponent><P>{}</P><Q>{}</Q><DP></DP><D>{}</D></RSAKeyValue>",
        number(&key.n_bytes()),
        number(&key.primes()[0].to_be_bytes()),
        number(&key.primes()[1].to_be_bytes()),
        number(&key.d().to_be_bytes()),
    );
    let text = format!("PBit4096B58Pkcs1SHA256{}", bs58::encode(&xml).into_string());

    let read = RsaKey::parse(&text).expect("a key");

    assert_eq!(
        Some(read.address().to_string().as_str()),
        file["keys"][0]["address"].as_str()
    );
    let sent = read.sign(file["keys"][0]["challenge"].as_str().expect("a text"));
    assert_eq!(sent.as_deref(), file["keys"][0]["signature"].as_str());
    assert_eq!(
        format!("{read:?}"),
        "RsaKey(of pBit4096B58Pkcs1SHA256…MbpkEqR7KGVT)"
    );
}
