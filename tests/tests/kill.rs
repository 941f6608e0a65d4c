//! SIGKILL at random moments: what was acknowledged is there, once.

use std::time::Duration;

use pimesh_tests::{World, chance::Chance};

/// Rounds of killing. Each kills the sender, the recipient or both.
const ROUNDS: u32 = 50;

#[tokio::test]
async fn no_acknowledged_message_is_lost_or_doubled_in_fifty_kills() -> anyhow::Result<()> {
    let world = World::new()?;
    let [mut a, mut b] = world.mesh(["a", "b"]).await?;
    let mut accepted: Vec<String> = Vec::new();
    // The moments differ from round to round, not from run to run.
    let mut chance = Chance::new(0x9e37_79b9);

    for round in 0..ROUNDS {
        let first = format!("{round}/first");
        a.send("b", &first).await?;
        accepted.push(first);
        let moment = Duration::from_micros(chance.number() % 100_000);
        let sending = async {
            for number in 0..1_000_000 {
                let text = format!("{round}/{number}");
                if a.send("b", &text).await.is_ok() {
                    accepted.push(text);
                }
            }
        };
        drop(tokio::time::timeout(moment, sending).await);
        match chance.number() % 3 {
            0 => a = a.restart().await?,
            1 => b = b.restart().await?,
            _ => {
                a.child.kill().await?;
                b = b.restart().await?;
                a = a.restart().await?;
            }
        }
    }

    // What was under way when the node was killed may have been accepted without our hearing of it;
    // so there may be more, but what was acknowledged is there, once, and all is in order.
    a.wait_until("rid of its outbox", || async {
        Ok(a.client.outbox().await?.is_empty().then_some(()))
    })
    .await?;
    let inbox: Vec<String> = b.inbox().await?.into_iter().map(|row| row.text).collect();
    let position = |text: &String| inbox.iter().position(|t| t == text);
    let positions: Vec<usize> = accepted
        .iter()
        .map(|text| position(text).unwrap_or_else(|| panic!("`{text}` was accepted and is lost")))
        .collect();
    assert!(positions.is_sorted(), "out of order: {inbox:?}");
    let distinct: std::collections::BTreeSet<&String> = inbox.iter().collect();
    assert_eq!(
        distinct.len(),
        inbox.len(),
        "something came twice: {inbox:?}"
    );
    Ok(())
}
