//! Users of this gateway: how they register, and how they go.

use std::time::Duration;

use super::Entry;
use crate::{
    proto::{
        mesh::{parse_peer, users::USERS_PER_GATEWAY_MAX},
        syft::{Descriptions, UserId, http::NewUser},
    },
    state::{
        After, State,
        changes::Change,
        io::{Endpoint, Event, Failure, Now, Place, Record, Reply, RequestId},
        letters::Mailbox,
        post::{Told, UserRecord},
    },
};

/// How long who registered may take to log in, while the node runs. Clients do both at their start.
const LOGIN_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A user on the way to the disk.
pub(in crate::state) struct Registering {
    request: RequestId,
    user: UserId,
    /// The user that gave way, and its mailbox.
    made_room: Option<(Entry, Mailbox)>,
}

impl State {
    pub(super) fn register(&mut self, request: RequestId, user: NewUser, stays: bool, now: Now) {
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
            place: Place::Node(here),
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
        self.users
            .entries
            .insert((user.id.clone(), Place::Node(here)), entry);
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
        let behind = name.split().map_or(name.as_str(), |(_, behind)| behind);
        if parse_peer(behind).is_some() {
            return Err(Failure::conflict(format!("`{behind}` is a peer id")));
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
        if let Some(Endpoint::User(_, server)) = self.meant_at_server(name.as_str()) {
            let text = format!(
                "`{name}` would be a user of the server `{}`",
                self.place_name(&server)
            );
            return Err(Failure::conflict(text));
        }
        match self.meant(name) {
            // A user's id is never the name of a client.
            None | Some(Endpoint::Client(..)) => Ok(()),
            Some(Endpoint::Node(_)) => Err(Failure::conflict(format!(
                "`{name}` is a node of this mesh"
            ))),
            Some(Endpoint::User(_, node)) => Err(Failure::conflict(format!(
                "`{name}` is registered at the node `{}`",
                self.place_name(&node)
            ))),
        }
    }

    pub(in crate::state) fn registered(&mut self, registering: Registering, now: Now) {
        if let Some((gone, _)) = registering.made_room {
            self.effects.count("user_never_logged_in", 1);
            let user = gone.record.id;
            self.effects.event(Event::UserGone { user });
        }
        let reply = Reply::Told(Told::Registered);
        self.effects.reply(registering.request, reply);
        self.tell_of_user(&registering.user, now);
    }

    pub(in crate::state) fn not_registered(&mut self, registering: Registering, failure: Failure) {
        let here = self.own.peer;
        self.users.remove(&registering.user, here);
        self.letters.end(&registering.user);
        if let Some((entry, mailbox)) = registering.made_room {
            let id = entry.record.id.clone();
            self.letters.put_back(&id, mailbox);
            self.users.entries.insert((id, Place::Node(here)), entry);
        }
        self.effects.fail(registering.request, failure);
    }

    pub(super) fn forget(&mut self, request: RequestId, text: &str) {
        let id = text.parse::<UserId>().ok();
        let here = self.own.peer;
        let known = id.as_ref().and_then(|id| self.users.get(id, here));
        let Some(user) = known.map(|entry| Box::new(entry.record.clone())) else {
            if self.forget_pin(request, text) {
                return;
            }
            let text =
                format!("no user of this gateway, and no pinned user of a server, is `{text}`");
            let failure =
                Failure::not_found(text).with_hint("`pimesh gateway syft users` lists the users");
            return self.effects.fail(request, failure);
        };
        let id = user.id.clone();
        let records = vec![Record::ForgetUser { id, node: here }];
        let asked = Some((request, Reply::Told(Told::Done)));
        self.change(asked, records, Change::ForgetUser(user));
    }

    /// A user of this gateway is gone from the disk.
    pub(in crate::state) fn user_forgotten(&mut self, user: &UserRecord, now: Now) {
        let id = user.id.clone();
        let known = self
            .users
            .get(&id, self.own.peer)
            .map(|entry| &entry.record);
        let is_it =
            known.is_some_and(|k| (k.registered_ms, k.key) == (user.registered_ms, user.key));
        // A later registration of the same name is on disk behind this change.
        if !is_it {
            return;
        }
        self.give_up_messages_of(&id, now);
        self.users.remove(&id, self.own.peer);
        // Messages that came meanwhile are on disk behind this change.
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

    /// Removes the user that registered longest ago and never logged in.
    fn make_room(&mut self) -> Option<(Entry, Mailbox)> {
        let of_gateway = self.users.of_place(self.own.peer);
        let waiting = of_gateway.filter(|entry| !entry.record.stays);
        let oldest = waiting.min_by_key(|entry| entry.since);
        let id = oldest?.record.id.clone();
        let mailbox = self.letters.take(&id);
        Some((self.users.take(&id, self.own.peer)?, mailbox))
    }

    /// Takes out who registered and did not log in. Anything that can reach the gateway can register.
    pub(in crate::state) fn prune_users(&mut self, now: Now) {
        let is_over = |entry: &&Entry| {
            let waits = now.mono.saturating_sub(entry.since);
            !entry.record.stays && waits >= LOGIN_TIME
        };
        let of_gateway = self.users.of_place(self.own.peer);
        let over = of_gateway
            .filter(is_over)
            .map(|entry| entry.record.id.clone());
        for id in over.collect::<Vec<_>>() {
            self.effects.count("user_never_logged_in", 1);
            self.take_out(id);
        }
    }
}
