//! P2SN between members: pinned RSA keys, the key exchange after membership, and messages.
//!
//! The peer is authentic already (libp2p), so its RSA key is pinned to its peer id when it is first
//! shown, and another one is refused until the owner says `pimesh trust`. A P2SN message is
//! neither repeated nor numbered: it goes at once or not at all.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{
    After, State,
    changes::Change,
    io::{
        Encoding, Event, Failure, Incoming, NetOutput, Now, Party, Record, Reply, RequestId,
        SessionId, Via,
    },
    report,
    timers::Timer,
};
use crate::proto::{
    mesh::MessageId,
    p2sn::{ACKNOWLEDGEMENT, Fingerprint, UNEXPECTED_ERROR},
};

/// Shortest wait before a key exchange is tried again; the longest is twice as long.
const RETRY: Duration = Duration::from_secs(2);

/// The RSA key of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    fingerprint: Fingerprint,
    bits: usize,
}

/// How a key that a member shows compares with the pinned one.
enum Shown {
    /// None was pinned before.
    First,
    Same,
    /// It is refused; this one is pinned.
    Other(Fingerprint),
}

/// A session that we opened.
#[derive(Debug)]
struct Ours {
    peer: PeerId,
    message: Option<(RequestId, MessageId)>,
}

/// What is known of RSA keys.
pub(super) struct Keys {
    own: Option<Fingerprint>,
    pins: BTreeMap<PeerId, Pin>,
    /// Keys that were shown in the place of the pinned one, and refused.
    changed: BTreeMap<PeerId, Pin>,
    /// Peers with which the exchange is complete in this run.
    exchanged: BTreeMap<PeerId, ()>,
    sessions: BTreeMap<SessionId, Ours>,
    next_session: u64,
}

/// A P2SN message on its way to the disk.
pub(super) struct P2snReceiving {
    session: SessionId,
    message: Incoming,
}

impl Keys {
    pub(super) fn load(pins: Vec<(PeerId, [u8; 32], u32)>) -> Self {
        let pin = |(peer, fingerprint, bits): (PeerId, [u8; 32], u32)| {
            (
                peer,
                Pin {
                    fingerprint: Fingerprint(fingerprint),
                    bits: bits as usize,
                },
            )
        };
        Self {
            own: None,
            pins: pins.into_iter().map(pin).collect(),
            changed: BTreeMap::new(),
            exchanged: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
        }
    }

    pub(super) const fn own_fingerprint(&self) -> Option<Fingerprint> {
        self.own
    }

    pub(super) fn pinned(&self, peer: &PeerId) -> Option<Fingerprint> {
        self.pins.get(peer).map(|pin| pin.fingerprint)
    }

    pub(super) fn changed(&self, peer: &PeerId) -> Option<Fingerprint> {
        self.changed.get(peer).map(|pin| pin.fingerprint)
    }

    /// Forgets what goes on with members of a mesh that was left. Pinned keys stay: a peer is the same
    /// in any mesh.
    pub(super) fn leave_mesh(&mut self) {
        let Self {
            changed,
            exchanged,
            own: _,
            pins: _,
            // They end with their connections, and whoever waits for one is answered then.
            sessions: _,
            next_session: _,
        } = self;
        changed.clear();
        exchanged.clear();
    }

    /// Judges a key that a member shows. The first one is pinned.
    fn shown(&mut self, peer: PeerId, shown: Pin) -> Shown {
        match self.pins.get(&peer) {
            None => {
                self.pins.insert(peer, shown);
                Shown::First
            }
            Some(pinned) if pinned.fingerprint == shown.fingerprint => Shown::Same,
            Some(pinned) => {
                self.changed.insert(peer, shown);
                Shown::Other(pinned.fingerprint)
            }
        }
    }

    fn open(&mut self, ours: Ours) -> SessionId {
        let session = SessionId::Ours(self.next_session);
        self.next_session += 1;
        self.sessions.insert(session, ours);
        session
    }
}

impl State {
    pub(super) fn p2sn_ready(&mut self, fingerprint: Fingerprint) {
        self.keys.own = Some(fingerprint);
        // A key that is late may be what the others were waiting for, so whoever has it begins.
        let peers: Vec<PeerId> = self.links.open_peers().collect();
        for peer in peers {
            self.begin_exchange(peer);
        }
    }

    /// Runs the key exchange with a member, once for each time that it is there: it may come back
    /// with another key. Of two peers the smaller one begins.
    pub(super) fn exchange_keys(&mut self, peer: PeerId) {
        if self.own.peer < peer {
            self.begin_exchange(peer);
        }
    }

    /// Tries an exchange again that did not work, for example because the peer's key is being made.
    pub(super) fn exchange_due(&mut self, peer: PeerId) {
        if self.links.is_open(&peer) {
            self.begin_exchange(peer);
        }
    }

    /// The member is gone.
    pub(super) fn forget_exchange(&mut self, peer: &PeerId) {
        self.keys.exchanged.remove(peer);
    }

    fn begin_exchange(&mut self, peer: PeerId) {
        if self.keys.exchanged.contains_key(&peer) || self.keys.own.is_none() {
            return;
        }
        let session = self.keys.open(Ours {
            peer,
            message: None,
        });
        self.effects.net(NetOutput::P2snOpen {
            session,
            peer,
            message: None,
        });
    }

    /// Compares a shown key with the pinned one.
    pub(super) fn p2sn_key(
        &mut self,
        session: SessionId,
        peer: PeerId,
        fingerprint: Fingerprint,
        bits: usize,
    ) {
        let shown = Pin { fingerprint, bits };
        let is_known = self.membership.is_known(&peer);
        let judged = is_known.then(|| self.keys.shown(peer, shown));
        let accept = match judged {
            None => false,
            Some(Shown::Other(pinned)) => {
                self.effects.refused(Some(peer), "rsa_key", "changed");
                let name = self.name_of(&peer);
                self.effects.event(Event::KeyChanged {
                    peer,
                    name,
                    pinned,
                    shown: fingerprint,
                });
                false
            }
            Some(Shown::Same) => true,
            Some(Shown::First) => {
                self.effects.store(vec![pin_record(peer, shown)], None);
                true
            }
        };
        self.effects.net(NetOutput::P2snVerdict { session, accept });
    }

    pub(super) fn p2sn_established(&mut self, session: SessionId, peer: PeerId) {
        let first = self.keys.exchanged.insert(peer, ()).is_none();
        let Some(pin) = self.keys.pins.get(&peer).copied() else {
            return;
        };
        let is_exchange = self
            .keys
            .sessions
            .get(&session)
            .is_none_or(|s| s.message.is_none());
        if first && is_exchange {
            let name = self.name_of(&peer);
            let Pin { fingerprint, bits } = pin;
            self.effects.event(Event::KeyExchanged {
                peer,
                name,
                fingerprint,
                bits,
            });
        }
    }

    /// Accepts the key that was refused, or whichever comes next if none was.
    pub(super) fn trust_member(&mut self, request: RequestId, peer: PeerId) {
        let changed = self.keys.changed.get(&peer).copied();
        let reply = Reply::Trusted(report::Trusted {
            name: self.name_of(&peer),
            peer_id: Party::Member(peer),
            fingerprint: changed
                .or(self.keys.pins.get(&peer).copied())
                .map(|p| p.fingerprint.to_string()),
        });
        match changed {
            Some(pin) => {
                let records = vec![pin_record(peer, pin)];
                let change = Change::MemberKey(peer, pin);
                self.change(Some((request, reply)), records, change);
            }
            None => self.effects.reply(request, reply),
        }
    }

    /// A key that was accepted is on the disk: the exchange begins anew with it.
    pub(super) fn member_key_changed(&mut self, peer: PeerId, pin: Pin) {
        self.keys.pins.insert(peer, pin);
        if self.keys.changed.get(&peer) == Some(&pin) {
            self.keys.changed.remove(&peer);
        }
        self.keys.exchanged.remove(&peer);
        if self.links.is_open(&peer) {
            self.exchange_keys(peer);
        }
    }

    pub(super) fn send_p2sn(&mut self, request: RequestId, peer: PeerId, text: String) {
        let name = self.name_of(&peer);
        if self.keys.own.is_none() {
            let failure = Failure::unavailable("this node's RSA key is still being made");
            return self
                .effects
                .fail(request, failure.with_hint("try again in a minute"));
        }
        if !self.links.is_open(&peer) {
            let failure = Failure::unavailable(format!("`{name}` is not connected"));
            return self.effects.fail(
                request,
                failure.with_hint("without `--via p2sn` the message is kept until it is"),
            );
        }
        if let Some(pin) = self.keys.pins.get(&peer) {
            let max = pin.bits.div_ceil(8).saturating_sub(11);
            if text.len() > max {
                let failure = Failure::bad_request(format!(
                    "a P2SN message to `{name}` has at most {max} bytes, got {}",
                    text.len()
                ));
                return self
                    .effects
                    .fail(request, failure.with_hint("leave out `--via p2sn`"));
            }
        }
        let id = MessageId(self.effects.random());
        let session = self.keys.open(Ours {
            peer,
            message: Some((request, id)),
        });
        let message = Some(text.into_bytes());
        self.effects.net(NetOutput::P2snOpen {
            session,
            peer,
            message,
        });
    }

    pub(super) fn p2sn_replied(&mut self, session: SessionId, bytes: &[u8], now: Now) {
        let Some(ours) = self.keys.sessions.get_mut(&session) else {
            return;
        };
        let Some((request, id)) = ours.message.take() else {
            return;
        };
        let peer = ours.peer;
        if bytes == ACKNOWLEDGEMENT {
            let accepted = report::Accepted {
                id,
                to: self.name_of(&peer),
                peer_id: Party::Member(peer),
                expires_ms: now.unix_ms(),
                via: Via::P2sn,
                warning: self.copy_warning(&peer),
            };
            self.effects.reply(request, Reply::Accepted(vec![accepted]));
        } else {
            let name = self.name_of(&peer);
            let failure = Failure::refused(format!("`{name}` did not take the message"));
            self.effects.fail(request, failure);
        }
    }

    pub(super) fn p2sn_closed(&mut self, session: SessionId, peer: PeerId, reason: &str, now: Now) {
        let Some(ours) = self.keys.sessions.remove(&session) else {
            return;
        };
        let Some((request, _)) = ours.message else {
            let done = self.keys.exchanged.contains_key(&peer);
            if !done && !self.keys.changed.contains_key(&peer) && self.links.is_open(&peer) {
                let wait = RETRY + self.effects.jitter(RETRY);
                let timers = self.effects.timers();
                timers.set(Timer::Exchange(peer), now.mono + wait);
            }
            return;
        };
        let name = self.name_of(&peer);
        let failure =
            Failure::unavailable(format!("the P2SN session with `{name}` ended: {reason}"));
        let failure = if self.keys.changed.contains_key(&peer) {
            failure.with_hint(format!(
                "its RSA key changed; if that is right, `pimesh trust {name}` accepts it"
            ))
        } else {
            failure
        };
        self.effects.fail(request, failure);
    }

    pub(super) fn p2sn_message(
        &mut self,
        session: SessionId,
        peer: PeerId,
        bytes: Vec<u8>,
        now: Now,
    ) {
        if !self.membership.is_known(&peer) {
            self.effects
                .refused(Some(peer), "p2sn_message", "no_member");
            let bytes = UNEXPECTED_ERROR.to_vec();
            return self.effects.net(NetOutput::P2snReply { session, bytes });
        }
        let message = self.p2sn_incoming(Party::Member(peer), bytes, now);
        if let Err(no_room) = self.take_share(&message.sender, message.text.len(), now) {
            let why = no_room.name();
            self.effects.refused(Some(peer), "p2sn_message", why);
            let bytes = UNEXPECTED_ERROR.to_vec();
            return self.effects.net(NetOutput::P2snReply { session, bytes });
        }
        let record = Record::Incoming(message.clone());
        let after = After::P2snReceived(P2snReceiving { session, message });
        self.effects.store(vec![record], Some(after));
    }

    /// Makes the record of a P2SN message, which has neither a number nor a date.
    pub(super) fn p2sn_incoming(&mut self, sender: Party, bytes: Vec<u8>, now: Now) -> Incoming {
        let (encoding, text) = Encoding::of(bytes);
        Incoming {
            id: MessageId(self.effects.random()),
            sender,
            user: None,
            mark: None,
            created_ms: now.unix_ms(),
            received_ms: now.unix_ms(),
            via: Via::P2sn,
            text,
            encoding,
        }
    }

    pub(super) fn p2sn_stored(&mut self, received: P2snReceiving) {
        let P2snReceiving { session, message } = received;
        let bytes = ACKNOWLEDGEMENT.to_vec();
        self.effects.net(NetOutput::P2snReply { session, bytes });
        self.report_received(message);
    }

    pub(super) fn p2sn_not_stored(&mut self, received: &P2snReceiving) {
        let P2snReceiving { session, message } = received;
        self.give_back_share(&message.sender, message.text.len());
        let (session, bytes) = (*session, UNEXPECTED_ERROR.to_vec());
        self.effects.net(NetOutput::P2snReply { session, bytes });
    }
}

fn pin_record(peer: PeerId, pin: Pin) -> Record {
    Record::Pin {
        peer,
        fingerprint: pin.fingerprint.0,
        bits: u32::try_from(pin.bits).unwrap_or(u32::MAX),
    }
}
