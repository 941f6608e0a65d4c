//! How a member gets another name, and who is called what: the certificate is issued again with the
//! new name, and history keeps the earlier ones.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use super::inviting::name_is_taken;
use crate::{
    proto::mesh::{NodeName, certificate::Certificate},
    state::{
        State,
        changes::Mesh,
        io::{Failure, Now, Reply, RequestId},
        report,
    },
};

impl State {
    /// Gives a member, or this node itself, another name.
    pub(in crate::state) fn rename(
        &mut self,
        request: RequestId,
        peer: Option<String>,
        name: &str,
        now: Now,
    ) {
        let text = peer.unwrap_or_else(|| self.own.peer.to_string());
        let renamed = match self.check_rename(&text, name, now) {
            Ok(renamed) => renamed,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let (report, certificate) = renamed;
        let reply = Reply::Renamed(report);
        // Doing the same thing twice is harmless.
        let Some(certificate) = certificate else {
            return self.effects.reply(request, reply);
        };
        let records = self.records_of(&certificate);
        let change = Mesh::Certificate(certificate).into();
        self.change(Some((request, reply)), records, change);
    }

    /// Returns what is said of it, and the new certificate unless the member has that name already.
    fn check_rename(
        &self,
        text: &str,
        name: &str,
        now: Now,
    ) -> Result<(report::Renamed, Option<Certificate>), Failure> {
        let what = "rename members";
        self.require_mesh_key(what)?;
        let name = NodeName::chosen(name).map_err(|e| Failure::bad_request(format!("{e}")))?;
        let known = self.terms_of(text)?;
        let report = report::Renamed {
            peer_id: known.peer,
            was: known.name.to_string(),
            name: name.to_string(),
            warning: self.name_warning(&name),
        };
        if known.name == name {
            return Ok((report, None));
        }
        if self.membership.is_name_given(&name, now) {
            return Err(name_is_taken(&name));
        }
        let certificate = self.issue_again(text, what, now, |terms| terms.name = name)?;
        Ok((report, Some(certificate)))
    }

    /// Returns what a member or this node is called, if it is one of them.
    pub(super) fn called(&self, peer: &PeerId) -> Option<String> {
        if *peer == self.own.peer {
            return Some(self.membership.own_terms().name.to_string());
        }
        let terms = self.membership.terms(peer);
        terms.map(|terms| terms.name.to_string())
    }

    /// Remembers what a member is called, on disk, too.
    pub(super) fn note_name(&mut self, peer: PeerId, name: String) {
        if let Some(record) = self.names.note(peer, &name) {
            self.effects.store(vec![record], None);
        }
    }

    /// Remembers what all members are called, those that were removed too.
    pub(in crate::state) fn note_all_names(&mut self) {
        let members = self.membership.members.values();
        let all = members
            .chain([&self.membership.own])
            .map(Certificate::terms);
        let all: Vec<(PeerId, String)> = all
            .map(|terms| (terms.peer, terms.name.to_string()))
            .collect();
        let records = all
            .into_iter()
            .filter_map(|(peer, name)| self.names.note(peer, &name));
        let records: Vec<_> = records.collect();
        if !records.is_empty() {
            self.effects.store(records, None);
        }
    }

    pub(in crate::state) fn report_names(&self) -> Vec<report::Names> {
        let members = self.membership.members().map(|(peer, _)| peer);
        let members: BTreeSet<PeerId> = members.chain([self.own.peer]).collect();
        let mut names = self.names.report();
        for names in &mut names {
            names.member = members.contains(&names.peer_id);
        }
        names
    }
}
