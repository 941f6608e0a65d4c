//! What this node still says in meshes that it has left: that it left. Members that did not hear it
//! go on dialling this node, and are told when they do.
//!
//! On disk a goodbye is written together with the membership that replaces the one it ends, so no
//! power cut comes between the two.

use libp2p_identity::PeerId;

use super::{Certificate, MeshId};
use crate::{
    proto::mesh::statement::{Says, Statement},
    state::io::Record,
};

/// Most meshes that were left and whose members are still told so; the oldest gives way. A node that
/// moves house once a month tells those of the last half year.
pub(in crate::state) const GOODBYES_MAX: usize = 8;

/// The goodbyes are stored in their order beside the statements about members, under numbers from this one on, which
/// are of no kind. A program that does not know them passes over statements of another mesh.
const STORED_FROM: u8 = 128;

/// That this node left, for each mesh that it left; the oldest first.
#[derive(Clone)]
pub(super) struct Goodbyes(Vec<Goodbye>);

#[derive(Clone)]
struct Goodbye {
    mesh: MeshId,
    left: Statement,
}

impl Goodbyes {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds an encoded statement that was stored, if it is such a goodbye: of this node, and good.
    pub(super) fn add_stored(&mut self, bytes: &[u8], own: &PeerId) {
        let Some(mesh) = Statement::mesh_of_left(bytes) else {
            return;
        };
        if let Ok(left) = Statement::decode(bytes, &mesh)
            && left.peer() == *own
            && *left.says() == Says::Left
        {
            self.add(mesh, left);
        }
    }

    /// Adds the goodbye for a mesh, in the place of an earlier one. Their order is the one in which
    /// they were said, whatever the clock was then.
    pub(super) fn add(&mut self, mesh: MeshId, left: Statement) {
        self.0.retain(|known| known.mesh != mesh);
        self.0.push(Goodbye { mesh, left });
        let too_many = self.0.len().saturating_sub(GOODBYES_MAX);
        self.0.drain(..too_many);
    }

    /// Takes out the goodbye for a mesh that this node enters again.
    pub(super) fn without(mut self, mesh: &MeshId) -> Self {
        self.0.retain(|known| known.mesh != *mesh);
        self
    }

    /// Returns what this node said when it left this mesh.
    pub(super) fn to_mesh(&self, mesh: &MeshId) -> Option<&Statement> {
        let known = self.0.iter().find(|known| known.mesh == *mesh);
        known.map(|known| &known.left)
    }

    /// Returns what to tell a peer that shows a certificate of a mesh that was left. Nobody else is
    /// told anything.
    pub(super) fn to_member(&self, peer: &PeerId, certificate: &[u8]) -> Option<&Statement> {
        let mesh = Certificate::mesh_of(certificate).ok()?;
        let left = self.to_mesh(&mesh)?;
        let certificate = Certificate::decode(certificate, &mesh).ok()?;
        (certificate.terms().peer == *peer).then_some(left)
    }

    /// Returns the records that keep the goodbyes, to be written behind a new membership.
    pub(super) fn records(&self) -> Vec<Record> {
        let numbered = (STORED_FROM..).zip(&self.0);
        let record = |(kind, goodbye): (u8, &Goodbye)| Record::Statement {
            kind,
            peer: goodbye.left.peer(),
            statement: goodbye.left.encode(),
        };
        numbered.map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        iid::Index,
        mesh::{
            certificate::{MeshKey, Terms},
            peer_of_seed,
            vouched::Vouched,
        },
        syft::SigningKey,
    };

    #[test]
    fn the_one_that_was_said_last_stays_whatever_the_clock_said() {
        let own = SigningKey::from_seed(&[1; 32]);
        let mut goodbyes = Goodbyes::none();
        let meshes: Vec<MeshId> = (0..=8)
            .map(|number: u8| {
                let key = MeshKey::from_seed(&[number; 32]);
                let certificate = key.issue(Terms {
                    peer: peer_of_seed(1),
                    messaging_key: *own.public(),
                    name: "pi-1".parse().expect("a name"),
                    index: Index(1),
                    vouched: Vouched::NONE,
                    issued_ms: 1,
                    expires_ms: 10_000,
                });
                // The clock goes back each time.
                let at_ms = 1_000 - u64::from(number);
                goodbyes.add(key.mesh(), Statement::left(&certificate, at_ms, &own));
                key.mesh()
            })
            .collect();

        let is_told: Vec<bool> = meshes
            .iter()
            .map(|mesh| goodbyes.to_mesh(mesh).is_some())
            .collect();
        assert_eq!(
            is_told,
            [[false].as_slice(), &[true; GOODBYES_MAX]].concat()
        );
    }
}
