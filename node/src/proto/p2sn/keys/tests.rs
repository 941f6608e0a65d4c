//! What is read as a key, and what a block says.

use super::*;
use crate::proto::p2sn::samples::{ANY_SIZE, large, private, rng, small};

/// PKCS#1 PEM of a public key with the given numbers.
fn pem(modulus: &[u8], exponent: &[u8]) -> String {
    let body = [der(0x02, modulus), der(0x02, exponent)].concat();
    format!(
        "{PEM_BEGIN}\n{}\n{PEM_END}\n",
        STANDARD.encode(der(0x30, &body))
    )
}

/// DER allows for each length the shortest form alone.
fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).expect("short").to_be_bytes();
    let head = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, body.to_vec()].concat()
}

/// An odd number of so many bits, as DER writes it.
fn modulus(bits: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; bits.div_ceil(8)];
    bytes[0] = match bits % 8 {
        0 => 0xff,
        rest => (1 << rest) - 1,
    };
    if bytes[0] >= 0x80 {
        bytes.insert(0, 0);
    }
    bytes
}

#[test]
fn a_pem_is_read_as_peers_send_it() {
    let key = large();
    let pem = key.public().to_pem();
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();

    let forms = [
        pem.clone(),
        pem.replace('\n', "\r\n"),
        pem.trim_end().to_owned(),
        format!("a greeting\n{pem}"),
        format!("{PEM_BEGIN}\n{body}\n{PEM_END}"),
    ];

    for form in forms {
        let read = PublicKey::from_pem(&form, KeyPolicy::default());
        assert_eq!(read.as_ref(), Ok(key.public()), "{form}");
        let encoded = STANDARD.encode(&form);
        let unpadded = encoded.trim_end_matches('=');
        for frame in [form.as_str(), encoded.as_str(), unpadded] {
            let read = PublicKey::from_frame(frame.as_bytes(), KeyPolicy::default());
            assert_eq!(read.as_ref(), Ok(key.public()), "{frame}");
        }
    }
}

#[test]
fn the_size_of_a_key_is_bounded_on_both_sides() {
    let read = |bits| PublicKey::from_pem(&pem(&modulus(bits), &[1, 0, 1]), ANY_SIZE);

    assert_eq!(
        read(1016),
        Err(KeyError::Small {
            bits: 1016,
            min: 1024
        })
    );
    assert_eq!(read(1024).map(|key| key.bits()), Ok(1024));
    assert_eq!(read(8192).map(|key| key.bits()), Ok(8192));
    assert_eq!(
        read(8193),
        Err(KeyError::Large {
            bits: 8193,
            max: 8192
        })
    );
}

#[test]
fn the_policy_raises_the_smallest_size_and_never_lowers_it() {
    let read = |bits, policy| PublicKey::from_pem(&pem(&modulus(bits), &[3]), policy);

    let default = read(2040, KeyPolicy::default());
    assert_eq!(
        default,
        Err(KeyError::Small {
            bits: 2040,
            min: 2048
        })
    );
    assert!(read(2048, KeyPolicy::default()).is_ok());
    let none = read(1016, KeyPolicy { bits_min: 0 });
    assert_eq!(
        none,
        Err(KeyError::Small {
            bits: 1016,
            min: 1024
        })
    );
}

/// `rsa.newkeys(2048, accurate=False)` makes them, as the published package does.
#[test]
fn a_key_with_as_many_bytes_as_the_smallest_is_large_enough() {
    let read = |bits, bits_min| {
        PublicKey::from_pem(&pem(&modulus(bits), &[1, 0, 1]), KeyPolicy { bits_min })
    };

    for (bits, bits_min) in [(2047, 2048), (2041, 2048), (1023, 1024), (1017, 1024)] {
        let key = read(bits, bits_min).expect("large enough");
        assert_eq!(key.bits(), bits);
        assert_eq!(key.message_bytes_max(), bits_min / 8 - 11);
    }
}

#[test]
fn a_public_exponent_is_odd_and_between_3_and_2_to_the_33() {
    let read = |exponent: &[u8]| {
        PublicKey::from_pem(&pem(&modulus(1024), exponent), ANY_SIZE).map(|key| key.bits())
    };

    for good in [&[3][..], &[17], &[1, 0, 1], &[1, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(read(good), Ok(1024), "{good:?}");
    }
    let bad: [&[u8]; 6] = [
        &[0],
        &[1],
        &[2],
        &[1, 0, 0],
        &[2, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    for bad in bad {
        assert_eq!(read(bad), Err(KeyError::Exponent), "{bad:?}");
    }
}

#[test]
fn an_even_modulus_is_no_key() {
    let mut even = modulus(1024);
    *even.last_mut().expect("not empty") = 0xfe;

    assert_eq!(
        PublicKey::from_pem(&pem(&even, &[1, 0, 1]), ANY_SIZE),
        Err(KeyError::Pem)
    );
}

#[test]
fn a_private_key_survives_writing_and_reading() {
    let key = small();

    let written = key.to_pem().expect("two primes");

    let read = PrivateKey::from_foreign_pem(&written).expect("its own writing");
    assert_eq!(read.public(), key.public());
    assert_eq!(PrivateKey::from_pem("").map(|_| ()), Err(KeyError::Pem));
    assert_eq!(
        PrivateKey::from_foreign_pem(&key.public().to_pem()).map(|_| ()),
        Err(KeyError::Pem)
    );
}

#[test]
fn no_key_is_made_outside_the_bounds() {
    let made = |bits| PrivateKey::generate(bits, &mut rng()).map(|_| ());

    assert_eq!(
        made(1023),
        Err(KeyError::Small {
            bits: 1023,
            min: 1024
        })
    );
    assert_eq!(
        made(8193),
        Err(KeyError::Large {
            bits: 8193,
            max: 8192
        })
    );
}

#[test]
fn a_private_key_is_held_to_the_same_bounds() {
    // The two largest primes of 64 bits.
    let [p, q] = [18_446_744_073_709_551_557_u64, 18_446_744_073_709_551_533].map(BoxedUint::from);
    let tiny = RsaPrivateKey::from_p_q(p, q, BoxedUint::from(65_537_u64)).expect("primes");

    let taken = PrivateKey::new(tiny).map(|_| ());

    assert_eq!(
        taken,
        Err(KeyError::Small {
            bits: 128,
            min: 1024
        })
    );
}

#[test]
fn lengths_follow_from_the_size_of_the_key() {
    let lengths = |id: &str| {
        let key = private(id);
        (key.public().message_bytes_max(), key.public().block_chars())
    };

    assert_eq!(lengths("dev-1024"), (117, 172));
    assert_eq!(lengths("dev-2048"), (245, 344));
    assert_eq!(lengths("dev-4096"), (501, 684));
}

#[test]
fn a_fingerprint_is_the_sha_256_of_the_der() {
    // `openssl rsa -RSAPublicKey_in -RSAPublicKey_out -outform DER | sha256sum`
    let expected = "b01bb153f51f8d36d02f967a264f2d32211f7f874c73941592d2d6c82bc24990";

    assert_eq!(small().public().fingerprint().to_string(), expected);
}

#[test]
fn messages_of_every_length_open_again() {
    let key = small();
    for length in [0, 1, 116, 117] {
        let message = vec![7; length];
        let block = key
            .public()
            .seal(&message, &mut rng())
            .expect("short enough");
        assert_eq!(block.len(), 172);
        assert_eq!(key.open(block.as_bytes(), &mut rng()), Ok(message.clone()));
        let unpadded = block.trim_end_matches('=');
        assert_eq!(key.open(unpadded.as_bytes(), &mut rng()), Ok(message));
    }
    assert_eq!(key.public().seal(&[7; 118], &mut rng()), None);
}

#[test]
fn base64_with_a_fault_is_no_block() {
    let key = small();
    let block = key.public().seal(b"x", &mut rng()).expect("short enough");
    let cut = &block[..169];
    let foreign = block.replacen(&block[..1], "-", 1);
    let broken_line = format!("{}\n{}", &block[..64], &block[64..]);
    // The last character before the one `=` carries two bits that must be 0.
    let behind_the_end = format!("{}B=", &block[..170]);

    for bad in [cut, &foreign, &broken_line, &behind_the_end] {
        assert_eq!(
            key.open(bad.as_bytes(), &mut rng()),
            Err(BlockError::Base64),
            "{bad}"
        );
    }
}

#[test]
fn wrong_padding_opens_to_a_plaintext_that_is_always_the_same() {
    let key = small();
    let mut bytes = STANDARD
        .decode(key.public().seal(b"x", &mut rng()).expect("short"))
        .expect("b");
    bytes[100] ^= 1;
    let block = STANDARD.encode(bytes);
    assert_eq!(key.open_checked(block.as_bytes(), &mut rng()), Ok(None));

    let first = key.open(block.as_bytes(), &mut rng()).expect("a plaintext");
    let mut other_rng = rng();
    key.public()
        .seal(b"draws numbers", &mut other_rng)
        .expect("short");
    let second = key
        .open(block.as_bytes(), &mut other_rng)
        .expect("a plaintext");

    assert_eq!(first, second);
    assert!(first.len() <= 117);
}

#[test]
fn padding_is_taken_off_only_if_it_is_right() {
    let padded =
        |start: &[u8], filler: usize, rest: &[u8]| [start, &vec![0xff; filler], rest].concat();

    assert_eq!(unpad(&padded(&[0, 2], 8, b"\0ab")), Some(&b"ab"[..]));
    assert_eq!(unpad(&padded(&[0, 2], 8, b"\0")), Some(&b""[..]));
    assert_eq!(unpad(&padded(&[0, 2], 7, b"\0ab")), None);
    assert_eq!(unpad(&padded(&[0, 1], 8, b"\0ab")), None);
    assert_eq!(unpad(&padded(&[1, 2], 8, b"\0ab")), None);
    assert_eq!(unpad(&padded(&[0, 2], 8, b"ab")), None);
}

#[test]
fn a_private_key_is_not_printed() {
    let key = small();

    assert_eq!(
        format!("{key:?}"),
        format!("PrivateKey(of {})", key.public().fingerprint())
    );
}
