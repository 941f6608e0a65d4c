//! How this node lets others into its mesh: it makes tickets, and certificates for those who bring
//! them.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    INVITE_LIFETIME, INVITES_MAX, Learned, Membership, certificate_end, stating::statement_record,
};
use crate::{
    proto::{
        iid::Index,
        mesh::{
            NodeName,
            certificate::{Certificate, MeshKey, Terms},
            member::{Join, Refusal, Response, Welcome},
            ranges::{IndexRange, Ranges},
            statement::Statement,
            sync::MEMBERS_MAX,
            ticket::{Secret, Ticket},
            vouched::Vouched,
        },
    },
    state::{
        After, State,
        changes::Mesh,
        io::{
            Connection, Event, Failure, InboundId, Invite, NetOutput, Now, Opening, OwnReach,
            Record, Reply, RequestId,
        },
        millis, report,
    },
};

/// Longest time a ticket may be good: a week, for a Pi that travels by post.
const INVITE_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A new member that is on its way to the disk.
pub(in crate::state) struct Welcoming {
    connection: Connection,
    inbound: InboundId,
    certificate: Certificate,
    /// Its further indices, if it is given any.
    indices: Option<Statement>,
    earlier: Option<Invite>,
}

/// Which ticket is asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Wanted {
    /// The new member's name; its own wish if `None`.
    pub name: Option<String>,
    /// Its index; the lowest free one if `None`.
    pub index: Option<Index>,
    /// Further indices that it owns.
    pub further: Ranges,
    /// What it may speak for as a gateway.
    pub vouched: Vouched,
    /// How long the ticket is good; 15 minutes if `None`.
    pub lifetime: Option<Duration>,
}

impl State {
    pub(in crate::state) fn invite(&mut self, request: RequestId, wanted: Wanted, now: Now) {
        match self.make_invite(wanted, now) {
            Ok((ticket, invite, end)) => {
                let warnings = self.ticket_warning().into_iter();
                let warnings: Vec<String> = warnings.chain(self.collisions(&invite)).collect();
                let reply = report::Invite {
                    ticket: ticket.to_text().to_string(),
                    id: invite.short_id(),
                    name: invite.name.clone(),
                    index: invite.index,
                    further: invite.further.clone(),
                    vouched: invite.vouched,
                    expires_ms: invite.expires_ms,
                    warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
                };
                let over = self.membership.old_invites(self.calendar.believed(now));
                let forget = |&secret_hash: &[u8; 32]| Record::ForgetInvite { secret_hash };
                let mut records: Vec<Record> = over.iter().map(forget).collect();
                records.push(Record::Invite(invite.clone()));
                let change = Mesh::Invite { invite, end, over }.into();
                self.change(Some((request, Reply::Invited(reply))), records, change);
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    /// Says what is wrong with where this node can be reached.
    fn ticket_warning(&self) -> Option<String> {
        let why = match self.own.reach() {
            OwnReach::Network => return None,
            OwnReach::Machine => {
                "only addresses of this machine itself, so it is of no use elsewhere"
            }
            OwnReach::Nowhere => "no address, so it is of no use",
        };
        Some(format!(
            "the ticket names {why}; connect this machine to the network (or look at \
             `network.listen`), and make another"
        ))
    }

    /// Says what of a ticket is in use already by somebody behind a gateway. It is given all the same,
    /// because it was asked for.
    fn collisions(&self, invite: &Invite) -> Vec<String> {
        let name = invite.name.as_deref().and_then(|name| name.parse().ok());
        let name = name.and_then(|name| self.name_warning(&name));
        let further = invite.further.iter().map(IndexRange::bounds);
        let used = std::iter::once(invite.index.0..=invite.index.0)
            .chain(further)
            .find_map(|range| self.integers.first_of_clients(range));
        let index = used.map(|index| {
            format!(
                "clients of a gateway speak for index {index}; once the new node has it, their \
                 integers are refused"
            )
        });
        name.into_iter().chain(index).collect()
    }

    /// Says who could be taken for a node of this name.
    pub(super) fn name_warning(&self, name: &NodeName) -> Option<String> {
        self.is_name_in_use(name).then(|| {
            format!(
                "`{name}` is the name, or the end of the name, of users of a gateway or of a \
                 server; where they are known the node is written to as `{name}@{name}`"
            )
        })
    }

    fn make_invite(
        &mut self,
        wanted: Wanted,
        now: Now,
    ) -> Result<(Ticket, Invite, Duration), Failure> {
        let Wanted {
            name,
            index,
            further,
            vouched,
            lifetime,
        } = wanted;
        self.require_mesh_key("invite")?;
        let lifetime = lifetime.unwrap_or(INVITE_LIFETIME);
        if lifetime.is_zero() || lifetime > INVITE_LIFETIME_MAX {
            let got = lifetime.as_secs();
            let text = format!("a ticket is good for 1 s to 7 days, not for {got} s");
            return Err(Failure::bad_request(text).with_hint("`--expires 7d` is the longest"));
        }
        let name = name
            .map(|name| NodeName::chosen(&name))
            .transpose()
            .map_err(|e| Failure::bad_request(e.to_string()))?;
        if let Some(name) = name
            .as_ref()
            .filter(|name| self.membership.is_name_given(name, now))
        {
            return Err(name_is_taken(name));
        }
        if self.membership.is_full() {
            let text = format!("a mesh has at most {MEMBERS_MAX} members");
            return Err(Failure::conflict(text));
        }
        if self.membership.open_invites(now) >= INVITES_MAX {
            return Err(Failure::conflict(format!(
                "{INVITES_MAX} tickets are open already"
            )));
        }
        let is_used = |index| self.integers.is_of_clients(index);
        let index = self
            .membership
            .choose_index(index, &further, is_used, now)?;
        let secret = Secret::new(self.effects.random());
        let expires_ms = now.unix_ms().saturating_add(millis(lifetime));
        let invite = Invite {
            secret_hash: secret.hash(),
            expires_ms,
            name: name.map(|name| name.to_string()),
            index,
            further,
            vouched,
            used_by: None,
            cancelled: false,
        };
        let end = now.mono.saturating_add(lifetime);
        let addresses = self.own.addresses();
        let ticket = Ticket {
            mesh: *self.membership.mesh(),
            inviter: self.own.peer,
            addresses,
            secret,
            expires_ms,
        };
        Ok((ticket, invite, end))
    }

    /// Answers a peer that came with a ticket.
    pub(in crate::state) fn join_requested(
        &mut self,
        connection: Connection,
        inbound: InboundId,
        peer: PeerId,
        join: &Join,
        now: Now,
    ) {
        if self.under_way.leaving {
            // The new membership is on its way to the disk: this one would be written behind it.
            let bytes = Response::Refused(Refusal::TryAgain).encode();
            return self.effects.net(NetOutput::MemberRespond {
                connection,
                id: inbound,
                bytes,
            });
        }
        // Without a good ticket nothing is believed: who was removed could go on telling.
        if self.ticket_of(peer, join, now).is_ok() {
            match self.join_waits(connection, inbound, peer, join) {
                Ok(true) => return,
                Ok(false) => {}
                Err(refusal) => {
                    let bytes = Response::Refused(refusal).encode();
                    return self.effects.net(NetOutput::MemberRespond {
                        connection,
                        id: inbound,
                        bytes,
                    });
                }
            }
            if let Some(left) = &join.left {
                self.joiner_left(connection, peer, left, now);
            }
        }
        match self.redeem(peer, join, now) {
            Ok((certificate, indices, invite)) => {
                let earlier = self
                    .membership
                    .invites
                    .insert(invite.secret_hash, invite.clone());
                let mut records = vec![
                    Record::Invite(invite),
                    Record::Member {
                        peer,
                        certificate: certificate.encode(),
                    },
                ];
                records.extend(indices.as_ref().map(statement_record));
                let welcome = Welcoming {
                    connection,
                    inbound,
                    certificate,
                    indices,
                    earlier,
                };
                self.mesh_is_changing();
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

    /// Returns the ticket that a peer came with, if it is good, and the key that signs for it.
    fn ticket_of(
        &self,
        peer: PeerId,
        join: &Join,
        now: Now,
    ) -> Result<(MeshKey, Invite), (Refusal, &'static str)> {
        let proof = Join::proof_payload(&peer, &join.secret);
        if join.messaging_key.verify(&proof, &join.proof).is_err() {
            return Err((Refusal::NotAMember, "wrong_proof"));
        }
        let unknown = (Refusal::TicketUnknown, "unknown");
        let key = self.membership.key.clone().ok_or(unknown)?;
        // Looked up by hash, so the time it takes says nothing about the secret.
        let invite = self
            .membership
            .invites
            .get(&join.secret.hash())
            .cloned()
            .ok_or(unknown)?;
        if invite.used_by.is_some_and(|used_by| used_by != peer) {
            return Err((Refusal::TicketUnknown, "used"));
        }
        if invite.expires_ms <= self.membership.ticket_ms(&invite, now) {
            return Err((Refusal::TicketExpired, "expired"));
        }
        if invite.cancelled {
            return Err((Refusal::TicketCancelled, "cancelled"));
        }
        Ok((key, invite))
    }

    /// Turns a ticket's secret into a certificate.
    fn redeem(
        &mut self,
        peer: PeerId,
        join: &Join,
        now: Now,
    ) -> Result<(Certificate, Option<Statement>, Invite), (Refusal, &'static str)> {
        let (key, mut invite) = self.ticket_of(peer, join, now)?;
        if self.membership.is_revoked() {
            return Err((Refusal::NotAMember, "revoked"));
        }
        let earlier = self.membership.members.get(&peer).filter(|c| {
            invite.used_by == Some(peer) && c.terms().messaging_key == join.messaging_key
        });
        if let Some(certificate) = earlier.filter(|c| !self.membership.ended(c.terms())) {
            return Ok((certificate.clone(), None, invite));
        }
        // Who was let in with it and is no member any more was removed, or left.
        if invite.used_by.is_some() && !self.membership.is_known(&peer) {
            return Err((Refusal::TicketUnknown, "used"));
        }
        if self.membership.is_full() {
            return Err((Refusal::MeshFull, "mesh_full"));
        }
        let given = invite.name.as_ref().and_then(|name| name.parse().ok());
        // A name that the owner gave is his choice; one that the newcomer wishes is not.
        let name = match given {
            Some(given) => self.membership.free_name(&given, |_| false),
            None => {
                let is_used = |name: &NodeName| self.is_name_in_use(name);
                self.membership.free_name(&join.name, is_used)
            }
        };
        // A member says itself when it left, and may say anything.
        let after = self
            .membership
            .ended_until(&peer)
            .map_or(Some(0), |until| until.checked_add(1));
        let after = after.ok_or((Refusal::NotAMember, "left_for_ever"))?;
        let known = self
            .membership
            .members
            .get(&peer)
            .map_or(Some(0), |c| c.terms().issued_ms.checked_add(1));
        // No later one can be made: an earlier holder of the mesh key used up the last date.
        let known = known.ok_or((Refusal::NotAMember, "certified_for_ever"))?;
        invite.used_by = Some(peer);
        let issued_ms = now.unix_ms().max(after).max(known);
        let further = invite.further.clone();
        // What was stated of it in an earlier membership must not come back.
        let states = !further.is_empty() || self.membership.were_indices_stated(&peer);
        let stated_ms = self.membership.next_indices_ms(&peer).unwrap_or(u64::MAX);
        let stated_ms = stated_ms.max(issued_ms);
        let indices = states.then(|| key.state_indices(peer, further, stated_ms));
        let certificate = key.issue(Terms {
            peer,
            messaging_key: join.messaging_key,
            name,
            index: invite.index,
            vouched: invite.vouched,
            issued_ms,
            expires_ms: certificate_end(now),
        });
        Ok((certificate, indices, invite))
    }

    pub(in crate::state) fn welcome_stored(&mut self, welcome: Welcoming, now: Now) {
        let Welcoming {
            connection,
            inbound,
            certificate,
            indices,
            ..
        } = welcome;
        let encoded = certificate.encode();
        let peer = certificate.terms().peer;
        self.note_name(peer, certificate.terms().name.to_string());
        if let Learned::Added { name, index } = self.membership.learn(certificate) {
            self.peers.add(peer, &mut self.effects, now);
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
        if let Some(indices) = indices {
            let told = indices.encode();
            self.membership.learn_statement(indices);
            self.tell_statements(vec![told], now);
        }
        self.go_on(now);
    }

    pub(in crate::state) fn welcome_not_stored(&mut self, welcome: Welcoming, now: Now) {
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
        self.go_on(now);
    }
}

impl Membership {
    /// A ticket is on the disk, and some are there no more.
    pub(in crate::state) fn invited(&mut self, invite: Invite, end: Duration, over: &[[u8; 32]]) {
        for secret_hash in over {
            self.forget_invite(secret_hash);
        }
        self.ticket_ends.insert(invite.secret_hash, end);
        self.invites.insert(invite.secret_hash, invite);
    }

    /// Returns the index that a new member gets: the one that is asked for, or the lowest that is
    /// free. Neither it nor a further one may be anybody's.
    fn choose_index(
        &self,
        index: Option<Index>,
        further: &Ranges,
        is_used: impl Fn(Index) -> bool,
        now: Now,
    ) -> Result<Index, Failure> {
        let wanted = index.map(|Index(index)| index..=index);
        let wanted = wanted
            .into_iter()
            .chain(further.iter().map(IndexRange::bounds));
        let wanted: Vec<_> = wanted.collect();
        if let Some(index) = index.filter(|index| further.contains(*index)) {
            return Err(Failure::bad_request(format!(
                "index {index} is named twice"
            )));
        }
        if let Some(text) = self.conflict(&wanted, now) {
            return Err(Failure::conflict(text).with_hint(
                "`pimesh peers` shows whose each index is, `pimesh invite --list` the open tickets",
            ));
        }
        index
            .or_else(|| self.free_index(further, is_used, now))
            .ok_or_else(|| Failure::conflict("every index is taken"))
    }
}

/// Makes the failure of a name that somebody has, or is to have.
pub(super) fn name_is_taken(name: &NodeName) -> Failure {
    Failure::conflict(format!(
        "the name `{name}` is that of a member, or of a ticket that is open"
    ))
    .with_hint("`pimesh peers` lists the members, `pimesh invite --list` the tickets")
}
