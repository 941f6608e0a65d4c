//! Server and client over real sockets, with a task in the place of a node's loop.

use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
};

use futures::{Stream, StreamExt, stream};
use libp2p_identity::{Keypair, PeerId};
use tokio::sync::mpsc;

use super::{
    api::{
        BODY_BYTES_MAX, EventBody, HistoryQuery, HistoryRow, KINDS, Lost, NewIntegers, NewInvite,
        StreamQuery, Way, kind,
    },
    client::{Client, ClientError},
    handle::{Asked, NodeHandle, Surroundings},
    limit::CONNECTIONS_MAX,
    server,
};
use crate::{
    events::Events,
    gateway::Gateways,
    identity::KeyRing,
    proto::{
        iid::{Date, Iid, Index, Value},
        mesh::MessageId,
    },
    state::{
        VALUES_MAX,
        io::{At, Command, Event, Failure, FailureKind, Reply},
        report,
    },
};

/// A folder, the ends of a node's loop, and a client.
struct Fixture {
    folder: tempfile::TempDir,
    handle: NodeHandle,
    commands: Option<mpsc::Receiver<Asked>>,
    events: Events,
    client: Client,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let events = Events::new(libp2p_identity::PeerId::random());
        let (handle, commands) = NodeHandle::new(Surroundings {
            home: "/home".into(),
            listeners: Arc::default(),
            events: events.clone(),
            gateways: Arc::new(Gateways::new(events.clone())),
            keys: Arc::new(KeyRing::new("/home".into(), None)),
            history: Arc::new(|query| Ok(vec![row(&query)])),
            letters: Arc::new(|_, _| Ok(Vec::new())),
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
        let served = server::serve_unix(&fixture.socket(), fixture.handle.clone());
        tokio::spawn(served.expect("serves"));
        fixture
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

fn row(query: &HistoryQuery) -> HistoryRow {
    HistoryRow {
        row: query.after.unwrap_or(0) + 1,
        id: MessageId([1; 16]),
        name: String::new(),
        peer_id: peer().to_string(),
        created_ms: 1,
        at_ms: 2,
        via: "direct".to_owned(),
        outcome: String::new(),
        text: query.search.clone().unwrap_or_default(),
    }
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

/// Answers integers, and tells how many came with each command.
fn counting() -> (Fixture, mpsc::UnboundedReceiver<Vec<Value>>) {
    let (seen, batches) = mpsc::unbounded_channel();
    let fixture = Fixture::serving(move |command| {
        let Command::Integers { values, .. } = command else {
            panic!("not integers")
        };
        let reply = published(&values);
        seen.send(values).expect("listens");
        Ok(reply)
    });
    (fixture, batches)
}

fn pieces(text: &[&'static str]) -> impl Stream<Item = std::io::Result<axum::body::Bytes>> + use<> {
    let pieces: Vec<_> = text.iter().map(|t| Ok((*t).into())).collect();
    stream::iter(pieces)
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
    ] {
        let meant = Failure {
            kind,
            message: "it is so".to_owned(),
            hint: Some("try that".to_owned()),
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
async fn history_is_asked_with_every_field_and_rows_of_strangers_keep_their_peer_id() {
    let fixture = Fixture::serving(|_| Ok(Reply::Peers(Vec::new())));
    let query = HistoryQuery {
        way: Way::Sent,
        peer: Some(peer().to_string()),
        since_ms: Some(1),
        after: Some(41),
        search: Some("door & window".to_owned()),
        limit: Some(10),
    };

    let rows = fixture.client.history(&query).await.expect("reads");

    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].row, rows[0].text.as_str()), (42, "door & window"));
    assert_eq!(rows[0].name, peer().to_string());
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
async fn no_socket_a_dead_one_and_a_node_that_stops_are_told_apart() {
    let fixture = Fixture::new();
    let missing = fixture.client.status().await;
    assert!(
        matches!(missing, Err(ClientError::NoSocket(_))),
        "{missing:?}"
    );

    drop(UnixListener::bind(fixture.socket()).expect("binds"));
    let dead = fixture.client.status().await;
    assert!(matches!(dead, Err(ClientError::Dead(_))), "{dead:?}");

    let Fixture {
        handle,
        client,
        commands,
        folder,
        ..
    } = fixture;
    let socket = folder.path().join("control.sock");
    tokio::spawn(server::serve_unix(&socket, handle).expect("replaces the dead one"));
    drop(commands);
    let stopping = failure(client.status().await);
    assert_eq!(stopping.kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_replaces_no_file() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mode = std::fs::metadata(fixture.socket())
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let file = fixture.folder.path().join("letters");
    std::fs::write(&file, "dear").expect("writes");
    let refused = server::serve_unix(&file, fixture.handle).err();
    assert_eq!(
        refused.expect("refuses").to_string(),
        "there is a file at this path, and it is no socket"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "dear");
}

#[tokio::test]
async fn a_follower_gets_the_kinds_it_wants_from_the_moment_it_is_told() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut all = fixture.client.events().await.expect("follows");
    let mut some = fixture
        .client
        .events_of(&["member_removed", "sent"])
        .await
        .expect("follows");

    for event in [integers([1, 2]), removed("a"), Event::Revoked, removed("b")] {
        fixture.events.tell(event);
    }

    let mut names = Vec::new();
    for _ in 0..2 {
        let Some(Ok(EventBody::MemberRemoved { name, .. })) = some.next().await else {
            panic!("another kind")
        };
        names.push(name);
    }
    assert_eq!(names, ["a", "b"]);
    let Some(Ok(EventBody::Integers { integers })) = all.next().await else {
        panic!("another kind")
    };
    assert_eq!(integers.len(), 2);
}

#[test]
fn every_event_is_of_the_kind_that_its_json_says() {
    let refused = Event::Refused {
        peer: None,
        what: "certificate",
        why: "expired",
    };
    let counted = Event::Counted {
        what: "message_resent",
        times: 2,
    };
    for event in [
        integers([1]),
        removed("a"),
        Event::Revoked,
        refused,
        counted,
    ] {
        let json = serde_json::to_value(EventBody::from(&event)).expect("encodes");
        assert_eq!(json["event"], kind(&event));
        assert!(KINDS.contains(&kind(&event)));
    }
}

/// Sends more than a reader that does not read can be behind; returns the last value.
fn flood(fixture: &Fixture) -> i32 {
    let last = 20_000;
    for value in 0..=last {
        // A reader may already be gone.
        fixture.events.tell(integers([value]));
    }
    last
}

#[tokio::test]
async fn a_slow_follower_loses_the_oldest_events_and_is_told_how_many() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut events = fixture
        .client
        .events_of(&["integers"])
        .await
        .expect("follows");

    let last = flood(&fixture);

    let (mut lost, mut seen, mut newest) = (0, 0, -1);
    while newest < last {
        match events.next().await.expect("goes on").expect("is legal") {
            EventBody::Lagged { lost: more } => lost += more,
            EventBody::Integers { integers } => {
                let Value(value) = integers[0].value;
                assert!(value > newest, "out of order");
                newest = value;
                seen += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0);
    assert_eq!(lost + seen, 20_001, "each is seen or counted as lost");
}

#[tokio::test]
async fn a_slow_listener_reads_how_much_it_lost_between_the_integers() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut lines = fixture.client.integer_lines().await.expect("follows");

    let last = flood(&fixture);

    let (mut lost, mut seen, mut newest) = (0, 0, -1);
    while newest < last {
        let line = lines.next().await.expect("goes on").expect("is legal");
        if let Ok(Lost { lost: more }) = serde_json::from_str(&line) {
            lost += more;
            continue;
        }
        let integer: report::Integer = serde_json::from_str(&line).expect("an integer");
        newest = integer.value.0;
        seen += 1;
    }
    assert!(lost > 0);
    assert_eq!(lost + seen, 20_001, "each is seen or counted as lost");
}

#[tokio::test]
async fn integers_come_through_a_stream_in_order_however_it_is_cut() {
    let (fixture, mut batches) = counting();
    let query = StreamQuery::new(Some(Index(3)), Some(At::UnixMs(9)));

    let text = pieces(&["1 2\n-", "3\n4", "5 ", "", "6"]);
    let streamed = fixture.client.publish_stream(&query, text).await;

    assert_eq!(streamed.expect("goes well").count, 5);
    let mut all = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        all.extend(batch);
    }
    assert_eq!(all, [1, 2, -3, 45, 6].map(Value));
}

#[tokio::test]
async fn a_long_stream_goes_in_commands_that_the_node_takes() {
    let (fixture, mut batches) = counting();
    let text = "7\n".repeat(3 * VALUES_MAX + 1);
    let text = stream::iter([Ok(axum::body::Bytes::from(text))]);

    let streamed = fixture
        .client
        .publish_stream(&StreamQuery::default(), text)
        .await;

    assert_eq!(streamed.expect("goes well").count, 3 * VALUES_MAX + 1);
    let mut sizes = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        sizes.push(batch.len());
    }
    assert!(sizes.iter().all(|&size| size <= VALUES_MAX), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 3 * VALUES_MAX + 1);
}

#[tokio::test]
async fn integers_go_out_while_the_stream_is_still_open() {
    let (fixture, mut batches) = counting();
    let (sender, receiver) = mpsc::unbounded_channel();
    let text = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let client = fixture.client.clone();
    let streaming =
        tokio::spawn(async move { client.publish_stream(&StreamQuery::default(), text).await });

    sender.send(Ok("1\n".into())).expect("is read");
    assert_eq!(batches.recv().await, Some(vec![Value(1)]));
    sender.send(Ok("2\n".into())).expect("is read");
    assert_eq!(batches.recv().await, Some(vec![Value(2)]));

    drop(sender);
    let streamed = streaming.await.expect("ends").expect("goes well");
    assert_eq!(streamed.count, 2);
}

#[tokio::test]
async fn a_stream_ends_at_what_is_no_integer_although_more_is_coming() {
    let (fixture, _batches) = counting();
    let endless = pieces(&["1 2 3\n", "four\n"]).chain(stream::repeat_with(|| Ok("5\n".into())));

    let failure = failure(
        fixture
            .client
            .publish_stream(&StreamQuery::default(), endless)
            .await,
    );

    assert!(
        failure
            .message
            .starts_with("`four` is no 32-bit integer (after "),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_free_place_is_taken_again() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let mut followers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        followers.push(fixture.client.events().await.expect("follows"));
    }

    let refused = failure(fixture.client.outbox().await);
    assert_eq!(refused.message, "64 control connections are open already");

    drop(followers);
    // The server notices a hung up connection when its task next runs.
    while fixture.client.outbox().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_port_asks_for_the_token_and_the_token_is_kept_from_others() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let file = fixture.folder.path().join("control.token");
    // A free port: bound, read, and given back.
    let address = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        probe.local_addr().expect("is bound")
    };
    let served = server::serve_tcp(address, &file, fixture.handle.clone());
    tokio::spawn(served.expect("serves"));
    let mode = std::fs::metadata(&file)
        .expect("is made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).expect("reads");
    assert_eq!(token.len(), 64);
    let ask = |headers: String| async move {
        let talk = move || {
            let mut stream = std::net::TcpStream::connect(address).expect("connects");
            let request =
                format!("GET /v1/outbox HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).expect("sends");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("reads");
            answer
        };
        tokio::task::spawn_blocking(talk).await.expect("ends")
    };

    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    for wrong in [
        String::new(),
        bearer(""),
        bearer("0"),
        bearer(&token[..63]),
        bearer(&"0".repeat(64)),
    ] {
        let answer = ask(wrong.clone()).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{wrong}: {answer}");
        assert!(!answer.contains(&token));
    }
    let answer = ask(bearer(&token)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("[]"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_port_is_for_loopback_with_a_token_that_others_cannot_read() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("control.token");
    let serve = |address: &str| {
        let address = address.parse().expect("an address");
        server::serve_tcp(address, &file, fixture.handle.clone())
            .err()
            .map(|error| error.to_string())
    };

    let everywhere = serve("0.0.0.0:0");
    assert_eq!(
        everywhere.as_deref(),
        Some("the control port is for loopback only, got 0.0.0.0:0")
    );
    assert!(!file.exists());

    assert_eq!(serve("127.0.0.1:0"), None);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("is there");
    let readable = serve("127.0.0.1:0").expect("is refused");
    assert!(readable.contains("has permissions 640"), "{readable}");
}

#[tokio::test]
async fn a_ticket_is_asked_for_in_seconds_and_counters_come_as_text() {
    let fixture = Fixture::serving(|command| {
        let Command::Invite { lifetime, .. } = command else {
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
