//! What a mesh of pimesh nodes does: joins, messages, integers, idling.

use std::time::Instant;

use crate::{
    child::delays,
    node::{Counted, Listens, Order, Pi, Sent},
    report::{Report, Target},
};

/// How long integers are sent flat out, in seconds.
const FLOOD: f64 = 3.0;

pub(crate) async fn pair(report: &mut Report, gossip_us: f64, flush_us: f64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let mut pis = Pi::mesh(folder.path(), 2).await?;
    let joined = began.elapsed().as_secs_f64() * 1e3;
    report.add("start of two nodes and join", joined, "ms");
    integers_one_way(report, gossip_us, &mut pis).await?;
    messages(report, flush_us, &mut pis).await
}

async fn integers_one_way(
    report: &mut Report,
    gossip_us: f64,
    pis: &mut [Pi],
) -> anyhow::Result<()> {
    let count = 3_000;
    pis[1].child.order(&Order::Listen { count }).await?;
    let _: Listens = pis[1].child.answer().await?;
    pis[0].child.order(&Order::Publish { count }).await?;
    let sent: Vec<u64> = pis[0].child.answer().await?;
    let heard: Vec<u64> = pis[1].child.answer().await?;
    let median = report.times(
        "integers: one way at 1,000/s",
        delays(&sent, &heard),
        [Some(Target::AtMost(60.0)), Some(Target::AtMost(500.0))],
    );
    report.add(
        "integers: one way / bare gossipsub",
        median / gossip_us,
        "x",
    );
    Ok(())
}

async fn messages(report: &mut Report, flush_us: f64, pis: &mut [Pi]) -> anyhow::Result<()> {
    let to = pis[1].name.clone();
    let order = |count, bytes, at_once| Order::Send {
        to: to.clone(),
        count,
        bytes,
        at_once,
    };
    for bytes in [16, 1024] {
        pis[0].child.order(&order(300, bytes, 1)).await?;
        let sent: Sent = pis[0].child.answer().await?;
        let most = Target::AtMost(2.0 * flush_us + 1500.0);
        report.times(
            &format!("messages: durable round trip, {bytes} B, one under way"),
            sent.times,
            [Some(most), None],
        );
    }
    pis[0].child.order(&order(20_000, 16, 1_000)).await?;
    let sent: Sent = pis[0].child.answer().await?;
    let rate = sent.times.len() as f64 / sent.seconds;
    report.aim(
        "messages: durable, 16 B, 1,000 under way",
        rate,
        "1/s",
        Target::AtLeast(3_000.0),
    );
    Ok(())
}

/// Integers flat out to so many nodes.
pub(crate) async fn many(report: &mut Report, receivers: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut pis = Pi::mesh(folder.path(), receivers + 1).await?;
    for pi in &mut pis[1..] {
        pi.child.order(&Order::Count).await?;
        let _: Listens = pi.child.answer().await?;
    }
    pis[0].child.order(&Order::Flood { seconds: FLOOD }).await?;
    let sent: usize = pis[0].child.answer().await?;
    let (mut slowest, mut lost) = (f64::INFINITY, 0.0_f64);
    for pi in &mut pis[1..] {
        let heard: Counted = pi.child.answer().await?;
        slowest = slowest.min(heard.count as f64 / heard.seconds);
        lost = lost.max(1.0 - heard.count as f64 / sent as f64);
    }
    let what = format!("integers: flat out, delivered to each of {receivers} nodes");
    if receivers == 2 {
        report.aim(what, slowest, "1/s", Target::AtLeast(1e6));
    } else {
        report.add(what, slowest, "1/s");
    }
    report.add(
        format!("integers: flat out to {receivers} nodes, lost at most"),
        lost * 100.0,
        "%",
    );
    Ok(())
}
