//! How this node lets others into its mesh: it makes tickets, and certificates for those who bring
//! them.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{INVITE_LIFETIME, Learned, certificate_end};
use crate::{
    proto::{
        iid::Index,
        mesh::{
            Address, NodeName,
            certificate::{Certificate, Terms},
            member::{Join, Refusal, Response, Welcome},
            sync::MEMBERS_MAX,
            ticket::{Secret, Ticket},
            vouched::Vouched,
        },
    },
    state::{
        After, State,
        io::{
            Connection, Event, Failure, InboundId, Invite, NetOutput, Now, Opening, OwnReach,
            Record, Reply, RequestId,
        },
        millis, report,
    },
};

/// Longest time a ticket may be good: a week, for a Pi that travels by post.
const INVITE_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Most tickets that are open at once.
const INVITES_MAX: usize = 64;

/// A new member that is on its way to the disk.
pub(in crate::state) struct Welcoming {
    connection: Connection,
    inbound: InboundId,
    certificate: Certificate,
    earlier: Option<Invite>,
}

impl State {
    pub(in crate::state) fn invite(
        &mut self,
        request: RequestId,
        name: Option<String>,
        index: Option<Index>,
        vouched: Vouched,
        lifetime: Option<Duration>,
        now: Now,
    ) {
        match self.make_invite(name, index, vouched, lifetime, now) {
            Ok((ticket, invite, mut records)) => {
                let reply = report::Invite {
                    ticket: ticket.to_text().to_string(),
                    name: invite.name.clone(),
                    index: invite.index,
                    vouched: invite.vouched,
                    expires_ms: invite.expires_ms,
                    warning: self.ticket_warning(),
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

    /// Says what is wrong with where this node can be reached.
    fn ticket_warning(&self) -> Option<String> {
        let why = match self.own.reach {
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

    fn make_invite(
        &mut self,
        name: Option<String>,
        index: Option<Index>,
        vouched: Vouched,
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
        let records = self
            .membership
            .forget_old_invites(self.calendar.believed(now));
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
            vouched,
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

    /// Answers a peer that came with a ticket.
    pub(in crate::state) fn join_requested(
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
            vouched: invite.vouched,
            issued_ms: now.unix_ms().max(after).max(known),
            expires_ms: certificate_end(now),
        });
        Ok((certificate, invite))
    }

    pub(in crate::state) fn welcome_stored(&mut self, welcome: Welcoming, now: Now) {
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

    pub(in crate::state) fn welcome_not_stored(&mut self, welcome: Welcoming) {
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
}
