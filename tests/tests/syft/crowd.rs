//! A thousand users at one gateway.

use pimesh_tests::{
    World,
    syft::{self, Agents},
};
use serde_json::json;

#[tokio::test]
async fn a_thousand_connected_users_all_hear_a_broadcast_and_each_other() -> anyhow::Result<()> {
    const COUNT: usize = 1000;
    let world = World::new()?;
    // All of them are at one address here.
    let limits = "[gateway.syft.limits]\nregistrations_burst = 2000";
    let (pi, url) = syft::start(&world, "pi-1", limits).await?;
    let mut agents = Agents::start().await?;
    let crowd = json!({"do": "crowd", "url": url, "count": COUNT, "seed_base": 1000});
    agents.order(crowd, "connected").await?;
    let clients = pi.client.clients().await?;
    assert_eq!(clients.len(), COUNT);

    agents.send("user-0", "broadcast", "to all").await?;
    for number in 1..COUNT {
        assert_eq!(agents.text(&format!("user-{number}")).await?.0, "to all");
    }
    for number in (1..COUNT).step_by(111) {
        let (from, to) = (format!("user-{number}"), format!("user-{}", COUNT - number));
        agents.send(&from, &to, &from).await?;
        assert_eq!(agents.text(&to).await?, (from, "verified".to_owned()));
    }
    Ok(())
}
