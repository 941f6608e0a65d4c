//! A stranger with libp2p and full knowledge of our protocols gets nothing.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, gossipsub,
    identity::Keypair,
    noise,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use pimesh_node::{
    control::api::NewInvite,
    proto::{
        iid::native::TOPIC,
        mesh::{
            Address,
            member::{Refusal, Request, Response},
            ticket::Ticket,
        },
    },
};
use pimesh_tests::{Pi, World, pimesh};

/// What the stranger speaks: everything.
#[derive(NetworkBehaviour)]
struct Everything {
    gossip: gossipsub::Behaviour,
    requests: request_response::cbor::Behaviour<Vec<u8>, Vec<u8>>,
    streams: libp2p_stream::Behaviour,
}

fn stranger(keypair: &Keypair) -> anyhow::Result<Swarm<Everything>> {
    let signed = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = gossipsub::Behaviour::new(signed, gossipsub::Config::default())
        .map_err(|e| anyhow::anyhow!(e))?;
    gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC))?;
    let protocols = ["/pimesh/dm/1", "/pimesh/sync/1"]
        .map(|protocol| (StreamProtocol::new(protocol), ProtocolSupport::Full));
    let requests = request_response::cbor::Behaviour::new(
        protocols,
        request_response::Config::default().with_request_timeout(Duration::from_secs(5)),
    );
    let behaviour = Everything {
        gossip,
        requests,
        streams: libp2p_stream::Behaviour::new(),
    };
    Ok(
        libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )?
            .with_behaviour(|_| behaviour)?
            .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
            .build(),
    )
}

fn tcp_address(pi: &Pi) -> anyhow::Result<Multiaddr> {
    let text = pi.ready.split(' ').find(|word| word.contains("/tcp/"));
    Ok(text
        .ok_or_else(|| anyhow::anyhow!("no TCP address in {}", pi.ready))?
        .parse()?)
}

#[tokio::test]
async fn a_stranger_hears_nothing_and_every_protocol_for_members_is_closed() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, _b] = world.mesh(["a", "b"]).await?;
    let target: libp2p::PeerId = a.client.status().await?.node.peer_id;
    let keypair = Keypair::generate_ed25519();
    let mut swarm = stranger(&keypair)?;
    let mut control = swarm.behaviour().streams.new_control();
    swarm.dial(tcp_address(&a)?)?;
    while !matches!(
        swarm.next().await,
        Some(SwarmEvent::ConnectionEstablished { .. })
    ) {}

    swarm
        .behaviour_mut()
        .requests
        .send_request(&target, vec![1, 2, 3]);
    let streams = tokio::spawn(async move {
        for protocol in ["/pimesh/p2sn/1", "/pimesh/live/1"] {
            let protocol = StreamProtocol::new(protocol);
            let opened = control.open_stream(target, protocol.clone()).await;
            assert!(opened.is_err(), "{protocol} is open to strangers");
        }
    });
    a.publish([42]).await?;

    // Runs until the node hangs up, because no handshake comes.
    let mut refused_requests = 0;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(EverythingEvent::Gossip(event)) => {
                let nothing = matches!(event, gossipsub::Event::GossipsubNotSupported { .. });
                assert!(nothing, "the stranger heard {event:?}");
            }
            SwarmEvent::Behaviour(EverythingEvent::Requests(event)) => {
                let failed = matches!(event, request_response::Event::OutboundFailure { .. });
                assert!(failed, "the stranger was answered: {event:?}");
                refused_requests += 1;
            }
            SwarmEvent::ConnectionClosed { .. } => break,
            _ => {}
        }
    }
    assert_eq!(refused_requests, 1);
    Ok(streams.await?)
}

/// Says something on `/pimesh/member/1`, and returns the answer, or `None` if there is none.
async fn ask_member(pi: &Pi, request: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    use futures::{AsyncReadExt, AsyncWriteExt};
    let target: libp2p::PeerId = pi.client.status().await?.node.peer_id;
    let keypair = Keypair::generate_ed25519();
    let mut swarm = stranger(&keypair)?;
    let mut control = swarm.behaviour().streams.new_control();
    swarm.dial(tcp_address(pi)?)?;
    while !matches!(
        swarm.next().await,
        Some(SwarmEvent::ConnectionEstablished { .. })
    ) {}
    let bytes = [&u32::try_from(request.len())?.to_be_bytes()[..], request].concat();
    let exchange = async move {
        let protocol = StreamProtocol::new("/pimesh/member/1");
        let mut stream = control.open_stream(target, protocol).await.ok()?;
        stream.write_all(&bytes).await.ok()?;
        stream.close().await.ok()?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await.ok()?;
        (answer.len() > 4).then(|| answer.split_off(4))
    };
    tokio::pin!(exchange);
    loop {
        tokio::select! {
            answer = &mut exchange => return Ok(answer),
            _ = swarm.select_next_some() => {}
        }
    }
}

#[tokio::test]
async fn another_member_s_certificate_opens_nothing_to_a_stranger() -> anyhow::Result<()> {
    use pimesh_node::proto::{
        iid::Index,
        mesh::{
            certificate::{MeshKey, Terms},
            vouched::Vouched,
        },
        syft,
    };
    let world = World::new()?;
    let a = world.start("a").await?;
    // A certificate that a mesh key of the stranger's own signed.
    let forged = MeshKey::from_seed(&[7; 32]).issue(Terms {
        peer: Keypair::generate_ed25519().public().to_peer_id(),
        messaging_key: *syft::SigningKey::from_seed(&[8; 32]).public(),
        name: "mallory".parse()?,
        index: Index(9),
        vouched: Vouched::NONE,
        issued_ms: 1,
        expires_ms: u64::MAX,
    });

    let answer = ask_member(&a, &Request::Hello(forged.encode()).encode()).await?;

    let answer = Response::decode(&answer.expect("an answer"))?;
    assert_eq!(answer, Response::Refused(Refusal::NotAMember));
    let metrics = a.client.metrics().await?;
    let counted = r#"pimesh_refused_total{what="certificate",why="foreign_mesh"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn garbage_and_readiness_without_hello_end_the_connection() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;

    assert_eq!(ask_member(&a, &[0xff; 100]).await?, None);
    assert_eq!(ask_member(&a, &Request::Ready.encode()).await?, None);
    assert_eq!(ask_member(&a, &[0; 100_000]).await?, None);

    assert_eq!(a.client.status().await?.node.connected, 0);
    Ok(())
}

#[tokio::test]
async fn a_node_with_other_versions_of_the_protocols_is_said_to_be_one() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let keypair = Keypair::generate_ed25519();
    // It has everything but `/pimesh/member/1`, as a node will that has a second version of that.
    let mut swarm = stranger(&keypair)?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let Some(SwarmEvent::NewListenAddr { address, .. }) = swarm.next().await {
            break address;
        }
    };
    let ticket = a.client.invite(&NewInvite::default()).await?.ticket;
    let ticket = Ticket::from_text(&ticket)?;
    let ticket = Ticket {
        inviter: keypair.public().to_peer_id(),
        addresses: Address::new(address.to_string()).into_iter().collect(),
        ..ticket
    };
    let b = world.start("b").await?;
    let events = tokio::spawn(async move { while swarm.next().await.is_some() {} });

    let (code, _, said) = pimesh(&b.home, &["join", &ticket.to_text()]).await?;

    events.abort();
    assert_ne!(code, 0);
    assert!(said.contains("does not speak `/pimesh/member/1`"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    Ok(())
}
