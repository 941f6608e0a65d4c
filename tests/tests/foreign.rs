//! js-libp2p as a member, made from the specifications alone.

use futures::StreamExt;
use pimesh_node::{identity, state::report::Integer};
use pimesh_tests::{World, foreign::Foreign, pimesh};
use serde_json::json;

#[tokio::test]
async fn js_libp2p_is_a_full_member() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let key = identity::load_mesh_key(&a.home, None)?.expect("the first node holds it");
    let seed = world.home("seed");
    std::fs::write(
        &seed,
        key.to_seed()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>(),
    )?;
    let peer_id = a.client.status().await?.node.peer_id;
    let tcp = a.ready.split(' ').find(|word| word.contains("/tcp/"));
    let address = format!("{}/p2p/{peer_id}", tcp.expect("listens on TCP"));

    // Noise, Yamux, the handshake of members, identify, ping.
    let mut js = Foreign::js_libp2p(&seed, &address).await?;
    assert_eq!(js.event("open").await?["name"], "a");
    a.wait_for_peers(1).await?;
    js.order(json!({"do": "ping"})).await?;
    assert!(
        js.event("ping").await?["ms"]
            .as_f64()
            .is_some_and(|ms| ms >= 0.0)
    );
    let peer = a.client.peers().await?.remove(1);
    assert_eq!((peer.name.as_str(), peer.index.0), ("js", 900));

    // Integers, both ways.
    let mut heard = a.client.integer_lines().await?;
    js.order(json!({"do": "publish", "values": [7, -7, 7]}))
        .await?;
    for value in [7, -7, 7] {
        let line = heard.next().await.expect("goes on")?;
        let integer: Integer = serde_json::from_str(&line)?;
        assert_eq!(
            (integer.index.0, integer.value.0, integer.from.as_str()),
            (900, value, "js")
        );
    }
    drop(heard);
    js.event("published").await?;
    a.publish([1, 2, i32::MIN]).await?;
    assert_eq!(
        js.event("integers").await?["values"],
        json!([1, 2, i32::MIN])
    );

    // Direct messages, both ways.
    js.order(json!({"do": "send", "text": "grüße from js"}))
        .await?;
    assert_eq!(js.event("sent").await?["status"], "stored");
    assert_eq!(a.wait_for_inbox(1).await?, ["grüße from js"]);
    let (code, out, err) = pimesh(&a.home, &["send", "js", "--wait", "to js"]).await?;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(js.event("message").await?["text"], "to js");

    // A service that it does not have is missed without harm.
    let (code, _, err) = pimesh(&a.home, &["send", "js", "--via", "p2sn", "secret"]).await?;
    assert_eq!(code, 1, "{err}");
    a.wait_for_peers(1).await
}

#[tokio::test]
async fn a_certificate_of_another_mesh_opens_nothing_to_js_libp2p() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let seed = world.home("seed");
    std::fs::write(&seed, "07".repeat(32))?;
    let peer_id = a.client.status().await?.node.peer_id;
    let tcp = a.ready.split(' ').find(|word| word.contains("/tcp/"));
    let address = format!("{}/p2p/{peer_id}", tcp.expect("listens on TCP"));

    let mut js = Foreign::js_libp2p(&seed, &address).await?;

    let refused = js.event("open").await.expect_err("refused").to_string();
    assert!(refused.contains("refused"), "{refused}");
    let metrics = a.client.metrics().await?;
    assert!(metrics.contains(r#"pimesh_refused_total{what="certificate",why="foreign_mesh"} 1"#));
    Ok(())
}
