//! Who is a member: what is known of certificates, revocations and invites, and what it permits.
//!
//! Specified in `proto-specs/mesh.md`, "Membership". A statement is believed for the mesh key's
//! signature and never for the peer that brought it.

mod believing;
mod giving;
mod goodbyes;
mod indices;
mod inviting;
mod issuing;
mod joining;
mod leaving;
mod loading;
mod moving;
mod removing;
mod renaming;
mod sharing;
mod stating;
mod tickets;
mod vouching;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use self::goodbyes::Goodbyes;
use super::{
    CLOCK_SET_MS, State,
    io::{Failure, InboundId, Invite, NetOutput, Now},
    millis,
};
use crate::proto::{
    iid::Index,
    mesh::{
        NodeName,
        certificate::{Certificate, CertificateError, MeshId, MeshKey, Revocation, Terms},
        statement::{Kind, Statement},
        sync::{MEMBERS_MAX, REVOCATIONS_MAX},
    },
};

#[cfg(test)]
pub(super) use self::goodbyes::GOODBYES_MAX;
pub use self::inviting::Wanted;
pub(super) use self::{
    inviting::Welcoming, joining::Entering, leaving::Leaving, moving::UnderWay, sharing::KeyComing,
    tickets::Cancelling,
};

/// How long a certificate is good: ten years. A mesh at home must not fall apart because nobody
/// renewed anything; who has to go is removed.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a ticket is good if nothing else is said.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Most tickets that are open at once, and most cancelled ones that are remembered.
const INVITES_MAX: usize = 64;

/// What is known of the mesh.
pub(super) struct Membership {
    mesh: MeshId,
    key: Option<MeshKey>,
    /// Whether that key was ever exported to a file.
    key_exported: bool,
    own: Certificate,
    members: BTreeMap<PeerId, Certificate>,
    revocations: BTreeMap<PeerId, Revocation>,
    statements: BTreeMap<(Kind, PeerId), Statement>,
    invites: BTreeMap<[u8; 32], Invite>,
    /// When the tickets end that were made in this run.
    ticket_ends: BTreeMap<[u8; 32], Duration>,
    /// What is still said in meshes that this node has left.
    goodbyes: Goodbyes,
}

/// Why a certificate is not good here and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAMember {
    Certificate(CertificateError),
    OtherPeer,
    Expired,
    Revoked,
}

impl NotAMember {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Certificate(error) => error.name(),
            Self::OtherPeer => "other_peer",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What a statement about the mesh changed.
pub(super) enum Learned {
    Nothing,
    Added { name: String, index: Index },
    Renewed,
}

impl Membership {
    /// Returns what to tell a peer that shows a certificate of a mesh that this node has left.
    pub(super) fn goodbye_to(&self, peer: &PeerId, certificate: &[u8]) -> Option<Vec<u8>> {
        let left = self.goodbyes.to_member(peer, certificate);
        left.map(Statement::encode)
    }

    pub(super) const fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    pub(super) const fn own_terms(&self) -> &Terms {
        self.own.terms()
    }

    pub(super) fn own_certificate(&self) -> Vec<u8> {
        self.own.encode()
    }

    pub(super) const fn may_invite(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.ended(self.own.terms())
    }

    /// Returns the members that are not revoked, without this node.
    pub(super) fn members(&self) -> impl Iterator<Item = (PeerId, &Terms)> {
        self.members
            .iter()
            .map(|(peer, certificate)| (*peer, certificate.terms()))
            .filter(|(_, terms)| !self.ended(terms))
    }

    /// Returns what is certified of a member that is not revoked.
    pub(super) fn terms(&self, peer: &PeerId) -> Option<&Terms> {
        let terms = self.members.get(peer).map(Certificate::terms);
        terms.filter(|terms| !self.ended(terms))
    }

    pub(super) fn is_known(&self, peer: &PeerId) -> bool {
        self.terms(peer).is_some()
    }

    /// Says whether there is no place for another member. Those that were removed take none.
    fn is_full(&self) -> bool {
        self.members().count() + 1 >= MEMBERS_MAX
    }

    pub(super) fn is_removed(&self, peer: &PeerId) -> bool {
        self.revocations.contains_key(peer) && !self.is_known(peer)
    }

    /// Says whether a peer is a member here and now: known, not removed, and its time not over. A
    /// connection may outlast the certificate that opened it.
    pub(super) fn is_good(&self, peer: &PeerId, now: Now) -> bool {
        self.terms(peer)
            .is_some_and(|terms| !is_over(terms.expires_ms, now))
    }

    pub(super) fn certificates(&self) -> Vec<Vec<u8>> {
        let others = self.members.values().filter(|c| !self.ended(c.terms()));
        others.chain([&self.own]).map(Certificate::encode).collect()
    }

    /// Returns when the known certificate of a member, or of this node, was issued.
    fn issued_ms(&self, peer: &PeerId) -> Option<u64> {
        let own = self.own.terms();
        let known = self.members.get(peer).map(Certificate::terms);
        let known = known.or_else(|| (own.peer == *peer).then_some(own));
        known.map(|terms| terms.issued_ms)
    }

    pub(super) fn revocation_of(&self, peer: &PeerId) -> Option<Vec<u8>> {
        self.revocations.get(peer).map(Revocation::encode)
    }

    pub(super) fn revocations(&self) -> Vec<Vec<u8>> {
        self.revocations.values().map(Revocation::encode).collect()
    }

    /// Judges the certificate that a peer showed.
    pub(super) fn judge(
        &self,
        bytes: &[u8],
        shown_by: &PeerId,
        now: Now,
    ) -> Result<Certificate, NotAMember> {
        let certificate =
            Certificate::decode(bytes, &self.mesh).map_err(NotAMember::Certificate)?;
        let terms = certificate.terms();
        if terms.peer != *shown_by {
            return Err(NotAMember::OtherPeer);
        }
        if self.ended(terms) {
            return Err(NotAMember::Revoked);
        }
        if is_over(terms.expires_ms, now) {
            return Err(NotAMember::Expired);
        }
        Ok(certificate)
    }

    /// Keeps a certificate if it says something that was not known.
    pub(super) fn learn(&mut self, certificate: Certificate) -> Learned {
        let terms = certificate.terms().clone();
        if self.ended(&terms) {
            return Learned::Nothing;
        }
        if terms.peer == self.own.terms().peer {
            return self.learn_own(certificate);
        }
        let known = self.members.get(&terms.peer);
        let is_newest = known.is_none_or(|known| is_newer(&certificate, known));
        let known = known.map(Certificate::terms);
        if known.is_none() && self.is_full() {
            return Learned::Nothing;
        }
        let was_good = known.is_some_and(|known| !self.ended(known));
        if !is_newest {
            return Learned::Nothing;
        }
        self.members.insert(terms.peer, certificate);
        if was_good {
            Learned::Renewed
        } else {
            Learned::Added {
                name: terms.name.to_string(),
                index: terms.index,
            }
        }
    }

    /// Takes a later certificate of this node, for the same messaging key only: this node has no
    /// other.
    fn learn_own(&mut self, certificate: Certificate) -> Learned {
        let (known, shown) = (self.own.terms(), certificate.terms());
        if !is_newer(&certificate, &self.own) || shown.messaging_key != known.messaging_key {
            return Learned::Nothing;
        }
        self.own = certificate;
        Learned::Renewed
    }

    /// Keeps a revocation if it says something that was not known.
    fn learn_revocation(&mut self, revocation: Revocation) -> bool {
        let known = self.revocations.get(&revocation.peer());
        if known.is_some_and(|known| known.until_ms() >= revocation.until_ms()) {
            return false;
        }
        if known.is_none() && self.revocations.len() >= REVOCATIONS_MAX {
            return false;
        }
        self.revocations.insert(revocation.peer(), revocation);
        true
    }

    fn ended(&self, terms: &Terms) -> bool {
        self.ended_at(&terms.peer, terms.issued_ms)
    }

    /// Says whether what was said of a peer at this time is over: it was removed, or has left, at
    /// that time or later.
    fn ended_at(&self, peer: &PeerId, at_ms: u64) -> bool {
        self.ended_until(peer).is_some_and(|until| at_ms <= until)
    }

    /// Returns until when what was said of a peer is over.
    fn ended_until(&self, peer: &PeerId) -> Option<u64> {
        let removed = self.revocations.get(peer).map(Revocation::until_ms);
        let left = self.statements.get(&(Kind::Left, *peer));
        removed.max(left.map(Statement::at_ms))
    }

    fn is_name_taken(&self, name: &NodeName) -> bool {
        let mut members = self.members().map(|(_, terms)| terms);
        // A name that looks like a peer id would be taken for that peer.
        name.as_str().parse::<PeerId>().is_ok()
            || *name == self.own.terms().name
            || members.any(|terms| terms.name == *name)
    }

    /// Returns the wished name, with a number behind it if a member has it or it is in use otherwise.
    pub(in crate::state) fn free_name(
        &self,
        wished: &NodeName,
        is_used: impl Fn(&NodeName) -> bool,
    ) -> NodeName {
        let is_free = |name: &NodeName| !self.is_name_taken(name) && !is_used(name);
        if is_free(wished) {
            return wished.clone();
        }
        (2..=u32::MAX)
            .map(|number| wished.numbered(number))
            .find(is_free)
            .unwrap_or_else(|| wished.clone())
    }

    /// Says whether a name is that of a member, or one that an open ticket gives.
    fn is_name_given(&self, name: &NodeName, now: Now) -> bool {
        let gives = |invite: &Invite| {
            self.is_open(invite, now) && invite.name.as_deref() == Some(name.as_str())
        };
        self.is_name_taken(name) || self.invites.values().any(gives)
    }
}

impl State {
    /// Returns what a member asks, or ends its request: it is no member any more, or makes no sense.
    pub(super) fn request_of<R, E>(
        &mut self,
        peer: PeerId,
        id: InboundId,
        what: &'static str,
        read: impl FnOnce() -> Result<R, E>,
        now: Now,
    ) -> Option<R> {
        let request = if self.membership.is_good(&peer, self.believed(now)) {
            read().map_err(|_| "malformed")
        } else {
            Err("not_a_member")
        };
        match request {
            Ok(request) => Some(request),
            Err(why) => {
                self.effects.refused(Some(peer), what, why);
                self.effects.net(NetOutput::Refuse { id });
                self.useless(peer, now);
                None
            }
        }
    }

    fn require_mesh_key(&self, what: &str) -> Result<&MeshKey, Failure> {
        if self.under_way.leaving {
            return Err(Failure::conflict("this node is leaving its mesh")
                .with_hint("try again in a few seconds"));
        }
        if self.membership.is_revoked() {
            return Err(Failure::conflict("this node was removed from its mesh")
                .with_hint("`pimesh join TICKET` enters a mesh again"));
        }
        self.membership.key.as_ref().ok_or_else(|| {
            let text = format!("this node cannot {what}: it does not hold the mesh key");
            let holders = self.holder_names();
            Failure::conflict(text).with_hint(if holders.is_empty() {
                "run it on a node that does (`pimesh status` tells), or copy the key here with \
                 `pimesh mesh-key export` and `import`; if it is lost for good, `pimesh leave` makes \
                 a new mesh"
                    .to_owned()
            } else {
                let holders = holders.join("`, `");
                format!(
                    "`{holders}` can; or have the key given to this node there, with `pimesh \
                     mesh-key share {}`",
                    self.membership.own_terms().name
                )
            })
        })
    }
}

/// Says whether a moment has passed. With a clock that is not set, nothing is over.
fn is_over(unix_ms: u64, now: Now) -> bool {
    now.unix_ms() >= CLOCK_SET_MS && unix_ms <= now.unix_ms()
}

/// Returns when a certificate that is issued now ends. An inviter whose clock is not set must not
/// issue certificates that are over before they are used.
fn certificate_end(now: Now) -> u64 {
    now.unix_ms().max(CLOCK_SET_MS) + millis(CERTIFICATE_LIFETIME)
}

/// Says whether a certificate of a member counts instead of another one. Two that were issued at the
/// same time come from two holders of the mesh key; all nodes have to choose the same one.
fn is_newer(certificate: &Certificate, known: &Certificate) -> bool {
    let age = |certificate: &Certificate| (certificate.terms().issued_ms, certificate.encode());
    age(certificate) > age(known)
}
