//! Messages from clients, and messages that wait until a client asks (rule P2SN-ANSWER-WAITS).

use std::{collections::VecDeque, time::Duration};

use libp2p_identity::PeerId;

use super::{Answer, Waiting};
use crate::{
    proto::mesh::MessageId,
    state::{
        After, Expiry, State,
        io::{
            ClientName, Encoding, Event, Failure, ForClient, Incoming, Now, Outcome, Party,
            Recipients, Record, Reply, RequestId, SendVia, Via,
        },
        report,
    },
};

/// Most messages that wait for one client. It takes one with each of its own.
const WAITING_PER_CLIENT_MAX: usize = 64;

/// Most messages that wait for clients, at a kilobyte each.
const WAITING_MAX: usize = 1024;

/// Most of them that members brought, so that the owner of this node can write at any time.
const OF_MEMBERS_MAX: usize = 768;

/// Most of them that one member brought: two requests of it.
const OF_MEMBER_MAX: usize = 256;

/// How long a message that was taken for a client is kept from others who ask: as long as one write
/// to it may take, and some.
const LEASE: Duration = Duration::from_secs(15);

/// Bytes that PKCS#1 v1.5 takes away from a block.
const PADDING_BYTES: usize = 11;

/// Why a message is not taken for a client.
#[derive(Debug)]
pub(in crate::state) enum NotForClient {
    /// There is no such client.
    Unknown,
    /// Its text is to be hexadecimal digits, and is not.
    NoHex,
    /// It is longer than one RSA block of the client's key.
    TooLong { max: usize, got: usize },
    /// So many wait already.
    Full { waiting: usize },
}

impl NotForClient {
    /// Returns what the sender is told.
    pub(in crate::state) fn failure(&self, client: &str) -> Failure {
        match self {
            Self::Unknown => Failure::not_found(format!("no P2SN client is known as `{client}`"))
                .with_hint("`pimesh p2sn keys` lists the clients"),
            Self::NoHex => Failure::bad_request(format!(
                "what is sent to `{client}{HEX_MARK}` is hexadecimal digits"
            ))
            .with_hint("two digits for each byte"),
            Self::TooLong { max, got } => Failure::bad_request(format!(
                "a message to `{client}` has at most {max} bytes, got {got}"
            ))
            .with_hint("send it in several"),
            Self::Full { waiting } => {
                Failure::unavailable(format!("{waiting} messages wait for `{client}` already"))
                    .with_hint("it takes one with each message that it sends")
            }
        }
    }
}

/// A message of a client on its way to the disk.
pub(in crate::state) struct Bringing {
    request: RequestId,
    message: Incoming,
}

impl State {
    /// Takes a client's message into the own inbox, or sends it on as a direct message.
    pub(super) fn bring(
        &mut self,
        request: RequestId,
        client: ClientName,
        to: Option<&str>,
        bytes: Vec<u8>,
        now: Now,
    ) {
        if let Err(no_room) = self.check_disk() {
            self.effects.refused(None, "p2sn_message", no_room.name());
            return self.effects.fail(request, no_room.failure());
        }
        let own_name = self.membership.own_terms().name.as_str();
        if let Some(to) = to.filter(|to| *to != own_name && *to != self.own.peer.to_string()) {
            let to = Recipients::Named(vec![to.to_owned()]);
            let text = marked(&client, bytes);
            return self.send(request, &to, text, SendVia::Direct, None, now);
        }
        let message = self.p2sn_incoming(Party::Client(client), bytes, now);
        if !self.has_room_for(request, "p2sn_message", &message, now) {
            return;
        }
        let record = Record::Incoming(message.clone());
        let after = After::Brought(Bringing { request, message });
        self.effects.store(vec![record], Some(after));
    }

    pub(in crate::state) fn brought(&mut self, Bringing { request, message }: Bringing) {
        self.effects.reply(request, Reply::P2sn(Answer::Delivered));
        self.report_received(message);
    }

    pub(in crate::state) fn not_brought(&mut self, bringing: &Bringing, reason: &str) {
        let message = &bringing.message;
        self.give_back_share(&message.sender, message.text.len());
        self.effects
            .fail(bringing.request, Failure::not_stored(reason));
    }

    /// Makes a message that waits for a client: rule P2SN-ANSWER-WAITS. Its room is taken; a member may
    /// have brought it.
    pub(in crate::state) fn for_client(
        &mut self,
        client: &str,
        encoding: Encoding,
        text: String,
        expiry: Expiry,
        brought_by: Option<PeerId>,
        now: Now,
    ) -> Result<ForClient, NotForClient> {
        let (client, pin) = self.clients.find(client).ok_or(NotForClient::Unknown)?;
        let got = encoding.bytes(&text).ok_or(NotForClient::NoHex)?.len();
        let max = pin.bits.div_ceil(8).saturating_sub(PADDING_BYTES);
        if got > max {
            return Err(NotForClient::TooLong { max, got });
        }
        let waiting = self.clients.count_for(&client);
        let is_over_share = brought_by.is_some_and(|peer| {
            let (of_members, of_peer) = self.clients.count_of_members(peer);
            of_members >= OF_MEMBERS_MAX || of_peer >= OF_MEMBER_MAX
        });
        if waiting >= WAITING_PER_CLIENT_MAX || self.clients.count() >= WAITING_MAX || is_over_share
        {
            return Err(NotForClient::Full { waiting });
        }
        let message = ForClient {
            id: MessageId(self.effects.random()),
            client,
            created_ms: now.unix_ms(),
            expires_ms: expiry.end_ms(now),
            text,
            encoding,
        };
        let reserved = (message.client.clone(), brought_by);
        self.clients.reserved.insert(message.id, reserved);
        Ok(message)
    }

    pub(in crate::state) fn report_accepted_for_client(
        &self,
        message: &ForClient,
    ) -> report::Accepted {
        report::Accepted {
            id: message.id,
            to: message.client.to_string(),
            peer_id: Party::Client(message.client.clone()),
            expires_ms: message.expires_ms,
            via: Via::P2sn,
            warning: None,
        }
    }

    /// A message for a client is on disk, and waits for it.
    pub(in crate::state) fn waits_for_client(&mut self, message: ForClient, now: Now) {
        let believed = self.believed(now);
        self.clients.push(message, believed);
    }

    /// Finds what a member's message says to a client: rule P2SN-ANSWER-MARK.
    pub(in crate::state) fn answer_in(
        &mut self,
        text: &str,
        peer: PeerId,
        now: Now,
    ) -> Option<ForClient> {
        let (client, text) = text.strip_prefix('[')?.split_once("] ")?;
        let (client, encoding) = encoding_of(client);
        let expiry = self.settings.expiry;
        let text = text.to_owned();
        match self.for_client(client, encoding, text, expiry, Some(peer), now) {
            Ok(message) => Some(message),
            // What is in brackets may be anything, and most often it is no client.
            Err(NotForClient::Unknown) => None,
            Err(_) => {
                self.effects
                    .refused(None, "p2sn_answer", "too_long_or_too_many");
                None
            }
        }
    }

    pub(super) fn take(&mut self, client: &ClientName, now: Now) -> Option<(MessageId, Vec<u8>)> {
        let first = self.clients.waiting.get_mut(client)?.front_mut()?;
        if first.leased > now.mono {
            // Those behind it wait, so that they stay in order.
            return None;
        }
        first.leased = now.mono + LEASE;
        let ForClient {
            id, text, encoding, ..
        } = &first.message;
        // What is no hexadecimal digits was never taken for some.
        Some((*id, encoding.bytes(text).unwrap_or_default()))
    }

    pub(in crate::state) fn clients_due(&mut self, now: Now) {
        if self
            .clients
            .earliest
            .is_none_or(|earliest| earliest > now.mono)
        {
            return;
        }
        let is_over =
            |waiting: &Waiting| waiting.deadline <= now.mono && waiting.leased <= now.mono;
        self.end_waiting(is_over, &Outcome::Expired, now);
        for waiting in self.clients.waiting.values_mut().flatten() {
            // Somebody is handing it over at this moment.
            if waiting.deadline <= now.mono {
                waiting.deadline = waiting.leased;
            }
        }
        self.clients.find_earliest();
    }

    /// Takes messages out of the queues, with what became of them.
    pub(super) fn end_waiting(
        &mut self,
        is_over: impl Fn(&Waiting) -> bool,
        outcome: &Outcome,
        now: Now,
    ) {
        let mut records = Vec::new();
        for queue in self.clients.waiting.values_mut() {
            let (over, rest) = queue.drain(..).partition(&is_over);
            *queue = rest;
            let over: VecDeque<Waiting> = over;
            for Waiting { message, .. } in over {
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
                    warning: None,
                }));
            }
        }
        self.clients.waiting.retain(|_, queue| !queue.is_empty());
        if !records.is_empty() {
            self.effects.store(records, None);
        }
    }
}

/// What stands behind a client's name where the text is hexadecimal digits: rule P2SN-BYTES.
const HEX_MARK: &str = " hex";

/// Marks a client's message with whom it came from.
fn marked(client: &ClientName, bytes: Vec<u8>) -> String {
    match Encoding::of(bytes) {
        (Encoding::Utf8, text) => format!("[{client}] {text}"),
        (Encoding::Hex, text) => format!("[{client}{HEX_MARK}] {text}"),
    }
}

/// Takes the mark off a client's name.
pub(in crate::state) fn encoding_of(client: &str) -> (&str, Encoding) {
    match client.strip_suffix(HEX_MARK) {
        Some(client) => (client, Encoding::Hex),
        None => (client, Encoding::Utf8),
    }
}
