//! What gossipsub does for the simulated machines: it passes integers on, and recognises most of
//! those that come again. Some get past it, and some take a longer way.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{
    World,
    model::{Heard, Tale},
    network::Parcel,
};
use crate::state::io::{Connection, GossipId, Input, NetInput, Verdict};

/// One copy of a gossip message.
#[derive(Clone)]
pub(super) struct Gossip {
    pub(super) source: PeerId,
    pub(super) bytes: Vec<u8>,
    pub(super) tale: Tale,
    /// It gets past gossipsub's own memory.
    pub(super) again: bool,
    /// The connection on which it comes straight from its author; what comes so stays in order.
    pub(super) straight: Option<Connection>,
}

impl World {
    /// Publishes one message of a machine.
    pub(super) fn publish(&mut self, at: usize, bytes: Vec<u8>, told: Vec<i32>) {
        let others = (0..self.machines.len()).filter(|&other| other != at);
        let due = others.filter(|&other| self.is_connected(at, other));
        let tale = self.model.said(at, &bytes, told, due.collect(), self.now);
        let source = self.machines[at].peer;
        self.spread(
            at,
            &Gossip {
                source,
                bytes,
                tale: Tale::Said(tale),
                again: false,
                straight: None,
            },
            None,
        );
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

    fn send_gossip(&mut self, connection: Connection, mut gossip: Gossip) {
        let again = self.trouble && self.chance(8) == 0;
        if again {
            self.count("integers_delivered_twice", 1);
            let after = Duration::from_millis(self.chance(900));
            let gossip = Gossip {
                again,
                straight: None,
                ..gossip.clone()
            };
            self.send(connection, after, Parcel::Gossip(gossip));
        }
        if self.trouble && self.chance(10) == 0 {
            let after = Duration::from_millis(100 + self.chance(400));
            return self.send(connection, after, Parcel::Gossip(gossip));
        }
        let soonest = self.now + self.latency();
        let Some(end) = self.end_mut(connection) else {
            return;
        };
        let due = soonest.max(end.gossip_due + Duration::from_micros(1));
        end.gossip_due = due;
        gossip.straight = Some(connection);
        self.send(connection, due - self.now, Parcel::Gossip(gossip));
    }

    /// Has a machine judge a gossip message, and the model judge the machine.
    pub(super) fn hear(&mut self, at: usize, from: usize, mut gossip: Gossip) {
        if let Tale::Said(tale) = gossip.tale {
            let is_new = self.machines[at].gossip_seen.insert(tale);
            if !is_new && !gossip.again {
                return;
            }
        }
        if self.place(&gossip.source) != Some(from) {
            gossip.straight = None;
        }
        self.machines[at].hearing = Some(Heard::default());
        let input = NetInput::Gossip {
            source: gossip.source,
            id: GossipId(self.next),
            bytes: gossip.bytes.clone(),
        };
        self.input(at, Input::Net(input));
        let Some(heard) = self.machines[at].hearing.take() else {
            return;
        };
        if self.machines[at].state.is_none() {
            return;
        }
        let accepted = heard.verdict == Some(Verdict::Accept);
        let mono = self.clocks(at).mono;
        let (what, reordered) = self.model.heard(at, &gossip, &heard, mono);
        self.count(what, 1);
        self.count("integers_reordered", usize::from(reordered));
        if accepted && !gossip.again {
            gossip.straight = None;
            self.spread(at, &gossip, Some(from));
        }
    }
}
