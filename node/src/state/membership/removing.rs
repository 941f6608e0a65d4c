//! Taking a member out of the mesh.

use libp2p_identity::PeerId;

use super::believing::revocation_record;
use crate::{
    proto::mesh::{certificate::Revocation, parse_peer, statement::Kind, sync::REVOCATIONS_MAX},
    state::{
        State,
        changes::Mesh,
        io::{Failure, Now, Reply, RequestId},
        report,
    },
};

impl State {
    /// Takes a member out of the mesh.
    pub(in crate::state) fn remove(&mut self, request: RequestId, text: &str, now: Now) {
        let (peer, revocation) = match self.make_revocation(text, now) {
            Ok(made) => made,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let removed = report::Removed {
            name: self.name_of(&peer),
            peer_id: peer,
            dropped_messages: self.messages.count_for(&peer),
            held_mesh_key: self.membership.said(Kind::Holder, &peer).is_some(),
        };
        let records = vec![revocation_record(&revocation)];
        let change = Mesh::Revocation(revocation).into();
        self.change(Some((request, Reply::Removed(removed))), records, change);
    }

    fn make_revocation(&self, text: &str, now: Now) -> Result<(PeerId, Revocation), Failure> {
        let key = self.require_mesh_key("remove members")?;
        let own = self.membership.own_terms();
        if text == own.name.as_str() || parse_peer(text) == Some(own.peer) {
            return Err(Failure::bad_request("a node cannot remove itself")
                .with_hint("run it on another node that holds the mesh key"));
        }
        let peer = self.resolve(text)?;
        if self.membership.revocations.len() >= REVOCATIONS_MAX {
            return Err(Failure::conflict(format!(
                "{REVOCATIONS_MAX} members were removed from this mesh already"
            ))
            .with_hint(
                "begin a new mesh: start a node with a fresh home, and let the others join",
            ));
        }
        let issued_ms = self
            .membership
            .terms(&peer)
            .map_or(0, |terms| terms.issued_ms);
        Ok((peer, key.revoke(peer, issued_ms.max(now.unix_ms()))))
    }
}
