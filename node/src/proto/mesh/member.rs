//! `/pimesh/member/1`: the one protocol that is open to a peer which has shown no certificate.
//!
//! ```text
//! dialler                                   listener
//!   Hello(own certificate)   ─────────────▶   verify; open for inbound streams
//!   verify; open both ways   ◀─────────────   Hello(own certificate)
//!   Ready                    ─────────────▶   open both ways
//!                            ◀─────────────   Ok
//! ```
//!
//! The dialler speaks first, because it knows from the transport handshake that it reached the
//! peer it meant; the listener shows its certificate, and with it its name, only to members. With
//! a ticket, `Join` stands in the place of `Hello`, and `Welcome` in that of the answer.

use super::{DecodeError, NodeName, array, decode, signed::Label, ticket::Secret};
use crate::proto::syft;

/// Longest request, in bytes: a certificate or a join, with room to spare.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Longest answer, in bytes: a `Welcome` with two certificates, with room to spare.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024;

/// What the dialler says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// I am a member: here is my encoded certificate.
    Hello(Vec<u8>),
    /// I have verified your certificate and opened the connection.
    Ready,
    /// I have a ticket.
    Join(Box<Join>),
}

/// A wish to enter the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The secret of the ticket.
    pub secret: Secret,
    /// The name wished for; the ticket's own name goes before it.
    pub name: NodeName,
    /// The messaging key.
    pub messaging_key: syft::PublicKey,
    /// Signature of that key over [`Join::proof_payload`].
    pub proof: [u8; 64],
    /// The encoded statement with which it left this very mesh, if it did: the inviter may not have
    /// heard it.
    pub left: Option<Vec<u8>>,
}

impl Join {
    /// Returns what the messaging key signs to prove that the joining peer holds it.
    #[must_use]
    pub fn proof_payload(peer: &libp2p_identity::PeerId, secret: &Secret) -> Vec<u8> {
        Label::JOIN.before(&[&peer.to_bytes()[..], &secret.hash()].concat())
    }
}

/// What the listener answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// I am a member, too: here is my encoded certificate.
    Hello(Vec<u8>),
    /// To `Ready`.
    Ok,
    /// To `Join`.
    Welcome(Welcome),
    /// No.
    Refused(Refusal),
    /// No, because of this encoded revocation, which the dialler can verify.
    Revoked(Vec<u8>),
    /// No: this node has left the dialler's mesh, as this encoded statement says, which the dialler
    /// can verify.
    Left(Vec<u8>),
}

/// What a new member is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its own encoded certificate.
    pub certificate: Vec<u8>,
    /// The inviter's encoded certificate.
    pub inviter: Vec<u8>,
}

/// Why the listener says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Refusal {
    /// For a reason that strangers are not told.
    NotAMember = 0,
    /// The ticket's time is over.
    TicketExpired = 1,
    /// The ticket is unknown here or was used by somebody else.
    TicketUnknown = 2,
    /// Another connection between the two is preferred.
    OtherConnection = 3,
    /// This node can take no member at the moment, for example because its disk is full.
    TryAgain = 4,
    /// The mesh has as many members as it can have.
    MeshFull = 5,
    /// The ticket was cancelled. Programs that do not know this number take it for 0.
    TicketCancelled = 6,
}

impl Request {
    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Self::Hello(certificate) => RequestKind::Hello(certificate.clone()),
            Self::Ready => RequestKind::Ready(Empty {}),
            Self::Join(join) => RequestKind::Join(WireJoin {
                secret: join.secret.as_bytes().to_vec(),
                name: join.name.as_str().to_owned(),
                messaging_key: join.messaging_key.as_bytes().to_vec(),
                proof: join.proof.to_vec(),
                left: join.left.clone(),
            }),
        };
        prost::Message::encode_to_vec(&WireRequest { kind: Some(kind) })
    }

    /// Decodes a request; believes nothing in it.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "member request";
        super::at_most(WHAT, "bytes", bytes.len(), REQUEST_BYTES_MAX)?;
        match decode::<WireRequest>(WHAT, bytes)?.kind {
            Some(RequestKind::Hello(certificate)) => Ok(Self::Hello(certificate)),
            Some(RequestKind::Ready(Empty {})) => Ok(Self::Ready),
            Some(RequestKind::Join(join)) => {
                let illegal = |field| DecodeError::Field { what: WHAT, field };
                let key = array(WHAT, "messaging_key", &join.messaging_key)?;
                Ok(Self::Join(Box::new(Join {
                    secret: Secret::new(array(WHAT, "secret", &join.secret)?),
                    name: join.name.parse().map_err(|_| illegal("name"))?,
                    messaging_key: syft::PublicKey::from_bytes(&key)
                        .map_err(|_| illegal("messaging_key"))?,
                    proof: array(WHAT, "proof", &join.proof)?,
                    left: join.left,
                })))
            }
            None => Err(DecodeError::Field {
                what: WHAT,
                field: "kind",
            }),
        }
    }
}

impl Response {
    /// Encodes the answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Self::Hello(certificate) => ResponseKind::Hello(certificate.clone()),
            Self::Ok => ResponseKind::Ok(Empty {}),
            Self::Welcome(welcome) => ResponseKind::Welcome(WireWelcome {
                certificate: welcome.certificate.clone(),
                inviter: welcome.inviter.clone(),
            }),
            Self::Refused(refusal) => ResponseKind::Refused(*refusal as i32),
            Self::Revoked(revocation) => ResponseKind::Revoked(revocation.clone()),
            Self::Left(left) => ResponseKind::Left(left.clone()),
        };
        prost::Message::encode_to_vec(&WireResponse { kind: Some(kind) })
    }

    /// Decodes an answer; believes nothing in it.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "member answer";
        super::at_most(WHAT, "bytes", bytes.len(), RESPONSE_BYTES_MAX)?;
        match decode::<WireResponse>(WHAT, bytes)?.kind {
            Some(ResponseKind::Hello(certificate)) => Ok(Self::Hello(certificate)),
            Some(ResponseKind::Ok(Empty {})) => Ok(Self::Ok),
            Some(ResponseKind::Welcome(WireWelcome {
                certificate,
                inviter,
            })) => Ok(Self::Welcome(Welcome {
                certificate,
                inviter,
            })),
            Some(ResponseKind::Refused(code)) => Ok(Self::Refused(
                Refusal::try_from(code).unwrap_or(Refusal::NotAMember),
            )),
            Some(ResponseKind::Revoked(revocation)) => Ok(Self::Revoked(revocation)),
            Some(ResponseKind::Left(left)) => Ok(Self::Left(left)),
            None => Err(DecodeError::Field {
                what: WHAT,
                field: "kind",
            }),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireRequest {
    #[prost(oneof = "RequestKind", tags = "1, 2, 3")]
    kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum RequestKind {
    #[prost(bytes, tag = "1")]
    Hello(Vec<u8>),
    #[prost(message, tag = "2")]
    Ready(Empty),
    #[prost(message, tag = "3")]
    Join(WireJoin),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireJoin {
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "vec", tag = "3")]
    messaging_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    proof: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "5")]
    left: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireResponse {
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<ResponseKind>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum ResponseKind {
    #[prost(bytes, tag = "1")]
    Hello(Vec<u8>),
    #[prost(message, tag = "2")]
    Ok(Empty),
    #[prost(message, tag = "3")]
    Welcome(WireWelcome),
    #[prost(enumeration = "Refusal", tag = "4")]
    Refused(i32),
    #[prost(bytes, tag = "5")]
    Revoked(Vec<u8>),
    #[prost(bytes, tag = "6")]
    Left(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireWelcome {
    #[prost(bytes = "vec", tag = "1")]
    certificate: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    inviter: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Join {
        Join {
            secret: Secret::new([3; 16]),
            name: "pi-2".parse().expect("a legal name"),
            messaging_key: *syft::SigningKey::from_seed(&[7; 32]).public(),
            proof: [5; 64],
            left: Some(vec![6]),
        }
    }

    #[test]
    fn every_request_and_answer_survives_the_journey() {
        for request in [
            Request::Hello(vec![1, 2]),
            Request::Ready,
            Request::Join(Box::new(join())),
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        let welcome = Welcome {
            certificate: vec![1],
            inviter: vec![2],
        };
        for response in [
            Response::Hello(vec![1, 2]),
            Response::Ok,
            Response::Welcome(welcome),
            Response::Refused(Refusal::TicketExpired),
            Response::Revoked(vec![3]),
            Response::Left(vec![4]),
        ] {
            assert_eq!(Response::decode(&response.encode()), Ok(response));
        }
    }

    #[test]
    fn an_empty_or_oversized_request_is_refused() {
        assert!(Request::decode(&[]).is_err());
        assert!(Response::decode(&[]).is_err());
        let large = Request::Hello(vec![0; REQUEST_BYTES_MAX]).encode();
        assert!(matches!(
            Request::decode(&large),
            Err(DecodeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_refusal_of_a_later_version_is_a_plain_no() {
        let later = WireResponse {
            kind: Some(ResponseKind::Refused(99)),
        };

        let read = Response::decode(&prost::Message::encode_to_vec(&later));

        assert_eq!(read, Ok(Response::Refused(Refusal::NotAMember)));
    }
}
