//! Integers that wait for their time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;
use pimesh_node::{proto::iid::Date, state::report::Integer};
use tokio::time::Instant;

/// Most integers that are held back; more are shown at once, the next due first.
pub(super) const HELD_MAX: usize = 65_536;

/// A place in the order: when, and which came first of those.
type Place = (Instant, u64);

/// Integers that wait for their time. Those of one sender with one date are due together, and stay
/// in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: BTreeMap<Place, VecDeque<Integer>>,
    places: BTreeMap<(PeerId, Date), Place>,
    count: usize,
    next: u64,
}

impl Held {
    /// Adds an integer that is due after this time, or gives it back if it need not wait. Returns
    /// the one that is due next instead if there are too many.
    pub(super) fn push(&mut self, integer: Integer, wait: Option<Duration>) -> Pushed {
        let key = (integer.peer_id, integer.date);
        let place = match (self.places.get(&key).copied(), wait) {
            (Some(place), _) if is_held(&integer) => place,
            (_, None) => return Pushed::Now(integer),
            (_, Some(wait)) => {
                // The time is computed once: read anew for each, equal dates would change places.
                let place = (Instant::now() + wait, self.next);
                self.next += 1;
                self.places.insert(key, place);
                place
            }
        };
        self.waiting.entry(place).or_default().push_back(integer);
        self.count += 1;
        if self.count <= HELD_MAX {
            return Pushed::Waits;
        }
        self.pop().map_or(Pushed::Waits, Pushed::TooMany)
    }

    /// Waits for the next integer that is due. Cancel safe.
    pub(super) async fn due(&mut self) -> Integer {
        loop {
            let Some(&(at, _)) = self.waiting.keys().next() else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(at).await;
            if let Some(integer) = self.pop() {
                return integer;
            }
        }
    }

    /// Takes the integer that is due next.
    fn pop(&mut self) -> Option<Integer> {
        let mut first = self.waiting.first_entry()?;
        let integer = first.get_mut().pop_front()?;
        if first.get().is_empty() {
            first.remove();
            self.places.remove(&(integer.peer_id, integer.date));
        }
        self.count -= 1;
        Some(integer)
    }
}

/// What became of an integer.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// It is due already.
    Now(Integer),
    /// It waits, and this one had to go early.
    TooMany(Integer),
}

/// Says whether the date of an integer is a time at which to carry it out.
pub(super) const fn is_held(integer: &Integer) -> bool {
    integer.held && !integer.last_known
}

#[cfg(test)]
mod tests {
    use pimesh_node::proto::iid::{Index, Value};

    use super::*;

    fn integer(value: i32, date: u64) -> Integer {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        Integer {
            index: Index(1),
            value: Value(value),
            date: Date(date),
            from: "a".to_owned(),
            peer_id: key.public().to_peer_id(),
            sent_ms: 0,
            received_us: 0,
            clock_offset_us: None,
            held: true,
            bridged: false,
            last_known: false,
        }
    }

    fn all(held: &mut Held) -> Vec<i32> {
        std::iter::from_fn(|| held.pop())
            .map(|integer| integer.value.0)
            .collect()
    }

    #[test]
    fn integers_for_one_time_keep_their_order() {
        let mut held = Held::default();
        for value in 0..50_i32 {
            // As the clock is read for each, what is left of the time is less each time.
            let wait = Duration::from_micros(200_000 - 7 * u64::from(value.unsigned_abs()));
            assert!(matches!(
                held.push(integer(value, 9), Some(wait)),
                Pushed::Waits
            ));
        }
        // The time has come, and the first ones are still being shown.
        assert!(matches!(held.push(integer(50, 9), None), Pushed::Waits));

        assert_eq!(all(&mut held), (0..=50).collect::<Vec<_>>());
        assert!(matches!(held.push(integer(51, 9), None), Pushed::Now(_)));
    }

    #[test]
    fn an_earlier_time_comes_first_and_too_many_go_early() {
        let mut held = Held::default();
        held.push(integer(1, 20), Some(Duration::from_secs(20)));
        held.push(integer(2, 10), Some(Duration::from_secs(10)));
        assert_eq!(all(&mut held), [2, 1]);

        for value in 0..65_536 {
            held.push(integer(value, 9), Some(Duration::from_secs(3600)));
        }
        let early = held.push(integer(-1, 8), Some(Duration::ZERO));

        assert!(matches!(early, Pushed::TooMany(integer) if integer.value == Value(-1)));
    }
}
