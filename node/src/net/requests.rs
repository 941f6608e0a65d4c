//! The protocols for members that ask and answer: what was asked, by whom, under the state's names.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{PeerId, StreamProtocol, swarm::ConnectionId};

use super::{
    NOT_OPEN,
    behaviour::Members,
    exchange::{Event, Exchange, Terms},
    gate::Gate,
    reading::Reading,
};
use crate::{
    proto::mesh::{direct, key, sync, users},
    state::io::{InboundId, NetInput, OutboundId, Protocol},
};

/// How long a request to a member may take: a megabyte over a bad radio link, and a slow disk.
const TIME: Duration = Duration::from_secs(30);

/// Requests of one member that are read or answered at once, for each protocol. A member has one
/// under way, or a second one when it gave the first up.
const AT_ONCE: usize = 2;

/// Requests of one member in all, for each protocol: what a member tells in a burst of news waits
/// unread in the buffers of its connection.
const INBOUND_MAX: usize = 16;

/// Bytes of requests that are read at once, of all members and protocols together: a fifth of the
/// memory of a node on the smallest Pi, and a full batch of five members.
const READING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Members' requests that wait for an answer, in all.
const WAITING_MAX: usize = 1024;

/// Returns the limit of what is read of members.
pub(super) fn reading() -> Reading {
    Reading::new(READING_BYTES_MAX)
}

/// Makes the behaviour of a protocol; `reading` is the limit of all of them together.
pub(super) fn exchange(protocol: Protocol, reading: &Reading) -> Exchange {
    let (name, request_max, response_max) = match protocol {
        Protocol::Sync => (
            "/pimesh/sync/1",
            sync::REQUEST_BYTES_MAX,
            sync::RESPONSE_BYTES_MAX,
        ),
        Protocol::Direct => (
            "/pimesh/dm/1",
            direct::REQUEST_BYTES_MAX,
            direct::RESPONSE_BYTES_MAX,
        ),
        Protocol::Users => (
            "/pimesh/users/1",
            users::REQUEST_BYTES_MAX,
            users::RESPONSE_BYTES_MAX,
        ),
        Protocol::Key => (
            "/pimesh/key/1",
            key::REQUEST_BYTES_MAX,
            key::RESPONSE_BYTES_MAX,
        ),
    };
    Exchange::new(Terms {
        protocol: StreamProtocol::new(name),
        request_max,
        response_max,
        time: TIME,
        at_once: AT_ONCE,
        inbound_max: INBOUND_MAX,
        reading: reading.clone(),
    })
}

/// The requests of members that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    inbound: BTreeMap<InboundId, Inbound>,
    next_inbound: u64,
}

/// A request of a member: where it came, and its name there.
#[derive(Debug)]
struct Inbound {
    protocol: Protocol,
    connection: ConnectionId,
    id: InboundId,
}

impl Requests {
    /// Asks a member, or tells at once that it cannot be asked.
    pub(super) fn ask(
        &mut self,
        gate: &mut Gate<Members>,
        peer: PeerId,
        protocol: Protocol,
        id: OutboundId,
        bytes: Vec<u8>,
    ) -> Option<NetInput> {
        let Some(connection) = gate.open_connection(&peer) else {
            let result = Err(NOT_OPEN.to_owned());
            return Some(NetInput::Response { id, result });
        };
        behaviour(gate, protocol).ask(connection, id, bytes);
        None
    }

    /// Answers a request of a member.
    pub(super) fn answer(&mut self, gate: &mut Gate<Members>, id: InboundId, bytes: Vec<u8>) {
        if let Some(inbound) = self.inbound.remove(&id) {
            // A member whose connection is gone asks again on the next one.
            behaviour(gate, inbound.protocol).answer(inbound.connection, inbound.id, bytes);
        }
    }

    /// Ends a request of a member without an answer.
    pub(super) fn refuse(&mut self, gate: &mut Gate<Members>, id: InboundId) {
        if let Some(inbound) = self.inbound.remove(&id) {
            behaviour(gate, inbound.protocol).refuse(inbound.connection, inbound.id);
        }
    }

    /// Takes in what happened on a protocol; returns what the state has to know.
    pub(super) fn handle(
        &mut self,
        gate: &mut Gate<Members>,
        protocol: Protocol,
        event: Event,
    ) -> NetInput {
        match event {
            Event::Request {
                connection,
                peer,
                id: named,
                bytes,
            } => {
                let id = InboundId(self.next_inbound);
                self.next_inbound += 1;
                let inbound = Inbound {
                    protocol,
                    connection,
                    id: named,
                };
                self.inbound.insert(id, inbound);
                if self.inbound.len() > WAITING_MAX
                    && let Some(oldest) = self.inbound.first_key_value().map(|(id, _)| *id)
                {
                    self.refuse(gate, oldest);
                }
                NetInput::Request {
                    peer,
                    protocol,
                    id,
                    bytes,
                }
            }
            Event::Response(id, result) => NetInput::Response { id, result },
            Event::AtLimit(what) => NetInput::AtLimit { what, times: 1 },
        }
    }
}

const fn behaviour(gate: &mut Gate<Members>, protocol: Protocol) -> &mut Exchange {
    let members = gate.inner();
    match protocol {
        Protocol::Sync => &mut members.sync,
        Protocol::Direct => &mut members.direct,
        Protocol::Users => &mut members.users,
        Protocol::Key => &mut members.key,
    }
}
