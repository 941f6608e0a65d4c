//! `/pimesh/sync/1`: what members tell each other about the mesh.
//!
//! Sent by both sides once a connection is open, again when something is new, and once a minute
//! with nothing in it to compare clocks. Certificates and revocations are believed only for their
//! signatures, so it does not matter through whom they come; addresses are hints.

use libp2p_identity::PeerId;

use super::{Address, DecodeError, decode, peer};
use crate::proto::iid::{Date, Iid, Index, Value};

/// Longest request, in bytes: everything about the largest mesh.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Longest answer, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 1024;

/// Most members of a mesh. Every member connects to every other, so a mesh is small by design.
pub const MEMBERS_MAX: usize = 256;

/// Most revocations that are kept and told: those of the largest mesh, four times over.
pub const REVOCATIONS_MAX: usize = 4 * MEMBERS_MAX;

/// Most addresses kept of one peer: four interfaces, two address families, two transports.
pub const ADDRESSES_PER_PEER_MAX: usize = 16;

/// Most last values that are handed over.
pub const LAST_INTEGERS_MAX: usize = 4096;

/// Something one member tells another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Encoded certificates.
    pub certificates: Vec<Vec<u8>>,
    /// Encoded revocations.
    pub revocations: Vec<Vec<u8>>,
    /// Where members were last reached.
    pub addresses: Vec<(PeerId, Vec<Address>)>,
    /// The last integer of each index.
    pub last: Vec<LastInteger>,
}

/// The last integer that was heard for an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastInteger {
    /// The integer.
    pub iid: Iid,
    /// The node that sent it.
    pub source: PeerId,
    /// When that node sent it, by its clock, Unix ms.
    pub sent_ms: u64,
}

/// The answer: two readings of the clock, for the rule of NTP (RFC 5905, section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// When the request came, in microseconds since 1970.
    pub received_us: u64,
    /// When the answer left, in microseconds since 1970.
    pub sent_us: u64,
}

impl Request {
    /// Encodes what is told.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireRequest {
            certificates: self.certificates.clone(),
            revocations: self.revocations.clone(),
            addresses: self
                .addresses
                .iter()
                .map(|(peer, addresses)| WireAddresses {
                    peer: peer.to_bytes(),
                    addresses: addresses.iter().map(|a| a.as_str().to_owned()).collect(),
                })
                .collect(),
            last: self
                .last
                .iter()
                .map(|last| WireLast {
                    index: last.iid.index.0,
                    value: last.iid.value.0,
                    date: last.iid.date.0,
                    source: last.source.to_bytes(),
                    sent_ms: last.sent_ms,
                })
                .collect(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    /// Decodes what is told; believes nothing in it. Addresses that are too long are left out.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "sync request";
        super::at_most(WHAT, "bytes", bytes.len(), REQUEST_BYTES_MAX)?;
        let wire: WireRequest = decode(WHAT, bytes)?;
        super::at_most(WHAT, "certificates", wire.certificates.len(), MEMBERS_MAX)?;
        super::at_most(WHAT, "revocations", wire.revocations.len(), REVOCATIONS_MAX)?;
        super::at_most(WHAT, "peers", wire.addresses.len(), MEMBERS_MAX)?;
        super::at_most(WHAT, "last integers", wire.last.len(), LAST_INTEGERS_MAX)?;
        let addresses = wire.addresses.into_iter().map(|of| {
            let listed = of.addresses.into_iter().take(ADDRESSES_PER_PEER_MAX);
            Ok((
                peer(WHAT, "peer", &of.peer)?,
                listed.filter_map(Address::new).collect(),
            ))
        });
        let last = wire.last.into_iter().map(|last| {
            Ok(LastInteger {
                iid: Iid {
                    index: Index(last.index),
                    value: Value(last.value),
                    date: Date(last.date),
                },
                source: peer(WHAT, "source", &last.source)?,
                sent_ms: last.sent_ms,
            })
        });
        Ok(Self {
            certificates: wire.certificates,
            revocations: wire.revocations,
            addresses: addresses.collect::<Result<_, DecodeError>>()?,
            last: last.collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl Response {
    /// Encodes the answer.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let wire = WireResponse {
            received_us: self.received_us,
            sent_us: self.sent_us,
        };
        prost::Message::encode_to_vec(&wire)
    }

    /// Decodes an answer.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "sync answer";
        super::at_most(WHAT, "bytes", bytes.len(), RESPONSE_BYTES_MAX)?;
        let WireResponse {
            received_us,
            sent_us,
        } = decode(WHAT, bytes)?;
        Ok(Self {
            received_us,
            sent_us,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRequest {
    #[prost(bytes = "vec", repeated, tag = "1")]
    certificates: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    revocations: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<WireAddresses>,
    #[prost(message, repeated, tag = "4")]
    last: Vec<WireLast>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAddresses {
    #[prost(bytes = "vec", tag = "1")]
    peer: Vec<u8>,
    #[prost(string, repeated, tag = "2")]
    addresses: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLast {
    #[prost(sint32, tag = "1")]
    index: i32,
    #[prost(sint32, tag = "2")]
    value: i32,
    #[prost(uint64, tag = "3")]
    date: u64,
    #[prost(bytes = "vec", tag = "4")]
    source: Vec<u8>,
    #[prost(uint64, tag = "5")]
    sent_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireResponse {
    #[prost(uint64, tag = "1")]
    received_us: u64,
    #[prost(uint64, tag = "2")]
    sent_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_survives_the_journey() {
        let peer = crate::proto::mesh::peer_of_seed(5);
        let request = Request {
            certificates: vec![vec![1, 2, 3]],
            revocations: vec![vec![4]],
            addresses: vec![(
                peer,
                vec![Address::new("/ip4/10.0.0.1/tcp/1").expect("legal")],
            )],
            last: vec![LastInteger {
                iid: Iid {
                    index: Index(-1),
                    value: Value(i32::MIN),
                    date: Date(u64::MAX),
                },
                source: peer,
                sent_ms: 5,
            }],
        };
        let response = Response {
            received_us: 1,
            sent_us: 2,
        };

        assert_eq!(Request::decode(&request.encode()), Ok(request));
        assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn more_than_the_largest_mesh_has_is_refused() {
        let peer = crate::proto::mesh::peer_of_seed(5);
        let last = LastInteger {
            iid: Iid::decode(&[0; 16]),
            source: peer,
            sent_ms: 0,
        };
        let request = |more: usize| {
            [
                Request {
                    certificates: vec![vec![]; 256 + more],
                    ..Request::default()
                },
                Request {
                    revocations: vec![vec![]; 1024 + more],
                    ..Request::default()
                },
                Request {
                    addresses: vec![(peer, vec![]); 256 + more],
                    ..Request::default()
                },
                Request {
                    last: vec![last.clone(); 4096 + more],
                    ..Request::default()
                },
            ]
        };

        for full in request(0) {
            assert_eq!(Request::decode(&full.encode()), Ok(full));
        }
        for too_much in request(1) {
            let read = Request::decode(&too_much.encode());
            assert!(
                matches!(read, Err(DecodeError::TooLarge { max, got, .. }) if got == max + 1),
                "{read:?}"
            );
        }
    }
}
