//! Who can be written to: the users of this gateway and of the others, and the members themselves.
//!
//! Keys are pinned on first use. Whom a name means is in `names`, what gateways tell each other in
//! `telling`.

mod entries;
mod telling;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use self::entries::Entries;
pub(super) use self::telling::Telling;
use super::{
    After, State,
    changes::Change,
    io::{Command, Event, Failure, Now, Record, Reply, RequestId},
    letters::Mailbox,
    millis,
    names::Meant,
    post::{Admitted, Ask, Found, Told, User, UserRecord},
};
use crate::proto::{
    mesh::{parse_peer, users::USERS_PER_GATEWAY_MAX},
    syft::{
        Descriptions, PublicKey, UserId,
        http::{NewUser, TokenId, key_name},
    },
};

/// Most revoked tokens that are remembered. A token that was revoked before so many others ends
/// by itself sooner or later.
const REVOKED_MAX: usize = 16_384;

/// How long a revoked token is remembered after its end. The date that was believed then may have been
/// ahead by two hours, and the clock be set back.
const REVOKED_LONGER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long who registered may take to log in, while the node runs. Clients do both at their start.
const LOGIN_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A user.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: UserRecord,
    /// Clients that are connected; of another gateway's user 1 or 0.
    pub(super) clients: u32,
    /// Whether this user was told that his name means somebody else.
    told_conflict: bool,
    /// When he registered, or this node started, on the clock that never jumps.
    since: Duration,
    /// When he came or went, Unix ms, if this node saw it.
    pub(super) since_ms: Option<u64>,
}

/// A user on the way to the disk.
pub(super) struct Registering {
    request: RequestId,
    user: UserId,
    /// The one who gave way, with what waited for him.
    made_room: Option<(Entry, Mailbox)>,
}

/// All users that are known.
pub(super) struct Users {
    entries: Entries,
    revoked: BTreeMap<TokenId, u64>,
    pub(super) telling: BTreeMap<PeerId, Telling>,
}

impl Users {
    pub(super) fn load(users: Vec<UserRecord>, revoked: Vec<(TokenId, u64)>) -> Self {
        let entry = |record: UserRecord| {
            let key = (record.id.clone(), record.node);
            (key, Entry::new(record))
        };
        Self {
            entries: users.into_iter().map(entry).collect(),
            revoked: revoked.into_iter().collect(),
            telling: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, user: &UserId, node: PeerId) -> Option<&Entry> {
        self.entries.get(&(user.clone(), node))
    }

    pub(super) fn get_mut(&mut self, user: &UserId, node: PeerId) -> Option<&mut Entry> {
        self.entries.get_mut(&(user.clone(), node))
    }

    pub(super) fn insert(&mut self, record: UserRecord) {
        let key = (record.id.clone(), record.node);
        self.entries.insert(key, Entry::new(record));
    }

    /// Returns the revoked tokens that end first, if there is no room for so many more.
    fn ended_first(&self, more: usize) -> Vec<TokenId> {
        let too_many = (self.revoked.len() + more).saturating_sub(REVOKED_MAX);
        if too_many == 0 {
            return Vec::new();
        }
        let mut by_end: Vec<(u64, TokenId)> = self
            .revoked
            .iter()
            .map(|(token, until)| (*until, *token))
            .collect();
        by_end.sort_unstable();
        let first = by_end.into_iter().take(too_many);
        first.map(|(_, token)| token).collect()
    }

    /// Forgets a user; returns false if there is none.
    pub(super) fn remove(&mut self, user: &UserId, node: PeerId) -> bool {
        self.entries.remove(&(user.clone(), node)).is_some()
    }

    /// Takes a user out.
    pub(super) fn take(&mut self, user: &UserId, node: PeerId) -> Option<Entry> {
        self.entries.remove(&(user.clone(), node))
    }

    /// Notes that another key than the pinned one was shown for a user.
    pub(super) fn show(
        &mut self,
        user: &UserId,
        node: PeerId,
        key: PublicKey,
    ) -> Option<UserRecord> {
        let entry = self.get_mut(user, node)?;
        entry.record.shown = Some(key);
        Some(entry.record.clone())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns those who registered one name, at whatever gateway.
    pub(super) fn named<'a>(&'a self, name: &'a UserId) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .range((name.clone(), lowest_peer())..)
            .take_while(move |((id, _), _)| id == name)
            .map(|(_, entry)| entry)
    }

    /// Forgets the users of a mesh that was left; those of some gateways stay.
    pub(super) fn leave_mesh(&mut self, stays: impl Fn(PeerId) -> bool) {
        let Self {
            entries,
            telling,
            // Of this gateway's own users.
            revoked: _,
        } = self;
        telling.clear();
        let gone: Vec<PeerId> = entries.gateways().filter(|node| !stays(*node)).collect();
        for node in gone {
            entries.forget_gateway(node);
        }
        for entry in entries.values_mut() {
            entry.told_conflict = false;
        }
    }

    /// Returns the gateways, and the foreign servers, of which a user is known.
    pub(super) fn gateways(&self) -> impl Iterator<Item = PeerId> {
        self.entries.gateways()
    }

    pub(super) fn of_gateway(&self, node: PeerId) -> impl Iterator<Item = &Entry> {
        self.entries.of_gateway(node)
    }

    /// Returns how many users of this gateway are known.
    pub(super) fn count_of(&self, node: PeerId) -> usize {
        self.entries.count_of(node)
    }

    /// Says whether any user of this gateway is known: then it is one.
    pub(super) fn is_gateway(&self, peer: PeerId) -> bool {
        self.count_of(peer) > 0
    }
}

impl Entry {
    const fn new(record: UserRecord) -> Self {
        Self {
            record,
            clients: 0,
            told_conflict: false,
            since: Duration::ZERO,
            since_ms: None,
        }
    }
}

/// The smallest key of a range over peers: peer ids are ordered by their bytes, and the identity
/// hash of nothing comes before all others.
fn lowest_peer() -> PeerId {
    PeerId::from_bytes(&[0, 0]).expect("the identity hash of no bytes")
}

impl State {
    pub(super) fn asked_by_gateway(&mut self, request: RequestId, ask: Ask, now: Now) {
        let answer = match ask {
            Ask::Register { user, stays } => return self.register(request, user, stays, now),
            Ask::Forget { user } => return self.forget(request, &user),
            Ask::Describe { name, descriptions } => {
                return self.describe(request, &name, descriptions);
            }
            Ask::Revoke { token, until_ms } => return self.revoke_token(request, token, until_ms),
            Ask::Server(ask) => return self.asked_by_server(request, ask, now),
            Ask::Post { user, letter } => return self.post(request, &user, *letter, now),
            Ask::Find { name } => Ok(Told::Found(self.found(&name))),
            Ask::Local { name } => Ok(Told::Found(self.local(&name).and_then(|user| {
                let meant = Meant::User(user, self.own.peer);
                self.found_user(&meant)
            }))),
            Ask::Everybody => Ok(Told::Everybody(self.everybody())),
            Ask::Admit { name, key, token } => {
                let admitted = self.admit(&name, &key, token);
                if let Ok(admitted) = &admitted {
                    self.keep(&admitted.user, None);
                }
                admitted.map(Told::Admitted)
            }
            Ask::Arrived(user) => {
                self.presence(&user, 1, now);
                Ok(Told::Done)
            }
            Ask::Left(user) => {
                self.presence(&user, -1, now);
                Ok(Told::Done)
            }
            Ask::Taken { user, row } => {
                self.taken(&user, row, now);
                Ok(Told::Done)
            }
        };
        match answer {
            Ok(told) => self.effects.reply(request, Reply::Told(told)),
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn found(&self, name: &UserId) -> Option<Found> {
        self.found_user(&self.meant(name)?)
    }

    fn found_user(&self, meant: &Meant) -> Option<Found> {
        let key = self.key_of(meant)?;
        Some(match meant {
            Meant::Member(peer) => Found {
                title: self.gateway_name(peer),
                key,
                descriptions: Descriptions::default(),
                here: None,
            },
            Meant::User(user, node) => {
                let record = &self.users.get(user, *node)?.record;
                Found {
                    title: record.title.clone(),
                    key,
                    descriptions: record.descriptions.clone(),
                    here: (*node == self.own.peer).then(|| user.clone()),
                }
            }
        })
    }

    fn everybody(&self) -> Vec<User> {
        let users = self.users.entries.values();
        let users = users.filter(|entry| self.is_gateway_here(&entry.record.node));
        let users = users.map(
            |Entry {
                 record, clients, ..
             }| User {
                name: self.known_as(&record.id, record.node).to_string(),
                user: record.id.to_string(),
                node: self.gateway_name(&record.node),
                title: record.title.clone(),
                key: record.key.to_base64(),
                shown: record.shown.map(|key| key.to_base64()),
                online: *clients > 0,
                waiting: self
                    .letters
                    .count_for(&record.id, record.node == self.own.peer),
                is_node: false,
            },
        );
        let own = self.membership.own_terms();
        let members = self.membership.members().map(|(_, terms)| terms);
        let members = members.chain([own]).map(|terms| User {
            name: terms.name.to_string(),
            user: terms.name.to_string(),
            node: terms.name.to_string(),
            title: terms.name.to_string(),
            key: terms.messaging_key.to_base64(),
            shown: None,
            online: terms.peer == own.peer || self.links.is_open(&terms.peer),
            waiting: 0,
            is_node: true,
        });
        members.chain(users).collect()
    }

    fn register(&mut self, request: RequestId, user: NewUser, stays: bool, now: Now) {
        let here = self.own.peer;
        if let Some(entry) = self.users.get(&user.id, here) {
            let answer = if entry.record.key == user.key {
                let reply = Reply::Told(Told::Registered);
                if stays && !entry.record.stays {
                    return self.keep(&user.id, Some((request, reply)));
                }
                Ok(reply)
            } else {
                self.effects.refused(None, "registration", "other_key");
                let text = format!("`{}` is registered with another key", user.id);
                let hint = format!(
                    "first take him out: `pimesh gateway syft forget {}`",
                    user.id
                );
                Err(Failure::conflict(text).with_hint(hint))
            };
            return match answer {
                Ok(reply) => self.effects.reply(request, reply),
                Err(failure) => self.effects.fail(request, failure),
            };
        }
        if let Err(failure) = self.check_new_name(&user.id, stays) {
            self.effects.refused(None, "registration", "name_taken");
            return self.effects.fail(request, failure);
        }
        let mut records = Vec::new();
        let mut made_room = None;
        if self.users.count_of(here) >= USERS_PER_GATEWAY_MAX {
            made_room = self.make_room();
            let Some((gone, _)) = &made_room else {
                let text = format!("a node has at most {USERS_PER_GATEWAY_MAX} users");
                return self.effects.fail(request, Failure::unavailable(text));
            };
            let id = gone.record.id.clone();
            records.push(Record::ForgetUser { id, node: here });
        }
        let record = UserRecord {
            id: user.id.clone(),
            node: here,
            title: user.title,
            key: user.key,
            shown: None,
            registered_ms: now.unix_ms(),
            descriptions: Descriptions::default(),
            taken: self.letters.last_row(),
            written_ms: 0,
            stays,
            holds_name: true,
        };
        self.letters.begin(&record);
        let entry = Entry {
            since: now.mono,
            ..Entry::new(record.clone())
        };
        // The name is taken from here on, and free again if the disk fails.
        self.users.entries.insert((user.id.clone(), here), entry);
        records.push(Record::User(Box::new(record)));
        let registering = Registering {
            request,
            user: user.id,
            made_room,
        };
        self.effects
            .store(records, Some(After::Registered(Box::new(registering))));
    }

    /// A name that means somebody already is not given again, and none that looks like `user@node`.
    /// The operator may give a name that meant a user of a node which is gone.
    fn check_new_name(&self, name: &UserId, by_operator: bool) -> Result<(), Failure> {
        if parse_peer(name.as_str()).is_some() {
            return Err(Failure::conflict(format!("`{name}` is a peer id")));
        }
        if !by_operator && let Some(gone) = self.holder_gone(name) {
            let text = format!("`{name}` is `{}` so far", self.full_name(name, gone));
            let hint = format!("the operator may add it: `pimesh gateway syft add {name}`");
            return Err(Failure::conflict(text).with_hint(hint));
        }
        if let Some((_, node)) = name.split()
            && !self.members_named(node).is_empty()
        {
            let text = format!("`{name}` would be a user of the node `{node}`");
            return Err(Failure::conflict(text));
        }
        if let Some(Meant::User(_, server)) = self.meant_at_server(name.as_str()) {
            let text = format!(
                "`{name}` would be a user of the server `{}`",
                self.gateway_name(&server)
            );
            return Err(Failure::conflict(text));
        }
        match self.meant(name) {
            None => Ok(()),
            Some(Meant::Member(_)) => Err(Failure::conflict(format!(
                "`{name}` is a node of this mesh"
            ))),
            Some(Meant::User(_, node)) => Err(Failure::conflict(format!(
                "`{name}` is registered at the node `{}`",
                self.gateway_name(&node)
            ))),
        }
    }

    pub(super) fn registered(&mut self, registering: Registering, now: Now) {
        if let Some((gone, _)) = registering.made_room {
            self.effects.count("user_never_logged_in", 1);
            let user = gone.record.id;
            self.effects.event(Event::UserGone { user });
        }
        let reply = Reply::Told(Told::Registered);
        self.effects.reply(registering.request, reply);
        self.tell_of_user(&registering.user, now);
    }

    pub(super) fn not_registered(&mut self, registering: Registering, failure: Failure) {
        let here = self.own.peer;
        self.users.remove(&registering.user, here);
        self.letters.end(&registering.user);
        if let Some((entry, mailbox)) = registering.made_room {
            let id = entry.record.id.clone();
            self.letters.put_back(&id, mailbox);
            self.users.entries.insert((id, here), entry);
        }
        self.effects.fail(registering.request, failure);
    }

    fn forget(&mut self, request: RequestId, text: &str) {
        let id = text.parse::<UserId>().ok();
        let here = self.own.peer;
        let known = id.filter(|id| self.users.get(id, here).is_some());
        let Some(id) = known else {
            if self.forget_pin(request, text) {
                return;
            }
            let text =
                format!("no user of this gateway, and no pinned user of a server, is `{text}`");
            let failure =
                Failure::not_found(text).with_hint("`pimesh gateway syft users` lists the users");
            return self.effects.fail(request, failure);
        };
        let records = vec![Record::ForgetUser {
            id: id.clone(),
            node: here,
        }];
        let asked = Some((request, Reply::Told(Told::Done)));
        self.change(asked, records, Change::ForgetUser(id));
    }

    /// A user of this gateway is gone from the disk.
    pub(super) fn user_forgotten(&mut self, id: UserId, now: Now) {
        self.give_up_messages_of(&id, now);
        self.users.remove(&id, self.own.peer);
        // What came for him meanwhile was written behind that.
        let rows = self.letters.end(&id);
        if !rows.is_empty() {
            self.effects.store(vec![Record::LettersGone { rows }], None);
        }
        self.effects.event(Event::UserGone { user: id });
    }

    fn take_out(&mut self, id: UserId) {
        let node = self.own.peer;
        self.users.remove(&id, node);
        self.letters.end(&id);
        self.effects.event(Event::UserGone { user: id.clone() });
        self.effects
            .store(vec![Record::ForgetUser { id, node }], None);
    }

    /// Notes that a user of this gateway is more than a registration.
    fn keep(&mut self, user: &UserId, asked: Option<(RequestId, Reply)>) {
        let entry = self.users.get(user, self.own.peer);
        if let Some(entry) = entry.filter(|entry| !entry.record.stays) {
            let before = entry.record.clone();
            let after = UserRecord {
                stays: true,
                ..before.clone()
            };
            self.change_user(asked, before, after);
        }
    }

    /// Has a user written as known from here on.
    fn change_user(
        &mut self,
        asked: Option<(RequestId, Reply)>,
        before: UserRecord,
        after: UserRecord,
    ) {
        let records = vec![Record::User(Box::new(after.clone()))];
        self.change(asked, records, Change::User(Box::new((before, after))));
    }

    /// A user is on the disk as known from here on. What else became known of him meanwhile stays, and
    /// is written once more: it was written behind or before this, with what was known then.
    pub(super) fn user_changed(&mut self, before: UserRecord, after: UserRecord, now: Now) {
        let (id, node) = (after.id.clone(), after.node);
        let Some(entry) = self.users.get_mut(&id, node) else {
            let gone = if node == self.own.peer {
                Record::ForgetUser { id, node }
            } else {
                Record::ForgetPin {
                    user: id,
                    server: node,
                }
            };
            return self.effects.store(vec![gone], None);
        };
        if entry.record == before {
            entry.record = after;
        } else {
            entry.record.change(&before, after);
            let record = entry.record.clone();
            self.effects
                .store(vec![Record::User(Box::new(record))], None);
        }
        if node == self.own.peer {
            self.tell_of_user(&id, now);
        }
    }

    /// Takes out the one who has not logged in for the longest time since he registered.
    fn make_room(&mut self) -> Option<(Entry, Mailbox)> {
        let of_gateway = self.users.of_gateway(self.own.peer);
        let waiting = of_gateway.filter(|entry| !entry.record.stays);
        let oldest = waiting.min_by_key(|entry| entry.since);
        let id = oldest?.record.id.clone();
        let mailbox = self.letters.take(&id);
        Some((self.users.take(&id, self.own.peer)?, mailbox))
    }

    /// Takes out who registered and did not log in. Anything that can reach the gateway can register.
    pub(super) fn prune_users(&mut self, now: Now) {
        let is_over = |entry: &&Entry| {
            let waits = now.mono.saturating_sub(entry.since);
            !entry.record.stays && waits >= LOGIN_TIME
        };
        let of_gateway = self.users.of_gateway(self.own.peer);
        let over = of_gateway
            .filter(is_over)
            .map(|entry| entry.record.id.clone());
        for id in over.collect::<Vec<_>>() {
            self.effects.count("user_never_logged_in", 1);
            self.take_out(id);
        }
    }

    fn describe(&mut self, request: RequestId, name: &UserId, descriptions: Descriptions) {
        let user = self.local(name);
        let entry = user.and_then(|user| self.users.get(&user, self.own.peer));
        let Some(entry) = entry else {
            return self.effects.fail(request, no_such_user(name));
        };
        let before = entry.record.clone();
        let after = UserRecord {
            descriptions,
            ..before.clone()
        };
        let asked = Some((request, Reply::Told(Told::Done)));
        self.change_user(asked, before, after);
    }

    fn admit(&self, name: &UserId, key: &str, token: TokenId) -> Result<Admitted, Failure> {
        let user = self.local(name).ok_or_else(|| no_such_user(name))?;
        let entry = self.users.get(&user, self.own.peer);
        let record = &entry.ok_or_else(|| no_such_user(name))?.record;
        if key_name(&record.key) != key || self.users.revoked.contains_key(&token) {
            return Err(Failure::conflict("the token was revoked"));
        }
        // Under his full name he is himself everywhere.
        let warning = (*name == user).then(|| self.conflict_text(&user)).flatten();
        Ok(Admitted {
            key: record.key,
            taken: self.letters.taken_by(&user),
            user,
            warning,
        })
    }

    /// Says what a user of this gateway has to know if other nodes have a user of his name.
    fn conflict_text(&self, user: &UserId) -> Option<String> {
        let own = self.own.peer;
        let others = self.claimants(user, Some(own));
        let others: Vec<String> = others.iter().map(|node| self.gateway_name(node)).collect();
        if others.is_empty() {
            return None;
        }
        let (nodes, here) = (others.join(", "), self.gateway_name(&own));
        Some(format!(
            "The name {user} is also used at the node {nodes}. There, and wherever that one was \
             heard of first, you are {user}@{here}: log in under that name to write to them."
        ))
    }

    fn revoke_token(&mut self, request: RequestId, token: TokenId, until_ms: u64) {
        let asked = Some((request, Reply::Told(Told::Done)));
        let mut records = vec![Record::Revoked { token, until_ms }];
        let tokens = self.users.ended_first(1);
        if !tokens.is_empty() {
            records.push(Record::ForgetTokens { tokens });
        }
        self.change(asked, records, Change::RevokeToken(token, until_ms));
    }

    /// That a token is revoked is on the disk.
    pub(super) fn token_revoked(&mut self, token: TokenId, until_ms: u64) {
        for token in self.users.ended_first(1) {
            self.users.revoked.remove(&token);
        }
        self.users.revoked.insert(token, until_ms);
    }

    /// Forgets revoked tokens that have ended by themselves, here and on the disk.
    pub(super) fn prune_tokens(&mut self, believed: Now) {
        let longer_ms = millis(REVOKED_LONGER);
        let is_over = |until_ms: u64| until_ms.saturating_add(longer_ms) <= believed.unix_ms();
        let revoked = self.users.revoked.iter();
        let over = revoked.filter(|(_, until_ms)| is_over(**until_ms));
        let mut tokens: Vec<TokenId> = over.map(|(token, _)| *token).collect();
        // An earlier version kept all of them on the disk.
        tokens.extend(self.users.ended_first(0));
        if tokens.is_empty() {
            return;
        }
        for token in &tokens {
            self.users.revoked.remove(token);
        }
        let forget = Record::ForgetTokens { tokens };
        self.effects.store(vec![forget], None);
    }

    fn presence(&mut self, user: &UserId, change: i32, now: Now) {
        let here = self.own.peer;
        let Some(entry) = self.users.get_mut(user, here) else {
            return;
        };
        let before = entry.clients > 0;
        entry.clients = entry.clients.saturating_add_signed(change);
        let online = entry.clients > 0;
        if online != before {
            entry.since_ms = Some(now.unix_ms());
            let name = self.known_as(user, here).to_string();
            self.effects.event(Event::Presence { name, online });
            self.tell_of_user(user, now);
        }
    }

    /// Shows that a user of another gateway has a name that means somebody else here, and tells the
    /// user of this gateway who has it; once.
    fn tell_conflict(&mut self, name: &UserId, claimant: PeerId) {
        let here = self.own.peer;
        let means = self.meant(name).map(|meant| self.full_name_of(&meant));
        let means = means.unwrap_or_else(|| "-".to_owned());
        self.effects.event(Event::NameConflict {
            name: name.clone(),
            node: self.gateway_name(&claimant),
            means,
        });
        let text = self.conflict_text(name);
        if let Some(entry) = self.users.get_mut(name, here)
            && !std::mem::replace(&mut entry.told_conflict, true)
            && let Some(text) = text
        {
            let user = name.clone();
            self.effects.event(Event::TellUser { user, text });
        }
    }

    /// Accepts the changed key of a user of another gateway. Says whether there was one.
    pub(super) fn trust_user(&mut self, request: RequestId, text: &str) -> bool {
        let at_server = self.meant_at_server(text);
        if at_server.is_none() && self.resolve(text).is_ok() {
            return false;
        }
        let name = text.parse::<UserId>().ok();
        let meant = name.and_then(|name| self.meant(&name));
        let Some(Meant::User(user, node)) = meant.or(at_server) else {
            return false;
        };
        let known_as = self.known_as(&user, node).to_string();
        let Some(entry) = self.users.get(&user, node) else {
            return false;
        };
        let before = entry.record.clone();
        let mut after = before.clone();
        if let Some(key) = after.shown.take() {
            after.key = key;
        }
        let reply = Reply::Trusted(super::report::Trusted {
            name: known_as,
            peer_id: node,
            fingerprint: Some(after.key.to_base64()),
        });
        self.change_user(Some((request, reply)), before, after);
        true
    }
}

fn no_such_user(name: &UserId) -> Failure {
    Failure::not_found(format!("no user of this node is `{name}`"))
}

/// Wraps what a gateway asks into a command.
impl From<Ask> for Command {
    fn from(ask: Ask) -> Self {
        Self::Gateway(Box::new(ask))
    }
}
