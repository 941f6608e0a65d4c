//! A pimesh node in a process of its own, with whoever sends and listens inside, as a program would
//! that embeds a node.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use pimesh_node::{
    Config, Event, Events, Node, NodeHandle, NodeName, Recipients, SendVia,
    control::{api::NewInvite, client::Client},
    proto::mesh::Address,
    state::{VALUES_MAX, io::Outcome, report::PeerState},
};
use serde::{Deserialize, Serialize};

use crate::child::{Child, answer, now_ns, orders};

/// What the parent says to a node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Broadcast so many integers, one each millisecond. Answer: when each went out.
    Publish { count: usize },
    /// Broadcast integers as fast as possible for so long. Answer: how many.
    Flood { seconds: f64 },
    /// Listen for so many integers. Answers: [`Listens`], and when each came.
    Listen { count: usize },
    /// Count integers until there were none for a second. Answers: [`Listens`] and [`Counted`].
    Count,
    /// Send messages, so many of them under way at once. Answer: [`Sent`].
    Send {
        to: String,
        count: usize,
        bytes: usize,
        at_once: usize,
    },
}

/// From here on nothing is missed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listens;

/// The answer to [`Order::Count`].
#[derive(Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) count: usize,
    pub(crate) seconds: f64,
}

/// The answer to [`Order::Send`].
#[derive(Serialize, Deserialize)]
pub(crate) struct Sent {
    /// From the request to the recipient's durable acknowledgement, in microseconds.
    pub(crate) times: Vec<f64>,
    pub(crate) seconds: f64,
}

/// A node that runs in a child, as the parent sees it.
pub(crate) struct Pi {
    pub(crate) name: String,
    pub(crate) child: Child,
    pub(crate) client: Client,
}

impl Pi {
    pub(crate) async fn start(folder: &Path, number: usize) -> anyhow::Result<Self> {
        let name = format!("pi-{number}");
        let home = folder.join(&name);
        let path = home.to_str().context("a plain path")?;
        let mut child = Child::start(&["--node", path, &name])?;
        let _: bool = child.answer().await?;
        let client = Client::new(home.join("control.sock"));
        Ok(Self {
            name,
            child,
            client,
        })
    }

    /// Starts nodes and makes a mesh of them.
    pub(crate) async fn mesh(folder: &Path, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut pis: Vec<Self> = Vec::new();
        for number in 0..count {
            let pi = Self::start(folder, number).await?;
            if let Some(first) = pis.first() {
                let invite = first.client.invite(&NewInvite::default()).await?;
                pi.client.join(invite.ticket).await?;
            }
            pis.push(pi);
        }
        for pi in &pis {
            pi.wait_for_peers(count - 1).await?;
        }
        Ok(pis)
    }

    pub(crate) async fn wait_for_peers(&self, count: usize) -> anyhow::Result<()> {
        let mut events = self.client.events_of(&["peer_up", "peer_down"]).await?;
        loop {
            let peers = self.client.peers().await?;
            let up = peers.iter().filter(|p| p.state == PeerState::Up).count();
            if up == count {
                return Ok(());
            }
            let next = futures::StreamExt::next(&mut events);
            tokio::time::timeout(Duration::from_secs(120), next)
                .await
                .with_context(|| format!("{} has {up} of {count} peers", self.name))?;
        }
    }
}

/// The child.
pub(crate) async fn run(home: &str, name: &str) -> anyhow::Result<()> {
    let mut config = Config::default();
    config.network.mdns = false;
    config.settings.budget_per_second = 0;
    // RSA is not what is measured here.
    config.rsa_bits = 2048;
    config.network.listen = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"]
        .into_iter()
        .filter_map(Address::new)
        .collect();
    if let Ok(listen) = std::env::var("PIMESH_BENCH_LISTEN") {
        config.network.listen = Address::new(listen).into_iter().collect();
    }
    let builder = Node::builder(home).name(NodeName::from_any(name));
    let node = builder.config(config).start().await?;
    let handle = node.handle();
    answer(&true)?;
    let mut orders = orders();
    while let Some(line) = orders.next_line().await? {
        match serde_json::from_str(&line)? {
            Order::Publish { count } => answer(&publish(&handle, count).await?)?,
            Order::Flood { seconds } => answer(&flood(&handle, seconds).await?)?,
            Order::Listen { count } => answer(&listen(listening(&handle)?, count).await?)?,
            Order::Count => answer(&count(listening(&handle)?).await?)?,
            Order::Send {
                to,
                count,
                bytes,
                at_once,
            } => answer(&send(&handle, &to, count, bytes, at_once).await?)?,
        }
    }
    Ok(())
}

/// Begins to listen, and says so. Members that are connected have a stream for integers, or one that
/// is being opened and for which they wait.
fn listening(handle: &NodeHandle) -> anyhow::Result<Events> {
    let events = handle.subscribe();
    answer(&Listens)?;
    Ok(events)
}

async fn publish(handle: &NodeHandle, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    let mut sent = Vec::with_capacity(count);
    for number in 0..i32::try_from(count)? {
        pace.tick().await;
        sent.push(now_ns());
        handle.publish(None, [number]).await?;
    }
    Ok(sent)
}

async fn flood(handle: &NodeHandle, seconds: f64) -> anyhow::Result<usize> {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed().as_secs_f64() < seconds {
        handle.publish(None, [7; VALUES_MAX]).await?;
        count += VALUES_MAX;
    }
    Ok(count)
}

/// Waits for integers of others.
async fn heard(events: &mut Events) -> anyhow::Result<usize> {
    loop {
        // That some were lost is no end.
        let Ok(event) = events.next().await else {
            continue;
        };
        if let Event::Integers(integers) = &*event.context("the node stopped")?
            && !integers.last_known
        {
            return Ok(integers.iids.len());
        }
    }
}

async fn listen(mut events: Events, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        let heard = heard(&mut events).await?;
        let now = now_ns();
        times.extend(std::iter::repeat_n(now, heard));
    }
    Ok(times)
}

async fn count(mut events: Events) -> anyhow::Result<Counted> {
    let mut counted = Counted {
        count: heard(&mut events).await?,
        seconds: 0.0,
    };
    let began = Instant::now();
    while let Ok(more) = tokio::time::timeout(Duration::from_secs(1), heard(&mut events)).await {
        counted.count += more?;
        counted.seconds = began.elapsed().as_secs_f64();
    }
    Ok(counted)
}

async fn send(
    handle: &NodeHandle,
    to: &str,
    count: usize,
    bytes: usize,
    at_once: usize,
) -> anyhow::Result<Sent> {
    let mut events = handle.subscribe();
    let began = Instant::now();
    let mut times = Vec::with_capacity(count);
    let mut started = std::collections::VecDeque::new();
    let (mut asked, mut accepting) = (0, futures::stream::FuturesUnordered::new());
    while times.len() < count {
        while asked < count && started.len() < at_once {
            let (to, text) = (vec![to.to_owned()], "7".repeat(bytes));
            started.push_back(Instant::now());
            let handle = handle.clone();
            accepting.push(async move {
                let to = Recipients::Named(to);
                handle.send_to(to, text, SendVia::Direct, None).await
            });
            asked += 1;
        }
        tokio::select! {
            Some(accepted) = futures::StreamExt::next(&mut accepting) => {
                accepted?;
            }
            event = events.next() => if let Event::Sent(sent) = &*event?.context("it runs")? {
                anyhow::ensure!(sent.outcome == Outcome::Delivered, "{:?}", sent.outcome);
                // Messages to one peer arrive in order.
                let at: Instant = started.pop_front().context("was sent")?;
                times.push(at.elapsed().as_secs_f64() * 1e6);
            },
        }
    }
    Ok(Sent {
        times,
        seconds: began.elapsed().as_secs_f64(),
    })
}
