//! Who gets to the socket and to the port.

use std::{
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    control::{
        limit::{CONNECTIONS_MAX, STREAMS_MAX},
        serving::HEAD_TIME,
    },
    routes::BODY_TIME,
};

/// Turns of the runtime after which something that needs no time has happened.
const TURNS: u32 = 10_000;

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

    let control = fixture.control();
    let Fixture {
        client,
        commands,
        folder,
        ..
    } = fixture;
    let socket = folder.path().join("control.sock");
    tokio::spawn(server::serve_unix(&socket, control).expect("replaces the dead one"));
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
    let refused = server::serve_unix(&file, fixture.control()).err();
    assert_eq!(
        refused.expect("refuses").to_string(),
        "there is a file at this path, and it is no socket"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "dear");
}

#[tokio::test]
async fn followers_leave_places_for_short_commands_and_one_too_many_is_told_so() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let mut followers = Vec::new();
    for _ in 0..STREAMS_MAX {
        followers.push(fixture.client.events().await.expect("follows"));
    }

    let refused = failure(fixture.client.events().await.map(drop));
    assert_eq!(
        refused.message,
        "48 commands that follow something run already"
    );
    assert_eq!(refused.hint.as_deref(), Some("end one of them"));
    fixture.client.outbox().await.expect("there are places");

    drop(followers.pop());
    // The server notices a hung up connection when its task next runs.
    while fixture.client.events().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_free_place_is_taken_again() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(UnixStream::connect(fixture.socket()).expect("connects"));
    }

    // Also when the request has come before anybody could read it.
    for _ in 0..100 {
        let refused = failure(fixture.client.outbox().await);
        assert_eq!(refused.message, "64 control connections are open already");
        assert_eq!(
            refused.hint.as_deref(),
            Some("end a command that follows something")
        );
    }

    drop(open);
    while fixture.client.outbox().await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// What is sent and received on a connection that its client keeps open.
async fn talk(stream: &mut tokio::net::UnixStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// The clock of these tests jumps to the next deadline as soon as nothing else is to do.
#[tokio::test(start_paused = true)]
async fn clients_that_take_their_time_do_not_hold_the_places() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let mut open = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        let stream = tokio::net::UnixStream::connect(fixture.socket()).await;
        let mut stream = stream.expect("connects");
        match number % 4 {
            0 => {}
            1 => stream.write_all(b"G").await.expect("sends"),
            2 => stream
                .write_all(b"GET /v1/outbox HTTP/1.1\r\nhost: x\r\n")
                .await
                .expect("sends"),
            _ => {
                let request = "GET /v1/outbox HTTP/1.1\r\nhost: x\r\n\r\n";
                let answer = talk(&mut stream, request).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        }
        open.push(stream);
    }
    let refused = failure(fixture.client.outbox().await);
    assert_eq!(refused.message, "64 control connections are open already");

    tokio::time::sleep(HEAD_TIME).await;

    let mut tries = 0;
    while fixture.client.outbox().await.is_err() {
        tries += 1;
        assert!(tries < TURNS, "no place is free");
        tokio::task::yield_now().await;
    }
    for stream in open {
        let mut turns = 0;
        // A clock that is paused jumps while a socket is waited for, so turns are the limit.
        while let Err(error) = stream.try_read(&mut [0]).map(|read| assert_eq!(read, 0)) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            turns += 1;
            assert!(turns < TURNS, "a client is not hung up on");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pauses_between_requests_keeps_its_connection() {
    let fixture = Fixture::serving(|_| Ok(Reply::Outbox(Vec::new())));
    let stream = tokio::net::UnixStream::connect(fixture.socket()).await;
    let mut stream = stream.expect("connects");

    for _ in 0..3 {
        tokio::time::sleep(HEAD_TIME / 2).await;
        let request = "GET /v1/outbox HTTP/1.1\r\nhost: x\r\n\r\n";
        let answer = talk(&mut stream, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_and_a_stream_may_pause() {
    let fixture = Fixture::serving(|command| match command {
        Command::Integers { values, .. } => Ok(published(&values)),
        _ => panic!("nothing else is asked"),
    });
    let connect = async || {
        let stream = tokio::net::UnixStream::connect(fixture.socket()).await;
        stream.expect("connects")
    };
    let began = tokio::time::Instant::now();
    let mut half = connect().await;

    let request = "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 90\r\n\r\n{\"to\"";
    let answer = talk(&mut half, request).await;

    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("the body of the request did not come within 30 s"),
        "{answer}"
    );
    assert_eq!(began.elapsed().as_secs(), BODY_TIME.as_secs());
    let mut stream = connect().await;
    let request = "POST /v1/integers/stream HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n1 ";
    stream.write_all(request.as_bytes()).await.expect("sends");
    tokio::time::sleep(BODY_TIME * 10).await;
    let answer = talk(&mut stream, "2\n").await;
    assert!(answer.contains(r#"{"count":2}"#), "{answer}");
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
    let served = server::serve_tcp(address, &file, fixture.control());
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
            let host = if headers.contains("host:") {
                String::new()
            } else {
                format!("host: {address}\r\n")
            };
            let request =
                format!("GET /v1/outbox HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n");
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
    for page in [
        "origin: https://evil.example\r\n",
        "host: evil.example\r\n",
        "host: evil.example\r\norigin: http://evil.example\r\n",
    ] {
        let answer = ask(format!("{}{page}", bearer(&token))).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{page}: {answer}");
    }
}

#[tokio::test]
async fn the_port_is_for_loopback_with_a_token_that_others_cannot_read() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("control.token");
    let serve = |address: &str| {
        let address = address.parse().expect("an address");
        server::serve_tcp(address, &file, fixture.control())
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
