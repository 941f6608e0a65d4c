//! Old P2SN clients and servers: which keys are theirs, what they brought, and what waits for them
//! (`proto-specs/p2sn.md`, sections 9 and 10).
//!
//! A P2SN client asks one question and gets one reply at once, so a message for a client waits
//! until it asks the next time. What a message is worth is not decided here: P2SN proves neither
//! who sent it nor that it was not sent before.

mod messages;
mod pins;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use libp2p_identity::PeerId;

pub(super) use self::{
    messages::{Bringing, NotForClient, encoding_of},
    pins::Pinning,
};
use super::{
    State,
    capacity::weight,
    io::{ClientName, ForClient, Now, Outcome, Party, Reply, RequestId},
    messages::time_left,
    report,
    work::look,
};
use crate::{
    limits::Source,
    proto::{
        mesh::{MessageId, users::CLIENTS_PER_NODE_MAX},
        p2sn::{Fingerprint, PORT, PinAddress},
    },
};

/// Most clients of one source (an IPv4 address, or an IPv6 /64) that are told to other nodes. A machine
/// with that many programs is rare, and it takes 16 sources to fill `CLIENTS_PER_NODE_MAX`.
const TOLD_PER_NETWORK_MAX: usize = 64;

/// What is asked about clients.
#[derive(Clone, derive_more::Debug)]
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
        /// The member, user or client that gets it; this node's inbox if `None`.
        to: Option<String>,
        /// The message.
        #[debug("{} bytes", bytes.len())]
        bytes: Vec<u8>,
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
#[derive(Clone, derive_more::Debug)]
pub enum Answer {
    /// To [`Question::Judge`]: whether it may; if so, the key is on disk.
    Judged(bool),
    /// To [`Question::Deliver`]: the message is on disk.
    Delivered,
    /// To [`Question::Take`].
    #[debug("Taken({:?})", _0.as_ref().map(|(id, _)| id))]
    Taken(Option<(MessageId, Vec<u8>)>),
    /// To [`Question::Handed`].
    Noted,
    /// To [`Question::Keys`], and to [`Question::Trust`] and [`Question::Forget`] with those that
    /// changed.
    Keys(Vec<report::P2snKey>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Whether it was there when this run of the node began: then only the date says how old it is.
    is_from_disk: bool,
    /// Until when it is with somebody who hands it over.
    leased: Duration,
    /// The member that brought it, as far as this run of the node knows.
    brought_by: Option<PeerId>,
}

/// What is known of clients.
#[derive(Default)]
pub(super) struct Clients {
    /// The keys of each address, in the order of pinning. A server has one.
    pins: BTreeMap<PinAddress, Vec<Pin>>,
    refused: BTreeMap<PinAddress, Pin>,
    waiting: BTreeMap<ClientName, VecDeque<Waiting>>,
    /// Messages on their way to the disk: for whom, and which member brought it.
    reserved: BTreeMap<MessageId, (ClientName, Option<PeerId>)>,
    /// No message is to be given up before.
    earliest: Option<Duration>,
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
        for message in waiting {
            clients.push(message, now);
        }
        for waiting in clients.waiting.values_mut().flatten() {
            waiting.is_from_disk = true;
        }
        clients
    }

    /// Shortens the time of messages of an earlier run to what the date leaves them.
    pub(super) fn count_time_anew(&mut self, now: Now) {
        let waiting = self.waiting.values_mut().flatten();
        for waiting in waiting.filter(|waiting| waiting.is_from_disk) {
            let message = &waiting.message;
            let left = time_left(message.created_ms, message.expires_ms, now);
            waiting.deadline = waiting.deadline.min(now.mono + left);
        }
        self.find_earliest();
    }

    pub(super) const fn next_deadline(&self) -> Option<Duration> {
        self.earliest
    }

    /// Looks at all messages for the one that is to be given up first.
    fn find_earliest(&mut self) {
        let waiting = self.waiting.values().flatten();
        let deadlines = waiting.map(|waiting| {
            look();
            waiting.deadline
        });
        self.earliest = deadlines.min();
    }

    /// Returns how many messages wait, with those on their way to the disk.
    pub(super) fn count(&self) -> usize {
        self.reserved.len() + self.waiting.values().map(VecDeque::len).sum::<usize>()
    }

    fn count_for(&self, client: &ClientName) -> usize {
        let reserved = self.reserved.values().filter(|(to, _)| to == client);
        reserved.count() + self.waiting.get(client).map_or(0, VecDeque::len)
    }

    /// Returns how many of them members brought, and this one.
    fn count_of_members(&self, peer: PeerId) -> (usize, usize) {
        let reserved = self.reserved.values().filter_map(|(_, by)| *by);
        let waiting = self.waiting.values().flatten();
        let brought = reserved.chain(waiting.filter_map(|waiting| waiting.brought_by));
        brought.fold((0, 0), |(all, its), by| {
            (all + 1, its + usize::from(by == peer))
        })
    }

    /// Returns what messages that wait weigh in the history.
    pub(super) fn history_bytes(&self) -> u64 {
        let waiting = self.waiting.values().flatten();
        waiting.map(|w| weight(w.message.text.len())).sum()
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
        self.earliest = Some(
            self.earliest
                .map_or(deadline, |earliest| earliest.min(deadline)),
        );
        let reserved = self.reserved.remove(&message.id);
        let queue = self.waiting.entry(message.client.clone()).or_default();
        queue.push_back(Waiting {
            brought_by: reserved.and_then(|(_, by)| by),
            message,
            deadline,
            is_from_disk: false,
            leased: Duration::ZERO,
        });
    }

    /// Gives back the room of a message that did not come to the disk.
    pub(super) fn release(&mut self, message: &ForClient) {
        self.reserved.remove(&message.id);
    }

    /// Returns the names of the clients that are told to other nodes. Each source has a share, so that one
    /// machine with many addresses does not keep others out.
    pub(super) fn told(&self) -> impl Iterator<Item = ClientName> {
        let mut of_networks = BTreeMap::<Source, usize>::new();
        let pins = self
            .pins
            .iter()
            .filter_map(|(address, pins)| match address {
                PinAddress::Client(ip) => Some((Source::from(*ip), address, pins)),
                PinAddress::Server { .. } => None,
            });
        let keys = pins
            .flat_map(|(source, address, pins)| pins.iter().map(move |pin| (source, address, pin)));
        keys.filter(move |(source, ..)| {
            let told = of_networks.entry(*source).or_default();
            *told += 1;
            *told <= TOLD_PER_NETWORK_MAX
        })
        .filter_map(|(_, address, pin)| ClientName::new(address.client_name(&pin.fingerprint)?))
        .take(CLIENTS_PER_NODE_MAX)
    }

    pub(super) fn has(&self, name: &ClientName) -> bool {
        self.named(name.as_str()).is_some()
    }

    /// Finds a client by its whole name.
    fn named(&self, text: &str) -> Option<(ClientName, Pin)> {
        let (address, _) = text.strip_prefix("p2sn:")?.rsplit_once('/')?;
        let address = PinAddress::client(address.parse().ok()?);
        let mut pins = self.pins.get(&address)?.iter();
        pins.find_map(|pin| {
            let name = address.client_name(&pin.fingerprint)?;
            (name == text).then_some((ClientName::new(name)?, *pin))
        })
    }

    /// Finds the name of a client by its name, or by its address if only one is there.
    pub(super) fn find_name(&self, text: &str) -> Option<ClientName> {
        self.find(text).map(|(name, _)| name)
    }

    /// Finds a client by its name, or by its address if only one is there.
    fn find(&self, text: &str) -> Option<(ClientName, Pin)> {
        if let Some(found) = self.named(text) {
            return Some(found);
        }
        let address = PinAddress::client(text.strip_prefix("p2sn:")?.parse().ok()?);
        match self.pins.get(&address)?.as_slice() {
            [pin] => self.named(&address.client_name(&pin.fingerprint)?),
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
            Question::Deliver { client, to, bytes } => {
                self.bring(request, client, to.as_deref(), bytes, now);
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
}
