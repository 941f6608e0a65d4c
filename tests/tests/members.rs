//! What is done about members: tickets that are listed and cancelled, names that change, several
//! indices, the mesh key in several hands, leaving, and the way out when its only holder is gone.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, ensure};
use pimesh_node::{
    control::api::NewInvite,
    state::report::{Left, OpenInvite, Peer, Renamed},
};
use pimesh_tests::{Pi, World, eventually, pimesh};
use serde_json::Value;

#[tokio::test]
async fn a_cancelled_ticket_is_out_of_the_list_and_refused_with_the_reason() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let b = world.start("b").await?;
    let (code, ticket, err) = pimesh(&a.home, &["invite", "--name", "kitchen"]).await?;
    assert_eq!(code, 0, "{err}");

    let (_, table, _) = pimesh(&a.home, &["invite", "--list"]).await?;
    let (_, listed, _) = pimesh(&a.home, &["--json", "invite", "--list"]).await?;
    let listed: OpenInvite = serde_json::from_str(listed.trim())?;
    let (code, said, err) = pimesh(&a.home, &["invite", "--cancel", &listed.id]).await?;
    assert_eq!(code, 0, "{err}");
    let (_, empty, _) = pimesh(&a.home, &["--json", "invite", "--list"]).await?;
    let (code, _, refused) = pimesh(&b.home, &["join", ticket.trim()]).await?;

    assert!(
        table.contains("kitchen") && table.contains(&listed.id),
        "{table}"
    );
    let secret = ticket.trim().strip_prefix("pimesh1:").expect("a ticket");
    assert!(!table.contains(secret), "the ticket's text is not kept");
    assert!(
        said.contains("cancelled") && said.contains("kitchen"),
        "{said}"
    );
    assert_eq!(empty, "");
    assert_eq!(code, 6);
    assert!(refused.contains("the ticket was cancelled"), "{refused}");

    let (code, _, err) = pimesh(&a.home, &["invite", "--cancel"]).await?;
    assert!(code != 0 && err.contains("--all"), "{err}");
    pimesh(&a.home, &["invite"]).await?;
    let (_, all, _) = pimesh(&a.home, &["--json", "invite", "--cancel", "--all"]).await?;
    assert_eq!(all.lines().count(), 1, "{all}");
    Ok(())
}

#[tokio::test]
async fn a_renamed_member_keeps_its_messages_and_history_shows_both_names() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b, c] = world.mesh(["a", "b", "c"]).await?;
    b.send("a", "before").await?;
    a.wait_for_inbox(1).await?;

    let (code, _, err) = pimesh(&b.home, &["rename", "kitchen"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("mesh key"), "{err}");
    let (code, _, err) = pimesh(&a.home, &["rename", "b", "c"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("`c`"), "{err}");
    let (code, said, err) = pimesh(&a.home, &["--json", "rename", "b", "kitchen"]).await?;
    assert_eq!(code, 0, "{err}");
    let said: Renamed = serde_json::from_str(said.trim())?;
    assert_eq!((said.was.as_str(), said.name.as_str()), ("b", "kitchen"));
    for pi in [&b, &c] {
        eventually("the new name", async || {
            let peers = pi.client.peers().await?;
            anyhow::ensure!(peers.iter().any(|peer| peer.name == "kitchen"));
            Ok(())
        })
        .await?;
    }
    b.send("a", "after").await?;
    a.wait_for_inbox(2).await?;
    a.send("kitchen", "to it").await?;
    b.wait_for_inbox(1).await?;

    let (_, shown, _) = pimesh(&a.home, &["inbox"]).await?;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].contains("kitchen (was b): before"), "{shown}");
    assert!(lines[1].contains("kitchen: after"), "{shown}");
    let (_, by_old_name, _) = pimesh(&a.home, &["inbox", "--from", "b"]).await?;
    assert_eq!(by_old_name, shown);

    let (code, _, err) = pimesh(&a.home, &["peers", "remove", "kitchen", "--yes"]).await?;
    assert_eq!(code, 0, "{err}");
    let a = a.restart().await?;
    let (_, removed, _) = pimesh(&a.home, &["inbox"]).await?;
    assert_eq!(removed, shown, "the name outlasts removal and restart");
    Ok(())
}

/// Runs a command that must succeed; returns what it printed.
async fn done(pi: &Pi, args: &[&str]) -> anyhow::Result<String> {
    let (code, out, err) = pimesh(&pi.home, args).await?;
    ensure!(code == 0, "{args:?} on {}: {err}", pi.name);
    Ok(out)
}

#[tokio::test]
async fn a_member_with_several_indices_speaks_for_each_and_last_values_are_shown()
-> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let b = world.start("b").await?;
    let indices = ["--index", "7", "--index", "100..109"];
    let ticket = done(&a, &[&["invite"][..], &indices].concat()).await?;
    let (code, _, err) = pimesh(&a.home, &["invite", "--index", "99..100"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("index 100 is taken"), "{err}");
    done(&b, &["join", ticket.trim()]).await?;
    b.wait_for_peers(1).await?;

    eventually("its indices", async || {
        let peers = done(&b, &["peers"]).await?;
        ensure!(peers.contains("7, 100..109"), "{peers}");
        Ok(())
    })
    .await?;
    done(&b, &["int", "20", "--index", "105"]).await?;
    done(&b, &["int", "21"]).await?;
    done(&b, &["int", "22", "--index", "5000"]).await?;
    let said = done(&a, &["peers", "indices", "b", "105", "200..201"]).await?;
    assert_eq!(said, "b owns 7, 105, 200..201\n");
    eventually("its other indices", async || {
        let peers = done(&b, &["peers"]).await?;
        ensure!(peers.contains("7, 105, 200..201"), "{peers}");
        Ok(())
    })
    .await?;
    let (code, _, err) = pimesh(&a.home, &["peers", "indices", "b"]).await?;
    assert!(code == 2 && err.contains("<INDEX>"), "{err}");
    let (code, _, err) = pimesh(&b.home, &["int", "23", "--index", "1"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("index 1 is that of `a`"), "{err}");

    for (index, value, bridged) in [(105, 20, false), (7, 21, false), (5000, 22, true)] {
        let index = index.to_string();
        let last = eventually("the value", async || {
            done(&a, &["--json", "int", "--last", &index]).await
        });
        let last: Value = serde_json::from_str(last.await?.trim())?;
        assert_eq!(last["value"], value, "{last}");
        assert_eq!(last["from"], "b", "{last}");
        assert_eq!(last["bridged"], bridged, "{last}");
        assert!(
            last["age_ms"].as_u64().is_some_and(|age| age < 600_000),
            "{last}"
        );
    }
    let table = done(&a, &["int", "--last"]).await?;
    assert_eq!(table.lines().count(), 4, "{table}");
    let (code, out, err) = pimesh(&a.home, &["int", "--last", "7", "-3"]).await?;
    assert_eq!(code, 4);
    assert!(
        out.contains("21") && err.contains("no value of index -3"),
        "{out}{err}"
    );
    Ok(())
}

#[tokio::test]
async fn the_mesh_key_is_shared_and_the_second_holder_invites_at_once() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let c = world.start("c").await?;
    eventually("the warning", async || {
        let doctor = pimesh(&b.home, &["doctor"]).await?.1;
        ensure!(doctor.contains("`a` alone holds the mesh key"), "{doctor}");
        let status = done(&b, &["status"]).await?;
        ensure!(status.contains("held by a; never exported"), "{status}");
        Ok(())
    })
    .await?;
    let (code, _, err) = pimesh(&b.home, &["mesh-key", "share", "a"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("`a` can"), "{err}");

    let said = done(&a, &["mesh-key", "share", "b"]).await?;

    assert_eq!(said, "b holds the mesh key, too\n");
    let file = std::fs::metadata(b.home.join("mesh.key"))?;
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(
        b.log()?
            .contains("this node holds the mesh key from here on")
    );
    let log = b.log()?;
    let key = std::fs::read_to_string(b.home.join("mesh.key"))?;
    let secret = key.lines().nth(1).context("two lines")?;
    assert!(!log.contains(secret), "no secret in a log");
    c.join(&b).await?;
    eventually("all three know both holders", async || {
        for pi in [&a, &b, &c] {
            let status = done(pi, &["--json", "status"]).await?;
            let status: Value = serde_json::from_str(&status)?;
            let mut holders: Vec<&str> = status["mesh_key_holders"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            holders.sort_unstable();
            ensure!(holders == ["a", "b"], "{status}");
            ensure!(status["mesh_key_warning"].is_null(), "{status}");
        }
        Ok(())
    })
    .await?;
    let b = b.restart().await?;
    done(&b, &["invite"]).await?;

    let (code, said, note) = pimesh(&a.home, &["peers", "remove", "b", "--yes"]).await?;
    let status = done(&a, &["status"]).await?;
    assert_eq!(code, 0, "{note}");
    assert!(said.starts_with("removed b"), "{said}");
    assert!(note.contains("does not take it away"), "{note}");
    assert!(status.contains("`b` was removed and still has"), "{status}");
    Ok(())
}

#[tokio::test]
async fn an_export_is_remembered_and_ends_the_warning_everywhere() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let file = a.home.join("backup");
    let mut export = tokio::process::Command::new(pimesh_tests::program())
        .arg("--home")
        .arg(&a.home)
        .args(["mesh-key", "export"])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let mut stdin = export.stdin.take().context("piped")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"correct horse\n").await?;
    drop(stdin);
    ensure!(export.wait().await?.success());

    let told = async |pi: &Pi| {
        eventually("the export", async || {
            let status = done(pi, &["status"]).await?;
            ensure!(status.contains("held by a; exported"), "{status}");
            ensure!(!status.contains("alone holds"), "{status}");
            Ok(())
        })
        .await
    };
    told(&b).await?;
    let a = a.restart().await?;
    told(&a).await
}

#[tokio::test]
async fn a_node_that_leaves_keeps_its_history_and_may_come_back() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b, c] = world.mesh(["a", "b", "c"]).await?;
    b.send("a", "from b").await?;
    a.send("b", "from a").await?;
    a.wait_for_inbox(1).await?;
    b.wait_for_inbox(1).await?;
    done(&b, &["int", "5"]).await?;
    let (code, _, err) = pimesh(&b.home, &["leave"]).await?;
    assert_eq!(code, 2);
    assert!(err.contains("--yes"), "{err}");

    let left = done(&b, &["--json", "leave", "--yes"]).await?;

    let left: Left = serde_json::from_str(left.trim())?;
    let mut told = left.told.clone();
    told.sort();
    assert_eq!(told, ["a", "c"]);
    for pi in [&a, &c] {
        eventually("b is gone", async || {
            let peers = pi.client.peers().await?;
            ensure!(peers.iter().all(|peer| peer.name != "b"));
            Ok(())
        })
        .await?;
    }
    let shown = done(&a, &["inbox"]).await?;
    assert!(shown.contains("b: from b"), "{shown}");
    let b = b.restart().await?;
    let shown = done(&b, &["inbox"]).await?;
    assert!(shown.contains("a: from a"), "{shown}");
    let status = b.client.status().await?.node;
    assert_eq!((status.members, status.may_invite), (1, true));
    assert_eq!(status.mesh, left.own_mesh);
    let none = done(&b, &["--json", "int", "--last"]).await?;
    assert_eq!(none, "", "last values of the old mesh are gone");

    done(&b, &["rename", "bee"]).await?;
    let ticket = a.client.invite(&NewInvite::default()).await?.ticket;
    done(&b, &["join", &ticket]).await?;
    assert_eq!(
        b.client.status().await?.node.name,
        "bee",
        "as it is called now"
    );
    b.wait_for_peers(2).await?;
    b.send("c", "back").await?;
    assert_eq!(c.wait_for_inbox(1).await?, ["back"]);
    Ok(())
}

#[tokio::test]
async fn a_goodbye_that_nobody_heard_is_heard_when_the_others_are_back() -> anyhow::Result<()> {
    let world = World::new()?;
    let [mut a, b] = world.mesh(["a", "b"]).await?;
    eventually("a knows where b listens", async || {
        let peers = a.client.peers().await?;
        let knows = |peer: &Peer| peer.name == "b" && !peer.addresses.is_empty();
        ensure!(peers.iter().any(knows), "{peers:?}");
        Ok(())
    })
    .await?;
    // What is on disk is so in order: with this message, the addresses are.
    a.send("b", "hello").await?;
    a.child.kill().await?;
    b.wait_for_peers(0).await?;

    let said = done(&b, &["leave", "--yes"]).await?;
    let b = b.restart().await?;
    let a = a.restart().await?;

    assert!(said.contains("nobody has heard it: a"), "{said}");
    eventually("a knows that b left", async || {
        let peers = a.client.peers().await?;
        ensure!(peers.iter().all(|peer| peer.name != "b"), "{peers:?}");
        Ok(())
    })
    .await?;
    let ticket = a.client.invite(&NewInvite::default()).await?.ticket;
    done(&b, &["join", &ticket]).await?;
    b.wait_for_peers(1).await?;
    Ok(())
}

#[tokio::test]
async fn when_the_only_holder_is_gone_the_others_found_a_new_mesh() -> anyhow::Result<()> {
    let world = World::new()?;
    let [mut a, b, c] = world.mesh(["a", "b", "c"]).await?;
    a.send("b", "from a").await?;
    c.send("b", "from c").await?;
    b.wait_for_inbox(2).await?;
    let (code, _, err) = pimesh(&a.home, &["leave"]).await?;
    assert!(code == 2 && err.contains("--yes"), "{err}");
    a.child.kill().await?;
    for pi in [&b, &c] {
        pi.wait_for_peers(1).await?;
    }

    let (code, _, err) = pimesh(&b.home, &["invite"]).await?;
    assert!(code == 1 && err.contains("`a` can"), "{err}");
    done(&b, &["leave", "--yes"]).await?;
    let ticket = done(&b, &["invite"]).await?;
    done(&c, &["leave", "--yes"]).await?;
    done(&c, &["join", ticket.trim()]).await?;
    b.wait_for_peers(1).await?;
    c.send("b", "again").await?;
    b.wait_for_inbox(3).await?;

    let shown = done(&b, &["inbox"]).await?;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].contains("a: from a"), "{shown}");
    assert!(lines[1].contains("c: from c"), "{shown}");
    assert!(lines[2].contains("c: again"), "{shown}");
    let peers = b.client.peers().await?;
    assert_eq!(peers.len(), 2, "the lost node is no member of the new mesh");
    Ok(())
}
