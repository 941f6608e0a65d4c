//! The JSON message, its signature, and what a receiver makes of it (`proto-specs/syft.md`,
//! sections 3 and 4).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    envelope,
    identity::{PublicKey, SigningKey, WrongSignature},
    time::Timestamp,
};

/// Longest frame on a Syft WebSocket, in bytes. Messages inside the mesh have a limit of their own.
pub const FRAME_BYTES_MAX: usize = 1_048_576;

/// A message, as its JSON says it; nothing in it is believed.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Number given by a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Who sends it; `system` is the server.
    pub from: String,
    /// Whom it is for, or `broadcast`.
    pub to: String,
    /// When it was sent, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// An envelope, or plain text for broadcasts and system messages.
    #[debug("{} bytes", content.len())]
    pub content: String,
    /// What a server says of it. A receiver pays no attention to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Standard base64 of an Ed25519 signature; absent or empty for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Whether a server made it for a request of the user himself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_forward_message: bool,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is no Syft message")]
pub struct FrameError;

impl Message {
    /// Makes a signed message with a time on the grid that every client verifies.
    #[must_use]
    pub fn signed(from: &str, to: &str, content: String, unix_ms: u64, key: &SigningKey) -> Self {
        let timestamp = Timestamp::on_grid(unix_ms);
        let nanos = timestamp.candidates().next().unwrap_or(0);
        let signature = key.sign(signed_text(from, to, nanos, &content).as_bytes());
        Self {
            id: None,
            from: from.to_owned(),
            to: to.to_owned(),
            timestamp: Some(timestamp.as_str().to_owned()),
            content,
            status: None,
            signature: Some(STANDARD.encode(signature)),
            is_forward_message: false,
        }
    }

    /// Reads a message. The caller bounds its length.
    ///
    /// # Errors
    /// Returns [`FrameError`] if it is no JSON object with the members of a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
        if !is_object {
            return Err(FrameError);
        }
        serde_json::from_slice(bytes).map_err(|_| FrameError)
    }

    /// Writes the message as JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and booleans are JSON")
    }

    /// Verifies the signature over either number that the time may stand for, and nothing wider.
    ///
    /// # Errors
    /// Returns [`WrongSignature`] if it is over neither.
    pub fn verify(&self, key: &PublicKey) -> Result<(), WrongSignature> {
        self.signed_nanos(key).map(drop)
    }

    /// Verifies the signature, and has the text of the time say which of the two numbers it is over
    /// ([`Timestamp::with_signed`]).
    pub(super) fn tell_signed(&mut self, key: &PublicKey) -> Result<(), WrongSignature> {
        let signed = self.signed_nanos(key)?;
        let time = Timestamp::from_text(self.timestamp.take().unwrap_or_default());
        self.timestamp = Some(time.with_signed(signed).as_str().to_owned());
        Ok(())
    }

    /// Verifies the signature, and returns which of the two numbers it is over.
    fn signed_nanos(&self, key: &PublicKey) -> Result<i128, WrongSignature> {
        let signature = self.signature.as_deref().ok_or(WrongSignature)?;
        let signature = STANDARD.decode(signature).map_err(|_| WrongSignature)?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| WrongSignature)?;
        let time = Timestamp::from_text(self.timestamp.as_deref().ok_or(WrongSignature)?);
        let holds = |nanos: &i128| {
            let text = signed_text(&self.from, &self.to, *nanos, &self.content);
            key.verify(text.as_bytes(), &signature).is_ok()
        };
        time.candidates().find(holds).ok_or(WrongSignature)
    }

    fn is_signed(&self) -> bool {
        self.signature
            .as_deref()
            .is_some_and(|signature| !signature.is_empty())
    }
}

/// Returns the text that is signed. Ids with `|` would make it ambiguous; who registers users
/// refuses them.
fn signed_text(from: &str, to: &str, nanos: i128, content: &str) -> String {
    format!("{from}|{to}|{nanos}|{content}")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How far a received message is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Signed by the sender's known key.
    Verified,
    /// Not signed.
    Unsigned,
    /// Signed, but the sender's key is not known.
    Unverified,
    /// Signed by somebody else, or changed.
    InvalidSignature,
    /// For us, but its envelope does not open.
    DecryptionFailed,
    /// Made by the server, whose word it carries unchecked.
    Server(Option<String>),
}

impl Trust {
    /// Returns the status as Syft clients write it.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        match self {
            Self::Verified => Some("verified"),
            Self::Unsigned => Some("unsigned"),
            Self::Unverified => Some("unverified"),
            Self::InvalidSignature => Some("invalid_signature"),
            Self::DecryptionFailed => Some("decryption_failed"),
            Self::Server(status) => status.as_deref(),
        }
    }
}

/// What a receiver makes of a message.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Received {
    /// How far it is to be trusted.
    pub trust: Trust,
    /// The text: what the envelope held, or the content as it came.
    #[debug("{} bytes", content.len())]
    pub content: String,
}

/// Does what a receiver does with a frame from a server: verifies and opens it.
///
/// The status that came with it counts for nothing, unless the server itself speaks: as `system`,
/// or in a forward message from the user to himself.
///
/// # Errors
/// Returns [`FrameError`] for frames that a receiver drops.
pub fn receive(
    frame: &[u8],
    own_id: &str,
    own_key: &SigningKey,
    key_of: impl FnOnce(&str) -> Option<PublicKey>,
) -> Result<Received, FrameError> {
    let message = Message::decode(frame)?;
    let own_forward = message.is_forward_message && message.from == own_id && message.to == own_id;
    if message.from == "system" || own_forward {
        return Ok(Received {
            trust: Trust::Server(message.status),
            content: message.content,
        });
    }
    let trust = if !message.is_signed() {
        Trust::Unsigned
    } else {
        match key_of(&message.from) {
            None => Trust::Unverified,
            Some(key) if message.verify(&key).is_ok() => Trust::Verified,
            Some(_) => Trust::InvalidSignature,
        }
    };
    let opens = matches!(trust, Trust::Verified | Trust::Unsigned);
    if message.to != own_id || message.is_forward_message || !opens {
        return Ok(Received {
            trust,
            content: message.content,
        });
    }
    Ok(match envelope::open(&message.content, own_key) {
        Ok(text) => Received {
            trust,
            content: text.to_string(),
        },
        Err(_) => Received {
            trust: Trust::DecryptionFailed,
            content: message.content,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_we_sign_verifies_and_a_changed_one_does_not() {
        let key = SigningKey::from_seed(&[7; 32]);
        let message = Message::signed("pi-1", "pi-2", "x".to_owned(), 1_747_396_800_127, &key);

        let read = Message::decode(&message.encode()).expect("a message");

        assert_eq!(read, message);
        assert_eq!(read.verify(key.public()), Ok(()));
        let changed = Message {
            to: "pi-3".to_owned(),
            ..read
        };
        assert_eq!(changed.verify(key.public()), Err(WrongSignature));
    }
}

#[cfg(test)]
mod vectors {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        proto::syft::{Reader, letter::rendered},
        vectors::{bytes, checked, load},
    };

    #[derive(Deserialize)]
    struct Signatures {
        cases: Vec<SignatureCase>,
    }

    #[derive(Deserialize)]
    struct SignatureCase {
        name: String,
        producer: String,
        signer_public: String,
        message: Message,
        expect: String,
        go_verifies: bool,
        python_verifies: bool,
        electron_verifies: bool,
    }

    impl SignatureCase {
        /// The same message as a reader gets it from a gateway.
        fn as_read_by(&self, reader: Reader) -> Message {
            let key = PublicKey::from_bytes(&bytes(&self.signer_public)).expect("a key");
            let mut message = Message {
                id: None,
                ..self.message.clone()
            };
            message.tell_signed(&key).expect("a right signature");
            let stored = String::from_utf8(message.encode()).expect("text");
            let frame = rendered(7, &stored, reader);
            Message::decode(frame.as_bytes()).expect("a message")
        }

        /// Says whether a client would verify this message: Go, Python, and Electron.
        fn verify(&self, message: &Message) -> [bool; 3] {
            let key = PublicKey::from_bytes(&bytes(&self.signer_public)).expect("a key");
            let signature = STANDARD.decode(message.signature.as_deref().expect("signed"));
            let signature: [u8; 64] = signature.expect("base64").try_into().expect("64 bytes");
            let time = Timestamp::from_text(message.timestamp.as_deref().expect("a time"));
            let exact = i128::from(time.exact_nanos().expect("a time"));
            let python = time.python_nanos().expect("a time");
            [exact, python, exact - exact % 1_000_000].map(|nanos| {
                let (from, to) = (&message.from, &message.to);
                let text = signed_text(from, to, nanos, &message.content);
                key.verify(text.as_bytes(), &signature).is_ok()
            })
        }
    }

    #[test]
    fn messages_reach_each_client_in_a_form_that_it_verifies_where_the_signature_allows() {
        let mut file: Signatures = load("syft/signature.json");
        file.cases.retain(|case| case.expect == "verified");
        let mut counts = BTreeMap::<_, [[usize; 2]; 3]>::new();

        for case in &file.cases {
            let known = [
                case.go_verifies,
                case.python_verifies,
                case.electron_verifies,
            ];
            assert_eq!(case.verify(&case.message), known, "{}", case.name);
            let [go, _, electron] = case.verify(&case.as_read_by(Reader::Go));
            let [_, python, _] = case.verify(&case.as_read_by(Reader::Python));
            let unknown = case.verify(&case.as_read_by(Reader::Unknown));
            for (after, before) in [go, python, electron].into_iter().zip(known) {
                assert!(after || !before, "{}: it verified before", case.name);
            }
            for (after, before) in unknown.into_iter().zip(known) {
                assert!(after || !before, "{}: it verified before", case.name);
            }
            let count = counts.entry(case.producer.as_str()).or_default();
            let all = [go, python, unknown[2]];
            for (count, verify) in count.iter_mut().zip(known.into_iter().zip(all)) {
                *count = [
                    count[0] + usize::from(verify.0),
                    count[1] + usize::from(verify.1),
                ];
            }
        }

        // How many verified as they were sent, and how many do here: in Go, Python and Electron.
        let expected = [
            ("electron", [[8, 8], [2, 2], [8, 8]]),
            ("go", [[13, 13], [1, 1], [2, 2]]),
            ("python", [[10, 53], [53, 53], [6, 6]]),
        ];
        assert_eq!(counts, BTreeMap::from(expected));
    }

    #[test]
    fn signatures_of_the_real_clients_verify_and_forgeries_do_not() {
        let file: Signatures = load("syft/signature.json");

        for case in &file.cases {
            let key = PublicKey::from_bytes(&bytes(&case.signer_public)).expect("a key");
            let expected = match case.expect.as_str() {
                "verified" => Ok(()),
                "invalid_signature" => Err(WrongSignature),
                other => panic!("{}: unknown expectation {other}", case.name),
            };
            assert_eq!(case.message.verify(&key), expected, "{}", case.name);
        }
        checked("syft/signature.json", file.cases.len());
    }

    #[derive(Deserialize)]
    struct Receipts {
        receiver: String,
        receiver_seed: String,
        directory: BTreeMap<String, PublicKey>,
        cases: Vec<ReceiveCase>,
    }

    #[derive(Deserialize)]
    struct ReceiveCase {
        name: String,
        frame: String,
        expect: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        delivered: bool,
        status: Option<String>,
        content: Option<String>,
    }

    #[test]
    fn frames_from_a_server_are_received_as_the_table_says() {
        let file: Receipts = load("syft/receive.json");
        let key = SigningKey::from_seed(&bytes(&file.receiver_seed));

        for case in &file.cases {
            let key_of = |user: &str| file.directory.get(user).copied();
            let received = receive(case.frame.as_bytes(), &file.receiver, &key, key_of);
            assert_eq!(received.is_ok(), case.expect.delivered, "{}", case.name);
            let Ok(received) = received else { continue };
            let status = received.trust.status();
            if case.expect.status.as_deref() == Some("invalid_signature_or_decryption_failed") {
                let either = [Some("invalid_signature"), Some("decryption_failed")];
                assert!(either.contains(&status), "{}: {status:?}", case.name);
            } else {
                assert_eq!(status, case.expect.status.as_deref(), "{}", case.name);
            }
            if let Some(content) = &case.expect.content {
                assert_eq!(&received.content, content, "{}", case.name);
            }
        }
        checked("syft/receive.json", file.cases.len());
    }
}
