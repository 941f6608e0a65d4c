//! What the packaged program costs: its size, and a node of it with nothing to do.

use std::{path::Path, time::Duration};

use anyhow::Context;
use pimesh_tests::{Pi, World};

use crate::report::{Report, Target};

/// How long an idle node is watched.
const IDLE: Duration = Duration::from_secs(60);

/// A process that used at most so much in so long has nothing to do: 0.5 %.
const QUIET: Duration = Duration::from_secs(4);
const QUIET_TICKS: u64 = 2;

/// Longest wait for that.
const SETTLING_MAX: Duration = Duration::from_secs(180);

/// Linux counts a process's time in this unit.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) async fn measure(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let size = std::fs::metadata(program)?.len() as f64 / 1e6;
    report.aim("packaged program", size, "MB", Target::AtMost(18.0));
    for peers in [0, 2, 10] {
        idle(report, peers).await?;
    }
    Ok(())
}

/// Measures the memory and the CPU time of a node with so many peers and nothing to do.
async fn idle(report: &mut Report, peers: usize) -> anyhow::Result<()> {
    let world = World::new()?;
    let mut pis: Vec<Pi> = Vec::new();
    for number in 0..=peers {
        let pi = world.start(&format!("pi-{number}")).await?;
        if let Some(first) = pis.first() {
            pi.join(first).await?;
        }
        pis.push(pi);
    }
    for pi in &pis {
        pi.wait_for_peers(peers).await?;
    }
    for pi in &pis {
        settled(pi.child.id().context("it runs")?).await?;
    }
    let pid = pis[0].child.id().context("it runs")?;
    let before = cpu_ticks(pid)?;
    tokio::time::sleep(IDLE).await;
    let ticks = cpu_ticks(pid)? - before;
    let share = ticks as f64 / TICKS_PER_SECOND / IDLE.as_secs_f64() * 100.0;
    let memory = resident_kib(pid)? * 1024.0 / 1e6;
    report.aim(
        format!("idle node with {peers} peers: CPU over a minute"),
        share,
        "%",
        Target::AtMost(0.2),
    );
    report.aim(
        format!("idle node with {peers} peers: resident"),
        memory,
        "MB",
        Target::AtMost(20.0),
    );
    Ok(())
}

/// Waits until a process has nothing to do. A start and a join leave work behind: keys to make and
/// exchange, addresses to tell.
pub(crate) async fn settled(pid: u32) -> anyhow::Result<()> {
    let waiting = async {
        let mut before = cpu_ticks(pid)?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = cpu_ticks(pid)?;
            if now - before <= QUIET_TICKS {
                return Ok(());
            }
            before = now;
        }
    };
    let waited = tokio::time::timeout(SETTLING_MAX, waiting).await;
    waited.context("a process stays busy")?
}

fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.unwrap_or_default().trim().trim_end_matches(" kB");
    Ok(kib.parse()?)
}
