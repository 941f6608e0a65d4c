//! How far the gateway goes along: with wrong tokens, registrations, bursts, pages of other origins,
//! and letters that nobody fetches.

use std::time::Duration;

use anyhow::{Context, ensure};
use pimesh_tests::{
    World, eventually, pimesh,
    syft::{self, Agents},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::gateway::{get, post, wait_for_letters};

#[tokio::test]
async fn wrong_tokens_are_limited_and_lock_out_nobody_who_has_a_good_one() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.make("thief", &url).await?;
    let flood = json!({"do": "flood", "as": "thief", "method": "GET", "path": "/ws?token=x.y.z"});
    let refused = agents.order(flood, "refused").await?;
    let within = refused["statuses"]["401"].as_u64().context("some")?;
    assert!(within >= 200, "{refused}");

    // While it goes on, her client loses its connection and comes back at once, every time.
    for _ in 0..20 {
        agents.close("alice").await?;
        agents.connect("alice").await?;
    }
    agents
        .order(json!({"do": "calm", "as": "thief"}), "calm")
        .await?;

    // A second of quiet, and attempts are judged again.
    eventually("a judgement", async || {
        let answer = agents.http(get("/ws?token=x.y.z")).await?;
        ensure!(answer.0 == 401, "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn wrong_answers_to_challenges_are_limited() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let flood = json!({"do": "flood", "as": "alice", "method": "POST",
        "path": "/auth/login?verify=true", "body": {"user_id": "alice", "signature": "AAAA"}});
    let refused = agents.order(flood, "refused").await?;
    let within = refused["statuses"]["400"].as_u64().context("some")?;
    assert!(within >= 200, "{refused}");
    agents
        .order(json!({"do": "calm", "as": "alice"}), "calm")
        .await?;
    // Whoever has the key gets in once the bucket has filled a little.
    eventually("a login", async || {
        let answer = agents.login("alice").await?;
        ensure!(answer["status"] == 200, "{answer}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn registrations_are_limited_and_those_who_are_users_get_in_all_the_same()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let key = agents.make("bob", &url).await?["key"].clone();
    let body = json!({"user_id": "bob", "username": "bob", "public_key": key});
    let flood = json!({"do": "flood", "as": "bob", "method": "POST", "path": "/auth/register",
        "body": body});
    let refused = agents.order(flood, "refused").await?;
    let within = refused["statuses"]["201"].as_u64().context("some")?;
    // 64 at once, hers among them, and four a minute.
    assert!((60..80).contains(&within), "{refused}");

    // Her client registers at every start, is refused, and takes no notice.
    agents.close("alice").await?;
    agents.arrive("alice").await?;
    Ok(())
}

#[tokio::test]
async fn forty_messages_at_once_all_arrive_in_order() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;
    agents.send_many("alice", "bob", 40).await?;
    let expected: Vec<String> = (0..40).map(|number| format!("n {number}")).collect();
    assert_eq!(agents.texts("bob", 40).await?, expected);
    // She was told nothing: what comes to her next is his answer.
    agents.send("bob", "alice", "all there").await?;
    agents.text("alice").await?;
    assert!(!agents.was_told_anything("alice"));
    Ok(())
}

#[tokio::test]
async fn a_message_that_nobody_fetches_in_time_is_dropped() -> anyhow::Result<()> {
    let world = World::new()?;
    let limits = "[gateway.syft.limits]\nqueue_age_max = \"1s\"";
    let (pi, url) = syft::start(&world, "pi-1", limits).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.make("bob", &url).await?;
    agents.register("bob").await?;
    agents.stay("alice").await?;
    agents.send("alice", "bob", "too late").await?;
    wait_for_letters(&pi, "bob", 1).await?;
    // A registration is on disk behind it.
    agents.enter("carol", &url).await?;

    // A node looks when it starts, and then every hour.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let pi = pi.restart().await?;

    wait_for_letters(&pi, "bob", 0).await?;
    agents
        .until("reconnected", |event| event["as"] == "alice")
        .await?;
    agents.send("alice", "bob", "in time").await?;
    agents.login("bob").await?;
    agents.connect("bob").await?;
    assert_eq!(agents.text("bob").await?.0, "in time");
    Ok(())
}

/// Makes a request without a client, and returns the head of the answer in lower case.
async fn head(url: &str, method: &str, path: &str, fields: &str) -> anyhow::Result<String> {
    let authority = url.strip_prefix("http://").context("no TLS")?;
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{fields}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, _) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok(head.to_lowercase())
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_only_where_that_is_configured() -> anyhow::Result<()> {
    const ORIGIN: &str = "Origin: https://app.example.org\r\n";
    const OTHER: &str = "Origin: https://evil.example.org\r\n";
    const PREFLIGHT: &str = "Access-Control-Request-Method: POST\r\n";
    let world = World::new()?;
    let (_closed, url) = syft::start(&world, "pi-1", "").await?;
    for (method, status) in [
        ("GET", "403 forbidden"),
        ("OPTIONS", "405 method not allowed"),
    ] {
        let head = head(&url, method, "/active-users", ORIGIN).await?;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(!head.contains("access-control-"), "{head}");
    }

    let settings = "cors_origins = [\"https://app.example.org\"]";
    let (_open, url) = syft::start(&world, "pi-2", settings).await?;
    let preflight = format!("{ORIGIN}{PREFLIGHT}");
    let allowed = head(&url, "OPTIONS", "/auth/login", &preflight).await?;
    assert!(allowed.starts_with("http/1.1 204"), "{allowed}");
    for field in [
        "access-control-allow-origin: https://app.example.org",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type",
        "vary: origin",
    ] {
        assert!(allowed.contains(field), "{allowed}");
    }
    // Also what is refused may be read by the page.
    for (path, status) in [("/active-users", "200"), ("/auth/users/nobody", "404")] {
        let head = head(&url, "GET", path, ORIGIN).await?;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(
            head.contains("access-control-allow-origin: https://app.example.org"),
            "{head}"
        );
    }
    let refused = head(
        &url,
        "OPTIONS",
        "/auth/login",
        &format!("{OTHER}{PREFLIGHT}"),
    )
    .await?;
    assert!(refused.starts_with("http/1.1 405"), "{refused}");
    let plain = head(&url, "GET", "/active-users", OTHER).await?;
    for head in [refused, plain] {
        assert!(!head.contains("access-control-"), "{head}");
    }
    Ok(())
}

/// What a page of a stranger's site could send to a gateway on this machine.
#[tokio::test]
async fn a_page_of_another_site_registers_nobody_and_reads_nothing() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let authority = url.strip_prefix("http://").context("no TLS")?;
    let body = r#"{"user_id":"mallory","username":"m","public_key":"x"}"#;
    let evil = "evil.example:8765";
    for (fields, status) in [
        (
            format!("Host: {authority}\r\nOrigin: http://evil.example\r\n"),
            403,
        ),
        (format!("Host: {authority}\r\nOrigin: null\r\n"), 403),
        // Its own domain leads to this machine.
        (format!("Host: {evil}\r\nOrigin: http://{evil}\r\n"), 403),
        (format!("Host: {evil}\r\n"), 403),
        (
            format!("Host: {authority}\r\nContent-Type: text/plain\r\n"),
            415,
        ),
        // The key is none: a program gets as far as that.
        (
            format!("Host: {authority}\r\nContent-Type: application/json\r\n"),
            400,
        ),
    ] {
        for request in ["POST /auth/register", "GET /active-users"] {
            let length = body.len();
            let text = format!(
                "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\
                 {fields}\r\n{body}"
            );
            let mut stream = TcpStream::connect(authority).await?;
            stream.write_all(text.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let is_get = request.starts_with("GET");
            let expected = if is_get && status != 403 { 200 } else { status };
            let start = format!("HTTP/1.1 {expected} ");
            assert!(answer.starts_with(&start), "{request} {fields}: {answer}");
            assert!(
                !answer.to_lowercase().contains("access-control-"),
                "{answer}"
            );
        }
    }
    let (_, users, _) = pimesh(&pi.home, &["gateway", "syft", "users"]).await?;
    assert!(!users.contains("mallory"), "{users}");
    Ok(())
}

#[tokio::test]
async fn the_lists_of_the_marketplace_are_there_and_empty() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    for (path, list) in [
        ("/trackers", "[]"),
        ("/apis", "[]"),
        ("/tracker-apps", "{}"),
    ] {
        assert_eq!(
            agents.http(get(path)).await?,
            (200, list.to_owned()),
            "{path}"
        );
        let (status, text) = agents.http(post(path, json!({}))).await?;
        assert_eq!(
            (status, text.as_str()),
            (405, "Method not allowed\n"),
            "{path}"
        );
    }
    let package = agents.http(get("/tracker-folder/mail")).await?;
    assert_eq!(package, (404, "Tracker package not found\n".to_owned()));
    for path in ["/user/trackers", "/user/apis"] {
        let (status, text) = agents.http(get(path)).await?;
        assert_eq!(
            (status, text.as_str()),
            (401, "Missing Authorization header\n")
        );
        let mut signed_in = get(path);
        signed_in["bearer"] = json!(true);
        assert_eq!(
            agents.http(signed_in.clone()).await?,
            (200, "[]".to_owned())
        );
        signed_in["method"] = json!("POST");
        let (status, text) = agents.http(signed_in).await?;
        let expected = "This node keeps no lists for the app marketplace\n";
        assert_eq!((status, text.as_str()), (501, expected));
    }
    Ok(())
}
