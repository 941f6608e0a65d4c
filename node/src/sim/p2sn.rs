//! P2SN sessions as far as the state sees them: a stream, two keys, two verdicts, an end.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{World, network::Parcel};
use crate::{
    proto::p2sn::Fingerprint,
    state::io::{NetInput, SessionId},
};

/// How long a session lasts at most.
const SESSION_TIME: Duration = Duration::from_secs(1);

/// A session between two machines.
pub(super) struct Session {
    /// Who opened it, who serves it, and how each of them names it.
    ends: [(usize, SessionId); 2],
    accepted: usize,
}

/// Returns the fingerprint of a machine's RSA key.
pub(super) const fn fingerprint(seed: u8) -> Fingerprint {
    Fingerprint([seed; 32])
}

impl World {
    /// A machine's RSA key takes a while to make.
    pub(super) fn make_rsa_key(&mut self, at: usize) {
        let time = Duration::from_millis(self.chance(3_000));
        let ready = NetInput::P2snReady(fingerprint(self.machines[at].seed));
        self.later(at, time, ready);
    }

    pub(super) fn open_session(&mut self, at: usize, session: SessionId, peer: &PeerId) {
        let other = self.other_end(at, peer);
        self.close_session(at, session, other, SESSION_TIME);
        if let Some(connection) = self.way(at, other) {
            let latency = self.latency();
            self.send(connection, latency, Parcel::Stream(session));
        }
    }

    fn close_session(&mut self, at: usize, session: SessionId, with: usize, after: Duration) {
        let closed = NetInput::P2snClosed {
            session,
            peer: self.peer(with),
            reason: "over".to_owned(),
        };
        self.later(at, after, closed);
    }

    /// A stream is through the gate: both sides show their keys.
    pub(super) fn serve_session(&mut self, at: usize, from: usize, session: SessionId) {
        let theirs = SessionId::Theirs(self.next);
        let ends = [(from, session), (at, theirs)];
        self.close_session(at, theirs, from, SESSION_TIME);
        self.sessions.push(Session { ends, accepted: 0 });
        self.count("rsa_keys_shown", 2);
        for ((at, session), (with, _)) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let latency = self.latency();
            let shown = NetInput::P2snKey {
                session,
                peer: self.peer(with),
                fingerprint: fingerprint(self.machines[with].seed),
                bits: 2048,
            };
            self.later(at, latency, shown);
        }
    }

    pub(super) fn key_judged(&mut self, at: usize, session: SessionId, accept: bool) {
        assert!(accept, "no key ever changes");
        let is_this = |s: &&mut Session| s.ends.contains(&(at, session));
        let Some(session) = self.sessions.iter_mut().find(is_this) else {
            return;
        };
        session.accepted += 1;
        if session.accepted < session.ends.len() {
            return;
        }
        let [a, b] = session.ends;
        for ((at, session), (with, _)) in [(a, b), (b, a)] {
            let peer = self.peer(with);
            let latency = self.latency();
            self.later(at, latency, NetInput::P2snEstablished { session, peer });
        }
    }
}
