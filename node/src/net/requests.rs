//! The request-response protocols for members: what was asked, by whom, under the state's names.

use std::collections::{BTreeMap, HashMap};

use libp2p::{
    PeerId,
    request_response::{self, Event, Message, OutboundRequestId, ResponseChannel},
};

use super::{NOT_OPEN, behaviour::Members, frame::Codec, gate::Gate};
use crate::state::io::{InboundId, NetInput, OutboundId, Protocol};

/// Members' requests that wait for an answer; a member has at most a few under way.
const INBOUND_MAX: usize = 1024;

/// The requests of both sides that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    asked: HashMap<(Protocol, OutboundRequestId), OutboundId>,
    inbound: BTreeMap<InboundId, (Protocol, ResponseChannel<Vec<u8>>)>,
    next_inbound: u64,
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
        // libp2p would dial by itself, or wait without end for a connection behind the gate.
        if !gate.is_open(&peer) {
            let result = Err(NOT_OPEN.to_owned());
            return Some(NetInput::Response { id, result });
        }
        let request = behaviour(gate, protocol).send_request(&peer, bytes);
        self.asked.insert((protocol, request), id);
        None
    }

    /// Answers a request of a member.
    pub(super) fn answer(&mut self, gate: &mut Gate<Members>, id: InboundId, bytes: Vec<u8>) {
        if let Some((protocol, channel)) = self.inbound.remove(&id) {
            // A connection that is gone asks again on the next one.
            drop(behaviour(gate, protocol).send_response(channel, bytes));
        }
    }

    /// Ends a request of a member without an answer.
    pub(super) fn refuse(&mut self, id: InboundId) {
        // Without its channel the request's stream ends, and the peer knows at once.
        self.inbound.remove(&id);
    }

    /// Takes in what happened on a protocol; returns what the state has to know.
    pub(super) fn handle(
        &mut self,
        protocol: Protocol,
        event: Event<Vec<u8>, Vec<u8>>,
    ) -> Option<NetInput> {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request, channel, ..
                } => Some(self.asked_by(peer, protocol, request, channel)),
                Message::Response {
                    request_id,
                    response,
                } => self.answered(protocol, request_id, Ok(response)),
            },
            Event::OutboundFailure {
                request_id, error, ..
            } => self.answered(protocol, request_id, Err(error.to_string())),
            Event::InboundFailure { error, peer, .. } => {
                tracing::debug!(%peer, %error, "a request could not be answered");
                None
            }
            Event::ResponseSent { .. } => None,
        }
    }

    fn asked_by(
        &mut self,
        peer: PeerId,
        protocol: Protocol,
        bytes: Vec<u8>,
        channel: ResponseChannel<Vec<u8>>,
    ) -> NetInput {
        let id = InboundId(self.next_inbound);
        self.next_inbound += 1;
        self.inbound.insert(id, (protocol, channel));
        if self.inbound.len() > INBOUND_MAX {
            self.inbound.pop_first();
        }
        NetInput::Request {
            peer,
            protocol,
            id,
            bytes,
        }
    }

    fn answered(
        &mut self,
        protocol: Protocol,
        request: OutboundRequestId,
        result: Result<Vec<u8>, String>,
    ) -> Option<NetInput> {
        let id = self.asked.remove(&(protocol, request))?;
        Some(NetInput::Response { id, result })
    }
}

const fn behaviour(
    gate: &mut Gate<Members>,
    protocol: Protocol,
) -> &mut request_response::Behaviour<Codec> {
    let members = gate.inner();
    match protocol {
        Protocol::Sync => &mut members.sync,
        Protocol::Direct => &mut members.direct,
        Protocol::Users => &mut members.users,
    }
}
