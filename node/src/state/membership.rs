//! Who is a member: certificates, revocations, invites, and how this node enters a mesh.
//!
//! Specified in `proto-specs/mesh.md`, "Membership". A statement is believed for the mesh key's
//! signature and never for the peer that brought it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{
    After, Asked, CLOCK_SET_MS, Effects, Own, StartError, State,
    io::{
        Connection, Event, Failure, InboundId, Invite, Loaded, NetOutput, Now, Opening, Record,
        Reply, RequestId,
    },
    millis, not_stored, report,
};
use crate::proto::{
    iid::Index,
    mesh::{
        Address, NodeName,
        certificate::{Certificate, CertificateError, MeshId, MeshKey, Revocation, Terms},
        member::{Join, Refusal, Request, Response, Welcome},
        sync::{MEMBERS_MAX, REVOCATIONS_MAX},
        ticket::{Secret, Ticket},
    },
};

/// How long a certificate is good: ten years. A mesh at home must not fall apart because nobody
/// renewed anything; who has to go is removed.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a ticket is good if nothing else is said.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Longest time a ticket may be good: a week, for a Pi that travels by post.
const INVITE_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Most tickets that are open at once.
const INVITES_MAX: usize = 64;

/// How long `join` tries to reach the inviter.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// How long `join` waits between two dials.
const JOIN_REDIAL: Duration = Duration::from_secs(2);

/// What is known of the mesh.
pub(super) struct Membership {
    mesh: MeshId,
    key: Option<MeshKey>,
    own: Certificate,
    members: BTreeMap<PeerId, Certificate>,
    revocations: BTreeMap<PeerId, Revocation>,
    invites: BTreeMap<[u8; 32], Invite>,
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
    pub(super) fn load(
        own: &Own,
        key: Option<MeshKey>,
        loaded: &Loaded,
        effects: &mut Effects,
        now: Now,
    ) -> Result<Self, StartError> {
        let Some(bytes) = &loaded.certificate else {
            return Self::begin(own, key, effects, now);
        };
        let damaged = |what: String| StartError::Membership(what);
        let mesh = Certificate::mesh_of(bytes).map_err(|e| damaged(e.to_string()))?;
        let certificate = Certificate::decode(bytes, &mesh).map_err(|e| damaged(e.to_string()))?;
        if certificate.terms().peer != own.peer {
            return Err(StartError::OtherNode(certificate.terms().peer));
        }
        let mut membership = Self {
            mesh,
            key: key.filter(|key| key.mesh() == mesh),
            own: certificate,
            members: BTreeMap::new(),
            revocations: BTreeMap::new(),
            invites: loaded
                .invites
                .iter()
                .map(|i| (i.secret_hash, i.clone()))
                .collect(),
        };
        for bytes in &loaded.revocations {
            let revocation =
                Revocation::decode(bytes, &mesh).map_err(|e| damaged(e.to_string()))?;
            membership.revocations.insert(revocation.peer(), revocation);
        }
        for bytes in &loaded.members {
            let member = Certificate::decode(bytes, &mesh).map_err(|e| damaged(e.to_string()))?;
            membership.members.insert(member.terms().peer, member);
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
            name: own.name.clone(),
            index: Index(1),
            vouched: None,
            issued_ms: now.unix_ms(),
            expires_ms: certificate_end(now),
        });
        effects.store(
            vec![Record::JoinedMesh {
                certificate: certificate.encode(),
            }],
            None,
        );
        Ok(Self {
            mesh: key.mesh(),
            key: Some(key),
            own: certificate,
            members: BTreeMap::new(),
            revocations: BTreeMap::new(),
            invites: BTreeMap::new(),
        })
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

    pub(super) fn open_invites(&self, now: Now) -> usize {
        self.invites
            .values()
            .filter(|i| i.used_by.is_none() && i.expires_ms > now.unix_ms())
            .count()
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
        let known = self.members.get(&terms.peer).map(Certificate::terms);
        if known.is_none() && self.is_full() {
            return Learned::Nothing;
        }
        let was_good = known.is_some_and(|known| !self.ended(known));
        if known.is_some_and(|known| known.issued_ms >= terms.issued_ms) {
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
        if shown.issued_ms <= known.issued_ms || shown.messaging_key != known.messaging_key {
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
        self.revocations
            .get(&terms.peer)
            .is_some_and(|revocation| revocation.ends(terms))
    }

    /// Says whether a node may speak for an index: its own, or natively none but its own, and as
    /// a gateway those it vouches for. Of two certificates with one index the earlier one owns it.
    pub(super) fn may_speak(&self, peer: &PeerId, index: Index, bridged: bool) -> bool {
        let own = self.own.terms();
        let Some(terms) = (if *peer == own.peer {
            Some(own)
        } else {
            self.terms(peer)
        }) else {
            return false;
        };
        if bridged {
            return terms
                .vouched
                .as_ref()
                .is_some_and(|range| range.contains(&index.0));
        }
        if terms.index != index {
            return false;
        }
        let rank = |terms: &Terms| (terms.issued_ms, terms.peer);
        let others = self.members().map(|(_, terms)| terms).chain([own]);
        !others
            .filter(|other| other.index == index)
            .any(|other| rank(other) < rank(terms))
    }

    fn names_and_indices(&self) -> impl Iterator<Item = (&str, Index)> {
        let members = self
            .members()
            .map(|(_, terms)| terms)
            .chain([self.own.terms()]);
        members.map(|terms| (terms.name.as_str(), terms.index))
    }

    fn is_name_taken(&self, name: &NodeName) -> bool {
        self.names_and_indices()
            .any(|(taken, _)| taken == name.as_str())
    }

    fn is_index_taken(&self, index: Index, now: Now) -> bool {
        let vouched = self
            .members()
            .map(|(_, terms)| terms)
            .chain([self.own.terms()]);
        let mut vouched = vouched.filter_map(|terms| terms.vouched.clone());
        self.names_and_indices().any(|(_, taken)| taken == index)
            || vouched.any(|range: RangeInclusive<i32>| range.contains(&index.0))
            || self.invites.values().any(|invite| {
                invite.index == index
                    && invite.used_by.is_none()
                    && invite.expires_ms > now.unix_ms()
            })
    }

    fn free_index(&self, now: Now) -> Option<Index> {
        (1..=i32::MAX)
            .map(Index)
            .find(|&index| !self.is_index_taken(index, now))
    }

    fn free_name(&self, wished: &NodeName) -> NodeName {
        if !self.is_name_taken(wished) {
            return wished.clone();
        }
        (2..=u32::MAX)
            .map(|number| wished.numbered(number))
            .find(|name| !self.is_name_taken(name))
            .unwrap_or_else(|| wished.clone())
    }

    /// Removes invites whose time is over. A used one stays until then, so that the peer which
    /// missed the answer can ask again.
    fn forget_old_invites(&mut self, now: Now) -> Vec<Record> {
        let over: Vec<[u8; 32]> = self
            .invites
            .values()
            .filter(|i| i.expires_ms <= now.unix_ms())
            .map(|i| i.secret_hash)
            .collect();
        for secret_hash in &over {
            self.invites.remove(secret_hash);
        }
        over.into_iter()
            .map(|secret_hash| Record::ForgetInvite { secret_hash })
            .collect()
    }
}

/// An entry into a mesh that is under way.
pub(super) struct Joining {
    request: RequestId,
    ticket: Ticket,
    deadline: Duration,
    redial: Duration,
    last_error: Option<String>,
}

impl Joining {
    pub(super) fn deadline(&self) -> Duration {
        self.deadline.min(self.redial)
    }
}

/// A membership that is on its way to the disk.
pub(super) struct Entering {
    request: RequestId,
    connection: Connection,
    own: Certificate,
    inviter: Certificate,
}

/// A new member that is on its way to the disk.
pub(super) struct Welcoming {
    connection: Connection,
    inbound: InboundId,
    certificate: Certificate,
    earlier: Option<Invite>,
}

impl State {
    pub(super) fn invite(
        &mut self,
        request: RequestId,
        name: Option<String>,
        index: Option<Index>,
        lifetime: Option<Duration>,
        now: Now,
    ) {
        match self.make_invite(name, index, lifetime, now) {
            Ok((ticket, invite, mut records)) => {
                let reply = report::Invite {
                    ticket: ticket.to_text().to_string(),
                    name: invite.name.clone(),
                    index: invite.index,
                    expires_ms: invite.expires_ms,
                };
                self.membership
                    .invites
                    .insert(invite.secret_hash, invite.clone());
                records.push(Record::Invite(invite));
                let after = After::Reply(request, Reply::Invited(reply));
                self.effects.store(records, Some(after));
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn make_invite(
        &mut self,
        name: Option<String>,
        index: Option<Index>,
        lifetime: Option<Duration>,
        now: Now,
    ) -> Result<(Ticket, Invite, Vec<Record>), Failure> {
        self.require_mesh_key("invite")?;
        let lifetime = lifetime.unwrap_or(INVITE_LIFETIME);
        if lifetime.is_zero() || lifetime > INVITE_LIFETIME_MAX {
            return Err(Failure::bad_request("a ticket is good for at most 7 days"));
        }
        let name = name
            .map(|name| name.parse::<NodeName>())
            .transpose()
            .map_err(|e| Failure::bad_request(e.to_string()))?;
        if let Some(name) = name
            .as_ref()
            .filter(|name| self.membership.is_name_taken(name))
        {
            return Err(Failure::conflict(format!(
                "a member is named `{name}` already"
            )));
        }
        if self.membership.is_full() {
            let text = format!("a mesh has at most {MEMBERS_MAX} members");
            return Err(Failure::conflict(text));
        }
        let records = self.membership.forget_old_invites(now);
        if self.membership.open_invites(now) >= INVITES_MAX {
            return Err(Failure::conflict(format!(
                "{INVITES_MAX} tickets are open already"
            )));
        }
        let index = match index {
            Some(index) if self.membership.is_index_taken(index, now) => {
                return Err(Failure::conflict(format!("index {index} is taken")));
            }
            Some(index) => index,
            None => self
                .membership
                .free_index(now)
                .ok_or_else(|| Failure::conflict("every index is taken"))?,
        };
        let secret = Secret::new(self.effects.random());
        let expires_ms = now.unix_ms() + millis(lifetime);
        let invite = Invite {
            secret_hash: secret.hash(),
            expires_ms,
            name: name.map(|name| name.to_string()),
            index,
            used_by: None,
        };
        let addresses: Vec<Address> = self.own.addresses.clone();
        let ticket = Ticket {
            mesh: *self.membership.mesh(),
            inviter: self.own.peer,
            addresses,
            secret,
            expires_ms,
        };
        Ok((ticket, invite, records))
    }

    fn require_mesh_key(&self, what: &str) -> Result<&MeshKey, Failure> {
        if self.membership.is_revoked() {
            return Err(Failure::conflict("this node was removed from its mesh")
                .with_hint("`pimesh join TICKET` enters a mesh again"));
        }
        self.membership.key.as_ref().ok_or_else(|| {
            Failure::conflict(format!(
                "this node cannot {what}: it does not hold the mesh key"
            ))
            .with_hint(
                "run it on a node that does (`pimesh status` tells), or copy the key here \
                     with `pimesh mesh-key export` and `import`",
            )
        })
    }

    /// Takes a member out of the mesh.
    pub(super) fn remove(&mut self, request: RequestId, text: &str, now: Now) {
        let (peer, revocation) = match self.make_revocation(text, now) {
            Ok(made) => made,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let removed = report::Removed {
            name: self.name_of(&peer),
            peer_id: peer,
            dropped_messages: self.messages.count_for(&peer),
        };
        let bytes = revocation.encode();
        let after = After::Reply(request, Reply::Removed(removed));
        self.revoke(revocation, Some(after), now);
        self.tell_everybody(vec![], vec![bytes], now);
    }

    fn make_revocation(&self, text: &str, now: Now) -> Result<(PeerId, Revocation), Failure> {
        let key = self.require_mesh_key("remove members")?;
        let own = self.membership.own_terms();
        if text == own.name.as_str() || text.parse().is_ok_and(|peer: PeerId| peer == own.peer) {
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

    /// Believes a revocation: keeps it, hangs up, gives up what waits for the peer.
    fn revoke(&mut self, revocation: Revocation, after: Option<After>, now: Now) -> bool {
        let peer = revocation.peer();
        let name = self.name_of(&peer);
        let was_member = self.membership.is_known(&peer);
        let was_revoked = self.membership.is_revoked();
        let record = Record::Revocation {
            peer,
            revocation: revocation.encode(),
        };
        if !self.membership.learn_revocation(revocation) {
            return false;
        }
        self.effects.store(vec![record], after);
        if self.membership.is_revoked() && !was_revoked {
            self.effects.event(Event::Revoked);
            self.close_all("this node was removed from the mesh");
        }
        if was_member && !self.membership.is_known(&peer) {
            self.close_peer(&peer, "removed from the mesh");
            self.peers.forget(&peer);
            self.give_up_messages_to(peer, "removed", now);
            self.effects.event(Event::MemberRemoved { peer, name });
        }
        true
    }

    /// Learns what another member told; returns what was new, to be told on.
    pub(super) fn learn_statements(
        &mut self,
        certificates: Vec<Vec<u8>>,
        revocations: Vec<Vec<u8>>,
        now: Now,
    ) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mesh = *self.membership.mesh();
        // Mostly all of it is known; comparing costs far less than verifying a signature.
        let known: BTreeSet<Vec<u8>> = self.membership.revocations().into_iter().collect();
        let mut new_revocations = Vec::new();
        for bytes in revocations {
            if known.contains(&bytes) {
                continue;
            }
            match Revocation::decode(&bytes, &mesh) {
                Ok(revocation) => {
                    if self.revoke(revocation, None, now) {
                        new_revocations.push(bytes);
                    }
                }
                Err(error) => self.effects.refused(None, "revocation", error.name()),
            }
        }
        let known: BTreeSet<Vec<u8>> = self.membership.certificates().into_iter().collect();
        let mut new_certificates = Vec::new();
        for bytes in certificates {
            if known.contains(&bytes) {
                continue;
            }
            match Certificate::decode(&bytes, &mesh) {
                Ok(certificate) => {
                    if self.keep_certificate(certificate, now) {
                        new_certificates.push(bytes);
                    }
                }
                Err(error) => self.effects.refused(None, "certificate", error.name()),
            }
        }
        (new_certificates, new_revocations)
    }

    /// Keeps a certificate if it is new, and gets to know the member.
    pub(super) fn keep_certificate(&mut self, certificate: Certificate, now: Now) -> bool {
        let peer = certificate.terms().peer;
        let encoded = certificate.encode();
        let record = if peer == self.own.peer {
            Record::JoinedMesh {
                certificate: encoded,
            }
        } else {
            Record::Member {
                peer,
                certificate: encoded,
            }
        };
        match self.membership.learn(certificate) {
            Learned::Nothing => return false,
            // Renewal of the own certificate is not a new mesh: keep it in memory, and on disk as
            // soon as the mesh tells it again after a restart.
            Learned::Renewed if peer == self.own.peer => return true,
            Learned::Renewed => {}
            Learned::Added { name, index } => {
                self.peers.add(peer, now);
                self.effects.event(Event::MemberAdded { peer, name, index });
                self.dial_due(now);
            }
        }
        self.effects.store(vec![record], None);
        true
    }

    /// Answers a peer that came with a ticket.
    pub(super) fn join_requested(
        &mut self,
        connection: Connection,
        inbound: InboundId,
        peer: PeerId,
        join: &Join,
        now: Now,
    ) {
        match self.redeem(peer, join, now) {
            Ok((certificate, invite)) => {
                let earlier = self
                    .membership
                    .invites
                    .insert(invite.secret_hash, invite.clone());
                let records = vec![
                    Record::Invite(invite),
                    Record::Member {
                        peer,
                        certificate: certificate.encode(),
                    },
                ];
                let welcome = Welcoming {
                    connection,
                    inbound,
                    certificate,
                    earlier,
                };
                self.effects
                    .store(records, Some(After::Welcome(Box::new(welcome))));
            }
            Err((refusal, why)) => {
                self.effects.refused(Some(peer), "ticket", why);
                let bytes = Response::Refused(refusal).encode();
                self.effects.net(NetOutput::MemberRespond {
                    connection,
                    id: inbound,
                    bytes,
                });
            }
        }
    }

    /// Turns a ticket's secret into a certificate.
    fn redeem(
        &mut self,
        peer: PeerId,
        join: &Join,
        now: Now,
    ) -> Result<(Certificate, Invite), (Refusal, &'static str)> {
        let proof = Join::proof_payload(&peer, &join.secret);
        if join.messaging_key.verify(&proof, &join.proof).is_err() {
            return Err((Refusal::NotAMember, "wrong_proof"));
        }
        let unknown = (Refusal::TicketUnknown, "unknown");
        let key = self.membership.key.clone().ok_or(unknown)?;
        // Looked up by hash, so the time it takes says nothing about the secret.
        let mut invite = self
            .membership
            .invites
            .get(&join.secret.hash())
            .cloned()
            .ok_or(unknown)?;
        if invite.used_by.is_some_and(|used_by| used_by != peer) {
            return Err((Refusal::TicketUnknown, "used"));
        }
        if invite.expires_ms <= now.unix_ms() {
            return Err((Refusal::TicketExpired, "expired"));
        }
        if self.membership.is_revoked() {
            return Err((Refusal::NotAMember, "revoked"));
        }
        let earlier = self.membership.members.get(&peer).filter(|c| {
            invite.used_by == Some(peer) && c.terms().messaging_key == join.messaging_key
        });
        if let Some(certificate) = earlier.filter(|c| !self.membership.ended(c.terms())) {
            return Ok((certificate.clone(), invite));
        }
        if self.membership.is_full() {
            return Err((Refusal::MeshFull, "mesh_full"));
        }
        let given = invite.name.as_ref().and_then(|name| name.parse().ok());
        let name = self
            .membership
            .free_name(given.as_ref().unwrap_or(&join.name));
        let after = self
            .membership
            .revocations
            .get(&peer)
            .map_or(0, |r| r.until_ms() + 1);
        let known = self
            .membership
            .members
            .get(&peer)
            .map_or(0, |c| c.terms().issued_ms + 1);
        invite.used_by = Some(peer);
        let certificate = key.issue(Terms {
            peer,
            messaging_key: join.messaging_key,
            name,
            index: invite.index,
            vouched: None,
            issued_ms: now.unix_ms().max(after).max(known),
            expires_ms: certificate_end(now),
        });
        Ok((certificate, invite))
    }

    pub(super) fn welcome_stored(&mut self, welcome: Welcoming, now: Now) {
        let Welcoming {
            connection,
            inbound,
            certificate,
            ..
        } = welcome;
        let encoded = certificate.encode();
        let peer = certificate.terms().peer;
        if let Learned::Added { name, index } = self.membership.learn(certificate) {
            self.peers.add(peer, now);
            self.effects.event(Event::MemberAdded { peer, name, index });
        }
        let bytes = Response::Welcome(Welcome {
            certificate: encoded.clone(),
            inviter: self.membership.own_certificate(),
        })
        .encode();
        self.links.answered(connection);
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Inbound,
        });
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id: inbound,
            bytes,
        });
        self.tell_everybody(vec![encoded], vec![], now);
    }

    pub(super) fn welcome_not_stored(&mut self, welcome: Welcoming) {
        let Welcoming {
            connection,
            inbound,
            earlier,
            ..
        } = welcome;
        if let Some(invite) = earlier {
            self.membership.invites.insert(invite.secret_hash, invite);
        }
        let bytes = Response::Refused(Refusal::TryAgain).encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id: inbound,
            bytes,
        });
    }

    /// Begins to enter a mesh.
    pub(super) fn join(&mut self, request: RequestId, text: &str, now: Now) {
        let ticket = match self.check_join(text, now) {
            Ok(ticket) => ticket,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let (peer, addresses) = (ticket.inviter, ticket.addresses.clone());
        self.joining = Some(Joining {
            request,
            ticket,
            deadline: now.mono + JOIN_TIME,
            redial: now.mono + JOIN_REDIAL,
            last_error: None,
        });
        self.effects.net(NetOutput::Dial {
            peer,
            addresses,
            fresh: true,
        });
    }

    fn check_join(&self, text: &str, now: Now) -> Result<Ticket, Failure> {
        let ticket = Ticket::from_text(text).map_err(|e| {
            Failure::bad_request(format!("could not read the ticket: {e}"))
                .with_hint("`pimesh invite` on a member prints one; copy all of it")
        })?;
        if self.joining.is_some() {
            return Err(Failure::conflict("this node is joining a mesh already"));
        }
        if ticket.inviter == self.own.peer {
            return Err(
                Failure::bad_request("this ticket was made by this very node")
                    .with_hint("use it on the machine that is to join"),
            );
        }
        let others = self.membership.members().count();
        if others > 0 && !self.membership.is_revoked() {
            let text = format!("this node is in a mesh with {others} other members already");
            return Err(Failure::conflict(text).with_hint(
                "start a second node with another `--home`, or have this one removed first \
                 (`pimesh peers remove` on another member)",
            ));
        }
        if is_over(ticket.expires_ms, now) {
            return Err(Failure::conflict("the ticket's time is over")
                .with_hint("make another with `pimesh invite`; check both clocks"));
        }
        if ticket.addresses.is_empty() {
            return Err(Failure::bad_request(
                "the ticket names no address of the inviter",
            ));
        }
        Ok(ticket)
    }

    /// Returns the encoded request to send on a connection to the inviter, if we are joining.
    pub(super) fn join_request(&self, peer: &PeerId) -> Option<Vec<u8>> {
        let joining = self
            .joining
            .as_ref()
            .filter(|j| j.ticket.inviter == *peer)?;
        let secret = joining.ticket.secret.clone();
        let proof = self
            .own
            .key
            .sign(&Join::proof_payload(&self.own.peer, &secret));
        let join = Join {
            secret,
            name: self.own.name.clone(),
            messaging_key: *self.own.key.public(),
            proof,
        };
        Some(Request::Join(Box::new(join)).encode())
    }

    /// Notes why a dial to the inviter failed; returns whether it was one.
    pub(super) fn join_dial_failed(&mut self, peer: &PeerId, reason: &str) -> bool {
        let Some(joining) = self.joining.as_mut().filter(|j| j.ticket.inviter == *peer) else {
            return false;
        };
        joining.last_error = Some(reason.to_owned());
        true
    }

    pub(super) fn give_up_joining(&mut self, now: Now) {
        let Some(joining) = &mut self.joining else {
            return;
        };
        if joining.deadline <= now.mono {
            let why = joining
                .last_error
                .take()
                .unwrap_or_else(|| "no answer".to_owned());
            let failure = Failure::unavailable(format!("could not reach the inviter: {why}"))
                .with_hint(
                    "is `pimesh run` running there, and are both machines in one network? \
                     `pimesh doctor` on both checks",
                );
            return self.end_joining(failure);
        }
        if joining.redial <= now.mono {
            joining.redial = now.mono + JOIN_REDIAL;
            let (peer, addresses) = (joining.ticket.inviter, joining.ticket.addresses.clone());
            if !self.links.any_with(&peer) {
                self.effects.net(NetOutput::Dial {
                    peer,
                    addresses,
                    fresh: false,
                });
            }
        }
    }

    fn end_joining(&mut self, failure: Failure) {
        if let Some(joining) = self.joining.take() {
            self.effects.fail(joining.request, failure);
        }
    }

    pub(super) fn join_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        _now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        let Some(joining) = self.joining.as_mut().filter(|j| j.ticket.inviter == peer) else {
            return;
        };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(reason) => {
                joining.last_error = Some(reason);
                return self.close(connection, "join failed");
            }
        };
        let (request, ticket) = (joining.request, joining.ticket.clone());
        match self.check_welcome(&bytes, &ticket) {
            Ok((own, inviter)) => {
                // A peer that was alone leaves its mesh of one behind; its key goes with it.
                let records = vec![
                    Record::JoinedMesh {
                        certificate: own.encode(),
                    },
                    Record::Member {
                        peer,
                        certificate: inviter.encode(),
                    },
                    Record::Addresses {
                        peer,
                        addresses: ticket.addresses,
                    },
                ];
                let entering = Entering {
                    request,
                    connection,
                    own,
                    inviter,
                };
                self.effects
                    .store(records, Some(After::Joined(Box::new(entering))));
            }
            Err(failure) => {
                self.close(connection, "join refused");
                self.end_joining(failure);
            }
        }
    }

    fn check_welcome(
        &self,
        bytes: &[u8],
        ticket: &Ticket,
    ) -> Result<(Certificate, Certificate), Failure> {
        let welcome = match Response::decode(bytes) {
            Ok(Response::Welcome(welcome)) => welcome,
            Ok(Response::Refused(refusal)) => return Err(explain(refusal)),
            Ok(Response::Hello(_) | Response::Ok | Response::Revoked(_)) | Err(_) => {
                return Err(
                    Failure::unavailable("the inviter gave an answer that means nothing")
                        .with_hint("do both machines run the same version of pimesh?"),
                );
            }
        };
        let unfit = |_| Failure::unavailable("the inviter sent a certificate that is not good");
        let own = Certificate::decode(&welcome.certificate, &ticket.mesh).map_err(unfit)?;
        let inviter = Certificate::decode(&welcome.inviter, &ticket.mesh).map_err(unfit)?;
        let fits = own.terms().peer == self.own.peer
            && own.terms().messaging_key == *self.own.key.public()
            && inviter.terms().peer == ticket.inviter;
        if !fits {
            return Err(Failure::unavailable(
                "the inviter sent somebody else's certificate",
            ));
        }
        Ok((own, inviter))
    }

    pub(super) fn join_stored(&mut self, entering: Entering, now: Now) {
        let Entering {
            request,
            connection,
            own,
            inviter,
        } = entering;
        let addresses = self
            .joining
            .take()
            .map(|joining| joining.ticket.addresses)
            .unwrap_or_default();
        let terms = own.terms().clone();
        let inviter_terms = inviter.terms().clone();
        let mesh = Certificate::mesh_of(&own.encode()).unwrap_or(self.membership.mesh);
        self.membership = Membership {
            mesh,
            key: None,
            own,
            members: BTreeMap::from([(inviter_terms.peer, inviter)]),
            revocations: BTreeMap::new(),
            invites: BTreeMap::new(),
        };
        self.keys.forget_all();
        self.peers.add(inviter_terms.peer, now);
        self.peers.add_addresses(&inviter_terms.peer, addresses);
        self.effects.event(Event::Joined {
            mesh: self.membership.mesh.to_string(),
            name: terms.name.to_string(),
        });
        let (peer, index) = (inviter_terms.peer, inviter_terms.index);
        let name = inviter_terms.name.to_string();
        self.effects.event(Event::MemberAdded {
            peer,
            name: name.clone(),
            index,
        });
        self.effects.reply(
            request,
            Reply::Joined(report::Joined {
                mesh: self.membership.mesh.to_string(),
                name: terms.name.to_string(),
                index: terms.index,
                members: vec![name],
            }),
        );
        self.open_as_dialler(connection);
    }

    pub(super) fn join_not_stored(&mut self, entering: Entering, reason: &str, _now: Now) {
        self.close(entering.connection, "could not store the membership");
        self.joining = None;
        self.effects.fail(entering.request, not_stored(reason));
    }

    /// Sends `Ready` on a connection that is open on our side.
    pub(super) fn open_as_dialler(&mut self, connection: Connection) {
        self.links.asked(connection);
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Both,
        });
        let id = self.effects.ask(Asked::Ready(connection));
        let bytes = Request::Ready.encode();
        self.effects.net(NetOutput::MemberRequest {
            connection,
            id,
            bytes,
        });
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

fn explain(refusal: Refusal) -> Failure {
    let another = "make another with `pimesh invite` on a member";
    match refusal {
        Refusal::TicketExpired => Failure::conflict("the ticket's time is over").with_hint(another),
        Refusal::TicketUnknown => {
            Failure::conflict("the inviter does not know the ticket, or it was used already")
                .with_hint(another)
        }
        Refusal::TryAgain => Failure::unavailable("the inviter cannot take a member right now"),
        Refusal::MeshFull => {
            Failure::conflict(format!("the mesh has its {MEMBERS_MAX} members already"))
        }
        Refusal::NotAMember | Refusal::OtherConnection => {
            Failure::conflict("the inviter refused the ticket").with_hint(another)
        }
    }
}
