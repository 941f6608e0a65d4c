//! How this node leaves its mesh: it is in one of its own on disk before anybody hears of it, then
//! it says goodbye. History, keys and settings stay; what belongs to the mesh goes.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{Goodbyes, Membership, certificate_end};
use crate::{
    proto::{
        iid::Index,
        mesh::{
            certificate::{Certificate, MeshKey, Terms},
            statement::Statement,
            sync,
            vouched::Vouched,
        },
    },
    state::{
        After, State,
        io::{Event, Failure, KeyFile, Now, OutboundId, Reply, RequestId},
        report,
        timers::Timer,
    },
};

/// How long the others have to answer the goodbye. Members that did not hear it are told by
/// those that did, or when they dial this node.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// A mesh of one that is on its way to the disk, in the place of the mesh that is left.
pub(in crate::state) struct Leaving {
    request: RequestId,
    key: MeshKey,
    certificate: Certificate,
    /// What the others are told.
    left: Statement,
    /// What is still said in meshes that this node left, this one included.
    goodbyes: Goodbyes,
}

/// A goodbye that is under way.
pub(in crate::state) struct Farewell {
    request: RequestId,
    /// Members that have not heard it yet, and what each was asked with it.
    waiting: BTreeMap<PeerId, OutboundId>,
    report: report::Left,
}

impl State {
    /// Begins to leave the mesh.
    pub(in crate::state) fn leave(&mut self, request: RequestId, sure: bool, now: Now) {
        if let Err(failure) = self.check_leave(sure) {
            return self.effects.fail(request, failure);
        }
        let key = MeshKey::from_seed(&self.effects.random());
        let own = self.membership.own();
        let terms = own.terms();
        let left = Statement::left(own, now.unix_ms().max(terms.issued_ms), &self.own.key);
        let certificate = key.issue(Terms {
            index: Index(1),
            vouched: Vouched::ALL,
            issued_ms: now.unix_ms(),
            expires_ms: certificate_end(now),
            ..terms.clone()
        });
        let mut goodbyes = self.membership.goodbyes.clone();
        if !self.membership.is_revoked() {
            goodbyes.add(*self.membership.mesh(), left.clone());
        }
        self.under_way.leaving = true;
        let leaving = Leaving {
            request,
            key: key.clone(),
            certificate,
            left,
            goodbyes,
        };
        let after = After::LeaveStaged(Box::new(leaving));
        self.effects.key_file(KeyFile::Stage(key), Some(after));
    }

    fn check_leave(&self, sure: bool) -> Result<(), Failure> {
        if self.under_way.leaving || self.under_way.farewell.is_some() {
            return Err(Failure::conflict("this node is leaving its mesh already"));
        }
        if self.under_way.joining.is_some() {
            return Err(Failure::conflict("this node is joining a mesh"));
        }
        self.check_key_is_kept()?;
        if self.membership.is_revoked() {
            return Ok(());
        }
        let others = self.membership.members().count();
        // One that is alone and has lost the key makes a new mesh this way.
        if others == 0 && self.membership.key.is_some() {
            return Err(Failure::conflict(
                "this node is in a mesh of its own: there is nothing to leave",
            ));
        }
        if !sure && self.membership.holders() == [self.own.peer] {
            return Err(Failure::conflict(format!(
                "nobody else is known to hold the mesh key: without this node, the {others} \
                 others can neither invite nor rename nor remove anybody"
            ))
            .with_hint(
                "give it to another member first with `pimesh mesh-key share NAME`, or leave all \
                 the same with `pimesh leave --yes`",
            ));
        }
        Ok(())
    }

    /// The new mesh key is put aside: from here on the certificate on disk decides which counts.
    pub(in crate::state) fn leave_staged(&mut self, leaving: Box<Leaving>, now: Now) {
        let records = self.records_of_moving(&leaving.certificate, &leaving.goodbyes, now);
        let after = After::LeaveStored(leaving);
        self.effects.store(records, Some(after));
    }

    pub(in crate::state) fn leave_stored(&mut self, leaving: Leaving, now: Now) {
        let Leaving {
            request,
            key,
            certificate,
            left,
            goodbyes,
        } = leaving;
        self.effects.key_file(KeyFile::Adopt, None);
        let was_revoked = self.membership.is_revoked();
        let members: Vec<(PeerId, String)> = self
            .membership
            .members()
            .map(|(peer, terms)| (peer, terms.name.to_string()))
            .collect();
        let count_for = |(peer, _): &(PeerId, String)| self.messages.count_for(peer);
        let dropped_messages: usize = members.iter().map(count_for).sum();
        let goodbye = sync::Request {
            statements: vec![left.encode()],
            ..sync::Request::default()
        };
        let mut to: Vec<PeerId> = self.links.open_peers().collect();
        to.retain(|_| !was_revoked);
        let told = to.into_iter();
        let waiting = told
            .map(|peer| (peer, self.tell(peer, &goodbye, now)))
            .collect();
        let mesh = self.membership.mesh().to_string();
        let next = Membership {
            goodbyes,
            ..Membership::alone(key.mesh(), Some(key), certificate)
        };
        self.move_to(next, now);
        self.announce_holding(now);
        self.effects.event(Event::Left { mesh: mesh.clone() });
        let not_told = members.into_iter().map(|(_, name)| name).collect();
        self.under_way.farewell = Some(Farewell {
            request,
            waiting,
            report: report::Left {
                mesh,
                own_mesh: self.membership.mesh().to_string(),
                told: Vec::new(),
                not_told,
                dropped_messages,
            },
        });
        let timers = self.effects.timers();
        timers.set(Timer::Farewell, now.mono + FAREWELL_TIME);
        self.end_farewell_if_heard();
    }

    pub(in crate::state) fn not_left(&mut self, leaving: &Leaving, reason: &str) {
        self.under_way.leaving = false;
        self.effects
            .fail(leaving.request, Failure::not_stored(reason));
    }

    /// A member has answered: the goodbye, or what it was asked before that.
    pub(in crate::state) fn farewell_answered(&mut self, peer: &PeerId, id: OutboundId) {
        let waiting = self
            .under_way
            .farewell
            .as_ref()
            .map(|farewell| &farewell.waiting);
        if waiting.and_then(|waiting| waiting.get(peer)) == Some(&id) {
            self.farewell_heard(peer);
        }
    }

    /// A member has answered the goodbye, or hung up because of it.
    pub(in crate::state) fn farewell_heard(&mut self, peer: &PeerId) {
        let Some(farewell) = &mut self.under_way.farewell else {
            return;
        };
        if farewell.waiting.remove(peer).is_none() {
            return;
        }
        let name = self.names.last(peer).unwrap_or_default().to_owned();
        farewell.report.not_told.retain(|known| *known != name);
        farewell.report.told.push(name);
        self.close_peer(peer, "this node left the mesh");
        self.end_farewell_if_heard();
    }

    /// A member that this node dialled says that it has left, and when it did.
    pub(in crate::state) fn told_left(&mut self, left: Vec<u8>, now: Now) {
        let news = self.learn_told_statements(vec![left], now);
        if !news.is_empty() {
            self.tell_statements(news, now);
        }
    }

    fn end_farewell_if_heard(&mut self) {
        let farewell = self.under_way.farewell.as_ref();
        if farewell.is_some_and(|farewell| farewell.waiting.is_empty()) {
            self.end_farewell();
        }
    }

    /// Ends the goodbye: all have heard it, or its time is over.
    pub(in crate::state) fn end_farewell(&mut self) {
        if let Some(farewell) = self.under_way.farewell.take() {
            self.effects.timers().cancel(Timer::Farewell);
            let reply = Reply::Left(farewell.report);
            self.effects.reply(farewell.request, reply);
            self.close_all("this node left the mesh");
        }
    }
}
