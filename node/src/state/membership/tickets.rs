//! Tickets that were made here: which may still be used, and how they are made useless.

use std::time::Duration;

use super::{INVITES_MAX, Invite, Membership};
use crate::state::{
    After, State,
    io::{Failure, Now, Record, Reply, RequestId},
    millis, report,
};

/// Tickets that are cancelled as soon as that is on disk.
pub(in crate::state) struct Cancelling {
    request: RequestId,
    invites: Vec<Invite>,
    /// Tickets that are forgotten with that, and when each would have ended.
    forgotten: Vec<(Invite, Option<Duration>)>,
}

impl State {
    pub(in crate::state) fn report_invites(&self, now: Now) -> Vec<report::OpenInvite> {
        let open = self.membership.invites.values();
        let open = open.filter(|invite| self.membership.is_open(invite, now));
        let as_of_now = |invite: &Invite| {
            let left = invite.expires_ms - self.membership.ticket_ms(invite, now);
            report::OpenInvite {
                expires_ms: now.unix_ms().saturating_add(left),
                ..report(invite)
            }
        };
        let mut open: Vec<report::OpenInvite> = open.map(as_of_now).collect();
        open.sort_by_key(|invite| invite.expires_ms);
        open
    }

    /// Cancels one ticket, or all. It is good for nothing at once, and again if the disk fails.
    pub(in crate::state) fn cancel_invites(
        &mut self,
        request: RequestId,
        which: Option<String>,
        now: Now,
    ) {
        if self.under_way.leaving {
            let failure = Failure::conflict("this node is leaving its mesh");
            return self.effects.fail(request, failure);
        }
        let invites = match self.membership.open_named(which.as_deref(), now) {
            Ok(invites) => invites,
            Err(failure) => return self.effects.fail(request, failure),
        };
        let believed = self.calendar.believed(now);
        let over = self.membership.old_invites(believed);
        let forget = |hash: &[u8; 32]| self.membership.forget_invite(hash);
        let mut forgotten: Vec<_> = over.iter().filter_map(forget).collect();
        let mut records = Vec::new();
        for invite in &invites {
            records.push(self.membership.set_cancelled(invite, true));
        }
        forgotten.extend(self.membership.forget_cancelled());
        records.extend(forgotten.iter().map(|(invite, _)| Record::ForgetInvite {
            secret_hash: invite.secret_hash,
        }));
        let cancelling = Cancelling {
            request,
            invites,
            forgotten,
        };
        self.mesh_is_changing();
        self.effects
            .store(records, Some(After::Cancelled(cancelling)));
    }

    pub(in crate::state) fn invites_cancelled(&mut self, cancelling: Cancelling, now: Now) {
        let Cancelling {
            request, invites, ..
        } = cancelling;
        let cancelled = invites.iter().map(report).collect();
        self.effects
            .reply(request, Reply::InvitesCancelled(cancelled));
        self.go_on(now);
    }

    pub(in crate::state) fn invites_not_cancelled(
        &mut self,
        cancelling: Cancelling,
        reason: &str,
        now: Now,
    ) {
        let Cancelling {
            request,
            invites,
            forgotten,
        } = cancelling;
        for (invite, end) in forgotten {
            let hash = invite.secret_hash;
            self.membership.invites.insert(hash, invite);
            self.membership
                .ticket_ends
                .extend(end.map(|end| (hash, end)));
        }
        for invite in &invites {
            self.membership.set_cancelled(invite, false);
        }
        self.effects.fail(request, Failure::not_stored(reason));
        self.go_on(now);
    }
}

impl Membership {
    pub(in crate::state) fn open_invites(&self, now: Now) -> usize {
        let open = |invite: &&Invite| self.is_open(invite, now);
        self.invites.values().filter(open).count()
    }

    /// Says whether a ticket may still be used by anybody.
    pub(super) fn is_open(&self, invite: &Invite, now: Now) -> bool {
        invite.is_open(self.ticket_ms(invite, now))
    }

    /// Returns the date by which a ticket is judged. As long as the node runs that made it, time is
    /// counted that really passed, whatever becomes of the calendar clock; after a restart the
    /// calendar is all there is.
    pub(super) fn ticket_ms(&self, invite: &Invite, now: Now) -> u64 {
        let end = self.ticket_ends.get(&invite.secret_hash);
        end.map_or(now.unix_ms(), |end| {
            let left = end.saturating_sub(now.mono);
            invite.expires_ms.saturating_sub(millis(left))
        })
    }

    #[cfg(test)]
    pub(in crate::state) fn remembered_invites(&self) -> usize {
        self.invites.len()
    }

    /// Returns the tickets whose time is over. A used one stays until then, so that the peer which
    /// missed the answer can ask again.
    pub(super) fn old_invites(&self, now: Now) -> Vec<[u8; 32]> {
        let invites = self.invites.values();
        let over = invites.filter(|i| i.expires_ms <= self.ticket_ms(i, now));
        over.map(|invite| invite.secret_hash).collect()
    }

    /// Forgets a ticket; returns what it was, and when it would have ended.
    pub(super) fn forget_invite(
        &mut self,
        secret_hash: &[u8; 32],
    ) -> Option<(Invite, Option<Duration>)> {
        let end = self.ticket_ends.remove(secret_hash);
        Some((self.invites.remove(secret_hash)?, end))
    }

    /// Returns the open ticket that is called so, or all of them.
    fn open_named(&self, which: Option<&str>, now: Now) -> Result<Vec<Invite>, Failure> {
        let open = self.invites.values();
        let open = open.filter(|invite| self.is_open(invite, now));
        let Some(which) = which else {
            return Ok(open.cloned().collect());
        };
        let is_called =
            |invite: &&Invite| invite.short_id() == which || invite.name.as_deref() == Some(which);
        let called: Vec<Invite> = open.filter(is_called).cloned().collect();
        if called.is_empty() {
            let text = format!("no ticket that is open is called `{which}`");
            return Err(Failure::not_found(text)
                .with_hint("`pimesh invite --list` shows those that are, with their ids"));
        }
        Ok(called)
    }

    /// Returns the record of the ticket as it is from here on.
    fn set_cancelled(&mut self, invite: &Invite, cancelled: bool) -> Record {
        let invite = Invite {
            cancelled,
            ..invite.clone()
        };
        self.invites.insert(invite.secret_hash, invite.clone());
        Record::Invite(invite)
    }

    /// Forgets the cancelled tickets that end first, if there are too many: a node that joins
    /// with one hears that it is not known.
    fn forget_cancelled(&mut self) -> Vec<(Invite, Option<Duration>)> {
        let cancelled = self.invites.values().filter(|invite| invite.cancelled);
        let mut cancelled: Vec<(u64, [u8; 32])> = cancelled
            .map(|invite| (invite.expires_ms, invite.secret_hash))
            .collect();
        cancelled.sort_unstable();
        let too_many = cancelled.len().saturating_sub(INVITES_MAX);
        let forget = |(_, secret_hash): (u64, [u8; 32])| self.forget_invite(&secret_hash);
        let gone = cancelled.into_iter().take(too_many);
        gone.filter_map(forget).collect()
    }
}

fn report(invite: &Invite) -> report::OpenInvite {
    report::OpenInvite {
        id: invite.short_id(),
        name: invite.name.clone(),
        index: invite.index,
        further: invite.further.clone(),
        vouched: invite.vouched,
        expires_ms: invite.expires_ms,
    }
}
