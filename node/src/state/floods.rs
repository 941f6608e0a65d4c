//! Members that send much of what is of no use: integers that are refused, requests that are none.
//!
//! Each costs a look, and with gossip a signature to verify, so a member without end of them takes
//! all of a small processor. It loses its connection, and gets a new one after a rest. What is too
//! much counts for the member that sent it here, and never for the author of what it passed on.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{State, io::Now};
use crate::limits::{Bucket, Rate};

/// How much of no use one member may send. A node whose clock was set wrong sends integers that
/// nobody takes, and one that speaks too fast sends more than its budget; neither is this fast.
const USELESS: Rate = Rate {
    per_second: 500,
    burst: 5_000,
};

/// How long a member that sent more is kept out.
const REST: Duration = Duration::from_secs(60);

/// What members sent of no use, and those that rest.
#[derive(Debug, Default)]
pub(super) struct Floods {
    buckets: BTreeMap<PeerId, Bucket>,
    resting: BTreeMap<PeerId, Duration>,
}

impl Floods {
    /// Says whether no connection with this member is wanted.
    pub(super) fn rests(&self, peer: &PeerId, now: Now) -> bool {
        self.resting
            .get(peer)
            .is_some_and(|until| now.mono < *until)
    }

    /// Counts something of no use; says whether it is too much.
    fn is_too_much(&mut self, from: PeerId, now: Now) -> bool {
        let bucket = self.buckets.entry(from);
        let bucket = bucket.or_insert_with(|| Bucket::new(USELESS));
        !bucket.take(now.mono)
    }

    /// Keeps a member out for a while; says whether it was not kept out already.
    fn keep_out(&mut self, from: PeerId, now: Now) -> bool {
        if self.rests(&from, now) {
            return false;
        }
        self.resting.retain(|_, until| now.mono < *until);
        self.resting.insert(from, now.mono + REST);
        self.buckets.remove(&from);
        true
    }
}

impl State {
    /// Takes in that a connected member sent something that is of no use.
    pub(super) fn useless(&mut self, from: PeerId, now: Now) {
        if self.floods.is_too_much(from, now) {
            self.flooded(from, now);
        }
    }

    /// Takes in that a member floods this node: its connection ends for a while. What comes on a
    /// connection that is being closed changes nothing.
    pub(super) fn flooded(&mut self, from: PeerId, now: Now) {
        if self.floods.keep_out(from, now) {
            self.effects.refused(Some(from), "member", "flood");
            self.close_peer(&from, "it floods this node with what is of no use");
        }
    }
}
