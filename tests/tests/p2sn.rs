//! P2SN programs that know nothing of pimesh: a Python peer on the package that the published one
//! uses, as the client and as the server, and everything that a stranger may send.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::StreamExt;
use pimesh_node::{
    control::api::{EventBody, HistoryRow, NewIntegers, NewMessage},
    proto::iid::Value as Integer,
    state::io::{Recipients, Via},
};
use pimesh_tests::{PATIENCE, Pi, World, foreign::Foreign, pimesh};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// How long a session with a frame that is refused may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// Longest that an integer may take on the mesh while strangers are at the door. It takes about
/// two milliseconds; a test machine may be busy.
const INTEGER_TIME: Duration = Duration::from_secs(2);

/// How often is looked whether the RSA key is made; no event tells it.
const LOOK: Duration = Duration::from_millis(50);

/// Configures a node with a door for P2SN before its first start.
fn configure(world: &World, name: &str, listen: &str, more: &str) -> anyhow::Result<PathBuf> {
    let home = world.home(name);
    std::fs::create_dir_all(&home)?;
    let toml = format!(
        "[identity]\nrsa_bits = 2048\n[gateway.p2sn]\nenabled = true\nlisten = \"{listen}\"\n{more}\n"
    );
    std::fs::write(home.join("pimesh.toml"), toml)?;
    Ok(home)
}

async fn start(world: &World, name: &str, more: &str) -> anyhow::Result<(Pi, SocketAddr)> {
    configure(world, name, "127.0.0.1:0", more)?;
    let pi = world.start(name).await?;
    let door = door(&pi).await?;
    Ok((pi, door))
}

/// Returns where the door listens, once the node has its RSA key.
async fn door(pi: &Pi) -> anyhow::Result<SocketAddr> {
    let ready = async {
        while pi.client.status().await?.node.rsa_fingerprint.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, ready).await??;
    let doors = pi.client.gateways().await?;
    let door = doors.iter().find(|door| door.gateway.name() == "p2sn");
    let door = door.expect("listed");
    assert_eq!(door.error, None);
    Ok(door.addresses[0])
}

async fn python(world: &World, key: &str, args: &[&str]) -> anyhow::Result<Foreign> {
    let key = world.home(key).display().to_string();
    Foreign::python("p2sn_peer.py", &[&["--key", &key], args].concat()).await
}

fn connect(door: SocketAddr) -> Value {
    json!({"do": "connect", "to": [door.ip().to_string(), door.port()]})
}

async fn ask(peer: &mut Foreign, text: &str) -> anyhow::Result<String> {
    peer.order(json!({"do": "ask", "text": text})).await?;
    let reply = peer.event("reply").await?;
    Ok(reply["text"].as_str().unwrap_or_default().to_owned())
}

async fn received(pi: &Pi, text: &str) -> anyhow::Result<HistoryRow> {
    let rows = pi.inbox().await?;
    let row = rows.into_iter().find(|row| row.text == text);
    row.ok_or_else(|| anyhow::anyhow!("`{text}` is not in the inbox"))
}

#[tokio::test]
async fn an_old_program_asks_and_the_owner_answers_and_a_power_cut_loses_neither()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, at) = start(&world, "pi-1", "").await?;
    let mut peer = python(&world, "key", &[]).await?;
    peer.order(connect(at)).await?;
    let fingerprint = peer.event("connected").await?["fingerprint"].clone();
    let client = format!(
        "p2sn:127.0.0.1/{}",
        &fingerprint.as_str().expect("text")[..16]
    );

    assert_eq!(ask(&mut peer, "door open").await?, "P2SN:OK");
    let row = received(&pi, "door open").await?;
    assert_eq!(
        (row.name.as_str(), row.via.as_str()),
        (client.as_str(), "p2sn")
    );
    let clients = pi.client.clients().await?;
    assert_eq!(clients[0].name.as_deref(), Some(client.as_str()));
    assert_eq!(
        (clients[0].detail.as_str(), clients[0].received),
        ("2048 bits", 1)
    );

    for text in ["come in", "mind the step"] {
        assert_eq!(pi.send(&client, text).await?.to, client);
    }
    assert_eq!(ask(&mut peer, "thanks").await?, "come in");
    assert_eq!(ask(&mut peer, "äöü 漢字").await?, "mind the step");
    assert_eq!(ask(&mut peer, "").await?, "P2SN:OK");

    // The node dies right after its OK, with a client connected and an answer waiting.
    pi.send(&client, "still there").await?;
    assert_eq!(ask(&mut peer, "one more").await?, "still there");
    pi.send(&client, "after the cut").await?;
    configure(&world, "pi-1", &at.to_string(), "")?;
    let pi = pi.restart().await?;
    door(&pi).await?;
    for text in ["door open", "thanks", "äöü 漢字", "", "one more"] {
        received(&pi, text).await?;
    }
    peer.order(json!({"do": "ask", "text": "gone?"})).await?;
    peer.event("broken").await?;
    peer.order(connect(at)).await?;
    peer.event("connected").await?;
    assert_eq!(ask(&mut peer, "again").await?, "after the cut");
    Ok(())
}

#[tokio::test]
async fn old_clients_end_their_messages_with_nothing() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, at) = start(&world, "pi-1", "min_key_bits = 1024").await?;
    let mut peer = python(&world, "key", &["--bare", "--bits", "1024"]).await?;
    peer.order(connect(at)).await?;
    peer.event("connected").await?;

    for text in ["one", "two", "three"] {
        assert_eq!(ask(&mut peer, text).await?, "P2SN:OK");
        received(&pi, text).await?;
    }
    assert_eq!(pi.client.clients().await?[0].detail, "1024 bits");
    Ok(())
}

#[tokio::test]
async fn a_small_key_is_refused_unless_the_owner_opted_in() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_pi, at) = start(&world, "pi-1", "").await?;
    let mut peer = python(&world, "key", &["--bits", "1024"]).await?;

    peer.order(connect(at)).await?;

    let refused = peer.event("refused").await?;
    assert_eq!(
        (&refused["at"], &refused["got"]),
        (&json!("key"), &json!("P2SN:ERRORKEY"))
    );
    Ok(())
}

#[tokio::test]
async fn a_changed_key_is_refused_and_told_until_the_owner_accepts_it() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, at) = start(&world, "pi-1", "").await?;
    let mut first = python(&world, "first", &[]).await?;
    first.order(connect(at)).await?;
    first.event("connected").await?;
    let mut events = pi.client.events().await?;
    let mut second = python(&world, "second", &[]).await?;

    second.order(connect(at)).await?;

    assert_eq!(second.event("refused").await?["got"], "P2SN:ERRORKEY");
    let changed = |event| match event {
        EventBody::ClientKeyChanged { address, .. } => Some(address),
        _ => None,
    };
    assert_eq!(Pi::wait_for_event(&mut events, changed).await?, "127.0.0.1");
    let (_, keys, _) = pimesh(&pi.home, &["p2sn", "keys"]).await?;
    assert!(
        keys.contains("pinned") && keys.contains("refused"),
        "{keys}"
    );

    let (code, out, _) = pimesh(&pi.home, &["p2sn", "trust", "127.0.0.1"]).await?;
    assert_eq!((code, out.starts_with("pinned ")), (0, true), "{out}");
    second.order(connect(at)).await?;
    second.event("connected").await?;
    assert_eq!(ask(&mut first, "both").await?, "P2SN:OK");
    assert_eq!(ask(&mut second, "are known").await?, "P2SN:OK");
    Ok(())
}

#[tokio::test]
async fn without_pinning_a_program_may_make_a_key_at_each_start() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, at) = start(&world, "pi-1", "pin_clients = false").await?;
    for key in ["first", "second"] {
        let mut peer = python(&world, key, &[]).await?;
        peer.order(connect(at)).await?;
        peer.event("connected").await?;
        assert_eq!(ask(&mut peer, key).await?, "P2SN:OK");
        received(&pi, key).await?;
    }
    Ok(())
}

#[tokio::test]
async fn messages_go_on_to_the_member_that_is_configured_and_its_answer_comes_back()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (a, at) = start(&world, "pi-1", "deliver_to = \"pi-2\"").await?;
    let b = world.start("pi-2").await?;
    b.join(&a).await?;
    b.wait_for_peers(1).await?;
    let mut peer = python(&world, "key", &[]).await?;
    peer.order(connect(at)).await?;
    peer.event("connected").await?;

    assert_eq!(ask(&mut peer, "door open").await?, "P2SN:OK");

    let marked = b.wait_for_inbox(1).await?.remove(0);
    let mark = marked.strip_suffix("door open").expect("the message");
    assert!(mark.starts_with("[p2sn:127.0.0.1/"), "{marked}");
    assert_eq!(a.inbox().await?.len(), 0);
    b.send("pi-1", &format!("{mark}come in")).await?;
    a.wait_for_inbox(1).await?;
    assert_eq!(ask(&mut peer, "and?").await?, "come in");
    Ok(())
}

#[tokio::test]
async fn this_node_sends_to_a_plain_server_whose_key_is_pinned() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, _) = start(&world, "pi-1", "").await?;
    let mut server = python(&world, "key", &[]).await?;
    server.order(json!({"do": "serve"})).await?;
    let serving = server.event("serving").await?;
    let at = format!("127.0.0.1:{}", serving["port"]);

    let (code, out, err) = pimesh(&pi.home, &["p2sn", "send", &at, "door open"]).await?;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "Hi! You sent me \"door open\"\n", "")
    );
    let (_, json, _) = pimesh(&pi.home, &["--json", "p2sn", "send", &at, ""]).await?;
    let replied: Value = serde_json::from_str(&json)?;
    assert_eq!(replied["fingerprint"], serving["fingerprint"]);
    assert_eq!(
        (&replied["bits"], &replied["reply"]),
        (&json!(2048), &json!("Hi! You sent me \"\""))
    );

    let long = "x".repeat(246);
    let (code, _, err) = pimesh(&pi.home, &["p2sn", "send", &at, &long]).await?;
    assert_eq!(
        (code, err.contains("at most 245 bytes, got 246")),
        (1, true),
        "{err}"
    );

    // Another server at the same address.
    drop(server);
    let (code, _, err) = pimesh(&pi.home, &["p2sn", "send", &at, "hello"]).await?;
    assert_eq!(
        (code, err.contains("could not connect")),
        (1, true),
        "{err}"
    );
    let mut other = python(&world, "other", &[]).await?;
    other
        .order(json!({"do": "serve", "port": serving["port"]}))
        .await?;
    other.event("serving").await?;
    let (code, _, err) = pimesh(&pi.home, &["p2sn", "send", &at, "hello"]).await?;
    assert_eq!(
        (code, err.contains("is not the pinned one")),
        (1, true),
        "{err}"
    );
    let (code, _, err) = pimesh(&pi.home, &["p2sn", "trust", &at]).await?;
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = pimesh(&pi.home, &["p2sn", "send", &at, "hello"]).await?;
    assert_eq!(
        (code, out.as_str()),
        (0, "Hi! You sent me \"hello\"\n"),
        "{err}"
    );

    // A server that never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let at = silent.local_addr()?.to_string();
    let (code, _, err) =
        pimesh(&pi.home, &["p2sn", "send", &at, "hello", "--timeout", "1s"]).await?;
    assert_eq!(code, 1);
    assert!(
        err.contains("took too long") || err.contains("no reply within 1 s"),
        "{err}"
    );
    Ok(())
}

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
async fn stranger(door: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let place = u8::try_from(number / 10 % 250)? + 1;
    let block = u8::try_from(number / 2500)? + 10;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, block, place], 0)))?;
    Ok(socket.connect(door).await?)
}

/// Sends bytes and returns everything that comes until the door closes.
async fn until_closed(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let talk = async {
        // The door may have closed before it read everything.
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

    for _ in 0..20 {
        let mut stream = stranger(at, 10).await?;
        assert_eq!(until_closed(&mut stream, b"no\x04").await?, b"");
    }
    let mut blocked = stranger(at, 10).await?;
    assert_eq!(until_closed(&mut blocked, b"P2SN:PUBKEY\x04").await?, b"");
    let mut other = stranger(at, 20).await?;
    other.write_all(b"P2SN:PUBKEY\x04").await?;
    assert!(other.read(&mut [0; 4096]).await? > 0);
    let metrics = pi.client.metrics().await?;
    for count in ["p2sn_no_place\"} 1", "p2sn_failed_too_often\"} 1"] {
        assert!(metrics.contains(count), "{count} in:\n{metrics}");
    }
    Ok(())
}

/// Returns the memory that a node's process uses, in KiB.
fn memory(pi: &Pi) -> anyhow::Result<u64> {
    let id = pi.child.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.unwrap_or_default().split_whitespace();
    Ok(words
        .filter_map(|word| word.parse().ok())
        .next()
        .unwrap_or(0))
}

#[tokio::test]
#[expect(
    clippy::print_stderr,
    reason = "the figures are for whoever runs the test"
)]
async fn the_mesh_does_not_notice_what_strangers_do_at_the_door() -> anyhow::Result<()> {
    let world = World::new()?;
    let (a, at) = start(&world, "pi-1", "").await?;
    let b = world.start("pi-2").await?;
    b.join(&a).await?;
    b.wait_for_peers(1).await?;
    let before = memory(&a)?;

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
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    for number in 0..10_000_usize {
        let mut bytes = match next() % 3 {
            0 => b"P2SN:PUBKEY\x04".to_vec(),
            _ => Vec::new(),
        };
        let length = next() % 600;
        bytes.extend((0..length).map(|_| next().to_le_bytes()[0]));
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
    let after = memory(&a)?;
    eprintln!("from {before} KiB to {after} KiB");
    assert!(after < before + 65_536, "from {before} KiB to {after} KiB");
    let doors = a.client.gateways().await?;
    assert!(
        doors
            .iter()
            .any(|door| door.gateway.name() == "p2sn" && door.kicks > 0)
    );
    Ok(())
}

/// Returns how long the slowest of twenty integers took, one after the other.
async fn integers_take(a: &Pi, b: &Pi) -> anyhow::Result<Duration> {
    let mut heard = b.client.integer_lines().await?;
    let mut slowest = Duration::ZERO;
    for value in 0..20 {
        let integers = NewIntegers {
            index: None,
            values: vec![Integer(value)],
            at: None,
        };
        let began = Instant::now();
        a.client.publish(&integers).await?;
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
        via: Via::P2sn,
        expiry_s: None,
    };
    b.client.send(&message).await?;
    for pi in [a, b] {
        pi.wait_until("received", || async { Ok(received(pi, text).await.ok()) })
            .await?;
    }
    Ok(())
}
