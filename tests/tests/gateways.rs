//! What holds for all gateways: their settings change while they are open.

use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, ensure};
use pimesh_node::gateway::GatewayReport;
use pimesh_tests::{Pi, World, eventually, pimesh, syft};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// Rounds of changes. The ports were lost by nearly every change before; a few show it.
const ROUNDS: usize = 5;

const GATEWAYS: [&str; 3] = ["iid", "p2sn", "syft"];

/// Returns three ports that nobody listens on. The system gives none of this range to others that
/// ask for any port, so they are still free when a gateway opens again.
async fn free_ports() -> anyhow::Result<[u16; 3]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    let mut ports = Vec::new();
    while ports.len() < 3 {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            ports.push(port);
        }
    }
    Ok([ports[0], ports[1], ports[2]])
}

/// Writes settings with all gateways at these ports; another number makes each section another.
fn write_settings(pi: &Pi, ports: [u16; 3], number: usize) -> anyhow::Result<()> {
    let [iid, p2sn, syft] = ports;
    let text = format!(
        "[gateway.iid]\nenabled = true\nlisten = \"127.0.0.1:{iid}\"\nudp_out = []\n\
         [gateway.iid.limits]\nconnections_max = {number}\n\
         [gateway.p2sn]\nenabled = true\nlisten = \"127.0.0.1:{p2sn}\"\n\
         connections_max = {number}\n\
         [gateway.syft]\nenabled = true\nlisten = \"127.0.0.1:{syft}\"\n\
         [gateway.syft.limits]\nconnections_max = {number}\n"
    );
    Ok(std::fs::write(pi.home.join("pimesh.toml"), text)?)
}

fn check_open(gateways: &[GatewayReport], ports: [u16; 3]) -> anyhow::Result<()> {
    for (name, port) in GATEWAYS.iter().zip(ports) {
        let gateway = gateways.iter().find(|found| found.gateway.name() == *name);
        let gateway = gateway.context("it is listed")?;
        let is_open = gateway.open && gateway.error.is_none();
        ensure!(
            is_open && gateway.addresses[0].port() == port,
            "{gateway:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn gateways_whose_settings_change_open_again_at_their_ports() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let ports = free_ports().await?;
    let pid = pi.child.id().context("it runs")?.to_string();
    let mut clients = Vec::new();
    for round in 0..ROUNDS {
        // The node reads its settings because of a signal,
        write_settings(&pi, ports, 100 + 2 * round)?;
        let status = Command::new("kill").args(["-HUP", &pid]).status().await?;
        ensure!(status.success());
        let opened = 3 * (4 * round + 1);
        eventually("gateways that open again", async || {
            let count = pi.log()?.matches("gateway open").count();
            ensure!(count >= opened, "{count} of {opened}:\n{}", pi.log()?);
            check_open(&pi.client.gateways().await?, ports)
        })
        .await?;
        // with clients behind each gateway;
        for port in ports {
            clients.push(TcpStream::connect(("127.0.0.1", port)).await?);
        }
        // and because of a command, three times, once for each gateway.
        for (at, name) in GATEWAYS.iter().enumerate() {
            write_settings(&pi, ports, 1000 + 10 * round + at)?;
            let (code, out, err) = pimesh(&pi.home, &["gateway", "enable", name]).await?;
            ensure!(code == 0, "{out}{err}");
            check_open(&pi.client.gateways().await?, ports)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn gateways_may_swap_their_ports() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let mut ports = free_ports().await?;
    for round in 0..3 {
        ports.rotate_left(1);
        write_settings(&pi, ports, 100 + round)?;
        pi.client.reload().await?;
        check_open(&pi.client.gateways().await?, ports)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_whose_port_is_taken_opens_once_it_is_free() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    for name in GATEWAYS {
        let taken = TcpListener::bind("127.0.0.1:0").await?;
        let address = taken.local_addr()?.to_string();
        let enable = ["gateway", "enable", name, "--listen", &address];
        let (code, _, err) = pimesh(&pi.home, &enable).await?;
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("in use") && err.contains("hint: "), "{err}");
        let gateways = pi.client.gateways().await?;
        let failed = gateways
            .iter()
            .find(|gateway| gateway.gateway.name() == name);
        let failed = failed.context("each is listed")?;
        assert!(!failed.open && failed.error.is_some(), "{failed:?}");

        drop(taken);

        eventually("a gateway that opens by itself", async || {
            let gateways = pi.client.gateways().await?;
            let gateway = gateways
                .iter()
                .find(|gateway| gateway.gateway.name() == name);
            ensure!(gateway.is_some_and(|gateway| gateway.open), "{gateway:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_syft_gateway_that_was_closed_answers_nothing_more() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "").await?;
    let authority = url.trim_start_matches("http://");
    let question = format!("GET /health HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let (begun, rest) = question.split_at(question.len() - 2);
    // One that is kept open behind an answer, one whose request is not complete, and one that has
    // said nothing yet.
    let mut kept = TcpStream::connect(authority).await?;
    kept.write_all(question.as_bytes()).await?;
    let mut answer = [0; 4096];
    let length = kept.read(&mut answer).await?;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200"));
    let mut half = TcpStream::connect(authority).await?;
    half.write_all(begun.as_bytes()).await?;
    let silent = TcpStream::connect(authority).await?;

    let (code, _, err) = pimesh(&pi.home, &["gateway", "disable", "syft"]).await?;
    ensure!(code == 0, "{err}");

    for (mut stream, text) in [(kept, &*question), (half, rest), (silent, &*question)] {
        // The system of the node may have told that nobody reads there any more.
        drop(stream.write_all(text.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        ensure!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
