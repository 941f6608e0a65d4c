//! Every command against a disk that fails at each point in turn: what is answered "not stored" has
//! changed nothing, and in memory is what a start finds on the disk.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::disk::Disk;
use crate::{
    proto::{
        iid::Index,
        mesh::{
            NodeName,
            certificate::{Certificate, MeshKey, Terms},
            peer_of_seed,
            vouched::Vouched,
        },
        p2sn::Fingerprint,
        syft::{
            Descriptions, SigningKey, UserId,
            http::{NewUser, key_name},
            letter,
        },
    },
    state::{
        Settings, Setup, State, Wanted, clients,
        io::{
            ClientName, Command, Failure, Gateway, GatewayRecord, Input, Keep, KeyFile, NetInput,
            Now, Output, Recipients, RecordChange, RecordKey, RecordValue, Reply, RequestId,
            Selection, SendVia, SessionId, Ticket,
        },
        post::{Ask, ToServer, UserRecord},
    },
};

const NOW: Now = Now {
    mono: Duration::from_secs(10),
    unix_us: 1_800_000_000_000_000,
};

/// The command whose answer counts.
const ASKED: RequestId = RequestId(1);

/// Questions about what the node knows.
const LOOK: RequestId = RequestId(2);

fn mesh_key() -> MeshKey {
    MeshKey::from_seed(&[9; 32])
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn certificate(seed: u8) -> Certificate {
    mesh_key().issue(Terms {
        peer: peer_of_seed(seed),
        messaging_key: *signing_key(seed).public(),
        name: format!("pi-{seed}").parse().expect("a name"),
        index: Index(i32::from(seed)),
        vouched: Vouched::NONE,
        issued_ms: 1_790_000_000_000 + u64::from(seed),
        expires_ms: 1_900_000_000_000,
    })
}

fn id(name: &str) -> UserId {
    name.parse().expect("a user id")
}

fn server() -> NodeName {
    "hub".parse().expect("a name")
}

fn record(name: &str, value: &str) -> GatewayRecord {
    GatewayRecord {
        key: RecordKey::new(name).expect("short"),
        value: RecordValue::new(value).expect("short"),
        ends_ms: None,
    }
}

fn user(name: &str, node: PeerId, stays: bool) -> UserRecord {
    UserRecord {
        id: id(name),
        place: node.into(),
        title: name.to_owned(),
        key: *signing_key(name.as_bytes()[0]).public(),
        shown: None,
        registered_ms: 1_790_000_000_000,
        descriptions: Descriptions::default(),
        taken: 0,
        written_ms: 0,
        stays,
        holds_name: true,
    }
}

/// One node and its disk, which may fail to write once.
struct Node {
    state: State,
    disk: Disk,
    key: Option<MeshKey>,
    staged: Option<MeshKey>,
    writes: usize,
    fails_at: Option<usize>,
    answer: Option<Result<Reply, Failure>>,
    looked: Option<Reply>,
}

impl Node {
    fn start(disk: Disk, key: Option<MeshKey>) -> Self {
        let setup = Setup {
            peer: peer_of_seed(1),
            messaging_key: signing_key(1),
            mesh_key: key.clone(),
            mesh_key_exported: false,
            name: "pi-1".parse().expect("a name"),
            seed: [7; 32],
            settings: Settings {
                servers: vec![server()],
                ..Settings::default()
            },
        };
        let state = State::new(setup, disk.load(), NOW).expect("the disk is good");
        let mut node = Self {
            state,
            disk,
            key,
            staged: None,
            writes: 0,
            fails_at: None,
            answer: None,
            looked: None,
        };
        node.settle();
        node.state.handle_timeout(NOW);
        node.settle();
        node
    }

    /// A node with members, users, keys, tickets and messages, as far as a disk can tell.
    fn in_use() -> Self {
        let mut disk = Disk::default();
        disk.loaded.certificate = Some(certificate(1).encode());
        disk.loaded.members = vec![certificate(2).encode()];
        disk.loaded.date_ms = Some(NOW.unix_ms());
        disk.loaded.pins = vec![(peer_of_seed(2), [1; 32], 2048)];
        disk.loaded.users = vec![
            user("amy", peer_of_seed(1), true),
            user("zoe", peer_of_seed(1), false),
            UserRecord {
                shown: Some(*signing_key(b'x').public()),
                ..user("bob", peer_of_seed(2), true)
            },
            UserRecord {
                holds_name: false,
                ..user("dora", peer_of_seed(2), true)
            },
        ];
        disk.loaded.records = vec![
            (Gateway::Syft, record("old", "one")),
            (Gateway::Iid, record("old", "two")),
        ];
        let mut node = Self::start(disk, Some(mesh_key()));
        node.must(Command::Send {
            to: Recipients::Named(vec!["pi-2".to_owned()]),
            text: "waits".to_owned(),
            via: SendVia::Direct,
            expiry: None,
        });
        node.must(invite("spare"));
        node.must(pin("carol", b'c'));
        for (address, key) in [("10.0.0.7", 1), ("host:5050", 2)] {
            node.must(judge(address, key));
        }
        node.must(judge("host:5050", 3));
        let shown = NetInput::P2snKey {
            session: SessionId::Theirs(1),
            peer: peer_of_seed(2),
            fingerprint: Fingerprint([2; 32]),
            bits: 2048,
        };
        node.feed(Input::Net(shown));
        node.answer = None;
        node
    }

    /// Carries a command out that has to go well.
    fn must(&mut self, command: Command) {
        self.feed(Input::Control(ASKED, command));
        let answer = self.answer.take();
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    }

    fn feed(&mut self, input: Input) {
        self.state.handle(input, NOW);
        self.settle();
    }

    /// Does what the state wants, until it wants nothing more.
    fn settle(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Store(ticket, records) => {
                    let is_written = self.is_written();
                    for record in records.into_iter().filter(|_| is_written) {
                        self.disk.write(record);
                    }
                    self.completed(ticket, is_written);
                }
                Output::KeyFile(ticket, file) => {
                    let is_written = self.is_written();
                    match file {
                        _ if !is_written => {}
                        KeyFile::Stage(key) => self.staged = Some(key),
                        KeyFile::Keep(key) => self.key = Some(key),
                        KeyFile::Adopt => self.key = self.staged.take(),
                    }
                    self.completed(ticket, is_written);
                }
                Output::Reply(ASKED, answer) => self.answer = Some(answer),
                Output::Reply(LOOK, answer) => self.looked = Some(answer.expect("an answer")),
                _ => {}
            }
        }
    }

    /// Says whether the disk takes what is written next.
    fn is_written(&mut self) -> bool {
        let fails = self.fails_at == Some(self.writes);
        self.writes += 1;
        !fails
    }

    fn completed(&mut self, ticket: Ticket, is_written: bool) {
        let completion = if is_written {
            Input::Stored(ticket)
        } else {
            Input::StoreFailed(ticket, "no space".to_owned())
        };
        self.state.handle(completion, NOW);
    }

    /// Starts the node anew from what is on its disk. Which mesh key counts, the certificate says.
    fn restarted(&self) -> Self {
        let certificate = self.disk.loaded.certificate.as_ref().expect("a member");
        let mesh = Certificate::mesh_of(certificate).expect("legal");
        let keys = [self.key.clone(), self.staged.clone()];
        let mut good = keys.into_iter().flatten().filter(|key| key.mesh() == mesh);
        Self::start(self.disk.clone(), good.next())
    }

    fn look(&mut self, command: Command) -> Reply {
        self.feed(Input::Control(LOOK, command));
        self.looked.take().expect("an answer")
    }

    /// Says what the node knows that outlasts a restart.
    fn known(&mut self) -> Vec<String> {
        let mut known = Vec::new();
        for command in [
            Command::Status,
            Command::Peers,
            Command::Names,
            Command::Invites,
            Command::Outbox,
            Command::P2sn(clients::Question::Keys),
            Ask::Everybody.into(),
        ] {
            known.push(match self.look(command) {
                Reply::Status(mut status) => {
                    status.received = 0;
                    format!("{status:#?}")
                }
                Reply::Peers(mut peers) => {
                    for peer in &mut peers {
                        // A key that was refused is remembered until the next start.
                        peer.rsa_changed = None;
                        peer.since_ms = None;
                        peer.next_dial_ms = None;
                    }
                    format!("{peers:#?}")
                }
                Reply::P2sn(clients::Answer::Keys(mut keys)) => {
                    keys.retain(|key| !key.refused);
                    format!("{keys:#?}")
                }
                reply => format!("{reply:#?}"),
            });
        }
        for name in ["amy", "zoe", "new", "bob", "carol@hub"] {
            let found = self.look(Ask::Find { name: id(name) }.into());
            known.push(format!("{name}: {found:#?}"));
        }
        for gateway in Gateway::ALL {
            let all = Keep::List(RecordKey::new("").expect("short"));
            let kept = self.look(Command::Keep(gateway, all));
            known.push(format!("{gateway:?}: {kept:#?}"));
        }
        // These are asked last: whoever is admitted stays.
        for name in ["amy", "zoe"] {
            let key = key_name(signing_key(name.as_bytes()[0]).public());
            let name = id(name);
            self.state
                .handle(Input::Control(ASKED, Ask::Admit { name, key }.into()), NOW);
            // Nothing is written, so that the disk stays as it is.
            let mut writes = Vec::new();
            while let Some(output) = self.state.poll_output() {
                match output {
                    Output::Store(_, records) => writes.push(format!("{records:?}")),
                    Output::Reply(_, answer) => known.push(format!("{answer:?}")),
                    _ => {}
                }
            }
            known.push(format!("writes of an admission: {writes:?}"));
        }
        known
    }
}

fn invite(name: &str) -> Command {
    Command::Invite(Wanted {
        name: Some(name.to_owned()),
        ..Wanted::default()
    })
}

fn pin(user: &str, key: u8) -> Command {
    let (server, user, key) = (server(), id(user), *signing_key(key).public());
    Ask::Server(ToServer::Pin { server, user, key }).into()
}

fn judge(address: &str, key: u8) -> Command {
    Command::P2sn(clients::Question::Judge {
        address: address.parse().expect("an address"),
        fingerprint: Fingerprint([key; 32]),
        bits: 2048,
        strict: false,
    })
}

fn register(name: &str, stays: bool) -> Command {
    let user = NewUser {
        id: id(name),
        title: String::new(),
        key: *signing_key(name.as_bytes()[0]).public(),
    };
    Ask::Register { user, stays }.into()
}

fn trust(who: &str, name: bool) -> Command {
    let who = who.to_owned();
    Command::Trust { who, name }
}

fn send(to: &str) -> Command {
    Command::Send {
        to: Recipients::Named(vec![to.to_owned()]),
        text: "hello".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    }
}

fn client(address: &str, key: u8) -> ClientName {
    let name = format!("p2sn:{address}/{}", hex::encode([key; 8]));
    ClientName::new(name).expect("a name")
}

fn post(from: &str, to: &str) -> Command {
    let key = signing_key(from.as_bytes()[0]);
    let chance = crate::proto::syft::SealChance::from_rng(
        &mut <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([3; 32]),
    );
    let to_key = *signing_key(to.as_bytes()[0]).public();
    let content = crate::proto::syft::seal("hi", &to_key, &chance);
    let message = crate::proto::syft::Message::signed(from, to, content, NOW.unix_ms(), &key);
    let letter = letter::Letter::of(message).expect("legal");
    Ask::Post {
        user: id(from),
        letter: Box::new(letter),
    }
    .into()
}

/// Every command that changes something, by what it is called.
fn commands() -> Vec<(&'static str, Command)> {
    let peer = |name: &str| name.to_owned();
    vec![
        ("invite", invite("guest")),
        ("cancel", Command::CancelInvites { which: None }),
        (
            "rename a member",
            Command::Rename {
                peer: Some(peer("pi-2")),
                name: "kitchen".to_owned(),
            },
        ),
        (
            "rename itself",
            Command::Rename {
                peer: None,
                name: "hall".to_owned(),
            },
        ),
        (
            "vouch",
            Command::Vouch {
                peer: peer("pi-2"),
                vouched: Vouched::ALL,
            },
        ),
        (
            "give indices",
            Command::GiveIndices {
                peer: peer("pi-2"),
                further: "100..109".parse().expect("legal"),
            },
        ),
        ("remove", Command::Remove { peer: peer("pi-2") }),
        ("leave", Command::Leave { sure: true }),
        ("trust a member", trust("pi-2", false)),
        ("trust a user", trust("bob", false)),
        ("trust a name", trust("dora@pi-2", true)),
        ("send to a member", send("pi-2")),
        ("send to a user here", send("amy")),
        ("send to a user of a server", send("carol@hub")),
        ("send to a client", send(client("10.0.0.7", 1).as_str())),
        ("post to a user here", post("amy", "zoe")),
        ("post to a user elsewhere", post("amy", "bob")),
        ("register", register("new", false)),
        ("register one that stays", register("zoe", true)),
        ("forget a user", Ask::Forget { user: peer("amy") }.into()),
        (
            "forget a user of a server",
            Ask::Forget {
                user: peer("carol@hub"),
            }
            .into(),
        ),
        (
            "describe",
            Ask::Describe {
                name: id("amy"),
                descriptions: vec!["sings".to_owned()].try_into().expect("short"),
            }
            .into(),
        ),
        (
            "keep records of a gateway",
            Command::Keep(
                Gateway::Syft,
                Keep::Change(vec![
                    RecordChange::Put(record("new", "three")),
                    RecordChange::Delete(record("old", "").key),
                ]),
            ),
        ),
        ("pin", pin("dave", b'd')),
        (
            "receive from a server",
            Ask::Server(ToServer::Received {
                server: server(),
                from: id("carol"),
                text: "hello".to_owned(),
                fingerprint: letter::Fingerprint([1; 16]),
            })
            .into(),
        ),
        ("judge a new client", judge("10.0.0.8", 4)),
        ("judge another key", judge("10.0.0.7", 5)),
        (
            "bring",
            Command::P2sn(clients::Question::Deliver {
                client: client("10.0.0.7", 1),
                to: None,
                bytes: b"hello".to_vec(),
            }),
        ),
        (
            "trust a client",
            Command::P2sn(clients::Question::Trust {
                address: "host:5050".to_owned(),
            }),
        ),
        (
            "forget a client",
            Command::P2sn(clients::Question::Forget {
                address: "10.0.0.7".to_owned(),
            }),
        ),
        ("delete", Command::DeleteHistory(Selection::default())),
    ]
}

/// Waits until a goodbye is over.
fn wait(node: &mut Node) {
    node.state.handle_timeout(Now {
        mono: NOW.mono + Duration::from_secs(3),
        ..NOW
    });
    node.settle();
}

#[test]
fn whatever_the_disk_does_not_take_has_not_happened() {
    let names = commands().into_iter().map(|(name, _)| name);
    for (at, name) in names.enumerate() {
        let mut fails_at = 0;
        loop {
            let mut node = Node::in_use();
            let before = node.restarted().known();
            node.writes = 0;
            node.fails_at = Some(fails_at);
            let (_, command) = commands().swap_remove(at);

            node.feed(Input::Control(ASKED, command));
            if node.answer.is_none() {
                wait(&mut node);
            }

            let answer = node.answer.take().expect("an answer");
            let has_failed = node.writes > fails_at;
            node.fails_at = None;
            let found = node.restarted().known();
            let known = node.known();
            assert_same(
                &known,
                &found,
                &format!("{name}, write {fails_at}: memory, disk"),
            );
            match answer {
                Err(failure) => {
                    assert!(has_failed, "{name}: {failure:?}");
                    assert!(failure.message.contains("no space"), "{name}: {failure:?}");
                    assert_same(&known, &before, &format!("{name}: after, before"));
                }
                Ok(_) if !has_failed => break,
                Ok(_) => assert!(fails_at > 0, "{name}: done, and not on the disk"),
            }
            fails_at += 1;
        }
        assert!(fails_at > 0, "{name} writes nothing");
    }
}

fn assert_same(left: &[String], right: &[String], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right, "{what}");
    }
}
