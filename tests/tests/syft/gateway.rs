//! One gateway, and people who behave.

use anyhow::ensure;
use pimesh_node::{control::api::EventBody, state::post::Stage};
use pimesh_tests::{
    Pi, World, eventually,
    syft::{self, Agents},
};
use serde_json::{Value, json};

#[tokio::test]
async fn two_users_register_see_each_other_and_write() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    for user in ["alice", "bob+x@example.org"] {
        let key = agents.make(user, &url).await?["key"].clone();
        let answer = agents.register(user).await?;
        assert_eq!(answer["status"], 201);
        assert_eq!(answer["text"], "User registered successfully");
        let again = agents.register(user).await?;
        assert_eq!(again["status"], 201, "the same key again changes nothing");
        let answer = agents.login(user).await?;
        assert_eq!(answer["status"], 200);
        agents.connect(user).await?;
        let id = user.replace('+', "%2B").replace('@', "%40");
        let path = format!("//auth/users/{id}");
        let (status, body) = agents
            .http(json!({"as": user, "method": "GET", "path": path}))
            .await?;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_str(&body)?;
        let expected = json!({"user_id": user, "username": user, "public_key": key});
        assert_eq!(body, expected);
    }

    let sent = agents
        .send("alice", "bob+x@example.org", "door open ☕")
        .await?;
    let got = agents.message("bob+x@example.org").await?;

    assert_eq!(
        (&got["text"], &got["status"]),
        (&json!("door open ☕"), &json!("verified"))
    );
    let sent: Value = serde_json::from_str(sent["frame"].as_str().expect("a frame"))?;
    let raw: Value = serde_json::from_str(got["raw"].as_str().expect("a frame"))?;
    for member in ["from", "to", "timestamp", "content", "signature"] {
        assert_eq!(raw[member], sent[member], "{member}");
    }
    assert!(raw["id"].is_u64());
    let others: Vec<&String> = raw.as_object().expect("an object").keys().collect();
    assert_eq!(others.len(), 6, "{others:?}");
    agents.send("bob+x@example.org", "alice", "closed").await?;
    assert_eq!(
        agents.text("alice").await?,
        ("closed".to_owned(), "verified".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn the_http_surface_answers_as_the_old_server_did() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let register = |id: &str, key: &str| json!({"user_id": id, "username": "x", "public_key": key});
    let key = agents.http(get("/auth/users/alice")).await?.1;
    let key: Value = serde_json::from_str(&key)?;
    let key = key["public_key"].as_str().expect("a key").to_owned();
    let other = agents.make("bob", &url).await?["key"]
        .as_str()
        .expect("a key")
        .to_owned();

    for (order, status, text) in [
        (get("/auth/users/nobody"), 404, "User not found\n"),
        (get("/auth/users/"), 400, "User ID is required\n"),
        (get("/auth/check-userid/alice"), 200, r#"{"exists":true}"#),
        (get("/auth/check-userid/nobody"), 200, r#"{"exists":false}"#),
        (get("/user/descriptions/alice"), 200, "[]"),
        (get("/user/descriptions/nobody"), 200, "[]"),
        (
            get("/user/descriptions/"),
            400,
            "User ID not specified in URL\n",
        ),
        (get("/auth/login"), 405, "Method not allowed\n"),
        (get("/auth/register"), 405, "Method not allowed\n"),
        (
            order("OPTIONS", "/auth/login", json!(null)),
            405,
            "Method not allowed\n",
        ),
        (
            get("/health"),
            200,
            r#"{"service":"websocket-server","status":"healthy"}"#,
        ),
        (get("/ws"), 401, "Missing authentication token\n"),
        (
            get("/ws?token=x.y.z"),
            401,
            "Invalid token: token validation failed: signature is invalid\n",
        ),
        (get("/nothing/here"), 404, "There is nothing here\n"),
        (post("/auth/register", json!("{")), 400, "Invalid JSON\n"),
        (post("/auth/login", json!("[]")), 400, "Invalid JSON\n"),
        (
            post("/auth/register", register("alice", &key)),
            201,
            "User registered successfully",
        ),
        (
            post("/auth/register", register("alice", &other)),
            409,
            "Registration error: `alice` is registered with another key\n",
        ),
        (
            post("/auth/register", register("pi-1", &other)),
            409,
            "Registration error: `pi-1` is a node of this mesh\n",
        ),
        (
            post(
                "/auth/login?verify=true",
                json!({"user_id": "nobody", "signature": "AAAA"}),
            ),
            401,
            "User not found\n",
        ),
        (
            post(
                "/auth/login?verify=true",
                json!({"user_id": "alice", "signature": "AAAA"}),
            ),
            400,
            "No challenge found\n",
        ),
        (
            post(
                "/auth/login?verify=true",
                json!({"user_id": "alice", "signature": "!"}),
            ),
            400,
            "Invalid signature encoding\n",
        ),
        (
            post("/user/descriptions", json!(["x"])),
            401,
            "Missing Authorization header\n",
        ),
    ] {
        let shown = order.to_string();
        assert_eq!(
            agents.http(order).await?,
            (status, text.to_owned()),
            "{shown}"
        );
    }
    for id in ["system", "broadcast", "a|b", "a/b", "", "x@pi-1"] {
        let (status, text) = agents
            .http(post("/auth/register", register(id, &other)))
            .await?;
        assert!(status == 400 || status == 409, "{id}: {status} {text}");
    }
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(
        agents
            .http(post("/auth/register", register("zero", zero)))
            .await?
            .0,
        400
    );
    Ok(())
}

fn order(method: &str, path: &str, body: Value) -> Value {
    json!({"as": "alice", "method": method, "path": path, "body": body})
}

pub(super) fn get(path: &str) -> Value {
    order("GET", path, json!(null))
}

pub(super) fn post(path: &str, body: Value) -> Value {
    order("POST", path, body)
}

#[tokio::test]
async fn descriptions_and_presence_are_shown() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.make("bob", &url).await?;
    agents.register("bob").await?;

    let mut describe = post("/user/descriptions", json!(["cooks", "knows Überlingen"]));
    describe["bearer"] = json!(true);
    let answer = agents.http(describe).await?;
    assert_eq!(answer, (200, "Descriptions list updated".to_owned()));
    let (_, texts) = agents.http(get("/user/descriptions/alice")).await?;
    assert_eq!(texts, r#"["cooks","knows Überlingen"]"#);
    let mut empty = post("/user/descriptions", json!([]));
    empty["bearer"] = json!(true);
    let answer = agents.http(empty).await?;
    assert_eq!(
        answer,
        (400, "Descriptions list cannot be empty\n".to_owned())
    );

    let (_, active) = agents.http(get("/active-users")).await?;
    assert_eq!(active, r#"{"online":["pi-1","alice"],"offline":["bob"]}"#);

    let _pi = pi.restart().await?;
    let (_, texts) = agents.http(get("/user/descriptions/alice")).await?;
    assert_eq!(texts, r#"["cooks","knows Überlingen"]"#);
    Ok(())
}

#[tokio::test]
async fn who_was_away_gets_every_message_in_order_and_once() -> anyhow::Result<()> {
    const COUNT: usize = 400;
    let world = World::new()?;
    let (pi, url) =
        syft::start(&world, "pi-1", "[gateway.syft.limits]\nframes_burst = 1000").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.make("bob", &url).await?;
    agents.register("bob").await?;
    agents.send_many("alice", "bob", COUNT).await?;
    wait_for_letters(&pi, "bob", COUNT).await?;
    // A registration is on disk behind all of them.
    agents.enter("carol", &url).await?;
    // The power fails before he comes.
    let pi = pi.restart().await?;

    agents.login("bob").await?;
    agents.connect("bob").await?;
    let texts = agents.texts("bob", COUNT).await?;
    let expected: Vec<String> = (0..COUNT).map(|n| format!("n {n}")).collect();
    assert_eq!(texts, expected);

    wait_for_letters(&pi, "bob", 0).await?;
    agents.close("bob").await?;
    agents.connect("bob").await?;
    agents.login("alice").await?;
    agents.connect("alice").await?;
    agents.send("alice", "bob", "last").await?;
    assert_eq!(agents.text("bob").await?.0, "last", "nothing comes twice");
    Ok(())
}

#[tokio::test]
async fn what_waits_and_what_comes_meanwhile_is_one_row_in_order() -> anyhow::Result<()> {
    const COUNT: usize = 600;
    let world = World::new()?;
    let limits = "[gateway.syft.limits]\nframes_per_second = 1000\nframes_burst = 1000";
    let (pi, url) = syft::start(&world, "pi-1", limits).await?;
    let mut sending = Agents::start().await?;
    let mut agents = Agents::start().await?;
    sending.enter("alice", &url).await?;
    agents
        .make_with("bob", "bob", &url, &"77".repeat(32))
        .await?;
    agents.register("bob").await?;
    agents.login("bob").await?;
    let coming = async {
        pi.wait_until("some wait", || async {
            let users = pi.client.users().await?;
            let bob = users.iter().find(|user| user.user == "bob");
            Ok(bob.filter(|bob| bob.waiting >= 50).map(|_| ()))
        })
        .await?;
        agents.connect("bob").await?;
        agents.texts("bob", COUNT).await
    };
    let (sent, texts) = tokio::join!(sending.send_many("alice", "bob", COUNT), coming);
    sent?;
    let expected: Vec<String> = (0..COUNT).map(|n| format!("n {n}")).collect();
    assert_eq!(texts?, expected);
    Ok(())
}

#[tokio::test]
async fn a_client_whose_url_ends_with_a_slash_gets_in() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    let url = format!("{url}/");
    for user in ["alice", "bob"] {
        agents.make(user, &url).await?;
        assert_eq!(agents.register(user).await?["status"], 201);
        assert_eq!(agents.login(user).await?["status"], 200);
        agents.connect(user).await?;
    }
    agents.send("alice", "bob", "//").await?;
    assert_eq!(agents.text("bob").await?.0, "//");
    Ok(())
}

/// Waits until so many letters wait for a user.
pub(super) async fn wait_for_letters(pi: &Pi, user: &str, count: usize) -> anyhow::Result<()> {
    pi.wait_until("waiting", || async {
        let users = pi.client.users().await?;
        let waiting = users.iter().find(|u| u.user == user).map(|u| u.waiting);
        Ok((waiting == Some(count)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn delivered_and_read_are_two_events() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.make("bob", &url).await?;
    agents.register("bob").await?;
    let mut events = pi.client.events().await?;
    agents.send("alice", "bob", "hello").await?;
    let stage = |event| match event {
        EventBody::Letter(news) if news.to == "bob" => Some(news.stage),
        _ => None,
    };
    assert_eq!(
        Pi::wait_for_event(&mut events, stage).await?,
        Stage::Delivered
    );

    agents.login("bob").await?;
    agents.connect("bob").await?;

    assert_eq!(Pi::wait_for_event(&mut events, stage).await?, Stage::Read);
    Ok(())
}

#[tokio::test]
async fn all_connections_of_a_user_get_everything_and_none_is_evicted() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let seed = "77".repeat(32);
    for device in ["phone", "desk", "agent"] {
        agents.make_with(device, "bob", &url, &seed).await?;
        agents.arrive(device).await?;
    }

    agents.send("alice", "bob", "one").await?;
    for device in ["phone", "desk", "agent"] {
        assert_eq!(agents.text(device).await?.0, "one", "{device}");
    }
    agents.close("agent").await?;
    agents.send("alice", "bob", "two").await?;
    for device in ["phone", "desk"] {
        assert_eq!(agents.text(device).await?.0, "two", "{device}");
    }
    agents.send("phone", "bob", "to myself").await?;
    for device in ["phone", "desk"] {
        assert_eq!(agents.text(device).await?.0, "to myself", "{device}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_else_once_also_who_is_away() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    for user in ["alice", "bob", "carol"] {
        agents.enter(user, &url).await?;
    }
    agents.close("carol").await?;

    agents.send("alice", "broadcast", "all hands").await?;
    assert_eq!(
        agents.text("bob").await?,
        ("all hands".to_owned(), "verified".to_owned())
    );
    agents.connect("carol").await?;
    assert_eq!(agents.text("carol").await?.0, "all hands");

    // It does not come again at the next connect, and never to its sender.
    for user in ["alice", "bob", "carol"] {
        agents.close(user).await?;
        agents.connect(user).await?;
    }
    agents.send("bob", "alice", "x").await?;
    assert_eq!(agents.text("alice").await?.0, "x");
    for user in ["bob", "carol"] {
        agents.send("alice", user, "y").await?;
        assert_eq!(agents.text(user).await?.0, "y", "{user}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_survives_a_restart_and_ends_with_a_logout() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;
    for user in ["alice", "bob"] {
        agents.stay(user).await?;
    }
    let pi = pi.restart().await?;
    for user in ["alice", "bob"] {
        agents
            .until("reconnected", |event| event["as"] == user)
            .await?;
    }
    agents.send("alice", "bob", "still here").await?;
    assert_eq!(agents.text("bob").await?.0, "still here");

    let mut logout = post("/auth/logout", json!(null));
    logout["bearer"] = json!(true);
    assert_eq!(agents.http(logout).await?.0, 200);
    // The restart closed it, too.
    while agents.closed("alice").await? != 1008 {}
    let pi = pi.restart().await?;
    let token = agents.token("alice").await?;
    let path = format!("/ws?token={token}");
    let (status, text) = agents.http(get(&path)).await?;
    assert_eq!(
        (status, text.as_str()),
        (401, "Invalid token: the token was revoked\n")
    );
    let log = pi.log()?;
    assert!(!log.contains("eyJ"), "no token is in the log");
    Ok(())
}

#[tokio::test]
async fn after_its_end_a_token_is_good_for_ws_alone_and_not_for_ever() -> anyhow::Result<()> {
    let world = World::new()?;
    let limits = "[gateway.syft.limits]\ntoken_lifetime = \"1s\"\ntoken_grace = \"30d\"";
    let (_pi, url) = syft::start(&world, "pi-1", limits).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let mut describe = post("/user/descriptions", json!(["x"]));
    describe["bearer"] = json!(true);
    let ended = eventually("the end of a token", async || {
        let answer = agents.http(describe.clone()).await?;
        ensure!(answer.0 != 200, "{answer:?}");
        Ok(answer)
    });
    let (status, text) = ended.await?;
    let expected = "Invalid token: token validation failed: token is expired\n";
    assert_eq!((status, text.as_str()), (401, expected));

    agents.connect("alice").await?;

    let token = agents.token("alice").await?;
    let bearer = format!("Bearer {token}");
    let mut header = get("/ws");
    header["headers"] = json!({"Authorization": bearer});
    let (status, text) = agents.http(header).await?;
    assert_eq!(
        (status, text.as_str()),
        (400, "Bad Request\n"),
        "the token was taken"
    );
    Ok(())
}

#[tokio::test]
async fn an_orderly_shutdown_says_goodbye() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    let process = pi.child.id().expect("it runs").to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &process])
        .status()?;
    assert!(killed.success());
    assert_eq!(agents.closed("alice").await?, 1012);
    Ok(())
}

#[tokio::test]
async fn a_gateway_with_a_certificate_of_its_own_speaks_tls() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "tls = \"self-signed\"").await?;
    let url = url.replace("http:", "https:");
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;
    agents.send("alice", "bob", "behind TLS").await?;
    assert_eq!(agents.text("bob").await?.0, "behind TLS");
    let log = pi.log()?;
    assert!(log.contains("sha256"), "its fingerprint is shown");
    Ok(())
}
