//! Foreign Syft servers that this node is a client of: what is to be sent there, what came from
//! there, and the keys of their users, pinned on first use.
//!
//! A server is no member. Here it goes under a peer id that is made of its name and that no node
//! can have a key for; so its messages wait in the same outbox, and the keys of its users are kept
//! where those of other gateways are. The connection itself is `gateway/syft/server.rs`.

use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};

use super::{
    After, State,
    changes::Change,
    io::{
        Encoding, Event, Failure, Incoming, Now, OutgoingKind, Party, Record, Reply, RequestId, Via,
    },
    names::Meant,
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

/// Returns the peer id under which a server goes here: a hash that is none of a key.
pub(super) fn peer_of(server: &NodeName) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend(
        Sha256::new_with_prefix("pimesh/syft-server/1\0")
            .chain_update(server.as_str())
            .finalize(),
    );
    PeerId::from_bytes(&bytes).expect("a SHA-256 multihash")
}

/// Says whether a peer id is one under which a server goes, also one that is not configured any more:
/// a node's is its Ed25519 key itself, and no hash.
pub(super) fn is_server(peer: &PeerId) -> bool {
    peer.to_bytes().first() == Some(&0x12)
}

impl State {
    /// Finds the server that stands behind the last `@`, if there is one of that name.
    pub(super) fn meant_at_server(&self, text: &str) -> Option<Meant> {
        let (user, name) = text.rsplit_once('@')?;
        let server = self.settings.servers.iter().find(|s| s.as_str() == name)?;
        Some(Meant::User(user.parse().ok()?, peer_of(server)))
    }

    /// Returns the name of the server that goes under this peer id.
    pub(super) fn server_name(&self, peer: &PeerId) -> Option<&NodeName> {
        self.settings.servers.iter().find(|s| peer_of(s) == *peer)
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
                self.settle(peer_of(&server), vec![(id, outcome)], now);
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
                    sender: Party::Member(peer_of(&server)),
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
        let peer = peer_of(server);
        let waiting = self.messages.waiting_for(&peer).take(FETCH_MAX);
        let fetched = waiting.filter_map(|message| match &message.kind {
            OutgoingKind::User { user, .. } => Some(Fetched {
                id: message.id,
                user: user.clone(),
                text: message.text.clone(),
                created_ms: message.created_ms,
            }),
            OutgoingKind::Member | OutgoingKind::Letter => None,
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
        let peer = peer_of(server);
        if let Some(entry) = self.users.get(&user, peer) {
            let pinned = entry.record.key;
            let is_news = pinned != key && entry.record.shown != Some(key);
            if is_news {
                let record = self.users.show(&user, peer, key);
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
        if self.users.count_of(peer) >= PINS_MAX {
            let Some(unused) = self.unused_pin(peer) else {
                return Some(Err(NotPinned::Full));
            };
            displaced = self.users.take(&unused, peer);
            records.push(Record::ForgetPin {
                user: unused,
                server: peer,
            });
        }
        let is_written_to = self
            .messages
            .waiting_for(&peer)
            .any(|message| is_for(&message.kind, &user));
        let record = UserRecord {
            stays: true,
            id: user,
            node: peer,
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
            server: peer,
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
    fn unused_pin(&self, server: PeerId) -> Option<UserId> {
        let pins = self.users.of_gateway(server).map(|entry| &entry.record);
        let unused = pins.filter(|record| record.written_ms == 0);
        let oldest = unused.min_by_key(|record| record.registered_ms);
        oldest.map(|record| record.id.clone())
    }

    /// Returns how a user of a server to whom a message is accepted is known from then on, if that
    /// changes on the disk.
    pub(super) fn written_to(
        &self,
        recipient: &PeerId,
        kind: &OutgoingKind,
        now: Now,
    ) -> Option<UserRecord> {
        let OutgoingKind::User { user, .. } = kind else {
            return None;
        };
        self.server_name(recipient)?;
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
        let Some(Meant::User(user, server)) = self.meant_at_server(text) else {
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
    pub(super) fn wake_server(&mut self, peer: &PeerId) {
        if let Some(server) = self.server_name(peer)
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
    server: PeerId,
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
