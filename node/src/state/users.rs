//! Who can be written to: the users of this gateway and of the others, and the members themselves.
//!
//! Keys are pinned on first use. Whom a name means is in `names`, what gateways tell each other in
//! `telling`.

mod entries;
mod registering;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use self::entries::Entries;
pub(super) use self::{
    registering::Registering,
    telling::{Hearing, Telling},
};
use super::{
    State,
    changes::Change,
    io::{Command, Endpoint, Event, Failure, Now, Place, Record, Reply, RequestId},
    post::{Admitted, Ask, Found, Told, User, UserRecord},
};
use crate::proto::{
    mesh::ClientName,
    syft::{Descriptions, PublicKey, UserId, http::key_name},
};

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
    /// Whether what is known differs from the disk, because a write failed.
    is_unsaved: bool,
}

/// All users that are known.
pub(super) struct Users {
    entries: Entries,
    pub(super) telling: BTreeMap<PeerId, Telling>,
    /// Clients of other nodes that have no keys, as those nodes told on their last connection.
    clients: BTreeMap<PeerId, BTreeSet<ClientName>>,
}

impl Users {
    pub(super) fn load(users: Vec<UserRecord>) -> Self {
        let entry = |record: UserRecord| {
            let key = (record.id.clone(), record.place);
            (key, Entry::new(record))
        };
        Self {
            entries: users.into_iter().map(entry).collect(),
            telling: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, user: &UserId, place: impl Into<Place>) -> Option<&Entry> {
        self.entries.get(&(user.clone(), place.into()))
    }

    pub(super) fn get_mut(&mut self, user: &UserId, place: impl Into<Place>) -> Option<&mut Entry> {
        self.entries.get_mut(&(user.clone(), place.into()))
    }

    pub(super) fn insert(&mut self, record: UserRecord) {
        let key = (record.id.clone(), record.place);
        self.entries.insert(key, Entry::new(record));
    }

    /// Forgets a user; returns false if there is none.
    pub(super) fn remove(&mut self, user: &UserId, place: impl Into<Place>) -> bool {
        self.take(user, place).is_some()
    }

    /// Takes a user out.
    pub(super) fn take(&mut self, user: &UserId, place: impl Into<Place>) -> Option<Entry> {
        self.entries.remove(&(user.clone(), place.into()))
    }

    /// Notes that another key than the pinned one was shown for a user.
    pub(super) fn show(
        &mut self,
        user: &UserId,
        place: impl Into<Place>,
        key: PublicKey,
    ) -> Option<UserRecord> {
        let entry = self.get_mut(user, place)?;
        entry.record.shown = Some(key);
        Some(entry.record.clone())
    }

    /// Returns the clients of other nodes that have no keys.
    pub(super) fn clients(&self) -> impl Iterator<Item = (PeerId, &ClientName)> {
        let nodes = self.clients.iter();
        nodes.flat_map(|(node, clients)| clients.iter().map(|client| (*node, client)))
    }

    pub(super) fn has_client(&self, node: &PeerId, client: &ClientName) -> bool {
        self.clients
            .get(node)
            .is_some_and(|clients| clients.contains(client))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns those who registered one name, at whatever gateway.
    pub(super) fn named<'a>(&'a self, name: &'a UserId) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .range((name.clone(), lowest_place())..)
            .take_while(move |((id, _), _)| id == name)
            .map(|(_, entry)| entry)
    }

    /// Forgets the users of a mesh that was left; those of some gateways stay.
    pub(super) fn leave_mesh(&mut self, own: PeerId, stays: impl Fn(Place) -> bool) {
        let Self {
            entries,
            telling,
            clients,
        } = self;
        telling.clear();
        clients.clear();
        let gone: Vec<Place> = entries.places().filter(|place| !stays(*place)).collect();
        for place in gone {
            entries.forget_place(place);
        }
        for entry in entries.values_mut() {
            entry.told_conflict = false;
            // Presence of users elsewhere is unknown from here on.
            if entry.record.place != own {
                entry.clients = 0;
            }
        }
    }

    /// Returns the places of which a user is known.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.entries.places()
    }

    pub(super) fn of_place(&self, place: impl Into<Place>) -> impl Iterator<Item = &Entry> {
        self.entries.of_place(place.into())
    }

    /// Returns how many users of a place are known.
    pub(super) fn count_of(&self, place: impl Into<Place>) -> usize {
        self.entries.count_of(place.into())
    }

    /// Returns true if any user of a place is known.
    pub(super) fn is_gateway(&self, place: impl Into<Place>) -> bool {
        self.count_of(place) > 0
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
            is_unsaved: false,
        }
    }
}

/// The smallest key of a range over peers: peer ids are ordered by their bytes, and the identity
/// hash of nothing comes before all others.
fn lowest_place() -> Place {
    let peer = PeerId::from_bytes(&[0, 0]).expect("the identity hash of no bytes");
    Place::Node(peer)
}

impl State {
    pub(super) fn asked_by_gateway(&mut self, request: RequestId, ask: Ask, now: Now) {
        let answer = match ask {
            Ask::Register { user, stays } => return self.register(request, user, stays, now),
            Ask::Forget { user } => return self.forget(request, &user),
            Ask::Describe { name, descriptions } => {
                return self.describe(request, &name, descriptions);
            }
            Ask::Server(ask) => return self.asked_by_server(request, ask, now),
            Ask::Post { user, letter } => return self.post(request, &user, *letter, now),
            Ask::Find { name } => Ok(Told::Found(self.found(&name))),
            Ask::Local { name } => Ok(Told::Found(self.local(&name).and_then(|user| {
                let meant = Endpoint::user(user, self.own.peer);
                self.found_user(&meant)
            }))),
            Ask::Everybody => Ok(Told::Everybody(self.everybody())),
            Ask::Admit { name, key } => {
                let admitted = self.admit(&name, &key);
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

    fn found_user(&self, meant: &Endpoint) -> Option<Found> {
        let key = self.key_of(meant)?;
        Some(match meant {
            Endpoint::Node(peer) => Found {
                title: self.name_of_any(peer),
                key,
                descriptions: Descriptions::default(),
                here: None,
            },
            // A Syft client can only write to somebody with a key.
            Endpoint::Client(..) => return None,
            Endpoint::User(user, place) => {
                let record = &self.users.get(user, *place)?.record;
                Found {
                    title: record.title.clone(),
                    key,
                    descriptions: record.descriptions.clone(),
                    here: (*place == self.own.peer).then(|| user.clone()),
                }
            }
        })
    }

    fn everybody(&self) -> Vec<User> {
        let users = self.users.entries.values();
        let users = users.filter(|entry| {
            let node = entry.record.place.node();
            node.is_some_and(|node| self.is_gateway_here(&node))
        });
        let users = users.map(
            |Entry {
                 record, clients, ..
             }| User {
                name: self.known_as(&record.id, record.place).to_string(),
                user: record.id.to_string(),
                node: self.place_name(&record.place),
                title: record.title.clone(),
                key: record.key.to_base64(),
                shown: record.shown.map(|key| key.to_base64()),
                online: *clients > 0,
                waiting: self
                    .letters
                    .count_for(&record.id, record.place == self.own.peer),
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
    pub(super) fn change_user(
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
        let (id, place) = (after.id.clone(), after.place);
        let Some(entry) = self.users.get_mut(&id, place) else {
            let gone = match place {
                Place::Node(node) => Record::ForgetUser { id, node },
                Place::Server(server) => Record::ForgetPin { user: id, server },
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
        if place == self.own.peer {
            self.tell_of_user(&id, now);
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

    fn admit(&self, name: &UserId, key: &str) -> Result<Admitted, Failure> {
        let user = self.local(name).ok_or_else(|| no_such_user(name))?;
        let entry = self.users.get(&user, self.own.peer);
        let record = &entry.ok_or_else(|| no_such_user(name))?.record;
        if key_name(&record.key) != key {
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
        let others: Vec<String> = others.iter().map(|node| self.name_of_any(node)).collect();
        if others.is_empty() {
            return None;
        }
        let (nodes, here) = (others.join(", "), self.name_of_any(&own));
        Some(format!(
            "The name {user} is also used at the node {nodes}. There, and wherever that one was \
             heard of first, you are {user}@{here}: log in under that name to write to them."
        ))
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

    /// Reports that another node has a user of a name that is in use here. If the name is that of a
    /// user of this gateway, that user is told, once.
    fn tell_conflict(&mut self, name: &UserId, claimant: PeerId) {
        let here = self.own.peer;
        let means = self.meant(name).map(|meant| self.full_name_of(&meant));
        let means = means.unwrap_or_else(|| "-".to_owned());
        self.effects.event(Event::NameConflict {
            name: name.clone(),
            node: self.name_of_any(&claimant),
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
