//! Requests over HTTP that a user's own agent answers over its WebSocket, as Go's does.

use pimesh_tests::{
    World,
    syft::{self, Agents},
};
use serde_json::{Value, json};

fn post(path: &str, body: Value) -> Value {
    json!({"as": "alice", "method": "POST", "path": path, "body": body, "bearer": true})
}

fn question(text: &str) -> Value {
    post(
        "/direct-message/",
        json!({"type": "forward", "query": text}),
    )
}

async fn asked(agents: &mut Agents, order: Value) -> anyhow::Result<(u64, Value)> {
    let (status, text) = agents.http(order).await?;
    Ok((status, serde_json::from_str(&text)?))
}

#[tokio::test]
async fn an_agent_answers_its_own_user_and_only_him() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;
    for user in ["alice", "bob"] {
        agents
            .order(json!({"do": "serve", "as": user}), "serves")
            .await?;
    }

    let answered = asked(&mut agents, question("the \"way\" <home>")).await?;
    let expected = json!({"success": true, "answer": "alice knows the \"way\" <home>"});
    assert_eq!(answered, (200, expected));

    let document = json!({"type": "forward", "filename": "a.txt", "content": "one",
        "metadata": {"by": "alice"}});
    let refused = json!({"filename": "refused", "content": "two"});
    for (path, document, success, says, kind) in [
        (
            "/register-document/",
            &document,
            true,
            "register_document a.txt: one {'by': 'alice'}",
            "register_document_success",
        ),
        (
            "/append-document/",
            &refused,
            false,
            "append_document refused: two None",
            "register_document_error",
        ),
    ] {
        let answered = asked(&mut agents, post(path, document.clone())).await?;
        let expected = json!({"success": success, "message": says, "type": kind});
        assert_eq!(answered, (200, expected));
    }

    let order = json!({"do": "ask_many", "as": "alice", "count": 8});
    let answers = agents.order(order, "answers").await?["answers"].clone();
    for (number, answer) in answers.as_array().into_iter().flatten().enumerate() {
        let text = answer[1].as_str().unwrap_or_default();
        let says = format!("alice knows question {number}");
        assert_eq!(answer[0], 200, "{text}");
        assert_eq!(serde_json::from_str::<Value>(text)?["answer"], says);
    }

    // Nothing of it became a letter, at any of the two.
    agents.send("bob", "alice", "a letter").await?;
    agents.send("alice", "bob", "another").await?;
    assert_eq!(agents.text("alice").await?.0, "a letter");
    assert_eq!(agents.text("bob").await?.0, "another");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_in_json_and_the_flag_of_a_stranger_is_dropped()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;

    let mut without_token = question("x");
    without_token["bearer"] = json!(false);
    let mut got = question("x");
    got["method"] = json!("GET");
    let long = "\"".repeat(200_000);
    for (order, status, says) in [
        (without_token, 401, "Missing Authorization header"),
        (got, 405, "Method not allowed"),
        (
            post("/direct-message/", json!("{")),
            400,
            "Invalid JSON payload",
        ),
        (
            post("/direct-message/", json!({"type": "x"})),
            400,
            "Type must be 'forward'",
        ),
        (
            post("/register-document/", json!({"filename": "a"})),
            400,
            "Filename and content are required",
        ),
        (
            question(&long),
            413,
            "The request makes a frame of more than 1048576 bytes",
        ),
        (
            question(&"x".repeat(600_000)),
            413,
            "A body has at most 524288 bytes",
        ),
    ] {
        let answered = asked(&mut agents, order).await?;
        assert_eq!(answered, (status, json!({"error": true, "message": says})));
    }

    // A Go client acts on any frame with the flag, whoever it is from.
    let changes = json!({"is_forward_message": true});
    let order = json!({"do": "send", "as": "bob", "to": "alice", "text": "x", "changes": changes});
    agents.order(order, "sent").await?;
    let message = agents.message("alice").await?;
    let raw: Value = serde_json::from_str(message["raw"].as_str().unwrap_or_default())?;
    assert_eq!(raw.get("is_forward_message"), None);
    let forged = json!({"from": "bob", "to": "alice", "timestamp": "2026-11-21T00:00:00Z",
        "content": "{\"type\":\"forward\",\"message\":\"x\"}", "is_forward_message": true});
    let order = json!({"do": "raw", "as": "bob", "text": forged.to_string()});
    agents.order(order, "sent").await?;
    let told = agents.system("bob").await?;
    assert_eq!(told["status"], "error", "{told}");

    agents.close("alice").await?;
    // Gone from the gateway, too, as soon as nobody is listed under the name.
    let (mut status, mut answer) = asked(&mut agents, question("x")).await?;
    while answer["message"] != "No agent of this user is connected" {
        (status, answer) = asked(&mut agents, question("x")).await?;
    }
    assert_eq!(status, 504);
    Ok(())
}
