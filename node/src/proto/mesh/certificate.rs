//! Who is a member of the mesh, and who no longer is: statements signed by the mesh key.
//!
//! The public half of the mesh key *is* the name of the mesh. A certificate binds a peer id to a
//! messaging key, a name, an index and, for a gateway, a range of indices it vouches for. A
//! revocation ends every certificate of a peer that was issued up to a moment; a certificate
//! issued later is good again.

use std::fmt;

use ed25519_dalek::{SigningKey, VerifyingKey};
use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use super::{
    DecodeError, NodeName, array, decode, peer,
    signed::{Label, Signed, WrongSignature},
    vouched::Vouched,
};
use crate::proto::{iid::Index, syft};

/// The name of a mesh: the public half of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MeshId(VerifyingKey);

impl MeshId {
    /// Takes 32 bytes.
    ///
    /// # Errors
    /// Returns [`DecodeError::Field`] if they are no usable Ed25519 public key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let illegal = DecodeError::Field {
            what: "mesh id",
            field: "key",
        };
        let key = VerifyingKey::from_bytes(&array("mesh id", "key", bytes)?)
            .map_err(|_| illegal.clone())?;
        if key.is_weak() {
            return Err(illegal);
        }
        Ok(Self(key))
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl MeshId {
    /// Verifies that the mesh key signed this.
    pub(super) fn verify(&self, label: Label, signed: &Signed) -> Result<(), WrongSignature> {
        signed.verify(label, &self.0)
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({self})")
    }
}

/// The key that says who is a member. Whoever has it can invite and remove.
#[derive(Clone)]
pub struct MeshKey(SigningKey);

impl MeshKey {
    /// Makes the key of 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the 32 secret bytes.
    #[must_use]
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the name of the mesh that this key rules.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        MeshId(self.0.verifying_key())
    }

    /// Signs another payload than a certificate or a revocation.
    pub(super) fn sign(&self, label: Label, payload: Vec<u8>) -> Signed {
        Signed::sign(label, payload, &self.0)
    }

    /// Issues a certificate.
    #[must_use]
    pub fn issue(&self, terms: Terms) -> Certificate {
        let payload = CertificatePayload::of(&self.mesh(), &terms);
        let payload = prost::Message::encode_to_vec(&payload);
        let signed = Signed::sign(Label::CERTIFICATE, payload, &self.0);
        Certificate { terms, signed }
    }

    /// Ends every certificate of `peer` that was issued at `until_ms` or before.
    #[must_use]
    pub fn revoke(&self, peer: PeerId, until_ms: u64) -> Revocation {
        let payload = RevocationPayload {
            mesh: self.mesh().as_bytes().to_vec(),
            peer: peer.to_bytes(),
            until_ms,
        };
        let payload = prost::Message::encode_to_vec(&payload);
        Revocation {
            peer,
            until_ms,
            signed: Signed::sign(Label::REVOCATION, payload, &self.0),
        }
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshKey(of {})", self.mesh())
    }
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The member.
    pub peer: PeerId,
    /// The key that signs and opens its direct messages.
    pub messaging_key: syft::PublicKey,
    /// Its name.
    pub name: NodeName,
    /// The index it owns.
    pub index: Index,
    /// The indices it vouches for: those of clients behind its gateways.
    pub vouched: Vouched,
    /// When it was issued, Unix ms. Of two certificates of one peer the later one counts.
    pub issued_ms: u64,
    /// When it ends, Unix ms.
    pub expires_ms: u64,
}

/// A certificate whose signature is the mesh key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    terms: Terms,
    signed: Signed,
}

/// Why a certificate or a revocation is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The bytes say nothing legal.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It belongs to another mesh.
    #[error("it belongs to another mesh")]
    ForeignMesh,
    /// The mesh key did not sign it.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
}

impl CertificateError {
    /// Returns a short constant for counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Decode(_) => "malformed",
            Self::ForeignMesh => "foreign_mesh",
            Self::Signature(_) => "wrong_signature",
        }
    }
}

impl Certificate {
    /// Longest encoded certificate, in bytes: names, keys and signature come to about 250.
    pub const BYTES_MAX: usize = 512;

    /// Decodes a certificate and verifies that the mesh key signed it.
    ///
    /// Expiry and revocation depend on the time and on what else is known: the caller judges them.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn decode(bytes: &[u8], mesh: &MeshId) -> Result<Self, CertificateError> {
        super::at_most("certificate", "bytes", bytes.len(), Self::BYTES_MAX)?;
        let signed = Signed::decode(bytes)?;
        let payload: CertificatePayload = decode(CERTIFICATE, &signed.payload)?;
        if payload.mesh != mesh.as_bytes() {
            return Err(CertificateError::ForeignMesh);
        }
        signed.verify(Label::CERTIFICATE, &mesh.0)?;
        Ok(Self {
            terms: payload.into_terms()?,
            signed,
        })
    }

    /// Returns what mesh a certificate claims to belong to, before anything is believed.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the bytes are no certificate.
    pub fn mesh_of(bytes: &[u8]) -> Result<MeshId, DecodeError> {
        let signed = Signed::decode(bytes)?;
        let payload: CertificatePayload = decode(CERTIFICATE, &signed.payload)?;
        MeshId::from_bytes(&payload.mesh)
    }

    /// Encodes the certificate, with the very payload that was signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.signed.encode()
    }

    /// Returns what it says.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns itself as the pair that other messages carry.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

/// A revocation whose signature is the mesh key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    peer: PeerId,
    until_ms: u64,
    signed: Signed,
}

impl Revocation {
    /// Longest encoded revocation, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Decodes a revocation and verifies that the mesh key signed it.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn decode(bytes: &[u8], mesh: &MeshId) -> Result<Self, CertificateError> {
        super::at_most("revocation", "bytes", bytes.len(), Self::BYTES_MAX)?;
        let signed = Signed::decode(bytes)?;
        let payload: RevocationPayload = decode(REVOCATION, &signed.payload)?;
        if payload.mesh != mesh.as_bytes() {
            return Err(CertificateError::ForeignMesh);
        }
        signed.verify(Label::REVOCATION, &mesh.0)?;
        let peer = peer(REVOCATION, "peer", &payload.peer)?;
        Ok(Self {
            peer,
            until_ms: payload.until_ms,
            signed,
        })
    }

    /// Encodes the revocation, with the very payload that was signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.signed.encode()
    }

    /// Returns whose certificates it ends.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns the last moment of issue that it covers, Unix ms.
    #[must_use]
    pub const fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Says whether it ends this certificate.
    #[must_use]
    pub fn ends(&self, terms: &Terms) -> bool {
        self.peer == terms.peer && terms.issued_ms <= self.until_ms
    }
}

const CERTIFICATE: &str = "certificate";
const REVOCATION: &str = "revocation";

#[derive(Clone, PartialEq, prost::Message)]
struct CertificatePayload {
    #[prost(bytes = "vec", tag = "1")]
    mesh: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    peer: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    messaging_key: Vec<u8>,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(sint32, tag = "5")]
    index: i32,
    #[prost(sint32, optional, tag = "6")]
    vouched_first: Option<i32>,
    #[prost(sint32, optional, tag = "7")]
    vouched_last: Option<i32>,
    #[prost(uint64, tag = "8")]
    issued_ms: u64,
    #[prost(uint64, tag = "9")]
    expires_ms: u64,
}

impl CertificatePayload {
    fn of(mesh: &MeshId, terms: &Terms) -> Self {
        Self {
            mesh: mesh.as_bytes().to_vec(),
            peer: terms.peer.to_bytes(),
            messaging_key: terms.messaging_key.as_bytes().to_vec(),
            name: terms.name.as_str().to_owned(),
            index: terms.index.0,
            vouched_first: terms.vouched.ends().map(|(first, _)| first),
            vouched_last: terms.vouched.ends().map(|(_, last)| last),
            issued_ms: terms.issued_ms,
            expires_ms: terms.expires_ms,
        }
    }

    fn into_terms(self) -> Result<Terms, DecodeError> {
        let illegal = |field| DecodeError::Field {
            what: CERTIFICATE,
            field,
        };
        let vouched = match (self.vouched_first, self.vouched_last) {
            (None, None) => Vouched::NONE,
            (Some(first), Some(last)) => {
                Vouched::range(first, last).ok_or_else(|| illegal("vouched"))?
            }
            _ => return Err(illegal("vouched")),
        };
        let messaging_key = array(CERTIFICATE, "messaging_key", &self.messaging_key)?;
        Ok(Terms {
            peer: peer(CERTIFICATE, "peer", &self.peer)?,
            messaging_key: syft::PublicKey::from_bytes(&messaging_key)
                .map_err(|_| illegal("messaging_key"))?,
            name: self.name.parse().map_err(|_| illegal("name"))?,
            index: Index(self.index),
            vouched,
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct RevocationPayload {
    #[prost(bytes = "vec", tag = "1")]
    mesh: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    peer: Vec<u8>,
    #[prost(uint64, tag = "3")]
    until_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            peer: crate::proto::mesh::peer_of_seed(5),
            messaging_key: *syft::SigningKey::from_seed(&[7; 32]).public(),
            name: "pi-1".parse().expect("a legal name"),
            index: Index(1),
            vouched: Vouched::range(300, 399).expect("legal"),
            issued_ms: 1_000,
            expires_ms: 2_000,
        }
    }

    #[test]
    fn a_certificate_says_after_the_journey_what_was_issued() {
        let key = MeshKey::from_seed(&[1; 32]);
        let issued = key.issue(terms());

        let read = Certificate::decode(&issued.encode(), &key.mesh());

        assert_eq!(read, Ok(issued));
    }

    #[test]
    fn a_certificate_of_another_mesh_is_refused() {
        let issued = MeshKey::from_seed(&[1; 32]).issue(terms());
        let other = MeshKey::from_seed(&[2; 32]).mesh();

        let read = Certificate::decode(&issued.encode(), &other);

        assert_eq!(read, Err(CertificateError::ForeignMesh));
    }

    #[test]
    fn a_certificate_with_any_byte_changed_or_cut_is_refused() {
        let key = MeshKey::from_seed(&[1; 32]);
        let bytes = key.issue(terms()).encode();

        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(
                Certificate::decode(&changed, &key.mesh()).is_err(),
                "byte {at} changed"
            );
            assert!(
                Certificate::decode(&bytes[..at], &key.mesh()).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_signature_over_a_revocation_is_none_over_a_certificate() {
        let key = MeshKey::from_seed(&[1; 32]);
        let certificate = key.issue(terms());
        let crossed = Signed::sign(Label::REVOCATION, certificate.signed.payload, &key.0);

        let read = Certificate::decode(&crossed.encode(), &key.mesh());

        assert_eq!(read, Err(CertificateError::Signature(WrongSignature)));
    }

    #[test]
    fn a_revocation_ends_what_was_issued_until_then_and_nothing_later() {
        let key = MeshKey::from_seed(&[1; 32]);
        let mut terms = terms();
        let revocation = key.revoke(terms.peer, 1_000);

        assert_eq!(
            Revocation::decode(&revocation.encode(), &key.mesh()),
            Ok(revocation.clone())
        );
        assert!(revocation.ends(&terms));
        terms.issued_ms = 1_001;
        assert!(!revocation.ends(&terms));
    }

    #[test]
    fn the_mesh_key_is_not_printed() {
        let key = MeshKey::from_seed(&[0xab; 32]);

        assert!(!format!("{key:?}").contains(&hex::encode([0xab; 8])));
    }
}
