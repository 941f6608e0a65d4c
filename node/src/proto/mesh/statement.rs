//! What is said about members beside their certificates: who holds the mesh key, which further
//! indices a member owns, and who has left.
//!
//! Each is signed, so it does not matter through whom it comes, and of two about one member the
//! later one counts. Programs that do not know a statement lose nothing of what they know: nothing
//! in a certificate changes its meaning.

use std::fmt;

use libp2p_identity::PeerId;

use super::{
    DecodeError, array,
    certificate::{Certificate, CertificateError, MeshId, MeshKey},
    decode, peer,
    ranges::{IndexRange, Ranges},
    signed::{Label, Signed, WrongSignature},
};
use crate::proto::syft;

/// Which kind of statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The member holds the mesh key; signed by that key.
    Holder,
    /// The member owns further indices; signed by the mesh key.
    Indices,
    /// The member has left the mesh; signed by its messaging key.
    Left,
}

impl Kind {
    /// Returns the number under which it is stored, which is that of its field in `Statement`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Holder => 1,
            Self::Indices => 2,
            Self::Left => 3,
        }
    }
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// The member holds the mesh key.
    Holder {
        /// Whether it has exported the key to a file.
        exported: bool,
    },
    /// The member owns these indices beside the one in its certificate.
    Indices(Ranges),
    /// The member left: all its certificates that were issued until then are over.
    Left,
}

/// A statement whose signature is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    peer: PeerId,
    at_ms: u64,
    says: Says,
    encoded: Vec<u8>,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("peer", &self.peer)
            .field("at_ms", &self.at_ms)
            .field("says", &self.says)
            .finish_non_exhaustive()
    }
}

const HOLDER: &str = "holder statement";
const INDICES: &str = "indices statement";
const LEFT: &str = "left statement";

impl MeshKey {
    /// States that a member holds this key.
    #[must_use]
    pub fn state_holder(&self, peer: PeerId, exported: bool, at_ms: u64) -> Statement {
        let payload = HolderPayload {
            mesh: self.mesh().as_bytes().to_vec(),
            peer: peer.to_bytes(),
            exported,
            at_ms,
        };
        let signed = self.sign(Label::HOLDER, prost::Message::encode_to_vec(&payload));
        Statement::new(peer, at_ms, Says::Holder { exported }, Wire::Holder(signed))
    }

    /// States which further indices a member owns.
    #[must_use]
    pub fn state_indices(&self, peer: PeerId, ranges: Ranges, at_ms: u64) -> Statement {
        let payload = IndicesPayload {
            mesh: self.mesh().as_bytes().to_vec(),
            peer: peer.to_bytes(),
            ranges: ranges.iter().map(WireRange::of).collect(),
            at_ms,
        };
        let signed = self.sign(Label::INDICES, prost::Message::encode_to_vec(&payload));
        Statement::new(peer, at_ms, Says::Indices(ranges), Wire::Indices(signed))
    }
}

impl Statement {
    /// Longest encoded statement, in bytes: one with a certificate in it has about 500, one with
    /// the most ranges about 350.
    pub const BYTES_MAX: usize = 1024;

    /// States that a node leaves the mesh, with its messaging key.
    #[must_use]
    pub fn left(certificate: &Certificate, at_ms: u64, key: &syft::SigningKey) -> Self {
        let payload = LeftPayload {
            certificate: certificate.encode(),
            at_ms,
        };
        let payload = prost::Message::encode_to_vec(&payload);
        let signature = key.sign(&Label::LEFT.before(&payload)).to_vec();
        let signed = Signed { payload, signature };
        let peer = certificate.terms().peer;
        Self::new(peer, at_ms, Says::Left, Wire::Left(signed))
    }

    fn new(peer: PeerId, at_ms: u64, says: Says, wire: Wire) -> Self {
        let encoded = prost::Message::encode_to_vec(&WireStatement { kind: Some(wire) });
        Self {
            peer,
            at_ms,
            says,
            encoded,
        }
    }

    /// Decodes a statement and verifies its signature.
    ///
    /// # Errors
    /// Returns what is wrong with it; of a kind that is not known, that its field is missing.
    pub fn decode(bytes: &[u8], mesh: &MeshId) -> Result<Self, CertificateError> {
        const WHAT: &str = "statement";
        super::at_most(WHAT, "bytes", bytes.len(), Self::BYTES_MAX)?;
        let wire: WireStatement = decode(WHAT, bytes)?;
        let kind = wire.kind.ok_or(DecodeError::Field {
            what: WHAT,
            field: "kind",
        })?;
        let (peer, at_ms, says) = match &kind {
            Wire::Holder(signed) => {
                let payload: HolderPayload = decode(HOLDER, &signed.payload)?;
                check(mesh, &payload.mesh, signed, Label::HOLDER)?;
                let exported = payload.exported;
                let peer = peer(HOLDER, "peer", &payload.peer)?;
                (peer, payload.at_ms, Says::Holder { exported })
            }
            Wire::Indices(signed) => {
                let payload: IndicesPayload = decode(INDICES, &signed.payload)?;
                check(mesh, &payload.mesh, signed, Label::INDICES)?;
                let peer = peer(INDICES, "peer", &payload.peer)?;
                (peer, payload.at_ms, Says::Indices(payload.ranges()?))
            }
            Wire::Left(signed) => {
                let payload: LeftPayload = decode(LEFT, &signed.payload)?;
                let certificate = Certificate::decode(&payload.certificate, mesh)?;
                let terms = certificate.terms();
                let signature = array(LEFT, "signature", &signed.signature)?;
                terms
                    .messaging_key
                    .verify(&Label::LEFT.before(&signed.payload), &signature)
                    .map_err(|_| WrongSignature)?;
                (terms.peer, payload.at_ms, Says::Left)
            }
        };
        Ok(Self::new(peer, at_ms, says, kind))
    }

    /// Returns the mesh of the certificate in a statement that a member left; believes nothing yet.
    #[must_use]
    pub fn mesh_of_left(bytes: &[u8]) -> Option<MeshId> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let wire: WireStatement = decode(LEFT, bytes).ok()?;
        let Some(Wire::Left(signed)) = wire.kind else {
            return None;
        };
        let payload: LeftPayload = decode(LEFT, &signed.payload).ok()?;
        Certificate::mesh_of(&payload.certificate).ok()
    }

    /// Encodes the statement, with the very payload that was signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encoded.clone()
    }

    /// Returns the member that it is about.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns when it was made, Unix ms. Of two of one kind about one member the later one counts.
    #[must_use]
    pub const fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Returns what it says.
    #[must_use]
    pub const fn says(&self) -> &Says {
        &self.says
    }

    /// Returns its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.says {
            Says::Holder { .. } => Kind::Holder,
            Says::Indices(_) => Kind::Indices,
            Says::Left => Kind::Left,
        }
    }
}

/// Checks that a payload is of this mesh and signed by its key.
fn check(mesh: &MeshId, of: &[u8], signed: &Signed, label: Label) -> Result<(), CertificateError> {
    if of != mesh.as_bytes() {
        return Err(CertificateError::ForeignMesh);
    }
    Ok(mesh.verify(label, signed)?)
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct WireStatement {
    #[prost(oneof = "Wire", tags = "1, 2, 3")]
    kind: Option<Wire>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Wire {
    #[prost(message, tag = "1")]
    Holder(Signed),
    #[prost(message, tag = "2")]
    Indices(Signed),
    #[prost(message, tag = "3")]
    Left(Signed),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HolderPayload {
    #[prost(bytes = "vec", tag = "1")]
    mesh: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    peer: Vec<u8>,
    #[prost(bool, tag = "3")]
    exported: bool,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct IndicesPayload {
    #[prost(bytes = "vec", tag = "1")]
    mesh: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    peer: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    ranges: Vec<WireRange>,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
}

impl IndicesPayload {
    fn ranges(&self) -> Result<Ranges, DecodeError> {
        let illegal = || DecodeError::Field {
            what: INDICES,
            field: "ranges",
        };
        let range = |range: &WireRange| IndexRange::new(range.first, range.last);
        let ranges = self.ranges.iter().map(range);
        let ranges: Option<Vec<IndexRange>> = ranges.collect();
        Ranges::new(ranges.ok_or_else(illegal)?).map_err(|_| illegal())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct WireRange {
    #[prost(sint32, tag = "1")]
    first: i32,
    #[prost(sint32, tag = "2")]
    last: i32,
}

impl WireRange {
    const fn of(range: IndexRange) -> Self {
        let bounds = range.bounds();
        Self {
            first: *bounds.start(),
            last: *bounds.end(),
        }
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct LeftPayload {
    #[prost(bytes = "vec", tag = "1")]
    certificate: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        iid::Index,
        mesh::{certificate::Terms, peer_of_seed, vouched::Vouched},
    };

    fn key() -> MeshKey {
        MeshKey::from_seed(&[1; 32])
    }

    fn certificate() -> Certificate {
        key().issue(Terms {
            peer: peer_of_seed(5),
            messaging_key: *syft::SigningKey::from_seed(&[7; 32]).public(),
            name: "x".repeat(63).parse().expect("a legal name"),
            index: Index(1),
            vouched: Vouched::ALL,
            issued_ms: u64::MAX,
            expires_ms: u64::MAX,
        })
    }

    fn all() -> [Statement; 3] {
        let ranges: Vec<String> = (0..16)
            .map(|n| format!("{0}..{0}", 1_000_000 + n * 2))
            .collect();
        let ranges = ranges.join(",").parse().expect("legal");
        [
            key().state_holder(peer_of_seed(5), true, u64::MAX),
            key().state_indices(peer_of_seed(5), ranges, u64::MAX),
            Statement::left(
                &certificate(),
                u64::MAX,
                &syft::SigningKey::from_seed(&[7; 32]),
            ),
        ]
    }

    #[test]
    fn every_statement_says_after_the_journey_what_was_stated() {
        for statement in all() {
            let read = Statement::decode(&statement.encode(), &key().mesh());
            let mesh = Statement::mesh_of_left(&statement.encode());

            let is_left = *statement.says() == Says::Left;
            assert_eq!(mesh, is_left.then(|| key().mesh()));
            assert_eq!(read, Ok(statement));
        }
    }

    #[test]
    fn a_statement_with_any_byte_changed_or_cut_is_refused() {
        for statement in all() {
            let bytes = statement.encode();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let read = Statement::decode(&changed, &key().mesh());
                assert!(read.is_err(), "{statement:?}: byte {at} changed");
                let read = Statement::decode(&bytes[..at], &key().mesh());
                assert!(read.is_err(), "{statement:?}: cut at {at}");
            }
        }
    }

    #[test]
    fn a_statement_of_another_mesh_and_one_of_a_later_kind_are_refused() {
        let other = MeshKey::from_seed(&[2; 32]).mesh();
        for statement in all() {
            let read = Statement::decode(&statement.encode(), &other);
            assert_eq!(read, Err(CertificateError::ForeignMesh));
        }
        let later = [0x22, 0x00];
        assert!(matches!(
            Statement::decode(&later, &key().mesh()),
            Err(CertificateError::Decode(DecodeError::Field { .. }))
        ));
    }

    #[test]
    fn nobody_but_the_member_itself_says_that_it_left() {
        let other = syft::SigningKey::from_seed(&[8; 32]);
        let forged = Statement::left(&certificate(), 1, &other);

        let read = Statement::decode(&forged.encode(), &key().mesh());

        assert_eq!(read, Err(CertificateError::Signature(WrongSignature)));
    }
}
