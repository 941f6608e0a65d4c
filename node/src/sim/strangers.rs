//! Those who must not get in: they dial members and answer their dials with papers that are not
//! good, and then ask for what only members get.

use std::time::Duration;

use libp2p_identity::{Keypair, PeerId};
use rand_core::Rng;

use super::{
    Happening, VOUCHED, World,
    gossip::Gossip,
    machine::{mesh_key, messaging_key},
    model::Tale,
    network::Parcel,
};
use crate::{
    proto::{
        iid::{
            Date, Iid, Index, Value,
            native::{Entry, Frame, Head, Sequence, Ttl},
        },
        mesh::{
            certificate::{Certificate, MeshKey, Terms},
            direct,
            member::{Join, Request, Response},
            signed::{Label, Signed},
            sync,
            ticket::{Secret, Ticket},
            vouched::Vouched,
        },
        syft,
    },
    state::io::{Connection, InboundId, OutboundId, Protocol, SessionId, Verdict},
};

/// The seed of the first stranger; those of machines are small.
const FIRST_SEED: u8 = 20;

/// When the certificates of strangers were issued, Unix ms.
const ISSUED_MS: u64 = 1_750_000_000_000;

/// What a stranger shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Papers {
    /// No certificate.
    None,
    /// The certificate of another mesh.
    Foreign,
    /// One that names this mesh, and that the mesh key did not sign.
    Forged,
    /// One that the mesh key signed, with a byte changed.
    Tampered,
    /// Its own one, which is over. Members know it, and dial it.
    Expired,
    /// Another member's.
    Stolen,
    /// Its own one from before it was removed.
    Revoked,
    /// A ticket that somebody else has used.
    UsedTicket,
}

pub(super) const PAPERS: [Papers; 8] = [
    Papers::None,
    Papers::Foreign,
    Papers::Forged,
    Papers::Tampered,
    Papers::Expired,
    Papers::Stolen,
    Papers::Revoked,
    Papers::UsedTicket,
];

/// Somebody who is no member.
pub(super) struct Stranger {
    pub(super) peer: PeerId,
    papers: Papers,
    /// The encoded certificate that it shows.
    shown: Vec<u8>,
}

fn seed(papers: Papers) -> u8 {
    FIRST_SEED + papers as u8
}

fn peer(papers: Papers) -> PeerId {
    let keypair = Keypair::ed25519_from_bytes([seed(papers); 32]).expect("32 bytes");
    keypair.public().to_peer_id()
}

fn terms(papers: Papers) -> Terms {
    let seed = seed(papers);
    let years = if papers == Papers::Expired { 1 } else { 10 };
    Terms {
        peer: peer(papers),
        messaging_key: *messaging_key(seed).public(),
        name: format!("stranger-{seed}").parse().expect("a name"),
        index: index(papers),
        vouched: Vouched::NONE,
        issued_ms: ISSUED_MS,
        expires_ms: ISSUED_MS + years * 365 * 24 * 60 * 60 * 1000,
    }
}

fn index(papers: Papers) -> Index {
    Index(i32::from(seed(papers)) + 70)
}

/// Returns the certificate of the stranger that members know, and that is over.
pub(super) fn expired() -> Certificate {
    mesh_key(1).issue(terms(Papers::Expired))
}

/// Returns what ends the certificate of the stranger that was removed.
pub(super) fn revocation() -> Vec<u8> {
    let peer = peer(Papers::Revoked);
    mesh_key(1).revoke(peer, ISSUED_MS).encode()
}

impl Stranger {
    pub(super) fn new(papers: Papers, victim: &[u8]) -> Self {
        let foreign = MeshKey::from_seed(&[99; 32]);
        let good = mesh_key(1).issue(terms(papers));
        let shown = match papers {
            Papers::None | Papers::UsedTicket => Vec::new(),
            Papers::Foreign => foreign.issue(terms(papers)).encode(),
            Papers::Forged => {
                let key = ed25519_dalek::SigningKey::from_bytes(&foreign.to_seed());
                let payload = good.signed().payload.clone();
                prost::Message::encode_to_vec(&Signed::sign(Label::CERTIFICATE, payload, &key))
            }
            Papers::Tampered => {
                let mut signed = good.signed().clone();
                let name = b"stranger";
                let at = signed.payload.windows(8).position(|w| w == name);
                signed.payload[at.expect("its name")] = b't';
                prost::Message::encode_to_vec(&signed)
            }
            Papers::Expired | Papers::Revoked => good.encode(),
            Papers::Stolen => victim.to_vec(),
        };
        Self {
            peer: peer(papers),
            papers,
            shown,
        }
    }
}

impl World {
    pub(super) fn papers(&self, place: usize) -> Papers {
        self.strangers[place - self.machines.len()].papers
    }

    /// A stranger dials a machine, shows what it has, and goes on as if it had been let in.
    pub(super) fn visit(&mut self, stranger: usize) {
        let at = usize::try_from(self.chance(self.machines.len() as u64)).expect("small");
        let place = self.machines.len() + stranger;
        let to = self.machines[at].peer;
        let Some(connection) = self.dialled(place, &to, None) else {
            return;
        };
        for bytes in self.first_words(place) {
            self.count(counter(self.papers(place)), 1);
            self.ask_member(place, connection, OutboundId(0), bytes);
        }
        let after = Duration::from_millis(200 + self.chance(200));
        self.at(after, Happening::Intrusion(place, connection));
    }

    /// What a stranger says instead of a good `Hello`.
    fn first_words(&mut self, place: usize) -> Vec<Vec<u8>> {
        let hello = Request::Hello(self.strangers[place - self.machines.len()].shown.clone());
        let first = match self.papers(place) {
            Papers::UsedTicket => {
                let text = self.tickets.first().expect("the first joiner's");
                let secret = Ticket::from_text(text).expect("legal").secret;
                join(
                    place,
                    &self.strangers[place - self.machines.len()].peer,
                    secret,
                )
            }
            Papers::None => {
                let secret = Secret::new(
                    self.rng
                        .next_u64()
                        .to_le_bytes()
                        .repeat(2)
                        .try_into()
                        .expect("16"),
                );
                let peer = &self.strangers[place - self.machines.len()].peer;
                return vec![hello.encode(), join(place, peer, secret).encode()];
            }
            _ => hello,
        };
        vec![first.encode()]
    }

    pub(super) fn intrude_as_member(&mut self, place: usize, connection: Connection) {
        let own = self.peer(place);
        self.ask_member(place, connection, OutboundId(1), Request::Ready.encode());
        let bytes = direct::Request { messages: vec![] }.encode();
        for (protocol, bytes) in [
            (Protocol::Direct, bytes),
            (Protocol::Sync, sync::Request::default().encode()),
        ] {
            let (id, number) = (InboundId(u64::MAX), 0);
            self.intrude(
                connection,
                Parcel::Request {
                    protocol,
                    id,
                    bytes,
                    number,
                },
            );
        }
        self.intrude(connection, Parcel::Stream(SessionId::Ours(0)));
        let lie = self.frame(index(self.papers(place)), Entry::Native);
        self.intrude(connection, Parcel::Gossip(lie_of(own, lie, "not_a_member")));
    }

    /// A stranger is asked on `/pimesh/member/1`, because a machine dialled it.
    pub(super) fn stranger_hears(&mut self, place: usize, connection: Connection, parcel: Parcel) {
        let Parcel::Member { id, bytes } = parcel else {
            return;
        };
        let answer = match Request::decode(&bytes) {
            Ok(Request::Hello(_)) => {
                // The one that is dialled tries everybody's papers.
                let which = usize::try_from(self.chance(PAPERS.len() as u64)).expect("small");
                self.count("strangers_that_were_dialled", 1);
                Response::Hello(self.strangers[which].shown.clone())
            }
            _ => Response::Ok,
        };
        self.respond(place, id, answer.encode());
        self.at(
            Duration::from_millis(200),
            Happening::Intrusion(place, connection),
        );
    }

    /// A member says what it may not say, or passes on what a stranger said.
    pub(super) fn lie(&mut self) {
        let count = self.machines.len() as u64;
        let at = usize::try_from(self.chance(count)).expect("small");
        let from = (at + 1) % self.machines.len();
        let member = self.machines[from].peer;
        let of_another = Index(i32::try_from(at).expect("small") + 1);
        // The first has a range; the others have nothing against them but who owns the index.
        let not_vouched = if from == 0 {
            Index(*VOUCHED.end() + 100)
        } else {
            of_another
        };
        let stranger = usize::try_from(self.chance(PAPERS.len() as u64)).expect("small");
        let (source, index, entry, verdict, why) = match self.chance(3) {
            0 => (member, of_another, Entry::Native, Verdict::Ignore, "index"),
            1 => (
                member,
                not_vouched,
                Entry::Bridged,
                Verdict::Ignore,
                "index",
            ),
            _ => {
                let place = self.machines.len() + stranger;
                let index = index(self.papers(place));
                let source = self.peer(place);
                (
                    source,
                    index,
                    Entry::Native,
                    Verdict::Ignore,
                    "not_a_member",
                )
            }
        };
        let bytes = self.frame(index, entry);
        if self.machines[at].state.is_some() {
            let mut gossip = lie_of(source, bytes, why);
            gossip.tale = Tale::Lie(verdict, why);
            self.hear(at, from, gossip);
        }
    }

    fn frame(&self, index: Index, entry: Entry) -> Vec<u8> {
        let sent_ms = self.true_us() / 1000;
        let head = Head {
            entry,
            held: false,
            ttl: Ttl::DEFAULT,
            sequence: Sequence(self.true_us() + 10_000_000_000),
            sent_ms,
        };
        let (value, date) = (Value(-1), Date(sent_ms));
        let iid = Iid { index, value, date };
        Frame::new(head, vec![iid]).expect("legal").encode()
    }
}

fn lie_of(source: PeerId, bytes: Vec<u8>, why: &'static str) -> Gossip {
    Gossip {
        source,
        bytes,
        tale: Tale::Lie(Verdict::Ignore, why),
        again: false,
        straight: None,
    }
}

fn join(place: usize, peer: &PeerId, secret: Secret) -> Request {
    let key = syft::SigningKey::from_seed(&[u8::try_from(place).expect("small"); 32]);
    let proof = key.sign(&Join::proof_payload(peer, &secret));
    Request::Join(Box::new(Join {
        secret,
        name: "guest".parse().expect("a name"),
        messaging_key: *key.public(),
        proof,
        left: None,
    }))
}

fn counter(papers: Papers) -> &'static str {
    match papers {
        Papers::None => "strangers_with_no_certificate",
        Papers::Foreign => "strangers_of_a_foreign_mesh",
        Papers::Forged => "strangers_with_a_forged_certificate",
        Papers::Tampered => "strangers_with_a_tampered_certificate",
        Papers::Expired => "strangers_with_an_expired_certificate",
        Papers::Stolen => "strangers_with_a_stolen_certificate",
        Papers::Revoked => "strangers_that_were_removed",
        Papers::UsedTicket => "strangers_with_a_used_ticket",
    }
}
