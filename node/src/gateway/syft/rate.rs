//! How fast clients may be, and room for frames that wait.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::limits::Rate;

/// Wrong tokens and signatures from one address. A client that lost its connection tries at once
/// and then every five seconds, so this stands in nobody's way.
pub(super) const FAILURES: Rate = Rate {
    per_second: 10,
    burst: 200,
};

/// What a registration takes from the bucket of its address, which fills by one each second: four
/// a minute, after those that are let through at once.
pub(super) const REGISTRATION_UNITS: u32 = 15;

/// Registrations from one address, of which so many are let through at once.
pub(super) const fn registrations(at_once: u32) -> Rate {
    Rate {
        per_second: 1,
        burst: at_once.saturating_mul(REGISTRATION_UNITS),
    }
}

/// Bytes of frames that wait to be carried, of all clients together: what a Pi can spare.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Room for frames that wait, shared by all clients. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// Room that is taken; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken {
            room: self.clone(),
            bytes,
        };
        (before + bytes <= WAITING_BYTES_MAX).then_some(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_free_when_what_took_it_is_gone() {
        let room = Room::default();
        let all = room.take(WAITING_BYTES_MAX).expect("empty");
        assert!(room.take(1).is_none());
        drop(all);
        assert!(room.take(1).is_some());
    }
}
