//! How this node gives a member further indices, or takes them back: it states all that the member
//! owns beside the index in its certificate (`INDEX-GIVEN`).

use super::stating::statement_record;
use crate::{
    proto::mesh::{
        ranges::{IndexRange, Ranges},
        statement::Statement,
    },
    state::{
        State,
        changes::Mesh,
        io::{Failure, Now, Reply, RequestId},
        report,
    },
};

impl State {
    /// States which further indices a member owns, in the place of those that it owned.
    pub(in crate::state) fn give_indices(
        &mut self,
        request: RequestId,
        text: &str,
        further: Ranges,
        now: Now,
    ) {
        match self.make_indices(text, further, now) {
            Ok((given, statement)) => {
                let records = vec![statement_record(&statement)];
                let change = Mesh::Statement(statement).into();
                let reply = Reply::IndicesGiven(given);
                self.change(Some((request, reply)), records, change);
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn make_indices(
        &self,
        text: &str,
        further: Ranges,
        now: Now,
    ) -> Result<(report::GivenIndices, Statement), Failure> {
        let key = self.require_mesh_key("give indices to members")?;
        let terms = self.terms_of(text)?;
        let peer = terms.peer;
        if further.contains(terms.index) {
            return Err(Failure::bad_request(format!(
                "index {} is that of `{}` already, by its certificate",
                terms.index, terms.name
            ))
            .with_hint("name the further ones only"));
        }
        let wanted: Vec<_> = further.iter().map(IndexRange::bounds).collect();
        if let Some(conflict) = self.membership.conflict_but(Some(&peer), &wanted, now) {
            return Err(Failure::conflict(conflict).with_hint(
                "`pimesh peers` shows whose each index is, `pimesh invite --list` the open tickets",
            ));
        }
        let after = self.membership.next_indices_ms(&peer);
        let after = after.ok_or_else(|| {
            Failure::conflict(format!(
                "no statement about `{text}` can be later than this"
            ))
        })?;
        let at_ms = now.unix_ms().max(after).max(terms.issued_ms);
        let given = report::GivenIndices {
            name: terms.name.to_string(),
            peer_id: peer,
            index: terms.index,
            further: further.clone(),
        };
        Ok((given, key.state_indices(peer, further, at_ms)))
    }
}
