//! Two machines with one identity: a copied SD card, a golden image, a restored backup.
//!
//! Both have the same peer id, so nobody can tell them apart by that; each message reaches one of
//! them. But each start of a node draws a random [`BootId`], which `sync` carries. A start that
//! gives way to another one is a restart; two that are alive at the same time are copies. Clocks and
//! the order in which things arrive prove nothing, so what counts are answers:
//!
//! > A start has *outlived* another one if it answered a request that was sent by a node which knew
//! > of the other one already. Two starts that outlived each other were alive at the same time.
//!
//! After a restart the new start outlives the old one, and never the other way round. A member that
//! is connected with one copy now and with the other one then sees that by itself. Members that are
//! connected with one copy each tell each other of their sightings, and ask anew where these
//! disagree. What is proven is told to everybody, to the copies as well, and stands for a time.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{
    Effects, State,
    io::{Event, Now},
    millis, report,
    timers::Timer,
};
use crate::proto::mesh::sync::{BOOTS_PER_PEER_MAX, BootId, Copied, Request, Sighting};

/// How long a warning stands after the last proof. As long as both copies run there is a new one
/// each minute or two.
pub(super) const COPY_MEMORY: Duration = Duration::from_secs(5 * 60);

/// By how much a proof has to be later than the known one to be news; more than passing it on takes.
const PROOF_STEP: Duration = Duration::from_secs(30);

/// How long a start that is new here is told to others: two rounds of comparing clocks.
const RECENT: Duration = Duration::from_secs(130);

/// One start of a peer.
struct Boot {
    id: BootId,
    /// Requests of ours from this number on were sent when this start was known already.
    known_from: u64,
    /// Which of the others it outlived; none that is forgotten.
    outlived: Vec<BootId>,
    /// Who told so, if a part of it was told and not seen here.
    told_by: Option<PeerId>,
}

/// What is known of the starts of one peer.
#[derive(Default)]
struct Known {
    /// The earliest that was learned first.
    boots: Vec<Boot>,
    /// The start at the other end of the open connection, and since when.
    current: Option<(BootId, Duration)>,
    /// Somebody is connected with another start: the answer to this request of ours, or to a later
    /// one, says that the current one is alive nevertheless.
    disputed_from: Option<u64>,
    disputed_at: Option<Duration>,
    /// Who told a part of the last proof.
    proven_by: Option<PeerId>,
    /// How long the warning stands that there are two.
    copied_until: Option<Duration>,
}

/// Shortest time between two looks into sightings of one peer that disagree, so that two members
/// which tell each other of theirs do not go on doing so.
const DISPUTE_INTERVAL: Duration = Duration::from_secs(10);

/// What is known of the starts of all peers.
pub(super) struct Copies {
    own: BootId,
    peers: BTreeMap<PeerId, Known>,
}

impl Known {
    fn learn(&mut self, id: BootId, next_request: u64) -> &mut Boot {
        if let Some(at) = self.boots.iter().position(|boot| boot.id == id) {
            return &mut self.boots[at];
        }
        if self.boots.len() >= BOOTS_PER_PEER_MAX {
            let current = self.current.map(|(id, _)| id);
            let oldest = self.boots.iter().position(|boot| Some(boot.id) != current);
            let gone = self.boots.remove(oldest.unwrap_or_default());
            for boot in &mut self.boots {
                boot.outlived.retain(|id| *id != gone.id);
            }
        }
        self.boots.push(Boot {
            id,
            known_from: next_request,
            outlived: Vec::new(),
            told_by: None,
        });
        let last = self.boots.len() - 1;
        &mut self.boots[last]
    }

    /// Takes the proof that two were alive at the same time, if there is one; the next one has to be
    /// new from the ground up.
    fn take_proof(&mut self, next_request: u64) -> bool {
        let outlived = |a: &Boot, b: &Boot| a.outlived.contains(&b.id);
        let mut pairs = self
            .boots
            .iter()
            .flat_map(|a| self.boots.iter().map(move |b| (a, b)));
        let proven = pairs.find(|(a, b)| a.id != b.id && outlived(a, b) && outlived(b, a));
        let told_by = proven.map(|(a, b)| a.told_by.or(b.told_by));
        let proven = told_by.is_some();
        if proven {
            self.proven_by = told_by.flatten();
            for boot in &mut self.boots {
                boot.outlived.clear();
                boot.told_by = None;
                boot.known_from = next_request;
            }
        }
        proven
    }
}

impl Copies {
    pub(super) fn new(effects: &mut Effects) -> Self {
        Self {
            own: BootId::new(u64::from_le_bytes(effects.random())),
            peers: BTreeMap::new(),
        }
    }

    /// Forgets the starts of the members of a mesh that was left. What they said of this node goes,
    /// too: those of the next mesh see for themselves.
    pub(super) fn forget_all(&mut self) {
        let Self { own: _, peers } = self;
        peers.clear();
    }

    /// Returns the start of this node.
    pub(super) const fn own(&self) -> BootId {
        self.own
    }

    /// Takes in that a peer spoke by itself, or answered our request of this number; says whether
    /// that proves that there are two.
    fn heard(
        &mut self,
        peer: PeerId,
        boot: BootId,
        answered: Option<u64>,
        next_request: u64,
        now: Now,
    ) -> bool {
        let known = self.peers.entry(peer).or_default();
        known.learn(boot, next_request);
        if known.current.is_none_or(|(current, _)| current != boot) {
            known.current = Some((boot, now.mono));
        }
        let others = known.boots.iter().filter(|other| {
            let was_known = answered.is_some_and(|request| other.known_from <= request);
            was_known && other.id != boot
        });
        let others: Vec<BootId> = others.map(|other| other.id).collect();
        let outlived = &mut known.learn(boot, next_request).outlived;
        outlived.extend(others);
        outlived.sort_unstable();
        outlived.dedup();
        known.take_proof(next_request)
    }

    /// Takes in with which start of a peer somebody else is connected; says whether that proves
    /// that there are two.
    fn sighted(
        &mut self,
        sighting: &Sighting,
        teller: PeerId,
        next_request: u64,
        now: Now,
    ) -> bool {
        let known = self.peers.entry(sighting.peer).or_default();
        for other in &sighting.outlived {
            known.learn(*other, next_request);
        }
        known.learn(sighting.boot, next_request);
        let others = known.boots.iter().map(|boot| boot.id);
        let others = others.filter(|id| *id != sighting.boot && sighting.outlived.contains(id));
        let others: Vec<BootId> = others.collect();
        let boot = known.learn(sighting.boot, next_request);
        let before = boot.outlived.len();
        boot.outlived.extend(others);
        boot.outlived.sort_unstable();
        boot.outlived.dedup();
        if boot.outlived.len() > before {
            boot.told_by = Some(teller);
        }
        let differs = known.current.is_some_and(|(id, _)| id != sighting.boot);
        let was_looked_into = known
            .disputed_at
            .is_some_and(|at| now.mono < at + DISPUTE_INTERVAL);
        if differs && !was_looked_into {
            known.disputed_from = Some(next_request);
            known.disputed_at = Some(now.mono);
        }
        known.take_proof(next_request)
    }

    /// Says whether the answer to this request settles that others see another start than we do.
    fn settles(&mut self, peer: &PeerId, request: u64) -> bool {
        let known = self.peers.get_mut(peer);
        known.is_some_and(|known| {
            known
                .disputed_from
                .take_if(|from| *from <= request)
                .is_some()
        })
    }

    /// Returns who told a part of the last proof. What was told may be a lie, also if this node saw
    /// the other part itself.
    fn proven_by(&self, peer: &PeerId) -> Option<PeerId> {
        self.peers.get(peer).and_then(|known| known.proven_by)
    }

    fn is_disputed(&self, peer: &PeerId) -> bool {
        let known = self.peers.get(peer);
        known.is_some_and(|known| known.disputed_from.is_some())
    }

    /// The connection with a peer is gone, or is a new one.
    pub(super) fn link_changed(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.current = None;
        }
    }

    fn sighting_of(&self, peer: PeerId) -> Option<Sighting> {
        let known = self.peers.get(&peer)?;
        let (current, _) = known.current?;
        let boot = known.boots.iter().find(|boot| boot.id == current)?;
        Some(Sighting {
            peer,
            boot: current,
            outlived: boot.outlived.clone(),
        })
    }

    /// Says whether others should hear again with which start of a peer this node is connected.
    fn is_of_interest(&self, peer: &PeerId, now: Now) -> bool {
        self.peers.get(peer).is_some_and(|known| {
            let is_recent = known
                .current
                .is_some_and(|(_, since)| now.mono < since + RECENT);
            is_recent || known.copied_until.is_some()
        })
    }

    pub(super) fn is_copied(&self, peer: &PeerId) -> bool {
        let known = self.peers.get(peer);
        known.is_some_and(|known| known.copied_until.is_some())
    }

    fn copied(&self, now: Now) -> Vec<Copied> {
        let copied = self.peers.iter().filter_map(|(peer, known)| {
            let left = known.copied_until?.saturating_sub(now.mono);
            Some(Copied {
                peer: *peer,
                age_ms: millis(COPY_MEMORY.saturating_sub(left)),
            })
        });
        copied.collect()
    }

    /// Forgets the starts of a former member.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Takes in that there are two, until a time; says whether that is news, and whether it is the
    /// first.
    fn proven(&mut self, peer: PeerId, until: Duration) -> (bool, bool) {
        let known = self.peers.entry(peer).or_default();
        let stands_as_long = |known: Duration| until <= known + PROOF_STEP;
        if known.copied_until.is_some_and(stands_as_long) {
            return (false, false);
        }
        (true, known.copied_until.replace(until).is_none())
    }

    /// Lets a warning go whose time is over; says whether it was there.
    fn end_warning(&mut self, peer: &PeerId, now: Now) -> bool {
        let known = self.peers.get_mut(peer);
        let is_over = |until: &mut Duration| *until <= now.mono;
        known.is_some_and(|known| known.copied_until.take_if(is_over).is_some())
    }
}

impl State {
    /// Adds what others should know of the starts of members to what is told to everybody each
    /// minute.
    pub(super) fn round_of_sync(&self, now: Now) -> Request {
        let open = self.links.open_peers();
        let told = open.filter(|peer| self.copies.is_of_interest(peer, now));
        Request {
            sightings: told.filter_map(|p| self.copies.sighting_of(p)).collect(),
            ..Request::default()
        }
    }

    /// Returns all that is known of the starts of members.
    pub(super) fn all_sightings(&self, now: Now) -> (Vec<Sighting>, Vec<Copied>) {
        let open = self.links.open_peers();
        let sightings = open.filter_map(|peer| self.copies.sighting_of(peer));
        (sightings.collect(), self.copies.copied(now))
    }

    /// Takes in which start of a member speaks, or answers our request of this number.
    pub(super) fn boot_heard(
        &mut self,
        peer: PeerId,
        boot: Option<BootId>,
        answered: Option<u64>,
        now: Now,
    ) {
        // The connection of one that was removed is about to end.
        let is_here = self.links.is_open(&peer) && self.membership.is_known(&peer);
        let Some(boot) = boot.filter(|_| is_here) else {
            return;
        };
        let next = self.effects.next_number();
        if self.copies.heard(peer, boot, answered, next, now) {
            let teller = self.copies.proven_by(&peer);
            self.copy_proven(peer, COPY_MEMORY, teller, now);
        }
        if answered.is_some_and(|request| self.copies.settles(&peer, request))
            && let Some(sighting) = self.copies.sighting_of(peer)
        {
            let request = Request {
                sightings: vec![sighting],
                ..Request::default()
            };
            self.tell_all(&request, now);
        }
    }

    /// Takes in what a member tells of the starts of others.
    pub(super) fn copies_told(
        &mut self,
        teller: PeerId,
        sightings: &[Sighting],
        copied: &[Copied],
        now: Now,
    ) {
        for sighting in sightings {
            let peer = sighting.peer;
            if peer == teller || !self.membership.is_known(&peer) {
                continue;
            }
            let next = self.effects.next_number();
            if self.copies.sighted(sighting, teller, next, now) {
                self.copy_proven(peer, COPY_MEMORY, Some(teller), now);
            }
            if self.copies.is_disputed(&peer) {
                self.compare_clocks(peer, now);
            }
        }
        for told in copied {
            let is_known = told.peer == self.own.peer || self.membership.is_known(&told.peer);
            let left = COPY_MEMORY.saturating_sub(Duration::from_millis(told.age_ms));
            if is_known && !left.is_zero() {
                self.copy_proven(told.peer, left, Some(teller), now);
            }
        }
    }

    /// There are two, and the warning stands for so long; a member that told so is named.
    fn copy_proven(&mut self, peer: PeerId, left: Duration, teller: Option<PeerId>, now: Now) {
        let until = now.mono + left;
        let (is_news, is_first) = self.copies.proven(peer, until);
        if !is_news {
            return;
        }
        self.effects.timers().set(Timer::Copied(peer), until);
        if is_first {
            self.effects.event(Event::Copied {
                peer,
                name: self.copied_name(&peer),
                own: peer == self.own.peer,
                told_by: teller.map(|teller| self.name_of(&teller)),
            });
        }
        let request = Request {
            copied: vec![Copied {
                peer,
                age_ms: millis(COPY_MEMORY.saturating_sub(left)),
            }],
            ..Request::default()
        };
        self.tell_all(&request, now);
    }

    /// Lets a warning go whose time is over.
    pub(super) fn copy_gone(&mut self, peer: PeerId, now: Now) {
        if self.copies.end_warning(&peer, now) {
            let name = self.copied_name(&peer);
            self.effects.event(Event::CopyGone { peer, name });
        }
    }

    /// Returns what the sender of a message has to know, if two machines have the recipient's
    /// identity, or this node's own.
    pub(super) fn copy_warning(&self, recipient: &PeerId) -> Option<String> {
        let of = |peer: &PeerId| self.copies.is_copied(peer).then(|| self.copied_name(peer));
        let text = if let Some(name) = of(recipient) {
            format!(
                "two machines run with the identity of `{name}`, and the message reaches only one \
                 of them"
            )
        } else {
            of(&self.own.peer)?;
            "another machine runs with the identity of this node, and answers may reach only that \
             one"
            .to_owned()
        };
        Some(format!("{text}; {}", report::COPIED_HINT))
    }

    /// Returns the members whose identity two machines have, this node included.
    pub(super) fn copied_names(&self) -> Vec<String> {
        let peers = self.copies.peers.keys();
        let copied = peers.filter(|peer| self.copies.is_copied(peer));
        copied.map(|peer| self.copied_name(peer)).collect()
    }

    fn copied_name(&self, peer: &PeerId) -> String {
        if *peer == self.own.peer {
            return self.membership.own_terms().name.to_string();
        }
        self.name_of(peer)
    }
}
