//! The two ways of integers between the simulated machines: live, in order on a connection; and
//! through gossipsub, which passes them on and recognises most of those that come again. Some get
//! past it, and some take a longer way.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    World,
    model::{Heard, Tale},
    network::Parcel,
};
use crate::state::io::{Connection, GossipId, Input, NetInput, Verdict};

/// One copy of a message with integers.
#[derive(Clone)]
pub(super) struct Gossip {
    pub(super) source: PeerId,
    pub(super) bytes: Vec<u8>,
    pub(super) tale: Tale,
    /// It gets past gossipsub's own memory.
    pub(super) again: bool,
    /// The connection on which it comes live from its author; what comes so stays in order.
    pub(super) straight: Option<Connection>,
}

impl Gossip {
    pub(super) const fn is_live(&self) -> bool {
        self.straight.is_some()
    }
}

impl World {
    /// Publishes one message of a machine.
    pub(super) fn publish(&mut self, at: usize, bytes: Vec<u8>, told: Vec<i32>) {
        let others = (0..self.machines.len()).filter(|&other| other != at);
        let due = others.filter(|&other| self.is_connected(at, other));
        let tale = self.model.said(at, &bytes, told, due.collect(), self.now);
        let gossip = Gossip {
            source: self.machines[at].peer,
            bytes,
            tale: Tale::Said(tale),
            again: false,
            straight: None,
        };
        for other in 0..self.machines.len() {
            if other != at
                && let Some(connection) = self.way(at, other)
            {
                self.send_live(connection, gossip.clone());
            }
        }
        // Where a member is not connected, or does not know of live integers.
        if self.chance(2) == 0 {
            self.spread(at, &gossip, None);
        }
    }

    /// Sends a gossip message to every member that is connected, but to whom it came from.
    fn spread(&mut self, at: usize, gossip: &Gossip, but: Option<usize>) {
        for other in 0..self.machines.len() {
            let is_source = self.machines[other].peer == gossip.source;
            if other == at || is_source || but == Some(other) {
                continue;
            }
            if let Some(connection) = self.way(at, other) {
                self.send_gossip(connection, gossip.clone());
            }
        }
    }

    fn send_gossip(&mut self, connection: Connection, gossip: Gossip) {
        if self.trouble && self.chance(8) == 0 {
            self.count("integers_delivered_twice", 1);
            let after = Duration::from_millis(self.chance(900));
            let again = Gossip {
                again: true,
                ..gossip.clone()
            };
            self.send(connection, after, Parcel::Gossip(again));
        }
        let detour = if self.trouble && self.chance(10) == 0 {
            Duration::from_millis(100 + self.chance(400))
        } else {
            Duration::ZERO
        };
        let after = self.latency() + detour;
        self.send(connection, after, Parcel::Gossip(gossip));
    }

    fn send_live(&mut self, connection: Connection, mut gossip: Gossip) {
        let soonest = self.now + self.latency();
        let Some(end) = self.end_mut(connection) else {
            return;
        };
        let due = soonest.max(end.live_due + Duration::from_micros(1));
        end.live_due = due;
        gossip.straight = Some(connection);
        self.send(connection, due - self.now, Parcel::Gossip(gossip));
    }

    /// Has a machine judge a gossip message, and the model judge the machine.
    pub(super) fn hear(&mut self, at: usize, from: usize, gossip: Gossip) {
        if let Tale::Said(tale) = gossip.tale
            && !gossip.is_live()
        {
            let is_new = self.machines[at].gossip_seen.insert(tale);
            if !is_new && !gossip.again {
                return;
            }
        }
        self.machines[at].hearing = Some(Heard::default());
        let (source, bytes) = (gossip.source, gossip.bytes.clone());
        let input = if gossip.is_live() {
            NetInput::Live { source, bytes }
        } else {
            let id = GossipId(self.next);
            NetInput::Gossip {
                source,
                from: source,
                id,
                bytes,
            }
        };
        self.input(at, Input::Net(input));
        let Some(heard) = self.machines[at].hearing.take() else {
            return;
        };
        if self.machines[at].state.is_none() {
            return;
        }
        let goes_on = heard.verdict == Some(Verdict::Accept) && !gossip.again;
        let mono = self.clocks(at).mono;
        let (what, reordered) = self.model.heard(at, &gossip, &heard, mono);
        self.count(what, 1);
        self.count("integers_reordered", usize::from(reordered));
        if goes_on {
            self.spread(at, &gossip, Some(from));
        }
    }
}
