//! Integers out and in (`proto-specs/iid.md`, section 9): on the lines to connected members
//! (`live`), and as gossip where that does not reach everybody.
//!
//! What is published in one turn of the loop travels together. What an integer means, and whether
//! a gossip message is passed on, the state says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use libp2p::{
    PeerId, Stream,
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError},
};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    behaviour::Members,
    gate::Gate,
    live::{self, Line, Phase, Room},
};
use crate::{
    proto::iid::native::{MESSAGE_BYTES_MAX, TOPIC},
    state::io::{GossipId, NetInput, Verdict},
};

/// Gossip messages that wait for a verdict; the state gives it in the same turn of the loop.
const UNJUDGED_MAX: usize = 1024;

/// The lines to and from members, what is not published yet, and gossip that is not judged yet.
pub(super) struct Integers {
    streams: libp2p_stream::Control,
    inputs: mpsc::Sender<NetInput>,
    lines: BTreeMap<PeerId, Line>,
    room: Room,
    readers: BTreeMap<PeerId, VecDeque<AbortHandle>>,
    topic: IdentTopic,
    unpublished: Vec<Vec<u8>>,
    /// Whether a member that is not connected may want what is not published yet.
    needs_relay: bool,
    unjudged: BTreeMap<GossipId, (MessageId, PeerId)>,
    next_gossip: u64,
}

impl Integers {
    /// What the readers of lines hear goes to `inputs`.
    pub(super) fn new(streams: libp2p_stream::Control, inputs: mpsc::Sender<NetInput>) -> Self {
        Self {
            streams,
            inputs,
            lines: BTreeMap::new(),
            room: Room::default(),
            readers: BTreeMap::new(),
            topic: IdentTopic::new(TOPIC),
            unpublished: Vec::new(),
            needs_relay: false,
            unjudged: BTreeMap::new(),
            next_gossip: 0,
        }
    }

    /// Returns what tells a sender of many integers when to go on.
    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }

    /// Lays a line to a member; what is published from here on waits for it.
    pub(super) fn lay(&mut self, peer: PeerId) {
        let line = Line::lay(self.streams.clone(), peer, self.room.clone());
        self.lines.insert(peer, line);
    }

    /// Takes a frame that [`Self::flush`] publishes.
    pub(super) fn push(&mut self, frame: Vec<u8>, needs_relay: bool) {
        self.unpublished.push(frame);
        self.needs_relay |= needs_relay;
    }

    /// Publishes the frames that came since the last call, joined into as few messages as they
    /// fit; what the state has to know of it goes into `queue`.
    pub(super) fn flush(&mut self, gate: &mut Gate<Members>, queue: &mut VecDeque<NetInput>) {
        let mut message = Vec::new();
        let needs_relay = std::mem::take(&mut self.needs_relay);
        for frame in std::mem::take(&mut self.unpublished) {
            if message.len() + frame.len() > MESSAGE_BYTES_MAX {
                self.publish(std::mem::take(&mut message), needs_relay, gate, queue);
            }
            if message.is_empty() {
                message = frame;
            } else {
                message.extend_from_slice(&frame);
            }
        }
        if !message.is_empty() {
            self.publish(message, needs_relay, gate, queue);
        }
    }

    /// Sends a message on the lines to all connected members, and as gossip if somebody cannot be
    /// reached so: a member that is not connected, or one that does not speak `/pimesh/live/1`.
    fn publish(
        &mut self,
        message: Vec<u8>,
        needs_relay: bool,
        gate: &mut Gate<Members>,
        queue: &mut VecDeque<NetInput>,
    ) {
        self.lines.retain(|peer, _| gate.is_open(peer));
        let shared: Arc<[u8]> = message.as_slice().into();
        let (mut needs_gossip, mut lost) = (needs_relay, 0);
        for (peer, line) in &mut self.lines {
            if line.phase() == Phase::Broken {
                *line = Line::lay(self.streams.clone(), *peer, self.room.clone());
            }
            needs_gossip |= line.phase() != Phase::Open;
            lost += line.send(Arc::clone(&shared));
        }
        let waiting = self.lines.values().filter_map(Line::waiting);
        self.room.set(waiting.min().unwrap_or(0));
        if lost > 0 {
            let reason = format!("{lost} messages: a peer does not keep up");
            queue.push_back(NetInput::PublishFailed { reason });
        }
        if needs_gossip {
            queue.extend(self.gossip(message, gate));
        }
    }

    fn gossip(&self, message: Vec<u8>, gate: &mut Gate<Members>) -> Option<NetInput> {
        let published = gate.inner().gossip.publish(self.topic.hash(), message);
        match published {
            // A node alone has nobody to publish to; what was published already is on its way.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => None,
            Err(error) => Some(NetInput::PublishFailed {
                reason: error.to_string(),
            }),
        }
    }

    /// Reads a line of a peer. Too many of one peer end its oldest.
    pub(super) fn read(&mut self, peer: PeerId, stream: Stream) {
        self.readers.retain(|_, readers| {
            readers.retain(|reader| !reader.is_finished());
            !readers.is_empty()
        });
        let reader = tokio::spawn(live::read(peer, stream, self.inputs.clone())).abort_handle();
        let readers = self.readers.entry(peer).or_default();
        readers.push_back(reader);
        if readers.len() > live::READERS_PER_PEER_MAX
            && let Some(oldest) = readers.pop_front()
        {
            oldest.abort();
        }
    }

    /// Takes in what gossipsub tells; a message waits from here on for its verdict.
    pub(super) fn hear(&mut self, event: gossipsub::Event) -> Option<NetInput> {
        let gossipsub::Event::Message {
            propagation_source,
            message_id,
            message,
        } = event
        else {
            return None;
        };
        // Strict validation lets no message without an author through.
        let source = message.source?;
        let id = GossipId(self.next_gossip);
        self.next_gossip += 1;
        self.unjudged.insert(id, (message_id, propagation_source));
        if self.unjudged.len() > UNJUDGED_MAX {
            self.unjudged.pop_first();
        }
        Some(NetInput::Gossip {
            source,
            from: propagation_source,
            id,
            bytes: message.data,
        })
    }

    /// Tells gossipsub what to do with a message.
    pub(super) fn judge(&mut self, gate: &mut Gate<Members>, id: GossipId, verdict: Verdict) {
        let Some((message, from)) = self.unjudged.remove(&id) else {
            return;
        };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        let gossip = &mut gate.inner().gossip;
        gossip.report_message_validation_result(&message, &from, acceptance);
    }
}
