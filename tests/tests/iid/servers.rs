//! A node as a client of a server elsewhere.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use pimesh_node::{gateway::iid::upstream::ServerState, proto::iid::Index};
use pimesh_tests::{
    Pi, World, eventually,
    iid::{self, Client, key},
    pimesh,
};

use super::integer;

const DATE: u64 = 1_700_000_000_000;

/// Makes nodes clients of a gateway elsewhere, under index 7.
async fn connect(server: &Pi, pis: &[&Pi]) -> anyhow::Result<SocketAddr> {
    let gateway = iid::open(server, "", &[(7, 1)]).await?;
    let url = format!("ws://{gateway}");
    for pi in pis {
        let connect = ["gateway", "iid", "connect", &url, "--json"];
        let (code, out, err) = pimesh(&pi.home, &connect).await?;
        assert_eq!(code, 0, "{err}");
        let report: serde_json::Value = serde_json::from_str(&out)?;
        let own = report["address"].as_str().context("an address")?.to_owned();
        let allow = ["gateway", "iid", "allow", "7", &own];
        let (code, _, err) = pimesh(&server.home, &allow).await?;
        assert_eq!(code, 0, "{err}");
    }
    for pi in pis {
        eventually("a node that is signed in at a server", async || {
            let servers = iid::servers(&pi.client).await?;
            let state = servers.first().map(|server| &server.state);
            let is_in = state == Some(&ServerState::SignedIn { index: Index(7) });
            ensure!(is_in, "{state:?}");
            Ok(())
        })
        .await?;
    }
    Ok(gateway)
}

/// Opens a gateway at a node whose settings have more in them already.
async fn iid_gateway_beside(pi: &Pi, index: i32, number: u16) -> anyhow::Result<SocketAddr> {
    let address = key(number).address().to_string();
    let listen = ["gateway", "enable", "iid", "--listen", "127.0.0.1:0"];
    let (code, _, err) = pimesh(&pi.home, &listen).await?;
    assert_eq!(code, 0, "{err}");
    let allow = ["gateway", "iid", "allow", &index.to_string(), &address];
    let (code, _, err) = pimesh(&pi.home, &allow).await?;
    assert_eq!(code, 0, "{err}");
    iid::address(pi).await
}

#[tokio::test]
async fn a_node_is_a_client_of_a_server_and_integers_run_both_ways_once() -> anyhow::Result<()> {
    let world = World::new()?;
    // Two meshes: a node of the second is a client of the first's gateway.
    let hub = world.start("hub").await?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let gateway = connect(&hub, &[&pi_1]).await?;
    let gateway_2 = iid_gateway_beside(&pi_2, 7, 5).await?;
    let mut at_hub = Client::sign_in(gateway, 1).await?;
    let mut behind = Client::sign_in(gateway_2, 5).await?;

    let down = integer(7, 10, DATE);
    at_hub.send(down.encode().to_vec()).await?;
    assert_eq!(at_hub.integer().await?, down);
    assert_eq!(behind.integer().await?, down);
    for value in 11..20 {
        let up = integer(7, value, DATE);
        behind.send(up.encode().to_vec()).await?;
        assert_eq!(behind.integer().await?, up);
        assert_eq!(at_hub.integer().await?, up);
    }
    let (code, out, err) = pimesh(&pi_1.home, &["gateway", "iid", "servers"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("signed in as 7"), "{out}");
    Ok(())
}

#[tokio::test]
async fn two_nodes_that_are_clients_of_one_server_make_no_circle() -> anyhow::Result<()> {
    let world = World::new()?;
    let hub = world.start("hub").await?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let gateway = connect(&hub, &[&pi_1, &pi_2]).await?;
    let gateway_1 = iid_gateway_beside(&pi_1, 7, 5).await?;
    let mut at_hub = Client::sign_in(gateway, 1).await?;
    let mut behind = Client::sign_in(gateway_1, 5).await?;

    // With a date that tells, and without.
    let sent = [integer(7, 11, DATE), integer(7, 12, 0)];
    for iid in sent {
        behind.send(iid.encode().to_vec()).await?;
    }

    // Each of the two nodes may hand a value in, and once more until they know of each other; what
    // runs in a circle comes again and again.
    let mut copies = 0;
    for value in 100..150 {
        let fence = integer(7, value, DATE);
        at_hub.send(fence.encode().to_vec()).await?;
        loop {
            let heard = at_hub.integer().await?;
            copies += usize::from(sent.contains(&heard));
            if heard == fence {
                break;
            }
        }
    }
    assert!((2..=6).contains(&copies), "{copies}");
    Ok(())
}

/// Six equal integers with equal dates, in both directions and on all paths.
#[tokio::test]
async fn equal_integers_with_equal_dates_all_pass() -> anyhow::Result<()> {
    let world = World::new()?;
    let hub = world.start("hub").await?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let gateway = connect(&hub, &[&pi_1]).await?;
    let gateway_2 = iid_gateway_beside(&pi_2, 7, 5).await?;
    let mut at_hub = Client::sign_in(gateway, 1).await?;
    let mut behind = Client::sign_in(gateway_2, 5).await?;
    for date in [DATE, DATE / 1000, DATE + 123] {
        let (down, up) = (integer(7, 10, date), integer(7, 11, date));
        for _ in 0..6 {
            at_hub.send(down.encode().to_vec()).await?;
        }
        for _ in 0..6 {
            assert_eq!(at_hub.integer().await?, down);
            assert_eq!(behind.integer().await?, down);
        }
        for _ in 0..6 {
            behind.send(up.encode().to_vec()).await?;
        }
        for _ in 0..6 {
            assert_eq!(behind.integer().await?, up);
            assert_eq!(at_hub.integer().await?, up);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_only_receives_sends_nothing_to_the_server() -> anyhow::Result<()> {
    let world = World::new()?;
    let hub = world.start("hub").await?;
    let pi = world.start("pi-1").await?;
    let gateway = connect(&hub, &[&pi]).await?;
    let url = format!("ws://{gateway}");
    let only = ["gateway", "iid", "connect", &url, "--receive-only"];
    let (code, _, err) = pimesh(&pi.home, &only).await?;
    assert_eq!(code, 0, "{err}");
    eventually("a node that only receives", async || {
        let (_, out, _) = pimesh(&pi.home, &["gateway", "iid", "servers"]).await?;
        ensure!(out.contains("signed in as 7, receive only"), "{out}");
        Ok(())
    })
    .await?;
    let own_gateway = iid_gateway_beside(&pi, 7, 5).await?;
    let mut at_hub = Client::sign_in(gateway, 1).await?;
    let mut own = Client::sign_in(own_gateway, 5).await?;

    own.send(integer(7, 1, DATE).encode().to_vec()).await?;
    assert_eq!(own.integer().await?, integer(7, 1, DATE));
    let fence = integer(7, 2, DATE);
    at_hub.send(fence.encode().to_vec()).await?;

    assert_eq!(own.integer().await?, fence);
    assert_eq!(at_hub.integer().await?, fence, "nothing came before it");
    let servers = iid::servers(&pi.client).await?;
    assert_eq!((servers[0].received, servers[0].sent), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_server_whose_key_cannot_be_loaded_is_shown_and_tried_again() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let key_file = pi.home.join("ethereum.key");
    let kept = pi.home.join("kept");
    // Another key is in its place.
    std::fs::copy(pi.home.join("node.key"), &key_file)?;

    let connect = ["gateway", "iid", "connect", "ws://127.0.0.1:1"];
    let (code, out, err) = pimesh(&pi.home, &connect).await?;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("ethereum.key") && out.contains("waiting: "),
        "{out}"
    );

    std::fs::rename(&key_file, &kept)?;
    eventually("a key that is loaded", async || {
        pi.client.reload().await?;
        let servers = iid::servers(&pi.client).await?;
        ensure!(servers[0].address.is_some(), "{servers:?}");
        Ok(())
    })
    .await
}
