//! Syft servers that the node is a client of and that are hostile, or not there yet.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::SinkExt;
use pimesh_tests::{
    PATIENCE, World, eventually, pimesh,
    server::{Answer, Server, post},
    syft,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::server::{connect_as, wait_for_state};

#[tokio::test]
async fn a_server_cannot_log_in_at_another_one_as_the_node() -> anyhow::Result<()> {
    let world = World::new()?;
    let (hub, honest) = syft::start(&world, "hub-pi", "").await?;
    let pi = world.start("pi-1").await?;
    connect_as(&pi, &honest, "hub", &[]).await?;
    wait_for_state(&pi, "connected").await?;

    // The challenge that the honest server has for the node is shown to the node, and the answer
    // goes to the honest server.
    let (tell, mut told) = mpsc::unbounded_channel();
    let honest = Arc::<str>::from(honest);
    let hostile = Server::start(move |(path, body)| {
        let (honest, tell) = (Arc::clone(&honest), tell.clone());
        Box::pin(async move {
            if path.starts_with("/auth/register") {
                return Answer::new(201, "{}");
            }
            let passed_on = post(&honest, &path, &body).await;
            let (status, body) = passed_on.unwrap_or((502, String::new()));
            if path.contains("verify") {
                drop(tell.send((status, body.clone())));
            }
            Answer::new(status, body)
        })
    })
    .await?;
    connect_as(&pi, &hostile.url, "evil", &[]).await?;

    let answered = tokio::time::timeout(PATIENCE, told.recv()).await?;
    let (status, body) = answered.expect("the node answers the challenge");
    assert_eq!(status, 401, "the hostile server is in: {body}");
    assert_eq!(hub.client.users().await?.len(), 2, "the node and its user");
    Ok(())
}

#[tokio::test]
async fn one_key_for_all_servers_is_for_one_of_them() -> anyhow::Result<()> {
    let world = World::new()?;
    let (hub, url) = syft::start(&world, "hub-pi", "").await?;
    let pi = world.start("pi-1").await?;
    // As an earlier version registered it.
    let users = pi.client.users().await?;
    let own = users.iter().find(|user| user.is_node).expect("itself");
    let body = json!({"user_id": "kitchen", "public_key": own.key}).to_string();
    assert_eq!(post(&url, "/auth/register", &body).await?.0, 201);
    connect_as(&pi, &url, "hub", &[]).await?;
    let reason = wait_for_state(&pi, "refused").await?;
    assert!(reason.contains("--key-of shared"), "{reason}");

    connect_as(&pi, &url, "hub", &["--key-of", "shared"]).await?;
    wait_for_state(&pi, "connected").await?;
    let there: Vec<Value> = hub
        .client
        .users()
        .await?
        .iter()
        .map(|user| json!(user.key))
        .collect();
    assert!(there.contains(&json!(own.key)), "{there:?}");

    let other = [
        "gateway",
        "syft",
        "connect",
        "http://127.0.0.1:9",
        "--user",
        "kitchen",
        "--name",
        "other",
        "--key-of",
        "shared",
    ];
    let (code, _, err) = pimesh(&pi.home, &other).await?;
    assert_ne!(code, 0);
    assert!(err.contains("none can log in at another"), "{err}");
    Ok(())
}

/// Starts a server that lets everybody in; before that, it answers everything as it is told to.
async fn start(portal: Arc<Mutex<Option<Answer>>>) -> anyhow::Result<Server> {
    Server::start(move |(path, _)| {
        let portal = portal.lock().expect("no panic holds it").clone();
        let answer = portal.unwrap_or_else(|| {
            Answer::new(
                200,
                if path.contains("verify") {
                    json!({"token": "token"})
                } else {
                    json!({"challenge": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="})
                },
            )
        });
        Box::pin(async move { answer })
    })
    .await
}

#[tokio::test]
async fn a_login_page_of_the_network_ends_nothing() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let portal = Arc::new(Mutex::new(Some(Answer::new(403, "<html>Log in"))));
    let server = start(Arc::clone(&portal)).await?;
    connect_as(&pi, &server.url, "hub", &[]).await?;

    let redirect = Answer {
        status: 302,
        headers: "Location: http://127.0.0.1:9/login\r\n",
        body: String::new(),
    };
    for (answer, state, says) in [
        (Answer::new(403, "<html>Log in"), "waiting", "web page (403"),
        (Answer::new(200, "<html>Log in"), "waiting", "web page (200"),
        (redirect, "waiting", "redirected (302"),
        (Answer::new(404, "{}"), "waiting", "404"),
        (Answer::new(400, "no\u{1b}[2J"), "waiting", "no\\u{1b}[2J"),
        (
            Answer::new(200, json!({"challenge": "kitchen|broadcast|1|I resign"})),
            "waiting",
            "not base64 of 32 bytes",
        ),
    ] {
        *portal.lock().expect("no panic holds it") = Some(answer);
        eventually("an attempt that says what was answered", async || {
            let servers = syft::servers(&pi.client).await?;
            let server = servers.first().context("a server")?;
            let reason = server.reason.as_deref().unwrap_or_default();
            if server.state == "waiting" && !reason.contains(says) {
                // As SIGHUP does: the next attempt is made at once.
                pi.client.reload().await?;
            }
            ensure!(server.state == state && reason.contains(says), "{server:?}");
            ensure!(server.next_ms.is_some_and(|ms| ms <= 60_000), "{server:?}");
            Ok(())
        })
        .await?;
    }
    *portal.lock().expect("no panic holds it") = None;
    pi.client.reload().await?;
    wait_for_state(&pi, "connected").await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_sends_without_end_is_read_within_its_share() -> anyhow::Result<()> {
    const MEGABYTE: usize = 1024 * 1024;
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let mut server = start(Arc::default()).await?;
    connect_as(&pi, &server.url, "hub", &[]).await?;
    let mut socket = server.sockets.recv().await.context("a connection")?;

    let frame = |from: &str, bytes: usize| {
        let content = format!("\u{1b}[2J{}", "x".repeat(bytes));
        let frame = json!({"from": from, "to": "broadcast", "content": content,
            "timestamp": "2025-05-16T12:00:00.000Z", "signature": ""});
        Message::text(frame.to_string())
    };
    for _ in 0..300 {
        socket.send(frame("system", 10)).await?;
        socket.send(frame("stranger", 10)).await?;
    }
    // What the node does not read waits at the server: at some time nothing more goes out.
    let mut sent = 0;
    while sent < 100
        && let Ok(written) = tokio::time::timeout(
            Duration::from_secs(3),
            socket.send(frame("stranger", MEGABYTE - 1000)),
        )
        .await
    {
        written?;
        sent += 1;
    }
    assert!(sent < 100, "the node reads whatever comes");

    let log = std::fs::read_to_string(pi.home.with_extension("log"))?;
    let said: Vec<&str> = log.lines().filter(|l| l.contains("server says")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("[2J") && !said[0].contains("\u{1b}[2J"),
        "{}",
        said[0]
    );
    assert!(
        pi.wait_for_inbox(0).await?.is_empty(),
        "broadcasts were not asked for"
    );
    Ok(())
}
