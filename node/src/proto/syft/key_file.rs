//! Public keys as the programs of Syft keep or print them (`proto-specs/syft.md`, section 1).
//!
//! | who | what |
//! | --- | --- |
//! | registration, all clients | standard base64 of the 32 bytes |
//! | Go, Electron | hexadecimal of the 32 bytes |
//! | Python agent (`websocket_public.pem`) | PEM of a `SubjectPublicKeyInfo` |
//!
//! Private keys are not read: they are told apart, so that nobody hands one over by mistake and
//! hears only that it has the wrong length.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::identity::{KeyError, PublicKey};

/// Longest text that can be a key file, in bytes: the longest, PEM, has 113, and editors add to it.
pub const KEY_FILE_BYTES_MAX: usize = 4096;

/// What stands before the 32 bytes in the `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410).
const SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Why a text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// In none of the three forms.
    #[error(
        "a public key is base64 or hexadecimal of 32 bytes, or PEM that begins with {PEM_BEGIN}"
    )]
    Form,
    /// PEM of something else than an Ed25519 key.
    #[error("the PEM is no Ed25519 public key")]
    OtherKey,
    /// A private key.
    #[error("this is a private key, which stays where it is; the public key is needed")]
    Private,
    /// No key that can be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl PublicKey {
    /// Takes a key in any of the forms in which a program of Syft shows its public key.
    ///
    /// # Errors
    /// Returns what the text is instead.
    pub fn from_key_file(text: &str) -> Result<Self, KeyFileError> {
        let text = text.trim();
        if text.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyFileError::Form);
        }
        if text.contains("PRIVATE KEY") {
            return Err(KeyFileError::Private);
        }
        let bytes = if let Some(rest) = text.strip_prefix(PEM_BEGIN) {
            let body = rest.strip_suffix(PEM_END).ok_or(KeyFileError::Form)?;
            of_pem(body)?
        } else {
            hex::decode(text)
                .or_else(|_| STANDARD.decode(text))
                .map_err(|_| KeyFileError::Form)?
        };
        match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) => Ok(Self::from_bytes(&bytes)?),
            // Seed and public key together, as Go and Electron write their private key.
            Err(bytes) if bytes.len() == 64 => Err(KeyFileError::Private),
            Err(_) => Err(KeyFileError::Form),
        }
    }
}

fn of_pem(body: &str) -> Result<Vec<u8>, KeyFileError> {
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| KeyFileError::Form)?;
    let key = der.strip_prefix(&SPKI_HEAD).filter(|key| key.len() == 32);
    key.map(<[u8]>::to_vec).ok_or(KeyFileError::OtherKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.1.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    const HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    const BASE64: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

    #[test]
    fn the_three_forms_of_a_public_key_are_one_key() {
        let crlf = PEM.replace('\n', "\r\n");
        let upper = HEX.to_uppercase();
        for text in [PEM, &crlf, HEX, &upper, BASE64, &format!(" {BASE64}\n")] {
            let key = PublicKey::from_key_file(text).expect("a key");
            assert_eq!(key.to_base64(), BASE64, "{text:?}");
        }
    }

    #[test]
    fn a_private_key_is_named_and_not_taken() {
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n\
            -----END PRIVATE KEY-----";
        let go = HEX.repeat(2);
        for text in [private, &go] {
            assert_eq!(PublicKey::from_key_file(text), Err(KeyFileError::Private));
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_it_is() {
        // An RSA key of the same frame, a cut PEM, a short key, and a point of small order.
        let rsa = PEM.replace("MCow", "MFww");
        let cut = &PEM[..60];
        let zero = STANDARD.encode([0; 32]);
        for (text, expected) in [
            (rsa.as_str(), KeyFileError::OtherKey),
            (cut, KeyFileError::Form),
            ("", KeyFileError::Form),
            (&HEX[..62], KeyFileError::Form),
            ("AAAA", KeyFileError::Form),
            (&"A".repeat(5000), KeyFileError::Form),
            (&zero, KeyFileError::Key(KeyError::Point)),
        ] {
            assert_eq!(PublicKey::from_key_file(text), Err(expected), "{text:?}");
        }
    }
}
