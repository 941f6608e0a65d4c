//! The five members that hide a text (`proto-specs/syft.md`, section 2).
//!
//! A random AES-256-GCM key hides the text; a NaCl box from an ephemeral key to the recipient
//! hides that key. The envelope names nobody and binds nobody: whoever relies on it needs a
//! signature around it.

use std::borrow::Cow;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use crypto_box::{SalsaBox, aead::Aead as _};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::identity::{PublicKey, SigningKey};

/// The four random inputs of one envelope.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealChance {
    ephemeral: [u8; 32],
    key: [u8; 32],
    key_nonce: [u8; 24],
    data_nonce: [u8; 12],
}

impl SealChance {
    /// Draws all four.
    #[must_use]
    pub fn from_rng(rng: &mut impl CryptoRng) -> Self {
        let mut chance = Self {
            ephemeral: [0; 32],
            key: [0; 32],
            key_nonce: [0; 24],
            data_nonce: [0; 12],
        };
        rng.fill_bytes(&mut chance.ephemeral);
        rng.fill_bytes(&mut chance.key);
        rng.fill_bytes(&mut chance.key_nonce);
        rng.fill_bytes(&mut chance.data_nonce);
        chance
    }
}

impl std::fmt::Debug for SealChance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealChance(..)")
    }
}

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It has not the five members with their lengths.
    #[error("the content is no envelope")]
    Form,
    /// It was not sealed for this key, or was changed. Nothing says which.
    #[error("the envelope does not open")]
    Sealed,
}

/// Seals texts for one recipient, all with one ephemeral key.
///
/// Agreeing on a key costs far more than all the rest, so messages that travel together share it.
/// Each still has a symmetric key and nonces of its own, which is all that NaCl's box asks for.
pub struct Sealer {
    agreed: SalsaBox,
    ephemeral_public_key: String,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// Agrees on a key with the recipient.
    #[must_use]
    pub fn new(to: &PublicKey, chance: &SealChance) -> Self {
        let ephemeral = crypto_box::SecretKey::from(chance.ephemeral);
        Self {
            agreed: SalsaBox::new(&to.sealing(), &ephemeral),
            ephemeral_public_key: STANDARD.encode(ephemeral.public_key().as_bytes()),
        }
    }

    /// Seals a text. The chance must be new for each, except for its ephemeral key, which counts
    /// for nothing here.
    #[must_use]
    pub fn seal(&self, text: &str, chance: &SealChance) -> String {
        let encrypted_key = self
            .agreed
            .encrypt(&chance.key_nonce.into(), &chance.key[..])
            .expect("XSalsa20-Poly1305 takes 32 bytes");
        let encrypted_content = encrypt(&chance.key, &chance.data_nonce, text.as_bytes());
        let members = Members {
            ephemeral_public_key: self.ephemeral_public_key.as_str().into(),
            key_nonce: STANDARD.encode(chance.key_nonce).into(),
            encrypted_key: STANDARD.encode(encrypted_key).into(),
            data_nonce: STANDARD.encode(chance.data_nonce).into(),
            encrypted_content: STANDARD.encode(encrypted_content).into(),
        };
        serde_json::to_string(&members).expect("five strings are JSON")
    }
}

/// Seals one text for a recipient.
#[must_use]
pub fn seal(text: &str, to: &PublicKey, chance: &SealChance) -> String {
    Sealer::new(to, chance).seal(text, chance)
}

/// Opens envelopes that were sealed for one key, and agrees anew only when the ephemeral key is
/// another than in the envelope before.
pub struct Opener<'a> {
    key: &'a SigningKey,
    agreed: Option<([u8; 32], SalsaBox)>,
}

impl std::fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl<'a> Opener<'a> {
    /// Opens with this key.
    #[must_use]
    pub const fn new(key: &'a SigningKey) -> Self {
        Self { key, agreed: None }
    }

    /// Opens an envelope.
    ///
    /// # Errors
    /// Returns [`EnvelopeError`] if it is none, or does not open to a text.
    pub fn open(&mut self, envelope: &str) -> Result<Zeroizing<String>, EnvelopeError> {
        let parts = Parts::decode(envelope)?;
        let symmetric = self
            .agree(parts.ephemeral_public_key)
            .decrypt(&parts.key_nonce.into(), &parts.encrypted_key[..])
            .map(Zeroizing::new)
            .map_err(|_| EnvelopeError::Sealed)?;
        let symmetric: &[u8; 32] = symmetric
            .as_slice()
            .try_into()
            .map_err(|_| EnvelopeError::Sealed)?;
        let text = decrypt(symmetric, &parts.data_nonce, &parts.encrypted_content)
            .ok_or(EnvelopeError::Sealed)?;
        String::from_utf8(text)
            .map(Zeroizing::new)
            .map_err(|_| EnvelopeError::Sealed)
    }

    fn agree(&mut self, ephemeral: [u8; 32]) -> &SalsaBox {
        if self
            .agreed
            .as_ref()
            .is_some_and(|(key, _)| *key != ephemeral)
        {
            self.agreed = None;
        }
        let (_, agreed) = self.agreed.get_or_insert_with(|| {
            let public = crypto_box::PublicKey::from(ephemeral);
            (ephemeral, SalsaBox::new(&public, self.key.opening()))
        });
        agreed
    }
}

/// Opens one envelope that was sealed for this key.
///
/// # Errors
/// See [`Opener::open`].
pub fn open(envelope: &str, key: &SigningKey) -> Result<Zeroizing<String>, EnvelopeError> {
    Opener::new(key).open(envelope)
}

/// Checks the shape of an envelope, for which no key is needed.
///
/// # Errors
/// Returns [`EnvelopeError::Form`] if it has not the five members with their lengths.
pub fn check_envelope(envelope: &str) -> Result<(), EnvelopeError> {
    Parts::decode(envelope).map(drop)
}

/// A sixth member is refused: Go reads names without regard to case, so that a `Data_Nonce` behind
/// the five would be its nonce, and one of another length ends that client.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow)]
    ephemeral_public_key: Cow<'a, str>,
    #[serde(borrow)]
    key_nonce: Cow<'a, str>,
    #[serde(borrow)]
    encrypted_key: Cow<'a, str>,
    #[serde(borrow)]
    data_nonce: Cow<'a, str>,
    #[serde(borrow)]
    encrypted_content: Cow<'a, str>,
}

struct Parts {
    ephemeral_public_key: [u8; 32],
    key_nonce: [u8; 24],
    encrypted_key: [u8; 48],
    data_nonce: [u8; 12],
    encrypted_content: Vec<u8>,
}

/// Bytes of the AES-GCM tag behind the text.
const TAG_BYTES: usize = 16;

impl Parts {
    fn decode(envelope: &str) -> Result<Self, EnvelopeError> {
        // serde takes a JSON array for a struct as well; an envelope is an object.
        if !envelope.trim_start().starts_with('{') {
            return Err(EnvelopeError::Form);
        }
        let members: Members<'_> =
            serde_json::from_str(envelope).map_err(|_| EnvelopeError::Form)?;
        let parts = Self {
            ephemeral_public_key: exact(&members.ephemeral_public_key)?,
            key_nonce: exact(&members.key_nonce)?,
            encrypted_key: exact(&members.encrypted_key)?,
            data_nonce: exact(&members.data_nonce)?,
            encrypted_content: STANDARD
                .decode(members.encrypted_content.as_ref())
                .map_err(|_| EnvelopeError::Form)?,
        };
        if parts.encrypted_content.len() < TAG_BYTES || is_low_order(&parts.ephemeral_public_key) {
            return Err(EnvelopeError::Form);
        }
        Ok(parts)
    }
}

fn exact<const N: usize>(text: &str) -> Result<[u8; N], EnvelopeError> {
    // Two bytes more than the longest member that comes here, so that no length is cut off.
    let mut bytes = [0; 51];
    let length = STANDARD
        .decode_slice(text, &mut bytes)
        .map_err(|_| EnvelopeError::Form)?;
    bytes[..length].try_into().map_err(|_| EnvelopeError::Form)
}

/// The X25519 keys with which every product is zero (RFC 7748, section 6.1; the list is the one
/// that libsodium refuses). With them anybody could have sealed.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn is_low_order(key: &[u8; 32]) -> bool {
    let mut key = *key;
    key[31] &= 0x7f;
    let text = hex::encode(key);
    LOW_ORDER.contains(&text.as_str())
}

fn encrypt(key: &[u8; 32], nonce: &[u8; 12], text: &[u8]) -> Vec<u8> {
    Aes256Gcm::new(key.into())
        .encrypt(nonce.into(), Payload::from(text))
        .expect("AES-GCM takes up to 64 GiB")
}

fn decrypt(key: &[u8; 32], nonce: &[u8; 12], sealed: &[u8]) -> Option<Vec<u8>> {
    Aes256Gcm::new(key.into())
        .decrypt(nonce.into(), Payload::from(sealed))
        .ok()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn sealed(text: &str, key: &SigningKey) -> String {
        seal(
            text,
            key.public(),
            &SealChance::from_rng(&mut ChaCha20Rng::from_seed([3; 32])),
        )
    }

    #[test]
    fn what_was_sealed_opens_for_the_recipient_and_for_nobody_else() {
        let key = SigningKey::from_seed(&[7; 32]);
        let envelope = sealed("door open", &key);

        assert_eq!(
            open(&envelope, &key).as_deref().map(String::as_str),
            Ok("door open")
        );
        let other = SigningKey::from_seed(&[8; 32]);
        assert_eq!(open(&envelope, &other), Err(EnvelopeError::Sealed));
    }

    #[test]
    fn envelopes_of_one_sealer_open_in_any_order_between_those_of_others() {
        let key = SigningKey::from_seed(&[7; 32]);
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let mut chance = || SealChance::from_rng(&mut rng);
        let sealer = Sealer::new(key.public(), &chance());
        let [one, two] = ["one", "two"].map(|text| sealer.seal(text, &chance()));
        let other = seal("other", key.public(), &chance());
        let mut opener = Opener::new(&key);

        for (envelope, text) in [
            (&two, "two"),
            (&one, "one"),
            (&other, "other"),
            (&one, "one"),
        ] {
            assert_eq!(
                opener.open(envelope).as_deref().map(String::as_str),
                Ok(text)
            );
        }
        let member = |envelope: &str, name: &str| {
            let members: serde_json::Value = serde_json::from_str(envelope).expect("JSON");
            members[name].to_string()
        };
        assert_eq!(
            member(&one, "ephemeral_public_key"),
            member(&two, "ephemeral_public_key")
        );
        for fresh in ["key_nonce", "encrypted_key", "data_nonce"] {
            assert_ne!(member(&one, fresh), member(&two, fresh), "{fresh}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_character_is_an_error() {
        let key = SigningKey::from_seed(&[7; 32]);
        let envelope = sealed("door open", &key);

        for at in 0..envelope.len() {
            assert!(open(&envelope[..at], &key).is_err(), "cut at {at}");
            let mut changed = envelope.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(open(&changed, &key).is_err(), "character {at} changed");
        }
    }

    #[test]
    fn every_listed_low_order_key_gives_the_zero_secret() {
        for text in LOW_ORDER {
            let point = curve25519_dalek::MontgomeryPoint(crate::vectors::bytes(text));
            let product = point.mul_clamped([0x55; 32]);
            assert_eq!(product.to_bytes(), [0; 32], "{text}");
        }
    }

    #[test]
    fn a_sixth_member_is_refused_however_it_is_written() {
        let key = SigningKey::from_seed(&[8; 32]);
        let chance = SealChance {
            ephemeral: [1; 32],
            key: [2; 32],
            key_nonce: [3; 24],
            data_nonce: [4; 12],
        };
        let envelope = seal("door open", key.public(), &chance);
        for name in [
            "Data_Nonce",
            "DATA_NONCE",
            "data_nonce",
            "data\\u005fnonce",
            "x",
        ] {
            let sixth = format!(",\"{name}\":\"AAAAAAAAAAAAAAA=\"}}");
            let longer = envelope.strip_suffix('}').expect("an object").to_owned() + &sixth;
            assert_eq!(
                check_envelope(&longer),
                Err(EnvelopeError::Form),
                "{longer}"
            );
        }
    }
}

#[cfg(test)]
mod vectors {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::vectors::{bytes, checked, load};

    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        recipient_seed: String,
        ephemeral_private: Option<String>,
        sym_key: Option<String>,
        key_nonce: Option<String>,
        data_nonce: Option<String>,
        plaintext: Option<String>,
        plaintext_repeat: Option<Repeat>,
        plaintext_sha256: Option<String>,
        envelope: String,
        expect: String,
    }

    #[derive(Deserialize)]
    struct Repeat {
        unit: String,
        count: usize,
        #[serde(default)]
        tail: String,
    }

    impl Case {
        fn key(&self) -> SigningKey {
            SigningKey::from_seed(&bytes(&self.recipient_seed))
        }

        fn text(&self) -> Option<String> {
            let repeated = self.plaintext_repeat.as_ref();
            self.plaintext
                .clone()
                .or_else(|| repeated.map(|r| format!("{}{}", r.unit.repeat(r.count), r.tail)))
        }
    }

    #[test]
    fn envelopes_of_the_real_clients_open() {
        let file: File = load("syft/envelope_open.json");

        for case in &file.cases {
            assert_eq!(case.expect, "open", "{}", case.name);
            let text = case.text().expect("a plaintext");
            let opened = open(&case.envelope, &case.key()).expect(&case.name);
            assert_eq!(*opened, text, "{}", case.name);
            if let Some(sum) = &case.plaintext_sha256 {
                assert_eq!(
                    &hex::encode(Sha256::digest(opened.as_bytes())),
                    sum,
                    "{}",
                    case.name
                );
            }
            assert_eq!(check_envelope(&case.envelope), Ok(()), "{}", case.name);
        }
        checked("syft/envelope_open.json", file.cases.len());
    }

    #[test]
    fn with_the_same_chance_our_envelope_has_the_same_five_values() {
        let file: File = load("syft/envelope_open.json");
        let mut cases = 0;

        for case in &file.cases {
            let (Some(ephemeral), Some(key), Some(key_nonce), Some(data_nonce)) = (
                &case.ephemeral_private,
                &case.sym_key,
                &case.key_nonce,
                &case.data_nonce,
            ) else {
                continue;
            };
            let chance = SealChance {
                ephemeral: bytes(ephemeral),
                key: bytes(key),
                key_nonce: bytes(key_nonce),
                data_nonce: bytes(data_nonce),
            };
            let ours = seal(
                &case.text().expect("a plaintext"),
                case.key().public(),
                &chance,
            );
            let ours: serde_json::Value = serde_json::from_str(&ours).expect("JSON");
            let theirs: serde_json::Value = serde_json::from_str(&case.envelope).expect("JSON");
            assert_eq!(ours, theirs, "{}", case.name);
            cases += 1;
        }
        checked("syft/envelope_open.json (sealed again)", cases);
    }

    #[test]
    fn damaged_and_hostile_envelopes_do_as_the_table_says() {
        let file: File = load("syft/envelope_reject.json");

        for case in &file.cases {
            let opened = open(&case.envelope, &case.key());
            match case.expect.as_str() {
                "open" => {
                    let opened = opened.expect(&case.name);
                    assert_eq!(
                        Some(opened.as_str()),
                        case.plaintext.as_deref(),
                        "{}",
                        case.name
                    );
                }
                "reject" => assert!(opened.is_err(), "{} opened", case.name),
                "either" => {}
                other => panic!("{}: unknown expectation {other}", case.name),
            }
        }
        checked("syft/envelope_reject.json", file.cases.len());
    }
}
