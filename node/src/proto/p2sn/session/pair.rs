//! Two sessions joined by a wire, for tests.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;

use super::{END, KEYCHECK, Output, Role, Session};
use crate::proto::p2sn::{
    Limits, PrivateKey,
    samples::{ANY_SIZE, rng},
};

pub(super) const NOW: Duration = Duration::ZERO;

/// A client and a server whose wire cuts everything into pieces of `piece` bytes.
pub(super) struct Pair {
    pub(super) client: Session,
    pub(super) server: Session,
    pub(super) rng: ChaCha20Rng,
    /// What came out of both, except for writes.
    pub(super) log: Vec<(Role, Output)>,
    piece: usize,
}

impl Pair {
    pub(super) fn new(client_key: &PrivateKey, server_key: &PrivateKey, piece: usize) -> Self {
        Self {
            client: client(client_key),
            server: server(server_key),
            rng: rng(),
            log: Vec::new(),
            piece,
        }
    }

    /// A pair that has exchanged its keys.
    pub(super) fn established(client_key: &PrivateKey, server_key: &PrivateKey) -> Self {
        let mut pair = Self::new(client_key, server_key, usize::MAX);
        pair.run();
        assert_eq!(pair.log.last(), Some(&(Role::Server, Output::Established)));
        pair.log.clear();
        pair
    }

    /// Carries bytes to and fro, and accepts keys, until both sides rest.
    pub(super) fn run(&mut self) {
        loop {
            let (role, output) = if let Some(output) = self.client.poll_output() {
                (Role::Client, output)
            } else if let Some(output) = self.server.poll_output() {
                (Role::Server, output)
            } else {
                return;
            };
            let (own, other) = match role {
                Role::Client => (&mut self.client, &mut self.server),
                Role::Server => (&mut self.server, &mut self.client),
            };
            match &output {
                Output::Write(bytes) => {
                    for piece in bytes.chunks(self.piece) {
                        other.handle_input(piece, &mut self.rng, NOW);
                    }
                    continue;
                }
                Output::PeerKey(_) => own.accept_key(&mut self.rng, NOW),
                Output::Established | Output::Message(_) | Output::Reply(_) | Output::Closed(_) => {
                }
            }
            self.log.push((role, output));
        }
    }
}

pub(super) fn client(own: &PrivateKey) -> Session {
    Session::client(own.clone(), ANY_SIZE, Limits::default(), NOW)
}

pub(super) fn server(own: &PrivateKey) -> Session {
    Session::server(own.clone(), ANY_SIZE, Limits::default(), NOW)
}

/// Gives a session bytes and returns what comes out.
pub(super) fn feed(session: &mut Session, bytes: &[u8]) -> Vec<Output> {
    session.handle_input(bytes, &mut rng(), NOW);
    outputs(session)
}

pub(super) fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

/// The bytes of a frame.
pub(super) fn frame(content: impl AsRef<[u8]>) -> Vec<u8> {
    [content.as_ref(), &[super::END]].concat()
}

/// The write of a frame.
pub(super) fn write(content: impl AsRef<[u8]>) -> Output {
    Output::Write(frame(content))
}

/// A block for the holder of a key.
pub(super) fn sealed(to: &PrivateKey, message: &[u8]) -> String {
    to.public().seal(message, &mut rng()).expect("short enough")
}

/// A server of this key that waits for the client's key check.
pub(super) fn checking(own: &PrivateKey) -> Session {
    let mut session = server(own);
    feed(&mut session, b"P2SN:PUBKEY\x04");
    session
}

/// A server of this key that waits for the client's key.
pub(super) fn asking(own: &PrivateKey) -> Session {
    let mut session = checking(own);
    feed(&mut session, &frame(sealed(own, KEYCHECK)));
    session
}

/// Takes the only write among the outputs apart: it is one block for this key.
pub(super) fn opened(output: &Output, own: &PrivateKey) -> Vec<u8> {
    let Output::Write(bytes) = output else {
        panic!("expected a write, got {output:?}")
    };
    let block = bytes.strip_suffix(&[END]).expect("an end");
    own.open_checked(block, &mut rng())
        .expect("a block")
        .expect("right padding")
}
