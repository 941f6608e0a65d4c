//! Integers that come back: each echo is taken out once, and equal integers stay apart.
//!
//! Nothing in an integer says whether it is new. Equal integers with equal dates are legal (a key
//! pressed twice within the second that its date names), so being equal to an earlier one proves
//! nothing. Two things are kept instead (`proto-specs/iid.md`, section 6):
//!
//! * [`Passed`]: what went past just now, each with where it came from. It counts: what was sent
//!   once can come back once from each party.
//! * [`Mirrors`]: parties that were seen to pass on what came from elsewhere. Only of these is an
//!   equal integer taken for an echo. One integer of another party whose date tells it from all
//!   others is proof; dates in whole seconds are evidence that has to come together, and each
//!   integer that a party does not pass on speaks against it.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::proto::iid::{Date, Iid, Index, Value};

/// Dates from here on are times in milliseconds or finer; below are seconds, counters, or nothing
/// (`proto-specs/iid.md`, section 2.3).
const MS_MIN: u64 = 100_000_000_000;

/// Most integers that are remembered at once: 60 s of what two indices may send, and 2 s of far more
/// than a node sends. Each takes some hundred bytes.
const PASSED_MAX: usize = 16_384;

/// Most equal ones of them; more say nothing more.
const EQUAL_MAX: usize = 256;

/// Evidence that makes a mirror. Each integer that it does not pass on takes 1 away.
pub(super) const PROOF: u32 = 16;

/// What an integer counts that can only be another party's. Some that a mirror has not passed on
/// yet do not make it unknown.
pub(super) const CERTAIN: u32 = 64;

/// What an equal integer counts whose date names a second: four of five have to be equal.
pub(super) const HINT: u32 = 4;

/// Most evidence that is counted, so that of a mirror so many integers may be under way.
const EVIDENCE_MAX: u32 = 256;

/// How many equal integers with equal dates of one party within the span of [`Passed`] are a
/// circle: more than a person presses keys, less than a circle makes in a tenth of a second.
const CIRCLE_DATED: usize = 32;

/// The same where the date is no time, as of programs that send a state many times a second.
const CIRCLE_UNDATED: usize = 256;

/// How long a mirror that passes nothing on any more is one.
const MIRROR_TIME: Duration = Duration::from_secs(60);

/// Most parties that are suspected.
const PARTIES_MAX: usize = 256;

/// Says whether the date of an integer is a time at all.
pub(super) const fn is_dated(iid: &Iid) -> bool {
    /// 10^8 (`proto-specs/iid.md`, section 2.3).
    const TIME_MIN: u64 = 100_000_000;
    iid.date.0 >= TIME_MIN
}

/// Says whether the date of an integer tells it from nearly all others: it is finer than a second.
const fn is_fine(iid: &Iid) -> bool {
    iid.date.0 >= MS_MIN && !iid.date.0.is_multiple_of(1000)
}

type Key = (Value, Date);

/// What went past within a span of time. `P` is a party that integers come from.
#[derive(Debug)]
pub(super) struct Passed<P> {
    span: Duration,
    equal: HashMap<Key, VecDeque<One<P>>>,
    order: VecDeque<(Key, Instant)>,
}

#[derive(Debug)]
struct One<P> {
    at: Instant,
    index: Index,
    /// Where it came from; `None` is where no echo is looked for.
    from: Option<P>,
    /// Who brought it back.
    back: Vec<P>,
}

impl<P: Copy + Eq + Hash> Passed<P> {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            equal: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Notes an integer that goes past.
    pub(super) fn note(&mut self, iid: &Iid, from: Option<P>, now: Instant) {
        self.forget(now);
        let key = (iid.value, iid.date);
        let equal = self.equal.entry(key).or_default();
        if equal.len() >= EQUAL_MAX {
            equal.pop_front();
        }
        equal.push_back(One {
            at: now,
            index: iid.index,
            from,
            back: Vec::new(),
        });
        self.order.push_back((key, now));
    }

    /// Takes out the echo of one integer that a party has not brought back yet, if there is one.
    pub(super) fn take_back(&mut self, iid: &Iid, party: P, now: Instant) -> bool {
        self.forget(now);
        let equal = self.equal.get_mut(&(iid.value, iid.date));
        let mut equal = equal.into_iter().flatten();
        match equal.find(|one| !one.back.contains(&party)) {
            Some(one) => {
                one.back.push(party);
                true
            }
            None => false,
        }
    }

    /// Returns how much it says that a party brings this integer, before it is noted as that
    /// party's. `weigh` says what an equal integer with this index counts.
    fn evidence(&self, iid: &Iid, party: P, weigh: impl Fn(Index) -> u32) -> u32 {
        let Some(equal) = self.equal.get(&(iid.value, iid.date)) else {
            return 0;
        };
        let own = equal.iter().filter(|one| one.from == Some(party)).count();
        let circle = if is_dated(iid) {
            CIRCLE_DATED
        } else {
            CIRCLE_UNDATED
        };
        if own >= circle {
            return CERTAIN;
        }
        let of_others = equal.iter().filter(|one| one.from != Some(party));
        match of_others.map(|one| weigh(one.index)).max().unwrap_or(0) {
            0 => 0,
            _ if is_fine(iid) => CERTAIN,
            weight => weight,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(key, at)) = self.order.front() {
            if now.duration_since(at) < self.span && self.order.len() < PASSED_MAX {
                return;
            }
            self.order.pop_front();
            if let Some(equal) = self.equal.get_mut(&key) {
                // One that was crowded out is gone already.
                if equal.front().is_some_and(|one| one.at <= at) {
                    equal.pop_front();
                }
                if equal.is_empty() {
                    self.equal.remove(&key);
                }
            }
        }
    }
}

/// Parties that pass on what came from elsewhere.
#[derive(Debug)]
pub(super) struct Mirrors<P> {
    passed: Passed<P>,
    suspects: HashMap<P, (u32, Instant)>,
}

impl<P: Copy + Eq + Hash> Mirrors<P> {
    /// Begins to look; integers that went past longer ago than the span say nothing.
    pub(super) fn new(span: Duration) -> Self {
        Self {
            passed: Passed::new(span),
            suspects: HashMap::new(),
        }
    }

    /// Notes an integer, and from which party it came if from one of those that are looked at. All
    /// mirrors are expected to bring it.
    pub(super) fn note(&mut self, iid: &Iid, from: Option<P>, now: Instant) {
        self.passed.note(iid, from, now);
        for (party, (evidence, _)) in &mut self.suspects {
            if from != Some(*party) {
                *evidence = evidence.saturating_sub(1);
            }
        }
    }

    /// Takes out the echo of one integer that this party has not brought back yet, if there is one.
    pub(super) fn take_back(&mut self, iid: &Iid, party: P, now: Instant) -> bool {
        self.passed.take_back(iid, party, now)
    }

    /// Looks at an integer that a party brings; says whether this has shown the party to be a
    /// mirror, which it was not known to be.
    pub(super) fn look(
        &mut self,
        iid: &Iid,
        party: P,
        weigh: impl Fn(Index) -> u32,
        now: Instant,
    ) -> bool {
        self.passed.forget(now);
        let evidence = self.passed.evidence(iid, party, weigh);
        if evidence == 0 {
            return false;
        }
        self.suspects
            .retain(|_, (_, at)| now.duration_since(*at) < MIRROR_TIME);
        if self.suspects.len() >= PARTIES_MAX && !self.suspects.contains_key(&party) {
            return false;
        }
        let (known, at) = self.suspects.entry(party).or_insert((0, now));
        let before = *known;
        *known = known.saturating_add(evidence).min(EVIDENCE_MAX);
        *at = now;
        before < PROOF && *known >= PROOF
    }

    /// Takes an integer that a mirror brings for the echo of one that went past, if there is one that
    /// it has not brought back yet; that shows anew that it is a mirror.
    pub(super) fn take_echo(&mut self, iid: &Iid, party: P, now: Instant) -> bool {
        let is_echo = self.is_one(party, now) && self.take_back(iid, party, now);
        if is_echo {
            self.suspects.insert(party, (EVIDENCE_MAX, now));
        }
        is_echo
    }

    /// Says whether a party is known to be a mirror.
    pub(super) fn is_one(&self, party: P, now: Instant) -> bool {
        let found = self.suspects.get(&party);
        found.is_some_and(|(known, at)| *known >= PROOF && now.duration_since(*at) < MIRROR_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(2);
    const FINE: u64 = 1_700_000_000_123;
    const SECONDS: u64 = 1_700_000_000;

    fn iid(index: i32, date: u64) -> Iid {
        Iid {
            index: Index(index),
            value: Value(5),
            date: Date(date),
        }
    }

    #[test]
    fn what_was_sent_comes_back_once_from_each_party_and_then_is_new() {
        let (mut passed, now) = (Passed::new(SPAN), Instant::now());
        for _ in 0..2 {
            passed.note(&iid(7, SECONDS), None, now);
        }
        let mut take = |party| passed.take_back(&iid(7, SECONDS), party, now);

        assert_eq!([take('a'), take('a'), take('a')], [true, true, false]);
        assert_eq!([take('b'), take('b'), take('b')], [true, true, false]);
        let later = now + SPAN;
        passed.note(&iid(7, SECONDS), None, now);
        assert!(!passed.take_back(&iid(7, SECONDS), 'a', later), "too late");
        assert!(passed.equal.is_empty() && passed.order.is_empty());
    }

    #[test]
    fn equal_integers_of_one_party_are_no_echoes() {
        for date in [0, SECONDS, SECONDS * 1000, FINE] {
            let (mut mirrors, now) = (Mirrors::new(SPAN), Instant::now());
            for _ in 0..20 {
                assert!(!mirrors.look(&iid(7, date), 'a', |_| PROOF, now));
                mirrors.note(&iid(7, date), Some('a'), now);
            }
            assert!(!mirrors.is_one('a', now), "{date}");
        }
    }

    #[test]
    fn a_party_that_passes_on_what_only_another_can_have_made_is_a_mirror_for_a_minute() {
        let (mut mirrors, now) = (Mirrors::new(SPAN), Instant::now());
        mirrors.note(&iid(7, FINE), None, now);
        let only_8 = |index| if index == Index(8) { HINT } else { 0 };

        assert!(!mirrors.look(&iid(7, FINE), 'b', only_8, now));
        assert!(mirrors.look(&iid(7, FINE), 'a', |_| HINT, now));
        assert!(!mirrors.look(&iid(7, FINE), 'a', |_| HINT, now), "known");

        assert!(mirrors.is_one('a', now + Duration::from_secs(59)));
        assert!(!mirrors.is_one('a', now + Duration::from_secs(60)));
        assert!(!mirrors.is_one('b', now));
    }

    #[test]
    fn equal_keys_in_equal_seconds_make_a_mirror_only_when_nearly_all_are_equal() {
        let (mut mirrors, now) = (Mirrors::new(SPAN), Instant::now());
        // One presses the same key as the other in every fourth second, one in each.
        for second in 0..40 {
            let date = SECONDS + second;
            mirrors.note(&iid(7, date), None, now);
            if second % 4 == 0 {
                mirrors.look(&iid(8, date), 'a', |_| HINT, now);
            }
            mirrors.look(&iid(9, date), 'b', |_| HINT, now);
            assert_eq!(mirrors.is_one('b', now), second >= 4, "{second}");
        }
        assert!(!mirrors.is_one('a', now));
    }

    #[test]
    fn a_mirror_that_passes_nothing_on_any_more_is_none() {
        let (mut mirrors, now) = (Mirrors::new(SPAN), Instant::now());
        mirrors.note(&iid(7, FINE), None, now);
        mirrors.look(&iid(7, FINE), 'a', |_| HINT, now);
        assert!(mirrors.is_one('a', now));

        for more in 1..=48 {
            mirrors.note(&iid(7, FINE + more), None, now);
        }
        assert!(mirrors.is_one('a', now));
        mirrors.note(&iid(7, FINE + 49), None, now);

        assert!(!mirrors.is_one('a', now));
    }

    #[test]
    fn a_circle_is_seen_by_how_often_the_same_comes_round() {
        for (date, rounds) in [(0, 256), (SECONDS, 32), (FINE, 32)] {
            let (mut mirrors, now) = (Mirrors::new(SPAN), Instant::now());
            let mut count = 0;
            while !mirrors.look(&iid(7, date), 'a', |_| 0, now) {
                mirrors.note(&iid(7, date), Some('a'), now);
                count += 1;
                assert!(count <= 1000, "{date}");
            }
            assert_eq!(count, rounds, "{date}");
        }
    }
}
