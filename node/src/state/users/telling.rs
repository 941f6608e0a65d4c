//! `/pimesh/users/1`: telling the other members about the users of this gateway, and hearing of
//! theirs (`proto-specs/mesh.md`).
//!
//! One request is under way to a member; what changes meanwhile gathers and goes with the next. A
//! thousand users that come at once are a few requests and not a thousand.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{Entry, entries::Key};
use crate::{
    proto::{
        mesh::{
            ClientName, MessageId,
            users::{
                CLIENTS_MAX, CLIENTS_PER_NODE_MAX, GATHERED_BYTES_MAX, READ_MAX, Request,
                ToldClient, ToldUser, USERS_MAX, USERS_PER_GATEWAY_MAX,
            },
        },
        syft::UserId,
    },
    state::{
        After, Asked, State,
        io::{Event, InboundId, NetOutput, Now, OutboundId, Place, Protocol, Record},
        post::UserRecord,
    },
};

/// How long after a request that was not answered the next one goes. Presence spreads within 2 s,
/// also when one request gets lost.
const AGAIN: Duration = Duration::from_millis(500);

/// Most read letters that wait to be told to one member; older ones are forgotten. They are news
/// for people, nothing waits for them.
const READ_WAITING_MAX: usize = 16_384;

/// What one member was not told yet.
#[derive(Debug, Default)]
pub(in crate::state) struct Telling {
    users: BTreeSet<UserId>,
    read: VecDeque<MessageId>,
    clients: BTreeSet<ClientName>,
    /// Whether nothing was told on this connection.
    begins: bool,
    under_way: Option<UnderWay>,
    again_at: Option<Duration>,
}

/// What a member told of its users, on its way to the disk.
pub(in crate::state) struct Hearing {
    node: PeerId,
    inbound: InboundId,
    /// Whose records are written.
    users: Vec<UserId>,
}

#[derive(Debug)]
struct UnderWay {
    id: OutboundId,
    users: Vec<UserId>,
    read: Vec<MessageId>,
    clients: Vec<ClientName>,
    begins: bool,
}

impl State {
    /// A connection opened: the member is told everything.
    pub(in crate::state) fn tell_all_users(&mut self, peer: PeerId, now: Now) {
        let here = self.own.peer;
        let users: BTreeSet<UserId> = self
            .users
            .of_place(here)
            .filter(|entry| entry.record.stays)
            .map(|entry| entry.record.id.clone())
            .collect();
        let clients = self.clients.told().collect();
        let telling = self.users.telling.entry(peer).or_default();
        telling.users = users;
        telling.clients = clients;
        telling.begins = true;
        let lost = telling.under_way.take();
        telling.read.extend(lost.into_iter().flat_map(|u| u.read));
        telling.again_at = None;
        self.tell_users(peer, now);
    }

    /// The last connection is gone: nobody knows who is there.
    pub(in crate::state) fn users_link_lost(&mut self, peer: PeerId, now: Now) {
        if let Some(telling) = self.users.telling.get_mut(&peer) {
            let lost = telling.under_way.take();
            telling.read.extend(lost.into_iter().flat_map(|u| u.read));
            telling.users.clear();
            telling.clients.clear();
            telling.again_at = None;
        }
        let mut gone = Vec::new();
        for entry in self.users.entries.values_mut() {
            if entry.record.place == peer && entry.clients > 0 {
                entry.clients = 0;
                entry.since_ms = Some(now.unix_ms());
                gone.push(entry.record.id.clone());
            }
        }
        for user in gone {
            let name = self.known_as(&user, peer).to_string();
            self.effects.event(Event::Presence {
                name,
                online: false,
            });
        }
    }

    /// Something about a user of this gateway changed. Members are not told of who has only
    /// registered: they would keep him after this gateway has forgotten him.
    pub(super) fn tell_of_user(&mut self, user: &UserId, now: Now) {
        let entry = self.users.get(user, self.own.peer);
        if entry.is_none_or(|entry| !entry.record.stays) {
            return;
        }
        let peers: Vec<PeerId> = self.links.open_peers().collect();
        for peer in peers {
            let telling = self.users.telling.entry(peer).or_default();
            telling.users.insert(user.clone());
            self.tell_users(peer, now);
        }
    }

    /// Clients of this node are new, or gone.
    pub(in crate::state) fn tell_of_clients(&mut self, clients: &[ClientName], now: Now) {
        let peers: Vec<PeerId> = self.links.open_peers().collect();
        for peer in peers {
            let telling = self.users.telling.entry(peer).or_default();
            telling.clients.extend(clients.iter().cloned());
            self.tell_users(peer, now);
        }
    }

    /// A user here has a letter that a member brought.
    pub(in crate::state) fn tell_read(&mut self, peer: PeerId, id: MessageId, now: Now) {
        let telling = self.users.telling.entry(peer).or_default();
        telling.read.push_back(id);
        if telling.read.len() > READ_WAITING_MAX {
            telling.read.pop_front();
            self.effects.count("read_not_told", 1);
        }
        self.tell_users(peer, now);
    }

    fn tell_users(&mut self, peer: PeerId, now: Now) {
        if !self.links.is_open(&peer) {
            return;
        }
        let here = self.own.peer;
        let Some(telling) = self.users.telling.get_mut(&peer) else {
            return;
        };
        let waits = telling.again_at.is_some_and(|at| at > now.mono);
        let nothing = telling.users.is_empty()
            && telling.read.is_empty()
            && telling.clients.is_empty()
            && !telling.begins;
        if telling.under_way.is_some() || waits || nothing {
            return;
        }
        let mut request = Request {
            begins: std::mem::take(&mut telling.begins),
            ..Request::default()
        };
        let (mut ids, mut bytes) = (Vec::new(), 0);
        while bytes < GATHERED_BYTES_MAX
            && request.users.len() < USERS_MAX
            && let Some(id) = telling.users.pop_first()
        {
            // A user that was forgotten meanwhile is not told.
            if let Some(entry) = self.users.entries.get(&(id.clone(), Place::Node(here))) {
                let told = told(entry);
                bytes += told.size();
                request.users.push(told);
            }
            ids.push(id);
        }
        let count = telling.read.len().min(READ_MAX);
        request.read = telling.read.drain(..count).collect();
        while request.clients.len() < CLIENTS_MAX
            && let Some(name) = telling.clients.pop_first()
        {
            let is_gone = !self.clients.has(&name);
            request.clients.push(ToldClient { name, is_gone });
        }
        let id = self.effects.ask(Asked::Users { peer });
        telling.again_at = None;
        telling.under_way = Some(UnderWay {
            id,
            users: ids,
            read: request.read.clone(),
            clients: request.clients.iter().map(|c| c.name.clone()).collect(),
            begins: request.begins,
        });
        self.effects.net(NetOutput::Request {
            peer,
            protocol: Protocol::Users,
            id,
            bytes: request.encode(),
        });
    }

    pub(in crate::state) fn users_answered(
        &mut self,
        peer: PeerId,
        id: OutboundId,
        was_heard: bool,
        now: Now,
    ) {
        let Some(telling) = self.users.telling.get_mut(&peer) else {
            return;
        };
        let Some(under_way) = telling.under_way.take_if(|u| u.id == id) else {
            return;
        };
        if !was_heard {
            telling.users.extend(under_way.users);
            telling.clients.extend(under_way.clients);
            telling.begins |= under_way.begins;
            for id in under_way.read.into_iter().rev() {
                telling.read.push_front(id);
            }
            telling.again_at = Some(now.mono + AGAIN);
        }
        self.tell_users(peer, now);
    }

    /// Returns when something is to be told again.
    pub(in crate::state) fn next_telling(&self) -> Option<Duration> {
        self.users.telling.values().filter_map(|t| t.again_at).min()
    }

    pub(in crate::state) fn telling_due(&mut self, now: Now) {
        let is_due = |telling: &Telling| telling.again_at.is_some_and(|at| at <= now.mono);
        let due = self.users.telling.iter_mut().filter(|(_, t)| is_due(t));
        let mut peers = Vec::new();
        for (peer, telling) in due {
            telling.again_at = None;
            peers.push(*peer);
        }
        for peer in peers {
            self.tell_users(peer, now);
        }
    }

    pub(in crate::state) fn users_request(
        &mut self,
        peer: PeerId,
        id: InboundId,
        bytes: &[u8],
        now: Now,
    ) {
        let read = || Request::decode(bytes);
        let Some(request) = self.request_of(peer, id, "users", read, now) else {
            return;
        };
        let mut hearing = Hearing {
            node: peer,
            inbound: id,
            users: Vec::new(),
        };
        self.hear_of_clients(peer, request.begins, request.clients);
        let mut records = Vec::new();
        for user in request.users {
            let name = user.id.clone();
            if let Some(record) = self.hear_of_user(peer, user, now) {
                records.push(record);
                if let Some(entry) = self.users.get_mut(&name, peer) {
                    entry.is_unsaved = true;
                }
                hearing.users.push(name);
            }
        }
        if records.is_empty() {
            self.users_heard(&hearing);
        } else {
            self.effects
                .store(records, Some(After::Heard(Box::new(hearing))));
        }
        for id in request.read {
            self.heard_read(peer, id, now);
        }
    }

    /// Takes what a member says of its clients. They have no keys, so nothing is pinned, and nothing is
    /// kept over a restart: all are told again when a connection opens.
    fn hear_of_clients(&mut self, node: PeerId, begins: bool, told: Vec<ToldClient>) {
        let clients = self.users.clients.entry(node).or_default();
        if begins {
            clients.clear();
        }
        let mut refused = 0;
        for ToldClient { name, is_gone } in told {
            if is_gone {
                clients.remove(&name);
            } else if clients.len() < CLIENTS_PER_NODE_MAX {
                clients.insert(name);
            } else {
                refused += 1;
            }
        }
        if clients.is_empty() {
            self.users.clients.remove(&node);
        }
        if refused > 0 {
            self.effects.refused(Some(node), "client", "too_many");
        }
    }

    /// What a member told of its users is on the disk, and only then heard.
    pub(in crate::state) fn users_heard(&mut self, hearing: &Hearing) {
        for user in &hearing.users {
            if let Some(entry) = self.users.get_mut(user, hearing.node) {
                entry.is_unsaved = false;
            }
        }
        let (id, bytes) = (hearing.inbound, Vec::new());
        self.effects.net(NetOutput::Respond { id, bytes });
    }

    /// What a member told of its users is not on the disk. It is refused, and so told again. Until then
    /// the users are known as they were told: others may have heard of them, and messages wait for them.
    pub(in crate::state) fn users_not_heard(&mut self, hearing: &Hearing) {
        for user in &hearing.users {
            if let Some(entry) = self.users.get_mut(user, hearing.node) {
                entry.is_unsaved = true;
            }
        }
        let id = hearing.inbound;
        self.effects.net(NetOutput::Refuse { id });
    }

    /// Takes what a gateway says of a user; returns what is new enough for the disk.
    fn hear_of_user(&mut self, node: PeerId, told: ToldUser, now: Now) -> Option<Record> {
        let key = (told.id.clone(), Place::Node(node));
        if !self.users.entries.contains_key(&key) {
            if self.users.count_of(node) >= USERS_PER_GATEWAY_MAX {
                self.effects.refused(Some(node), "user", "too_many");
                return None;
            }
            if told.id.check_new().is_err() {
                self.effects.refused(Some(node), "user", "misleading_name");
                return None;
            }
            let holds_name = self.is_name_free(&told.id);
            if !holds_name && told.id.at(&self.name_of_any(&node)).is_err() {
                // The full name would be too long to write to.
                self.effects.refused(Some(node), "user", "name_too_long");
                return None;
            }
            let record = UserRecord {
                stays: true,
                id: told.id.clone(),
                place: Place::Node(node),
                title: told.title.clone(),
                key: told.key,
                shown: None,
                registered_ms: told.registered_ms,
                // Filled in below, so that there is one way to do it.
                descriptions: crate::proto::syft::Descriptions::default(),
                taken: 0,
                written_ms: 0,
                holds_name,
            };
            let is_conflict = !record.holds_name;
            self.users.entries.insert(key.clone(), Entry::new(record));
            if is_conflict {
                self.tell_conflict(&told.id, node);
            }
            let record = self.update_user(&key, told, now);
            let entry = self.users.entries.get(&key);
            return record
                .or_else(|| entry.map(|entry| Record::User(Box::new(entry.record.clone()))));
        }
        self.update_user(&key, told, now)
    }

    fn update_user(&mut self, key: &Key, told: ToldUser, now: Now) -> Option<Record> {
        let name = self.known_as(&key.0, key.1).to_string();
        let entry = self.users.entries.get_mut(key)?;
        let before = entry.record.clone();
        if entry.record.key != told.key {
            let is_news = entry.record.shown != Some(told.key);
            let is_unsaved = entry.is_unsaved;
            entry.record.shown = Some(told.key);
            entry.clients = 0;
            let record =
                (is_news || is_unsaved).then(|| Record::User(Box::new(entry.record.clone())));
            if is_news {
                self.effects.refused(key.1.node(), "user", "other_key");
                self.effects.event(Event::UserKeyChanged {
                    name,
                    pinned: Box::new(before.key),
                    shown: Box::new(told.key),
                });
            }
            return record;
        }
        entry.record.shown = None;
        entry.record.title = told.title;
        entry.record.descriptions = told.descriptions;
        let was_online = entry.clients > 0;
        entry.clients = u32::from(told.online);
        let changed = entry.is_unsaved || entry.record != before;
        let record = changed.then(|| Record::User(Box::new(entry.record.clone())));
        if was_online != told.online {
            entry.since_ms = Some(now.unix_ms());
            let online = told.online;
            self.effects.event(Event::Presence { name, online });
        }
        record
    }
}

fn told(entry: &Entry) -> ToldUser {
    let record = &entry.record;
    ToldUser {
        id: record.id.clone(),
        title: record.title.clone(),
        key: record.key,
        registered_ms: record.registered_ms,
        descriptions: record.descriptions.clone(),
        online: entry.clients > 0,
    }
}
