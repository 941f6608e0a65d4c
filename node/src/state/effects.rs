//! What follows from an input, and what waits for the answers to it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{
    changes, clients,
    io::{
        Connection, Event, Failure, KeyFile, NetOutput, OutboundId, Output, Record, Reply,
        RequestId, Ticket,
    },
    keys, letters, membership, messages, servers,
    timers::Timers,
    users,
};

/// The outputs that are not taken yet, what the answers will be matched to, and what waits for its
/// time.
pub(super) struct Effects {
    outputs: VecDeque<Output>,
    pub(super) rng: ChaCha20Rng,
    next_ticket: u64,
    next_outbound: u64,
    waiting: BTreeMap<Ticket, After>,
    asked: BTreeMap<OutboundId, Asked>,
    timers: Timers,
}

/// What a completed ticket sets free.
pub(super) enum After {
    Accepted(messages::Accepting),
    Received(messages::Receiving),
    Changed(Box<changes::Changing>),
    Cancelled(membership::Cancelling),
    LeaveStaged(Box<membership::Leaving>),
    LeaveStored(Box<membership::Leaving>),
    KeyKept(Box<membership::KeyComing>),
    Welcome(Box<membership::Welcoming>),
    Joined(Box<membership::Entering>),
    P2snReceived(keys::P2snReceiving),
    Brought(clients::Bringing),
    Posted(Box<letters::Posting>),
    ServerReceived(Box<servers::ServerReceived>),
    Registered(Box<users::Registering>),
    Heard(Box<users::Hearing>),
    UserPinned(Box<servers::Pinning>),
    ClientPinned(RequestId, Box<clients::Pinning>),
    Pruned,
}

/// What a request of ours was about.
pub(super) enum Asked {
    Hello(Connection),
    Ready(Connection),
    Join(Connection),
    Sync {
        peer: PeerId,
        sent_us: u64,
        /// Whether it told anything.
        news: bool,
    },
    Direct {
        peer: PeerId,
    },
    Users {
        peer: PeerId,
    },
    Key {
        peer: PeerId,
        request: RequestId,
    },
}

impl Effects {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            outputs: VecDeque::new(),
            rng: ChaCha20Rng::from_seed(seed),
            next_ticket: 0,
            next_outbound: 0,
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    pub(super) const fn timers(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// Returns when something is to be done next.
    pub(super) fn next_time(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Returns the next output, until there is none.
    pub(super) fn next(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn net(&mut self, output: NetOutput) {
        self.outputs.push_back(Output::Net(output));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        self.event(Event::Counted { what, times });
    }

    pub(super) fn refused(&mut self, peer: Option<PeerId>, what: &'static str, why: &'static str) {
        self.event(Event::Refused { peer, what, why });
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply(request, Ok(reply)));
    }

    pub(super) fn fail(&mut self, request: RequestId, failure: Failure) {
        self.outputs.push_back(Output::Reply(request, Err(failure)));
    }

    /// Has the file with the mesh key changed; `after` happens once that is on disk.
    pub(super) fn key_file(&mut self, file: KeyFile, after: Option<After>) {
        let ticket = self.ticket(after);
        self.outputs.push_back(Output::KeyFile(ticket, file));
    }

    /// Has records written; `after` happens once they are on disk.
    pub(super) fn store(&mut self, records: Vec<Record>, after: Option<After>) {
        let ticket = self.ticket(after);
        self.outputs.push_back(Output::Store(ticket, records));
    }

    #[cfg(test)]
    pub(super) const fn last_ticket(&self) -> u64 {
        self.next_ticket - 1
    }

    fn ticket(&mut self, after: Option<After>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(after) = after {
            self.waiting.insert(ticket, after);
        }
        ticket
    }

    /// Names a request of ours; its answer will be matched to `asked`.
    pub(super) fn ask(&mut self, asked: Asked) -> OutboundId {
        let id = OutboundId(self.next_outbound);
        self.next_outbound += 1;
        self.asked.insert(id, asked);
        id
    }

    /// Returns the number of the next request.
    pub(super) const fn next_number(&self) -> u64 {
        self.next_outbound
    }

    /// Returns what the records of this ticket set free.
    pub(super) fn completed(&mut self, ticket: Ticket) -> Option<After> {
        self.waiting.remove(&ticket)
    }

    /// Returns what the request of ours with this name was about.
    pub(super) fn answered(&mut self, id: OutboundId) -> Option<Asked> {
        self.asked.remove(&id)
    }

    pub(super) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns a wait that is anywhere between nothing and `ceiling`: full jitter.
    pub(super) fn jitter(&mut self, ceiling: Duration) -> Duration {
        let span = u64::try_from(ceiling.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        Duration::from_micros(self.rng.next_u64() % span)
    }
}
