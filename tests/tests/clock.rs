//! A node's dates follow an NTP server, and a server that says nothing keeps no node from starting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use pimesh_node::clock::{Report, Source};
use pimesh_tests::{Pi, World, eventually, pimesh};
use tokio::net::UdpSocket;

/// Seconds from 1900, where NTP begins, to 1970.
const UNIX_IN_NTP: u64 = 2_208_988_800;

/// How far the server's clock is ahead of ours.
const AHEAD: Duration = Duration::from_secs(3600);

fn unix() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Answers as an NTP server whose clock is ahead.
async fn serve(socket: UdpSocket) -> anyhow::Result<()> {
    let mut request = [0; 48];
    loop {
        let (_, from) = socket.recv_from(&mut request).await?;
        let now = unix() + AHEAD;
        let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
        let stamp = ((now.as_secs() + UNIX_IN_NTP) << 32 | fraction).to_be_bytes();
        let mut answer = [0; 48];
        // No leap second, version 4, server; stratum 1; a clock of its own.
        answer[..2].copy_from_slice(&[0x24, 1]);
        answer[12..16].copy_from_slice(b"LOCL");
        answer[16..24].copy_from_slice(&stamp);
        answer[24..32].copy_from_slice(&request[40..48]);
        answer[32..40].copy_from_slice(&stamp);
        answer[40..48].copy_from_slice(&stamp);
        socket.send_to(&answer, from).await?;
    }
}

/// Starts a node that asks this server.
async fn start(world: &World, server: &UdpSocket) -> anyhow::Result<Pi> {
    let home = world.home("pi-1");
    std::fs::create_dir(&home)?;
    let text = format!("[clock]\nntp = [\"{}\"]\n", server.local_addr()?);
    std::fs::write(home.join("pimesh.toml"), text)?;
    world.start("pi-1").await
}

/// Returns the node's clock once it is as it should be.
async fn wait_for(pi: &Pi, fits: impl Fn(&Report) -> bool) -> anyhow::Result<Report> {
    eventually("the clock as it should be", async || {
        let clock = pi.client.status().await?.clock;
        ensure!(fits(&clock), "{clock:?}");
        Ok(clock)
    })
    .await
}

#[tokio::test]
async fn dates_of_integers_follow_the_ntp_server() -> anyhow::Result<()> {
    let world = World::new()?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?.to_string();
    let pi = start(&world, &socket).await?;
    let server = tokio::spawn(serve(socket));

    let clock = wait_for(&pi, |clock| clock.source == Source::Ntp).await?;
    let before = unix() + AHEAD;
    let published = pi.publish([7]).await?;
    let after = unix() + AHEAD;

    server.abort();
    let off = Duration::from_micros(clock.offset_us.unsigned_abs()).abs_diff(AHEAD);
    assert!(
        clock.offset_us > 0 && off < Duration::from_millis(500),
        "{clock:?}"
    );
    assert_eq!(clock.server, Some(address));
    assert_eq!(clock.error, None);
    let date = Duration::from_millis(published.date.0);
    let doubt = Duration::from_millis(500);
    assert!(before < date + doubt && date < after + doubt, "{date:?}");
    let (code, shown, _) = pimesh(&pi.home, &["status"]).await?;
    assert_eq!(code, 0);
    assert!(shown.contains("by NTP from 127.0.0.1"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_silent_ntp_server_keeps_no_node_from_starting_and_is_told() -> anyhow::Result<()> {
    let world = World::new()?;
    let silent = UdpSocket::bind("127.0.0.1:0").await?;
    let pi = start(&world, &silent).await?;

    let clock = wait_for(&pi, |clock| clock.error.is_some()).await?;

    assert_eq!((clock.source, clock.offset_us), (Source::System, 0));
    let (code, shown, _) = pimesh(&pi.home, &["status"]).await?;
    assert_eq!(code, 0);
    assert!(shown.contains("no NTP server answers"), "{shown}");
    let log = pi.log()?;
    assert_eq!(log.matches("no NTP server answers").count(), 1, "{log}");
    Ok(())
}
