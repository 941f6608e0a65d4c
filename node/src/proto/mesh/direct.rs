//! `/pimesh/dm/1`: direct messages, a few at a time, in the sender's order.
//!
//! A message is a Syft message (`proto-specs/syft.md`, sections 2 to 4) inside a frame that names
//! sender, recipient, id and place in the sender's numbering. The frame is signed with the
//! sender's messaging key; it, and not the Syft message, is what members trust. An answer says of
//! each message whether it is on the recipient's disk.

use libp2p_identity::PeerId;

use super::{
    ClientName, DecodeError, MessageId, array, decode, peer,
    signed::{Label, Signed, WrongSignature},
};
use crate::proto::syft;

/// Longest text of a message, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Longest encoded message, in bytes: base64 makes 4/3 of the text, JSON and the frame add little.
pub const MESSAGE_BYTES_MAX: usize = TEXT_BYTES_MAX / 3 * 4 + 4096;

/// Most messages in one request. With one request under way for each recipient, this and the
/// round trip set the rate; 128 fill one commit of the recipient's disk.
pub const MESSAGES_MAX: usize = 128;

/// How many bytes of text one request may gather; a longer single message goes alone.
pub const BATCH_TEXT_BYTES_MAX: usize = 256 * 1024;

/// Longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 1024 * 1024;

/// Longest answer, in bytes: one outcome for each message.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// The frame around a Syft message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's name in the whole mesh.
    pub id: MessageId,
    /// Who sends it.
    pub sender: PeerId,
    /// Whom it is for.
    pub recipient: PeerId,
    /// The numbering that `sequence` belongs to: a random number for each start of the sender.
    pub epoch: u64,
    /// Its place in that numbering: grows from message to message to one recipient.
    pub sequence: u64,
    /// When the sender accepted it, by the sender's clock, Unix ms.
    pub created_ms: u64,
    /// When the sender gives up, by the sender's clock, Unix ms.
    pub expires_ms: u64,
    /// The Syft message: the JSON text of `proto-specs/syft.md`, section 4.
    pub syft: Vec<u8>,
    /// What the Syft message is.
    pub kind: Kind,
}

/// What the Syft message in a frame is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// From the sending member itself to the receiving one.
    #[default]
    Member,
    /// From or to a user of one of the two gateways, as the client wrote it.
    Letter,
    /// From the sending member to a client of the receiving one that has no key: sealed for the
    /// receiving member, which hands it to this client.
    Client(ClientName),
}

impl Frame {
    /// Signs the frame with the sender's messaging key.
    #[must_use]
    pub fn sign(self, key: &syft::SigningKey) -> Signed {
        let payload = prost::Message::encode_to_vec(&WireFrame {
            id: self.id.0.to_vec(),
            sender: self.sender.to_bytes(),
            recipient: self.recipient.to_bytes(),
            epoch: self.epoch,
            sequence: self.sequence,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            syft: self.syft,
            kind: match &self.kind {
                Kind::Member => 0,
                Kind::Letter => 1,
                Kind::Client(_) => 2,
            },
            client: match &self.kind {
                Kind::Member | Kind::Letter => String::new(),
                Kind::Client(client) => client.to_string(),
            },
        });
        let signature = key.sign(&Label::DIRECT.before(&payload)).to_vec();
        Signed { payload, signature }
    }

    /// Decodes a frame; believes nothing in it.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(signed: &Signed) -> Result<Self, DecodeError> {
        const WHAT: &str = "direct message";
        super::at_most(WHAT, "bytes", signed.payload.len(), MESSAGE_BYTES_MAX)?;
        let wire: WireFrame = decode(WHAT, &signed.payload)?;
        Ok(Self {
            id: MessageId(array(WHAT, "id", &wire.id)?),
            sender: peer(WHAT, "sender", &wire.sender)?,
            recipient: peer(WHAT, "recipient", &wire.recipient)?,
            epoch: wire.epoch,
            sequence: wire.sequence,
            created_ms: wire.created_ms,
            expires_ms: wire.expires_ms,
            syft: wire.syft,
            kind: match (wire.kind, ClientName::new(wire.client)) {
                (0, _) => Kind::Member,
                (1, _) => Kind::Letter,
                (2, Some(client)) => Kind::Client(client),
                _ => {
                    return Err(DecodeError::Field {
                        what: WHAT,
                        field: "kind",
                    });
                }
            },
        })
    }

    /// Verifies that `key` signed the frame that `signed` carries.
    ///
    /// # Errors
    /// Returns [`WrongSignature`] if it did not.
    pub fn verify(signed: &Signed, key: &syft::PublicKey) -> Result<(), WrongSignature> {
        let signature = signed
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| WrongSignature)?;
        key.verify(&Label::DIRECT.before(&signed.payload), signature)
            .map_err(|_| WrongSignature)
    }
}

/// What became of a message at the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// The recipient could not take it now; send it again later.
    TryAgain = 0,
    /// It is on the recipient's disk.
    Stored = 1,
    /// It, or a later one of the same numbering, already was.
    Duplicate = 2,
    /// It is no legal message.
    Malformed = 3,
    /// Its signature is not that of the sender's certified messaging key.
    WrongSignature = 4,
    /// It names another sender than the peer that brought it.
    WrongSender = 5,
    /// It names another recipient.
    WrongRecipient = 6,
    /// Its envelope is not for the recipient's messaging key.
    CannotOpen = 7,
    /// It is too large.
    TooLarge = 8,
    /// No more letters of this user are kept.
    MailboxFull = 9,
}

impl Status {
    /// Says whether the same message may be taken later: the recipient is busy, or one of the two
    /// does not know the other's newest certificate yet, or lost a key that will be restored.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::TryAgain
            | Self::WrongSignature
            | Self::WrongSender
            | Self::WrongRecipient
            | Self::CannotOpen => true,
            Self::Stored
            | Self::Duplicate
            | Self::Malformed
            | Self::TooLarge
            | Self::MailboxFull => false,
        }
    }

    /// Returns a short constant for counters and for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TryAgain => "try_again",
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::WrongSignature => "wrong_signature",
            Self::WrongSender => "wrong_sender",
            Self::WrongRecipient => "wrong_recipient",
            Self::CannotOpen => "cannot_open",
            Self::TooLarge => "too_large",
            Self::MailboxFull => "mailbox_full",
        }
    }
}

/// A few messages, in order.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Request {
    /// The signed frames.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<Signed>,
}

impl Request {
    /// Encodes the messages.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }

    /// Decodes the messages; believes nothing in them.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "direct message request";
        super::at_most(WHAT, "bytes", bytes.len(), REQUEST_BYTES_MAX)?;
        let request: Self = decode(WHAT, bytes)?;
        super::at_most(WHAT, "messages", request.messages.len(), MESSAGES_MAX)?;
        Ok(request)
    }
}

/// What became of each message of a request, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response(pub Vec<Status>);

impl Response {
    /// Encodes the answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let statuses = self.0.iter().map(|&status| status as i32).collect();
        prost::Message::encode_to_vec(&WireResponse { statuses })
    }

    /// Decodes an answer. A status of a later version means try again.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "direct message answer";
        super::at_most(WHAT, "bytes", bytes.len(), RESPONSE_BYTES_MAX)?;
        let WireResponse { statuses } = decode(WHAT, bytes)?;
        super::at_most(WHAT, "statuses", statuses.len(), MESSAGES_MAX)?;
        let known = |code| Status::try_from(code).unwrap_or(Status::TryAgain);
        Ok(Self(statuses.into_iter().map(known).collect()))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireFrame {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    sender: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    recipient: Vec<u8>,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(uint64, tag = "5")]
    sequence: u64,
    #[prost(uint64, tag = "6")]
    created_ms: u64,
    #[prost(uint64, tag = "7")]
    expires_ms: u64,
    #[prost(bytes = "vec", tag = "8")]
    syft: Vec<u8>,
    #[prost(uint32, tag = "9")]
    kind: u32,
    #[prost(string, tag = "10")]
    client: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireResponse {
    #[prost(enumeration = "Status", repeated, tag = "1")]
    statuses: Vec<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            id: MessageId([1; 16]),
            sender: crate::proto::mesh::peer_of_seed(5),
            recipient: crate::proto::mesh::peer_of_seed(6),
            epoch: 7,
            sequence: 8,
            created_ms: 9,
            expires_ms: 10,
            syft: b"{}".to_vec(),
            kind: Kind::Letter,
        }
    }

    #[test]
    fn a_signed_frame_survives_the_journey_and_verifies() {
        let key = syft::SigningKey::from_seed(&[7; 32]);
        let frame = frame();
        let request = Request {
            messages: vec![frame.clone().sign(&key)],
        };

        let read = Request::decode(&request.encode()).expect("a request");

        assert_eq!(Frame::decode(&read.messages[0]), Ok(frame));
        assert_eq!(Frame::verify(&read.messages[0], key.public()), Ok(()));
    }

    #[test]
    fn a_frame_with_any_bit_changed_does_not_verify() {
        let key = syft::SigningKey::from_seed(&[7; 32]);
        let signed = frame().sign(&key);

        for at in 0..signed.payload.len() {
            let mut changed = signed.clone();
            changed.payload[at] ^= 1;
            assert_eq!(
                Frame::verify(&changed, key.public()),
                Err(WrongSignature),
                "byte {at}"
            );
        }
        let stranger = syft::SigningKey::from_seed(&[8; 32]);
        assert_eq!(
            Frame::verify(&signed, stranger.public()),
            Err(WrongSignature)
        );
    }

    #[test]
    fn more_messages_than_one_request_may_carry_are_refused() {
        let message = Signed {
            payload: vec![],
            signature: vec![],
        };
        let request = Request {
            messages: vec![message; MESSAGES_MAX + 1],
        };

        assert!(matches!(
            Request::decode(&request.encode()),
            Err(DecodeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_status_of_a_later_version_means_try_again() {
        let later = prost::Message::encode_to_vec(&WireResponse {
            statuses: vec![1, 99],
        });

        assert_eq!(
            Response::decode(&later),
            Ok(Response(vec![Status::Stored, Status::TryAgain]))
        );
    }
}
