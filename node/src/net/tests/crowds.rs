//! Too many connections and requests of one peer, while another one wants to be served.

use std::net::SocketAddr;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol,
    core::{
        Endpoint, Transport,
        muxing::StreamMuxerBox,
        transport::{DialOpts, PortUse},
        upgrade::{self, OutboundConnectionUpgrade},
    },
    noise, tcp, yamux,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;
use crate::proto::mesh::direct::REQUEST_BYTES_MAX;

/// More connections than the node sets up, or holds unopened, at once.
const CROWD: usize = 80;

/// Another address of the same machine.
const ELSEWHERE: &str = "/ip4/127.0.0.2/tcp/0";

#[tokio::test]
async fn connections_that_say_nothing_keep_no_peer_from_elsewhere_out() {
    let mut a = Pi::start(TCP, Plays::Handshake).await;
    let port = a.net.listeners()[0].rsplit('/').next().unwrap().to_owned();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let address = format!("127.0.0.1:{port}");
        crowd.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut b = Pi::start(ELSEWHERE, Plays::Handshake).await;
    b.dial(a.peer, a.address(), false);
    let mut given_way = 0;

    drive(&mut [&mut a, &mut b], |pis, event| {
        if let Some((
            0,
            NetInput::AtLimit {
                what: "connection_setup",
                times,
            },
        )) = event
        {
            given_way += times;
        }
        (!pis[0].opened.is_empty() && !pis[1].opened.is_empty()).then_some(())
    })
    .await;

    assert!(
        given_way >= u64::try_from(CROWD / 8).unwrap(),
        "{given_way}"
    );
}

#[tokio::test]
async fn encrypted_connections_without_a_handshake_keep_no_peer_from_elsewhere_out() {
    let mut a = Pi::start(TCP, Plays::Handshake).await;
    let at: libp2p::Multiaddr = a.address().as_str().parse().unwrap();
    // One after the other: more at once would give way before they are encrypted.
    let crowd = tokio::spawn(async move {
        let mut connections = Vec::new();
        for _ in 0..CROWD {
            connections.push(encrypted(at.clone()).await);
        }
        std::future::pending::<()>().await;
        drop(connections);
    });
    let mut closed = 0;
    let mut pis = [&mut a];
    // Runs until all of the crowd are connected and those that are too many are closed.
    drive(&mut pis, |_, event| {
        if let Some((0, NetInput::Disconnected { reason, .. })) = event {
            closed += usize::from(reason == "too many connections without a handshake");
        }
        (closed == CROWD - 64).then_some(())
    })
    .await;
    let mut b = Pi::start(ELSEWHERE, Plays::Handshake).await;
    b.dial(a.peer, a.address(), false);

    let pis = &mut [&mut a, &mut b];
    opened(pis).await;

    let to_b = pis[1].peer;
    let id = pis[0].ask(to_b, Protocol::Direct, b"from a");
    assert_eq!(answer(pis, 0, id).await, Ok(b"from a".to_vec()));
    crowd.abort();
}

/// Connects as a stranger does who says nothing but what encryption and the muxer need.
async fn encrypted(at: libp2p::Multiaddr) -> (PeerId, StreamMuxerBox) {
    let keypair = Keypair::generate_ed25519();
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        // Lazily, as our own transport does it, the muxer would not be agreed upon.
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    transport.dial(at, options).unwrap().await.unwrap()
}

/// It takes none of the answers to its pings, so the node's goodbye finds no room either.
#[tokio::test]
async fn a_stranger_that_reads_nothing_is_gone_after_its_connection_is_closed() {
    let mut a = Pi::start(TCP, Plays::Handshake).await;
    a.net.connections.opening_time = Duration::from_secs(2);
    let at: SocketAddr = {
        let port = a.net.listeners()[0].rsplit('/').next().unwrap().to_owned();
        format!("127.0.0.1:{port}").parse().unwrap()
    };
    let stranger = tokio::spawn(pings(at));
    let reason = drive(&mut [&mut a], |_, event| match event {
        Some((0, NetInput::Disconnected { reason, .. })) => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, "no handshake in time");

    let connected = |pis: &[&mut Pi]| pis[0].net.swarm.network_info().num_peers();
    let pis = &mut [&mut a];
    let begun = std::time::Instant::now();
    drive(pis, |pis, _| (connected(pis) == 0).then_some(())).await;

    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "the goodbye was taken at once, so nothing was shown"
    );
    stranger.abort();
}

/// Connects, and sends pings of the muxer without end; reads nothing after the encryption.
async fn pings(at: SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // So that little is on the way: the system has larger send buffers for larger segments.
    socket.set_recv_buffer_size(4096).unwrap();
    socket2::SockRef::from(&socket).set_tcp_mss(536).unwrap();
    let stream = socket.connect(at).await.unwrap();
    let keypair = Keypair::generate_ed25519();
    let noise = noise::Config::new(&keypair).unwrap();
    let stream = agreed(stream.compat(), "/noise").await;
    let (_, stream) = noise.upgrade_outbound(stream, "/noise").await.unwrap();
    let mut stream = agreed(stream, "/yamux/1.0.0").await;
    // Version 0, type ping, flag SYN, no stream.
    let ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    while stream.write_all(&ping).await.is_ok() {}
}

/// Agrees upon a protocol (multistream-select 1.0).
async fn agreed<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, protocol: &str) -> S {
    let mut words = Vec::new();
    for word in ["/multistream/1.0.0", protocol] {
        words.push(u8::try_from(word.len() + 1).unwrap());
        words.extend(word.bytes().chain([b'\n']));
    }
    stream.write_all(&words).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; words.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, words);
    stream
}

#[tokio::test]
async fn a_member_with_unfinished_requests_takes_bounded_memory_and_others_are_served() {
    const STREAMS: usize = 64;
    let (mut a, mut greedy) = pair(TCP).await;
    let mut other = Pi::start(TCP, Plays::Handshake).await;
    other.dial(a.peer, a.address(), false);
    let to_a = a.peer;
    let control = greedy
        .net
        .swarm
        .behaviour_mut()
        .gate
        .inner()
        .streams
        .new_control();
    let floods: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut control = control.clone();
            tokio::spawn(async move {
                let protocol = StreamProtocol::new("/pimesh/dm/1");
                let mut stream = control.open_stream(to_a, protocol).await.ok()?;
                let length = u32::try_from(REQUEST_BYTES_MAX).ok()?;
                stream.write_all(&length.to_be_bytes()).await.ok()?;
                let most = vec![0; REQUEST_BYTES_MAX - 1];
                stream.write_all(&most).await.ok()?;
                stream.flush().await.ok()?;
                std::future::pending::<Option<()>>().await
            })
        })
        .collect();
    let pis = &mut [&mut a, &mut greedy, &mut other];
    let (mut dropped, mut most) = (0, 0);
    drive(pis, |pis, event| {
        if let Some((0, NetInput::AtLimit { times, .. })) = event {
            dropped += times;
        }
        let direct = &pis[0].net.swarm.behaviour_mut().gate.inner().direct;
        most = most.max(direct.reading().used());
        let other_is_open = !pis[2].opened.is_empty() && pis[0].opened.len() == 2;
        // All but sixteen are dropped, and two are read as far as they go.
        (dropped == 48 && most >= 2 * REQUEST_BYTES_MAX - 1 && other_is_open).then_some(())
    })
    .await;

    let id = pis[2].ask(to_a, Protocol::Direct, b"from another member");
    assert_eq!(
        answer(pis, 2, id).await,
        Ok(b"from another member".to_vec())
    );
    let direct = &pis[0].net.swarm.behaviour_mut().gate.inner().direct;
    assert!(direct.reading().used() <= 2 * REQUEST_BYTES_MAX);
    for flood in floods {
        flood.abort();
    }
}
