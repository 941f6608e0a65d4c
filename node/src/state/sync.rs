//! What members tell each other about the mesh, and how their clocks differ.
//!
//! When a connection opens, each side tells everything: certificates, revocations, addresses, last
//! integers. What is new afterwards is told to everybody at once and passed on by whoever did not
//! know it, so it spreads and stops. News that got lost are made up for by telling everything again.
//! Once a minute a request compares clocks and says whose start is new (`copies`), and at once when
//! integers of a member seem to be of another time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{
    Asked, State,
    io::{InboundId, NetOutput, Now, OutboundId, OwnReach, Protocol},
    timers::Timer,
};
use crate::proto::mesh::{
    Address,
    sync::{ADDRESSES_PER_PEER_MAX, Request, Response},
};

/// How often clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// When clocks are compared for the first time on their own: the request that tells everything is
/// large, and both sides are busy with it.
const CLOCK_FIRST: Duration = Duration::from_secs(2);

/// How far two clocks may drift apart, as a share of the time: 100 ppm, more than a Pi's crystal.
const DRIFT: i64 = 10_000;

/// Shortest time between two comparisons with one member that follow hints.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// How long after news got lost everything is told again.
const REPEAT: Duration = Duration::from_secs(5);

/// Longest round trip at which a clock reading counts, in microseconds: with more, the two ways
/// may differ by more than the reading is worth.
const ROUND_TRIP_MAX_US: i64 = 1_000_000;

/// A reading of another clock. The truth is within half the round trip of it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    offset_us: i64,
    round_trip_us: i64,
    at: Duration,
}

impl Reading {
    /// How far from the truth this reading may be now.
    fn doubt_us(&self, now: Duration) -> i64 {
        let age = i64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(i64::MAX);
        self.round_trip_us / 2 + age / DRIFT
    }

    /// Returns the better of an earlier and a later reading (after the clock filter of RFC 5905,
    /// section 10). Two that exclude each other mean that a clock was set: the later one counts.
    fn better(self, later: Self, now: Duration) -> Self {
        let apart = self.offset_us.abs_diff(later.offset_us);
        let doubts = self.doubt_us(now).saturating_add(later.doubt_us(now));
        let was_set = apart > doubts.unsigned_abs();
        if was_set || later.doubt_us(now) <= self.doubt_us(now) {
            later
        } else {
            self
        }
    }
}

/// What is known of other clocks.
#[derive(Default)]
pub(super) struct Sync {
    readings: BTreeMap<PeerId, Reading>,
    /// When a hint last made us compare clocks.
    hinted: BTreeMap<PeerId, Duration>,
    /// Members that were told something and did not answer: it may not have reached them.
    untold: BTreeSet<PeerId>,
}

impl Sync {
    /// Returns a peer's clock minus ours.
    pub(super) fn offset_us(&self, peer: &PeerId) -> Option<i64> {
        self.readings.get(peer).map(|reading| reading.offset_us)
    }

    /// Returns a peer's clock minus ours, if it was read since a moment.
    pub(super) fn offset_since(&self, peer: &PeerId, since: Duration) -> Option<i64> {
        let reading = self.readings.get(peer)?;
        (reading.at >= since).then_some(reading.offset_us)
    }

    /// Returns how far the clocks of these peers and of this node are apart.
    pub(super) fn spread_us(&self, peers: impl Iterator<Item = PeerId>) -> u64 {
        let offsets = peers.filter_map(|peer| self.offset_us(&peer));
        // This node's own clock is at 0.
        let (first, last) = offsets.fold((0, 0), |(first, last): (i64, i64), offset| {
            (first.min(offset), last.max(offset))
        });
        last.abs_diff(first)
    }

    /// Says whether a peer's clock was read since a moment.
    pub(super) fn compared_since(&self, peer: &PeerId, since: Duration) -> bool {
        self.offset_since(peer, since).is_some()
    }

    /// Says whether the clock of a peer is compared on a hint: not again at once.
    fn take_hint(&mut self, peer: PeerId, now: Now) -> bool {
        let last = self.hinted.get(&peer);
        let is_due = last.is_none_or(|&at| now.mono >= at + HINT_INTERVAL);
        if is_due {
            self.hinted.insert(peer, now.mono);
        }
        is_due
    }

    /// Takes in when a peer's clock said that it had a request that was sent at this time of ours, and
    /// when it answered; says whether that is worth something.
    fn read(&mut self, peer: PeerId, sent_us: u64, response: &Response, now: Now) -> bool {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let (t0, t3) = (signed(sent_us), signed(now.unix_us));
        let (t1, t2) = (signed(response.received_us), signed(response.sent_us));
        let round_trip = t3.saturating_sub(t0).saturating_sub(t2.saturating_sub(t1));
        if !(0..=ROUND_TRIP_MAX_US).contains(&round_trip) {
            return false;
        }
        let reading = Reading {
            offset_us: t1.saturating_sub(t0).saturating_add(t2.saturating_sub(t3)) / 2,
            round_trip_us: round_trip,
            at: now.mono,
        };
        let known = self.readings.entry(peer).or_insert(reading);
        *known = known.better(reading, now.mono);
        true
    }

    /// Forgets the clocks of the members of a mesh that was left.
    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }
}

impl State {
    pub(super) fn own_addresses(&mut self, mut addresses: Vec<Address>, reach: OwnReach, now: Now) {
        addresses.truncate(ADDRESSES_PER_PEER_MAX);
        self.own.found(addresses, reach);
        let addresses = vec![(self.own.peer, self.own.addresses())];
        let request = Request {
            addresses,
            ..Request::default()
        };
        self.tell_all(&request, now);
    }

    /// Tells a peer everything that this node knows of the mesh.
    pub(super) fn tell_everything(&mut self, peer: PeerId, now: Now) {
        let members = self.membership.members().map(|(member, _)| member);
        let mut addresses: Vec<(PeerId, Vec<Address>)> = members
            .filter(|member| *member != peer)
            .map(|member| (member, self.peers.addresses_to_tell(&member)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        addresses.push((self.own.peer, self.own.addresses()));
        let (sightings, copied) = self.all_sightings(now);
        let request = Request {
            certificates: self.membership.certificates(),
            revocations: self.membership.revocations(),
            addresses,
            last: self.integers.last_values_of(&self.own.peer),
            sightings,
            copied,
            statements: self.membership.statements(),
            ..Request::default()
        };
        self.sync.untold.remove(&peer);
        self.tell(peer, &request, now);
        let timers = self.effects.timers();
        timers.set_by(Timer::Clocks, now.mono + CLOCK_FIRST);
    }

    /// Compares clocks with a member whose integers seem to be of another time: one of the two was
    /// set since, as that of a Pi is when it finds the network.
    pub(super) fn compare_clocks(&mut self, peer: PeerId, now: Now) {
        if self.links.is_open(&peer) && self.sync.take_hint(peer, now) {
            self.tell(peer, &Request::default(), now);
        }
    }

    /// Tells every connected member what is new.
    pub(super) fn tell_everybody(
        &mut self,
        certificates: Vec<Vec<u8>>,
        revocations: Vec<Vec<u8>>,
        now: Now,
    ) {
        let request = Request {
            certificates,
            revocations,
            ..Request::default()
        };
        self.tell_all(&request, now);
    }

    /// Tells every connected member this.
    pub(super) fn tell_all(&mut self, request: &Request, now: Now) {
        let peers: Vec<PeerId> = self.links.open_peers().collect();
        for peer in peers {
            self.tell(peer, request, now);
        }
    }

    /// Tells every connected member statements that are new.
    pub(super) fn tell_statements(&mut self, statements: Vec<Vec<u8>>, now: Now) {
        let request = Request {
            statements,
            ..Request::default()
        };
        self.tell_all(&request, now);
    }

    /// Tells a peer this; returns what its answer will be known by.
    pub(super) fn tell(&mut self, peer: PeerId, request: &Request, now: Now) -> OutboundId {
        let id = self.effects.ask(Asked::Sync {
            peer,
            sent_us: now.unix_us,
            news: request.has_news(),
        });
        let request = Request {
            boot: Some(self.copies.own()),
            ..request.clone()
        };
        let bytes = request.encode();
        self.effects.net(NetOutput::Request {
            peer,
            protocol: Protocol::Sync,
            id,
            bytes,
        });
        id
    }

    pub(super) fn sync_request(&mut self, peer: PeerId, id: InboundId, bytes: &[u8], now: Now) {
        let read = || Request::decode(bytes);
        let Some(request) = self.request_of(peer, id, "sync", read, now) else {
            return;
        };
        if self.under_way.is_leaving() {
            // What it tells would be dropped. Without an answer it is told again, should this node stay.
            return self.effects.net(NetOutput::Refuse { id });
        }
        let answer = Response {
            received_us: now.unix_us,
            sent_us: now.unix_us,
            boot: Some(self.copies.own()),
        }
        .encode();
        self.effects.net(NetOutput::Respond { id, bytes: answer });
        self.boot_heard(peer, request.boot, None, now);
        let (certificates, revocations) =
            self.learn_statements(request.certificates, request.revocations, now);
        if !certificates.is_empty() || !revocations.is_empty() {
            self.tell_everybody(certificates, revocations, now);
        }
        let statements = self.learn_told_statements(request.statements, now);
        if !statements.is_empty() {
            self.tell_statements(statements, now);
        }
        for (of, addresses) in request.addresses {
            if of == peer {
                self.replace_addresses(of, addresses);
            } else if of != self.own.peer && self.membership.is_known(&of) {
                self.peers
                    .hinted(peer, &of, &addresses, &mut self.effects, now);
            }
        }
        self.copies_told(peer, &request.sightings, &request.copied, now);
        self.learn_last_values(peer, request.last, now);
        self.dial_due(now);
    }

    pub(super) fn sync_answered(
        &mut self,
        peer: PeerId,
        id: OutboundId,
        (sent_us, news): (u64, bool),
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        if result.is_ok() {
            self.farewell_answered(&peer, id);
        }
        if news && result.is_err() && self.links.is_open(&peer) {
            self.sync.untold.insert(peer);
            let timers = self.effects.timers();
            timers.set_by(Timer::Clocks, now.mono + REPEAT);
        }
        let Ok(response) = result
            .map_err(drop)
            .and_then(|b| Response::decode(&b).map_err(drop))
        else {
            return;
        };
        self.boot_heard(peer, response.boot, Some(id.0), now);
        // An answer may come after this node has left the mesh of whoever gives it.
        let is_member = self.membership.is_known(&peer);
        if is_member && self.sync.read(peer, sent_us, &response, now) {
            self.clock_compared(peer, now);
        }
    }

    /// Compares clocks with all connected members, and again after a while.
    pub(super) fn sync_due(&mut self, now: Now) {
        let peers: Vec<PeerId> = self.links.open_peers().collect();
        let again = (!peers.is_empty()).then(|| now.mono + CLOCK_INTERVAL);
        self.effects.timers().put(Timer::Clocks, again);
        let round = self.round_of_sync(now);
        for peer in peers {
            if self.sync.untold.contains(&peer) {
                self.tell_everything(peer, now);
            } else {
                self.tell(peer, &round, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(offset_us: i64, round_trip_us: i64, at_s: u64) -> Reading {
        Reading {
            offset_us,
            round_trip_us,
            at: Duration::from_secs(at_s),
        }
    }

    /// Reads one after the other, and returns the offset that is believed in the end.
    fn believed(readings: &[Reading]) -> i64 {
        let mut readings = readings.iter();
        let first = *readings.next().expect("at least one");
        let better = |best: Reading, next: &Reading| best.better(*next, next.at);
        readings.fold(first, better).offset_us
    }

    #[test]
    fn the_reading_with_the_shortest_round_trip_counts() {
        assert_eq!(
            believed(&[reading(9_000, 20_000, 0), reading(100, 900, 2)]),
            100
        );
        assert_eq!(
            believed(&[reading(100, 900, 0), reading(9_000, 20_000, 2)]),
            100
        );
    }

    #[test]
    fn an_old_reading_gives_way_because_clocks_drift() {
        let hour = 3_600;
        assert_eq!(
            believed(&[reading(100, 900, 0), reading(5_000, 20_000, hour)]),
            5_000
        );
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        assert_eq!(
            believed(&[reading(100, 900, 0), reading(90_000_000, 20_000, 60)]),
            90_000_000
        );
    }
}
