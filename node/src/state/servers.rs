//! Foreign Syft servers that this node is a client of: what is to be sent there, what came from
//! there, and the keys of their users, pinned on first use.
//!
//! A server is no member, but a [`Place`] like one: what is for its users waits in the same outbox, and
//! their keys are kept where those of the nodes' users are. The connection itself is
//! `gateway/syft/server.rs`.

use super::{
    After, State,
    changes::Change,
    io::{
        Encoding, Endpoint, Event, Failure, Incoming, Now, OutgoingKind, Party, Place, Record,
        Reply, RequestId, ServerId, Via,
    },
    post::{Fetched, NotPinned, ToServer, Told, UserRecord},
    users::Entry,
};
use crate::proto::{
    mesh::{MessageId, NodeName},
    syft::{Descriptions, PublicKey, UserId},
};

/// Most messages that a server's connection takes at once.
const FETCH_MAX: usize = 64;

/// Most pinned keys of users of one server. At the limit a pin of a user to whom nobody here ever
/// wrote gives way, so that strangers who write to this node do not keep others out.
const PINS_MAX: usize = 4096;

/// How exactly the time of the last message to a user is kept: more would be a write for each.
const WRITTEN_STEP_MS: u64 = 24 * 60 * 60 * 1000;

impl State {
    /// Finds the server that stands behind the last `@`, if there is one of that name.
    pub(super) fn meant_at_server(&self, text: &str) -> Option<Endpoint> {
        let (user, name) = text.rsplit_once('@')?;
        let server = self.settings.servers.iter().find(|s| s.as_str() == name)?;
        Some(Endpoint::user(user.parse().ok()?, ServerId::of(server)))
    }

    /// Returns the name of a server, if it is configured.
    pub(super) fn server_name(&self, server: ServerId) -> Option<&NodeName> {
        let mut servers = self.settings.servers.iter();
        servers.find(|name| ServerId::of(name) == server)
    }

    pub(super) fn asked_by_server(&mut self, request: RequestId, ask: ToServer, now: Now) {
        match ask {
            ToServer::Fetch { server } => {
                let told = Told::Fetched(self.fetch(&server));
                self.effects.reply(request, Reply::Told(told));
            }
            ToServer::Settle {
                server,
                id,
                outcome,
            } => {
                let place = Place::Server(ServerId::of(&server));
                self.settle(place, vec![(id, outcome)], now);
                self.effects.reply(request, Reply::Told(Told::Done));
            }
            ToServer::Pin { server, user, key } => {
                if let Some(pinned) = self.pin_user(request, &server, user, key, now) {
                    self.effects
                        .reply(request, Reply::Told(Told::Pinned(pinned)));
                }
            }
            ToServer::Received {
                server,
                from,
                text,
                fingerprint,
            } => {
                if self.letters_seen(fingerprint) {
                    return self.effects.reply(request, Reply::Told(Told::Done));
                }
                let message = Incoming {
                    id: MessageId(self.effects.random()),
                    sender: Party::Server(ServerId::of(&server)),
                    user: Some(format!("{from}@{server}")),
                    mark: None,
                    created_ms: now.unix_ms(),
                    received_ms: now.unix_ms(),
                    via: Via::Syft,
                    encoding: Encoding::Utf8,
                    text,
                };
                if !self.has_room_for(request, "server_message", &message, now) {
                    return;
                }
                let records = vec![Record::Incoming(message.clone()), Record::Seen(fingerprint)];
                self.see_letter(fingerprint);
                let received = ServerReceived {
                    request,
                    message,
                    fingerprint,
                };
                let after = After::ServerReceived(Box::new(received));
                self.effects.store(records, Some(after));
            }
        }
    }

    fn fetch(&self, server: &NodeName) -> Vec<Fetched> {
        let place = Place::Server(ServerId::of(server));
        let waiting = self.messages.waiting_for(place).take(FETCH_MAX);
        let fetched = waiting.filter_map(|message| match &message.kind {
            OutgoingKind::User { user, .. } => Some(Fetched {
                id: message.id,
                user: user.clone(),
                text: message.text.clone(),
                created_ms: message.created_ms,
            }),
            OutgoingKind::Member | OutgoingKind::Client { .. } | OutgoingKind::Letter => None,
        });
        fetched.collect()
    }

    /// Pins the key of a server's user on first use; returns which key counts, unless that has to be
    /// written first.
    fn pin_user(
        &mut self,
        request: RequestId,
        server: &NodeName,
        user: UserId,
        key: PublicKey,
        now: Now,
    ) -> Option<Result<PublicKey, NotPinned>> {
        let server_id = ServerId::of(server);
        let place = Place::Server(server_id);
        if let Some(entry) = self.users.get(&user, place) {
            let pinned = entry.record.key;
            let is_news = pinned != key && entry.record.shown != Some(key);
            if is_news {
                let record = self.users.show(&user, place, key);
                self.effects.store(
                    record
                        .map(|user| Record::User(Box::new(user)))
                        .into_iter()
                        .collect(),
                    None,
                );
                self.effects.refused(None, "user", "other_key");
                self.effects.event(Event::UserKeyChanged {
                    name: format!("{user}@{server}"),
                    pinned: Box::new(pinned),
                    shown: Box::new(key),
                });
            }
            return Some(Ok(pinned));
        }
        if user.check_new().is_err() {
            return Some(Err(NotPinned::Name));
        }
        let mut records = Vec::new();
        let mut displaced = None;
        if self.users.count_of(place) >= PINS_MAX {
            let Some(unused) = self.unused_pin(place) else {
                return Some(Err(NotPinned::Full));
            };
            displaced = self.users.take(&unused, place);
            records.push(Record::ForgetPin {
                user: unused,
                server: server_id,
            });
        }
        let is_written_to = self
            .messages
            .waiting_for(place)
            .any(|message| is_for(&message.kind, &user));
        let record = UserRecord {
            stays: true,
            id: user,
            place,
            title: String::new(),
            key,
            shown: None,
            registered_ms: now.unix_ms(),
            descriptions: Descriptions::default(),
            taken: 0,
            written_ms: if is_written_to { now.unix_ms() } else { 0 },
            holds_name: false,
        };
        // What comes of the same user meanwhile finds the key pinned already.
        self.users.insert(record.clone());
        records.push(Record::User(Box::new(record.clone())));
        let pinning = Pinning {
            request,
            user: record.id,
            server: server_id,
            key,
            displaced,
        };
        self.effects
            .store(records, Some(After::UserPinned(Box::new(pinning))));
        None
    }

    pub(super) fn server_user_pinned(&mut self, pinning: Pinning) {
        let pinned = Told::Pinned(Ok(pinning.key));
        self.effects.reply(pinning.request, Reply::Told(pinned));
    }

    pub(super) fn server_user_not_pinned(&mut self, pinning: Pinning, failure: Failure) {
        self.users.remove(&pinning.user, pinning.server);
        if let Some(entry) = pinning.displaced {
            self.users.insert(entry.record);
        }
        self.effects.fail(pinning.request, failure);
    }

    /// Returns the user of a server with the oldest pin of those to whom nobody here ever wrote.
    fn unused_pin(&self, server: Place) -> Option<UserId> {
        let pins = self.users.of_place(server).map(|entry| &entry.record);
        let unused = pins.filter(|record| record.written_ms == 0);
        let oldest = unused.min_by_key(|record| record.registered_ms);
        oldest.map(|record| record.id.clone())
    }

    /// Returns how a user of a server to whom a message is accepted is known from then on, if that
    /// changes on the disk.
    pub(super) fn written_to(
        &self,
        recipient: &Place,
        kind: &OutgoingKind,
        now: Now,
    ) -> Option<UserRecord> {
        let OutgoingKind::User { user, .. } = kind else {
            return None;
        };
        recipient.is_server().then_some(())?;
        let record = &self.users.get(user, *recipient)?.record;
        let now_ms = now.unix_ms().max(1);
        let is_news = record.written_ms.saturating_add(WRITTEN_STEP_MS) <= now_ms;
        is_news.then(|| UserRecord {
            written_ms: now_ms,
            ..record.clone()
        })
    }

    /// Forgets the pinned key of `user@server`; returns false if there is none.
    pub(super) fn forget_pin(&mut self, request: RequestId, text: &str) -> bool {
        let Some(Endpoint::User(user, Place::Server(server))) = self.meant_at_server(text) else {
            return false;
        };
        if self.users.get(&user, server).is_none() {
            return false;
        }
        let records = vec![Record::ForgetPin {
            user: user.clone(),
            server,
        }];
        let change = Change::ForgetServersUser(user, server);
        let asked = Some((request, Reply::Told(Told::Done)));
        self.change(asked, records, change);
        true
    }

    pub(super) fn server_message_stored(&mut self, received: ServerReceived) {
        self.effects
            .reply(received.request, Reply::Told(Told::Done));
        self.report_received(received.message);
    }

    pub(super) fn server_message_not_stored(
        &mut self,
        received: &ServerReceived,
        failure: Failure,
    ) {
        self.forget_letter(received.fingerprint);
        let message = &received.message;
        self.give_back_share(&message.sender, message.text.len());
        self.effects.fail(received.request, failure);
    }

    /// Has the connection of a server look after what waits for it.
    pub(super) fn wake_server(&mut self, server: ServerId) {
        if let Some(server) = self.server_name(server)
            && let Ok(user) = server.as_str().parse()
        {
            self.effects.event(Event::LetterWaits { user: Some(user) });
        }
    }
}

fn is_for(kind: &OutgoingKind, wanted: &UserId) -> bool {
    matches!(kind, OutgoingKind::User { user, .. } if user == wanted)
}

/// The key of a server's user on its way to the disk.
pub(super) struct Pinning {
    request: RequestId,
    user: UserId,
    server: ServerId,
    key: PublicKey,
    /// The one that gave way to it.
    displaced: Option<Entry>,
}

/// A message of a server on its way to the disk.
pub(super) struct ServerReceived {
    request: RequestId,
    message: Incoming,
    fingerprint: crate::proto::syft::letter::Fingerprint,
}
