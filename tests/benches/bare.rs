//! Bare libp2p, the same versions and the same transport (TCP, Noise, Yamux), with nothing of ours:
//! what the libraries themselves cost.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, Transport,
    core::{muxing::StreamMuxerBox, upgrade},
    gossipsub, noise,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use serde::{Deserialize, Serialize};

use crate::{
    child::{Child, answer, delays, now_ns, orders},
    report::{Report, Target},
};

const STREAM: StreamProtocol = StreamProtocol::new("/bench/stream/1");

/// How much goes through a stream.
const STREAM_BYTES: usize = 256 * 1024 * 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    requests: request_response::cbor::Behaviour<Vec<u8>, Vec<u8>>,
    streams: libp2p_stream::Behaviour,
}

/// What the parent says to a bare peer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Dial(Multiaddr),
    Publish { count: usize },
    Listen { count: usize },
    Request { count: usize },
    Stream,
}

/// Starts two peers, the second of which dials the first.
async fn pair(arg: &str) -> anyhow::Result<[Child; 2]> {
    let mut one = Child::start(&[arg])?;
    let mut two = Child::start(&[arg])?;
    let address: Multiaddr = one.answer().await?;
    let _: Multiaddr = two.answer().await?;
    two.order(&Order::Dial(address)).await?;
    let _: bool = two.answer().await?;
    Ok([one, two])
}

/// How often each stream is measured. The best counts: what it can do, not what disturbed it.
const STREAM_ROUNDS: usize = 5;

/// Measures the speed of a stream of each peer, by turns.
async fn streams(mut peers: [&mut Child; 2]) -> anyhow::Result<[f64; 2]> {
    let mut best = [0.0_f64; 2];
    for _ in 0..STREAM_ROUNDS {
        for (best, peer) in best.iter_mut().zip(&mut peers) {
            peer.order(&Order::Stream).await?;
            *best = best.max(peer.answer().await?);
        }
    }
    Ok(best)
}

/// Measures bare libp2p, and returns the median way of a gossip message, in microseconds.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<f64> {
    let [mut one, mut two] = pair("--bare").await?;
    let count = 3_000;
    one.order(&Order::Listen { count }).await?;
    two.order(&Order::Publish { count }).await?;
    let sent: Vec<u64> = two.answer().await?;
    let heard: Vec<u64> = one.answer().await?;
    let gossip = delays(&sent, &heard);
    let gossip = report.times(
        "bare libp2p: gossipsub one way, 16 B at 1,000/s",
        gossip,
        [None; 2],
    );

    two.order(&Order::Request { count }).await?;
    let times: Vec<f64> = two.answer().await?;
    report.times(
        "bare libp2p: request-response round trip, 16 B",
        times,
        [None; 2],
    );

    let [_three, mut four] = pair("--pimesh-transport").await?;
    let [bare, ours] = streams([&mut two, &mut four]).await?;
    report.add("bare libp2p: one stream", bare, "MB/s");
    report.add("pimesh's transport: one stream", ours, "MB/s");
    report.aim(
        "pimesh's transport / bare libp2p",
        ours / bare,
        "x",
        Target::AtLeast(0.9),
    );
    Ok(gossip)
}

/// The transport of a swarm.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    /// As libp2p has it.
    Bare,
    /// As a node of pimesh has it.
    Pimesh,
}

/// The child.
pub(crate) async fn run(transport: Which) -> anyhow::Result<()> {
    let mut swarm = swarm(transport)?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            answer(&address)?;
            break;
        }
    }
    let mut control = swarm.behaviour().streams.new_control();
    let mut incoming = control.accept(STREAM)?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            tokio::spawn(async move {
                let mut sink = futures::io::sink();
                drop(futures::io::copy(&mut stream, &mut sink).await);
                drop(stream.write_all(b"!").await);
                drop(stream.close().await);
            });
        }
    });
    let mut orders = orders();
    loop {
        tokio::select! {
            event = swarm.select_next_some() => serve(&mut swarm, event),
            line = orders.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                obey(&mut swarm, serde_json::from_str(&line)?).await?;
            }
        }
    }
}

/// Makes a swarm over a transport.
fn swarm(transport: Which) -> anyhow::Result<Swarm<Behaviour>> {
    let swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|keypair| match transport {
            Which::Bare => {
                let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
                    .upgrade(upgrade::Version::V1Lazy)
                    .authenticate(noise::Config::new(keypair)?)
                    .multiplex(yamux::Config::default())
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                Ok(tcp.boxed())
            }
            Which::Pimesh => Ok(pimesh_node::net::tcp_transport(keypair)?),
        })?
        .with_behaviour(|key| {
            let config = gossipsub::ConfigBuilder::default()
                .validation_mode(gossipsub::ValidationMode::Strict)
                .flood_publish(true)
                .build()?;
            let signing = gossipsub::MessageAuthenticity::Signed(key.clone());
            let protocol = StreamProtocol::new("/bench/request/1");
            Ok(Behaviour {
                gossip: gossipsub::Behaviour::new(signing, config)?,
                requests: request_response::cbor::Behaviour::new(
                    [(protocol, ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
                streams: libp2p_stream::Behaviour::new(),
            })
        })?
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    Ok(swarm)
}

fn serve(swarm: &mut Swarm<Behaviour>, event: SwarmEvent<BehaviourEvent>) {
    if let SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::Message {
        message: request_response::Message::Request {
            request, channel, ..
        },
        ..
    })) = event
    {
        drop(
            swarm
                .behaviour_mut()
                .requests
                .send_response(channel, request),
        );
    }
}

/// Says whether the subscription of another peer has arrived.
fn has_reader(swarm: &Swarm<Behaviour>, topic: &gossipsub::IdentTopic) -> bool {
    let mut peers = swarm.behaviour().gossip.all_peers();
    peers.any(|(_, topics)| topics.contains(&&topic.hash()))
}

async fn obey(swarm: &mut Swarm<Behaviour>, order: Order) -> anyhow::Result<()> {
    let topic = gossipsub::IdentTopic::new("bench");
    swarm.behaviour_mut().gossip.subscribe(&topic)?;
    match order {
        Order::Dial(address) => {
            swarm.dial(address)?;
            loop {
                let event = swarm.select_next_some().await;
                if matches!(event, SwarmEvent::ConnectionEstablished { .. }) {
                    return answer(&true);
                }
            }
        }
        Order::Publish { count } => {
            while !has_reader(swarm, &topic) {
                let event = swarm.select_next_some().await;
                serve(swarm, event);
            }
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            let mut sent = Vec::with_capacity(count);
            while sent.len() < count {
                tokio::select! {
                    event = swarm.select_next_some() => serve(swarm, event),
                    _ = pace.tick() => {
                        let mut message = [0; 16];
                        message[..8].copy_from_slice(&sent.len().to_le_bytes());
                        sent.push(now_ns());
                        swarm.behaviour_mut().gossip.publish(topic.clone(), message)?;
                    }
                }
            }
            answer(&sent)
        }
        Order::Listen { count } => {
            let mut heard = Vec::with_capacity(count);
            while heard.len() < count {
                let event = swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                    ..
                })) = event
                {
                    heard.push(now_ns());
                }
            }
            answer(&heard)
        }
        Order::Request { count } => {
            let peer = *swarm.connected_peers().next().context("connected")?;
            let mut times = Vec::with_capacity(count);
            while times.len() < count {
                let began = Instant::now();
                swarm
                    .behaviour_mut()
                    .requests
                    .send_request(&peer, vec![7; 16]);
                loop {
                    let event = swarm.select_next_some().await;
                    if matches!(
                        event,
                        SwarmEvent::Behaviour(BehaviourEvent::Requests(
                            request_response::Event::Message { .. }
                        ))
                    ) {
                        break;
                    }
                }
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            answer(&times)
        }
        Order::Stream => {
            let peer = *swarm.connected_peers().next().context("connected")?;
            let mut control = swarm.behaviour().streams.new_control();
            let mut send = tokio::spawn(async move {
                let mut stream = control.open_stream(peer, STREAM).await?;
                let block = vec![7; 64 * 1024];
                let began = Instant::now();
                for _ in 0..STREAM_BYTES / block.len() {
                    stream.write_all(&block).await?;
                }
                stream.close().await?;
                stream.read_exact(&mut [0]).await?;
                let rate = STREAM_BYTES as f64 / began.elapsed().as_secs_f64() / 1e6;
                anyhow::Ok(rate)
            });
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => serve(swarm, event),
                    rate = &mut send => return answer(&rate??),
                }
            }
        }
    }
}
