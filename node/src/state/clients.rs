//! Old P2SN clients and servers: which keys are theirs, what they brought, and what waits for them
//! (`proto-specs/p2sn.md`, sections 9 and 10).
//!
//! A P2SN client asks one question and gets one reply at once, so a message for a client waits
//! until it asks the next time. What a message is worth is not decided here: P2SN proves neither
//! who sent it nor that it was not sent before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    After, State,
    io::{
        ClientName, Event, Failure, ForClient, Incoming, Now, Outcome, Party, Recipients, Record,
        Reply, RequestId, Via,
    },
    messages::time_left,
    millis, not_stored, report,
};
use crate::proto::{
    mesh::MessageId,
    p2sn::{Fingerprint, PORT, PinAddress},
};

/// Most addresses with pinned keys. A stranger who could make room by coming from many addresses
/// could have the pins of others forgotten, so further addresses are refused instead.
const ADDRESSES_MAX: usize = 4096;

/// Most keys of clients at one address: programs of one machine, or machines behind one router.
const KEYS_PER_ADDRESS_MAX: usize = 16;

/// Most refused keys that are remembered for `pimesh p2sn trust`.
const REFUSED_MAX: usize = 256;

/// Most messages that wait for one client. It takes one with each of its own.
const WAITING_PER_CLIENT_MAX: usize = 64;

/// Most messages that wait for clients, at a kilobyte each.
const WAITING_MAX: usize = 1024;

/// How long a message that was taken for a client is kept from others who ask: as long as one write
/// to it may take, and some.
const LEASE: Duration = Duration::from_secs(15);

/// Bytes that PKCS#1 v1.5 takes away from a block.
const PADDING_BYTES: usize = 11;

/// What is asked about clients.
#[derive(Clone, Debug)]
pub enum Question {
    /// May a session go on with this key? The first one of an address is pinned.
    Judge {
        /// Who shows it.
        address: PinAddress,
        /// Its fingerprint.
        fingerprint: Fingerprint,
        /// Its size.
        bits: usize,
        /// Whether a client with another key than the pinned ones is refused.
        strict: bool,
    },
    /// A client brought this message.
    Deliver {
        /// The client.
        client: ClientName,
        /// The member that gets it; this node's inbox if `None`.
        to: Option<String>,
        /// The message.
        text: String,
    },
    /// Which message waits longest for this client? It is the asker's for a while.
    Take {
        /// The client.
        client: ClientName,
    },
    /// A message that was taken was handed over.
    Handed {
        /// The message.
        id: MessageId,
    },
    /// Which keys are pinned, and which were refused?
    Keys,
    /// Take the key that was refused for this address.
    Trust {
        /// The address.
        address: String,
    },
    /// Pin nothing to this address any more.
    Forget {
        /// The address.
        address: String,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Judge`]: whether it may; if so, the key is on disk.
    Judged(bool),
    /// To [`Question::Deliver`]: the message is on disk.
    Delivered,
    /// To [`Question::Take`].
    Taken(Option<(MessageId, String)>),
    /// To [`Question::Handed`].
    Noted,
    /// To [`Question::Keys`], and to [`Question::Trust`] and [`Question::Forget`] with those that
    /// changed.
    Keys(Vec<report::P2snKey>),
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    fingerprint: Fingerprint,
    bits: usize,
}

/// A message that waits for a client.
#[derive(Debug)]
struct Waiting {
    message: ForClient,
    /// When to give up, on the clock that never jumps.
    deadline: Duration,
    /// Until when it is with somebody who hands it over.
    leased: Duration,
}

/// What is known of clients.
#[derive(Default)]
pub(super) struct Clients {
    /// The keys of each address, in the order of pinning. A server has one.
    pins: BTreeMap<PinAddress, Vec<Pin>>,
    refused: BTreeMap<PinAddress, Pin>,
    waiting: BTreeMap<ClientName, VecDeque<Waiting>>,
    /// Messages that wait, and those on their way to the disk.
    count: usize,
}

/// A message for a client on its way to the disk.
pub(super) struct Reserving {
    request: RequestId,
    message: ForClient,
}

/// A message of a client on its way to the disk.
pub(super) struct Bringing {
    request: RequestId,
    message: Incoming,
}

impl Clients {
    pub(super) fn load(
        pins: Vec<(String, [u8; 32], u32)>,
        waiting: Vec<ForClient>,
        now: Now,
    ) -> Self {
        let mut clients = Self::default();
        for (address, fingerprint, bits) in pins {
            // Only what an address printed was stored.
            if let Ok(address) = address.parse() {
                clients.pins.entry(address).or_default().push(Pin {
                    fingerprint: Fingerprint(fingerprint),
                    bits: bits as usize,
                });
            }
        }
        clients.count = waiting.len();
        for message in waiting {
            clients.push(message, now);
        }
        clients
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.values().flatten();
        waiting.map(|waiting| waiting.deadline).min()
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = report::Pending> {
        let waiting = self.waiting.values().flatten();
        waiting.map(|Waiting { message, .. }| report::Pending {
            id: message.id,
            to: message.client.to_string(),
            peer_id: Party::Client(message.client.clone()),
            bytes: message.text.len(),
            created_ms: message.created_ms,
            expires_ms: message.expires_ms,
            attempts: 0,
        })
    }

    fn push(&mut self, message: ForClient, now: Now) {
        let deadline = now.mono + time_left(message.created_ms, message.expires_ms, now);
        let queue = self.waiting.entry(message.client.clone()).or_default();
        queue.push_back(Waiting {
            message,
            deadline,
            leased: Duration::ZERO,
        });
    }

    /// Finds a client by its name, or by its address if only one is there.
    fn find(&self, text: &str) -> Option<(ClientName, Pin)> {
        let named = self.pins.iter().flat_map(|(address, pins)| {
            let name = |pin: &Pin| address.client_name(&pin.fingerprint);
            pins.iter()
                .filter_map(move |pin| Some((name(pin)?, address, *pin)))
        });
        let fits = |(name, address, _): &(String, &PinAddress, Pin)| {
            name == text || text.strip_prefix("p2sn:") == Some(&address.to_string())
        };
        let mut found = named.filter(fits);
        match (found.next(), found.next()) {
            (Some((name, _, pin)), None) => Some((ClientName::new(name)?, pin)),
            _ => None,
        }
    }

    /// Returns an address under which something is known: a client's, or a server's.
    fn resolve(&self, text: &str) -> Option<PinAddress> {
        let is_known = |a: &PinAddress| self.pins.contains_key(a) || self.refused.contains_key(a);
        let as_written = text.parse().ok().filter(is_known);
        as_written.or_else(|| {
            PinAddress::server(&format!("{text}:{PORT}"))
                .ok()
                .filter(is_known)
        })
    }

    fn report(&self, address: &PinAddress, pin: &Pin, refused: bool) -> report::P2snKey {
        let name = address.client_name(&pin.fingerprint);
        let waiting = name.clone().and_then(ClientName::new);
        let waiting = waiting.and_then(|name| self.waiting.get(&name));
        report::P2snKey {
            address: address.to_string(),
            name,
            fingerprint: pin.fingerprint.to_string(),
            bits: pin.bits,
            refused,
            waiting: waiting.map_or(0, VecDeque::len),
        }
    }
}

impl State {
    pub(super) fn answer_p2sn(&mut self, request: RequestId, question: Question, now: Now) {
        match question {
            Question::Judge {
                address,
                fingerprint,
                bits,
                strict,
            } => self.judge_client(request, address, Pin { fingerprint, bits }, strict),
            Question::Deliver { client, to, text } => {
                self.bring(request, client, to.as_deref(), text, now);
            }
            Question::Take { client } => {
                let taken = Answer::Taken(self.take(&client, now));
                self.effects.reply(request, Reply::P2sn(taken));
            }
            Question::Handed { id } => {
                self.end_waiting(|waiting| waiting.message.id == id, &Outcome::Delivered, now);
                self.effects.reply(request, Reply::P2sn(Answer::Noted));
            }
            Question::Keys => {
                let keys = Answer::Keys(self.report_keys());
                self.effects.reply(request, Reply::P2sn(keys));
            }
            Question::Trust { address } => self.trust_client(request, &address),
            Question::Forget { address } => self.forget_client(request, &address),
        }
    }

    /// Rules P2SN-PIN-FIRST and P2SN-PIN-SEVERAL.
    fn judge_client(&mut self, request: RequestId, address: PinAddress, shown: Pin, strict: bool) {
        let pins = self
            .clients
            .pins
            .get(&address)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if pins.iter().any(|pin| pin.fingerprint == shown.fingerprint) {
            return self.judged(request, true);
        }
        let is_client = matches!(address, PinAddress::Client(_));
        match pins.last() {
            Some(pinned) if strict || !is_client => {
                let pinned = pinned.fingerprint;
                if self.clients.refused.len() >= REFUSED_MAX {
                    self.clients.refused.pop_first();
                }
                self.effects.refused(None, "p2sn_client_key", "changed");
                self.effects.event(Event::ClientKeyChanged {
                    address: address.to_string(),
                    pinned,
                    shown: shown.fingerprint,
                });
                self.clients.refused.insert(address, shown);
                self.judged(request, false);
            }
            None if self.clients.pins.len() >= ADDRESSES_MAX => {
                self.effects
                    .refused(None, "p2sn_client_key", "too_many_addresses");
                self.judged(request, false);
            }
            Some(_) | None => {
                let after = After::Reply(request, Reply::P2sn(Answer::Judged(true)));
                self.pin_client(address, shown, after);
            }
        }
    }

    fn judged(&mut self, request: RequestId, may: bool) {
        let judged = Reply::P2sn(Answer::Judged(may));
        self.effects.reply(request, judged);
    }

    /// Pins a key beside those that are there; a server has one alone.
    fn pin_client(&mut self, address: PinAddress, pin: Pin, after: After) {
        let is_server = matches!(address, PinAddress::Server { .. });
        let text = address.to_string();
        let pins = self.clients.pins.entry(address.clone()).or_default();
        let room = if is_server {
            0
        } else {
            KEYS_PER_ADDRESS_MAX - 1
        };
        let mut records = Vec::new();
        while pins.len() > room {
            records.push(Record::ForgetClientPin {
                address: text.clone(),
                fingerprint: pins.remove(0).fingerprint.0,
            });
        }
        pins.push(pin);
        self.clients.refused.remove(&address);
        records.push(Record::ClientPin {
            address: text,
            fingerprint: pin.fingerprint.0,
            bits: u32::try_from(pin.bits).unwrap_or(u32::MAX),
        });
        self.effects.store(records, Some(after));
    }

    fn trust_client(&mut self, request: RequestId, text: &str) {
        let found = self.clients.resolve(text);
        let refused = found.and_then(|a| self.clients.refused.get(&a).map(|p| (a.clone(), *p)));
        let Some((address, pin)) = refused else {
            let failure = Failure::not_found(format!("no key was refused for `{text}`"));
            return self.effects.fail(
                request,
                failure.with_hint("`pimesh p2sn keys` lists what was"),
            );
        };
        let keys = vec![self.clients.report(&address, &pin, false)];
        let after = After::Reply(request, Reply::P2sn(Answer::Keys(keys)));
        self.pin_client(address, pin, after);
    }

    fn forget_client(&mut self, request: RequestId, text: &str) {
        let Some(address) = self.clients.resolve(text) else {
            let failure = Failure::not_found(format!("no key is pinned to `{text}`"));
            return self.effects.fail(
                request,
                failure.with_hint("`pimesh p2sn keys` lists those that are"),
            );
        };
        self.clients.refused.remove(&address);
        let pins = self.clients.pins.remove(&address).unwrap_or_default();
        let keys = pins
            .iter()
            .map(|pin| self.clients.report(&address, pin, false))
            .collect();
        let forget = |pin: &Pin| Record::ForgetClientPin {
            address: address.to_string(),
            fingerprint: pin.fingerprint.0,
        };
        let after = After::Reply(request, Reply::P2sn(Answer::Keys(keys)));
        self.effects
            .store(pins.iter().map(forget).collect(), Some(after));
    }

    fn report_keys(&self) -> Vec<report::P2snKey> {
        let clients = &self.clients;
        let pinned = clients.pins.iter().flat_map(|(address, pins)| {
            pins.iter()
                .map(move |pin| clients.report(address, pin, false))
        });
        let refused = clients.refused.iter();
        let mut keys: Vec<_> = pinned
            .chain(refused.map(|(address, pin)| clients.report(address, pin, true)))
            .collect();
        keys.sort_by(|a, b| a.address.cmp(&b.address));
        keys
    }

    /// Takes a client's message into the own inbox, or sends it on as a direct message.
    fn bring(
        &mut self,
        request: RequestId,
        client: ClientName,
        to: Option<&str>,
        text: String,
        now: Now,
    ) {
        let own_name = self.membership.own_terms().name.as_str();
        if let Some(to) = to.filter(|to| *to != own_name && *to != self.own.peer.to_string()) {
            let to = Recipients::Named(vec![to.to_owned()]);
            let text = marked(&client, &text);
            return self.send(request, &to, text, Via::Direct, None, now);
        }
        let message = Incoming {
            id: MessageId(self.effects.random()),
            sender: Party::Client(client),
            user: None,
            mark: None,
            created_ms: now.unix_ms(),
            received_ms: now.unix_ms(),
            via: Via::P2sn,
            text,
        };
        let record = Record::Incoming(message.clone());
        let after = After::Brought(Bringing { request, message });
        self.effects.store(vec![record], Some(after));
    }

    pub(super) fn brought(&mut self, Bringing { request, message }: Bringing) {
        self.effects.reply(request, Reply::P2sn(Answer::Delivered));
        self.report_received(message);
    }

    pub(super) fn not_brought(&mut self, bringing: &Bringing, reason: &str) {
        self.effects.fail(bringing.request, not_stored(reason));
    }

    /// Keeps a message for a client: rule P2SN-ANSWER-WAITS.
    pub(super) fn send_to_client(
        &mut self,
        request: RequestId,
        client: &str,
        text: String,
        expiry: Duration,
        now: Now,
    ) {
        let message = match self.for_client(client, text, expiry, now) {
            Ok(message) => message,
            Err(failure) => return self.effects.fail(request, failure),
        };
        self.clients.count += 1;
        let record = Record::ForClient(message.clone());
        let after = After::Reserved(Reserving { request, message });
        self.effects.store(vec![record], Some(after));
    }

    fn for_client(
        &mut self,
        client: &str,
        text: String,
        expiry: Duration,
        now: Now,
    ) -> Result<ForClient, Failure> {
        let Some((client, pin)) = self.clients.find(client) else {
            let failure = Failure::not_found(format!("no P2SN client is known as `{client}`"));
            return Err(failure.with_hint("`pimesh p2sn keys` lists the clients"));
        };
        let max = pin.bits.div_ceil(8) - PADDING_BYTES;
        if text.len() > max {
            let got = text.len();
            let text = format!("a message to `{client}` has at most {max} bytes, got {got}");
            return Err(Failure::bad_request(text).with_hint("send it in several"));
        }
        let waiting = self.clients.waiting.get(&client).map_or(0, VecDeque::len);
        if waiting >= WAITING_PER_CLIENT_MAX || self.clients.count >= WAITING_MAX {
            let text = format!("{waiting} messages wait for `{client}` already");
            return Err(Failure::unavailable(text)
                .with_hint("it takes one with each message that it sends"));
        }
        Ok(ForClient {
            id: MessageId(self.effects.random()),
            client,
            created_ms: now.unix_ms(),
            expires_ms: now.unix_ms() + millis(expiry),
            text,
        })
    }

    pub(super) fn reserved(&mut self, Reserving { request, message }: Reserving, now: Now) {
        let accepted = report::Accepted {
            id: message.id,
            to: message.client.to_string(),
            peer_id: Party::Client(message.client.clone()),
            expires_ms: message.expires_ms,
            via: Via::P2sn,
        };
        self.clients.push(message, now);
        self.effects.reply(request, Reply::Accepted(vec![accepted]));
    }

    pub(super) fn not_reserved(&mut self, reserving: &Reserving, reason: &str) {
        self.clients.count -= 1;
        self.effects.fail(reserving.request, not_stored(reason));
    }

    /// Finds what a member's message says to a client: rule P2SN-ANSWER-MARK.
    pub(super) fn answer_in(&mut self, text: &str, now: Now) -> Option<ForClient> {
        let (client, text) = text.strip_prefix('[')?.split_once("] ")?;
        // What is in brackets may be anything, and most often it is no client.
        self.clients.find(client)?;
        let expiry = self.settings.expiry;
        match self.for_client(client, text.to_owned(), expiry, now) {
            Ok(message) => {
                self.clients.count += 1;
                Some(message)
            }
            Err(_) => {
                self.effects
                    .refused(None, "p2sn_answer", "too_long_or_too_many");
                None
            }
        }
    }

    pub(super) fn answers_stored(&mut self, answers: Vec<ForClient>, now: Now) {
        for message in answers {
            self.clients.push(message, now);
        }
    }

    pub(super) const fn answers_not_stored(&mut self, answers: &[ForClient]) {
        self.clients.count -= answers.len();
    }

    fn take(&mut self, client: &ClientName, now: Now) -> Option<(MessageId, String)> {
        let first = self.clients.waiting.get_mut(client)?.front_mut()?;
        if first.leased > now.mono {
            // Those behind it wait, so that they stay in order.
            return None;
        }
        first.leased = now.mono + LEASE;
        Some((first.message.id, first.message.text.clone()))
    }

    pub(super) fn clients_due(&mut self, now: Now) {
        let is_over =
            |waiting: &Waiting| waiting.deadline <= now.mono && waiting.leased <= now.mono;
        self.end_waiting(is_over, &Outcome::Expired, now);
        for waiting in self.clients.waiting.values_mut().flatten() {
            // Somebody is handing it over at this moment.
            if waiting.deadline <= now.mono {
                waiting.deadline = waiting.leased;
            }
        }
    }

    /// Takes messages out of the queues, with what became of them.
    fn end_waiting(&mut self, is_over: impl Fn(&Waiting) -> bool, outcome: &Outcome, now: Now) {
        let mut records = Vec::new();
        for queue in self.clients.waiting.values_mut() {
            let (over, rest) = queue.drain(..).partition(&is_over);
            *queue = rest;
            let over: VecDeque<Waiting> = over;
            for Waiting { message, .. } in over {
                self.clients.count -= 1;
                let at_ms = now.unix_ms();
                records.push(Record::Outcome {
                    id: message.id,
                    outcome: outcome.clone(),
                    at_ms,
                });
                self.effects.event(Event::Sent(report::Sent {
                    id: message.id,
                    to: message.client.to_string(),
                    peer_id: Party::Client(message.client),
                    outcome: outcome.clone(),
                    at_ms,
                    attempted: *outcome == Outcome::Delivered,
                }));
            }
        }
        self.clients.waiting.retain(|_, queue| !queue.is_empty());
        if !records.is_empty() {
            self.effects.store(records, None);
        }
    }
}

/// Marks a client's message with whom it came from.
fn marked(client: &ClientName, text: &str) -> String {
    format!("[{client}] {text}")
}

/// Says whether a recipient's name is that of a client.
pub(super) fn is_client(name: &str) -> bool {
    name.starts_with("p2sn:")
}

#[cfg(test)]
mod tests;
