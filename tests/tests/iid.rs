//! The door for IID and APIntIO clients, with real clients on the libraries of the published ones.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use futures::{SinkExt, StreamExt};
use pimesh_node::{
    control::api::{EventBody, NewIntegers},
    gateway::iid::upstream::ServerState,
    proto::iid::{Date, Form, Iid, Index, Value},
};
use pimesh_tests::{
    PATIENCE, Pi, World,
    foreign::{Foreign, python},
    iid::{self, Client, key},
    pimesh,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    process::Command,
};
use tokio_tungstenite::tungstenite::Message;

fn iid(index: i32, value: i32, date: u64) -> Iid {
    Iid {
        index: Index(index),
        value: Value(value),
        date: Date(date),
    }
}

/// A client on `websockets` and `eth_account`, signed in with the key of this number.
async fn python_client(address: SocketAddr, number: u16) -> anyhow::Result<Foreign> {
    let secret = hex(&key(number).to_bytes()[..]);
    let url = format!("ws://{address}");
    Foreign::python("iid_client.py", &[&url, &secret]).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for a datagram.
async fn datagram(socket: &UdpSocket) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    loop {
        let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer));
        let (length, _) = received.await.context("no datagram came")??;
        // Not what an output says of itself.
        if length != 13 {
            return Ok(buffer[..length].to_vec());
        }
    }
}

/// Waits until a node hears this integer.
async fn heard(
    events: &mut (
             impl futures::Stream<Item = Result<EventBody, pimesh_node::control::client::ClientError>>
             + Unpin
         ),
    wanted: Iid,
) -> anyhow::Result<()> {
    Pi::wait_for_event(events, |event| {
        let EventBody::Integers { integers } = event else {
            return None;
        };
        let is_it = |i: &pimesh_node::state::report::Integer| {
            (i.index, i.value, i.date) == (wanted.index, wanted.value, wanted.date)
        };
        integers.iter().any(is_it).then_some(())
    })
    .await
}

#[tokio::test]
async fn integers_of_an_old_client_reach_its_index_at_every_door_udp_and_the_mesh()
-> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let udp_out = format!("udp_out = [\"{}\"]", udp.local_addr()?);
    let door_1 = iid::open(&pi_1, &udp_out, &[(70, 1), (80, 2)]).await?;
    let door_2 = iid::open(&pi_2, "", &[(70, 3)]).await?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;
    let mut sender = python_client(door_1, 1).await?;
    let mut same = python_client(door_2, 3).await?;
    let mut other = python_client(door_1, 2).await?;
    let hello = sender.event("signed_in").await?;
    assert_eq!(hello["hello"], format!("HELLO 70 {}", key(1).address()));
    same.event("signed_in").await?;
    other.event("signed_in").await?;

    // The client writes another index, and a date of its own.
    let sent = Form::IndexIntegerDate(iid(8, 1001, u64::MAX)).encode();
    sender.order(json!({ "send": hex(&sent) })).await?;

    let passed = iid(70, 1001, u64::MAX);
    for client in [&mut sender, &mut same] {
        let integer = client.event("integer").await?;
        assert_eq!(integer["hex"], hex(&passed.encode()));
    }
    assert_eq!(datagram(&udp).await?, passed.encode());
    heard(&mut events, passed).await?;
    // Without a date, the door's; a stray length is passed over.
    sender.order(json!({ "send": "aa" })).await?;
    sender.order(json!({ "send": "05000000" })).await?;
    let dated = sender.event("integer").await?;
    assert_eq!((&dated["index"], &dated["value"]), (&json!(70), &json!(5)));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
    let date = dated["date"].as_u64().context("a number")?;
    ensure!(now.abs_diff(u128::from(date)) < 60_000, "{date}");
    // What the other index sends is the first thing that it hears.
    other.order(json!({ "send": "06000000" })).await?;
    assert_eq!(other.event("integer").await?["index"], 80);
    Ok(())
}

#[tokio::test]
async fn iid42_speaks_with_the_door_over_udp_in_all_lengths() -> anyhow::Result<()> {
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
            EventBody::Integers { integers } => Some(integers),
            _ => None,
        });
        values.extend(new.await?.iter().map(|i| (i.index.0, i.value.0)));
    }
    assert_eq!(values, [(33, 41), (33, 42), (33, 43)]);
    Ok(())
}

async fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0").await?.local_addr()?.port())
}

#[tokio::test]
async fn who_may_sign_in_is_changed_while_the_door_is_open() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let door = iid::open(&pi, "", &[(7, 1)]).await?;
    let refused = Client::sign_in(door, 2).await.expect_err("not allowed");
    assert!(refused.to_string().contains("ASK ADMIN"), "{refused}");

    let address = key(2).address().to_string();
    let (code, _, err) = pimesh(&pi.home, &["gateway", "iid", "allow", "8", &address]).await?;
    assert_eq!(code, 0, "{err}");
    let mut client = Client::sign_in(door, 2).await?;
    let (_, list, _) = pimesh(&pi.home, &["gateway", "iid", "list", "--json"]).await?;
    assert!(list.contains(&address), "{list}");
    let (code, _, err) = pimesh(&pi.home, &["gateway", "iid", "deny", &address]).await?;
    assert_eq!(code, 0, "{err}");

    assert_eq!(client.text().await?, "ASK ADMIN FOR A CLAIM TO BE ADDED");
    Client::sign_in(door, 2)
        .await
        .expect_err("no longer allowed");
    Client::sign_in(door, 1).await.context("still allowed")?;
    // Published secrets are secrets no more.
    let (code, _, err) = pimesh(
        &pi.home,
        &["gateway", "iid", "allow", "--", "-42", "0xnothing"],
    )
    .await?;
    assert_eq!(code, 1, "{err}");
    Ok(())
}

#[tokio::test]
async fn rsa_keys_letters_and_passwords_open_the_door_until_they_are_taken_back()
-> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let lists = "password_sha256 = \"iid/passwords.txt\"";
    std::fs::create_dir_all(pi.home.join("iid"))?;
    // SHA-256 of "tide and moon".
    let hash = "cf755e1a8148dcf7e45e8c307058daf88ef6ffa0113cc40de444bd5540a17313";
    std::fs::write(pi.home.join("iid/passwords.txt"), format!("9:{hash}\n"))?;
    let door = iid::open(&pi, lists, &[(7, 1)]).await?;
    let url = format!("ws://{door}");

    let mut with_rsa = Foreign::python("iid_client.py", &[&url, "rsa"]).await?;
    let address = with_rsa.event("address").await?["address"].clone();
    let address = address.as_str().context("a text")?;
    let (code, _, err) = pimesh(&pi.home, &["gateway", "iid", "allow", "8", address]).await?;
    assert_eq!(code, 0, "{err}");
    with_rsa.order(json!({})).await?;
    let hello = with_rsa.event("signed_in").await?;
    assert_eq!(hello["hello"], format!("HELLO 8 {address}"));

    let [coaster, master] = [2, 1].map(|number| hex(&key(number).to_bytes()[..]));
    let secret = format!("{coaster}+{master}");
    let mut with_letter = Foreign::python("iid_client.py", &[&url, &secret]).await?;
    let hello = with_letter.event("signed_in").await?;
    let (master, coaster) = (key(1).address().to_string(), key(2).address().to_string());
    assert_eq!(hello["hello"], format!("HELLO 7 {master} {coaster}"));
    let revoke = ["gateway", "iid", "revoke", &master, &coaster];
    let (code, _, err) = pimesh(&pi.home, &revoke).await?;
    assert_eq!(code, 0, "{err}");
    with_letter.event("closed").await?;
    Client::sign_in(door, 1)
        .await
        .context("the master itself is still good")?;

    let secret = "password:tide and moon";
    let mut with_password = Foreign::python("iid_client.py", &[&url, secret]).await?;
    let hello = with_password.event("signed_in").await?;
    assert_eq!(hello["hello"], format!("HELLO 9 {}...", &hash[..8]));
    Ok(())
}

#[tokio::test]
async fn clients_are_listed_counted_told_of_and_sent_away() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let door = iid::open(&pi, "", &[(7, 1)]).await?;
    let mut events = pi
        .client
        .events_of(&["client_signed_in", "client_kicked"])
        .await?;
    let mut client = Client::sign_in(door, 1).await?;
    Pi::wait_for_event(&mut events, |event| match event {
        EventBody::ClientSignedIn { name, .. } => (name == "7").then_some(()),
        _ => None,
    })
    .await?;
    client.send(5_i32.to_le_bytes().to_vec()).await?;
    client.integer().await?;

    let clients = pi.client.clients().await?;
    assert_eq!(
        (clients[0].name.as_deref(), clients[0].received),
        (Some("7"), 1)
    );
    assert!(
        clients[0]
            .detail
            .contains(&key(1).address().to_string()[..6])
    );
    let (code, out, err) = pimesh(&pi.home, &["gateway", "kick", "7"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("sent away 7"), "{out}");

    let why = Pi::wait_for_event(&mut events, |event| match event {
        EventBody::ClientKicked { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(why.await?, "by_hand");
    let (_, status, _) = pimesh(&pi.home, &["status"]).await?;
    assert!(status.contains("iid at 127.0.0.1:"), "{status}");
    let metrics = pi.client.metrics().await?;
    for line in [
        "pimesh_gateway_kicks_total{gateway=\"iid\",why=\"by_hand\"} 1",
        "pimesh_gateway_sign_ins_total{gateway=\"iid\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let (code, _, err) = pimesh(&pi.home, &["gateway", "kick", "7"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("no client is `7`"), "{err}");
    Ok(())
}

#[tokio::test]
async fn what_no_client_may_do_is_told_and_ends_its_connection() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let settings = "[gateway.iid.limits]\nbytes_per_minute = 64";
    let door = iid::open(&pi, settings, &[(7, 1), (8, 2), (9, 3)]).await?;
    for (number, message, text) in [
        (1, Message::binary(vec![0; 17]), "MAX BYTE SIZE 16"),
        (1, Message::text("hello"), "ONLY BYTE SERVER AND MAX:16"),
    ] {
        let mut client = Client::sign_in(door, number).await?;
        client.socket.send(message).await?;
        assert_eq!(client.text().await?, text);
        assert!(client.text().await?.starts_with("RTFM:"));
        assert!(matches!(client.message().await?, Message::Close(_)));
    }
    let mut client = Client::sign_in(door, 2).await?;
    for value in 0..5_u8 {
        client.send(vec![value; 16]).await?;
    }
    // 64 bytes are four integers; what was on its way back may not arrive any more.
    let mut heard = 0;
    let last = loop {
        match client.message().await? {
            Message::Binary(_) => heard += 1,
            other => break other,
        }
    };
    assert!(heard <= 4, "{heard}");
    assert_eq!(last.to_text()?, "SPAM KICK MINUTE");
    let again = Client::sign_in(door, 2).await.expect_err("still full");
    assert!(again.to_string().contains("SPAM KICK MINUTE"), "{again}");
    Client::sign_in(door, 3)
        .await
        .context("another index has room")?;
    Ok(())
}

#[tokio::test]
async fn who_does_not_sign_in_in_time_is_told_and_sent_away() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let limits = "[gateway.iid.limits]\nsign_in_time = \"1s\"";
    let door = iid::open(&pi, limits, &[]).await?;
    let mut client = Client::connect(door).await?;
    client.text().await?;

    assert_eq!(client.text().await?, "SIGN IN TIMEOUT");
    assert!(matches!(client.message().await?, Message::Close(_)));
    Ok(())
}

#[tokio::test]
async fn listeners_of_the_first_servers_are_greeted_with_the_manual() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    iid::open(&pi, "listen_only = \"127.0.0.1:0\"", &[(7, 1)]).await?;
    let doors = pi.client.gateways().await?;
    let [_, listen] = doors[0].addresses[..] else {
        panic!("two addresses, not {doors:?}")
    };

    let mut client = Client::connect(listen).await?;
    assert!(client.text().await?.starts_with("MANUAL:"));
    assert!(client.text().await?.starts_with("SIGN:"));
    Client::sign_in(listen, 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_door_speaks_tls_with_files_of_its_own() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let made = |name: &str| pi.home.join("iid").join(name).display().to_string();
    std::fs::create_dir_all(pi.home.join("iid"))?;
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-keyout", &made("key.pem"), "-out", &made("cert.pem")])
        .stderr(std::process::Stdio::null())
        .status()
        .await?;
    ensure!(status.success());
    let tls = "tls_certificate = \"iid/cert.pem\"\ntls_key = \"iid/key.pem\"";
    let door = iid::open(&pi, tls, &[(7, 1)]).await?;

    let secret = hex(&key(1).to_bytes()[..]);
    let url = format!("wss://localhost:{}", door.port());
    let mut client = Foreign::python("iid_client.py", &[&url, &secret, &made("cert.pem")]).await?;

    client.event("signed_in").await?;
    // Without TLS there is nothing.
    Client::connect(door).await.expect_err("in clear");
    Ok(())
}

#[tokio::test]
async fn a_door_that_cannot_be_opened_says_why_and_the_node_runs_on() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();

    let (code, _, err) = pimesh(
        &pi.home,
        &["gateway", "enable", "iid", "--listen", &address],
    )
    .await?;

    assert_eq!(code, 1);
    assert!(
        err.contains("could not listen") && err.contains("in use"),
        "{err}"
    );
    drop(taken);
    let (code, out, err) = pimesh(
        &pi.home,
        &["gateway", "enable", "iid", "--listen", &address],
    )
    .await?;
    assert_eq!(code, 1, "the same settings are not tried again: {out}{err}");
    let (code, ..) = pimesh(&pi.home, &["gateway", "disable", "iid"]).await?;
    assert_eq!(code, 0);
    let (code, out, err) = pimesh(&pi.home, &["gateway", "enable", "iid"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&address), "{out}");
    let (code, ..) = pimesh(&pi.home, &["gateway", "disable", "iid"]).await?;
    assert_eq!(code, 0);
    TcpStream::connect(&address).await.expect_err("closed");
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
        let log = pi.home.with_extension("log");
        pi.wait_until("warned", || async {
            // The log is no event; the publication has the node look again.
            pi.client.publish(&integers(1)).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(std::fs::read_to_string(&log)?
                .contains("run in a circle")
                .then_some(()))
        })
        .await?;
    }

    let mut events = pi_1.client.events_of(&["integers"]).await?;
    let undated = Form::IndexIntegerDate(iid(9, 777, 0)).encode();
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(&undated, ("127.0.0.1", ports[0])).await?;
    heard(&mut events, iid(51, 777, 0)).await?;
    // A second one comes after everything that the first caused.
    let second = Form::IndexIntegerDate(iid(9, 778, 0)).encode();
    socket.send_to(&second, ("127.0.0.1", ports[0])).await?;
    let mut circled = Vec::new();
    Pi::wait_for_event(&mut events, |event| {
        let EventBody::Integers { integers } = event else {
            return None;
        };
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

fn integers(value: i32) -> NewIntegers {
    NewIntegers {
        index: None,
        values: vec![Value(value)],
        at: None,
    }
}

/// The published push client takes UDP on 3615 and pushes all of it.
#[tokio::test]
async fn a_client_that_pushes_what_it_gets_by_udp_makes_no_circle() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let udp_out = format!("udp_out = [\"{}\"]", udp.local_addr()?);
    let door = iid::open(&pi, &udp_out, &[(7, 1)]).await?;
    let mut client = Client::sign_in(door, 1).await?;
    pi.client.publish(&integers(5)).await?;

    let mut pushed = 0;
    for _ in 0..2 {
        let bytes = datagram(&udp).await?;
        client.send(bytes).await?;
        client.integer().await?;
        pushed += 1;
    }
    // Its own integer came out once, and was known when it came back.
    pi.client.publish(&integers(6)).await?;
    let next = datagram(&udp).await?;

    assert_eq!(pushed, 2);
    assert_eq!(&next[4..8], 6_i32.to_le_bytes());
    Ok(())
}

/// Makes nodes clients of a door elsewhere, under index 7.
async fn connect(server: &Pi, pis: &[&Pi]) -> anyhow::Result<SocketAddr> {
    let door = iid::open(server, "", &[(7, 1)]).await?;
    let url = format!("ws://{door}");
    for pi in pis {
        let connect = ["gateway", "iid", "connect", &url, "--json"];
        let (code, out, err) = pimesh(&pi.home, &connect).await?;
        assert_eq!(code, 0, "{err}");
        let report: serde_json::Value = serde_json::from_str(&out)?;
        let own = report["address"].as_str().context("an address")?.to_owned();
        let allow = ["gateway", "iid", "allow", "7", &own];
        let (code, _, err) = pimesh(&server.home, &allow).await?;
        assert_eq!(code, 0, "{err}");
    }
    for pi in pis {
        pi.wait_until("signed in", || async {
            let servers = pi.client.iid_servers().await?;
            // That is no event, so the next look needs another one.
            pi.client.publish(&integers(0)).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let state = servers.first().map(|server| server.state.clone());
            Ok((state == Some(ServerState::SignedIn { index: Index(7) })).then_some(()))
        })
        .await?;
    }
    Ok(door)
}

const DATE: u64 = 1_700_000_000_000;

#[tokio::test]
async fn a_node_is_a_client_of_a_server_and_integers_run_both_ways_once() -> anyhow::Result<()> {
    let world = World::new()?;
    // Two meshes: a node of the second is a client of the first's door.
    let hub = world.start("hub").await?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let door = connect(&hub, &[&pi_1]).await?;
    let door_2 = iid_door_beside(&pi_2, 7, 5).await?;
    let mut at_hub = Client::sign_in(door, 1).await?;
    let mut behind = Client::sign_in(door_2, 5).await?;

    let down = iid(7, 10, DATE);
    at_hub.send(down.encode().to_vec()).await?;
    assert_eq!(at_hub.integer().await?, down);
    assert_eq!(behind.integer().await?, down);
    for value in 11..20 {
        let up = iid(7, value, DATE);
        behind.send(up.encode().to_vec()).await?;
        assert_eq!(behind.integer().await?, up);
        assert_eq!(at_hub.integer().await?, up);
    }
    let (code, out, err) = pimesh(&pi_1.home, &["gateway", "iid", "servers"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("signed in as 7"), "{out}");
    Ok(())
}

#[tokio::test]
async fn two_nodes_that_are_clients_of_one_server_make_no_circle() -> anyhow::Result<()> {
    let world = World::new()?;
    let hub = world.start("hub").await?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let door = connect(&hub, &[&pi_1, &pi_2]).await?;
    let door_1 = iid_door_beside(&pi_1, 7, 5).await?;
    let mut at_hub = Client::sign_in(door, 1).await?;
    let mut behind = Client::sign_in(door_1, 5).await?;

    // With a date that tells, and without.
    let sent = [iid(7, 11, DATE), iid(7, 12, 0)];
    for iid in sent {
        behind.send(iid.encode().to_vec()).await?;
    }

    // Each of the two nodes may hand a value in; what runs in a circle comes again and again.
    let mut copies = 0;
    for value in 100..150 {
        let fence = iid(7, value, DATE);
        at_hub.send(fence.encode().to_vec()).await?;
        loop {
            let heard = at_hub.integer().await?;
            copies += usize::from(sent.contains(&heard));
            if heard == fence {
                break;
            }
        }
    }
    assert!((2..=4).contains(&copies), "{copies}");
    Ok(())
}

/// Opens a door at a node whose settings have more in them already.
async fn iid_door_beside(pi: &Pi, index: i32, number: u16) -> anyhow::Result<SocketAddr> {
    let address = key(number).address().to_string();
    let listen = ["gateway", "enable", "iid", "--listen", "127.0.0.1:0"];
    let (code, _, err) = pimesh(&pi.home, &listen).await?;
    assert_eq!(code, 0, "{err}");
    let allow = ["gateway", "iid", "allow", &index.to_string(), &address];
    let (code, _, err) = pimesh(&pi.home, &allow).await?;
    assert_eq!(code, 0, "{err}");
    iid::address(pi).await
}

#[tokio::test]
async fn a_client_finds_the_door_again_after_the_node_was_killed() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let port = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await?
        .local_addr()?
        .port();
    let listen = format!("listen = \"127.0.0.1:{port}\"");
    let door = iid::open(&pi, &listen, &[(7, 1)]).await?;
    let mut client = Client::sign_in(door, 1).await?;

    let pi = pi.restart().await?;

    client.message().await.expect_err("the node was killed");
    let mut client = Client::sign_in(iid::address(&pi).await?, 1).await?;
    client.send(5_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(client.integer().await?.value, Value(5));
    Ok(())
}

#[tokio::test]
async fn strangers_and_floods_at_the_door_harm_nobody_else() -> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let limits =
        "[gateway.iid.limits]\nbytes_per_minute = 0\nbytes_per_hour = 0\nbytes_per_day = 0";
    let door = iid::open(&pi_1, limits, &[(7, 1), (8, 2)]).await?;
    let before = resident_kib(&pi_1)?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;
    let mut good = Client::sign_in(door, 2).await?;

    // A thousand connections that never sign in: 64 of an address get a place.
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(door).await?);
    }
    let mut placed = 0;
    for stream in &mut silent {
        // A connection without a place is closed at once; one with a place waits for a request.
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read_u8()).await;
        placed += usize::from(read.is_err());
    }
    assert!(placed <= 64, "{placed}");
    let refused = Client::connect(door).await;
    assert!(refused.is_err(), "no place for the next");
    drop(silent);

    // One that never reads, of the same index as one that does.
    let mut deaf = wait_for_place(door, 1).await?;
    let mut hearing = wait_for_place(door, 1).await?;
    let flood: Vec<u8> = 9_i32.to_le_bytes().to_vec();
    let mut flooder = wait_for_place(door, 1).await?;
    let flooding = tokio::spawn(async move {
        let mut count = 0_u32;
        while flooder
            .socket
            .feed(Message::Binary(flood.clone().into()))
            .await
            .is_ok()
        {
            count += 1;
            if count >= 300_000 {
                break;
            }
        }
        drop(flooder.socket.flush().await);
        flooder
    });
    for _ in 0..10_000 {
        let heard = hearing.integer().await?;
        assert_eq!((heard.index, heard.value), (Index(7), Value(9)));
    }
    // Meanwhile another index and the mesh go on.
    good.send(6_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(good.integer().await?.value, Value(6));
    pi_1.client.publish(&integers(1234)).await?;
    Pi::wait_for_event(&mut events, |event| match event {
        EventBody::Integers { integers } => integers
            .iter()
            .any(|i| i.value == Value(1234))
            .then_some(()),
        _ => None,
    })
    .await?;
    drop(flooding.await);
    let after = resident_kib(&pi_1)?;
    assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
    // It is sent away once nobody takes what it does not read.
    drop(tokio::time::timeout(Duration::from_millis(1), deaf.message()).await);
    Ok(())
}

/// Signs in as soon as there is a place.
async fn wait_for_place(door: SocketAddr, number: u16) -> anyhow::Result<Client> {
    let trying = async {
        loop {
            if let Ok(client) = Client::sign_in(door, number).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, trying).await?)
}

fn resident_kib(pi: &Pi) -> anyhow::Result<u64> {
    let pid = pi.child.id().context("it runs")?;
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmRSS")?.parse()?)
}

/// A small generator of bytes that are the same in every run (xorshift64).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn some(&mut self, most: u64) -> Vec<u8> {
        let count = self.next() % (most + 1);
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[tokio::test]
async fn ten_thousand_random_frames_end_their_connections_and_nothing_else() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let door = iid::open(&pi, "", &[(7, 1), (8, 2)]).await?;
    let mut good = Client::sign_in(door, 2).await?;
    let mut chance = Bytes(42);

    // Before sign-in as messages, and behind the handshake as raw bytes.
    let mut sent = 0;
    while sent < 5_000 {
        let mut client = wait_for_connection(door).await?;
        for _ in 0..9 {
            let bytes = chance.some(300);
            let message = if chance.next().is_multiple_of(2) {
                Message::binary(bytes)
            } else {
                Message::text(String::from_utf8_lossy(&bytes).into_owned())
            };
            sent += 1;
            if client.socket.send(message).await.is_err() {
                break;
            }
        }
    }
    while sent < 10_000 {
        let client = wait_for_connection(door).await?;
        let mut raw = client.socket.into_inner();
        for _ in 0..20 {
            sent += 1;
            if raw.write_all(&chance.some(40)).await.is_err() {
                break;
            }
        }
    }

    good.send(6_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(good.integer().await?.value, Value(6));
    let doors = pi.client.gateways().await?;
    assert!(doors[0].kicks > 0);
    Ok(())
}

async fn wait_for_connection(door: SocketAddr) -> anyhow::Result<Client> {
    let trying = async {
        loop {
            if let Ok(client) = Client::connect(door).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, trying).await?)
}

/// Every line of the vectors, sent to a real door.
#[tokio::test]
async fn each_line_of_the_handshake_vectors_that_is_refused_leads_nowhere() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let vectors =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto-specs/vectors/iid/handshake.json");
    let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(vectors)?)?;
    let door = iid::open(&pi, "guests = true", &[(7, 1)]).await?;
    let claims = vectors["allow"].as_str().context("a list")?;
    std::fs::write(pi.home.join("iid/claims.txt"), claims)?;
    pi.client.reload().await?;
    let cases = vectors["cases"].as_array().context("cases")?;
    for case in cases {
        let mut client = Client::connect(door).await?;
        client.text().await?;
        // Every challenge is another one, so that not even the good lines are good here.
        let line = case["line"].as_str().context("a line")?;
        client.socket.send(Message::text(line)).await?;
        client.socket.close(None).await?;
        while let Some(Ok(message)) = client.socket.next().await {
            let text = message.to_text().unwrap_or_default();
            assert!(!text.starts_with("HELLO"), "{}: {text}", case["name"]);
        }
    }
    assert!(cases.len() > 30);
    Ok(())
}
