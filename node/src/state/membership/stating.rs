//! Statements about members that came from here or from elsewhere: who holds the mesh key, who owns
//! further indices, who has left.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use super::{Certificate, Membership};
use crate::{
    proto::mesh::{
        DecodeError,
        certificate::CertificateError,
        ranges::Ranges,
        statement::{Kind, Says, Statement},
        sync::STATEMENTS_PER_KIND_MAX,
    },
    state::{
        State,
        io::{Connection, Event, Now, Record},
    },
};

impl Membership {
    /// Keeps a statement if it says something that was not known.
    pub(super) fn learn_statement(&mut self, statement: Statement) -> bool {
        let key = (statement.kind(), statement.peer());
        let known = self.statements.get(&key);
        if known.is_some_and(|known| known.at_ms() >= statement.at_ms()) {
            return false;
        }
        if known.is_none() && !self.make_room(key.0) {
            return false;
        }
        self.statements.insert(key, statement);
        true
    }

    /// Says whether another statement of this kind is known about the same peer.
    fn knows_statement(&self, statement: &Statement) -> bool {
        self.statements
            .contains_key(&(statement.kind(), statement.peer()))
    }

    /// Says whether there is room for one more statement of a kind. One about a peer that is no
    /// member any more gives way, the oldest first.
    fn make_room(&mut self, kind: Kind) -> bool {
        let of_kind = || {
            self.statements
                .iter()
                .filter(move |((of, _), _)| *of == kind)
        };
        if of_kind().count() < STATEMENTS_PER_KIND_MAX {
            return true;
        }
        let former = of_kind().filter(|((_, peer), _)| !self.is_here(peer));
        let oldest = former.min_by_key(|(_, statement)| statement.at_ms());
        let Some(oldest) = oldest.map(|(key, _)| *key) else {
            return false;
        };
        self.statements.remove(&oldest).is_some()
    }

    /// Says whether a peer is a member or this node.
    fn is_here(&self, peer: &PeerId) -> bool {
        *peer == self.own.terms().peer || self.is_known(peer)
    }

    /// Returns all statements, encoded.
    pub(in crate::state) fn statements(&self) -> Vec<Vec<u8>> {
        self.statements.values().map(Statement::encode).collect()
    }

    /// Returns the statement of a kind about a member, unless it is over.
    pub(in crate::state) fn said(&self, kind: Kind, peer: &PeerId) -> Option<&Statement> {
        let statement = self.statements.get(&(kind, *peer))?;
        (!self.ended_at(peer, statement.at_ms())).then_some(statement)
    }

    /// Returns the further indices of a member, and when it was given them.
    pub(super) fn further_since(&self, peer: &PeerId) -> Option<(&Ranges, u64)> {
        let statement = self.said(Kind::Indices, peer)?;
        match statement.says() {
            Says::Indices(ranges) => Some((ranges, statement.at_ms())),
            Says::Holder { .. } | Says::Left => None,
        }
    }

    /// Returns the earliest time at which a statement of further indices counts instead of the known
    /// one. `None` if no time is late enough.
    pub(super) fn next_indices_ms(&self, peer: &PeerId) -> Option<u64> {
        let known = self.statements.get(&(Kind::Indices, *peer));
        let known = known.map(Statement::at_ms).max(self.ended_until(peer));
        known.map_or(Some(0), |known| known.checked_add(1))
    }

    /// Says whether further indices of a peer were ever stated, also before it left.
    pub(super) fn were_indices_stated(&self, peer: &PeerId) -> bool {
        self.statements.contains_key(&(Kind::Indices, *peer))
    }

    /// Returns the further indices of a member, or of this node.
    pub(in crate::state) fn further(&self, peer: &PeerId) -> Option<&Ranges> {
        self.further_since(peer).map(|(ranges, _)| ranges)
    }

    /// Returns the same; none if it was never given any.
    pub(in crate::state) fn further_of(&self, peer: &PeerId) -> Ranges {
        self.further(peer).cloned().unwrap_or_default()
    }

    /// Returns who is known to hold the mesh key, this node included.
    pub(in crate::state) fn holders(&self) -> Vec<PeerId> {
        let members = self.members().map(|(peer, _)| peer);
        let others = members.filter(|peer| self.said(Kind::Holder, peer).is_some());
        let own = self.key.as_ref().map(|_| self.own.terms().peer);
        own.into_iter().chain(others).collect()
    }

    /// Returns who held the mesh key when it was removed, and so still has it. One that left before
    /// that put the key away itself.
    pub(in crate::state) fn removed_holders(&self) -> Vec<PeerId> {
        let stated = self.statements.values();
        let holders = stated.filter(|statement| statement.kind() == Kind::Holder);
        let still_has_it = |holder: &&Statement| {
            let left = self.statements.get(&(Kind::Left, holder.peer()));
            self.is_removed(&holder.peer()) && left.is_none_or(|left| left.at_ms() < holder.at_ms())
        };
        holders.filter(still_has_it).map(Statement::peer).collect()
    }

    /// Says whether a holder is known to have exported the mesh key to a file.
    pub(in crate::state) fn is_exported(&self) -> bool {
        self.statements.values().any(|statement| {
            *statement.says() == Says::Holder { exported: true }
                && !self.ended_at(&statement.peer(), statement.at_ms())
        })
    }

    pub(super) const fn own(&self) -> &Certificate {
        &self.own
    }
}

impl State {
    /// Learns statements that another member told; returns what was new, to be told on.
    pub(in crate::state) fn learn_told_statements(
        &mut self,
        told: Vec<Vec<u8>>,
        now: Now,
    ) -> Vec<Vec<u8>> {
        // As for certificates: nothing may come behind the new membership.
        if self.under_way.leaving {
            return Vec::new();
        }
        let mesh = *self.membership.mesh();
        // Mostly all of it is known; comparing costs far less than verifying a signature.
        let known: BTreeSet<Vec<u8>> = self.membership.statements().into_iter().collect();
        let mut news = Vec::new();
        for bytes in told {
            if known.contains(&bytes) {
                continue;
            }
            match Statement::decode(&bytes, &mesh) {
                Ok(statement) => {
                    if self.keep_statement(statement, now) {
                        news.push(bytes);
                    }
                }
                // One of a later version.
                Err(CertificateError::Decode(DecodeError::Field { field: "kind", .. })) => {}
                Err(error) => self.effects.refused(None, "statement", error.name()),
            }
        }
        news
    }

    /// Keeps a statement if it is new, and does what follows from it.
    pub(super) fn keep_statement(&mut self, statement: Statement, now: Now) -> bool {
        self.keep_statement_on(None, statement, now)
    }

    /// A statement that was made here is on the disk.
    pub(in crate::state) fn statement_issued(&mut self, statement: Statement, now: Now) {
        let told = statement.encode();
        let record = statement_record(&statement);
        // One of another holder may have come meanwhile, and been written behind this one.
        let may_be_overtaken = self.membership.knows_statement(&statement);
        if self.believe_statement(None, statement, now) && may_be_overtaken {
            self.effects.store(vec![record], None);
        }
        self.tell_statements(vec![told], now);
    }

    /// A peer that joins says when it left this very mesh, which nobody here may have heard: what it
    /// is given from here on is later. It says so of itself, and on a connection that stays.
    pub(super) fn joiner_left(
        &mut self,
        connection: Connection,
        peer: PeerId,
        left: &[u8],
        now: Now,
    ) {
        let Ok(statement) = Statement::decode(left, self.membership.mesh()) else {
            return;
        };
        if self.under_way.leaving || statement.peer() != peer || *statement.says() != Says::Left {
            return;
        }
        let told = statement.encode();
        if self.keep_statement_on(Some(connection), statement, now) {
            self.tell_statements(vec![told], now);
        }
    }

    fn keep_statement_on(
        &mut self,
        connection: Option<Connection>,
        statement: Statement,
        now: Now,
    ) -> bool {
        let record = statement_record(&statement);
        let is_new = self.believe_statement(connection, statement, now);
        if is_new {
            self.effects.store(vec![record], None);
        }
        is_new
    }

    fn believe_statement(
        &mut self,
        connection: Option<Connection>,
        statement: Statement,
        now: Now,
    ) -> bool {
        let (kind, peer) = (statement.kind(), statement.peer());
        let name = self.name_of(&peer);
        let was_member = self.membership.is_known(&peer);
        let was_revoked = self.membership.is_revoked();
        if !self.membership.learn_statement(statement) {
            return false;
        }
        if kind == Kind::Left && was_member && !self.membership.is_known(&peer) {
            self.close_peer_but(&peer, connection, "left the mesh");
            self.peers.forget(peer, &mut self.effects);
            self.copies.forget(&peer);
            self.give_up_messages_to(peer, "left the mesh", now);
            self.effects.event(Event::MemberLeft { peer, name });
        }
        if self.membership.is_revoked() && !was_revoked {
            self.effects.event(Event::Revoked);
            self.close_all("this node left the mesh");
        }
        true
    }
}

/// Returns the record of a statement.
pub(super) fn statement_record(statement: &Statement) -> Record {
    Record::Statement {
        kind: statement.kind().number(),
        peer: statement.peer(),
        statement: statement.encode(),
    }
}
