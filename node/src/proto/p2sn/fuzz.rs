//! What holds for all bytes that come from a P2SN peer (see [`crate::fuzz`]). What a session makes
//! of them is in `session/hostile.rs`.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    frames::{Cut, END, EXCHANGE_FRAME_BYTES_MAX, Frames},
    samples::{ANY_SIZE, rng, small},
    *,
};
use crate::fuzz::{bytes_of, bytes_of_hex, fuzz, recorded};

fn blocks() -> Vec<Vec<u8>> {
    let mut frames = bytes_of_hex(recorded("p2sn/exchange.json", "frame_hex"));
    frames.extend(bytes_of_hex(recorded("p2sn/reject.json", "frame_hex")));
    frames
}

/// Cuts bytes that come in pieces. Says whether all of them were taken.
fn cut(bytes: &[u8], piece: usize, cut: Cut) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Frames::default();
    let mut got = Vec::new();
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let taken = frames.push(rest, cut);
            if taken == 0 {
                return (got, false);
            }
            rest = &rest[taken..];
            got.extend(std::iter::from_fn(|| frames.next(cut)));
        }
    }
    (got, true)
}

#[test]
fn frames_are_the_same_however_the_bytes_come() {
    let mut corpus = bytes_of(["P2SN:PUBKEY\x04P2SN:NULL\x04"]);
    let lengths = [171, 172, 173, 344, EXCHANGE_FRAME_BYTES_MAX + 1];
    corpus.extend(lengths.map(|length| [&vec![b'x'; length][..], &[END; 2]].concat()));
    corpus.extend(blocks().into_iter().filter(|block| block.len() < 400));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let whole = bytes.len().max(1);
        let blocks = cut(bytes, whole, Cut::AtBlock(172));
        assert!(blocks.1 && blocks.0.iter().all(|frame| frame.len() <= 172));
        let (frames, all) = cut(bytes, whole, Cut::AtEnd);
        let mut expected: Vec<_> = bytes.split(|b| *b == END).collect();
        let waiting = expected.pop().unwrap_or_default();
        let fits = |frame: &&[u8]| frame.len() <= EXCHANGE_FRAME_BYTES_MAX;
        let expected: Vec<_> = expected.iter().copied().take_while(fits).collect();
        assert_eq!(frames, expected);
        assert!(all || bytes.split(|b| *b == END).any(|frame| !fits(&frame)));
        assert!(!all || waiting.len() <= EXCHANGE_FRAME_BYTES_MAX + 1);
        // Many small pieces of a long frame take long.
        let small = if bytes.len() < 1000 { 1 } else { 101 };
        for piece in [small, 173] {
            assert_eq!(cut(bytes, piece, Cut::AtBlock(172)), blocks);
            assert_eq!(cut(bytes, piece, Cut::AtEnd).0, frames);
        }
        !frames.is_empty()
    });
}

/// Reads a key out of a frame, and does with it what a session does.
fn takes_key(frame: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_frame(frame, ANY_SIZE) else {
        return false;
    };
    assert_eq!(
        PublicKey::from_pem(&key.to_pem(), ANY_SIZE).as_ref(),
        Ok(&key)
    );
    assert!((1024..=8192).contains(&key.bits()));
    let sealed = key
        .seal(b"P2SN:KEYCHECK", &mut rng())
        .expect("short enough");
    assert_eq!(sealed.len(), key.block_chars());
    let block = STANDARD.decode(sealed).expect("base64");
    assert!(
        !block.ends_with(b"P2SN:KEYCHECK"),
        "sealed with an exponent of 1"
    );
    true
}

#[test]
fn a_public_key_says_the_same_again_and_can_seal() {
    let mut corpus = bytes_of(recorded("p2sn/exchange.json", "public_pem"));
    corpus.extend(bytes_of(recorded("p2sn/reject.json", "pem")));
    for role in ["server_pubkey_frame_hex", "client_pubkey_frame_hex"] {
        corpus.extend(bytes_of_hex(recorded("p2sn/exchange.json", role)));
    }
    fuzz(bolero::check!(), &corpus, |bytes| {
        takes_key(bytes.strip_suffix(&[END]).unwrap_or(bytes))
    });
}

#[test]
fn whatever_der_a_public_key_has_it_can_seal_or_is_refused() {
    let der = |pem: String| -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(body).expect("base64")
    };
    let pems = recorded("p2sn/exchange.json", "public_pem");
    let mut corpus: Vec<_> = pems.into_iter().map(der).collect();
    // The exponent of the shortest key grows from three bytes to nine, and the sequence with it.
    let mut long_exponent = der(small().public().to_pem());
    long_exponent[2] += 6;
    long_exponent.splice(long_exponent.len() - 4.., [9, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    corpus.push(long_exponent);
    fuzz(bolero::check!(), &corpus, |der| {
        let body = STANDARD.encode(der);
        let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{body}\n-----END RSA PUBLIC KEY-----\n");
        takes_key(pem.as_bytes())
    });
}

#[test]
fn a_private_key_says_the_same_again() {
    let corpus = bytes_of([small().to_pem().expect("two primes").as_str()]);
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(key) = PrivateKey::from_foreign_pem(&text) else {
            assert!(PrivateKey::from_pem(&text).is_err());
            return false;
        };
        let pem = key.to_pem().expect("two primes");
        let again = PrivateKey::from_foreign_pem(&pem).expect("just written");
        assert_eq!(again.public(), key.public());
        true
    });
}

#[test]
fn a_block_opens_alike_each_time_and_hides_whether_its_padding_was_right() {
    let key = small();
    fuzz(bolero::check!(), &blocks(), |bytes| {
        let block = bytes.strip_suffix(&[END]).unwrap_or(bytes);
        let plain = key.open(block, &mut rng());
        assert_eq!(key.open(block, &mut rng()), plain);
        match key.open_checked(block, &mut rng()) {
            Ok(Some(padded)) => assert_eq!(plain, Ok(padded)),
            Ok(None) => assert!(plain.is_ok(), "{plain:?}"),
            Err(error) => assert_eq!(plain, Err(error)),
        }
        plain.is_ok_and(|plain| {
            assert!(plain.len() <= key.public().message_bytes_max());
            true
        })
    });
}
