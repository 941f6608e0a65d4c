//! What goes because it is old, once an hour.

use std::time::Duration;

use super::{
    State,
    calendar::is_set,
    io::{Now, Record},
    millis,
    timers::Timer,
};

/// How often it is looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60 * 60);

impl State {
    /// Deletes what is too old, and what is more than fits.
    pub(super) fn prune(&mut self, now: Now) {
        let timers = self.effects.timers();
        timers.set(Timer::Prune, now.mono + PRUNE_INTERVAL);
        let believed = self.believed(now);
        self.prune_letters(believed);
        self.prune_records(believed);
        self.prune_users(believed);
        // A clock that is not set says nothing about age.
        let age_max_ms = millis(self.settings.history_age_max);
        let before_ms = if is_set(now) {
            believed.unix_ms().saturating_sub(age_max_ms)
        } else {
            0
        };
        let bytes_max = self.history_limit();
        let mut records: Vec<Record> = self.restamp(believed).into_iter().collect();
        records.push(Record::Prune {
            before_ms,
            bytes_max,
        });
        if is_set(now) {
            records.extend(self.date_record(now));
        }
        self.effects.store(records, None);
    }
}
