//! A node as a client of a Syft server: the server is another mesh's gateway, and a hostile one.

use anyhow::{Context, ensure};
use pimesh_node::proto::syft::PublicKey;
use pimesh_tests::{
    Pi, World, eventually, pimesh,
    syft::{self, Agents},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Waits until the node's connection to its server is in this state.
pub(super) async fn wait_for_state(pi: &Pi, wanted: &str) -> anyhow::Result<String> {
    eventually("a server's state", async || {
        let servers = syft::servers(&pi.client).await?;
        let server = servers.iter().find(|server| server.state == wanted);
        let server = server.with_context(|| format!("{servers:?}"))?;
        Ok(server.reason.clone().unwrap_or_default())
    })
    .await
}

async fn connect(pi: &Pi, url: &str, user: &str) -> anyhow::Result<()> {
    connect_as(pi, url, "hub", &["--user", user]).await
}

/// Makes a node a client of a server under this name; its user is `kitchen` if nothing else is
/// given.
pub(super) async fn connect_as(
    pi: &Pi,
    url: &str,
    name: &str,
    more: &[&str],
) -> anyhow::Result<()> {
    let mut args = vec!["gateway", "syft", "connect", url, "--name", name];
    if !more.contains(&"--user") {
        args.extend(["--user", "kitchen"]);
    }
    args.extend(more);
    let (code, _, err) = pimesh(&pi.home, &args).await?;
    ensure!(code == 0, "{err}");
    Ok(())
}

#[tokio::test]
async fn a_node_writes_and_reads_as_a_user_of_a_foreign_server() -> anyhow::Result<()> {
    let world = World::new()?;
    let (server, url) = syft::start(&world, "hub-pi", "").await?;
    let pi = world.start("pi-1").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    connect_as(&pi, &url, "hub", &["--broadcasts"]).await?;
    wait_for_state(&pi, "connected").await?;

    // It is there with a key for that server: not its messaging key, not that of its peer id.
    let users = server.client.users().await?;
    let there = users.iter().find(|user| user.user == "kitchen");
    let key = &there.expect("registered").key;
    let users = pi.client.users().await?;
    let own = users.iter().find(|user| user.is_node).expect("itself");
    assert_ne!(*key, own.key);
    let peer = pi.client.status().await?.node.peer_id.to_bytes();
    assert!(!peer.ends_with(PublicKey::from_base64(key)?.as_bytes()));

    let (code, _, err) = pimesh(&pi.home, &["send", "alice@hub", "tea?", "--wait"]).await?;
    assert_eq!(code, 0, "{err}");
    let got = agents.message("alice").await?;
    assert_eq!(
        (&got["text"], &got["status"]),
        (&json!("tea?"), &json!("verified"))
    );
    assert_eq!(got["from"], "kitchen");
    agents.send("alice", "kitchen", "yes, please").await?;
    agents.send("alice", "broadcast", "tea for all").await?;
    assert_eq!(pi.wait_for_inbox(2).await?, ["yes, please", "tea for all"]);
    let (_, out, _) = pimesh(&pi.home, &["inbox", "--from", "alice@hub"]).await?;
    assert!(out.contains("alice@hub [syft]: yes, please"), "{out}");

    // Nobody of that name: the message ends, and that is told.
    let (code, _, err) = pimesh(&pi.home, &["send", "nobody@hub", "x", "--wait"]).await?;
    assert_eq!(code, 6);
    assert!(err.contains("unknown_user"), "{err}");

    // The server goes away; what is sent meanwhile waits, also over a restart of the node.
    let mut server = server;
    server.child.kill().await?;
    wait_for_state(&pi, "waiting").await?;
    let (code, _, err) = pimesh(&pi.home, &["send", "alice@hub", "still there?"]).await?;
    assert_eq!(code, 0, "{err}");
    let pi = pi.restart().await?;
    let _server = server.restart().await?;
    wait_for_state(&pi, "connected").await?;
    agents.connect("alice").await?;
    // The first may come again: nobody was left to hear that she has it.
    while agents.text("alice").await?.0 != "still there?" {}
    agents.send("alice", "kitchen", "here").await?;
    assert_eq!(
        pi.wait_for_inbox(3).await?.last().map(String::as_str),
        Some("here")
    );

    let (code, _, err) = pimesh(&pi.home, &["gateway", "syft", "disconnect", "hub"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(syft::servers(&pi.client).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_name_that_has_another_key_at_the_server_is_refused_and_tried_again_after_minutes()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (_server, url) = syft::start(&world, "hub-pi", "").await?;
    let pi = world.start("pi-1").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    connect(&pi, &url, "alice").await?;
    let reason = wait_for_state(&pi, "refused").await?;
    assert!(reason.contains("Authentication failed"), "{reason}");
    let servers = syft::servers(&pi.client).await?;
    let next_ms = servers.first().and_then(|server| server.next_ms);
    let minutes = 60_000..=600_000;
    ensure!(
        next_ms.is_some_and(|ms| minutes.contains(&ms)),
        "{next_ms:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_gets_no_signature_over_anything_but_a_challenge() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let heard = tokio::spawn(evil(listener));
    connect(&pi, &url, "kitchen").await?;

    let reason = wait_for_state(&pi, "waiting").await?;

    assert!(reason.contains("not base64 of 32 bytes"), "{reason}");
    heard.abort();
    Ok(())
}

/// Asks for a signature over a message, and fails the test if it gets one.
async fn evil(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await?;
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        assert!(!request.contains("signature"), "{request}");
        let body = json!({"challenge": "kitchen|broadcast|1747396800000000000|I resign"});
        let body = body.to_string();
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
    }
}
