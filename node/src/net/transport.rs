//! How the swarm is built: TCP and QUIC, their encryption and their limits.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Swarm, Transport as _, TransportError,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade},
    identity::Keypair,
    multiaddr::Protocol as Part,
    noise, quic, tcp, yamux,
};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{
    Config, NetError,
    admission::{Admission, GivenWay, source_of},
    behaviour::Behaviour,
    closing::Goodbyes,
    dialling::Dialling,
    reading::Reading,
    silence::Watched,
};

/// How long a dial may take, encryption included.
const DIAL_TIME: Duration = Duration::from_secs(8);

/// A connection nobody uses is kept: members stay connected.
const IDLE_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When a connection on which nothing is heard is given up: two pings long, and some.
const SILENCE_MS: u32 = 8_000;

/// When the system gives up a TCP connection on which nothing that was sent is taken. Long after the
/// silence, which ends it first as long as the muxer reads: it does not read while an answer of its
/// own cannot be written.
const NOT_TAKEN_TIME: Duration = Duration::from_millis(2 * SILENCE_MS as u64);

/// How often QUIC speaks when there is nothing to say.
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(3_500);

/// Streams that one peer may have open at once. Bounds what Yamux buffers for it.
const STREAMS_MAX: u32 = 128;

/// Bytes that QUIC takes from a peer before they are read: on one stream, and on all streams of a
/// connection. Enough for 25 MB/s and more over a LAN, or for 2 MB/s around the world.
const QUIC_STREAM_BYTES_MAX: u32 = 512 * 1024;
const QUIC_CONNECTION_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// Builds the swarm, which begins to listen; `given_way` counts what its listeners give up.
pub(super) fn listening_swarm(
    config: &Config,
    keypair: &Keypair,
    reading: &Reading,
    given_way: &GivenWay,
) -> Result<Swarm<Behaviour>, NetError> {
    let mut swarm = build(config, keypair, reading, given_way)?;
    for address in &config.listen {
        let multiaddr: Multiaddr = address
            .as_str()
            .parse()
            .map_err(|_| NetError::Address(address.clone()))?;
        let is_v6 = matches!(multiaddr.iter().next(), Some(Part::Ip6(_)));
        let free = free_for_listening(&multiaddr);
        let is_taken = matches!(&free, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
        let listening = free
            .map_err(TransportError::Other)
            .and_then(|()| swarm.listen_on(multiaddr));
        match listening {
            Ok(_) => {}
            // A machine may have IPv6 switched off; the others still serve.
            Err(error) if is_v6 && !is_taken => {
                tracing::warn!(%address, %error, "cannot listen");
            }
            Err(error) => {
                return Err(NetError::Listen {
                    address: address.clone(),
                    source: super::innermost(error),
                });
            }
        }
    }
    Ok(swarm)
}

/// Refuses a port that another program listens on. libp2p shares its ports (`SO_REUSEPORT`), so
/// two nodes with one configuration would both start, and each connection would reach either.
fn free_for_listening(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Part::Ip4(ip)) => ip.into(),
        Some(Part::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    let (port, kind, protocol) = match parts.next() {
        Some(Part::Tcp(port @ 1..)) => (port, socket2::Type::STREAM, socket2::Protocol::TCP),
        Some(Part::Udp(port @ 1..)) => (port, socket2::Type::DGRAM, socket2::Protocol::UDP),
        _ => return Ok(()),
    };
    let at = SocketAddr::new(ip, port);
    let probe = socket2::Socket::new(socket2::Domain::for_address(at), kind, Some(protocol))?;
    if ip.is_ipv6() {
        // As libp2p does: `[::]` and `0.0.0.0` are listened on side by side.
        probe.set_only_v6(true)?;
    }
    if protocol == socket2::Protocol::TCP {
        // Connections of an earlier run that are still ending do not count. A UDP port has none,
        // and with this option its probe would never find it taken.
        probe.set_reuse_address(true)?;
    }
    probe.bind(&at.into())
}

fn build(
    config: &Config,
    keypair: &Keypair,
    reading: &Reading,
    given_way: &GivenWay,
) -> Result<Swarm<Behaviour>, NetError> {
    let failed = |e: &dyn std::fmt::Display| NetError::Transport(e.to_string());
    let behaviour = Behaviour::new(config, keypair, reading)?;
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_other_transport(|keypair| {
            let tcp = Admission::new(tcp_transport(keypair)?, given_way.clone());
            let quic = Admission::new(quic_transport(keypair), given_way.clone());
            let goodbyes = Goodbyes::new();
            let both = tcp.or_transport(quic).map(move |either, endpoint| {
                let (peer, muxer) = either.into_inner();
                let source = source_of(endpoint.get_remote_address());
                (peer, goodbyes.limit(muxer, source))
            });
            Ok(Dialling::new(both.boxed()))
        })
        .map_err(|e| failed(&e))?
        .with_behaviour(|_| behaviour)
        .map_err(|e| failed(&e))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_TIME))
        .with_connection_timeout(DIAL_TIME)
        .build();
    Ok(swarm)
}

/// Makes the TCP transport of a node: Noise, Yamux, and an end to silent connections.
///
/// # Errors
/// Fails if the key cannot sign the Noise handshake.
pub fn tcp_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(usize::try_from(STREAMS_MAX).unwrap_or(usize::MAX));
    let silence = Duration::from_millis(SILENCE_MS.into());
    Ok(
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .map(move |stream, _| Watched::new(impatient(stream), silence))
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise::Config::new(keypair)?)
            .multiplex(muxer)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    )
}

/// Has the system end a stream on which nothing that was sent is taken.
fn impatient(stream: tcp::tokio::TcpStream) -> Compat<TcpStream> {
    let stream = TcpStream::from(stream);
    // A system that refuses this ends such a stream later.
    drop(SockRef::from(&stream).set_tcp_user_timeout(Some(NOT_TAKEN_TIME)));
    stream.compat()
}

/// Makes the QUIC transport of a node.
fn quic_transport(keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let mut config = quic::Config::new(keypair);
    config.max_idle_timeout = SILENCE_MS;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = STREAMS_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES_MAX;
    config.max_connection_data = QUIC_CONNECTION_BYTES_MAX;
    quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};

    use super::*;

    #[test]
    fn a_taken_port_is_named_and_the_other_family_has_its_own() {
        let tcp = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
        let udp = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
        let tcp_port = format!("tcp/{}", tcp.local_addr().expect("bound").port());
        let udp_port = format!("udp/{}/quic-v1", udp.local_addr().expect("bound").port());
        let probe = |address: String| free_for_listening(&address.parse().expect("an address"));

        for port in [tcp_port, udp_port] {
            let v4 = probe(format!("/ip4/0.0.0.0/{port}"));
            let v6 = probe(format!("/ip6/::/{port}"));

            assert_eq!(v4.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
            v6.expect("a node listens on both families with one port");
        }
    }

    #[tokio::test]
    async fn the_system_gives_up_a_tcp_stream_on_which_nothing_is_taken() {
        let mut listening = tcp::tokio::Transport::default().boxed();
        let at = "/ip4/127.0.0.1/tcp/0".parse().expect("an address");
        listening
            .listen_on(ListenerId::next(), at)
            .expect("listens");
        let at = loop {
            if let Some(TransportEvent::NewAddress { listen_addr, .. }) = listening.next().await {
                break listen_addr;
            }
        };
        let options = DialOpts {
            role: libp2p::core::Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let mut transport = tcp::tokio::Transport::default();
        let stream = transport.dial(at, options).expect("dials").await;

        let stream = impatient(stream.expect("somebody listens"));

        let limit = SockRef::from(stream.get_ref()).tcp_user_timeout();
        assert_eq!(limit.expect("known"), Some(Duration::from_secs(16)));
    }
}
