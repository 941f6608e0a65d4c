//! Server and client over real sockets, with a task in the place of a node's loop.

mod events;
mod history;
mod redaction;
mod silence;
mod sockets;
mod streams;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
};

use libp2p_identity::{Keypair, PeerId};
use tokio::sync::mpsc;

use super::{
    Control,
    api::{NewIntegers, NewInvite},
    client::{Client, ClientError},
    server,
};
use crate::{
    events::Events,
    gateway::Gateways,
    handle::{Asked, NodeHandle, Surroundings},
    identity::KeyRing,
    proto::{
        iid::{Date, Iid, Index, Value},
        mesh::MessageId,
    },
    routes::BODY_BYTES_MAX,
    state::{
        Wanted,
        clients::{Answer, Question},
        io::{At, Command, Encoding, Event, Failure, FailureKind, Gateway, Reply},
        report,
    },
    store::{Completion, Store},
};

/// A folder, the ends of a node's loop, and a client.
struct Fixture {
    folder: tempfile::TempDir,
    handle: NodeHandle,
    commands: Option<mpsc::Receiver<Asked>>,
    events: Events,
    client: Client,
    store: Store,
    completions: std::sync::mpsc::Receiver<Completion>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let events = Events::new(libp2p_identity::PeerId::random());
        let (stored, completions) = std::sync::mpsc::channel();
        let done = move |completion| drop(stored.send(completion));
        let (store, _) = Store::open(folder.path(), done).expect("a store");
        let (handle, commands) = NodeHandle::new(Surroundings {
            home: "/home".into(),
            listeners: Arc::default(),
            events: events.clone(),
            keys: Arc::new(KeyRing::new("/home".into(), None)),
            history: Arc::new(store.history().expect("a history")),
            letters: Arc::new(|_, _| Err("no letters here".to_owned())),
            room: crate::net::live::Room::default(),
            clock: crate::clock::Clock::start(),
            rsa: tokio::sync::watch::channel(None).1,
        });
        let client = Client::new(folder.path().join("control.sock"));
        Self {
            folder,
            handle,
            commands: Some(commands),
            events,
            client,
            store,
            completions,
        }
    }

    /// Serves, and answers commands with this function.
    fn serving(answer: impl FnMut(Command) -> Result<Reply, Failure> + Send + 'static) -> Self {
        let mut fixture = Self::new();
        let mut commands = fixture.commands.take().expect("still there");
        let mut answer = answer;
        tokio::spawn(async move {
            while let Some((command, reply)) = commands.recv().await {
                drop(reply.send(answer(command)));
            }
        });
        let served = server::serve_unix(&fixture.socket(), fixture.control());
        tokio::spawn(served.expect("serves"));
        fixture
    }

    fn control(&self) -> Control {
        let gateways = Gateways::new(self.handle.clone(), self.events.clone());
        Control::new(self.handle.clone(), Arc::new(gateways))
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Sends bytes, and returns what comes back until the other side hangs up.
    async fn exchange(&self, request: String) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("connects");
        let talk = move || {
            stream.write_all(request.as_bytes()).expect("sends");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("reads");
            answer
        };
        tokio::task::spawn_blocking(talk).await.expect("ends")
    }
}

fn peer() -> PeerId {
    Keypair::ed25519_from_bytes([7; 32])
        .expect("32 bytes")
        .public()
        .to_peer_id()
}

fn integers(values: impl IntoIterator<Item = i32>) -> Event {
    let iid = |value| Iid {
        index: Index(3),
        value: Value(value),
        date: Date(5),
    };
    Event::Integers(report::Integers {
        source: peer(),
        name: "pi-1".to_owned(),
        sent_ms: 5,
        received_us: 6000,
        clock_offset_us: None,
        held: false,
        bridged: false,
        client: None,
        last_known: false,
        iids: values.into_iter().map(iid).collect(),
    })
}

fn removed(name: &str) -> Event {
    Event::MemberRemoved {
        peer: peer(),
        name: name.to_owned(),
    }
}

fn published(values: &[Value]) -> Reply {
    Reply::Published(report::Published {
        index: Index(3),
        count: values.len(),
        connected: 1,
        date: Date(5),
    })
}

fn failure(result: Result<impl std::fmt::Debug, ClientError>) -> Failure {
    match result {
        Err(ClientError::Failure(failure)) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_reaches_the_node_as_it_was_meant_and_its_answer_comes_back() {
    let fixture = Fixture::serving(|command| {
        let Command::Integers { index, values, at } = command else {
            panic!("not integers")
        };
        assert_eq!(index, Some(Index(-3)));
        assert_eq!(values, [Value(i32::MIN), Value(7)]);
        assert_eq!(at, Some(At::InMs(200)));
        Ok(published(&values))
    });

    let integers = NewIntegers {
        index: Some(Index(-3)),
        values: vec![Value(i32::MIN), Value(7)],
        at: Some(At::InMs(200)),
    };
    let answer = fixture.client.publish(&integers).await;

    assert_eq!(answer.expect("goes well").count, 2);
}

#[tokio::test]
async fn each_kind_of_failure_has_its_status_and_comes_back_whole() {
    for (kind, status) in [
        (FailureKind::BadRequest, "400"),
        (FailureKind::NotFound, "404"),
        (FailureKind::Conflict, "409"),
        (FailureKind::Unavailable, "503"),
        (FailureKind::Fault, "500"),
        (FailureKind::TimedOut, "504"),
        (FailureKind::Refused, "403"),
        (FailureKind::OverBudget, "429"),
    ] {
        let meant = Failure {
            kind,
            message: "it is so".to_owned(),
            hint: Some("try that".to_owned()),
            over_budget: None,
        };
        let answer = meant.clone();
        let fixture = Fixture::serving(move |_| Err(answer.clone()));

        assert_eq!(failure(fixture.client.outbox().await), meant);
        let request = "GET /v1/outbox HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = fixture.exchange(request.to_owned()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_name_with_odd_characters_arrives_as_it_is() {
    let fixture = Fixture::serving(|command| {
        let Command::Remove { peer } = command else {
            panic!("not `remove`")
        };
        Err(Failure::not_found(peer))
    });

    let failure = failure(fixture.client.remove("a/b ü?%41").await);

    assert_eq!(failure.message, "a/b ü?%41");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let fixture = Fixture::serving(|_| panic!("nothing reaches the node"));
    let ask = |line: &str, body: &str| {
        fixture.exchange(format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };

    for (line, body, status, said) in [
        ("GET /v2/status", "", "404", "there is nothing at this path"),
        ("DELETE /v1/status", "", "400", "does not take that method"),
        ("POST /v1/join", "{}", "400", "missing field `ticket`"),
        (
            "POST /v1/join",
            "[",
            "400",
            "the body is not what is expected",
        ),
        (
            "POST /v1/invites",
            r#"{"nmae":1}"#,
            "400",
            "unknown field `nmae`",
        ),
        ("GET /v1/messages?way=up", "", "400", "unknown variant `up`"),
        (
            "GET /v1/events?kinds=sent,peerup",
            "",
            "400",
            "of the kind `peerup`",
        ),
    ] {
        let answer = ask(line, body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {answer}"
        );
        assert!(answer.contains(said), "{line}: {answer}");
        let (_, json) = answer.split_once("\r\n\r\n").expect("has a body");
        serde_json::from_str::<Failure>(json).expect("is a failure");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let fixture = Fixture::serving(|_| panic!("nothing reaches the node"));
    let length = BODY_BYTES_MAX + 1;

    let answer = fixture.exchange(format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    ));

    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("a body has at most 8388608 bytes"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_ticket_is_asked_for_in_seconds_and_counters_come_as_text() {
    let fixture = Fixture::serving(|command| {
        let Command::Invite(Wanted { lifetime, .. }) = command else {
            panic!("not `invite`")
        };
        assert_eq!(lifetime, Some(std::time::Duration::from_secs(90)));
        Err(Failure::conflict("this node holds no mesh key"))
    });

    let invite = NewInvite {
        lifetime_s: Some(90),
        ..NewInvite::default()
    };
    let failure = failure(fixture.client.invite(&invite).await);

    assert_eq!(failure.kind, FailureKind::Conflict);
    let metrics = fixture.client.metrics().await.expect("answers");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn a_message_cannot_be_asked_to_go_as_only_gateways_let_it_go() {
    let fixture = Fixture::serving(|_| panic!("asked for what cannot be asked"));
    let body = r#"{"to":"all","text":"hello","via":"syft"}"#;

    let answer = fixture
        .exchange(format!(
            "POST /v1/messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("syft"), "{answer}");
}

#[tokio::test]
async fn each_gateway_serves_its_own_paths_and_errors_are_as_everywhere() {
    let fixture = Fixture::serving(|command| match command {
        Command::P2sn(Question::Keys) => Ok(Reply::P2sn(Answer::Keys(Vec::new()))),
        _ => Err(Failure::not_found("`a/b` is nobody")),
    });
    let asked = |gateway| fixture.client.gateway(gateway);

    let none: Vec<report::P2snKey> = asked(Gateway::P2sn).get(&["keys"]).await.expect("keys");
    assert!(none.is_empty());
    for gateway in [Gateway::Iid, Gateway::Syft] {
        let none: Vec<serde_json::Value> = asked(gateway).get(&["servers"]).await.expect("servers");
        assert!(none.is_empty());
    }
    let refused = [
        // A word with a slash is one part of the path.
        asked(Gateway::Syft).delete(&["users", "a/b"]).await,
        asked(Gateway::Iid).get(&["nothing"]).await,
        asked(Gateway::P2sn).delete(&["keys"]).await,
    ];
    let failures = refused.map(|refused: Result<(), _>| match refused {
        Err(ClientError::Failure(failure)) => failure.message,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        failures,
        [
            "`a/b` is nobody",
            "there is nothing at this path",
            "this path does not take that method"
        ]
    );
}
