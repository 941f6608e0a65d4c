//! Which date counts when something is deleted or given up for its age.
//!
//! The calendar clock of a small machine may be years ahead for a while: a wrong time server, a
//! battery clock that lost its mind. Dates that people see follow it at once; what cannot be undone
//! does not. A date that is further ahead than time can have passed since a date that is known is
//! doubted until something else says it, too: an NTP server, most of the clocks of the connected
//! members, or this clock itself, by going on evenly for a day. A machine that really was off for
//! years so finds back by itself.
//!
//! The known date itself may be wrong: a clock that leapt before this program doubted dates left one
//! in 2037, and whatever comes before that would be believed. So a known date that the clock is far
//! behind of goes back to it when an NTP server or most of the members say the same as the clock, or
//! the clock goes on evenly for a day and they do not disagree. A date that is known too early is no
//! danger: it has more dates doubted, not fewer.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    CLOCK_SET_MS, State,
    io::{Event, Now, Record},
    millis,
    timers::Timer,
};

/// How far ahead of a known date the clock is believed. The known date is written once an hour, and
/// a restart takes a while.
const AHEAD_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a doubted clock goes on evenly until it is believed: whoever would set it right has
/// noticed by then.
const EVEN_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clock may move against the monotonic one between two looks and still go on evenly.
const STEP_MS: u64 = 10_000;

/// How long messages that the doubted date would end wait for a comparison with the clock of their
/// recipient, once it is connected.
const COMPARE_TIME: Duration = Duration::from_secs(10);

/// Longest time between two messages of a history that tells the date. What is dated later is taken
/// for a clock that leapt; a node that was quiet for longer knows an early date, which is no danger.
const GAP_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Returns the date that the dates of messages tell, the earliest first: the last one before a gap
/// of years.
pub fn date_of_history(dates: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut last = None;
    for date_ms in dates.into_iter().filter(|&ms| ms >= CLOCK_SET_MS) {
        if last.is_some_and(|last: u64| date_ms > last.saturating_add(millis(GAP_MAX))) {
            break;
        }
        last = Some(date_ms);
    }
    last
}

/// A date, and the moment at which it had come.
#[derive(Clone, Copy, Debug)]
struct Known {
    date_ms: u64,
    at: Duration,
}

/// What is known of the date.
#[derive(Debug)]
pub(super) struct Calendar {
    /// Nothing if no date was ever known.
    known: Option<Known>,
    last: Now,
    /// Since when the clock goes on evenly.
    even_since: Duration,
    is_doubted: bool,
    /// Whether something on disk may be dated by a clock that was not set.
    has_undated: bool,
}

impl Calendar {
    /// Begins with the date that is known to have come, if one is.
    pub(super) fn new(known_ms: Option<u64>, now: Now) -> Self {
        let mut calendar = Self {
            known: known_ms.map(|date_ms| Known {
                date_ms,
                at: now.mono,
            }),
            last: now,
            even_since: now.mono,
            is_doubted: false,
            has_undated: true,
        };
        calendar.look(now);
        calendar
    }

    /// Returns the date that counts for age: the clock's, or the known one while that is doubted.
    pub(super) fn believed(&self, now: Now) -> Now {
        match self.known_ms(now.mono) {
            Some(known_ms) if is_ahead(now, known_ms) => Now {
                unix_us: known_ms * 1000,
                ..now
            },
            _ => now,
        }
    }

    pub(super) const fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Returns the date that is known to have come.
    fn known_ms(&self, mono: Duration) -> Option<u64> {
        let known = self.known?;
        Some(
            known
                .date_ms
                .saturating_add(millis(mono.saturating_sub(known.at))),
        )
    }

    /// Looks at the clocks; returns whether the date is doubted from now on, or not any more.
    fn look(&mut self, now: Now) -> Option<bool> {
        if !goes_on_evenly(self.last, now) {
            self.even_since = now.mono;
        }
        self.last = now;
        if !is_set(now) {
            self.has_undated = true;
            return None;
        }
        let known_ms = self.known_ms(now.mono);
        let is_doubted = known_ms.is_some_and(|known_ms| is_ahead(now, known_ms));
        if !is_doubted {
            self.know(known_ms.unwrap_or(0).max(now.unix_ms()), now);
        }
        let changed = is_doubted != self.is_doubted;
        self.is_doubted = is_doubted;
        changed.then_some(is_doubted)
    }

    /// Says whether the clock is set by now, and was not before.
    fn becomes_set(&self, now: Now) -> bool {
        is_set(now) && !is_set(self.last)
    }

    fn has_gone_on_evenly(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.even_since) >= EVEN_TIME
    }

    /// Says whether the clock is so far behind the known date that one of the two is wrong.
    fn is_behind(&self, now: Now) -> bool {
        let behind = |known_ms| known_ms > now.unix_ms().saturating_add(millis(AHEAD_MAX));
        is_set(now) && self.known_ms(now.mono).is_some_and(behind)
    }

    fn know(&mut self, date_ms: u64, now: Now) {
        self.known = Some(Known {
            date_ms,
            at: now.mono,
        });
    }
}

/// Says whether the calendar clock is set.
pub(super) const fn is_set(now: Now) -> bool {
    now.unix_ms() >= CLOCK_SET_MS
}

fn is_ahead(now: Now, known_ms: u64) -> bool {
    now.unix_ms() > known_ms.saturating_add(millis(AHEAD_MAX))
}

fn goes_on_evenly(last: Now, now: Now) -> bool {
    let passed = millis(now.mono.saturating_sub(last.mono));
    let expected = last.unix_ms().saturating_add(passed);
    expected.abs_diff(now.unix_ms()) <= STEP_MS
}

impl State {
    /// Returns both clocks with the date that counts for age.
    pub(super) fn believed(&self, now: Now) -> Now {
        self.calendar.believed(now)
    }

    /// Looks at the clocks, before anything is done by them.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if self.calendar.becomes_set(now) {
            // What came before gets its date.
            self.effects.timers().set(Timer::Prune, now.mono);
        }
        let changed = self.calendar.look(now);
        self.tell_of_clock(changed, now);
        if self.calendar.is_doubted && self.calendar.has_gone_on_evenly(now) {
            // Members whose clocks say otherwise are more likely to be right.
            let confirmed_ms = self.confirmed_by_members(now);
            if confirmed_ms.is_none_or(|ms| ms >= now.unix_ms()) {
                self.date_confirmed(now.unix_ms(), now);
            }
        }
        if self.calendar.is_behind(now) && self.calendar.has_gone_on_evenly(now) {
            self.go_back(|agree| agree.unwrap_or(true), now);
        }
    }

    /// Takes the known date back to that of the clock, if what is known of the members' clocks allows
    /// it: whether most of them agree, or nothing if there are none.
    fn go_back(&mut self, is_allowed: impl FnOnce(Option<bool>) -> bool, now: Now) {
        let dates = self.dates_of_clocks(now);
        let most = dates.map(|dates| dates[dates.len() / 2]);
        let limit_ms = now.unix_ms().saturating_add(millis(AHEAD_MAX));
        if is_allowed(most.map(|date_ms| date_ms <= limit_ms)) {
            self.calendar.know(now.unix_ms(), now);
            // The next start knows it, too.
            self.effects.timers().set(Timer::Prune, now.mono);
        }
    }

    /// Tells that the node starts with a date that is doubted, if it does.
    pub(super) fn tell_of_doubt(&mut self, now: Now) {
        let changed = self.calendar.is_doubted.then_some(true);
        self.tell_of_clock(changed, now);
    }

    /// An NTP server says the date, too.
    pub(super) fn clock_confirmed(&mut self, now: Now) {
        self.date_confirmed(now.unix_ms(), now);
    }

    /// A member's clock was compared with this one.
    pub(super) fn clock_compared(&mut self, peer: PeerId, now: Now) {
        if self.calendar.is_behind(now) {
            self.go_back(|agree| agree.unwrap_or(false), now);
        }
        if !self.calendar.is_doubted {
            return;
        }
        if let Some(date_ms) = self.confirmed_by_members(now) {
            self.date_confirmed(date_ms, now);
        }
        // What waited for this either ended, or goes.
        self.messages.resend_now(&peer);
        self.messages_due(now);
    }

    /// Returns the date that at least half of the known clocks have reached, this node's among them;
    /// nothing if there is no other.
    fn confirmed_by_members(&self, now: Now) -> Option<u64> {
        let dates = self.dates_of_clocks(now)?;
        Some(dates[(dates.len() - 1) / 2])
    }

    /// Returns the dates of the known clocks, this node's among them, the earliest first; nothing if
    /// there is no other. What was read before this clock was last set says nothing.
    fn dates_of_clocks(&self, now: Now) -> Option<Vec<u64>> {
        let peers = self.links.open_peers();
        let since = self.calendar.even_since;
        let offsets = peers.filter_map(|peer| self.sync.offset_since(&peer, since));
        let dates = offsets.map(|us| now.unix_us.saturating_add_signed(us) / 1000);
        let mut dates: Vec<u64> = dates.filter(|&ms| ms >= CLOCK_SET_MS).collect();
        if dates.is_empty() {
            return None;
        }
        dates.push(now.unix_ms());
        dates.sort_unstable();
        Some(dates)
    }

    fn date_confirmed(&mut self, date_ms: u64, now: Now) {
        if date_ms < CLOCK_SET_MS {
            return;
        }
        let is_later = self
            .calendar
            .known_ms(now.mono)
            .is_none_or(|ms| ms < date_ms);
        if is_later || date_ms == now.unix_ms() {
            self.calendar.know(date_ms, now);
        }
        let changed = self.calendar.look(now);
        self.tell_of_clock(changed, now);
    }

    fn tell_of_clock(&mut self, changed: Option<bool>, now: Now) {
        match changed {
            Some(true) => {
                let known_ms = self.calendar.known_ms(now.mono).unwrap_or(0);
                let ahead_ms = now.unix_ms().saturating_sub(known_ms);
                self.effects.event(Event::ClockDoubted { ahead_ms });
                let peers: Vec<PeerId> = self.links.open_peers().collect();
                for peer in peers {
                    self.compare_clocks(peer, now);
                }
            }
            Some(false) => {
                self.effects.event(Event::ClockBelieved);
                // What is over by the date that is believed now ends.
                let now = self.believed(now);
                self.messages.count_time_anew(now);
                self.clients.count_time_anew(now);
                self.effects.timers().set(Timer::Prune, now.mono);
            }
            None => {}
        }
    }

    /// Returns what dates the messages that came while the clock was not set, if there may be some:
    /// they are as old as that, as far as anybody knows.
    pub(super) fn restamp(&mut self, believed: Now) -> Option<Record> {
        let unix_ms = believed.unix_ms();
        let is_due = is_set(believed) && std::mem::take(&mut self.calendar.has_undated);
        is_due.then_some(Record::Restamp { unix_ms })
    }

    /// Returns the known date as it goes to the disk, where the next start finds it.
    pub(super) fn date_record(&self, now: Now) -> Option<Record> {
        let unix_ms = self.calendar.known_ms(now.mono)?;
        Some(Record::Date { unix_ms })
    }

    /// Returns until when nothing is sent to a member, because messages to it would be over by a
    /// date that is doubted, and its clock will soon say whether they are.
    pub(super) fn waits_for_comparison(&self, peer: &PeerId, now: Now) -> Option<Duration> {
        if !self.calendar.is_doubted || !self.messages.is_over_by(peer, now) {
            return None;
        }
        let opened_at = self.links.open_link(peer)?.opened_at()?;
        let until = opened_at + COMPARE_TIME;
        let since = opened_at.max(self.calendar.even_since);
        let is_compared = self.sync.compared_since(peer, since);
        (!is_compared && now.mono < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// The clocks after some time, with the calendar ahead of where it should be.
    fn clocks(mono: Duration, ahead: Duration) -> Now {
        Now {
            mono,
            unix_us: 1_800_000_000_000_000 + crate::state::micros(mono + ahead),
        }
    }

    fn date_ms(after: Duration) -> u64 {
        1_800_000_000_000 + millis(after)
    }

    #[test]
    fn a_clock_that_goes_on_from_the_known_date_is_believed() {
        let start = clocks(Duration::ZERO, HOUR);
        let mut calendar = Calendar::new(Some(date_ms(Duration::ZERO)), start);

        assert_eq!(calendar.believed(start), start);
        let later = clocks(50 * DAY, HOUR);
        assert_eq!(calendar.look(later), None);
        assert_eq!(calendar.believed(later), later);
    }

    #[test]
    fn a_clock_that_leaps_is_doubted_and_believed_again_when_it_comes_back() {
        for leap in [8 * DAY, 11 * 365 * DAY] {
            let mut calendar = Calendar::new(None, clocks(Duration::ZERO, Duration::ZERO));
            let leapt = clocks(HOUR, leap);

            assert_eq!(calendar.look(leapt), Some(true));
            assert_eq!(calendar.believed(leapt).unix_ms(), date_ms(HOUR));
            let back = clocks(2 * HOUR, Duration::ZERO);
            assert_eq!(calendar.look(back), Some(false));
            assert_eq!(calendar.believed(back), back);
        }
    }

    #[test]
    fn a_clock_that_leapt_while_the_machine_was_off_is_doubted_from_the_start() {
        let start = clocks(Duration::ZERO, 8 * DAY);
        let calendar = Calendar::new(Some(date_ms(Duration::ZERO)), start);

        assert!(calendar.is_doubted());
        assert_eq!(calendar.believed(start).unix_ms(), date_ms(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_is_not_set_neither_counts_nor_changes_what_is_known() {
        let unset = Now {
            mono: Duration::ZERO,
            unix_us: 1_000_000,
        };
        let mut calendar = Calendar::new(None, unset);
        assert_eq!(calendar.believed(unset), unset);

        let set = clocks(HOUR, Duration::ZERO);
        assert_eq!(calendar.look(set), None, "the first date is believed");
        assert_eq!(calendar.believed(set), set);
    }

    #[test]
    fn a_history_tells_the_last_date_before_a_gap_of_years() {
        let days = |days: &[u32]| {
            let dates = days.iter().map(|days| date_ms(*days * DAY));
            date_of_history(dates.collect::<Vec<_>>())
        };

        assert_eq!(days(&[]), None);
        assert_eq!(days(&[1, 2, 400, 11 * 365]), Some(date_ms(400 * DAY)));
        assert_eq!(days(&[1, 2, 403]), Some(date_ms(2 * DAY)));
        assert_eq!(days(&[4_000]), Some(date_ms(4_000 * DAY)));
        assert_eq!(date_of_history([0, 1, CLOCK_SET_MS - 1]), None);
    }

    #[test]
    fn evenness_is_counted_from_the_last_step() {
        let mut calendar = Calendar::new(None, clocks(Duration::ZERO, Duration::ZERO));
        calendar.look(clocks(HOUR, 8 * DAY));

        let almost = clocks(25 * HOUR - Duration::from_secs(1), 8 * DAY);
        calendar.look(almost);
        assert!(!calendar.has_gone_on_evenly(almost));
        let day = clocks(25 * HOUR, 8 * DAY);
        calendar.look(day);
        assert!(calendar.has_gone_on_evenly(day));
        let step = clocks(26 * HOUR, 9 * DAY);
        calendar.look(step);
        assert!(!calendar.has_gone_on_evenly(step));
    }
}
