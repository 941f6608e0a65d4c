//! Strangers that take all there is, while a node from another address wants to get in.

use std::{net::UdpSocket, time::Duration};

use libp2p::{
    core::{
        Endpoint, Transport,
        transport::{DialOpts, PortUse},
        upgrade,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use pimesh_tests::{Pi, World};
use tokio::{net::TcpStream, task::JoinHandle};

/// More connections than a node holds without a handshake.
const CROWD: usize = 100;

/// The source address of the node that wants to get in; strangers come from 127.0.0.1.
const ELSEWHERE: [&str; 1] = ["/ip4/127.0.0.2/tcp/0"];

fn word<'a>(pi: &'a Pi, part: &str) -> anyhow::Result<&'a str> {
    let word = pi.ready.split(' ').find(|word| word.contains(part));
    word.ok_or_else(|| anyhow::anyhow!("no {part} in {}", pi.ready))
}

fn port(pi: &Pi, part: &str) -> anyhow::Result<u16> {
    let address = word(pi, part)?.split(part).nth(1).unwrap_or_default();
    Ok(address.split('/').next().unwrap_or_default().parse()?)
}

/// Ends a task with the test.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects again and again, and says nothing: always so many are open at this end.
async fn silent(port: u16) -> anyhow::Result<Running> {
    let mut open = Vec::new();
    for _ in 0..CROWD {
        open.push(TcpStream::connect(("127.0.0.1", port)).await?);
    }
    Ok(Running(tokio::spawn(async move {
        loop {
            for stream in &mut open {
                if let Ok(fresh) = TcpStream::connect(("127.0.0.1", port)).await {
                    *stream = fresh;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })))
}

#[tokio::test]
async fn silent_tcp_connections_from_one_address_do_not_keep_join_out() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let b = world.start_on("b", &ELSEWHERE).await?;
    let _crowd = silent(port(&a, "/tcp/")?).await?;

    b.join(&a).await?;

    a.wait_for_peers(1).await
}

#[tokio::test]
async fn encrypted_connections_without_a_handshake_do_not_keep_join_out() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let b = world.start_on("b", &ELSEWHERE).await?;
    let at: libp2p::Multiaddr = word(&a, "/tcp/")?.parse()?;
    let mut open = Vec::new();
    for _ in 0..CROWD {
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
            // Lazily, as a node does it, the muxer would not be agreed upon.
            .upgrade(upgrade::Version::V1)
            .authenticate(noise::Config::new(&Keypair::generate_ed25519())?)
            .multiplex(yamux::Config::default());
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        open.push(transport.dial(at.clone(), options)?.await?);
    }

    b.join(&a).await?;

    a.wait_for_peers(1).await?;
    let metrics = a.client.metrics().await?;
    let counted = r#"pimesh_limits_total{what="connection_without_handshake"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_quic_initials_does_not_keep_join_out() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world
        .start_on("a", &["/ip4/127.0.0.1/udp/0/quic-v1"])
        .await?;
    let b = world
        .start_on("b", &["/ip4/127.0.0.2/udp/0/quic-v1"])
        .await?;
    let at = ("127.0.0.1", port(&a, "/udp/")?);
    let initials = initials()?;
    let _flood = Running(tokio::spawn(async move {
        for initial in initials.iter().cycle() {
            if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
                drop(socket.send_to(initial, at));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));

    b.join(&a).await?;

    a.wait_for_peers(1).await
}

/// Returns the first packets of many connections that nobody answers.
fn initials() -> anyhow::Result<Vec<Vec<u8>>> {
    let nobody = UdpSocket::bind("127.0.0.1:0")?;
    nobody.set_read_timeout(Some(Duration::from_secs(10)))?;
    let at = format!("/ip4/127.0.0.1/udp/{}/quic-v1", nobody.local_addr()?.port());
    let config = libp2p::quic::Config::new(&Keypair::generate_ed25519());
    let mut initials = Vec::new();
    while initials.len() < 4 * CROWD {
        let mut quic = libp2p::quic::tokio::Transport::new(config.clone());
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = tokio::spawn(quic.dial(at.parse()?, options)?);
        let mut packet = vec![0; 2048];
        let length = tokio::task::block_in_place(|| nobody.recv(&mut packet))?;
        packet.truncate(length);
        initials.push(packet);
        dial.abort();
    }
    Ok(initials)
}
