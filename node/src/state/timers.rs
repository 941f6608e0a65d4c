//! When something is to be done: one table, in which each part sets what waits for its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::work::look;

/// What is done when its time has come. What is due together is done in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The inviter is dialled again, or the join is given up.
    Join,
    /// The goodbye to a mesh that was left is over.
    Farewell,
    /// A member is dialled.
    Dial(PeerId),
    /// Messages to members are sent again, or given up.
    Messages,
    /// Messages to P2SN clients are given up.
    Clients,
    /// Members are told about users again.
    Telling,
    /// Clocks are compared with all members.
    Clocks,
    /// The warning that two machines have this peer's identity is over.
    Copied(PeerId),
    /// A key exchange with a member is tried again.
    Exchange(PeerId),
    /// What is too old is deleted.
    Prune,
}

impl Timer {
    /// Says whether it ends with the mesh.
    const fn is_of_mesh(self) -> bool {
        match self {
            Self::Dial(_) | Self::Clocks | Self::Copied(_) | Self::Exchange(_) => true,
            Self::Join
            | Self::Farewell
            | Self::Messages
            | Self::Clients
            | Self::Telling
            | Self::Prune => false,
        }
    }
}

/// Every timer that is set, once, on the clock that never jumps.
#[derive(Debug, Default)]
pub(super) struct Timers {
    in_order: BTreeSet<(Duration, Timer)>,
    times: BTreeMap<Timer, Duration>,
}

impl Timers {
    /// Sets a timer, whatever it was set to before.
    pub(super) fn set(&mut self, timer: Timer, at: Duration) {
        match self.times.insert(timer, at) {
            Some(before) if before == at => return,
            Some(before) => self.in_order.remove(&(before, timer)),
            None => false,
        };
        self.in_order.insert((at, timer));
    }

    /// Sets a timer, unless it is set to an earlier time.
    pub(super) fn set_by(&mut self, timer: Timer, at: Duration) {
        if self.times.get(&timer).is_none_or(|before| at < *before) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.times.remove(&timer) {
            self.in_order.remove(&(at, timer));
        }
    }

    /// Sets a timer if there is a time for it, and cancels it if there is none.
    pub(super) fn put(&mut self, timer: Timer, at: Option<Duration>) {
        match at {
            Some(at) => self.set(timer, at),
            None => self.cancel(timer),
        }
    }

    /// Returns when the first one is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes out those that are due. A timer that is set again meanwhile, even in the past, comes up at
    /// the next call, so that the caller's loop ends.
    pub(super) fn take_due(
        &mut self,
        now: Duration,
        which: impl Fn(&Timer) -> bool,
    ) -> BTreeSet<Timer> {
        let due = self.in_order.iter().take_while(|(at, _)| {
            look();
            *at <= now
        });
        let due = due.map(|(_, timer)| *timer).filter(which);
        let due: BTreeSet<Timer> = due.collect();
        for timer in &due {
            self.cancel(*timer);
        }
        due
    }

    /// Cancels what belongs to a mesh that was left.
    pub(super) fn leave_mesh(&mut self) {
        self.in_order.retain(|(_, timer)| !timer.is_of_mesh());
        self.times.retain(|timer, _| !timer.is_of_mesh());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mesh::peer_of_seed;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(timers: &mut Timers, seconds: u64) -> Vec<Timer> {
        timers.take_due(at(seconds), |_| true).into_iter().collect()
    }

    #[test]
    fn what_is_due_is_taken_once_and_in_one_order_whatever_the_times() {
        let mut timers = Timers::default();
        timers.set(Timer::Prune, at(1));
        timers.set(Timer::Dial(peer_of_seed(2)), at(3));
        timers.set(Timer::Join, at(2));
        timers.set(Timer::Clocks, at(4));

        assert_eq!(timers.next(), Some(at(1)));
        let expected = [Timer::Join, Timer::Dial(peer_of_seed(2)), Timer::Prune];
        assert_eq!(due(&mut timers, 3), expected);
        assert_eq!(due(&mut timers, 3), []);
        assert_eq!(timers.next(), Some(at(4)));
    }

    #[test]
    fn a_timer_has_one_time_the_last_or_the_earliest_that_was_said() {
        let mut timers = Timers::default();
        timers.set(Timer::Clocks, at(5));
        timers.set_by(Timer::Clocks, at(7));
        assert_eq!(timers.next(), Some(at(5)));
        timers.set_by(Timer::Clocks, at(3));
        assert_eq!(timers.next(), Some(at(3)));

        timers.set(Timer::Clocks, at(9));

        assert_eq!(due(&mut timers, 8), []);
        timers.cancel(Timer::Clocks);
        assert_eq!(timers.next(), None);
        timers.put(Timer::Clocks, Some(at(1)));
        timers.put(Timer::Clocks, None);
        assert_eq!(due(&mut timers, 9), []);
    }

    #[test]
    fn a_timer_that_is_set_in_the_past_waits_for_the_next_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Prune, at(1));

        for _ in 0..10 {
            for timer in due(&mut timers, 5) {
                timers.set(timer, at(0));
            }
        }

        assert_eq!(due(&mut timers, 5), [Timer::Prune]);
    }

    #[test]
    fn what_belongs_to_a_mesh_ends_with_it() {
        let mut timers = Timers::default();
        timers.set(Timer::Dial(peer_of_seed(2)), at(1));
        timers.set(Timer::Copied(peer_of_seed(1)), at(1));
        timers.set(Timer::Farewell, at(2));

        timers.leave_mesh();

        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(due(&mut timers, 9), [Timer::Farewell]);
    }
}
