//! How this node enters a mesh: with a ticket it dials the inviter, and is given its certificate.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{Membership, is_over};
use crate::{
    proto::mesh::{
        Address,
        certificate::Certificate,
        member::{Join, Refusal, Request, Response},
        statement::Statement,
        sync::MEMBERS_MAX,
        ticket::Ticket,
    },
    state::{
        After, State,
        io::{Connection, Event, Failure, NetOutput, Now, Record, Reply, RequestId, Tried},
        millis, report,
        timers::Timer,
    },
};

/// How long `join` tries to reach the inviter.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// How long `join` waits between two dials.
const JOIN_REDIAL: Duration = Duration::from_secs(2);

/// An entry into a mesh that is under way.
pub(in crate::state) struct Joining {
    request: RequestId,
    ticket: Ticket,
    deadline: Duration,
    redial: Duration,
    last_error: Option<String>,
    /// What came of each address that was tried.
    tried: BTreeMap<Address, Tried>,
}

impl Joining {
    /// Returns when to look after it.
    fn deadline(&self) -> Duration {
        if self.is_hopeless() {
            return Duration::ZERO;
        }
        self.deadline.min(self.redial)
    }

    /// Says whether every address led nowhere in a way that will not change.
    fn is_hopeless(&self) -> bool {
        let is_final =
            |address: &Address| self.tried.get(address).is_some_and(|tried| tried.is_final);
        self.ticket.addresses.iter().all(is_final)
    }

    /// Says why the inviter was not reached, and what to try.
    fn failure(&mut self, now: Now) -> Failure {
        let is_hopeless = self.is_hopeless();
        let mut text = "could not reach the inviter".to_owned();
        match self.last_error.take() {
            Some(why) => text.push_str(&format!(": {why}")),
            None if self.tried.is_empty() => text.push_str(": no answer"),
            None => {}
        }
        for Tried {
            address, reason, ..
        } in self.tried.values()
        {
            text.push_str(&format!("\n  {address}: {reason}"));
        }
        if is_hopeless {
            return Failure::unavailable(text).with_hint(
                "the addresses in the ticket do not lead to the inviter: was it in no network when \
                 it made the ticket, or has it moved? Make another with `pimesh invite`",
            );
        }
        let failure = Failure::timed_out(text);
        if is_over(self.ticket.expires_ms, now) {
            return failure.with_hint(
                "by the clock of this machine the ticket's time is over; make another with `pimesh \
                 invite`",
            );
        }
        failure.with_hint(
            "is `pimesh run` running there, and are both machines in one network? `pimesh doctor` \
             on both checks",
        )
    }
}

/// A membership that is on its way to the disk.
pub(in crate::state) struct Entering {
    request: RequestId,
    connection: Connection,
    own: Certificate,
    inviter: Certificate,
}

impl State {
    /// Begins to enter a mesh.
    pub(in crate::state) fn join(&mut self, request: RequestId, text: &str, now: Now) {
        let ticket = match self.check_join(text) {
            Ok(ticket) => ticket,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let (peer, addresses) = (ticket.inviter, ticket.addresses.clone());
        let joining = Joining {
            request,
            ticket,
            deadline: now.mono + JOIN_TIME,
            redial: now.mono + JOIN_REDIAL,
            last_error: None,
            tried: BTreeMap::new(),
        };
        self.effects.timers().set(Timer::Join, joining.deadline());
        self.under_way.joining = Some(joining);
        self.effects.event(Event::JoinTries {
            addresses: addresses.clone(),
            for_ms: millis(JOIN_TIME),
        });
        self.effects.net(NetOutput::Dial {
            peer,
            addresses,
            fresh: true,
        });
    }

    /// The ticket's end is for the inviter to judge, by the clock that set it: the clock of a machine
    /// that has just been set up may be years behind or ahead.
    fn check_join(&self, text: &str) -> Result<Ticket, Failure> {
        let ticket = Ticket::from_text(text).map_err(|e| {
            Failure::bad_request(format!("could not read the ticket: {e}"))
                .with_hint("`pimesh invite` on a member prints one; copy all of it")
        })?;
        if self.under_way.joining.is_some() {
            return Err(Failure::conflict("this node is joining a mesh already"));
        }
        if self.under_way.leaving || self.under_way.farewell.is_some() {
            return Err(Failure::conflict("this node is leaving its mesh")
                .with_hint("try again in a few seconds"));
        }
        self.check_key_is_kept()?;
        if ticket.inviter == self.own.peer {
            return Err(Failure::bad_request(
                "this ticket was made by this very node, or this machine is a copy of it: a \
                     cloned SD card or image has the same keys",
            )
            .with_hint(
                "use the ticket on the machine that is to join. On a copy: stop the node, \
                     delete its home folder (`pimesh status` names it), start it and join; make \
                     images of machines on which `pimesh run` never ran",
            ));
        }
        let others = self.membership.members().count();
        if others > 0 && !self.membership.is_revoked() {
            let others = crate::text::count(others, "other member");
            let text = format!("this node is in a mesh with {others} already");
            return Err(Failure::conflict(text).with_hint(
                "`pimesh leave` leaves it; a second node with another `--home` can be in another \
                 mesh at the same time",
            ));
        }
        if ticket.addresses.is_empty() {
            return Err(Failure::bad_request(
                "the ticket names no address of the inviter",
            ));
        }
        Ok(ticket)
    }

    /// Returns the encoded request to send on a connection to the inviter, if we are joining.
    pub(in crate::state) fn join_request(&self, peer: &PeerId) -> Option<Vec<u8>> {
        let joining = self
            .under_way
            .joining
            .as_ref()
            .filter(|j| j.ticket.inviter == *peer)?;
        let secret = joining.ticket.secret.clone();
        let left = self.membership.goodbyes.to_mesh(&joining.ticket.mesh);
        let proof = self
            .own
            .key
            .sign(&Join::proof_payload(&self.own.peer, &secret));
        let join = Join {
            secret,
            // As it is called now: it may have been renamed.
            name: self.membership.own_terms().name.clone(),
            messaging_key: *self.own.key.public(),
            proof,
            left: left.map(Statement::encode),
        };
        Some(Request::Join(Box::new(join)).encode())
    }

    /// Says whether this node enters the mesh of this inviter.
    pub(in crate::state) fn is_joining(&self, peer: &PeerId) -> bool {
        let joining = self.under_way.joining.as_ref();
        joining.is_some_and(|joining| joining.ticket.inviter == *peer)
    }

    /// Notes why a dial to the inviter failed; returns whether it was one.
    pub(in crate::state) fn join_dial_failed(
        &mut self,
        peer: &PeerId,
        reason: &str,
        tried: &[Tried],
    ) -> bool {
        let Some(joining) = self
            .under_way
            .joining
            .as_mut()
            .filter(|j| j.ticket.inviter == *peer)
        else {
            return false;
        };
        joining.last_error = tried.is_empty().then(|| reason.to_owned());
        for tried in tried {
            let address = &tried.address;
            if !joining.ticket.addresses.contains(address) {
                continue;
            }
            let before = joining.tried.insert(address.clone(), tried.clone());
            if before.is_none_or(|before| before.reason != tried.reason) {
                self.effects.event(Event::JoinTried {
                    address: address.clone(),
                    reason: tried.reason.clone(),
                });
            }
        }
        self.effects
            .timers()
            .set_by(Timer::Join, joining.deadline());
        true
    }

    /// Dials the inviter again, or gives the join up.
    pub(in crate::state) fn join_due(&mut self, now: Now) {
        // Once the new membership is on its way to the disk, that decides.
        let Some(joining) = self
            .under_way
            .joining
            .as_mut()
            .filter(|_| !self.under_way.leaving)
        else {
            return;
        };
        if joining.deadline <= now.mono || joining.is_hopeless() {
            let failure = joining.failure(now);
            return self.end_joining(failure);
        }
        let is_due = joining.redial <= now.mono;
        if is_due {
            joining.redial = now.mono + JOIN_REDIAL;
        }
        self.effects.timers().set(Timer::Join, joining.deadline());
        if is_due {
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
        if let Some(joining) = self.under_way.joining.take() {
            self.effects.fail(joining.request, failure);
        }
    }

    pub(in crate::state) fn join_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        let Some(joining) = self
            .under_way
            .joining
            .as_ref()
            .filter(|j| j.ticket.inviter == peer)
        else {
            return;
        };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(reason) => return self.close(connection, reason),
        };
        let (request, ticket) = (joining.request, joining.ticket.clone());
        match self.check_welcome(&bytes, &ticket) {
            Ok((own, inviter)) => {
                // A peer that was alone leaves its mesh of one behind; its key goes with it.
                let goodbyes = self.membership.goodbyes.clone().without(&ticket.mesh);
                let mut records = self.records_of_moving(&own, &goodbyes, now);
                records.push(Record::Member {
                    peer,
                    certificate: inviter.encode(),
                });
                records.push(Record::Addresses {
                    peer,
                    addresses: ticket.addresses,
                });
                self.under_way.leaving = true;
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
            Ok(Response::Hello(_) | Response::Ok | Response::Revoked(_) | Response::Left(_))
            | Err(_) => {
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

    pub(in crate::state) fn join_stored(&mut self, entering: Entering, now: Now) {
        let Entering {
            request,
            connection,
            own,
            inviter,
        } = entering;
        let addresses = self
            .under_way
            .joining
            .take()
            .map(|joining| joining.ticket.addresses)
            .unwrap_or_default();
        let terms = own.terms().clone();
        let inviter_terms = inviter.terms().clone();
        let mesh = Certificate::mesh_of(&own.encode()).unwrap_or(self.membership.mesh);
        let goodbyes = self.membership.goodbyes.clone().without(&mesh);
        let next = Membership {
            goodbyes,
            members: BTreeMap::from([(inviter_terms.peer, inviter)]),
            ..Membership::alone(mesh, None, own)
        };
        self.move_to(next, now);
        let peer = inviter_terms.peer;
        self.peers.add(peer, &mut self.effects, now);
        self.peers.add_inviter(&peer, addresses, &mut self.effects);
        self.effects.event(Event::Joined {
            mesh: self.membership.mesh.to_string(),
            name: terms.name.to_string(),
        });
        let index = inviter_terms.index;
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
        self.close_ended("this node is in another mesh");
    }

    pub(in crate::state) fn join_not_stored(
        &mut self,
        entering: Entering,
        reason: &str,
        _now: Now,
    ) {
        self.close(entering.connection, "could not store the membership");
        self.under_way.leaving = false;
        self.under_way.joining = None;
        self.effects
            .fail(entering.request, Failure::not_stored(reason));
    }
}

fn explain(refusal: Refusal) -> Failure {
    let another = "make another with `pimesh invite` on a member";
    match refusal {
        Refusal::TicketExpired => Failure::refused("the ticket's time is over").with_hint(another),
        Refusal::TicketCancelled => {
            Failure::refused("the ticket was cancelled by whoever made it").with_hint(another)
        }
        Refusal::TicketUnknown => {
            Failure::refused("the inviter does not know the ticket, or it was used already")
                .with_hint(another)
        }
        Refusal::TryAgain => Failure::unavailable("the inviter cannot take a member right now"),
        Refusal::MeshFull => {
            Failure::refused(format!("the mesh has its {MEMBERS_MAX} members already"))
        }
        Refusal::NotAMember | Refusal::OtherConnection => {
            Failure::refused("the inviter refused the ticket").with_hint(another)
        }
    }
}
