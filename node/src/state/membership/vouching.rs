//! How this node changes what a member may speak for as a gateway: it issues the member's
//! certificate again.

use crate::{
    proto::mesh::{certificate::Terms, vouched::Vouched},
    state::{
        State,
        changes::Mesh,
        io::{Now, Reply, RequestId},
        report,
    },
};

impl State {
    /// Issues a member's certificate again, with another range.
    pub(in crate::state) fn vouch(
        &mut self,
        request: RequestId,
        text: &str,
        vouched: Vouched,
        now: Now,
    ) {
        let change = |terms: &mut Terms| terms.vouched = vouched;
        match self.issue_again(text, "say what members vouch for", now, change) {
            Ok(certificate) => {
                let terms = certificate.terms();
                let reply = Reply::Vouched(report::Vouched {
                    name: terms.name.to_string(),
                    peer_id: terms.peer,
                    vouched,
                    certificate_expires_ms: terms.expires_ms,
                });
                let records = self.records_of(&certificate);
                let change = Mesh::Certificate(certificate).into();
                self.change(Some((request, reply)), records, change);
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }
}
