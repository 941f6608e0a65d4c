//! Everything that a stranger may send, and that the mesh does not notice it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::StreamExt;
use pimesh_node::{
    control::api::{EventBody, NewMessage},
    state::io::{Recipients, SendVia},
};
use pimesh_tests::{PATIENCE, Pi, World, chance::Chance};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{connect, python, received, start};

/// How long a session with a frame that is refused may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// Longest that an integer may take on the mesh while strangers are at the gateway. It takes about
/// two milliseconds; a test machine may be busy.
const INTEGER_TIME: Duration = Duration::from_secs(2);

/// The frames of `vectors/p2sn/reject.json`, each with its kind, and its public keys.
struct Rejected {
    frames: Vec<(String, Vec<u8>)>,
    keys: Vec<String>,
}

fn rejected() -> anyhow::Result<Rejected> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../proto-specs/vectors/p2sn/reject.json"
    );
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let frame = |frame: &Value| {
        let kind = frame["kind"].as_str().unwrap_or_default().to_owned();
        let bytes = match frame["frame_hex"].as_str() {
            Some(hex) => bytes_of(hex),
            None => vec![b'A'; 70_000],
        };
        (kind, bytes)
    };
    let list = |name: &str| vectors[name].as_array().cloned().unwrap_or_default();
    let keys = list("public_keys")
        .into_iter()
        .map(|key| key["pem"].as_str().map(str::to_owned));
    Ok(Rejected {
        frames: list("frames").iter().map(frame).collect(),
        keys: keys.flatten().collect(),
    })
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Connects from an address of its own for each few connections, as many strangers would.
async fn stranger(gateway: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let place = u8::try_from(number / 10 % 250)? + 1;
    let block = u8::try_from(number / 2500)? + 10;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, block, place], 0)))?;
    Ok(socket.connect(gateway).await?)
}

/// Sends bytes and returns everything that comes until the gateway closes.
async fn until_closed(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let talk = async {
        // The gateway may have closed before it read everything.
        drop(stream.write_all(bytes).await);
        drop(stream.read_to_end(&mut answer).await);
    };
    tokio::time::timeout(ENDING, talk).await?;
    Ok(answer)
}

#[tokio::test]
async fn every_malformed_frame_and_key_ends_its_session_with_the_one_answer() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (_pi, at) = start(&world, "pi-1", "min_key_bits = 1024").await?;
    let Rejected { frames, keys } = rejected()?;
    assert_eq!((frames.len(), keys.len()), (26, 6));

    for (number, (kind, frame)) in frames.iter().enumerate() {
        let mut stream = stranger(at, number).await?;
        stream.write_all(b"P2SN:PUBKEY\x04").await?;
        let mut pem = [0; 4096];
        assert!(stream.read(&mut pem).await? > 0);

        let answer = until_closed(&mut stream, frame).await?;

        let expected: &[u8] = match kind.as_str() {
            "size" => b"",
            _ => b"P2SN:ERRORKEY\x04",
        };
        assert_eq!(answer, expected, "{kind}");
    }
    let mut peer = python(&world, "key", &["--bits", "1024"]).await?;
    for (number, pem) in keys.iter().enumerate() {
        let to = json!([at.ip().to_string(), at.port()]);
        let from = format!("127.0.9.{}", number + 1);
        peer.order(json!({"do": "connect", "to": to, "pem": pem, "from": from}))
            .await?;
        let refused = peer.event("refused").await?;
        assert_eq!(
            (&refused["at"], &refused["got"]),
            (&json!("key"), &json!("P2SN:ERRORKEY"))
        );
    }
    Ok(())
}

#[tokio::test]
async fn slow_and_silent_clients_are_cut_off() -> anyhow::Result<()> {
    let world = World::new()?;
    let more = "exchange_time = \"1s\"\nidle_time = \"1s\"";
    let (pi, at) = start(&world, "pi-1", more).await?;
    let mut events = pi.client.events().await?;

    let mut silent = stranger(at, 0).await?;
    assert_eq!(until_closed(&mut silent, b"").await?, b"");
    let mut slow = stranger(at, 10).await?;
    let answer = until_closed(&mut slow, b"P2SN:PUBKEY\x04").await?;
    assert!(answer.starts_with(b"-----BEGIN RSA PUBLIC KEY-----"));
    let kicked = |event| match event {
        EventBody::ClientKicked { why, .. } => Some(why),
        _ => None,
    };
    for _ in 0..2 {
        let why = Pi::wait_for_event(&mut events, kicked).await?;
        assert_eq!(why, "exchange_timeout");
    }

    let mut peer = python(&world, "key", &[]).await?;
    peer.order(connect(at)).await?;
    peer.event("connected").await?;
    let left = |event| match event {
        EventBody::ClientLeft { reason, .. } => Some(reason),
        _ => None,
    };
    let reason = Pi::wait_for_event(&mut events, left).await?;
    assert_eq!(reason, "idle_timeout");
    Ok(())
}

#[tokio::test]
async fn one_address_has_so_many_places_and_failures_and_others_have_theirs() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (pi, at) = start(&world, "pi-1", "connections_per_address_max = 3").await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = stranger(at, 0).await?;
        stream.write_all(b"P2SN:PUBKEY\x04").await?;
        assert!(stream.read(&mut [0; 4096]).await? > 0);
        held.push(stream);
    }

    let mut fourth = stranger(at, 0).await?;
    assert_eq!(until_closed(&mut fourth, b"P2SN:PUBKEY\x04").await?, b"");

    // Failures of one program do not lock out another one at its address: it waits for its turn.
    for _ in 0..62 {
        let mut stream = stranger(at, 10).await?;
        assert_eq!(until_closed(&mut stream, b"no\x04").await?, b"");
    }
    for number in [10, 20] {
        let mut other = stranger(at, number).await?;
        other.write_all(b"P2SN:PUBKEY\x04").await?;
        assert!(other.read(&mut [0; 4096]).await? > 0, "{number}");
    }
    let metrics = pi.client.metrics().await?;
    let count = "p2sn_no_place\"} 1";
    assert!(metrics.contains(count), "{count} in:\n{metrics}");
    Ok(())
}

#[tokio::test]
#[expect(
    clippy::print_stderr,
    reason = "the figures are for whoever runs the test"
)]
async fn the_mesh_does_not_notice_what_strangers_do_at_the_gateway() -> anyhow::Result<()> {
    let world = World::new()?;
    let (a, at) = start(&world, "pi-1", "").await?;
    let b = world.start("pi-2").await?;
    b.join(&a).await?;
    b.wait_for_peers(1).await?;
    let before = a.memory_kib()?;

    // A thousand that begin an exchange and never go on, nor read.
    let mut hanging = python(&world, "key", &[]).await?;
    let to = json!([at.ip().to_string(), at.port()]);
    hanging
        .order(json!({"do": "hang", "to": to, "count": 1000}))
        .await?;
    hanging.event("hanging").await?;
    both_ways(&a, &b, "while a thousand hang").await?;
    let beside_hanging = integers_take(&a, &b).await?;
    assert!(a.client.clients().await?.len() <= 256);
    drop(hanging);

    // Ten thousand frames of chance, some of which begin rightly.
    let mut slowest = Duration::ZERO;
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15);
    for number in 0..10_000_usize {
        let mut bytes = match chance.number() % 3 {
            0 => b"P2SN:PUBKEY\x04".to_vec(),
            _ => Vec::new(),
        };
        bytes.extend(chance.bytes(599));
        bytes.push(4);
        let mut stream = stranger(at, number).await?;
        drop(stream.write_all(&bytes).await);
        if number % 1000 == 0 {
            both_ways(&a, &b, &format!("after {number} frames of chance")).await?;
            slowest = slowest.max(integers_take(&a, &b).await?);
        }
    }
    // A flood on one connection, of which no answer is read.
    let mut flood = stranger(at, 10_000).await?;
    let flooding = async { while flood.write_all(&[b'x'; 65_536]).await.is_ok() {} };
    tokio::time::timeout(ENDING, flooding).await?;
    both_ways(&a, &b, "after a flood").await?;

    let alone = integers_take(&a, &b).await?;
    eprintln!(
        "an integer took {alone:?} alone, {beside_hanging:?} beside a thousand that hang, \
               at most {slowest:?} among frames of chance"
    );
    assert!(beside_hanging.max(slowest) < INTEGER_TIME);
    let after = a.memory_kib()?;
    eprintln!("from {before} KiB to {after} KiB");
    assert!(after < before + 65_536, "from {before} KiB to {after} KiB");
    let gateways = a.client.gateways().await?;
    assert!(
        gateways
            .iter()
            .any(|gateway| gateway.gateway.name() == "p2sn" && gateway.kicks > 0)
    );
    Ok(())
}

/// Returns how long the slowest of twenty integers took, one after the other.
async fn integers_take(a: &Pi, b: &Pi) -> anyhow::Result<Duration> {
    let mut heard = b.client.integer_lines().await?;
    let mut slowest = Duration::ZERO;
    for value in 0..20 {
        let began = Instant::now();
        a.publish([value]).await?;
        let line = tokio::time::timeout(PATIENCE, heard.next()).await?;
        line.context("goes on")??;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

/// Sends a direct message one way and a P2SN message the other way.
async fn both_ways(a: &Pi, b: &Pi, text: &str) -> anyhow::Result<()> {
    a.send("pi-2", text).await?;
    let message = NewMessage {
        to: Recipients::Named(vec!["pi-1".to_owned()]),
        text: text.to_owned(),
        via: SendVia::P2sn,
        expiry_s: None,
    };
    b.client.send(&message).await?;
    for pi in [a, b] {
        pi.wait_until("received", || async { Ok(received(pi, text).await.ok()) })
            .await?;
    }
    Ok(())
}
