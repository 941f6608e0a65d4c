//! `pimesh demo`

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use futures::StreamExt;
use pimesh_node::{
    control::{
        api::{EventBody, HistoryQuery, NewIntegers, NewInvite, NewMessage, Way},
        client::Client,
    },
    proto::iid::Value,
    state::{
        io::{Recipients, SendVia},
        report::{Integer, PeerState},
    },
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::Global;
use crate::output;

/// Show it all on this machine: three nodes, messages, integers, a lost node, a killed one
///
/// Starts three real nodes in temporary folders on loopback. Ends with exit code 0 only if every
/// message arrived once and in order, and every integer once at every node that was connected.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Demo {
    /// How many integers to broadcast
    #[arg(long, default_value_t = 1000)]
    integers: i32,
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Integers in one request, and the pause between two: 1,000 take about half a second, and no
/// number of them is over the budget.
const BATCH: usize = 20;
const PAUSE: Duration = Duration::from_millis(11);

/// One node of the demonstration.
struct Pi {
    name: &'static str,
    home: PathBuf,
    child: Child,
    client: Client,
}

impl Pi {
    async fn start(name: &'static str, home: PathBuf) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let log = std::fs::File::create(home.with_extension("log")).context("make the log")?;
        let mut child = Command::new(program)
            .arg("--home")
            .arg(&home)
            .args(["run", "--no-mdns", "--name", name])
            .args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("read what the node prints")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let ready = ready
            .context("the node did not get ready")??
            .unwrap_or_default();
        ensure!(
            ready.starts_with("ready "),
            "{name} did not get ready; see {}",
            home.display()
        );
        let client = Client::new(home.join("control.sock"));
        Ok(Self {
            name,
            home,
            child,
            client,
        })
    }

    async fn send(&self, to: &Pi, text: String) -> anyhow::Result<()> {
        let to = Recipients::Named(vec![to.name.to_owned()]);
        let message = NewMessage {
            to,
            text,
            via: SendVia::Direct,
            expiry_s: None,
        };
        self.client.send(&message).await?;
        Ok(())
    }

    /// Waits until so many others are connected.
    async fn wait_for_peers(&self, count: usize) -> anyhow::Result<()> {
        let mut events = self.client.events().await?;
        let waiting = async {
            loop {
                let peers = self.client.peers().await?;
                if peers.iter().filter(|p| p.state == PeerState::Up).count() == count {
                    return anyhow::Ok(());
                }
                events.next().await.context("the node stopped")??;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("{} did not see {count} others", self.name))?
    }

    /// Waits until the inbox has so many messages; returns texts by sender.
    async fn inbox(&self, count: usize) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
        let mut events = self.client.events().await?;
        let waiting = async {
            loop {
                let query = HistoryQuery {
                    way: Way::Received,
                    all: true,
                    ..HistoryQuery::default()
                };
                let rows = self.client.history(&query).await?;
                if rows.len() >= count {
                    return anyhow::Ok(rows);
                }
                events.next().await.context("the node stopped")??;
            }
        };
        let rows = tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("{} did not get {count} messages", self.name))??;
        let mut by_sender: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            by_sender.entry(row.name).or_default().push(row.text);
        }
        Ok(by_sender)
    }

    /// Counts the integers that come, in their order.
    async fn listen(&self, wanted: usize) -> anyhow::Result<JoinHandle<anyhow::Result<Heard>>> {
        let mut lines = Box::pin(self.client.integer_lines().await?);
        Ok(tokio::spawn(async move {
            let mut heard = Heard::default();
            while heard.values.len() < wanted {
                let line = tokio::time::timeout(PATIENCE, lines.next()).await;
                let Ok(Some(line)) = line else { break };
                let Ok(integer) = serde_json::from_str::<Integer>(&line?) else {
                    continue;
                };
                if !integer.last_known {
                    let late = integer.received_us.saturating_sub(integer.sent_ms * 1000);
                    heard.late_us.push(late);
                    heard.values.push(integer.value.0);
                }
            }
            Ok(heard)
        }))
    }
}

#[derive(Default)]
struct Heard {
    values: Vec<i32>,
    late_us: Vec<u64>,
}

/// What happened, for the table at the end.
struct Report {
    json: bool,
    rows: Vec<Vec<String>>,
    began: Instant,
}

impl Report {
    fn step(&self, text: &str) {
        if !self.json {
            output::note(format!(
                "{:>6.2} s  {text}",
                self.began.elapsed().as_secs_f64()
            ));
        }
    }

    fn done(&mut self, what: &str, result: impl Into<String>, began: Instant) {
        let time = format!("{:.0} ms", began.elapsed().as_secs_f64() * 1e3);
        self.rows.push(vec![what.to_owned(), result.into(), time]);
    }
}

impl Demo {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix("pimesh-demo-").tempdir()?;
        let home = |name: &str| folder.path().join(name);
        let mut report = Report {
            json: global.json,
            rows: Vec::new(),
            began: Instant::now(),
        };

        report.step("starting three nodes on loopback");
        let began = Instant::now();
        let a = Pi::start("pi-1", home("pi-1")).await?;
        let b = Pi::start("pi-2", home("pi-2")).await?;
        let mut c = Pi::start("pi-3", home("pi-3")).await?;
        report.done("start", "3 nodes", began);

        report.step("pi-1 invites pi-2 and pi-3; they join");
        let began = Instant::now();
        let events = key_exchanges(&[&a, &b, &c]).await?;
        for new in [&b, &c] {
            let invite = a.client.invite(&NewInvite::default()).await?;
            new.client.join(invite.ticket).await?;
        }
        for pi in [&a, &b, &c] {
            pi.wait_for_peers(2).await?;
        }
        report.done("join", "everybody is connected with everybody", began);

        report.step("the P2SN key exchange of each pair");
        let began = Instant::now();
        let pairs = pairs_of(events).await?;
        report.done(
            "P2SN",
            format!("{} pairs exchanged RSA keys", pairs.len()),
            began,
        );

        report.step("direct messages each way");
        let began = Instant::now();
        for number in 1..=5 {
            for (from, to) in [(&a, &b), (&b, &a), (&b, &c), (&c, &b), (&a, &c), (&c, &a)] {
                from.send(to, format!("{} {number}", from.name)).await?;
            }
        }
        for pi in [&a, &b, &c] {
            check_order(pi, pi.inbox(10).await?, 2, 5)?;
        }
        report.done("messages", "30 of 30 arrived once and in order", began);

        let count = usize::try_from(self.integers).context("a positive number of integers")?;
        report.step(&format!("{count} integers from pi-1 to all"));
        let began = Instant::now();
        let heard = self.broadcast(&a, &[&b, &c], count).await?;
        report.done("integers", heard, began);

        report.step("cutting pi-3 off (stopped, as if its cable were out); sending on");
        let began = Instant::now();
        signal(&c.child, "STOP").await?;
        for number in 6..=10 {
            a.send(&c, format!("{} {number}", a.name)).await?;
            b.send(&c, format!("{} {number}", b.name)).await?;
        }
        a.wait_for_peers(1).await?;
        report.done("cut off", "pi-1 noticed that pi-3 is gone", began);
        report.step("bringing pi-3 back");
        let began = Instant::now();
        signal(&c.child, "CONT").await?;
        c.wait_for_peers(2).await?;
        check_order(&c, c.inbox(20).await?, 2, 10)?;
        report.done(
            "back",
            "pi-3 got the 10 messages of the meantime, once and in order",
            began,
        );

        report.step("killing pi-3 with SIGKILL; sending on; starting it again");
        let began = Instant::now();
        c.child.kill().await.context("kill pi-3")?;
        for number in 11..=15 {
            a.send(&c, format!("{} {number}", a.name)).await?;
            b.send(&c, format!("{} {number}", b.name)).await?;
        }
        let c = Pi::start("pi-3", c.home.clone()).await?;
        check_order(&c, c.inbox(30).await?, 2, 15)?;
        c.wait_for_peers(2).await?;
        report.done(
            "killed",
            "pi-3 has all 30 messages, once and in order",
            began,
        );

        report.step("integers again, to all three");
        let began = Instant::now();
        let heard = self.broadcast(&b, &[&a, &c], count.min(100)).await?;
        report.done("integers", heard, began);

        finish(global, &report)
    }

    async fn broadcast(&self, from: &Pi, to: &[&Pi], count: usize) -> anyhow::Result<String> {
        let mut listeners = Vec::new();
        for pi in to {
            listeners.push(pi.listen(count).await?);
        }
        let values: Vec<i32> = (0..i32::try_from(count)?).collect();
        let mut pace = tokio::time::interval(PAUSE);
        for batch in values.chunks(BATCH) {
            pace.tick().await;
            let values = batch.iter().map(|&value| Value(value)).collect();
            from.client
                .publish(&NewIntegers {
                    index: None,
                    values,
                    at: None,
                })
                .await?;
        }
        let mut late = Vec::new();
        for (pi, listener) in to.iter().zip(listeners) {
            let heard = listener.await.context("listen")??;
            ensure!(
                heard.values == values,
                "{} heard {} integers instead of {count}, or in another order",
                pi.name,
                heard.values.len()
            );
            late.extend(heard.late_us);
        }
        late.sort_unstable();
        let p = |percent: usize| late[(late.len() - 1) * percent / 100] as f64 / 1e3;
        Ok(format!(
            "{count} arrived once and in order at each of {} (p50 {:.1} ms, p99 {:.1} ms)",
            to.len(),
            p(50),
            p(99)
        ))
    }
}

type Exchanges = Vec<JoinHandle<anyhow::Result<Vec<(String, String)>>>>;

/// Collects P2SN key exchanges; of each pair both sides tell.
async fn key_exchanges(pis: &[&Pi]) -> anyhow::Result<Exchanges> {
    let mut all = Vec::new();
    for pi in pis {
        let mut events = pi.client.events().await?;
        let own = pi.name.to_owned();
        all.push(tokio::spawn(async move {
            let mut pairs = Vec::new();
            while pairs.len() < 2 {
                let event = tokio::time::timeout(PATIENCE, events.next()).await;
                let event = event
                    .context("no P2SN key exchange")?
                    .context("the node stopped")??;
                if let EventBody::KeyExchanged { name, .. } = event {
                    let mut pair = [own.clone(), name];
                    pair.sort();
                    pairs.push(pair.into());
                }
            }
            Ok(pairs)
        }));
    }
    Ok(all)
}

async fn pairs_of(exchanges: Exchanges) -> anyhow::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for exchange in exchanges {
        pairs.extend(exchange.await.context("follow the node")??);
    }
    pairs.sort();
    ensure!(
        pairs.len() == 6,
        "each of 3 pairs is told twice, got {}",
        pairs.len()
    );
    pairs.dedup();
    ensure!(pairs.len() == 3, "3 pairs, got {}", pairs.len());
    Ok(pairs)
}

/// Checks that each sender's messages are there, once and in order.
fn check_order(
    pi: &Pi,
    inbox: BTreeMap<String, Vec<String>>,
    senders: usize,
    each: usize,
) -> anyhow::Result<()> {
    ensure!(
        inbox.len() == senders,
        "{} heard {} senders",
        pi.name,
        inbox.len()
    );
    for (sender, texts) in inbox {
        let expected: Vec<String> = (1..=each).map(|n| format!("{sender} {n}")).collect();
        ensure!(texts == expected, "{} got {texts:?} from {sender}", pi.name);
    }
    Ok(())
}

async fn signal(child: &Child, signal: &str) -> anyhow::Result<()> {
    let pid = child.id().context("the node has ended")?.to_string();
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid)
        .status()
        .await;
    ensure!(
        status.context("run `kill`")?.success(),
        "could not signal the node"
    );
    Ok(())
}

fn finish(global: &Global, report: &Report) -> anyhow::Result<()> {
    if global.json {
        let rows: Vec<_> = report
            .rows
            .iter()
            .map(|row| serde_json::json!({"step": row[0], "result": row[1], "time": row[2]}))
            .collect();
        return output::json(&serde_json::json!({ "ok": true, "steps": rows }));
    }
    output::note("");
    output::table(&["STEP", "RESULT", "TIME"], &report.rows)?;
    Ok(())
}
