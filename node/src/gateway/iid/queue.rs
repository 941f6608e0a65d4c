//! What waits to be written to one client. Bounded: a client that does not read loses its own
//! connection, and delays nobody else.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::proto::iid::Iid;

/// Most integers that wait for one client: 64 KiB of them.
pub(super) const QUEUE_MAX: usize = 4096;

/// Integers for one client.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    iids: VecDeque<Iid>,
    overflowed: bool,
}

/// The client did not read what it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Queue {
    /// Adds integers. If there is no room for all, none of them and nothing more is added.
    pub(super) fn push(&self, iids: &[Iid]) {
        let mut waiting = self.lock();
        if waiting.overflowed {
            return;
        }
        if waiting.iids.len() + iids.len() > QUEUE_MAX {
            waiting.overflowed = true;
        } else {
            waiting.iids.extend(iids);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Waits for integers, and takes all.
    pub(super) async fn take(&self) -> Result<Vec<Iid>, Overflow> {
        loop {
            let taken: Vec<Iid> = {
                let mut waiting = self.lock();
                if waiting.overflowed {
                    return Err(Overflow);
                }
                waiting.iids.drain(..).collect()
            };
            self.room.notify_one();
            if !taken.is_empty() {
                return Ok(taken);
            }
            self.news.notified().await;
        }
    }

    /// Waits until at most half of the room is taken. Whoever hears its own integers asks this
    /// before it sends more, so that it does not overflow its own queue.
    pub(super) async fn room(&self) {
        while self.lock().iids.len() > QUEUE_MAX / 2 {
            self.room.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::proto::iid::{Date, Index, Value};

    fn iids(count: usize) -> Vec<Iid> {
        let iid = |value: usize| Iid {
            index: Index(7),
            value: Value(value as i32),
            date: Date(0),
        };
        (0..count).map(iid).collect()
    }

    #[tokio::test]
    async fn integers_come_out_in_order_and_all_at_once() {
        let queue = Queue::default();
        queue.push(&iids(3)[..2]);
        queue.push(&iids(3)[2..]);

        assert_eq!(queue.take().await, Ok(iids(3)));
        assert!(queue.take().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_queue_that_is_full_ends_and_takes_nothing_more() {
        let queue = Queue::default();
        queue.push(&iids(QUEUE_MAX));
        queue.push(&iids(1));
        queue.push(&iids(1));

        assert_eq!(queue.take().await, Err(Overflow));
    }

    #[tokio::test]
    async fn who_sends_waits_until_half_of_its_queue_is_read() {
        let queue = Queue::default();
        queue.push(&iids(QUEUE_MAX / 2));
        queue.room().now_or_never().expect("half is room enough");
        queue.push(&iids(1));
        assert!(queue.room().now_or_never().is_none());

        queue.take().await.expect("no overflow");

        queue.room().now_or_never().expect("room again");
    }
}
