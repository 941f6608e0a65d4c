//! What the node knows and decides: one state machine, fed by the loop in `node.rs`.
//!
//! ```text
//!   Input  ──▶ State::handle ──┐            Net       from and to libp2p
//!   time   ──▶ handle_timeout ─┼─▶ Output   Control   questions; Reply: answers
//!                              │            Stored    a ticket is on disk; Store: put it there
//!   poll_timeout ◀─────────────┘            Event     for people, logs and counters
//! ```
//!
//! Give it one input, then take outputs until there is none, then give it the next. Nothing in
//! here reads a clock, asks the operating system for randomness, or touches a socket or a file:
//! the same inputs at the same times with the same seed give the same outputs.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `io` | nothing: what goes in and what comes out |
//! | `report` | nothing: what is told to people |
//! | `status` | nothing: the node at a glance |
//! | `setup` | nothing: what a node is given when it starts |
//! | `own` | nothing: what this node is |
//! | `expiry` | nothing: how long a message may be kept trying |
//! | `effects` | nothing: the outputs, and what waits for answers |
//! | `timers` | nothing: what waits for its time |
//! | `changes` | what commands change: on the disk first, then here |
//! | `calendar` | which date counts when something is deleted for its age |
//! | `aging` | what goes because it is old |
//! | `names` | whom a name means |
//! | `name_history` | what members are and were called |
//! | `membership` | who is a member: certificates, revocations, invites, joining |
//! | `links` | which connections are opened, kept and closed |
//! | `addresses` | where a peer may be, by whose word |
//! | `peers` | whom to dial, where and when |
//! | `copies` | two machines with one identity |
//! | `sync` | what members tell each other about the mesh, and their clocks |
//! | `capacity` | what is taken in: the disk's reserve, each sender's share of the history |
//! | `messages` | direct messages: outbox, sending, receiving |
//! | `post` | nothing: what gateways for Syft agents ask and are told |
//! | `users` | users of gateways: registration, pinned keys, who is here |
//! | `who` | everybody who can be written to; the owner's word on names |
//! | `letters` | letters of users: mailboxes, broadcasts, carrying on |
//! | `servers` | foreign Syft servers: outbox, inbox, pinned keys |
//! | `integers` | who may speak for an index, budgets, last values |
//! | `floods` | members that send much of no use |
//! | `clients` | old P2SN clients and servers: pinned keys, what waits for them |
//! | `keys` | P2SN between members: pinned RSA keys, key exchange, messages |
//!
//! "Accepted" and acks wait for `Stored`: nobody hears of a record before it is on disk.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod addresses;
mod aging;
mod calendar;
mod capacity;
mod changes;
pub mod clients;
mod copies;
mod effects;
mod expiry;
mod floods;
mod integers;
pub mod io;
mod keys;
mod letters;
mod links;
mod membership;
mod messages;
mod name_history;
mod names;
mod own;
mod peers;
pub mod post;
mod records;
pub mod report;
mod servers;
mod setup;
mod status;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod users;
mod who;
mod work;

use std::{fmt, time::Duration};

pub use self::{
    calendar::date_of_history,
    capacity::{ROW_BYTES, disk_reserve},
    expiry::{Expiry, ExpiryError},
    integers::VALUES_MAX,
    letters::FINGERPRINTS_MAX,
    membership::{CERTIFICATE_LIFETIME, INVITE_LIFETIME, Wanted},
    name_history::NAMES_PER_MEMBER_MAX,
    setup::{LetterLimits, Settings, Setup, StartError},
};
use self::{
    effects::{After, Asked, Effects},
    io::{
        Command, Event, Failure, Input, Loaded, NetInput, Now, OutboundId, Output, Protocol, Reply,
        RequestId, Ticket,
    },
    membership::Membership,
    timers::Timer,
};

/// The moment before which a clock is certainly not set: pimesh did not exist. Unix ms of
/// 2025-01-01. A Pi has no battery clock and may start in 1970.
pub const CLOCK_SET_MS: u64 = 1_735_689_600_000;

/// What the node knows and decides.
pub struct State {
    own: own::Own,
    settings: Settings,
    membership: Membership,
    names: name_history::NameHistory,
    links: links::Links,
    peers: peers::Peers,
    sync: sync::Sync,
    copies: copies::Copies,
    messages: messages::Messages,
    users: users::Users,
    letters: letters::Letters,
    integers: integers::Integers,
    floods: floods::Floods,
    keys: keys::Keys,
    clients: clients::Clients,
    records: records::Records,
    capacity: capacity::Capacity,
    under_way: membership::UnderWay,
    effects: Effects,
    changes: changes::Changes,
    calendar: calendar::Calendar,
    started: Now,
}

impl State {
    /// Makes the state of a node that starts.
    ///
    /// A node that is in no mesh begins a mesh of one with its mesh key.
    ///
    /// # Errors
    /// Returns why what was on disk does not make a node.
    pub fn new(setup: Setup, mut loaded: Loaded, now: Now) -> Result<Self, StartError> {
        let mut effects = Effects::new(setup.seed);
        let own = own::Own::new(setup.peer, setup.messaging_key, setup.name);
        let key = setup.mesh_key;
        let is_exported = setup.mesh_key_exported;
        let membership = Membership::load(&own, key, is_exported, &loaded, &mut effects, now)?;
        let of_others = membership.sift(&mut loaded);
        if !of_others.is_empty() {
            effects.store(of_others, None);
        }
        let calendar = calendar::Calendar::new(loaded.date_ms, now);
        let believed = calendar.believed(now);
        let names = name_history::NameHistory::load(loaded.names);
        let letters = letters::Letters::load(&loaded.users, loaded.letters, loaded.seen, own.peer);
        let mut state = Self {
            letters,
            users: users::Users::load(loaded.users),
            messages: messages::Messages::load(loaded.outbox, loaded.marks, &mut effects, believed),
            peers: peers::Peers::load(loaded.addresses),
            keys: keys::Keys::load(loaded.pins),
            clients: clients::Clients::load(loaded.client_pins, loaded.for_clients, believed),
            records: records::Records::load(loaded.records),
            capacity: capacity::Capacity::new(setup.settings.history_bytes_max),
            integers: integers::Integers::new(now),
            floods: floods::Floods::default(),
            copies: copies::Copies::new(&mut effects),
            links: links::Links::default(),
            sync: sync::Sync::default(),
            changes: changes::Changes::default(),
            under_way: membership::UnderWay::default(),
            settings: setup.settings,
            started: now,
            own,
            membership,
            names,
            effects,
            calendar,
        };
        state.note_all_names();
        state.announce_holding(now);
        state.tell_of_doubt(now);
        state.add_configured_addresses();
        state.dial_due(now);
        // What came into the outbox for one that was removed.
        state.messages_due(now);
        state.effects.timers().set(Timer::Prune, now.mono);
        state.take_over_times();
        Ok(state)
    }

    /// Takes one input. Take all outputs before the next.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.look_at_clock(now);
        match input {
            Input::Net(input) => self.handle_net(input, now),
            Input::Control(request, command) => self.handle_command(request, command, now),
            Input::Stored(ticket) => self.handle_stored(ticket, now),
            Input::StoreFailed(ticket, reason) => self.handle_store_failed(ticket, reason, now),
            Input::ClockConfirmed => self.clock_confirmed(now),
            Input::Disk(disk) => self.disk_measured(disk, now),
        }
        self.take_over_times();
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.effects.next()?;
        if let Output::Store(_, records) = &output {
            self.writing(records);
        }
        Some(output)
    }

    /// Returns when [`Self::handle_timeout`] wants to be called, as a time since start.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.effects.next_time()
    }

    /// Sets the timers of parts that keep their times themselves.
    fn take_over_times(&mut self) {
        let times = [
            (Timer::Messages, self.messages.next_deadline()),
            (Timer::Clients, self.clients.next_deadline()),
            (Timer::Telling, self.next_telling()),
        ];
        for (timer, at) in times {
            self.effects.timers().put(timer, at);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.look_at_clock(now);
        for timer in self.effects.timers().take_due(now.mono, |_| true) {
            match timer {
                Timer::Join => self.join_due(now),
                Timer::Farewell => self.end_farewell(),
                Timer::Dial(peer) => self.dial(&peer, now),
                Timer::Messages => self.messages_due(now),
                Timer::Clients => self.clients_due(now),
                Timer::Telling => self.telling_due(now),
                Timer::Clocks => self.sync_due(now),
                Timer::Copied(peer) => self.copy_gone(peer, now),
                Timer::Exchange(peer) => self.exchange_due(peer),
                Timer::Prune => self.prune(now),
            }
        }
        self.take_over_times();
    }

    fn handle_net(&mut self, input: NetInput, now: Now) {
        match input {
            NetInput::OwnAddresses { addresses, reach } => {
                self.own_addresses(addresses, reach, now);
            }
            NetInput::Connected {
                peer,
                connection,
                direction,
                address,
                transport,
            } => {
                self.connected(
                    links::Link::new(peer, direction, address, transport),
                    connection,
                    now,
                );
            }
            NetInput::Disconnected {
                peer,
                connection,
                reason,
            } => {
                self.disconnected(peer, connection, reason, now);
            }
            NetInput::AtLimit { what, times } => self.effects.count(what, times),
            NetInput::DialFailed {
                peer,
                reason,
                tried,
            } => self.dial_failed(peer, reason, tried, now),
            NetInput::DialNotBegun { peer } => self.dial_not_begun(&peer, now),
            NetInput::Discovered { peer, address } => self.discovered(peer, address, now),
            NetInput::Vanished { peer, address } => {
                self.peers.vanished(&peer, &address, &mut self.effects);
            }
            NetInput::InterfacesChanged => self.interfaces_changed(now),
            NetInput::RoundTrip { connection, time } => self.links.round_trip(connection, time),
            NetInput::MemberRequest {
                connection,
                id,
                bytes,
            } => {
                self.member_request(connection, id, &bytes, now);
            }
            NetInput::Request {
                peer,
                protocol: Protocol::Sync,
                id,
                bytes,
            } => {
                self.sync_request(peer, id, &bytes, now);
            }
            NetInput::Request {
                peer,
                protocol: Protocol::Direct,
                id,
                bytes,
            } => {
                self.direct_request(peer, id, &bytes, now);
            }
            NetInput::Request {
                peer,
                protocol: Protocol::Key,
                id,
                bytes,
            } => {
                self.key_request(peer, id, &bytes, now);
            }
            NetInput::Request {
                peer,
                protocol: Protocol::Users,
                id,
                bytes,
            } => {
                self.users_request(peer, id, &bytes, now);
            }
            NetInput::Response { id, result } => self.response(id, result, now),
            NetInput::LiveTooLong { source } => self.live_too_long(source, now),
            NetInput::Live { source, bytes } => self.live(source, &bytes, now),
            NetInput::Gossip {
                source,
                from,
                id,
                bytes,
            } => self.gossip(source, from, id, &bytes, now),
            NetInput::Flooded { peer } => self.flooded(peer, now),
            NetInput::PublishFailed { .. } => self.effects.count("integer_publish_failed", 1),
            NetInput::P2snReady(fingerprint) => self.p2sn_ready(fingerprint),
            NetInput::P2snKey {
                session,
                peer,
                fingerprint,
                bits,
            } => {
                self.p2sn_key(session, peer, fingerprint, bits);
            }
            NetInput::P2snEstablished { session, peer } => self.p2sn_established(session, peer),
            NetInput::P2snMessage {
                session,
                peer,
                bytes,
            } => {
                self.p2sn_message(session, peer, bytes, now);
            }
            NetInput::P2snReplied { session, bytes } => self.p2sn_replied(session, &bytes, now),
            NetInput::P2snClosed {
                session,
                peer,
                reason,
            } => {
                self.p2sn_closed(session, peer, &reason, now);
            }
        }
    }

    fn response(&mut self, id: OutboundId, result: Result<Vec<u8>, String>, now: Now) {
        match self.effects.answered(id) {
            Some(Asked::Hello(connection)) => self.hello_answered(connection, result, now),
            Some(Asked::Ready(connection)) => self.ready_answered(connection, result, now),
            Some(Asked::Join(connection)) => self.join_answered(connection, result, now),
            Some(Asked::Sync {
                peer,
                sent_us,
                news,
            }) => self.sync_answered(peer, id, (sent_us, news), result, now),
            Some(Asked::Direct { peer }) => self.direct_answered(peer, id, result, now),
            Some(Asked::Key { peer, request }) => self.key_answered(&peer, request, result),
            Some(Asked::Users { peer }) => self.users_answered(peer, id, result.is_ok(), now),
            None => {}
        }
    }

    fn carry_out(&mut self, request: RequestId, command: Command, now: Now) {
        match command {
            Command::Status => {
                let status = Reply::Status(Box::new(self.status(now)));
                self.effects.reply(request, status);
            }
            Command::Peers => {
                let peers = Reply::Peers(self.report_peers(now));
                self.effects.reply(request, peers);
            }
            Command::Invite(wanted) => self.invite(request, wanted, now),
            Command::Invites => {
                let invites = Reply::Invites(self.report_invites(now));
                self.effects.reply(request, invites);
            }
            Command::CancelInvites { which } => self.cancel_invites(request, which, now),
            Command::Rename { peer, name } => self.rename(request, peer, &name, now),
            Command::Names => {
                let names = Reply::Names(self.report_names());
                self.effects.reply(request, names);
            }
            Command::Join { ticket } => self.join(request, &ticket, now),
            Command::Leave { sure } => self.leave(request, sure, now),
            Command::ShareMeshKey { peer } => self.share_mesh_key(request, &peer),
            Command::MeshKeyFile { key, exported } => {
                self.mesh_key_file(key, exported, now);
                self.effects.reply(request, Reply::Configured);
            }
            Command::Remove { peer } => self.remove(request, &peer, now),
            Command::Vouch { peer, vouched } => self.vouch(request, &peer, vouched, now),
            Command::GiveIndices { peer, further } => {
                self.give_indices(request, &peer, further, now);
            }
            Command::Who => {
                let who = Reply::Who(self.report_who(now));
                self.effects.reply(request, who);
            }
            Command::Trust { who, name: true } => self.trust_name(request, &who),
            Command::Trust { who, name: false } => self.trust_key(request, &who),
            Command::ClientIndices(indices) => {
                self.integers.set_client_indices(indices);
                self.effects.reply(request, Reply::Configured);
            }
            Command::Gateway(ask) => self.asked_by_gateway(request, *ask, now),
            Command::Send {
                to,
                text,
                via,
                expiry,
            } => {
                self.send(request, &to, text, via, expiry, now);
            }
            Command::P2sn(question) => self.answer_p2sn(request, question, now),
            Command::Keep(gateway, asked) => self.asked_about_records(request, gateway, asked),
            Command::DeleteHistory(chosen) => self.delete_history(request, chosen),
            Command::Outbox => {
                let outbox = Reply::Outbox(self.report_outbox());
                self.effects.reply(request, outbox);
            }
            Command::Integers { index, values, at } => {
                self.publish(request, index, &values, at, now);
            }
            Command::Bridge { client, iids } => self.bridge(request, client, iids, now),
            Command::OwnIndex => {
                let index = self.membership.own_terms().index;
                self.effects.reply(request, Reply::OwnIndex(index));
            }
            Command::LastIntegers => {
                let last = Reply::LastIntegers(self.report_last());
                self.effects.reply(request, last);
            }
            Command::Configure(settings) => {
                self.settings = *settings;
                self.add_configured_addresses();
                self.resize_shares();
                self.effects.reply(request, Reply::Configured);
            }
        }
    }

    fn handle_stored(&mut self, ticket: Ticket, now: Now) {
        match self.effects.completed(ticket) {
            Some(After::Accepted(accepted)) => self.messages_accepted(accepted, now),
            Some(After::Received(received)) => self.messages_received(received, now),
            Some(After::Changed(changing)) => self.changed(*changing, now),
            Some(After::Cancelled(cancelling)) => self.invites_cancelled(cancelling, now),
            Some(After::LeaveStaged(leaving)) => self.leave_staged(leaving, now),
            Some(After::LeaveStored(leaving)) => self.leave_stored(*leaving, now),
            Some(After::KeyKept(coming)) => self.mesh_key_kept(*coming, now),
            Some(After::Welcome(welcome)) => self.welcome_stored(*welcome, now),
            Some(After::Joined(joined)) => self.join_stored(*joined, now),
            Some(After::P2snReceived(received)) => self.p2sn_stored(received),
            Some(After::Brought(brought)) => self.brought(brought),
            Some(After::Posted(posting)) => self.posted(*posting, now),
            Some(After::ServerReceived(received)) => self.server_message_stored(*received),
            Some(After::Registered(registering)) => self.registered(*registering, now),
            Some(After::Heard(hearing)) => self.users_heard(&hearing),
            Some(After::UserPinned(pinning)) => self.server_user_pinned(*pinning),
            Some(After::ClientPinned(request, pinning)) => {
                self.client_pinned(request, &pinning, now);
            }
            Some(After::Pruned) => self.pruned(),
            None => {}
        }
    }

    fn handle_store_failed(&mut self, ticket: Ticket, reason: String, now: Now) {
        match self.effects.completed(ticket) {
            Some(After::Accepted(accepted)) => self.messages_not_accepted(accepted, &reason),
            Some(After::Received(received)) => self.messages_not_received(received),
            Some(After::Changed(changing)) => self.not_changed(*changing, &reason, now),
            Some(After::Cancelled(cancelling)) => {
                self.invites_not_cancelled(cancelling, &reason, now);
            }
            Some(After::LeaveStaged(leaving) | After::LeaveStored(leaving)) => {
                self.not_left(&leaving, &reason);
            }
            Some(After::KeyKept(coming)) => self.mesh_key_not_kept(&coming),
            Some(After::Welcome(welcome)) => self.welcome_not_stored(*welcome, now),
            Some(After::Joined(joined)) => self.join_not_stored(*joined, &reason, now),
            Some(After::P2snReceived(received)) => self.p2sn_not_stored(&received),
            Some(After::Brought(brought)) => self.not_brought(&brought, &reason),
            Some(After::Posted(posting)) => self.not_posted(&posting, &reason),
            Some(After::ServerReceived(received)) => {
                self.server_message_not_stored(&received, Failure::not_stored(&reason));
            }
            Some(After::Heard(hearing)) => self.users_not_heard(&hearing),
            Some(After::Registered(registering)) => {
                self.not_registered(*registering, Failure::not_stored(&reason));
            }
            Some(After::UserPinned(pinning)) => {
                self.server_user_not_pinned(*pinning, Failure::not_stored(&reason));
            }
            Some(After::ClientPinned(request, pinning)) => {
                self.client_not_pinned(request, *pinning, Failure::not_stored(&reason), now);
            }
            Some(After::Pruned) => self.not_pruned(now),
            None => {}
        }
        self.effects.event(Event::StoreFailed { reason });
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("peer", &self.own.peer)
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
