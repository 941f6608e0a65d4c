//! The membership that a node starts with: the one on its disk, or a mesh of one.

use std::collections::BTreeMap;

use super::{Goodbyes, Membership, certificate_end};
use crate::{
    proto::{
        iid::Index,
        mesh::{
            certificate::{Certificate, CertificateError, MeshId, MeshKey, Revocation, Terms},
            statement::Statement,
            vouched::Vouched,
        },
    },
    state::{
        Effects, StartError,
        io::{Loaded, Now, Record},
        own::Own,
    },
};

impl Membership {
    pub(in crate::state) fn load(
        own: &Own,
        key: Option<MeshKey>,
        key_exported: bool,
        loaded: &Loaded,
        effects: &mut Effects,
        now: Now,
    ) -> Result<Self, StartError> {
        let membership = match &loaded.certificate {
            Some(bytes) => Self::stored(own, key, bytes, loaded)?,
            None => Self::begin(own, key, effects, now)?,
        };
        Ok(Self {
            key_exported,
            ..membership
        })
    }

    /// Takes the mesh that is on disk.
    fn stored(
        own: &Own,
        key: Option<MeshKey>,
        bytes: &[u8],
        loaded: &Loaded,
    ) -> Result<Self, StartError> {
        let damaged = |what: String| StartError::Membership(what);
        let mesh = Certificate::mesh_of(bytes).map_err(|e| damaged(e.to_string()))?;
        let certificate = Certificate::decode(bytes, &mesh).map_err(|e| damaged(e.to_string()))?;
        if certificate.terms().peer != own.peer {
            return Err(StartError::OtherNode(certificate.terms().peer));
        }
        if certificate.terms().messaging_key != *own.key.public() {
            return Err(StartError::OtherMessagingKey);
        }
        let mut membership = Self {
            mesh,
            invites: loaded
                .invites
                .iter()
                .map(|i| (i.secret_hash, i.clone()))
                .collect(),
            ticket_ends: BTreeMap::new(),
            ..Self::alone(mesh, key.filter(|key| key.mesh() == mesh), certificate)
        };
        // What a mesh that was left told at the last moment may still have been written.
        let is_foreign = |error: &CertificateError| *error == CertificateError::ForeignMesh;
        for bytes in &loaded.revocations {
            match Revocation::decode(bytes, &mesh) {
                Ok(revocation) => {
                    membership.revocations.insert(revocation.peer(), revocation);
                }
                Err(error) if is_foreign(&error) => {}
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        for bytes in &loaded.members {
            match Certificate::decode(bytes, &mesh) {
                Ok(member) => {
                    membership.members.insert(member.terms().peer, member);
                }
                Err(error) if is_foreign(&error) => {}
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        for bytes in &loaded.statements {
            match Statement::decode(bytes, &mesh) {
                Ok(statement) => {
                    membership.learn_statement(statement);
                }
                Err(error) if is_foreign(&error) => {
                    membership.goodbyes.add_stored(bytes, &own.peer);
                }
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        Ok(membership)
    }

    /// Begins a mesh of one.
    fn begin(
        own: &Own,
        key: Option<MeshKey>,
        effects: &mut Effects,
        now: Now,
    ) -> Result<Self, StartError> {
        let key = key.ok_or(StartError::NoMeshKey)?;
        let certificate = key.issue(Terms {
            peer: own.peer,
            messaging_key: *own.key.public(),
            name: own.wish().clone(),
            index: Index(1),
            vouched: Vouched::ALL,
            issued_ms: now.unix_ms(),
            expires_ms: certificate_end(now),
        });
        effects.store(
            vec![Record::JoinedMesh {
                certificate: certificate.encode(),
            }],
            None,
        );
        Ok(Self::alone(key.mesh(), Some(key), certificate))
    }

    /// A mesh with this node as its only member.
    pub(super) const fn alone(mesh: MeshId, key: Option<MeshKey>, own: Certificate) -> Self {
        Self {
            mesh,
            key,
            key_exported: false,
            own,
            members: BTreeMap::new(),
            revocations: BTreeMap::new(),
            statements: BTreeMap::new(),
            invites: BTreeMap::new(),
            ticket_ends: BTreeMap::new(),
            goodbyes: Goodbyes::none(),
        }
    }
}
