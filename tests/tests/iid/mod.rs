//! The gateway for IID and APIntIO clients, with real clients on the libraries of the published ones.

mod hostile;
mod servers;
mod udp;

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use pimesh_node::{
    control::{api::EventBody, client::ClientError},
    proto::iid::{Date, Form, Iid, Index, Value},
    state::report::Integer,
};
use pimesh_tests::{
    Pi, World, eventually,
    foreign::Foreign,
    iid::{self, Client, key},
    pimesh,
};
use serde_json::json;
use tokio::{
    net::{TcpStream, UdpSocket},
    process::Command,
};

use self::udp::datagram;

fn integer(index: i32, value: i32, date: u64) -> Iid {
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

/// Waits until a node hears this integer.
async fn heard(
    events: &mut (impl futures::Stream<Item = Result<EventBody, ClientError>> + Unpin),
    wanted: Iid,
) -> anyhow::Result<()> {
    Pi::wait_for_event(events, |event| {
        let EventBody::Integers(heard) = event else {
            return None;
        };
        let is_it =
            |i: &Integer| (i.index, i.value, i.date) == (wanted.index, wanted.value, wanted.date);
        heard.singles().iter().any(is_it).then_some(())
    })
    .await
}

#[tokio::test]
async fn integers_of_an_old_client_reach_its_index_at_every_gateway_udp_and_the_mesh()
-> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let udp_out = format!("udp_out = [\"{}\"]", udp.local_addr()?);
    let gateway_1 = iid::open(&pi_1, &udp_out, &[(70, 1), (80, 2)]).await?;
    let gateway_2 = iid::open(&pi_2, "", &[(70, 3)]).await?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;
    let mut sender = python_client(gateway_1, 1).await?;
    let mut same = python_client(gateway_2, 3).await?;
    let mut other = python_client(gateway_1, 2).await?;
    let hello = sender.event("signed_in").await?;
    assert_eq!(hello["hello"], format!("HELLO 70 {}", key(1).address()));
    same.event("signed_in").await?;
    other.event("signed_in").await?;

    // The client writes another index, and a date of its own.
    let sent = Form::IndexIntegerDate(integer(8, 1001, u64::MAX)).encode();
    sender.order(json!({ "send": hex(&sent) })).await?;

    let passed = integer(70, 1001, u64::MAX);
    for client in [&mut sender, &mut same] {
        let integer = client.event("integer").await?;
        assert_eq!(integer["hex"], hex(&passed.encode()));
    }
    assert_eq!(datagram(&udp).await?, passed.encode());
    heard(&mut events, passed).await?;
    // Without a date, the gateway's; a stray length is passed over.
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
async fn who_may_sign_in_is_changed_while_the_gateway_is_open() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let gateway = iid::open(&pi, "", &[(7, 1)]).await?;
    let refused = Client::sign_in(gateway, 2).await.expect_err("not allowed");
    assert!(refused.to_string().contains("ASK ADMIN"), "{refused}");

    let address = key(2).address().to_string();
    let (code, _, err) = pimesh(&pi.home, &["gateway", "iid", "allow", "8", &address]).await?;
    assert_eq!(code, 0, "{err}");
    let mut client = Client::sign_in(gateway, 2).await?;
    let (_, list, _) = pimesh(&pi.home, &["gateway", "iid", "list", "--json"]).await?;
    assert!(list.contains(&address), "{list}");
    let (code, _, err) = pimesh(&pi.home, &["gateway", "iid", "deny", &address]).await?;
    assert_eq!(code, 0, "{err}");

    assert_eq!(client.text().await?, "ASK ADMIN FOR A CLAIM TO BE ADDED");
    Client::sign_in(gateway, 2)
        .await
        .expect_err("no longer allowed");
    Client::sign_in(gateway, 1).await.context("still allowed")?;
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
async fn a_bad_address_closes_no_gateway_and_stays_in_no_settings() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let at = iid::open(&pi, "", &[(7, 1)]).await?;
    let mut client = Client::sign_in(at, 1).await?;
    let file = pi.home.join("pimesh.toml");
    let before = std::fs::read_to_string(&file)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();

    // An address of no machine is noticed before the gateway is closed: its client stays.
    let bad = ["gateway", "enable", "iid", "--listen", "192.0.2.1:4615"];
    let (code, _, err) = pimesh(&pi.home, &bad).await?;
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("192.0.2.1:4615") && err.contains("hint:"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(&file)?, before);
    assert_eq!(pi.client.clients().await?.len(), 1, "its client stays");
    Client::sign_in(at, 1).await.context("the old address")?;

    // A port that another program has is noticed before, too.
    let (code, _, err) =
        pimesh(&pi.home, &["gateway", "enable", "iid", "--listen", &taken]).await?;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("goes on with those before"), "{err}");
    assert_eq!(std::fs::read_to_string(&file)?, before);
    let again = iid::address(&pi).await?;
    assert_eq!(again, at);

    // The same by hand, however often the file is read: nothing is closed for it.
    let by_hand = before.replace(&at.to_string(), &taken);
    std::fs::write(&file, format!("{by_hand}\nlisten_only = \"{taken}\"\n"))?;
    for _ in 0..2 {
        pi.client.reload().await?;
        let listed = pi.client.gateways().await?;
        let iid = listed.iter().find(|found| found.gateway.name() == "iid");
        let refused = iid.and_then(|iid| iid.refused.clone());
        let refused = refused.context("the new settings are refused")?;
        ensure!(refused.contains(&taken), "{refused}");
    }
    client.send(6_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(client.integer().await?.value, Value(6), "still connected");
    Ok(())
}

#[tokio::test]
async fn an_index_is_not_allowed_without_a_word_about_whose_it_is() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, _b] = world.mesh(["a", "b"]).await?;
    let [first, second] = [1, 2].map(|number| key(number).address().to_string());
    let allow = async |index: &str, address: &str| {
        pimesh(&a.home, &["gateway", "iid", "allow", index, address]).await
    };

    let (code, _, err) = allow("2", &first).await?;
    assert_eq!(code, 1);
    assert!(err.contains("that of the member `b`"), "{err}");
    assert!(err.contains("hint:"), "{err}");
    let (code, _, err) = allow("7", &first).await?;
    assert!(code == 0 && err.is_empty(), "{err}");
    let (code, _, err) = allow("7", &second).await?;
    assert!(code == 0 && err.contains(&first), "{err}");
    let (code, _, err) = allow("8", &first).await?;
    assert!(code == 0 && err.contains("spoke for 7 until now"), "{err}");
    let (_, list, _) = pimesh(&a.home, &["gateway", "iid", "list"]).await?;
    assert_eq!(list.lines().count(), 3, "a head and two lines: {list}");
    Ok(())
}

#[tokio::test]
async fn rsa_keys_letters_and_passwords_open_the_gateway_until_they_are_taken_back()
-> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let lists = "password_sha256 = \"iid/passwords.txt\"";
    std::fs::create_dir_all(pi.home.join("iid"))?;
    // SHA-256 of "tide and moon".
    let hash = "cf755e1a8148dcf7e45e8c307058daf88ef6ffa0113cc40de444bd5540a17313";
    std::fs::write(pi.home.join("iid/passwords.txt"), format!("9:{hash}\n"))?;
    let gateway = iid::open(&pi, lists, &[(7, 1)]).await?;
    let url = format!("ws://{gateway}");

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
    Client::sign_in(gateway, 1)
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
    let gateway = iid::open(&pi, "", &[(7, 1)]).await?;
    let mut events = pi
        .client
        .events_of(&["client_signed_in", "client_kicked"])
        .await?;
    let mut client = Client::sign_in(gateway, 1).await?;
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
    assert_eq!(code, 4);
    assert!(err.contains("no client is `7`"), "{err}");
    Ok(())
}

#[tokio::test]
async fn listeners_of_the_first_servers_are_greeted_with_the_manual() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    iid::open(&pi, "listen_only = \"127.0.0.1:0\"", &[(7, 1)]).await?;
    let gateways = pi.client.gateways().await?;
    let [_, listen] = gateways[0].addresses[..] else {
        panic!("two addresses, not {gateways:?}")
    };

    let mut client = Client::connect(listen).await?;
    assert!(client.text().await?.starts_with("MANUAL:"));
    assert!(client.text().await?.starts_with("SIGN:"));
    Client::sign_in(listen, 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_gateway_speaks_tls_with_files_of_its_own() -> anyhow::Result<()> {
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
    let gateway = iid::open(&pi, tls, &[(7, 1)]).await?;

    let secret = hex(&key(1).to_bytes()[..]);
    let url = format!("wss://localhost:{}", gateway.port());
    let mut client = Foreign::python("iid_client.py", &[&url, &secret, &made("cert.pem")]).await?;

    client.event("signed_in").await?;
    // Without TLS there is nothing.
    Client::connect(gateway).await.expect_err("in clear");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_cannot_be_opened_says_why_and_the_node_runs_on() -> anyhow::Result<()> {
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
    let (_, list, _) = pimesh(&pi.home, &["gateway", "list"]).await?;
    assert!(list.contains("failed") && list.contains("in use"), "{list}");
    drop(taken);
    eventually(
        "a gateway that opens by itself once its port is free",
        async || iid::address(&pi).await,
    )
    .await?;
    let (code, out, err) = pimesh(&pi.home, &["gateway", "enable", "iid"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&address), "{out}");
    let (code, ..) = pimesh(&pi.home, &["gateway", "disable", "iid"]).await?;
    assert_eq!(code, 0);
    TcpStream::connect(&address).await.expect_err("closed");
    Ok(())
}

#[tokio::test]
async fn a_client_finds_the_gateway_again_after_the_node_was_killed() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let port = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await?
        .local_addr()?
        .port();
    let listen = format!("listen = \"127.0.0.1:{port}\"");
    let gateway = iid::open(&pi, &listen, &[(7, 1)]).await?;
    let mut client = Client::sign_in(gateway, 1).await?;

    let pi = pi.restart().await?;

    client.message().await.expect_err("the node was killed");
    let mut client = Client::sign_in(iid::address(&pi).await?, 1).await?;
    client.send(5_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(client.integer().await?.value, Value(5));
    Ok(())
}
