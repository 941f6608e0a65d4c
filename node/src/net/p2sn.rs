//! P2SN sessions on libp2p streams (`proto-specs/p2sn.md`, section 8).
//!
//! Each session has a task of its own, which runs it (`p2sn_session`) and carries its questions to
//! the state and the state's words back. It decides nothing.

use std::{collections::HashMap, time::Duration};

use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::{sync::mpsc, time::timeout};

use super::{NOT_OPEN, behaviour::Members, gate::Gate};
use crate::{
    p2sn_session::{Ended, Owner, Steps, Terms, run_client, run_server},
    proto::p2sn::{KeyPolicy, Limits, PrivateKey, PublicKey, STREAM_PROTOCOL},
    state::io::{NetInput, SessionId},
};

/// The stream protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(STREAM_PROTOCOL);

/// P2SN sessions at once, of either side.
const SESSIONS_MAX: usize = 64;

/// P2SN sessions at once that peers opened. Each costs RSA; the rest stays for our own.
const SESSIONS_INBOUND_MAX: usize = 16;

/// P2SN sessions at once that one peer opened. A member has one exchange and one message under way.
const SESSIONS_PER_PEER_MAX: usize = 4;

/// How long the opening of a stream to a connected member may take.
const STREAM_TIME: Duration = Duration::from_secs(10);

/// Words that wait for one session. The state says one thing for each it is told.
const WORDS: usize = 4;

/// Threads for the RSA of all sessions with members: enough for the cores of a Pi. Members are
/// known, and each has one exchange and few messages under way.
const STEPS_AT_ONCE: usize = 4;

/// What the state says to a session.
#[derive(derive_more::Debug)]
pub(super) enum Word {
    /// Go on with the peer's key, or end.
    Verdict(bool),
    /// Answer the peer's message.
    #[debug("Reply({} bytes)", _0.len())]
    Reply(Vec<u8>),
}

/// The sessions that run.
pub(super) struct Sessions {
    streams: libp2p_stream::Control,
    inputs: mpsc::Sender<NetInput>,
    own: Option<PrivateKey>,
    words: HashMap<SessionId, mpsc::Sender<Word>>,
    /// The peers that opened a session.
    theirs: HashMap<SessionId, PeerId>,
    steps: Steps,
    next: u64,
}

impl Sessions {
    /// What sessions ask goes to `inputs`. Without a key there are none.
    pub(super) fn new(streams: libp2p_stream::Control, inputs: mpsc::Sender<NetInput>) -> Self {
        Self {
            streams,
            inputs,
            own: None,
            words: HashMap::new(),
            theirs: HashMap::new(),
            steps: Steps::at_once(STEPS_AT_ONCE),
            next: 0,
        }
    }

    /// Gives the key; sessions are possible from here on.
    pub(super) fn set_key(&mut self, key: PrivateKey) {
        self.own = Some(key);
    }

    /// Opens a session with a member, or tells at once why there is none.
    pub(super) fn open(
        &mut self,
        gate: &Gate<Members>,
        session: SessionId,
        peer: PeerId,
        message: Option<Vec<u8>>,
    ) -> Option<NetInput> {
        let task = if gate.is_open(&peer) {
            self.add(session, peer, message)
                .ok_or("no RSA key yet, or too many sessions")
        } else {
            Err(NOT_OPEN)
        };
        let task = match task {
            Ok(task) => task,
            Err(reason) => {
                let reason = reason.to_owned();
                return Some(NetInput::P2snClosed {
                    session,
                    peer,
                    reason,
                });
            }
        };
        let mut control = self.streams.clone();
        tokio::spawn(async move {
            // If the connection closes in this moment, libp2p-stream may never answer.
            let stream = match timeout(STREAM_TIME, control.open_stream(peer, PROTOCOL)).await {
                Ok(stream) => stream.map_err(|e| e.to_string()),
                Err(_) => Err("the peer takes no stream".to_owned()),
            };
            task.run(stream).await;
        });
        None
    }

    /// Serves a stream that a member opened, unless it has too many.
    pub(super) fn serve(&mut self, peer: PeerId, stream: Stream) -> Option<NetInput> {
        let of_peer = self.theirs.values().filter(|other| **other == peer).count();
        if self.theirs.len() >= SESSIONS_INBOUND_MAX || of_peer >= SESSIONS_PER_PEER_MAX {
            let what = "p2sn_sessions_of_members";
            return Some(NetInput::AtLimit { what, times: 1 });
        }
        let session = SessionId::Theirs(self.next);
        self.next += 1;
        if let Some(task) = self.add(session, peer, None) {
            self.theirs.insert(session, peer);
            tokio::spawn(task.run(Ok(stream)));
        }
        None
    }

    fn add(&mut self, id: SessionId, peer: PeerId, message: Option<Vec<u8>>) -> Option<Task> {
        let own = self.own.clone()?;
        if self.words.len() >= SESSIONS_MAX {
            return None;
        }
        let (sender, words) = mpsc::channel(WORDS);
        self.words.insert(id, sender);
        Some(Task {
            id,
            peer,
            own,
            message,
            steps: self.steps.clone(),
            inputs: self.inputs.clone(),
            words,
        })
    }

    /// Says something to a session.
    pub(super) fn say(&self, session: SessionId, word: Word) {
        if let Some(words) = self.words.get(&session) {
            // A session that has ended needs no words.
            drop(words.try_send(word));
        }
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.words.remove(&session);
        self.theirs.remove(&session);
    }
}

/// One session to run.
struct Task {
    id: SessionId,
    peer: PeerId,
    own: PrivateKey,
    message: Option<Vec<u8>>,
    steps: Steps,
    inputs: mpsc::Sender<NetInput>,
    words: mpsc::Receiver<Word>,
}

impl Task {
    /// Runs a session on a stream, or tells why there is no stream.
    async fn run(mut self, stream: Result<Stream, String>) {
        let reason = match stream {
            Ok(stream) => self.talk(stream).await,
            Err(reason) => reason,
        };
        let (session, peer) = (self.id, self.peer);
        self.tell(NetInput::P2snClosed {
            session,
            peer,
            reason,
        })
        .await;
    }

    async fn talk(&mut self, stream: Stream) -> String {
        let terms = Terms {
            own: self.own.clone(),
            policy: KeyPolicy::default(),
            limits: Limits::default(),
            steps: self.steps.clone(),
        };
        let ended = match self.id {
            SessionId::Ours(_) => run_client(stream, terms, self).await,
            SessionId::Theirs(_) => Err(run_server(stream, terms, self).await),
        };
        ended.map_or_else(|ended: Ended| ended.to_string(), |()| "complete".to_owned())
    }

    async fn tell(&self, input: NetInput) {
        // Fails only when the node is stopping.
        drop(self.inputs.send(input).await);
    }
}

impl Owner for Task {
    async fn judge(&mut self, key: &PublicKey) -> bool {
        self.tell(NetInput::P2snKey {
            session: self.id,
            peer: self.peer,
            fingerprint: key.fingerprint(),
            bits: key.bits(),
        })
        .await;
        loop {
            match self.words.recv().await {
                Some(Word::Verdict(accept)) => return accept,
                Some(Word::Reply(_)) => {}
                None => return false,
            }
        }
    }

    async fn established(&mut self) -> Option<Vec<u8>> {
        let (session, peer) = (self.id, self.peer);
        self.tell(NetInput::P2snEstablished { session, peer }).await;
        self.message.take()
    }

    async fn message(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (session, peer) = (self.id, self.peer);
        self.tell(NetInput::P2snMessage {
            session,
            peer,
            bytes,
        })
        .await;
        loop {
            match self.words.recv().await {
                Some(Word::Reply(bytes)) => return Some(bytes),
                Some(Word::Verdict(_)) => {}
                None => return None,
            }
        }
    }

    async fn replied(&mut self, bytes: Vec<u8>) {
        let session = self.id;
        self.tell(NetInput::P2snReplied { session, bytes }).await;
    }
}
