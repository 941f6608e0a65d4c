//! How this node changes what a member may speak for as a gateway: it issues the member's
//! certificate again.

use crate::{
    proto::mesh::{certificate::Terms, vouched::Vouched},
    state::{
        After, State,
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
                let encoded = certificate.encode();
                let after = After::Reply(request, reply);
                self.keep_certificate(certificate, Some(after), now);
                self.tell_everybody(vec![encoded], vec![], now);
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }
}
