//! Whom to dial, where and when.
//!
//! A member that is not connected is dialled with exponential backoff and full jitter: before
//! attempt n the wait is anywhere between nothing and min(2^(n-1), 60) seconds. The count starts
//! anew after a connection that lasted a minute. A hint that the peer is there (mDNS, an interface
//! that came back) makes the dial due at once. Where a peer may be, and by whose word, is
//! `addresses`.

mod reporting;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{
    Effects, State,
    addresses::Addresses,
    io::{NetOutput, Now, Record, Tried},
    timers::{Timer, Timers},
    work::look,
};
use crate::proto::mesh::Address;

/// Longest wait between two dials.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a connection has to last until the backoff starts anew.
const STABLE: Duration = Duration::from_secs(60);

/// Shortest time between two dials of one peer that follow hints, so that a flood of hints is no
/// flood of dials.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time a dial may be under way before it counts as lost.
const DIAL_TIME_MAX: Duration = Duration::from_secs(30);

/// How it stands with a peer's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Dial at this time.
    Due(Duration),
    /// Dialling or shaking hands since this time.
    Trying(Duration),
    /// Connected.
    Up,
}

/// One member that is not this node.
#[derive(Debug)]
struct Peer {
    addresses: Addresses,
    reach: Reach,
    attempts: u32,
    last_dial: Option<Duration>,
    last_error: Option<String>,
    down_since: Option<Duration>,
    changed_ms: Option<u64>,
}

impl Peer {
    const fn new(addresses: Addresses, due: Duration) -> Self {
        Self {
            addresses,
            reach: Reach::Due(due),
            attempts: 0,
            last_dial: None,
            last_error: None,
            down_since: None,
            changed_ms: None,
        }
    }

    fn back_off(&mut self, reason: String, effects: &mut Effects, now: Now) {
        self.attempts = self.attempts.saturating_add(1);
        self.last_error = Some(reason);
        self.wait(effects, now);
    }

    fn wait(&mut self, effects: &mut Effects, now: Now) {
        self.reach = Reach::Due(now.mono + effects.jitter(ceiling(self.attempts)));
    }

    /// Something says that it is there: it is dialled at once, or when hints count again.
    fn hint(&mut self, now: Now) {
        let earliest = self.last_dial.map_or(now.mono, |last| last + HINT_INTERVAL);
        if let Reach::Due(at) = &mut self.reach {
            *at = (*at).min(earliest.max(now.mono));
        }
    }

    /// Returns when to dial it, or when a dial counts as lost. Without an address there is nothing to
    /// wait for.
    fn due(&self) -> Option<Duration> {
        let due = match self.reach {
            Reach::Due(at) => at,
            Reach::Trying(since) => since + DIAL_TIME_MAX,
            Reach::Up => return None,
        };
        (!self.addresses.is_empty()).then_some(due)
    }

    fn set_timer(&self, peer: PeerId, timers: &mut Timers) {
        timers.put(Timer::Dial(peer), self.due());
    }
}

/// Returns the longest wait before the attempt after `failed` failed ones.
fn ceiling(failed: u32) -> Duration {
    let seconds = 1u64
        .checked_shl(failed.saturating_sub(1))
        .unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(BACKOFF_MAX)
}

/// Every peer that this node would like to be connected to, and every address it knows.
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    /// Addresses of peers that are not known as members (yet).
    addresses: BTreeMap<PeerId, Addresses>,
}

impl Peers {
    pub(super) fn load(addresses: Vec<(PeerId, Vec<Address>)>) -> Self {
        let stored = addresses.into_iter();
        Self {
            peers: BTreeMap::new(),
            addresses: stored
                .map(|(peer, stored)| (peer, Addresses::load(stored)))
                .collect(),
        }
    }

    pub(super) fn add(&mut self, peer: PeerId, effects: &mut Effects, now: Now) {
        if !self.peers.contains_key(&peer) {
            let addresses = self.addresses.remove(&peer).unwrap_or_default();
            let entry = Peer::new(addresses, now.mono);
            entry.set_timer(peer, effects.timers());
            self.peers.insert(peer, entry);
            let is_member = true;
            effects.net(NetOutput::Member { peer, is_member });
        }
    }

    pub(super) fn forget(&mut self, peer: PeerId, effects: &mut Effects) {
        if self.peers.remove(&peer).is_some() {
            effects.timers().cancel(Timer::Dial(peer));
            let is_member = false;
            effects.net(NetOutput::Member { peer, is_member });
        }
    }

    /// Changes what is known of a peer, and sets when it is dialled after that.
    fn change<T>(
        &mut self,
        peer: &PeerId,
        effects: &mut Effects,
        change: impl FnOnce(&mut Peer, &mut Effects) -> T,
    ) -> Option<T> {
        look();
        let entry = self.peers.get_mut(peer)?;
        let result = change(entry, effects);
        entry.set_timer(*peer, effects.timers());
        Some(result)
    }

    /// Forgets the members of a mesh that was left, and where they are.
    pub(super) fn forget_all(&mut self, effects: &mut Effects) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.forget(peer, effects);
        }
        self.addresses.clear();
    }

    /// Returns where to dial a peer, in this order.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Address> {
        let known = self.peers.get(peer);
        known.map(|p| p.addresses.to_dial()).unwrap_or_default()
    }

    /// Returns what other members are told of where a peer is.
    pub(super) fn addresses_to_tell(&self, peer: &PeerId) -> Vec<Address> {
        let known = self.peers.get(peer);
        known.map(|p| p.addresses.to_keep()).unwrap_or_default()
    }

    /// Takes the addresses in a ticket, which its inviter made.
    pub(super) fn add_inviter(
        &mut self,
        peer: &PeerId,
        addresses: Vec<Address>,
        effects: &mut Effects,
    ) {
        self.change(peer, effects, |entry, _| {
            entry.addresses.told_by_itself(addresses, None);
        });
    }

    /// Takes a member's word on the addresses of another one. A peer without known addresses may be about
    /// to dial this node, so it is dialled a moment later.
    pub(super) fn hinted(
        &mut self,
        teller: PeerId,
        of: &PeerId,
        addresses: &[Address],
        effects: &mut Effects,
        now: Now,
    ) {
        self.change(of, effects, |entry, _| {
            if entry.addresses.is_empty()
                && let Reach::Due(at) = &mut entry.reach
            {
                *at = (*at).max(now.mono + ceiling(1));
            }
            entry.addresses.hinted(teller, addresses);
        });
    }

    /// Notes that the LAN says that a peer is here.
    fn seen(&mut self, peer: &PeerId, address: Address, effects: &mut Effects, now: Now) {
        self.change(peer, effects, |entry, _| {
            entry.addresses.seen(address);
            entry.hint(now);
        });
    }

    pub(super) fn vanished(&mut self, peer: &PeerId, address: &Address, effects: &mut Effects) {
        self.change(peer, effects, |entry, _| entry.addresses.vanished(address));
    }

    /// Takes the configured addresses in the place of the earlier ones.
    fn configure(&mut self, configured: Vec<(PeerId, Address)>, effects: &mut Effects) {
        let members = self.peers.values_mut().map(|entry| &mut entry.addresses);
        for addresses in members.chain(self.addresses.values_mut()) {
            addresses.forget_configured();
        }
        for (peer, address) in configured {
            let addresses = match self.peers.get_mut(&peer) {
                Some(entry) => &mut entry.addresses,
                None => self.addresses.entry(peer).or_default(),
            };
            addresses.configured(address);
        }
        for (peer, entry) in &self.peers {
            entry.set_timer(*peer, effects.timers());
        }
    }

    /// Dials a peer that is due; if it must not be dialled at this moment, it is looked at again.
    fn dial(&mut self, peer: &PeerId, may_dial: bool, effects: &mut Effects, now: Now) {
        self.change(peer, effects, |entry, effects| {
            if entry.due().is_none_or(|due| due > now.mono) {
                return;
            }
            if !may_dial {
                entry.reach = Reach::Due(now.mono + ceiling(entry.attempts.max(1)));
                return;
            }
            entry.reach = Reach::Trying(now.mono);
            entry.last_dial = Some(now.mono);
            effects.net(NetOutput::Dial {
                peer: *peer,
                addresses: entry.addresses.to_dial(),
                fresh: false,
            });
        });
    }

    pub(super) fn dialled(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.last_error = None;
        }
    }

    /// Notes that the peer is connected; returns how long it had been away.
    pub(super) fn came_up(
        &mut self,
        peer: &PeerId,
        effects: &mut Effects,
        now: Now,
    ) -> Option<Duration> {
        let down_since = self.change(peer, effects, |entry, _| {
            if entry.reach != Reach::Up {
                entry.changed_ms = Some(now.unix_ms());
            }
            entry.reach = Reach::Up;
            entry.last_error = None;
            entry.down_since.take()
        });
        down_since
            .flatten()
            .map(|since| now.mono.saturating_sub(since))
    }

    pub(super) fn went_down(
        &mut self,
        peer: &PeerId,
        up_for: Duration,
        reason: String,
        effects: &mut Effects,
        now: Now,
    ) {
        self.change(peer, effects, |entry, effects| {
            if up_for >= STABLE {
                entry.attempts = 0;
            }
            entry.down_since = Some(now.mono);
            entry.changed_ms = Some(now.unix_ms());
            entry.back_off(reason, effects, now);
        });
    }

    pub(super) fn handshake_failed(
        &mut self,
        peer: &PeerId,
        reason: String,
        effects: &mut Effects,
        now: Now,
    ) {
        self.change(peer, effects, |entry, effects| {
            if entry.reach != Reach::Up {
                entry.back_off(reason, effects, now);
            }
        });
    }

    /// A dial led nowhere. A fresh one beside an open connection changes nothing then.
    fn dial_failed(
        &mut self,
        peer: &PeerId,
        reason: String,
        tried: Vec<Tried>,
        effects: &mut Effects,
        now: Now,
    ) {
        self.change(peer, effects, |entry, effects| {
            let failed = tried.into_iter().map(|tried| tried.address);
            entry.addresses.failed(failed.collect());
            if matches!(entry.reach, Reach::Trying(_)) {
                entry.back_off(reason, effects, now);
            }
        });
    }

    /// A dial met another of this node's own: nothing is known that was not, and it is tried again.
    fn dial_not_begun(&mut self, peer: &PeerId, effects: &mut Effects, now: Now) {
        self.change(peer, effects, |entry, effects| {
            if matches!(entry.reach, Reach::Trying(_)) {
                entry.attempts = entry.attempts.saturating_add(1);
                entry.wait(effects, now);
            }
        });
    }

    /// Changes what is known of where a peer is; returns the record of what is to be kept of that, if
    /// it is another.
    fn change_addresses(
        &mut self,
        peer: PeerId,
        change: impl FnOnce(&mut Addresses),
        effects: &mut Effects,
    ) -> Option<Record> {
        let kept = self.change(&peer, effects, |entry, _| {
            let before = entry.addresses.to_keep();
            change(&mut entry.addresses);
            let addresses = entry.addresses.to_keep();
            (addresses != before).then_some(addresses)
        });
        let addresses = kept.flatten()?;
        Some(Record::Addresses { peer, addresses })
    }

    /// Makes the dial of every peer that is down due, spread over a moment.
    pub(super) fn dial_all_now(&mut self, effects: &mut Effects, now: Now) {
        for (peer, entry) in &mut self.peers {
            if let Reach::Due(at) = &mut entry.reach {
                *at = (*at).min(now.mono + effects.jitter(Duration::from_millis(200)));
            }
            entry.set_timer(*peer, effects.timers());
        }
    }
}

impl State {
    pub(super) fn add_configured_addresses(&mut self) {
        let members: Vec<PeerId> = self.membership.members().map(|(peer, _)| peer).collect();
        for peer in members {
            self.peers.add(peer, &mut self.effects, self.started);
        }
        self.peers
            .configure(self.settings.peers.clone(), &mut self.effects);
    }

    /// Dials the members that are due.
    pub(super) fn dial_due(&mut self, now: Now) {
        let is_dial = |timer: &Timer| matches!(timer, Timer::Dial(_));
        for timer in self.effects.timers().take_due(now.mono, is_dial) {
            if let Timer::Dial(peer) = timer {
                self.dial(&peer, now);
            }
        }
    }

    /// Dials a member that is due, unless this node was removed from the mesh.
    pub(super) fn dial(&mut self, peer: &PeerId, now: Now) {
        if !self.membership.is_revoked() {
            // A connection of the peer's own may be in the middle of its handshake.
            let may_dial = !self.links.any_with(peer);
            self.peers.dial(peer, may_dial, &mut self.effects, now);
        }
    }

    pub(super) fn dial_failed(
        &mut self,
        peer: PeerId,
        reason: String,
        tried: Vec<Tried>,
        now: Now,
    ) {
        if !self.join_dial_failed(&peer, &reason, &tried) {
            self.peers
                .dial_failed(&peer, reason, tried, &mut self.effects, now);
        }
    }

    pub(super) fn dial_not_begun(&mut self, peer: &PeerId, now: Now) {
        if !self.is_joining(peer) {
            self.peers.dial_not_begun(peer, &mut self.effects, now);
        }
    }

    pub(super) fn discovered(&mut self, peer: PeerId, address: Address, now: Now) {
        if self.membership.is_known(&peer) {
            self.peers.seen(&peer, address, &mut self.effects, now);
            self.dial_due(now);
        }
    }

    /// Keeps the address that worked.
    pub(super) fn remember_address(&mut self, peer: PeerId, address: Address) {
        self.change_addresses(peer, |known| known.worked(address));
    }

    /// Takes what a peer says of where it is.
    pub(super) fn replace_addresses(&mut self, peer: PeerId, told: Vec<Address>) {
        if told.is_empty() {
            return;
        }
        let working = self.links.open_link(&peer).and_then(|link| {
            use super::io::Direction;
            (link.direction() == Direction::Dialled).then(|| link.address().clone())
        });
        self.change_addresses(peer, |known| known.told_by_itself(told, working.as_ref()));
    }

    fn change_addresses(&mut self, peer: PeerId, change: impl FnOnce(&mut Addresses)) {
        let record = self.peers.change_addresses(peer, change, &mut self.effects);
        if let Some(record) = record {
            self.effects.store(vec![record], None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_up_to_a_minute() {
        let waits: Vec<u64> = (1..=9).map(|failed| ceiling(failed).as_secs()).collect();

        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(ceiling(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn the_wait_is_anywhere_below_the_ceiling() {
        let mut effects = Effects::new([1; 32]);
        let waits: Vec<Duration> = (0..1000)
            .map(|_| effects.jitter(Duration::from_secs(8)))
            .collect();

        assert!(waits.iter().all(|&w| w <= Duration::from_secs(8)));
        assert!(waits.iter().any(|&w| w < Duration::from_secs(1)));
        assert!(waits.iter().any(|&w| w > Duration::from_secs(7)));
    }
}
