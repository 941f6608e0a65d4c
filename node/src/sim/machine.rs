//! One simulated machine: a state, a disk, two clocks and a power switch.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;
use rand_core::Rng;

use super::{Happening, Trace, World, disk::Disk, model::Heard};
use crate::{
    proto::{
        iid::Index,
        mesh::certificate::{Certificate, MeshKey},
        syft,
    },
    state::{
        ROW_BYTES, Settings, Setup, StartError, State,
        io::{
            Command, Disk as Measured, Event, Failure, Input, KeyFile, Loaded, Now, Outcome,
            Output, Record, Reply, RequestId, Ticket,
        },
        report,
    },
};

/// Most messages in an outbox: few, so that a run comes to the limit.
pub(super) const OUTBOX_MAX: usize = 12;

/// Returns how many integers a machine takes of one sender in a second, and at once. Some take more
/// than others, and so they send more than those take.
pub(super) const fn budget_of(at: usize) -> (u32, u32) {
    if at.is_multiple_of(2) {
        (5, 100)
    } else {
        (20, 200)
    }
}

/// Most bytes of history: few, so that a run comes to the limit, and senders to their share.
pub(super) const HISTORY_BYTES_MAX: u64 = 8 * 1024;

/// What one sender may bring in a day.
const SHARE_BYTES: u64 = HISTORY_BYTES_MAX / 4;

/// The size of a simulated disk: so large that its history is never what fills it.
const DISK_BYTES: u64 = 1 << 30;

/// Why a failing disk writes nothing.
const NO_WRITING: &str = "nothing can be added";

/// What a write takes at least to count as slow.
const SLOW: Duration = Duration::from_millis(500);

/// One simulated machine.
pub(super) struct Machine {
    pub(super) peer: PeerId,
    pub(super) seed: u8,
    pub(super) state: Option<State>,
    pub(super) disk: Disk,
    /// Tickets on their way to the disk. A power cut loses them.
    pub(super) writing: Vec<(Ticket, Vec<Record>)>,
    /// Its file with the mesh key.
    pub(super) key_file: Option<MeshKey>,
    /// A mesh key that was put aside.
    staged: Option<MeshKey>,
    /// Changes of these files that are under way. A power cut loses them, or some of them.
    pub(super) writing_key: Vec<(Ticket, KeyFile)>,
    /// Every name that somebody wanted it to have.
    pub(super) names: BTreeSet<String>,
    /// Power-ons: what is under way from an earlier one finds nobody.
    pub(super) life: u32,
    /// Whether others have filled the disk.
    pub(super) is_full: bool,
    /// Whether nothing can be added to the disk, although it seems to have room: a quota, or a card
    /// that wears out.
    pub(super) is_failing: bool,
    pub(super) started: Duration,
    /// The calendar clock minus true time, in microseconds.
    pub(super) clock_off_us: i64,
    /// When the state is called next because of the time.
    timer: Option<Duration>,
    requests: BTreeMap<RequestId, Asked>,
    next_request: u64,
    /// Frames of this turn, which travel in one message.
    unpublished: Vec<Vec<u8>>,
    /// What its own listeners were told in this turn.
    own_values: Vec<i32>,
    /// How many of those of its clients it kept to itself, because others would refuse them.
    pub(super) kept: u64,
    /// Whether it said that the integers asked for last are over the budget.
    pub(super) over_budget: bool,
    /// What came of the gossip message that it judges.
    pub(super) hearing: Option<Heard>,
    /// Gossip messages that gossipsub would recognise.
    pub(super) gossip_seen: BTreeSet<usize>,
    pub(super) last: Vec<report::Integer>,
    /// Whether it warns of two machines with one identity.
    pub(super) warns_of_copies: bool,
    /// How often it has moved: its address says so.
    pub(super) moves: u32,
    /// What it told the sender of the last message.
    pub(super) warned: Option<String>,
}

/// What a command was about.
pub(super) enum Asked {
    Invite {
        joiner: usize,
    },
    /// A ticket that is cancelled at once.
    Ticket,
    Cancelled {
        ticket: String,
    },
    /// Something that must be refused with this word in the reason.
    Refused(&'static str),
    Share {
        to: usize,
    },
    Leave,
    Send {
        to: PeerId,
        text: String,
    },
    Last,
    /// Integers, which may be over the budget.
    Integers,
    /// Whether it is idle, as it should be when everything has come right.
    Idle,
    Nothing,
}

impl Machine {
    pub(super) fn new(peer: PeerId, seed: u8) -> Self {
        Self {
            peer,
            seed,
            state: None,
            disk: Disk::default(),
            writing: Vec::new(),
            key_file: None,
            staged: None,
            writing_key: Vec::new(),
            names: [format!("pi-{seed}")].into(),
            life: 0,
            is_full: false,
            is_failing: false,
            started: Duration::ZERO,
            clock_off_us: 0,
            timer: None,
            requests: BTreeMap::new(),
            next_request: 0,
            unpublished: Vec::new(),
            own_values: Vec::new(),
            kept: 0,
            over_budget: false,
            hearing: None,
            gossip_seen: BTreeSet::new(),
            last: Vec::new(),
            warns_of_copies: false,
            moves: 0,
            warned: None,
        }
    }

    /// Returns the value that this machine last heard of an index.
    pub(super) fn last_of(&self, index: Index) -> Option<&report::Integer> {
        self.last.iter().find(|last| last.index == index)
    }

    /// Says whether it has yet to answer something.
    pub(super) fn has_asked(&self) -> bool {
        !self.requests.is_empty()
    }

    fn write_key(&mut self, file: KeyFile) {
        match file {
            KeyFile::Keep(key) => self.key_file = Some(key),
            KeyFile::Stage(key) => self.staged = Some(key),
            KeyFile::Adopt => {
                if let Some(key) = self.staged.take() {
                    self.key_file = Some(key);
                }
            }
        }
    }

    /// Does with the mesh key that was put aside what a node does when it starts.
    fn settle_key(&mut self) {
        let certificate = self.disk.loaded.certificate.as_ref();
        let mesh = certificate.map(|bytes| Certificate::mesh_of(bytes).expect("legal"));
        let staged = self.staged.take().filter(|key| Some(key.mesh()) == mesh);
        if let Some(key) = staged {
            self.key_file = Some(key);
        }
    }

    /// Counts what the outbox holds once all is written.
    fn outbox_count(&self) -> usize {
        let records = || self.writing.iter().flat_map(|(_, records)| records);
        let more = records().filter(|r| matches!(r, Record::Outgoing(_)));
        let less = records().filter(|r| matches!(r, Record::Outcome { .. }));
        (self.disk.loaded.outbox.len() + more.count()).saturating_sub(less.count())
    }
}

/// Returns the keys of the node with this seed.
pub(super) fn messaging_key(seed: u8) -> syft::SigningKey {
    syft::SigningKey::from_seed(&[seed + 100; 32])
}

/// Returns the mesh key that the node with this seed is born with.
pub(super) fn mesh_key(seed: u8) -> MeshKey {
    MeshKey::from_seed(&[seed + 50; 32])
}

impl World {
    pub(super) fn true_us(&self) -> u64 {
        1_800_000_000_000_000 + u64::try_from(self.now.as_micros()).expect("small")
    }

    pub(super) fn clocks(&self, machine: usize) -> Now {
        let m = &self.machines[machine];
        Now {
            mono: self.now - m.started,
            unix_us: self.true_us().saturating_add_signed(m.clock_off_us),
        }
    }

    pub(super) fn power_on(&mut self, at: usize) {
        let chance = self.rng.next_u64();
        let machine = &mut self.machines[at];
        machine.settle_key();
        if machine.disk.loaded.certificate.is_none() {
            machine.key_file = Some(mesh_key(machine.seed));
        }
        machine.started = self.now;
        let mut seed = [machine.seed; 32];
        seed[..8].copy_from_slice(&chance.to_le_bytes());
        let (budget_per_second, budget_burst) = budget_of(at);
        let setup = Setup {
            peer: machine.peer,
            messaging_key: messaging_key(machine.seed),
            mesh_key: machine.key_file.clone(),
            mesh_key_exported: false,
            name: format!("pi-{}", machine.seed).parse().expect("a name"),
            seed,
            settings: Settings {
                outbox_count_max: OUTBOX_MAX,
                history_bytes_max: HISTORY_BYTES_MAX,
                budget_per_second,
                budget_burst,
                ..Settings::default()
            },
        };
        let loaded = machine.disk.load();
        let now = self.clocks(at);
        self.start_without_a_part(&setup, &loaded, now);
        let state = State::new(setup, loaded, now).expect("the disk is good");
        self.machines[at].state = Some(state);
        self.measure(at);
        self.tell_own_address(at);
        self.make_rsa_key(at);
    }

    /// Starts a machine whose home lacks a part, before that is restored: it must not start.
    fn start_without_a_part(&mut self, setup: &Setup, loaded: &Loaded, now: Now) {
        if loaded.certificate.is_none() {
            return;
        }
        let (mut setup, mut loaded) = (setup.clone(), loaded.clone());
        let expected = match self.chance(6) {
            0 => {
                setup.messaging_key = messaging_key(99);
                StartError::OtherMessagingKey
            }
            1 => {
                let peer = std::mem::replace(&mut setup.peer, self.strangers[0].peer);
                StartError::OtherNode(peer)
            }
            2 => {
                setup.mesh_key = None;
                loaded = Loaded::default();
                StartError::NoMeshKey
            }
            _ => return,
        };
        let refused = State::new(setup, loaded, now).expect_err("a part is missing");
        assert_eq!(refused, expected);
        self.count("starts_refused", 1);
    }

    /// Tells a machine how much room its disk has.
    pub(super) fn measure(&mut self, at: usize) {
        let machine = &self.machines[at];
        let disk = Input::Disk(Measured {
            free_bytes: if machine.is_full { 0 } else { DISK_BYTES / 2 },
            size_bytes: DISK_BYTES,
            history_bytes: machine.disk.history_bytes().0,
        });
        self.input(at, disk);
    }

    pub(super) fn power_cut(&mut self, at: usize) {
        self.model.power_cut(at);
        self.under_way.retain(|(of, _), _| *of != at);
        let machine = &mut self.machines[at];
        machine.state = None;
        machine.life += 1;
        machine.timer = None;
        machine.requests.clear();
        machine.gossip_seen.clear();
        machine.warns_of_copies = false;
        // What was not yet written is gone; some of it may have reached the disk unsaid.
        let writing = std::mem::take(&mut machine.writing);
        let keys = std::mem::take(&mut machine.writing_key);
        for (_, file) in keys {
            if self.chance(2) == 0 {
                self.machines[at].write_key(file);
            }
        }
        let kept = usize::try_from(self.chance(writing.len() as u64 + 1)).expect("small");
        self.count("records_kept_in_a_power_cut", kept);
        self.count("records_lost_in_a_power_cut", writing.len() - kept);
        for (_, records) in writing.into_iter().take(kept) {
            self.write(at, records);
        }
        self.unplug(at);
    }

    fn write(&mut self, at: usize, records: Vec<Record>) {
        let disk = &mut self.machines[at].disk;
        records.into_iter().for_each(|record| disk.write(record));
        let waiting = disk.loaded.outbox.len();
        assert!(waiting <= OUTBOX_MAX, "{waiting} messages in the outbox");
    }

    pub(super) fn written(&mut self, at: usize) {
        let (ticket, records) = self.machines[at].writing.remove(0);
        let adds = |r: &Record| matches!(r, Record::Incoming(_) | Record::Outgoing(_));
        if self.machines[at].is_failing && records.iter().any(adds) {
            self.count("writes_failed", 1);
            return self.input(at, Input::StoreFailed(ticket, NO_WRITING.to_owned()));
        }
        self.write(at, records);
        let machine = &self.machines[at];
        if machine.writing.is_empty() {
            let (all, waiting) = machine.disk.history_bytes();
            let most = HISTORY_BYTES_MAX + HISTORY_BYTES_MAX / 64 + waiting;
            assert!(all <= most, "{all} bytes of history");
        }
        self.input(at, Input::Stored(ticket));
    }

    pub(super) fn key_written(&mut self, at: usize) {
        let (ticket, file) = self.machines[at].writing_key.remove(0);
        self.machines[at].write_key(file);
        self.input(at, Input::Stored(ticket));
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        let now = self.clocks(at);
        let Some(state) = &mut self.machines[at].state else {
            return;
        };
        state.handle(input, now);
        self.drain(at);
    }

    pub(super) fn timeout(&mut self, at: usize) {
        if self.machines[at].timer != Some(self.now) {
            return;
        }
        self.machines[at].timer = None;
        let now = self.clocks(at);
        let Some(state) = &mut self.machines[at].state else {
            return;
        };
        if state.poll_timeout().is_some_and(|due| due <= now.mono) {
            state.handle_timeout(now);
        }
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.machines[at]
            .state
            .as_mut()
            .and_then(State::poll_output)
        {
            match output {
                Output::Net(output) => self.act(at, output),
                Output::Reply(request, result) => self.replied(at, request, result),
                Output::Store(ticket, records) => self.store(at, ticket, records),
                Output::KeyFile(ticket, file) => self.change_key_file(at, ticket, file),
                Output::Event(event) => self.event(at, event),
            }
        }
        self.flush(at);
        self.arm(at);
    }

    /// Sends the frames of this turn as one message.
    fn flush(&mut self, at: usize) {
        let frames = std::mem::take(&mut self.machines[at].unpublished);
        let told = std::mem::take(&mut self.machines[at].own_values);
        if frames.is_empty() {
            assert_eq!(
                told.len() as u64,
                self.machines[at].kept,
                "told to its own listeners, and to nobody else"
            );
            return;
        }
        self.publish(at, frames.concat(), told);
    }

    pub(super) fn hold_frame(&mut self, at: usize, frame: Vec<u8>) {
        self.machines[at].unpublished.push(frame);
    }

    fn arm(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(timeout) = machine.state.as_ref().and_then(State::poll_timeout) else {
            return;
        };
        let soonest = self.now + Duration::from_millis(1);
        let due = (machine.started + timeout).max(soonest);
        if machine.timer.is_none_or(|timer| timer > due) {
            machine.timer = Some(due);
            let life = machine.life;
            self.at(due - self.now, Happening::Timeout(at, life));
        }
    }

    fn store(&mut self, at: usize, ticket: Ticket, records: Vec<Record>) {
        let is_prune = |r: &Record| matches!(r, Record::Prune { before_ms: 0, .. });
        let is_foreign = |r: &Record| matches!(r, Record::Incoming(_));
        self.count(
            "histories_over_their_limit",
            usize::from(records.iter().any(is_prune)),
        );
        let takes = self.machines[at].is_full && records.iter().any(is_foreign);
        assert!(!takes, "took a message of others onto a full disk");
        self.machines[at].writing.push((ticket, records));
        let slowest = if self.chance(10) == 0 { 3_000 } else { 12 };
        let time = Duration::from_millis(1 + self.chance(slowest));
        self.count("slow_writes", usize::from(time >= SLOW));
        let life = self.machines[at].life;
        self.at(time, Happening::Written(at, life));
        if self.trouble && self.chance(60) == 0 {
            self.at(time / 2, Happening::PowerFails(at, life));
        }
    }

    fn event(&mut self, at: usize, event: Event) {
        let own = self.machines[at].peer;
        match &event {
            Event::Integers(integers) if integers.last_known => {
                self.count("last_values_handed_over", integers.iids.len());
            }
            Event::Integers(integers) => {
                let values = integers.iids.iter().map(|iid| iid.value.0);
                let machine = &mut self.machines[at];
                if integers.source == own {
                    machine.own_values.extend(values);
                } else {
                    let heard = machine.hearing.as_mut().expect("nothing came");
                    heard.values.extend(values);
                }
            }
            Event::Refused {
                what: "integer",
                why,
                ..
            } => {
                let heard = self.machines[at].hearing.as_mut().expect("nothing came");
                heard.why = Some(why);
            }
            Event::Counted {
                what: "bridged_over_budget",
                times,
            } => self.machines[at].kept = *times,
            Event::Joined { .. } => self.machines[at].key_file = None,
            Event::Sent(sent) if sent.outcome == Outcome::Delivered => {
                let to = self.places(&sent.peer_id.member().expect("a member"));
                let mut disks = to.iter().map(|to| &self.machines[*to].disk);
                let has = disks.any(|disk| disk.received(sent.id));
                assert!(has, "delivered, and not on the disk of {to:?}");
            }
            Event::Copied { name, .. } => {
                let is_true = self.has_copies();
                assert!(is_true, "{at} takes a restart of {name} for a copy");
                self.machines[at].warns_of_copies = true;
            }
            Event::CopyGone { .. } => self.machines[at].warns_of_copies = false,
            Event::Sent(sent) => {
                let Outcome::Refused(why) = &sent.outcome else {
                    panic!("{sent:?}");
                };
                assert_eq!(why, "mailbox_full");
                let to = sent.peer_id.member().expect("a member");
                let disks = self.places(&to);
                let disks = disks.iter().map(|to| &self.machines[*to].disk);
                let brought = disks.map(|disk| disk.bytes_from(&own)).max();
                let brought = brought.expect("a machine");
                assert!(
                    brought + 2 * ROW_BYTES > SHARE_BYTES,
                    "refused after {brought} bytes"
                );
                self.model.refused(sent.id);
                self.count("messages_over_the_share", 1);
            }
            Event::Refused {
                what: "message",
                why: "disk_full",
                ..
            } => self.count("messages_held_back_by_a_full_disk", 1),
            Event::Received(received) => {
                let has = self.machines[at].disk.received(received.id);
                assert!(has, "received, and not on the disk of {at}");
            }
            _ => {}
        }
        self.trace.push((self.now, Trace::Event(at, event)));
    }

    pub(super) fn ask(&mut self, at: usize, command: Command, asked: Asked) {
        let request = RequestId(self.machines[at].next_request);
        self.machines[at].next_request += 1;
        self.machines[at].requests.insert(request, asked);
        self.input(at, Input::Control(request, command));
    }

    fn replied(&mut self, at: usize, request: RequestId, result: Result<Reply, Failure>) {
        let asked = self.machines[at].requests.remove(&request);
        match (asked.expect("asked in this life"), result) {
            (Asked::Invite { joiner }, Ok(Reply::Invited(invite))) => {
                let ticket = invite.ticket;
                self.tickets.push(ticket.clone());
                self.ask(joiner, Command::Join { ticket }, Asked::Nothing);
            }
            (Asked::Ticket, Ok(Reply::Invited(invite))) => {
                let (which, ticket) = (Some(invite.id), invite.ticket);
                let asked = Asked::Cancelled { ticket };
                self.ask(at, Command::CancelInvites { which }, asked);
            }
            (Asked::Cancelled { ticket }, Ok(Reply::InvitesCancelled(_))) => {
                self.cancelled = Some(ticket);
            }
            (Asked::Refused(word), Err(failure)) => {
                let text = failure.message;
                assert!(text.contains(word), "{text}");
                self.count("cancelled_tickets_refused", 1);
            }
            (Asked::Share { to }, Ok(Reply::KeyShared(_))) => self.check_share(to),
            (Asked::Share { .. }, Err(_)) => self.count("mesh_keys_not_shared", 1),
            (Asked::Leave, Ok(Reply::Left(left))) => {
                let others = self.machines.len() - 1;
                assert_eq!(left.told.len(), others, "all are connected");
                self.count("members_left", 1);
            }
            (Asked::Send { to, text }, Ok(Reply::Accepted(accepted))) => {
                let sent = &self.machines[at].disk.sent;
                let stored = accepted.iter().all(|accepted| sent.contains(&accepted.id));
                assert!(stored, "accepted, and not on disk");
                let from = self.machines[at].peer;
                for accepted in &accepted {
                    self.model.accepted(from, to, accepted.id, text.clone());
                }
                self.machines[at].warned = accepted.into_iter().find_map(|a| a.warning);
            }
            (Asked::Send { .. }, Err(failure)) if failure.message.contains(NO_WRITING) => {}
            (Asked::Send { .. }, Err(failure)) => {
                let waiting = self.machines[at].outbox_count();
                let text = failure.message;
                assert!(waiting >= OUTBOX_MAX, "{text}, with {waiting} messages");
                self.count("messages_over_the_cap", 1);
            }
            (Asked::Last, Ok(Reply::LastIntegers(last))) => self.machines[at].last = last,
            (Asked::Idle, Ok(Reply::Status(status))) => {
                let left = (status.outbox_count, status.outbox_bytes);
                assert_eq!((left, status.connected), ((0, 0), self.machines.len() - 1));
            }
            (Asked::Integers, Err(failure)) if failure.over_budget.is_some() => {
                self.machines[at].over_budget = true;
            }
            (Asked::Nothing | Asked::Integers, Ok(_)) => {}
            (_, result) => panic!("an answer to something else: {result:?}"),
        }
    }
}
