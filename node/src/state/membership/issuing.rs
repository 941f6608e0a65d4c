//! How this node changes what a member's certificate says: it issues it again (`CERT-AGAIN`).

use super::certificate_end;
use crate::{
    proto::mesh::{
        certificate::{Certificate, Terms},
        parse_peer,
    },
    state::{
        State,
        io::{Failure, Now},
    },
};

impl State {
    /// Finds a member, or this node itself, by name or peer id.
    pub(super) fn terms_of(&self, text: &str) -> Result<&Terms, Failure> {
        let own = self.membership.own_terms();
        let as_peer = parse_peer(text);
        if as_peer.map_or(text == own.name.as_str(), |peer| peer == own.peer) {
            return Ok(own);
        }
        let peer = self.resolve(text)?;
        Ok(self.membership.terms(&peer).unwrap_or(own))
    }

    /// Issues a member's certificate again with these changes; `what` this node would do.
    pub(super) fn issue_again(
        &self,
        text: &str,
        what: &str,
        now: Now,
        change: impl FnOnce(&mut Terms),
    ) -> Result<Certificate, Failure> {
        let key = self.require_mesh_key(what)?;
        let known = self.terms_of(text)?;
        let next = known.issued_ms.checked_add(1).ok_or_else(|| {
            Failure::conflict(format!("no certificate of `{text}` can be later than this"))
        })?;
        // One more, and not the time of now: a removal that this node has not heard of ends what was
        // issued before it, and of two with one index the earlier certificate owns it.
        let mut terms = Terms {
            issued_ms: next,
            expires_ms: certificate_end(now).max(known.expires_ms),
            ..known.clone()
        };
        change(&mut terms);
        Ok(key.issue(terms))
    }
}
