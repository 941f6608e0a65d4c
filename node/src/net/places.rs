//! A limited number of places for tasks, such as connections that are being set up.
//!
//! A newcomer always gets a place: when there are none left, the oldest task of the source that
//! holds most is aborted for it. An aborted task ends only when it runs next, and holds what it
//! holds until then, so those who make tasks also ask whether many are still there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::future::AbortHandle;

use crate::limits::{Shares, Source};

/// The places, and who holds them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Table>>);

struct Table {
    max: usize,
    shares: Shares<Source, u64>,
    handles: BTreeMap<u64, AbortHandle>,
    /// Tasks that have not ended, aborted ones among them.
    unended: usize,
    /// Who waits until fewer tasks are there.
    waiting: Option<Waker>,
    next: u64,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            max,
            shares: Shares::new(max),
            handles: BTreeMap::new(),
            unended: 0,
            waiting: None,
            next: 0,
        })))
    }

    /// Gives a task a place; aborts those that give way for it.
    pub(super) fn take(&self, source: &Source, handle: AbortHandle) -> Place {
        let mut table = self.lock();
        let key = table.next;
        table.next += 1;
        table.unended += 1;
        table.handles.insert(key, handle);
        for older in table.shares.add(source, key, 1) {
            if let Some(handle) = table.handles.remove(&older) {
                handle.abort();
            }
        }
        Place {
            places: self.clone(),
            key,
        }
    }

    /// Is ready while less than twice as many tasks are there as there are places: the aborted ones
    /// have mostly ended.
    pub(super) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut table = self.lock();
        if table.unended < 2 * table.max {
            return Poll::Ready(());
        }
        table.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one task; free again when this is dropped.
pub(super) struct Place {
    places: Places,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.lock();
        table.shares.remove(self.key);
        table.handles.remove(&self.key);
        table.unended -= 1;
        if let Some(waiting) = table.waiting.take() {
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const MAX: usize = 64;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    #[test]
    fn a_task_from_elsewhere_ends_the_oldest_of_a_crowd_and_a_dropped_one_leaves_its_place() {
        let places = Places::new(MAX);
        let begin = |from| {
            let (handle, _) = AbortHandle::new_pair();
            (handle.clone(), places.take(&source(from), handle))
        };
        let mut crowd: Vec<_> = (0..MAX).map(|_| begin(1)).collect();

        let (other, _other_place) = begin(2);

        let aborted: Vec<bool> = crowd
            .iter()
            .map(|(handle, _)| handle.is_aborted())
            .collect();
        assert!(aborted[0] && !aborted[1..].contains(&true) && !other.is_aborted());
        drop(crowd.split_off(MAX / 2));
        let _third = begin(3);
        assert!(!crowd[1].0.is_aborted(), "there is room again");
        drop(crowd);
        assert_eq!(places.lock().handles.len(), 2, "those from elsewhere");
    }

    #[test]
    fn no_more_tasks_are_begun_while_the_aborted_ones_have_not_ended() {
        let places = Places::new(MAX);
        let waker = futures::task::noop_waker();
        let ready = || places.poll_ready(&Context::from_waker(&waker)).is_ready();
        let mut begun = Vec::new();
        while ready() {
            begun.push(places.take(&source(1), AbortHandle::new_pair().0));
            assert!(begun.len() <= 2 * MAX, "bounded");
        }
        assert_eq!(begun.len(), 2 * MAX);

        begun.pop();

        assert!(ready());
    }
}
