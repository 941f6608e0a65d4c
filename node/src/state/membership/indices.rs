//! Who owns which index, and who may speak for it; which ones are free.

use std::ops::RangeInclusive;

use libp2p_identity::PeerId;

use super::Membership;
use crate::{
    proto::{
        iid::Index,
        mesh::{
            certificate::{Certificate, Terms},
            ranges::{IndexRange, Ranges},
        },
    },
    state::io::Now,
};

impl Membership {
    /// Says whether a node may speak for an index: natively for the one it owns, and as a gateway
    /// for those it vouches for that no other member owns.
    pub(in crate::state) fn may_speak(&self, peer: &PeerId, index: Index, bridged: bool) -> bool {
        if !bridged {
            return self.owner(index).is_some_and(|terms| terms.peer == *peer);
        }
        let own = self.own.terms();
        let terms = if *peer == own.peer {
            Some(own)
        } else {
            self.terms(peer)
        };
        terms.is_some_and(|terms| terms.vouched.contains(index))
            && self.owner(index).is_none_or(|terms| terms.peer == *peer)
    }

    /// Returns the member that owns an index: of those it was given to, the one that it was given to
    /// first.
    pub(in crate::state) fn owner(&self, index: Index) -> Option<&Terms> {
        let others = self.members.values().map(Certificate::terms);
        // This node counts as a member of its own mesh even if it was removed from it.
        others
            .filter(|terms| !self.ended(terms))
            .chain([self.own.terms()])
            .filter_map(|terms| Some((self.owned_since(terms, index)?, terms)))
            .min_by_key(|(since, terms)| (*since, terms.peer))
            .map(|(_, terms)| terms)
    }

    /// Returns when a member was given an index, if it was.
    fn owned_since(&self, terms: &Terms, index: Index) -> Option<u64> {
        if terms.index == index {
            return Some(terms.issued_ms);
        }
        let (ranges, since) = self.further_since(&terms.peer)?;
        ranges.contains(index).then_some(since)
    }

    /// Returns the indices that are not free, and whose they are: a member's, those of an open
    /// ticket, or a range that a gateway was given. A gateway that may speak for everything takes
    /// no index. One member's may be left out.
    fn claims(&self, but: Option<&PeerId>, now: Now) -> Vec<(RangeInclusive<i32>, String)> {
        let mut claims = Vec::new();
        let members = self.members().map(|(_, terms)| terms);
        let members = members.chain([self.own.terms()]);
        for terms in members.filter(|terms| but != Some(&terms.peer)) {
            let whose = format!("it is that of `{}`", terms.name);
            let further = self.further(&terms.peer);
            let own = std::iter::once(terms.index.0..=terms.index.0);
            let further = further.into_iter().flat_map(|ranges| ranges.iter());
            let owned = own.chain(further.map(IndexRange::bounds));
            claims.extend(owned.map(|range| (range, whose.clone())));
            let kept = terms.vouched.kept();
            let whose = format!("it is in the range of the gateway `{}`", terms.name);
            claims.extend(kept.map(|range| (range, whose)));
        }
        let open = self.invites.values();
        for invite in open.filter(|invite| self.is_open(invite, now)) {
            let whose = format!("an open ticket gives it ({})", invite.short_id());
            let own = std::iter::once(invite.index.0..=invite.index.0);
            let given = own.chain(invite.further.iter().map(IndexRange::bounds));
            claims.extend(given.map(|range| (range, whose.clone())));
        }
        claims
    }

    /// Says why these indices cannot be given to a new member, if they cannot.
    pub(super) fn conflict(&self, ranges: &[RangeInclusive<i32>], now: Now) -> Option<String> {
        self.conflict_but(None, ranges, now)
    }

    /// Says why these indices cannot be given to a member that is there, if they cannot.
    pub(super) fn conflict_but(
        &self,
        but: Option<&PeerId>,
        ranges: &[RangeInclusive<i32>],
        now: Now,
    ) -> Option<String> {
        let claims = self.claims(but, now);
        ranges.iter().find_map(|wanted| {
            let overlaps = |(taken, _): &&(RangeInclusive<i32>, String)| {
                taken.start() <= wanted.end() && wanted.start() <= taken.end()
            };
            let (taken, whose) = claims.iter().find(overlaps)?;
            let index = wanted.start().max(taken.start());
            Some(format!("index {index} is taken: {whose}"))
        })
    }

    /// Returns the lowest free index from 1 on that is not among these, and not in use otherwise.
    pub(super) fn free_index(
        &self,
        beside: &Ranges,
        is_used: impl Fn(Index) -> bool,
        now: Now,
    ) -> Option<Index> {
        let claims = self.claims(None, now).into_iter().map(|(range, _)| range);
        let mut taken: Vec<_> = claims
            .chain(beside.iter().map(IndexRange::bounds))
            .collect();
        taken.sort_unstable_by_key(|range| *range.start());
        let mut taken = taken.into_iter().peekable();
        let mut index = 1_i32;
        loop {
            // Ranges that begin further on may be reached later.
            if let Some(range) = taken.next_if(|range| *range.start() <= index) {
                if range.contains(&index) {
                    index = range.end().checked_add(1)?;
                }
            } else if is_used(Index(index)) {
                index = index.checked_add(1)?;
            } else {
                return Some(Index(index));
            }
        }
    }
}
