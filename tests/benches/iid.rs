//! The IID gateway beside a relay in Python of the shape of the published servers, by turns in one
//! run, with one driver for both. A published server that runs already can stand in its place:
//! `APINTIO_SERVER=127.0.0.1:4615,PID`; its list has to be that of `pimesh_tests::iid::key`.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{SinkExt, StreamExt, future::try_join_all};
use pimesh_node::{
    control::api::{EventBody, NewIntegers},
    proto::iid::Value,
    state::report::Integer,
};
use pimesh_tests::{
    Pi, World,
    foreign::{python, python_script},
    iid::{self, Client},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    packaged::resident_kib,
    report::{Report, Target},
};

/// Indices and keys that may sign in.
const CLIENTS: u16 = 1000;

/// How often each figure is measured at each server, by turns.
const ROUNDS: usize = 3;

/// What is asked of one server, and the figures of each round.
struct Server {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    one: Vec<f64>,
    many: Vec<f64>,
    echoes: Vec<f64>,
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    beside_a_flood(report).await?;
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let allowed: Vec<(i32, u16)> = (1..=CLIENTS).map(|n| (i32::from(n) + 1000, n)).collect();
    let limits = "[gateway.iid.limits]\nbytes_per_minute = 0\nbytes_per_hour = 0\n\
                  bytes_per_day = 0\nbytes_per_month = 0";
    let address = iid::open(&pi, limits, &allowed).await?;
    let (_relay, relay_address, relay_pid) = match std::env::var("APINTIO_SERVER") {
        Ok(server) => {
            let (address, pid) = server.split_once(',').context("ADDRESS,PID")?;
            (None, address.parse()?, pid.parse()?)
        }
        Err(_) => relay(&pi.home.join("iid/claims.txt")).await?,
    };
    let server = |name, address, pid| Server {
        name,
        address,
        pid,
        one: Vec::new(),
        many: Vec::new(),
        echoes: Vec::new(),
    };
    let mut servers = [
        server("pimesh", address, pi.child.id().context("it runs")?),
        server("python relay", relay_address, relay_pid),
    ];
    for _ in 0..ROUNDS {
        for server in &mut servers {
            server.one.push(flat_out(server.address, 1, 50_000).await?);
            server.many.push(flat_out(server.address, 50, 1_000).await?);
            server.echoes.extend(echoes(server.address, 50).await?);
        }
    }
    let [pimesh, relay] = servers;
    let mut compare = |what: &str, ours: Vec<f64>, theirs: Vec<f64>| {
        let (ours, theirs) = (median(ours), median(theirs));
        report.add(format!("IID gateway: {what}"), ours, "1/s");
        report.add(format!("python relay: {what}"), theirs, "1/s");
        let ratio = format!("IID gateway / python relay: {what}");
        report.aim(ratio, ours / theirs, "x", Target::AtLeast(5.0));
    };
    compare(
        "one client, flat out",
        pimesh.one.clone(),
        relay.one.clone(),
    );
    compare(
        "50 clients, flat out",
        pimesh.many.clone(),
        relay.many.clone(),
    );
    let what = "echo, 50 clients at 10/s";
    let ours = report.times(
        &format!("IID gateway: {what}"),
        pimesh.echoes.clone(),
        [None; 2],
    );
    let theirs = report.times(
        &format!("python relay: {what}"),
        relay.echoes.clone(),
        [None; 2],
    );
    let ratio = format!("IID gateway / python relay: {what}, p50");
    report.aim(ratio, ours / theirs, "x", Target::AtMost(0.2));
    for server in [&pimesh, &relay] {
        let before = resident_kib(server.pid)?;
        let clients = crowd(server.address).await?;
        let grown = resident_kib(server.pid)? - before;
        drop(clients);
        let what = format!("{}: memory of a client, 1,000 signed in", server.name);
        report.add(what, grown / f64::from(CLIENTS), "KiB");
    }
    Ok(())
}

/// How long integers of the mesh take to another node, alone and while a gateway is flooded.
async fn beside_a_flood(report: &mut Report) -> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let limits = "[gateway.iid.limits]\nbytes_per_minute = 0\nbytes_per_hour = 0\n\
                  bytes_per_day = 0\nbytes_per_month = 0";
    let allowed: Vec<(i32, u16)> = (1..=50).map(|n| (i32::from(n) + 1000, n)).collect();
    let gateway = iid::open(&pi_1, limits, &allowed).await?;
    let alone = across(&pi_1, &pi_2).await?;
    report.times("mesh integer beside an idle IID gateway", alone, [None; 2]);
    let flood = tokio::spawn(async move {
        loop {
            flat_out(gateway, 50, 2_000).await?;
        }
        #[expect(unreachable_code, reason = "says what the task returns")]
        anyhow::Ok(())
    });
    let beside = across(&pi_1, &pi_2).await?;
    anyhow::ensure!(!flood.is_finished(), "the flood ended: {:?}", flood.await);
    flood.abort();
    report.times(
        "mesh integer beside a flooded IID gateway",
        beside,
        [None; 2],
    );
    Ok(())
}

/// Returns the times from asking one node to hearing at another, in microseconds.
async fn across(from: &Pi, to: &Pi) -> anyhow::Result<Vec<f64>> {
    let mut events = Box::pin(to.client.events_of(&["integers"]).await?);
    let mut times = Vec::new();
    for value in 0..200 {
        let begun = Instant::now();
        let integers = NewIntegers {
            index: None,
            values: vec![Value(value)],
            at: None,
        };
        from.client.publish(&integers).await?;
        Pi::wait_for_event(&mut events, |event| match event {
            EventBody::Integers(heard) => {
                let is_it = |i: &Integer| i.index.0 < 1000 && i.value == Value(value);
                heard.singles().iter().any(is_it).then_some(())
            }
            _ => None,
        })
        .await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(times)
}

/// Starts the relay; returns where it listens.
async fn relay(claims: &std::path::Path) -> anyhow::Result<(Option<Child>, SocketAddr, u32)> {
    let mut child = Command::new(python().await?)
        .arg(python_script("iid_relay.py"))
        .arg(claims)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    let port: u16 = line.context("a port")?.parse()?;
    let pid = child.id().context("it runs")?;
    Ok((Some(child), ([127, 0, 0, 1], port).into(), pid))
}

/// Sends integers as fast as they are taken; returns how many came back in a second.
async fn flat_out(address: SocketAddr, clients: u16, each: usize) -> anyhow::Result<f64> {
    let mut signed_in = Vec::new();
    for number in 1..=clients {
        signed_in.push(Client::sign_in(address, number).await?);
    }
    let begun = Instant::now();
    try_join_all(signed_in.into_iter().map(|client| flood(client, each))).await?;
    Ok(f64::from(clients) * each as f64 / begun.elapsed().as_secs_f64())
}

async fn flood(client: Client, count: usize) -> anyhow::Result<()> {
    let (mut sink, mut stream) = client.socket.split();
    let sending = async {
        for value in 0..count {
            let bytes = (value as u32).to_le_bytes().to_vec();
            sink.feed(Message::Binary(bytes.into())).await?;
        }
        anyhow::Ok(sink.flush().await?)
    };
    let hearing = async {
        let mut heard = 0;
        while heard < count {
            let message = stream.next().await.context("the connection ended")??;
            heard += usize::from(message.is_binary());
        }
        anyhow::Ok(())
    };
    futures::try_join!(sending, hearing)?;
    Ok(())
}

/// Returns the times until integers come back, in microseconds: each client sends ten a second.
async fn echoes(address: SocketAddr, clients: u16) -> anyhow::Result<Vec<f64>> {
    let mut waiting = Vec::new();
    for number in 1..=clients {
        let client = Client::sign_in(address, number).await?;
        let phase = Duration::from_micros(u64::from(number) * 100_000 / u64::from(clients));
        waiting.push(paced(client, phase));
    }
    Ok(try_join_all(waiting).await?.concat())
}

async fn paced(mut client: Client, phase: Duration) -> anyhow::Result<Vec<f64>> {
    let start = tokio::time::Instant::now() + phase;
    let mut ticks = tokio::time::interval_at(start, Duration::from_millis(100));
    let mut times = Vec::new();
    for value in 0..50_i32 {
        ticks.tick().await;
        let begun = Instant::now();
        client.send(value.to_le_bytes().to_vec()).await?;
        client.integer().await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Signs a thousand clients in.
async fn crowd(address: SocketAddr) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        clients.push(Client::sign_in(address, number).await?);
    }
    Ok(clients)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
