//! A home folder that lacks a part: the node says which, makes nothing new, and starts again when
//! the part is back.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use pimesh_tests::{PATIENCE, World, eventually, pimesh, program};

const RUN: [&str; 4] = ["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// Tries to start a node that must not start; returns what it says.
async fn refusal(home: &Path, more: &[&str]) -> anyhow::Result<String> {
    // Building the program is no part of the time that a refusal may take.
    assert!(program().is_absolute());
    let args: Vec<&str> = RUN.iter().chain(more).copied().collect();
    let ended = tokio::time::timeout(PATIENCE, pimesh(home, &args)).await;
    let (code, out, err) = ended.context("it runs, and must not")??;
    ensure!(code == 1 && out.is_empty(), "{code} {out} {err}");
    Ok(err)
}

fn files(home: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(home)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy();
        if path.is_file() && name != "pimesh.lock" {
            all.push((name.into_owned(), fs::read(&path)?));
        }
    }
    all.sort();
    Ok(all)
}

#[tokio::test]
async fn a_node_that_lacks_a_file_says_which_and_starts_when_it_is_back() -> anyhow::Result<()> {
    let world = World::new()?;
    let mut a = world.start("a").await?;
    let peer = a.client.status().await?.node.peer_id;
    eventually("the RSA key", async || {
        Ok(fs::metadata(a.home.join("rsa.key"))?)
    })
    .await?;
    let (home, aside) = (a.home.clone(), world.home("aside"));
    // As a power cut leaves it, with the log of the store.
    a.child.kill().await?;
    fs::create_dir(&aside)?;
    let sets: [&[&str]; 8] = [
        &["node.key"],
        &["messaging.key"],
        &["mesh.key"],
        &["rsa.key"],
        &["pimesh.db", "pimesh.db-wal", "pimesh.db-shm"],
        &["pimesh.db-wal"],
        &["pimesh.db-wal", "pimesh.db-shm"],
        &["node.key", "messaging.key", "mesh.key", "rsa.key"],
    ];

    for set in sets {
        for file in set {
            fs::rename(home.join(file), aside.join(file))?;
        }
        let before = files(&home)?;

        let said = refusal(&home, &[]).await?;

        let named = said.contains(set[0]) && said.contains("hint: restore it");
        ensure!(named && said.contains("home begin-anew"), "{set:?}: {said}");
        assert_eq!(files(&home)?, before, "{set:?}: nothing is made");
        for file in set {
            fs::rename(aside.join(file), home.join(file))?;
        }
    }
    let store = fs::read(home.join("pimesh.db"))?;
    fs::write(home.join("pimesh.db"), "")?;
    fs::rename(home.join("pimesh.db-wal"), aside.join("pimesh.db-wal"))?;
    fs::remove_file(home.join("pimesh.db-shm"))?;
    let said = refusal(&home, &[]).await?;
    ensure!(said.contains("lacks pimesh.db"), "{said}");
    fs::write(home.join("pimesh.db"), store)?;
    fs::rename(aside.join("pimesh.db-wal"), home.join("pimesh.db-wal"))?;

    let a = world.start("a").await?;
    assert_eq!(a.client.status().await?.node.peer_id, peer);
    Ok(())
}

#[tokio::test]
async fn another_nodes_messaging_key_is_noticed_and_nothing_is_lost() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    let mut stranger = world.start("stranger").await?;
    stranger.child.kill().await?;
    b.child.kill().await?;
    let (key, kept) = (b.home.join("messaging.key"), world.home("kept"));
    fs::rename(&key, &kept)?;
    fs::copy(stranger.home.join("messaging.key"), &key)?;

    a.send("b", "meanwhile").await?;
    let said = refusal(&b.home, &[]).await?;

    ensure!(said.contains("`messaging.key` is not the key"), "{said}");
    fs::rename(&kept, &key)?;
    let b = b.restart().await?;
    assert_eq!(b.wait_for_inbox(1).await?, ["meanwhile"]);
    Ok(())
}

#[tokio::test]
async fn a_node_goes_on_without_a_lost_file_or_begins_anew_when_told() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let peer = b.client.status().await?.node.peer_id;
    let (code, _, running) = pimesh(&b.home, &["home", "begin-anew", "--yes"]).await?;
    ensure!(code == 1 && running.contains("another pimesh"), "{running}");
    let mut b = b;
    b.child.kill().await?;
    fs::remove_file(b.home.join("node.key"))?;

    let (code, shown, err) = pimesh(&b.home, &["home", "show"]).await?;
    ensure!(
        code == 0 && shown.contains("node.key       MISSING"),
        "{shown}{err}"
    );
    let (code, _, err) = pimesh(&b.home, &["home", "forget", "node.key"]).await?;
    ensure!(code == 1 && err.contains("cannot go on without"), "{err}");
    let (code, _, err) = pimesh(&b.home, &["home", "begin-anew"]).await?;
    ensure!(code == 1 && err.contains("--yes"), "{err}");
    let (code, _, err) = pimesh(&b.home, &["home", "begin-anew", "--yes"]).await?;
    ensure!(code == 0 && err.contains("earlier-node-1"), "{err}");
    let anew = world.start("b").await?;
    assert_ne!(anew.client.status().await?.node.peer_id, peer);
    anew.join(&a).await?;
    a.send("b-2", "welcome back").await?;
    anew.wait_for_inbox(1).await?;
    Ok(())
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_no_new_node_where_one_is_expected() -> anyhow::Result<()> {
    let world = World::new()?;

    let said = refusal(&world.home("a"), &["--existing"]).await?;

    ensure!(said.contains("no node was ever started"), "{said}");
    assert!(!world.home("a").exists());
    Ok(())
}
