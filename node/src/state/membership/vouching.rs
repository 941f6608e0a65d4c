//! How this node changes what a member may speak for as a gateway: it issues the member's
//! certificate again.

use super::certificate_end;
use crate::{
    proto::mesh::{
        certificate::{Certificate, Terms},
        vouched::Vouched,
    },
    state::{
        After, State,
        io::{Failure, Now, Reply, RequestId},
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
        match self.reissue(text, vouched, now) {
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

    fn reissue(&self, text: &str, vouched: Vouched, now: Now) -> Result<Certificate, Failure> {
        let key = self.require_mesh_key("say what members vouch for")?;
        let own = self.membership.own_terms();
        let is_own = text == own.name.as_str() || text == own.peer.to_string();
        let peer = if is_own {
            own.peer
        } else {
            self.resolve(text)?
        };
        let known = self.membership.terms(&peer).unwrap_or(own);
        let next = known.issued_ms.checked_add(1).ok_or_else(|| {
            Failure::conflict(format!("no certificate of `{text}` can be later than this"))
        })?;
        // Of two with one index the earlier certificate owns it, and that must not change hands.
        let members = self.membership.members().map(|(_, terms)| terms);
        let is_shared = members
            .chain([own])
            .any(|other| other.peer != peer && other.index == known.index);
        Ok(key.issue(Terms {
            vouched,
            issued_ms: if is_shared {
                next
            } else {
                next.max(now.unix_ms())
            },
            expires_ms: certificate_end(now).max(known.expires_ms),
            ..known.clone()
        }))
    }
}
