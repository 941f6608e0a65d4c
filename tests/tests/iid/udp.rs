//! Integers as datagrams: in, out, and never in a circle.

use anyhow::{Context, ensure};
use pimesh_node::{control::api::EventBody, proto::iid::Form};
use pimesh_tests::{
    PATIENCE, Pi, World, eventually,
    foreign::python,
    iid::{self, Client},
};
use tokio::{net::UdpSocket, process::Command};

use super::{heard, integer};

async fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// Waits for a datagram.
pub(super) async fn datagram(socket: &UdpSocket) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer));
    let (length, _) = received.await.context("no datagram came")??;
    ensure!(
        length == 16,
        "nothing but integers is on that wire, not {length} bytes"
    );
    Ok(buffer[..length].to_vec())
}

#[tokio::test]
async fn iid42_speaks_with_the_gateway_over_udp_in_all_lengths() -> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let input = free_port().await?;
    let settings = format!("udp_in = \"127.0.0.1:{input}\"\nudp_in_index = 33");
    iid::open(&pi_1, &settings, &[]).await?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;

    let script = format!(
        "from iid42 import SendUdpIID\n\
         out = SendUdpIID('127.0.0.1', {input}, False)\n\
         out.push_integer(41)\n\
         out.push_index_integer(9, 42)\n\
         out.push_index_integer_date(9, 43, 1700000000123)\n"
    );
    let status = Command::new(python().await?)
        .args(["-c", &script])
        .stdout(std::process::Stdio::null())
        .status()
        .await?;

    ensure!(status.success());
    let mut values = Vec::new();
    while values.len() < 3 {
        let new = Pi::wait_for_event(&mut events, |event| match event {
            EventBody::Integers(heard) => Some(heard.singles()),
            _ => None,
        });
        values.extend(new.await?.iter().map(|i| (i.index.0, i.value.0)));
    }
    assert_eq!(values, [(33, 41), (33, 42), (33, 43)]);
    Ok(())
}

#[tokio::test]
async fn udp_that_meets_on_one_host_is_refused_in_every_combination() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let port = free_port().await?;
    let ips = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"];
    for input in ips {
        for output in ips {
            let udp = format!(
                "udp_in = \"{input}:{port}\"\nudp_out = [\"{output}:{port}\"]\nudp_in_index = 5"
            );
            let opened = iid::open(&pi, &udp, &[]).await;
            // IPv4 and IPv6 on loopback are apart, unless one of them means all.
            let apart = matches!(
                (input, output),
                ("127.0.0.1", "[::1]") | ("[::1]", "127.0.0.1") | ("0.0.0.0", "[::1]")
            );
            match opened {
                Err(refused) => {
                    assert!(!apart, "{input} {output}");
                    assert!(
                        refused.to_string().contains("would come in again"),
                        "{refused}"
                    );
                }
                Ok(_) => assert!(apart, "{input} {output}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn udp_of_two_nodes_that_meet_runs_in_no_circle() -> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let ports = [free_port().await?, free_port().await?];
    let settings = |own: u16, other: u16, index: i32| {
        format!(
            "udp_in = \"127.0.0.1:{own}\"\nudp_out = [\"127.0.0.1:{other}\"]\nudp_in_index = {index}"
        )
    };
    iid::open(&pi_1, &settings(ports[0], ports[1], 51), &[]).await?;
    iid::open(&pi_2, &settings(ports[1], ports[0], 52), &[]).await?;
    for pi in [&pi_1, &pi_2] {
        eventually("a warning of the circle", async || {
            pi.publish([1]).await?;
            let log = pi.log()?;
            ensure!(log.contains("run in a circle"), "{log}");
            Ok(())
        })
        .await?;
    }

    let mut events = pi_1.client.events_of(&["integers"]).await?;
    let undated = Form::IndexIntegerDate(integer(9, 777, 0)).encode();
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(&undated, ("127.0.0.1", ports[0])).await?;
    heard(&mut events, integer(51, 777, 0)).await?;
    // A second one comes after everything that the first caused.
    let second = Form::IndexIntegerDate(integer(9, 778, 0)).encode();
    socket.send_to(&second, ("127.0.0.1", ports[0])).await?;
    let mut circled = Vec::new();
    Pi::wait_for_event(&mut events, |event| {
        let EventBody::Integers(heard) = event else {
            return None;
        };
        let integers = heard.singles();
        circled.extend(
            integers
                .iter()
                .filter(|i| i.value.0 == 777)
                .map(|i| i.index),
        );
        integers.iter().any(|i| i.value.0 == 778).then_some(())
    })
    .await?;
    assert_eq!(circled, []);
    Ok(())
}

/// The published push client takes UDP on 3615 and pushes all of it.
#[tokio::test]
async fn a_client_that_pushes_what_it_gets_by_udp_makes_no_circle() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let udp_out = format!("udp_out = [\"{}\"]", udp.local_addr()?);
    let gateway = iid::open(&pi, &udp_out, &[(7, 1)]).await?;
    let mut client = Client::sign_in(gateway, 1).await?;
    pi.publish([5]).await?;

    // Its date has milliseconds, so that what comes back can be nothing else; but one in a
    // thousand looks like whole seconds.
    let mut pushed = 0;
    let next = loop {
        let bytes = datagram(&udp).await?;
        if bytes[4..8] == 6_i32.to_le_bytes() {
            break bytes;
        }
        client.send(bytes).await?;
        client.integer().await?;
        pushed += 1;
        // What a circle would send comes before this.
        pi.publish([6]).await?;
    };

    assert!(pushed <= 2, "{pushed}");
    assert_eq!(&next[4..8], 6_i32.to_le_bytes());
    Ok(())
}

/// Programs that date in whole seconds send the same integer twice in one: both count.
#[tokio::test]
async fn equal_integers_with_equal_dates_all_arrive() -> anyhow::Result<()> {
    const DATE: u64 = 1_700_000_000;
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let (udp, input) = (UdpSocket::bind("127.0.0.1:0").await?, free_port().await?);
    let settings = format!(
        "udp_out = [\"{}\"]\nudp_in = \"127.0.0.1:{input}\"\nudp_in_index = 33",
        udp.local_addr()?
    );
    let gateway = iid::open(&pi_1, &settings, &[(7, 1)]).await?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;
    let mut client = Client::sign_in(gateway, 1).await?;
    let program = UdpSocket::bind("127.0.0.1:0").await?;

    let sent = integer(7, 5, DATE);
    for _ in 0..6 {
        client.send(sent.encode().to_vec()).await?;
    }
    for _ in 0..6 {
        assert_eq!(client.integer().await?, sent);
        assert_eq!(datagram(&udp).await?, sent.encode());
    }
    for _ in 0..6 {
        let bytes = integer(9, 6, DATE).encode();
        program.send_to(&bytes, ("127.0.0.1", input)).await?;
    }
    for _ in 0..6 {
        assert_eq!(datagram(&udp).await?, integer(33, 6, DATE).encode());
    }
    let mut heard = [0, 0];
    while heard != [6, 6] {
        let new = Pi::wait_for_event(&mut events, |event| match event {
            EventBody::Integers(heard) => Some(heard.singles()),
            _ => None,
        });
        for integer in new.await? {
            heard[usize::from(integer.value.0 == 6)] += 1;
        }
    }
    Ok(())
}
