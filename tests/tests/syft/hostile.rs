//! People who do not behave.

use std::collections::BTreeSet;

use pimesh_tests::{
    World,
    syft::{self, Agents},
};
use serde_json::{Value, json};

async fn pair(world: &World, settings: &str) -> anyhow::Result<(pimesh_tests::Pi, String, Agents)> {
    let (pi, url) = syft::start(world, "pi-1", settings).await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;
    agents.enter("bob", &url).await?;
    Ok((pi, url, agents))
}

/// Sends a frame with changed members.
async fn send_changed(agents: &mut Agents, to: &str, changes: Value) -> anyhow::Result<()> {
    let order = json!({"do": "send", "as": "alice", "to": to, "text": "x", "changes": changes});
    agents.order(order, "sent").await?;
    Ok(())
}

#[tokio::test]
async fn nobody_writes_under_the_name_of_another() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;

    for from in ["bob", "system", "nobody", "pi-1", "alice@pi-2"] {
        send_changed(&mut agents, "bob", json!({"from": from})).await?;
        let told = agents.system("alice").await?;
        assert_eq!(told["status"], "error", "{told}");
    }
    agents.send("alice", "bob", "honest").await?;
    assert_eq!(agents.text("bob").await?.0, "honest", "nothing else came");
    Ok(())
}

#[tokio::test]
async fn a_wrong_signature_an_unknown_recipient_and_a_bad_envelope_are_told() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;
    let envelope = json!({"ephemeral_public_key": "AAAA", "key_nonce": "", "encrypted_key": "",
        "data_nonce": "AAAA", "encrypted_content": ""});
    for (changes, says) in [
        (
            json!({"timestamp": "2025-05-16T12:00:00.124Z"}),
            "signature",
        ),
        (json!({"signature": "AAAA"}), "signature"),
        (json!({"to": "nobody", "signature": null}), "no user nobody"),
        (
            json!({"content": "in clear", "signature": null}),
            "envelope",
        ),
        (
            json!({"content": envelope.to_string(), "signature": null}),
            "envelope",
        ),
        (json!({"to": "server", "signature": null}), "no user id"),
    ] {
        send_changed(&mut agents, "bob", changes.clone()).await?;
        let told = agents.system("alice").await?;
        let text = told["content"].as_str().unwrap_or_default();
        assert!(text.contains(says), "{changes}: {text}");
    }
    agents.send("alice", "bob", "good").await?;
    assert_eq!(agents.text("bob").await?.0, "good", "nothing else came");
    Ok(())
}

#[tokio::test]
async fn what_a_client_claims_of_its_frame_is_left_behind() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;
    let claims = json!({"status": "verified", "signature": null, "is_forward_message": true,
        "is_broadcast": true, "id": 77, "extra": "x"});
    send_changed(&mut agents, "bob", claims).await?;
    let got = agents.message("bob").await?;
    assert_eq!(got["status"], "unsigned");
    let raw: Value = serde_json::from_str(got["raw"].as_str().expect("a frame"))?;
    let members: BTreeSet<&str> = raw
        .as_object()
        .expect("one")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        BTreeSet::from(["id", "from", "to", "timestamp", "content"])
    );
    Ok(())
}

#[tokio::test]
async fn what_is_no_message_is_ignored_and_the_connection_stays() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;
    let deep = "[".repeat(100_000);
    let bad = [
        "",
        "{",
        "null",
        "[]",
        "17",
        "\"x\"",
        "{}",
        "{\"from\":\"alice\"}",
        deep.as_str(),
        "{\"from\":1,\"to\":2}",
        "\u{0}",
    ];
    for text in bad {
        let order = json!({"do": "raw", "as": "alice", "text": text});
        agents.order(order, "sent").await?;
    }
    for changes in [
        json!({"timestamp": "yesterday"}),
        json!({"timestamp": 17}),
        json!({"id": "text"}),
        json!({"content": {}}),
    ] {
        send_changed(&mut agents, "bob", changes).await?;
    }
    agents.send("alice", "bob", "still here").await?;
    assert_eq!(agents.text("bob").await?.0, "still here");
    Ok(())
}

#[tokio::test]
async fn the_largest_frame_passes_and_one_byte_more_closes() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;
    let text = "x".repeat(785_000);
    agents.send("alice", "bob", &text).await?;
    assert_eq!(agents.text("bob").await?.0, text);
    let order = json!({"do": "big", "as": "alice", "size": 1_048_576});
    agents.order(order, "sent").await?;
    agents
        .send("alice", "bob", "no message, but no offence")
        .await?;
    assert_eq!(agents.text("bob").await?.0, "no message, but no offence");

    let order = json!({"do": "big", "as": "alice", "size": 1_048_577});
    agents.order(order, "sent").await?;

    assert_eq!(agents.closed("alice").await?, 1009);
    Ok(())
}

#[tokio::test]
async fn a_flood_waits_and_what_is_beyond_is_told_while_pings_are_answered() -> anyhow::Result<()> {
    const SENT: usize = 600;
    let world = World::new()?;
    let limits = "[gateway.syft.limits]\nframes_per_second = 20\nframes_burst = 10";
    let (_pi, _, mut agents) = pair(&world, limits).await?;
    agents.send_many("alice", "bob", SENT).await?;

    let pong = agents
        .order(json!({"do": "ping", "as": "alice"}), "pong")
        .await?;
    assert!(pong["seconds"].as_f64().expect("a number") < 5.0, "{pong}");
    let told = agents.system("alice").await?;
    assert_eq!(told["content"], "Rate limit exceeded. Please slow down.");
    // Ten at once, and 256 that wait; a few more while it was sent.
    let texts = agents.texts("bob", 266).await?;
    let numbers: Vec<usize> = texts
        .iter()
        .map(|text| text[2..].parse().expect("one"))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers[..266], (0..266).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn who_never_reads_loses_his_own_connection_and_nothing_else() -> anyhow::Result<()> {
    const COUNT: usize = 24;
    let world = World::new()?;
    let (pi, url, mut agents) = pair(&world, "").await?;
    agents.make("deaf", &url).await?;
    agents.register("deaf").await?;
    agents.login("deaf").await?;
    agents
        .order(json!({"do": "deaf", "as": "deaf"}), "connected")
        .await?;
    // More than all buffers of the system hold.
    let text = "x".repeat(700_000);
    for _ in 0..COUNT {
        agents.send("alice", "deaf", &text).await?;
        agents.send("alice", "bob", "meanwhile").await?;
    }
    let texts = agents.texts("bob", COUNT).await?;
    assert_eq!(texts, vec!["meanwhile"; COUNT]);
    pi.wait_until("rid of it", || async {
        let clients = pi.client.clients().await?;
        let is_here = clients
            .iter()
            .any(|client| client.name.as_deref() == Some("deaf"));
        Ok((!is_here).then_some(()))
    })
    .await?;

    agents.connect("deaf").await?;
    assert_eq!(agents.texts("deaf", COUNT).await?, vec![text; COUNT]);
    Ok(())
}

#[tokio::test]
async fn a_challenge_is_good_once_and_only_for_its_user() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, _, mut agents) = pair(&world, "").await?;
    let challenge = agents
        .order(json!({"do": "challenge", "as": "alice"}), "challenge")
        .await?;
    let answer = |user: &str| {
        json!({"as": "alice", "method": "POST",
        "path": "/auth/login?verify=true",
        "body": {"user_id": user, "signature": challenge["signature"]}})
    };
    let (status, text) = agents.http(answer("bob")).await?;
    assert_eq!((status, text.as_str()), (400, "No challenge found\n"));
    assert_eq!(agents.http(answer("alice")).await?.0, 200);
    let (status, text) = agents.http(answer("alice")).await?;
    assert_eq!(
        (status, text.as_str()),
        (400, "No challenge found\n"),
        "it is used up"
    );

    agents
        .order(json!({"do": "challenge", "as": "alice"}), "challenge")
        .await?;
    let (status, text) = agents.http(answer("alice")).await?;
    assert_eq!(
        (status, text.as_str()),
        (401, "Authentication failed\n"),
        "an old signature"
    );
    Ok(())
}

#[tokio::test]
async fn a_stolen_token_speaks_for_its_user_only_and_ends_with_him() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url, mut agents) = pair(&world, "").await?;
    let token = agents.token("alice").await?;
    agents.make("thief", &url).await?;
    let order = json!({"do": "token", "as": "thief", "token": token});
    agents.order(order, "token").await?;
    agents.connect("thief").await?;
    // He has not her key: what he signs is refused.
    let order = json!({"do": "send", "as": "thief", "to": "bob", "text": "x",
        "changes": {"from": "alice"}});
    agents.order(order, "sent").await?;
    let told = agents.system("thief").await?;
    assert!(
        told["content"]
            .as_str()
            .expect("text")
            .contains("signature"),
        "{told}"
    );

    syft::forget_user(&pi.client, "alice").await?;

    for client in ["alice", "thief"] {
        assert_eq!(agents.closed(client).await?, 1008);
    }
    let order = json!({"do": "connect", "as": "thief"});
    assert_eq!(agents.order(order, "refused").await?["status"], 401);
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_sent_again_comes_once() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url, mut agents) = pair(&world, "").await?;
    let sent = agents.send("alice", "bob", "once").await?;
    let raw = json!({"do": "raw", "as": "alice", "text": sent["frame"]});
    agents.order(raw.clone(), "sent").await?;
    agents.send("alice", "bob", "two").await?;
    assert_eq!(agents.texts("bob", 2).await?, ["once", "two"]);

    // What he has is on the disk with the next commit.
    super::gateway::wait_for_letters(&pi, "bob", 0).await?;
    agents.enter("carol", &url).await?;
    let _pi = pi.restart().await?;
    for user in ["alice", "bob"] {
        agents.connect(user).await?;
    }
    agents.order(raw, "sent").await?;
    agents.send("alice", "bob", "three").await?;
    assert_eq!(agents.text("bob").await?.0, "three", "also after a restart");
    Ok(())
}

#[tokio::test]
async fn neither_text_nor_key_is_in_the_memory_or_on_the_disk_of_the_node() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let mut agents = Agents::start().await?;
    let seed: String = (0..32u8)
        .map(|n| format!("{:02x}", n.wrapping_mul(73) ^ 0x5c))
        .collect();
    agents.make_with("alice", "alice", &url, &seed).await?;
    agents.arrive("alice").await?;
    agents.enter("bob", &url).await?;
    agents.make("carol", &url).await?;
    agents.register("carol").await?;
    let text = "the heron stands in the reeds at dawn";
    for _ in 0..20 {
        agents.send("alice", "bob", text).await?;
        agents.send("alice", "carol", text).await?;
        agents.send("bob", "alice", text).await?;
        agents.text("bob").await?;
        agents.text("alice").await?;
    }
    let raw_seed: Vec<u8> = (0..32u8).map(|n| n.wrapping_mul(73) ^ 0x5c).collect();
    let process = pi.child.id().expect("it runs");
    let memory = tokio::task::spawn_blocking(move || memory(process)).await??;
    assert!(
        memory.len() > 1_000_000,
        "only {} bytes were read",
        memory.len()
    );
    assert!(find(&memory, b"carol"), "what the node does know is found");
    for secret in [text.as_bytes(), &raw_seed, seed.as_bytes()] {
        assert!(
            !find(&memory, secret),
            "{}",
            String::from_utf8_lossy(secret)
        );
    }
    for entry in std::fs::read_dir(&pi.home)? {
        let path = entry?.path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        for secret in [text.as_bytes(), &raw_seed, seed.as_bytes()] {
            assert!(!find(&bytes, secret), "{}", path.display());
        }
    }
    Ok(())
}

/// Reads what a process has written to its memory.
fn memory(process: u32) -> anyhow::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let file = std::fs::File::open(format!("/proc/{process}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().unwrap_or_default();
        let Some((from, to)) = range.split_once('-') else {
            continue;
        };
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // Some pages are the system's, and cannot be read.
        if file.read_exact_at(&mut bytes, from).is_ok() {
            all.extend_from_slice(&bytes);
        }
    }
    Ok(all)
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
