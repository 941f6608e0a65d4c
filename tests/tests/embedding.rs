//! A node inside another program, as `node/examples/two_pis.rs` shows it.

use anyhow::ensure;
use pimesh_node::{Config, Node, control::client::Client};
use pimesh_tests::eventually;
use tokio::net::TcpListener;

/// Compiled into the tests: an example of its own would link the whole network stack once more.
#[path = "../../node/examples/two_pis.rs"]
#[expect(dead_code, reason = "its `main` prints what the test compares")]
mod two_pis;

#[tokio::test]
async fn two_nodes_in_one_program_meet_and_hear_each_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Vec::new();

    let done = two_pis::two_pis(folder.path(), |line| said.push(line)).await;

    done.map_err(|error| anyhow::anyhow!("{error}, after {said:?}"))?;
    assert_eq!(
        said,
        [
            "pi-2 joined, and meets pi-1",
            "pi-1 has message 1 of pi-2 on its disk: door open",
            "pi-1 hears 42 from index 2",
            "both have stopped",
        ]
    );
    Ok(())
}

/// An RSA key for a foreign server is made in seconds; until then, and while a gateway cannot open,
/// the node answers, and it does not say yet that it has started.
#[tokio::test]
async fn a_node_answers_while_its_gateways_are_slow_and_has_started_once_they_have_settled()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let config = format!(
        "[network]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n\
         [gateway.iid]\nservers = [{{ url = \"ws://127.0.0.1:9\", key = \"rsa\" }}]\n\
         [gateway.p2sn]\nenabled = true\nlisten = \"{}\"\n\
         [gateway.syft]\nenabled = true\nlisten = \"127.0.0.1:0\"\n",
        taken.local_addr()?
    );
    let start = Node::builder(folder.path()).config(Config::parse(&config)?);
    let starting = start.start();
    tokio::pin!(starting);
    let client = Client::new(folder.path().join("control.sock"));

    tokio::select! {
        _ = &mut starting => anyhow::bail!("it did not wait for the key"),
        answered = eventually("an answer", async || Ok(client.status().await?)) => {
            answered?;
        }
    }
    let node = starting.await?;
    let gateways = client.gateways().await?;

    let found: Vec<_> = gateways
        .iter()
        .map(|g| (g.gateway.name(), g.open))
        .collect();
    assert_eq!(found, [("iid", false), ("p2sn", false), ("syft", true)]);
    ensure!(gateways[1].error.is_some(), "{gateways:?}");
    node.shutdown().await;
    Ok(())
}
