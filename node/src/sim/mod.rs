//! A simulated network, clock and disk around the pure state, driven by a seed.
//!
//! Nodes join, send messages and broadcast integers while cables are cut, requests and answers get
//! lost on live links, disks are slow or take nothing, clocks jump and leap years ahead, power fails
//! between writing and having written, members lie and strangers knock. The same seed gives the same
//! trace.
//!
//! | file | what it plays |
//! | --- | --- |
//! | `machine` | a machine: state, clocks, power switch; checks what the node says against its disk |
//! | `disk` | a disk |
//! | `network` | links, the gate at each end, loss and duplicates |
//! | `commands` | every command of one node, on a disk that fails at each point |
//! | `copied` | a machine with the identity of another one |
//! | `places` | machines that move, the LAN that says where they are, and lies about that |
//! | `gossip` | gossipsub: who passes integers on to whom, again or on a detour |
//! | `p2sn` | P2SN sessions, as far as the state sees them |
//! | `strangers` | who must not get in, and members who lie |
//! | `members` | names that change, the mesh key that is shared, one that leaves and returns |
//! | `vouching` | ranges of members that change |
//! | `model` | the reference: plain lists of what was said, and rules for what each node makes of it |
//!
//! In the end each accepted message is on the recipient's disk, once, in the order of its sender;
//! each integer came to everybody who was connected, once, in order; and all know the same last
//! values and certificates.

mod commands;
mod copied;
mod disk;
mod gossip;
mod machine;
mod members;
mod model;
mod network;
mod p2sn;
mod places;
mod strangers;
mod vouching;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use libp2p_identity::{Keypair, PeerId};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use self::{
    machine::{Asked, Machine, mesh_key, messaging_key},
    model::Model,
    network::{Asker, Link, Parcel},
    p2sn::Session,
    places::address,
    strangers::{PAPERS, Stranger},
};
use crate::{
    proto::{
        iid::{Date, Iid, Index, Value},
        mesh::{Address, certificate::Terms, vouched::Vouched},
    },
    state::{
        Wanted,
        io::{Command, Connection, Event, InboundId, Input, OutboundId, Recipients, SendVia},
    },
};

/// Machines of a run: with three, what one cannot tell another directly goes over the third.
const MACHINES: u8 = 3;

/// What the first machine may speak for as a gateway: its own index and none of a client. The
/// others may speak for everything, as is usual.
const VOUCHED: RangeInclusive<i32> = i32::MIN..=1;

/// Most steps of one run: a timer that re-arms itself in the past is a failure and not a hang.
const STEPS_MAX: usize = 200_000;

/// How long faults go on; afterwards everything works, and everything must come right.
const TROUBLE: Duration = Duration::from_secs(120);

/// Longest time until everything has come right.
const PATIENCE: Duration = Duration::from_secs(900);

/// Longest time that a machine is off.
const OFF_MS: u64 = 5_000;

/// Something that happens at some time. What is meant for an earlier life of a machine is nothing.
enum Happening {
    Input(usize, u32, Input),
    Written(usize, u32),
    Timeout(usize, u32),
    Dialled(usize, u32, PeerId, Vec<Address>),
    Lan,
    Arrives(Connection, Parcel),
    Gone(usize, Connection),
    Unopened(Connection),
    PowerOn(usize),
    PowerFails(usize, u32),
    Greet(usize, u32),
    Fault,
    ClockIsBack(usize, i64),
    Say,
    Vouch,
    Rename,
    Share,
    KeyWritten(usize, u32),
    Lie,
    Visit(usize),
    Intrusion(usize, Connection),
}

/// What a run leaves behind; turned into text only if somebody wants to read it.
#[derive(Debug)]
#[expect(dead_code, reason = "read through `Debug`")]
enum Trace {
    Counted(&'static str, usize),
    Event(usize, Event),
}

struct World {
    rng: ChaCha20Rng,
    now: Duration,
    machines: Vec<Machine>,
    strangers: Vec<Stranger>,
    agenda: BTreeMap<(Duration, u64), Happening>,
    next: u64,
    /// Whether things get lost.
    trouble: bool,
    links: Vec<Link>,
    next_connection: u64,
    cut: BTreeSet<(usize, usize)>,
    /// The machine whose clock is far ahead.
    leaping: Option<usize>,
    inbound: BTreeMap<(usize, InboundId), Asker>,
    next_inbound: u64,
    /// Requests that the asker is told of if their connection goes.
    under_way: BTreeMap<(usize, OutboundId), Connection>,
    newest_request: BTreeMap<(usize, usize), u64>,
    tickets: Vec<String>,
    sessions: Vec<Session>,
    next_text: u32,
    next_value: i32,
    next_name: u32,
    /// A ticket that was cancelled.
    cancelled: Option<String>,
    model: Model,
    counts: BTreeMap<&'static str, usize>,
    trace: Vec<(Duration, Trace)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self::of(seed, (1..=MACHINES).map(machine).collect());
        for at in 0..world.machines.len() {
            world.power_on(at);
        }
        world
    }

    /// Makes a world in which the first machine has a mesh, and all are off.
    fn of(seed: u64, machines: Vec<Machine>) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut world = Self {
            rng: ChaCha20Rng::from_seed(bytes),
            now: Duration::from_secs(1),
            machines,
            strangers: Vec::new(),
            agenda: BTreeMap::new(),
            next: 0,
            trouble: false,
            links: Vec::new(),
            next_connection: 0,
            cut: BTreeSet::new(),
            leaping: None,
            inbound: BTreeMap::new(),
            next_inbound: 0,
            under_way: BTreeMap::new(),
            newest_request: BTreeMap::new(),
            tickets: Vec::new(),
            sessions: Vec::new(),
            next_text: 0,
            next_value: 0,
            next_name: 0,
            cancelled: None,
            model: Model::default(),
            counts: BTreeMap::new(),
            trace: Vec::new(),
        };
        world.begin_mesh();
        world
    }

    /// Puts a mesh with a past on the disk of the first machine: one member's certificate is over,
    /// and another member was removed.
    fn begin_mesh(&mut self) {
        let first = &mut self.machines[0];
        first.key_file = Some(mesh_key(1));
        let own = mesh_key(1).issue(Terms {
            peer: first.peer,
            messaging_key: *messaging_key(1).public(),
            name: "pi-1".parse().expect("a name"),
            index: Index(1),
            vouched: Vouched::range(*VOUCHED.start(), *VOUCHED.end()).expect("legal"),
            issued_ms: 1_750_000_000_000,
            expires_ms: 2_000_000_000_000,
        });
        let own = own.encode();
        self.strangers = PAPERS.map(|papers| Stranger::new(papers, &own)).into();
        let expired = strangers::expired();
        let peer = expired.terms().peer;
        let on = &mut first.disk.loaded;
        on.certificate = Some(own);
        on.members = vec![expired.encode()];
        on.revocations = vec![strangers::revocation()];
        let place = self.place(&peer).expect("a stranger");
        let on = &mut self.machines[0].disk.loaded;
        on.addresses = vec![(peer, vec![address(place)])];
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    fn any_machine(&mut self) -> usize {
        let count = self.machines.len() as u64;
        usize::try_from(self.chance(count)).expect("small")
    }

    fn count(&mut self, what: &'static str, times: usize) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
            self.trace.push((self.now, Trace::Counted(what, times)));
        }
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.agenda.insert((self.now + after, self.next), happening);
        self.next += 1;
    }

    /// Machines have the first places, strangers those behind them.
    fn place(&self, peer: &PeerId) -> Option<usize> {
        let machines = self.machines.iter().map(|m| m.peer);
        let mut all = machines.chain(self.strangers.iter().map(|s| s.peer));
        all.position(|known| known == *peer)
    }

    /// Returns every place with the identity of a peer; of copied ones there are two.
    fn places(&self, peer: &PeerId) -> Vec<usize> {
        let machines = self.machines.iter().map(|m| m.peer);
        let all = machines.chain(self.strangers.iter().map(|s| s.peer));
        let places = all.enumerate().filter(|(_, known)| known == peer);
        places.map(|(place, _)| place).collect()
    }

    /// Returns the place with the identity of a peer that a machine is connected with, or might be.
    fn other_end(&self, at: usize, peer: &PeerId) -> usize {
        let places = self.places(peer);
        let connected = places.iter().find(|other| self.way(at, **other).is_some());
        *connected.or(places.first()).expect("somebody")
    }

    fn peer(&self, place: usize) -> PeerId {
        match self.machines.get(place) {
            Some(machine) => machine.peer,
            None => self.strangers[place - self.machines.len()].peer,
        }
    }

    fn fault(&mut self) {
        let (a, b) = (self.any_machine(), self.any_machine());
        match self.chance(8) {
            4 => self.move_machine(a),
            5 if a != b => self.lie_about_places(a, b),
            0 if a != b => {
                self.cut.insert((a.min(b), a.max(b)));
                let links = self.break_between(a, b);
                self.count("live_cables_cut", links);
            }
            1 => self.cut.clear(),
            2 if self.machines[a].state.is_some() => self.power_fails(a),
            // Clocks that leap together would confirm each other.
            3 if self.leaping.is_none() && self.chance(3) == 0 => self.leap(a),
            3 => {
                let jump = i64::try_from(self.chance(7_200_000_000)).expect("small");
                self.machines[a].clock_off_us = jump - 3_600_000_000;
                self.model.clock_jumped(a, self.now);
                self.count("clock_jumps", 1);
            }
            6 => {
                self.machines[a].is_full ^= true;
                self.measure(a);
                self.count("disks_full_and_free_again", 1);
            }
            7 => self.machines[a].is_failing ^= true,
            _ => {}
        }
    }

    /// A clock is years or days ahead for some seconds, and the machine may start anew meanwhile.
    fn leap(&mut self, at: usize) {
        const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
        let days = [8, 400, 11 * 365][usize::try_from(self.chance(3)).expect("small")];
        let machine = &mut self.machines[at];
        let before_us = machine.clock_off_us;
        machine.clock_off_us += days * DAY_US;
        self.leaping = Some(at);
        self.model.clock_jumped(at, self.now);
        self.count("clock_leaps", 1);
        if self.chance(2) == 0 && self.machines[at].state.is_some() {
            self.power_cut(at);
            self.power_on(at);
        }
        let back = Duration::from_millis(self.chance(20_000));
        self.at(back, Happening::ClockIsBack(at, before_us));
    }

    fn power_fails(&mut self, at: usize) {
        self.count("power_cuts", 1);
        self.power_cut(at);
        let off = Duration::from_millis(self.chance(OFF_MS));
        self.at(off, Happening::PowerOn(at));
    }

    fn say(&mut self) {
        let (from, to) = (self.any_machine(), self.any_machine());
        if self.machines[from].state.is_none() {
            return;
        }
        match self.chance(40) {
            // A burst, to come to the limit of the outbox while the disk is busy.
            0 if from != to => (0..15).for_each(|_| self.send_message(from, to)),
            1..20 if from != to => self.send_message(from, to),
            20..24 => self.send_integers(from, 70),
            _ => {
                let few = usize::try_from(self.chance(4)).expect("small");
                self.send_integers(from, 1 + few);
            }
        }
    }

    fn send_integers(&mut self, from: usize, count: usize) {
        let first = self.next_value;
        self.next_value += i32::try_from(count).expect("small");
        let values: Vec<i32> = (first..self.next_value).collect();
        let own = Index(i32::from(self.machines[from].seed));
        let iids = values.iter().map(|&value| Iid {
            index: own,
            value: Value(value),
            date: Date(0),
        });
        let command = if self.chance(4) == 0 {
            self.count("integers_bridged", count);
            Command::Bridge {
                client: None,
                iids: iids.collect(),
            }
        } else {
            Command::Integers {
                index: None,
                values: values.iter().copied().map(Value).collect(),
                at: None,
            }
        };
        self.ask(from, command, Asked::Integers);
        if std::mem::take(&mut self.machines[from].over_budget) {
            self.count("integers_not_sent_over_budget", values.len());
            return;
        }
        match std::mem::take(&mut self.machines[from].kept) {
            0 => {
                let said = self.model.last_said(from);
                assert_eq!(said, values, "asked for and published");
            }
            kept => {
                self.count("integers_kept_over_budget", values.len());
                assert_eq!(kept, values.len() as u64, "all or none");
            }
        }
    }

    fn send_message(&mut self, from: usize, to: usize) {
        let Machine { peer: to, .. } = self.machines[to];
        self.next_text += 1;
        let text = self.next_text.to_string();
        let command = Command::Send {
            to: Recipients::Named(vec![to.to_string()]),
            text: text.clone(),
            via: SendVia::Direct,
            expiry: None,
        };
        self.ask(from, command, Asked::Send { to, text });
    }

    fn run(&mut self) {
        self.join_all(self.machines.len());
        let began = self.now;
        self.at(Duration::ZERO, Happening::Lan);
        self.trouble = true;
        for _ in 0..16 {
            self.some_time(Happening::Fault);
        }
        for _ in 0..60 {
            self.some_time(Happening::Say);
        }
        for _ in 0..4 {
            self.some_time(Happening::Lie);
        }
        self.plan_vouching();
        self.plan_members();
        for stranger in 0..self.strangers.len() {
            self.some_time(Happening::Visit(stranger));
        }
        self.steps_until(|world| world.now > began + TROUBLE);
        self.trouble = false;
        self.cut.clear();
        for at in 0..self.machines.len() {
            self.machines[at].is_full = false;
            self.machines[at].is_failing = false;
            self.measure(at);
        }
        self.steps_until(Self::is_settled);
        self.check();
        self.leave_and_return();
    }

    fn some_time(&mut self, happening: Happening) {
        let after = Duration::from_millis(self.chance(100_000));
        self.at(after, happening);
    }

    /// Joining goes without faults; a second machine follows when the first is in.
    fn join_all(&mut self, count: usize) {
        for joiner in 1..count {
            let command = Command::Invite(Wanted::default());
            self.ask(0, command, Asked::Invite { joiner });
            self.steps_until(|world| world.all_know(joiner + 1));
        }
    }

    /// Says whether so many machines know and reach each other, and know who was removed.
    fn all_know(&self, count: usize) -> bool {
        self.all_connected(count)
            && self.machines[..count].iter().all(|m| {
                let known = &m.disk.loaded;
                // Beside the others there is the stranger whose certificate is over.
                m.writing.is_empty() && known.members.len() == count && known.revocations.len() == 1
            })
    }

    fn all_connected(&self, count: usize) -> bool {
        (0..count).all(|a| (0..a).all(|b| self.is_connected(a, b)))
    }

    /// Everything that was accepted is on the recipients' disks, and so are everybody's keys.
    fn is_settled(&self) -> bool {
        self.all_connected(self.machines.len())
            && self
                .machines
                .iter()
                .all(|m| m.disk.loaded.outbox.is_empty() && m.writing.is_empty())
            && self.all_keys_pinned()
    }

    fn all_keys_pinned(&self) -> bool {
        self.machines.iter().all(|m| {
            let pins = &m.disk.loaded.pins;
            let has_key_of = |other: &Machine| {
                let key = p2sn::fingerprint(other.seed).0;
                pins.iter().any(|pin| (pin.0, pin.1) == (other.peer, key))
            };
            let mut others = self.machines.iter().filter(|o| o.peer != m.peer);
            others.all(has_key_of)
        })
    }

    fn steps_until(&mut self, done: impl Fn(&Self) -> bool) {
        let patience = self.now + PATIENCE;
        for _ in 0..STEPS_MAX {
            if done(self) {
                return;
            }
            let Some(((at, _), happening)) = self.agenda.pop_first() else {
                break;
            };
            assert!(at <= patience, "nothing came right");
            self.now = at;
            self.step(happening);
        }
        assert!(done(self), "too many steps");
    }

    fn is_alive(&self, at: usize, life: u32) -> bool {
        self.machines[at].life == life && self.machines[at].state.is_some()
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Input(at, life, input) if self.is_alive(at, life) => self.input(at, input),
            Happening::Written(at, life) if self.is_alive(at, life) => self.written(at),
            Happening::Timeout(at, life) if self.is_alive(at, life) => self.timeout(at),
            Happening::Dialled(at, life, to, addresses) if self.is_alive(at, life) => {
                self.dialled(at, &to, Some(&addresses));
            }
            Happening::Lan => self.lan_speaks(),
            Happening::KeyWritten(at, life) if self.is_alive(at, life) => self.key_written(at),
            Happening::PowerFails(at, life) if self.is_alive(at, life) => self.power_fails(at),
            Happening::Greet(at, life) if self.is_alive(at, life) => self.send_integers(at, 1),
            Happening::Input(..)
            | Happening::PowerFails(..)
            | Happening::Greet(..)
            | Happening::Written(..)
            | Happening::KeyWritten(..)
            | Happening::Timeout(..)
            | Happening::Dialled(..) => {}
            Happening::Arrives(connection, parcel) => self.arrives(connection, parcel),
            Happening::Gone(at, connection) => self.gone(at, connection),
            Happening::Unopened(connection) => self.unopened(connection),
            Happening::PowerOn(at) => self.power_on(at),
            Happening::ClockIsBack(at, off_us) => {
                self.leaping = None;
                self.machines[at].clock_off_us = off_us;
                self.model.clock_jumped(at, self.now);
            }
            Happening::Fault => self.fault(),
            Happening::Say => self.say(),
            Happening::Vouch => self.vouch(),
            Happening::Rename => self.rename(),
            Happening::Share => self.share(),
            Happening::Lie => self.lie(),
            Happening::Visit(stranger) => self.visit(stranger),
            Happening::Intrusion(place, connection) => self.intrude_as_member(place, connection),
        }
    }

    fn check(&mut self) {
        let disk_of = |peer: &PeerId| {
            let at = self.place(peer).expect("a machine");
            self.machines[at].disk.clone()
        };
        self.model.check_messages(disk_of);
        self.model.check_integers();
        self.check_last_values();
        self.check_certificates();
        self.check_names();
        for at in 0..self.machines.len() {
            self.ask(at, Command::Status, Asked::Idle);
        }
    }

    /// Checks that nobody's last value is older than what it heard, and that after everybody has
    /// met everybody anew all know the newest.
    fn check_last_values(&mut self) {
        self.ask_last_values();
        let pairs = self.pairs();
        for &(at, by) in &pairs {
            let Some(legal) = self.model.last_values(at, by) else {
                continue;
            };
            let known = self.machines[at].last_of(index_of(by)).expect("heard once");
            let is_legal = self.model.has_jumped(by) || legal.contains(&known.value.0);
            assert!(is_legal, "{at} knows {known:?}, not {legal:?}");
        }
        let newest: Vec<BTreeSet<i32>> = (0..self.machines.len())
            .map(|by| self.newest_of(by))
            .collect();
        for at in 0..self.machines.len() {
            for other in 0..at {
                self.break_between(at, other);
            }
        }
        // The breaks are noticed within nine seconds.
        let noticed = self.now + Duration::from_secs(10);
        self.steps_until(|world| world.now > noticed && world.is_settled());
        let told = self.now + Duration::from_secs(3);
        self.steps_until(|world| world.now > told);
        self.ask_last_values();
        for (at, by) in pairs {
            let known = self.machines[at].last_of(index_of(by));
            let known = known.map(|last| last.value.0);
            let newest = &newest[by];
            let is_newest = newest.is_empty() || known.is_some_and(|known| newest.contains(&known));
            assert!(is_newest, "{at} knows {known:?} of {by}, not {newest:?}");
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.machines.len();
        all.clone()
            .flat_map(|at| all.clone().map(move |by| (at, by)))
            .filter(|(at, by)| at != by)
            .collect()
    }

    /// Returns the value of an index that its source said last, if the source knows it: it forgets
    /// what it said before its last start, and nobody else is believed. None if its clock went back,
    /// so that others have heard a later one by that.
    fn newest_of(&self, by: usize) -> BTreeSet<i32> {
        let known = self.machines.iter().filter_map(|m| m.last_of(index_of(by)));
        let newest_ms = known.map(|last| last.sent_ms).max();
        let own = self.machines[by].last_of(index_of(by));
        let own = own.filter(|last| Some(last.sent_ms) == newest_ms);
        own.map(|last| last.value.0).into_iter().collect()
    }

    fn ask_last_values(&mut self) {
        for at in 0..self.machines.len() {
            self.ask(at, Command::LastIntegers, Asked::Last);
        }
    }
}

fn machine(seed: u8) -> Machine {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    Machine::new(keypair.public().to_peer_id(), seed)
}

/// The first machine owns index 1, and each that joins gets the next.
fn index_of(machine: usize) -> Index {
    Index(i32::try_from(machine).expect("small") + 1)
}

mod tests;
