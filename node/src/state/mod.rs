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
//! | `membership` | who is a member: certificates, revocations, invites, joining |
//! | `links` | which connections are opened, kept and closed |
//! | `peers` | whom to dial, where and when |
//! | `sync` | what members tell each other about the mesh, and their clocks |
//! | `messages` | direct messages: outbox, sending, receiving |
//! | `post` | nothing: what doors for Syft agents ask and are told |
//! | `users` | names of users and members, pinned keys, who is here |
//! | `letters` | letters of users: mailboxes, broadcasts, carrying on |
//! | `servers` | foreign Syft servers: outbox, inbox, pinned keys |
//! | `integers` | who may speak for an index, budgets, last values |
//! | `clients` | old P2SN clients and servers: pinned keys, what waits for them |
//! | `keys` | P2SN between members: pinned RSA keys, key exchange, messages |
//!
//! "Accepted" and acks wait for `Stored`: nobody hears of a record before it is on disk.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clients;
mod integers;
pub mod io;
mod keys;
mod letters;
mod links;
mod membership;
mod messages;
mod peers;
pub mod post;
pub mod report;
mod servers;
mod sync;
mod users;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use libp2p_identity::PeerId;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use self::io::{
    Command, Connection, Event, Failure, FailureKind, Input, Loaded, NetInput, NetOutput, Now,
    OutboundId, Output, Party, Protocol, Record, Reply, RequestId, Ticket,
};
pub use self::membership::{CERTIFICATE_LIFETIME, INVITE_LIFETIME};
pub use self::{integers::VALUES_MAX, letters::FINGERPRINTS_MAX};
use crate::proto::{
    mesh::{Address, NodeName, certificate::MeshKey},
    syft,
};

/// The moment before which a clock is certainly not set: pimesh did not exist. Unix ms of
/// 2025-01-01. A Pi has no battery clock and may start in 1970.
pub const CLOCK_SET_MS: u64 = 1_735_689_600_000;

/// The part of the configuration that the state uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a message is kept trying.
    pub expiry: Duration,
    /// Most messages in the outbox.
    pub outbox_count_max: usize,
    /// Most bytes of text in the outbox.
    pub outbox_bytes_max: usize,
    /// How long history is kept.
    pub history_age_max: Duration,
    /// How many bytes of history are kept.
    pub history_bytes_max: u64,
    /// How long an integer is worth delivering.
    pub integer_ttl: Duration,
    /// Integers that one sender may send in a second, steadily; 0 for no limit.
    pub budget_per_second: u32,
    /// Integers that one sender may send at once.
    pub budget_burst: u32,
    /// Configured addresses of peers.
    pub peers: Vec<(PeerId, Address)>,
    /// What is kept for users who are away.
    pub letters: LetterLimits,
    /// Foreign Syft servers that this node is a client of.
    pub servers: Vec<NodeName>,
}

/// How much is kept for each user of this door who is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterLimits {
    /// Most letters.
    pub count_max: usize,
    /// Most bytes.
    pub bytes_max: usize,
    /// How long each is kept.
    pub age_max: Duration,
}

impl Default for LetterLimits {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            bytes_max: 32 * 1024 * 1024,
            age_max: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            expiry: 7 * DAY,
            outbox_count_max: 10_000,
            outbox_bytes_max: 32 * 1024 * 1024,
            history_age_max: 365 * DAY,
            history_bytes_max: 256 * 1024 * 1024,
            integer_ttl: Duration::from_secs(10),
            budget_per_second: 2_000,
            budget_burst: 20_000,
            peers: Vec::new(),
            letters: LetterLimits::default(),
            servers: Vec::new(),
        }
    }
}

/// What a node is from birth.
#[derive(Clone)]
pub struct Setup {
    /// Its peer id.
    pub peer: PeerId,
    /// The key that signs and opens its direct messages.
    pub messaging_key: syft::SigningKey,
    /// The mesh key, if this node holds one.
    pub mesh_key: Option<MeshKey>,
    /// The name it would like to have.
    pub name: NodeName,
    /// Chance for ids, jitter and envelopes, from the operating system.
    pub seed: [u8; 32],
    /// The configuration.
    pub settings: Settings,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("peer", &self.peer)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a node cannot start from what was on its disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The stored membership is damaged.
    #[error("the stored membership of this node is not usable ({0})")]
    Membership(String),
    /// There is neither a membership nor a mesh key to begin one with.
    #[error("this node is in no mesh and has no mesh key to begin one with")]
    NoMeshKey,
    /// The store belongs to another node.
    #[error("the store belongs to node {0}, not to this one")]
    OtherNode(PeerId),
}

/// What the node knows and decides.
pub struct State {
    own: Own,
    settings: Settings,
    membership: membership::Membership,
    links: links::Links,
    peers: peers::Peers,
    sync: sync::Sync,
    messages: messages::Messages,
    users: users::Users,
    letters: letters::Letters,
    integers: integers::Integers,
    keys: keys::Keys,
    clients: clients::Clients,
    joining: Option<membership::Joining>,
    effects: Effects,
    started: Now,
    prune_at: Duration,
}

/// What this node is.
struct Own {
    peer: PeerId,
    key: syft::SigningKey,
    name: NodeName,
    addresses: Vec<Address>,
}

/// How often history is pruned.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60 * 60);

impl State {
    /// Makes the state of a node that starts.
    ///
    /// A node that is in no mesh begins a mesh of one with its mesh key.
    ///
    /// # Errors
    /// Returns why what was on disk does not make a node.
    pub fn new(setup: Setup, loaded: Loaded, now: Now) -> Result<Self, StartError> {
        let mut effects = Effects::new(setup.seed);
        let own = Own {
            peer: setup.peer,
            key: setup.messaging_key,
            name: setup.name,
            addresses: Vec::new(),
        };
        let membership =
            membership::Membership::load(&own, setup.mesh_key, &loaded, &mut effects, now)?;
        let letters = letters::Letters::load(&loaded.users, loaded.letters, loaded.seen, own.peer);
        let mut state = Self {
            letters,
            users: users::Users::load(loaded.users, loaded.revoked_tokens),
            messages: messages::Messages::load(loaded.outbox, loaded.marks, &mut effects, now),
            peers: peers::Peers::load(loaded.addresses),
            keys: keys::Keys::load(loaded.pins),
            clients: clients::Clients::load(loaded.client_pins, loaded.for_clients, now),
            integers: integers::Integers::new(now),
            links: links::Links::default(),
            sync: sync::Sync::default(),
            joining: None,
            settings: setup.settings,
            started: now,
            prune_at: now.mono,
            own,
            membership,
            effects,
        };
        state.add_configured_addresses();
        state.dial_due(now);
        Ok(state)
    }

    /// Takes one input. Take all outputs before the next.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Net(input) => self.handle_net(input, now),
            Input::Control(request, command) => self.handle_command(request, command, now),
            Input::Stored(ticket) => self.handle_stored(ticket, now),
            Input::StoreFailed(ticket, reason) => self.handle_store_failed(ticket, reason, now),
        }
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.outputs.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called, as a time since start.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        [
            self.peers.next_dial(),
            self.links.next_deadline(),
            self.messages.next_deadline(),
            self.next_telling(),
            self.sync.next_round(),
            self.keys.next_retry(),
            self.clients.next_deadline(),
            self.joining.as_ref().map(membership::Joining::deadline),
            Some(self.prune_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.give_up_joining(now);
        self.dial_due(now);
        self.messages_due(now);
        self.clients_due(now);
        self.telling_due(now);
        self.sync_due(now);
        self.exchanges_due(now);
        if self.prune_at <= now.mono {
            self.prune(now);
        }
    }

    fn handle_net(&mut self, input: NetInput, now: Now) {
        match input {
            NetInput::OwnAddresses(addresses) => self.own_addresses(addresses, now),
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
            NetInput::DialFailed { peer, reason } => self.dial_failed(peer, reason, now),
            NetInput::Discovered { peer, address } => self.discovered(peer, address, now),
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
                protocol: Protocol::Users,
                id,
                bytes,
            } => {
                self.users_request(peer, id, &bytes, now);
            }
            NetInput::Response { id, result } => self.response(id, result, now),
            NetInput::LiveTooLong { source } => {
                self.effects.refused(Some(source), "integer", "too_long");
            }
            NetInput::Live { source, bytes } => self.live(source, &bytes, now),
            NetInput::Gossip { source, id, bytes } => self.gossip(source, id, &bytes, now),
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
        match self.effects.asked.remove(&id) {
            Some(Asked::Hello(connection)) => self.hello_answered(connection, result, now),
            Some(Asked::Ready(connection)) => self.ready_answered(connection, result, now),
            Some(Asked::Join(connection)) => self.join_answered(connection, result, now),
            Some(Asked::Sync {
                peer,
                sent_us,
                news,
            }) => self.sync_answered(peer, sent_us, news, result, now),
            Some(Asked::Direct { peer }) => self.direct_answered(peer, id, result, now),
            Some(Asked::Users { peer }) => self.users_answered(peer, id, result.is_ok(), now),
            None => {}
        }
    }

    fn handle_command(&mut self, request: RequestId, command: Command, now: Now) {
        match command {
            Command::Status => {
                let status = Reply::Status(Box::new(self.status(now)));
                self.effects.reply(request, status);
            }
            Command::Peers => {
                let peers = Reply::Peers(self.report_peers(now));
                self.effects.reply(request, peers);
            }
            Command::Invite {
                name,
                index,
                vouched,
                lifetime,
            } => {
                self.invite(request, name, index, vouched, lifetime, now);
            }
            Command::Join { ticket } => self.join(request, &ticket, now),
            Command::Remove { peer } => self.remove(request, &peer, now),
            Command::Vouch { peer, vouched } => self.vouch(request, &peer, vouched, now),
            Command::Trust { peer } => {
                if !self.trust_user(request, &peer) {
                    self.trust(request, &peer);
                }
            }
            Command::Door(ask) => self.asked_by_door(request, *ask, now),
            Command::Send {
                to,
                text,
                via,
                expiry,
            } => {
                self.send(request, &to, text, via, expiry, now);
            }
            Command::P2sn(question) => self.answer_p2sn(request, question, now),
            Command::Outbox => {
                let outbox = Reply::Outbox(self.report_outbox());
                self.effects.reply(request, outbox);
            }
            Command::Integers { index, values, at } => {
                self.publish(request, index, &values, at, now);
            }
            Command::Bridge { client, iids } => self.bridge(request, client, iids, now),
            Command::LastIntegers => {
                let last = Reply::LastIntegers(self.report_last());
                self.effects.reply(request, last);
            }
            Command::Configure(settings) => {
                self.settings = *settings;
                self.add_configured_addresses();
                self.effects.reply(request, Reply::Configured);
            }
        }
    }

    fn handle_stored(&mut self, ticket: Ticket, now: Now) {
        match self.effects.waiting.remove(&ticket) {
            Some(After::Accepted(accepted)) => self.messages_accepted(accepted, now),
            Some(After::Received(received)) => self.messages_received(received, now),
            Some(After::Reply(request, reply)) => self.effects.reply(request, reply),
            Some(After::Welcome(welcome)) => self.welcome_stored(*welcome, now),
            Some(After::Joined(joined)) => self.join_stored(*joined, now),
            Some(After::P2snReceived(received)) => self.p2sn_stored(received),
            Some(After::Brought(brought)) => self.brought(brought),
            Some(After::Reserved(reserved)) => self.reserved(reserved, now),
            Some(After::Posted(posting)) => self.posted(*posting, now),
            Some(After::ServerReceived(received)) => self.server_message_stored(*received),
            Some(After::Registered(request, user)) => self.registered(request, &user, now),
            None => {}
        }
    }

    fn handle_store_failed(&mut self, ticket: Ticket, reason: String, now: Now) {
        match self.effects.waiting.remove(&ticket) {
            Some(After::Accepted(accepted)) => self.messages_not_accepted(accepted, &reason),
            Some(After::Received(received)) => self.messages_not_received(received),
            Some(After::Reply(request, _)) => self.effects.fail(request, not_stored(&reason)),
            Some(After::Welcome(welcome)) => self.welcome_not_stored(*welcome),
            Some(After::Joined(joined)) => self.join_not_stored(*joined, &reason, now),
            Some(After::P2snReceived(received)) => self.p2sn_not_stored(&received),
            Some(After::Brought(brought)) => self.not_brought(&brought, &reason),
            Some(After::Reserved(reserved)) => self.not_reserved(&reserved, &reason),
            Some(After::Posted(posting)) => self.not_posted(&posting, &reason),
            Some(After::ServerReceived(received)) => {
                self.server_message_not_stored(&received, not_stored(&reason));
            }
            Some(After::Registered(request, user)) => {
                self.not_registered(request, user, not_stored(&reason));
            }
            None => {}
        }
        self.effects.event(Event::StoreFailed { reason });
    }

    fn status(&self, now: Now) -> report::Status {
        let terms = self.membership.own_terms();
        report::Status {
            name: terms.name.to_string(),
            peer_id: self.own.peer,
            mesh: self.membership.mesh().to_string(),
            index: terms.index,
            may_invite: self.membership.may_invite(),
            revoked: self.membership.is_revoked(),
            messaging_key: self.own.key.public().to_base64(),
            rsa_fingerprint: self.keys.own_fingerprint().map(|f| f.to_string()),
            certificate_expires_ms: terms.expires_ms,
            addresses: self.own.addresses.clone(),
            members: self.membership.members().count() + 1,
            connected: self.links.open_peers().count(),
            invites: self.membership.open_invites(now),
            outbox_count: self.messages.count() + self.clients.count(),
            outbox_bytes: self.messages.bytes(),
            received: self.messages.received(),
            integers_received: self.integers.received(),
            integers_sent: self.integers.sent(),
            uptime_ms: millis(now.mono.saturating_sub(self.started.mono)),
            clock_set: now.unix_ms() >= CLOCK_SET_MS,
            clock_spread_us: self.clock_spread_us(),
        }
    }

    fn clock_spread_us(&self) -> u64 {
        let peers = self.links.open_peers();
        let offsets = peers.filter_map(|peer| self.sync.offset_us(&peer));
        // This node's own clock is at 0.
        let (first, last) = offsets.fold((0, 0), |(first, last): (i64, i64), offset| {
            (first.min(offset), last.max(offset))
        });
        last.abs_diff(first)
    }

    /// Finds a member by name or peer id.
    fn resolve(&self, text: &str) -> Result<PeerId, Failure> {
        let by_name = |&(_, terms): &(PeerId, &crate::proto::mesh::certificate::Terms)| {
            terms.name.as_str() == text
        };
        let named: Vec<PeerId> = self
            .membership
            .members()
            .filter(by_name)
            .map(|(peer, _)| peer)
            .collect();
        match named.as_slice() {
            [peer] => return Ok(*peer),
            [] => {}
            _ => {
                return Err(
                    Failure::conflict(format!("several members are named `{text}`"))
                        .with_hint("name it by its peer id, which `pimesh peers --json` shows"),
                );
            }
        }
        if let Ok(peer) = text.parse::<PeerId>()
            && self.membership.is_known(&peer)
        {
            return Ok(peer);
        }
        let failure = Failure::not_found(format!("no member is named `{text}`"));
        let names = self
            .membership
            .members()
            .map(|(_, terms)| terms.name.as_str());
        let nearest = names.map(|name| (strsim::jaro_winkler(name, text), name));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
        Err(match nearest {
            Some((likeness, name)) if likeness > 0.75 => {
                failure.with_hint(format!("did you mean `{name}`?"))
            }
            _ => failure.with_hint("`pimesh peers` lists the members"),
        })
    }

    /// Returns the name of a member, or its peer id if it is none.
    fn name_of(&self, peer: &PeerId) -> String {
        self.membership
            .terms(peer)
            .map_or_else(|| peer.to_string(), |terms| terms.name.to_string())
    }

    /// Returns the name of a member, or of a client.
    fn name_of_party(&self, party: &Party) -> String {
        match party {
            Party::Member(peer) => self.name_of(peer),
            Party::Client(name) => name.to_string(),
        }
    }

    fn prune(&mut self, now: Now) {
        self.prune_at = now.mono + PRUNE_INTERVAL;
        self.prune_letters(now);
        self.prune_tokens(now);
        if now.unix_ms() < CLOCK_SET_MS {
            return;
        }
        let before_ms = now
            .unix_ms()
            .saturating_sub(millis(self.settings.history_age_max));
        let bytes_max = self.settings.history_bytes_max;
        self.effects.store(
            vec![Record::Prune {
                before_ms,
                bytes_max,
            }],
            None,
        );
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("peer", &self.own.peer)
            .finish_non_exhaustive()
    }
}

/// What follows from an input, and what the answers will be matched to.
struct Effects {
    outputs: VecDeque<Output>,
    rng: ChaCha20Rng,
    next_ticket: u64,
    next_outbound: u64,
    waiting: BTreeMap<Ticket, After>,
    asked: BTreeMap<OutboundId, Asked>,
}

/// What a completed ticket sets free.
enum After {
    Accepted(messages::Accepting),
    Received(messages::Receiving),
    Reply(RequestId, Reply),
    Welcome(Box<membership::Welcoming>),
    Joined(Box<membership::Entering>),
    P2snReceived(keys::P2snReceiving),
    Brought(clients::Bringing),
    Reserved(clients::Reserving),
    Posted(Box<letters::Posting>),
    ServerReceived(Box<servers::ServerReceived>),
    Registered(RequestId, crate::proto::syft::UserId),
}

/// What a request of ours was about.
enum Asked {
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
}

impl Effects {
    fn new(seed: [u8; 32]) -> Self {
        Self {
            outputs: VecDeque::new(),
            rng: ChaCha20Rng::from_seed(seed),
            next_ticket: 0,
            next_outbound: 0,
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    fn net(&mut self, output: NetOutput) {
        self.outputs.push_back(Output::Net(output));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn count(&mut self, what: &'static str, times: u64) {
        self.event(Event::Counted { what, times });
    }

    fn refused(&mut self, peer: Option<PeerId>, what: &'static str, why: &'static str) {
        self.event(Event::Refused { peer, what, why });
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply(request, Ok(reply)));
    }

    fn fail(&mut self, request: RequestId, failure: Failure) {
        self.outputs.push_back(Output::Reply(request, Err(failure)));
    }

    /// Has records written; `after` happens once they are on disk.
    fn store(&mut self, records: Vec<Record>, after: Option<After>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(after) = after {
            self.waiting.insert(ticket, after);
        }
        self.outputs.push_back(Output::Store(ticket, records));
    }

    /// Names a request of ours; its answer will be matched to `asked`.
    fn ask(&mut self, asked: Asked) -> OutboundId {
        let id = OutboundId(self.next_outbound);
        self.next_outbound += 1;
        self.asked.insert(id, asked);
        id
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns a wait that is anywhere between nothing and `ceiling`: full jitter.
    fn jitter(&mut self, ceiling: Duration) -> Duration {
        let span = u64::try_from(ceiling.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        Duration::from_micros(self.rng.next_u64() % span)
    }
}

impl Failure {
    /// Makes a failure that the asker can mend by asking differently.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(FailureKind::BadRequest, message)
    }

    /// Makes a failure about something that does not exist.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// Makes a failure about the state the node is in.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Conflict, message)
    }

    /// Makes a failure that may pass.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, message)
    }

    /// Adds what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }
}

fn not_stored(reason: &str) -> Failure {
    Failure::unavailable(format!("could not write to disk: {reason}"))
        .with_hint("`pimesh doctor` checks the disk")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
