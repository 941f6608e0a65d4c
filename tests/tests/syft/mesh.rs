//! Gateways on two nodes, and nodes without a gateway.

use anyhow::ensure;
use pimesh_node::control::{api::EventBody, client::Client};
use pimesh_tests::{
    Pi, World, eventually,
    lan::Lan,
    pimesh,
    syft::{self, Agents},
};
use serde_json::{Value, json};

/// Messages of which each has to be verified: three of a hundred would be by chance.
const MESSAGES: usize = 10;

/// Two nodes with a gateway each, in one mesh.
async fn gateways(world: &World) -> anyhow::Result<([Pi; 2], [String; 2])> {
    let (one, first) = syft::start(world, "pi-1", "").await?;
    let (two, second) = syft::start(world, "pi-2", "").await?;
    two.join(&one).await?;
    for pi in [&one, &two] {
        pi.wait_for_peers(1).await?;
    }
    Ok(([one, two], [first, second]))
}

/// Waits until a node knows a user, online or not.
async fn wait_for_user(pi: &Pi, name: &str, online: bool) -> anyhow::Result<()> {
    pi.wait_until("knowing the user", || async {
        let users = pi.client.users().await?;
        let known = users.iter().find(|user| user.name == name);
        Ok(known.filter(|user| user.online == online).map(drop))
    })
    .await
}

#[tokio::test]
async fn users_of_two_gateways_see_each_other_and_write_unopened() -> anyhow::Result<()> {
    let world = World::new()?;
    let ([one, two], [first, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &first).await?;
    agents.enter("bob", &second).await?;
    wait_for_user(&one, "bob", true).await?;
    wait_for_user(&two, "alice", true).await?;

    let sent = agents.send("alice", "bob", "hello over there").await?;
    let got = agents.message("bob").await?;
    assert_eq!(
        (&got["text"], &got["status"]),
        (&json!("hello over there"), &json!("verified"))
    );
    let sent: Value = serde_json::from_str(sent["frame"].as_str().expect("a frame"))?;
    let raw: Value = serde_json::from_str(got["raw"].as_str().expect("a frame"))?;
    for member in ["from", "to", "timestamp", "content", "signature"] {
        assert_eq!(raw[member], sent[member], "{member}");
    }
    let description = json!({"as": "bob", "method": "POST", "path": "/user/descriptions",
        "body": ["cooks"], "bearer": true});
    agents.http(description).await?;
    let read = json!({"as": "alice", "method": "GET", "path": "/user/descriptions/bob"});
    eventually("a description that spreads", async || {
        let (_, texts) = agents.http(read.clone()).await?;
        ensure!(texts == r#"["cooks"]"#, "{texts}");
        Ok(())
    })
    .await?;
    let taken = json!({"as": "alice", "method": "POST", "path": "/auth/register",
        "body": {"user_id": "bob", "username": "", "public_key": agents.make("x", &first).await?["key"]}});
    let (status, text) = agents.http(taken).await?;
    assert_eq!(status, 409);
    assert_eq!(
        text,
        "Registration error: `bob` is registered at the node `pi-2`\n"
    );
    Ok(())
}

#[tokio::test]
async fn clients_of_other_languages_verify_what_their_signatures_allow() -> anyhow::Result<()> {
    let world = World::new()?;
    let ([_one, two], [first, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    let languages = ["python", "go", "electron"];
    for language in languages {
        for (place, url) in [("here", &first), ("there", &second)] {
            let user = format!("{language}-{place}");
            agents.enter_in(language, &user, url).await?;
        }
        wait_for_user(&two, &format!("{language}-here"), true).await?;
    }
    // Python's number is one that Go can be shown, but for Go's and JavaScript's there is seldom a
    // time from which Python computes them; JavaScript reads whole milliseconds.
    let always = [
        ("python", "python"),
        ("python", "go"),
        ("go", "go"),
        ("electron", "go"),
        ("electron", "electron"),
    ];

    for (from, to) in always {
        for place in ["here", "there"] {
            let (from, to) = (format!("{from}-here"), format!("{to}-{place}"));
            if from == to {
                continue;
            }
            for number in 0..MESSAGES {
                let text = format!("{number} from {from}");
                agents.send(&from, &to, &text).await?;
                assert_eq!(
                    agents.text(&to).await?,
                    (text, "verified".to_owned()),
                    "{to}"
                );
            }
        }
    }
    // A broadcast is one row for all, and each reader gets it in its form.
    agents
        .send("python-here", "broadcast", "all of you")
        .await?;
    for user in ["python-there", "go-here", "go-there"] {
        let got = agents.text(user).await?;
        assert_eq!(
            got,
            ("all of you".to_owned(), "verified".to_owned()),
            "{user}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn presence_spreads_within_two_seconds() -> anyhow::Result<()> {
    let world = World::new()?;
    let ([one, two], [_, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    let mut events = one.client.events().await?;
    let presence = |wanted: bool| {
        move |event| match event {
            EventBody::Presence { name, online } if name == "bob" => {
                (online == wanted).then_some(())
            }
            _ => None,
        }
    };
    agents.enter("bob", &second).await?;
    let start = tokio::time::Instant::now();
    Pi::wait_for_event(&mut events, presence(true)).await?;
    assert!(
        start.elapsed() < std::time::Duration::from_secs(2),
        "online"
    );
    agents.close("bob").await?;
    let start = tokio::time::Instant::now();
    Pi::wait_for_event(&mut events, presence(false)).await?;
    assert!(
        start.elapsed() < std::time::Duration::from_secs(2),
        "offline"
    );
    drop(two);
    Ok(())
}

#[tokio::test]
async fn a_broadcast_reaches_the_users_of_all_gateways_once() -> anyhow::Result<()> {
    let world = World::new()?;
    let ([one, two], [first, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    for (user, url) in [
        ("alice", &first),
        ("anna", &first),
        ("bob", &second),
        ("ben", &second),
    ] {
        agents.enter(user, url).await?;
    }
    wait_for_user(&one, "ben", true).await?;
    wait_for_user(&two, "alice", true).await?;
    wait_for_user(&two, "anna", true).await?;
    agents.send("alice", "broadcast", "all hands").await?;
    for user in ["anna", "bob", "ben"] {
        assert_eq!(
            agents.text(user).await?,
            ("all hands".to_owned(), "verified".to_owned())
        );
    }
    for user in ["anna", "bob", "ben"] {
        agents.send("alice", user, "and you").await?;
        assert_eq!(agents.text(user).await?.0, "and you", "{user}");
    }
    agents.send("bob", "alice", "yes").await?;
    assert_eq!(agents.text("alice").await?.0, "yes");
    Ok(())
}

#[tokio::test]
async fn a_user_and_a_plain_node_write_to_each_other() -> anyhow::Result<()> {
    let world = World::new()?;
    let (one, url) = syft::start(&world, "pi-1", "").await?;
    let two = world.start("pi-2").await?;
    two.join(&one).await?;
    for pi in [&one, &two] {
        pi.wait_for_peers(1).await?;
    }
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    wait_for_user(&two, "alice", true).await?;

    // From a node without a gateway, and from the gateway's own node.
    for (pi, to) in [(&two, "alice@pi-1"), (&two, "alice"), (&one, "alice")] {
        let (code, out, err) = pimesh(&pi.home, &["send", to, "door open", "--wait"]).await?;
        assert_eq!(code, 0, "{to}: {err}");
        assert!(out.contains("delivered"), "{out}");
        let got = agents.message("alice").await?;
        assert_eq!(
            (&got["text"], &got["status"]),
            (&json!("door open"), &json!("verified"))
        );
        assert_eq!(got["from"], pi.name.as_str());
    }
    for pi in [&one, &two] {
        agents.send("alice", &pi.name, "hello node").await?;
        let texts = pi.wait_for_inbox(1).await?;
        assert_eq!(texts, ["hello node"]);
        let (_, out, _) = pimesh(&pi.home, &["inbox", "--from", "alice@pi-1"]).await?;
        assert!(out.contains("alice@pi-1 [syft]: hello node"), "{out}");
    }
    // That she has read it comes back.
    two.wait_until("read", || async {
        let (_, out, _) = pimesh(&two.home, &["inbox", "--sent"]).await?;
        Ok((out.matches("to alice@pi-1 (read)").count() == 2).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_message_for_a_user_of_a_node_that_is_away_waits_and_comes_once() -> anyhow::Result<()> {
    const COUNT: usize = 20;
    let world = World::new()?;
    let ([one, two], [first, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &first).await?;
    agents.enter("bob", &second).await?;
    agents.stay("bob").await?;
    wait_for_user(&one, "bob", true).await?;
    wait_for_user(&two, "alice", true).await?;
    let mut two = two;
    two.child.kill().await?;
    agents.send_many("alice", "bob", COUNT).await?;
    // Written to a socket is not on a disk yet; then the power fails there, too.
    eventually("all of them in the outbox", async || {
        let accepted = one.client.outbox().await?.len();
        ensure!(accepted >= COUNT, "{accepted}");
        Ok(())
    })
    .await?;
    let one = one.restart().await?;
    let two = two.restart().await?;
    let texts = agents.texts("bob", COUNT).await?;
    let expected: Vec<String> = (0..COUNT).map(|n| format!("n {n}")).collect();
    assert_eq!(texts, expected);
    agents.connect("alice").await?;
    agents.send("alice", "bob", "last").await?;
    assert_eq!(agents.text("bob").await?.0, "last");
    drop((one, two));
    Ok(())
}

#[tokio::test]
async fn a_pulled_cable_between_two_gateways_loses_and_repeats_nothing() -> anyhow::Result<()> {
    const ARGS: [&str; 3] = ["--no-mdns", "--listen", "/ip4/0.0.0.0/tcp/3615"];
    const COUNT: usize = 30;
    let world = World::new()?;
    let lan = Lan::new().await?;
    let mut pis: Vec<Pi> = Vec::new();
    let mut machines = Vec::new();
    for name in ["pi-1", "pi-2"] {
        syft::configure(&world.home(name), "listen = \"127.0.0.1:8765\"")?;
        let machine = lan.add().await?;
        pis.push(machine.start(&world, name, &ARGS).await?);
        machines.push(machine);
    }
    pis[1].join(&pis[0]).await?;
    for pi in &pis {
        pi.wait_for_peers(1).await?;
    }
    // Agents live on the machines of their gateways, as they would on a desk beside each Pi.
    let mut alice = Agents::start_on(&machines[0]).await?;
    let mut bob = Agents::start_on(&machines[1]).await?;
    alice.enter("alice", "http://127.0.0.1:8765").await?;
    bob.enter("bob", "http://127.0.0.1:8765").await?;
    wait_for_user(&pis[0], "bob", true).await?;
    wait_for_user(&pis[1], "alice", true).await?;
    let many = |from: &str, to: &str| {
        json!({"do": "send_many", "as": from, "to": to, "count": COUNT, "prefix": from,
            "pause": 0.02})
    };
    for _ in 0..2 {
        machines[1].pull().await?;
        alice.order(many("alice", "bob"), "sent_many").await?;
        bob.order(many("bob", "alice"), "sent_many").await?;
        wait_for_user(&pis[0], "bob", false).await?;
        machines[1].plug().await?;
        for (agents, user, from) in [(&mut alice, "alice", "bob"), (&mut bob, "bob", "alice")] {
            let texts = agents.texts(user, COUNT).await?;
            let expected: Vec<String> = (0..COUNT).map(|n| format!("{from} {n}")).collect();
            assert_eq!(texts, expected);
        }
    }
    for (agents, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        agents.send(user, user, "last").await?;
        assert_eq!(agents.text(user).await?.0, "last");
    }
    Ok(())
}

#[tokio::test]
async fn of_one_name_at_two_gateways_each_keeps_it_and_both_are_told() -> anyhow::Result<()> {
    let world = World::new()?;
    let (one, first) = syft::start(&world, "pi-1", "").await?;
    let (two, second) = syft::start(&world, "pi-2", "").await?;
    let mut agents = Agents::start().await?;
    // Registered before the two could hear each other.
    let [seed_one, seed_two] = ["aa".repeat(32), "bb".repeat(32)];
    agents.make_with("first", "bob", &first, &seed_one).await?;
    agents.arrive("first").await?;
    agents
        .make_with("second", "bob", &second, &seed_two)
        .await?;
    agents.arrive("second").await?;
    agents.enter("alice", &first).await?;
    two.join(&one).await?;

    for (name, own, other) in [("second", "pi-2", "pi-1"), ("first", "pi-1", "pi-2")] {
        let told = agents.system(name).await?;
        let text = told["content"].as_str().expect("a text");
        assert!(
            text.contains(&format!("used at the node {other}"))
                && text.contains(&format!("bob@{own}")),
            "{text}"
        );
    }
    // Where the name means somebody else, it sends nothing, and says what to do.
    agents.send("second", "alice", "who is it?").await?;
    let told = agents.system("second").await?;
    let text = told["content"].as_str().expect("a text");
    assert!(text.contains("log in as bob@pi-2"), "{text}");
    let (code, shown, err) = pimesh(&one.home, &["who"]).await?;
    assert_eq!(code, 0, "{err}");
    let other = shown.lines().find(|line| line.starts_with("bob@pi-2 "));
    assert!(
        other.is_some_and(|line| line.contains("`bob` alone may be bob@pi-1")),
        "{shown}"
    );
    let (_, checks, _) = pimesh(&one.home, &["doctor"]).await?;
    assert!(checks.contains("bob@pi-2"), "{checks}");

    // Under the full name he is everywhere.
    agents
        .make_with("full", "bob@pi-2", &second, &seed_two)
        .await?;
    agents.login("full").await?;
    agents.connect("full").await?;
    wait_for_user(&one, "bob@pi-2", true).await?;
    wait_for_user(&two, "alice", true).await?;
    agents.send("alice", "bob@pi-2", "to the second").await?;
    let got = ("to the second".to_owned(), "verified".to_owned());
    assert_eq!(agents.text("full").await?, got);
    agents.send("alice", "bob", "to the first").await?;
    assert_eq!(agents.text("first").await?.0, "to the first");
    agents.send("full", "alice", "from the second").await?;
    let got = ("from the second".to_owned(), "verified".to_owned());
    assert_eq!(agents.text("alice").await?, got);
    Ok(())
}

#[tokio::test]
async fn a_changed_key_is_refused_and_shown_until_it_is_trusted() -> anyhow::Result<()> {
    let world = World::new()?;
    let ([one, two], [first, second]) = gateways(&world).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &first).await?;
    agents.enter("bob", &second).await?;
    wait_for_user(&one, "bob", true).await?;
    let mut events = one.client.events().await?;
    syft::forget_user(&two.client, "bob").await?;
    agents
        .make_with("new", "bob", &second, &"cc".repeat(32))
        .await?;
    agents.arrive("new").await?;

    let changed = |event| match event {
        EventBody::UserKeyChanged { name, .. } => Some(name),
        _ => None,
    };
    assert_eq!(Pi::wait_for_event(&mut events, changed).await?, "bob");
    let shown = |client: Client| async move {
        let users = client.users().await?;
        let bob = users.into_iter().find(|user| user.name == "bob");
        anyhow::Ok(bob.and_then(|user| user.shown))
    };
    assert!(shown(one.client.clone()).await?.is_some());
    wait_for_user(&two, "alice", true).await?;
    agents.send("new", "alice", "it is me").await?;
    let told = agents.system("new").await?;
    assert!(
        told["content"]
            .as_str()
            .expect("text")
            .contains("wrong_signature"),
        "{told}"
    );

    let (code, _, err) = pimesh(&one.home, &["trust", "bob"]).await?;
    assert_eq!(code, 0, "{err}");
    agents.send("new", "alice", "it is me").await?;
    assert_eq!(
        agents.text("alice").await?,
        ("it is me".to_owned(), "verified".to_owned())
    );
    Ok(())
}
