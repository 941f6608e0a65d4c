//! How long a cable that was pulled and is back keeps traffic waiting, in network namespaces.

use std::time::{Duration, Instant};

use pimesh_tests::{World, lan::Lan};

use crate::report::{Report, Target};

/// How often the cable is pulled.
const PULLS: usize = 5;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let (one, two) = (lan.add().await?, lan.add().await?);
    let a = one.start(&world, "a", &[]).await?;
    let b = two.start(&world, "b", &[]).await?;
    b.join(&a).await?;
    a.wait_for_peers(1).await?;
    let (mut noticed, mut back) = (Vec::new(), Vec::new());
    for pull in 0..PULLS {
        two.pull().await?;
        let began = Instant::now();
        a.wait_for_peers(0).await?;
        noticed.push(began.elapsed().as_secs_f64() * 1e3);
        a.send("b", &format!("message {pull}")).await?;
        tokio::time::sleep(Duration::from_secs(3 * pull as u64)).await;
        two.plug().await?;
        let began = Instant::now();
        b.wait_for_inbox(pull + 1).await?;
        back.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    report.aim(
        "cable pulled: noticed by the other side, worst of 5",
        worst(&noticed),
        "ms",
        Target::AtMost(10_000.0),
    );
    report.aim(
        "cable back: first message through, worst of 5",
        worst(&back),
        "ms",
        Target::AtMost(2_000.0),
    );
    Ok(())
}
