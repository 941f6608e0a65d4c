//! What a member may speak for as a gateway, in real nodes.

use pimesh_node::{
    Config, Node, NodeHandle,
    control::api::NewInvite,
    proto::{
        iid::{Date, Iid, Index, Value},
        mesh::vouched::Vouched,
    },
    state::io::{Command, FailureKind, Reply},
};
use pimesh_tests::{World, eventually, pimesh};

/// A node in this process: no gateway is needed to ask it what gateways ask.
async fn gateway(world: &World) -> anyhow::Result<Node> {
    let text = "[network]\nmdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";
    let config = Config::parse(text)?;
    let node = Node::builder(world.home("gate")).name("gate".parse()?);
    Ok(node.config(config).start().await?)
}

async fn bridge(gate: &NodeHandle, index: i32) -> Result<Reply, FailureKind> {
    let iid = Iid {
        index: Index(index),
        value: Value(5),
        date: Date(1_000),
    };
    let command = Command::Bridge {
        client: None,
        iids: vec![iid],
    };
    gate.ask(command).await.map_err(|failure| failure.kind)
}

#[tokio::test]
async fn a_gateway_speaks_for_its_range_and_for_more_once_that_is_widened() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let gate = gateway(&world).await?;
    let invite = NewInvite {
        vouched: "100..199".parse()?,
        ..NewInvite::default()
    };
    let ticket = pi.client.invite(&invite).await?.ticket;
    gate.join(ticket).await?;
    pi.wait_for_peers(1).await?;

    let outside = bridge(&gate, 7).await;
    let inside = bridge(&gate, 150).await;
    let (code, said, _) = pimesh(&pi.home, &["peers", "vouch", "gate", "-5..7"]).await?;
    eventually("the wider range", async || {
        let bridged = bridge(&gate, 7).await;
        bridged.map_err(|kind| anyhow::anyhow!("{kind:?}"))
    })
    .await?;
    let heard = pi.wait_until("heard", || async {
        let last = pi.client.last_integers().await?;
        let bridged = last.iter().find(|last| last.index == Index(7));
        Ok(bridged.map(|last| last.bridged))
    });
    let heard = heard.await?;
    let no_longer = bridge(&gate, 150).await;

    assert_eq!(outside.err(), Some(FailureKind::Conflict));
    assert!(
        matches!(inside, Ok(Reply::Bridged { published: 1 })),
        "{inside:?}"
    );
    assert_eq!((code, said.as_str()), (0, "gate vouches for -5..7\n"));
    assert!(heard, "marked as bridged");
    assert_eq!(no_longer.err(), Some(FailureKind::Conflict));
    let peers = pi.client.peers().await?;
    let of = |name: &str| {
        peers
            .iter()
            .find(|peer| peer.name == name)
            .map(|p| p.vouched)
    };
    assert_eq!(of("gate"), Some("-5..7".parse()?));
    assert_eq!(of("pi-1"), Some(Vouched::ALL));
    gate.shutdown().await;
    Ok(())
}
