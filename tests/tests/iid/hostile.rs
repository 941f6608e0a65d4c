//! What no client may do, and what harms nobody.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use pimesh_node::{
    control::api::EventBody,
    proto::iid::{Index, Value},
};
use pimesh_tests::{
    Pi, World,
    chance::Chance,
    eventually,
    iid::{self, Client},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn what_no_client_may_do_is_told_and_ends_its_connection() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let settings = "[gateway.iid.limits]\nbytes_per_minute = 64";
    let gateway = iid::open(&pi, settings, &[(7, 1), (8, 2), (9, 3)]).await?;
    for (number, message, text) in [
        (1, Message::binary(vec![0; 17]), "MAX BYTE SIZE 16"),
        (1, Message::text("hello"), "ONLY BYTE SERVER AND MAX:16"),
    ] {
        let mut client = Client::sign_in(gateway, number).await?;
        client.socket.send(message).await?;
        assert_eq!(client.text().await?, text);
        assert!(client.text().await?.starts_with("RTFM:"));
        assert!(matches!(client.message().await?, Message::Close(_)));
    }
    let mut client = Client::sign_in(gateway, 2).await?;
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
    let again = Client::sign_in(gateway, 2).await.expect_err("still full");
    assert!(again.to_string().contains("SPAM KICK MINUTE"), "{again}");
    Client::sign_in(gateway, 3)
        .await
        .context("another index has room")?;
    Ok(())
}

#[tokio::test]
async fn who_does_not_sign_in_in_time_is_told_and_sent_away() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let limits = "[gateway.iid.limits]\nsign_in_time = \"1s\"";
    let gateway = iid::open(&pi, limits, &[]).await?;
    let mut client = Client::connect(gateway).await?;
    client.text().await?;

    assert_eq!(client.text().await?, "SIGN IN TIMEOUT");
    assert!(matches!(client.message().await?, Message::Close(_)));
    Ok(())
}

#[tokio::test]
async fn strangers_and_floods_at_the_gateway_harm_nobody_else() -> anyhow::Result<()> {
    let world = World::new()?;
    let [pi_1, pi_2] = world.mesh(["pi-1", "pi-2"]).await?;
    let limits =
        "[gateway.iid.limits]\nbytes_per_minute = 0\nbytes_per_hour = 0\nbytes_per_day = 0";
    let gateway = iid::open(&pi_1, limits, &[(7, 1), (8, 2)]).await?;
    let before = pi_1.memory_kib()?;
    let mut events = pi_2.client.events_of(&["integers"]).await?;
    let mut good = Client::sign_in(gateway, 2).await?;

    // A thousand connections that never sign in: 64 of an address get a place.
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(gateway).await?);
    }
    let mut placed = 0;
    for stream in &mut silent {
        // A connection without a place is closed at once; one with a place waits for a request.
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read_u8()).await;
        placed += usize::from(read.is_err());
    }
    assert!(placed <= 64, "{placed}");
    let refused = Client::connect(gateway).await;
    assert!(refused.is_err(), "no place for the next");
    drop(silent);

    // One that never reads, of the same index as one that does.
    let mut deaf = wait_for_place(gateway, 1).await?;
    let mut hearing = wait_for_place(gateway, 1).await?;
    let flood: Vec<u8> = 9_i32.to_le_bytes().to_vec();
    let mut flooder = wait_for_place(gateway, 1).await?;
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
    pi_1.publish([1234]).await?;
    Pi::wait_for_event(&mut events, |event| match event {
        EventBody::Integers(heard) => heard
            .iids
            .iter()
            .any(|i| i.value == Value(1234))
            .then_some(()),
        _ => None,
    })
    .await?;
    drop(flooding.await);
    let after = pi_1.memory_kib()?;
    assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
    // It is sent away once nobody takes what it does not read.
    drop(tokio::time::timeout(Duration::from_millis(1), deaf.message()).await);
    Ok(())
}

/// Signs in as soon as there is a place.
async fn wait_for_place(gateway: SocketAddr, number: u16) -> anyhow::Result<Client> {
    eventually("a place at the gateway", async || {
        Client::sign_in(gateway, number).await
    })
    .await
}

#[tokio::test]
async fn ten_thousand_random_frames_end_their_connections_and_nothing_else() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let gateway = iid::open(&pi, "", &[(7, 1), (8, 2)]).await?;
    let mut good = Client::sign_in(gateway, 2).await?;
    let mut chance = Chance::new(42);

    // Before sign-in as messages, and behind the handshake as raw bytes.
    let mut sent = 0;
    while sent < 5_000 {
        let mut client = wait_for_connection(gateway).await?;
        for _ in 0..9 {
            let bytes = chance.bytes(300);
            let message = if chance.number().is_multiple_of(2) {
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
        let client = wait_for_connection(gateway).await?;
        let mut raw = client.socket.into_inner();
        for _ in 0..20 {
            sent += 1;
            if raw.write_all(&chance.bytes(40)).await.is_err() {
                break;
            }
        }
    }

    good.send(6_i32.to_le_bytes().to_vec()).await?;
    assert_eq!(good.integer().await?.value, Value(6));
    let gateways = pi.client.gateways().await?;
    assert!(gateways[0].kicks > 0);
    Ok(())
}

/// Connects as soon as there is a place.
async fn wait_for_connection(gateway: SocketAddr) -> anyhow::Result<Client> {
    eventually("a connection to the gateway", async || {
        Client::connect(gateway).await
    })
    .await
}

/// Every line of the vectors, sent to a real gateway.
#[tokio::test]
async fn each_line_of_the_handshake_vectors_that_is_refused_leads_nowhere() -> anyhow::Result<()> {
    let world = World::new()?;
    let pi = world.start("pi-1").await?;
    let vectors =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto-specs/vectors/iid/handshake.json");
    let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(vectors)?)?;
    let gateway = iid::open(&pi, "guests = true", &[(7, 1)]).await?;
    let claims = vectors["allow"].as_str().context("a list")?;
    std::fs::write(pi.home.join("iid/claims.txt"), claims)?;
    pi.client.reload().await?;
    let cases = vectors["cases"].as_array().context("cases")?;
    for case in cases {
        let mut client = Client::connect(gateway).await?;
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
