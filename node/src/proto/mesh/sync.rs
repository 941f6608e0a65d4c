//! `/pimesh/sync/1`: what members tell each other about the mesh.
//!
//! Sent by both sides once a connection is open, again when something is new, and once a minute
//! with nothing in it to compare clocks. Certificates and revocations are believed only for their
//! signatures, so it does not matter through whom they come; addresses are hints. Each side names
//! its start, so that two machines with one identity are noticed.

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

/// Most statements that are kept and told of one kind: one about each member of the largest mesh.
pub const STATEMENTS_PER_KIND_MAX: usize = MEMBERS_MAX;

/// Most statements in one request: of three kinds.
const STATEMENTS_MAX: usize = 3 * STATEMENTS_PER_KIND_MAX;

/// Most addresses kept of one peer: four interfaces, two address families, two transports.
pub const ADDRESSES_PER_PEER_MAX: usize = 16;

/// Most last values that are handed over.
pub const LAST_INTEGERS_MAX: usize = 4096;

/// Most further starts of its peer that a [`Sighting`] names, and that are remembered of a peer: a
/// peer that is started more often than that within minutes has other troubles.
pub const BOOTS_PER_PEER_MAX: usize = 8;

/// One start of a node: a random number that it draws then, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId(std::num::NonZeroU64);

impl BootId {
    /// Makes the id of a start from a random number.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self(std::num::NonZeroU64::new(random).unwrap_or(std::num::NonZeroU64::MIN))
    }

    /// Reads a field that is 0 if it is absent.
    fn read(field: u64) -> Option<Self> {
        std::num::NonZeroU64::new(field).map(Self)
    }
}

/// Which start of a member the teller is connected with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The member.
    pub peer: PeerId,
    /// Its start.
    pub boot: BootId,
    /// Other starts of the member of which the teller knew already when it asked this one
    /// something that it then answered.
    pub outlived: Vec<BootId>,
}

/// Two machines had the identity of one member at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The member.
    pub peer: PeerId,
    /// How long ago that was proven.
    pub age_ms: u64,
}

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
    /// The start of the teller.
    pub boot: Option<BootId>,
    /// Which start of each member the teller is connected with.
    pub sightings: Vec<Sighting>,
    /// Members whose identity two machines have.
    pub copied: Vec<Copied>,
    /// Encoded statements about members.
    pub statements: Vec<Vec<u8>>,
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
    /// The start of the teller.
    pub boot: Option<BootId>,
}

impl Request {
    /// Says whether it tells anything that is told once only.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let Self {
            certificates,
            revocations,
            addresses,
            last,
            boot: _,
            sightings: _,
            copied,
            statements,
        } = self;
        !(certificates.is_empty()
            && revocations.is_empty()
            && addresses.is_empty()
            && last.is_empty()
            && copied.is_empty()
            && statements.is_empty())
    }

    /// Encodes what is told.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireRequest {
            certificates: self.certificates.clone(),
            revocations: self.revocations.clone(),
            statements: self.statements.clone(),
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
            boot: field(self.boot),
            sightings: self
                .sightings
                .iter()
                .map(|sighting| WireSighting {
                    peer: sighting.peer.to_bytes(),
                    boot: field(Some(sighting.boot)),
                    outlived: sighting.outlived.iter().map(|b| field(Some(*b))).collect(),
                })
                .collect(),
            copied: self
                .copied
                .iter()
                .map(|copied| WireCopied {
                    peer: copied.peer.to_bytes(),
                    age_ms: copied.age_ms,
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
        super::at_most(WHAT, "statements", wire.statements.len(), STATEMENTS_MAX)?;
        super::at_most(WHAT, "peers", wire.addresses.len(), MEMBERS_MAX)?;
        super::at_most(WHAT, "last integers", wire.last.len(), LAST_INTEGERS_MAX)?;
        super::at_most(WHAT, "sightings", wire.sightings.len(), MEMBERS_MAX)?;
        super::at_most(WHAT, "copied members", wire.copied.len(), MEMBERS_MAX)?;
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
        let sightings = wire.sightings.into_iter().map(|sighting| {
            let outlived = sighting.outlived.into_iter().take(BOOTS_PER_PEER_MAX);
            Ok(Sighting {
                peer: peer(WHAT, "peer", &sighting.peer)?,
                boot: BootId::read(sighting.boot).ok_or(DecodeError::Field {
                    what: WHAT,
                    field: "boot",
                })?,
                outlived: outlived.filter_map(BootId::read).collect(),
            })
        });
        let copied = wire.copied.into_iter().map(|copied| {
            Ok(Copied {
                peer: peer(WHAT, "peer", &copied.peer)?,
                age_ms: copied.age_ms,
            })
        });
        Ok(Self {
            certificates: wire.certificates,
            revocations: wire.revocations,
            statements: wire.statements,
            addresses: addresses.collect::<Result<_, DecodeError>>()?,
            last: last.collect::<Result<_, DecodeError>>()?,
            boot: BootId::read(wire.boot),
            sightings: sightings.collect::<Result<_, DecodeError>>()?,
            copied: copied.collect::<Result<_, DecodeError>>()?,
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
            boot: field(self.boot),
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
            boot,
        } = decode(WHAT, bytes)?;
        Ok(Self {
            received_us,
            sent_us,
            boot: BootId::read(boot),
        })
    }
}

fn field(boot: Option<BootId>) -> u64 {
    boot.map_or(0, |boot| boot.0.get())
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
    #[prost(fixed64, tag = "5")]
    boot: u64,
    #[prost(message, repeated, tag = "6")]
    sightings: Vec<WireSighting>,
    #[prost(message, repeated, tag = "7")]
    copied: Vec<WireCopied>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    statements: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSighting {
    #[prost(bytes = "vec", tag = "1")]
    peer: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    boot: u64,
    #[prost(fixed64, repeated, tag = "3")]
    outlived: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCopied {
    #[prost(bytes = "vec", tag = "1")]
    peer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    age_ms: u64,
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
    #[prost(fixed64, tag = "3")]
    boot: u64,
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
            statements: vec![vec![5]],
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
            boot: Some(BootId::new(7)),
            sightings: vec![Sighting {
                peer,
                boot: BootId::new(u64::MAX),
                outlived: vec![BootId::new(8), BootId::new(9)],
            }],
            copied: vec![Copied { peer, age_ms: 10 }],
        };
        let response = Response {
            received_us: 1,
            sent_us: 2,
            boot: Some(BootId::new(3)),
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
        let sighting = Sighting {
            peer,
            boot: BootId::new(1),
            outlived: vec![],
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
                    statements: vec![vec![]; 768 + more],
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
                Request {
                    sightings: vec![sighting.clone(); 256 + more],
                    ..Request::default()
                },
                Request {
                    copied: vec![Copied { peer, age_ms: 0 }; 256 + more],
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
