//! P2SN sessions on libp2p streams (`proto-specs/p2sn.md`, section 8).
//!
//! Each session has a task of its own, which runs it (`p2sn_session`) and carries its questions to
//! the state and the state's words back. It decides nothing.

use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::mpsc;

use crate::{
    p2sn_session::{Ended, Owner, Steps, Terms, run_client, run_server},
    proto::p2sn::{KeyPolicy, Limits, PrivateKey, PublicKey, STREAM_PROTOCOL},
    state::io::{NetInput, SessionId},
};

/// The stream protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(STREAM_PROTOCOL);

/// What the state says to a session.
#[derive(Debug)]
pub(super) enum Word {
    /// Go on with the peer's key, or end.
    Verdict(bool),
    /// Answer the peer's message.
    Reply(Vec<u8>),
}

/// Words that wait for one session. The state says one thing for each it is told.
pub(super) const WORDS: usize = 4;

/// Threads for the RSA of all sessions with members: enough for the cores of a Pi. Members are
/// known, and each has one exchange and few messages under way.
pub(super) const STEPS_AT_ONCE: usize = 4;

/// One session to run.
pub(super) struct Task {
    pub(super) id: SessionId,
    pub(super) peer: PeerId,
    pub(super) own: PrivateKey,
    pub(super) message: Option<Vec<u8>>,
    pub(super) steps: Steps,
    pub(super) inputs: mpsc::Sender<NetInput>,
    pub(super) words: mpsc::Receiver<Word>,
}

impl Task {
    /// Runs a session on a stream, or tells why there is no stream.
    pub(super) async fn run(mut self, stream: Result<Stream, String>) {
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
