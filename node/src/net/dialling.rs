//! What stands between the swarm and the transports when a peer is dialled.
//!
//! **The right peer.** libp2p takes the first of several addresses at which anybody answers, and gives
//! the whole dial up if that was somebody else: an address that another member has now, or a lie,
//! would keep a peer away whose other addresses are right. Here such an address alone fails.
//!
//! **Names** (`/dns4/…` and its kin) are resolved by what `resolv.conf` says when they are dialled.
//! libp2p reads that file once, when the swarm is built, and cannot be built without a nameserver
//! in it. A Pi may start before the network does, or never have a nameserver: two machines on one
//! cable. So the file is read for each dial of a name, and a dial of a name without a nameserver is
//! a dial that failed. Addresses without a name need no resolver.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use hickory_resolver::system_conf::parse_resolv_conf;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    },
    dns,
    multiaddr::Protocol as Part,
};
use tokio::io::AsyncReadExt;

/// Why an address failed at which another peer answered.
pub(super) const WRONG_PEER: &str = "another node answered at that address";

/// Where the system names its nameservers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Most bytes of that file that are read: far more than its three nameservers need.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

type Inner = Boxed<(PeerId, StreamMuxerBox)>;

/// A transport that resolves names before it dials through the inner one, and takes no other peer
/// than the one that the address ends in.
pub(super) struct Dialling {
    inner: Shared,
    resolver: Arc<Mutex<Option<Resolver>>>,
    resolv_conf: PathBuf,
}

/// What resolves names, and the bytes of `resolv.conf` that it was made from.
struct Resolver {
    conf: Vec<u8>,
    transport: dns::tokio::Transport<Shared>,
}

impl Dialling {
    pub(super) fn new(inner: Inner) -> Self {
        Self::with(inner, RESOLV_CONF.into())
    }

    fn with(inner: Inner, resolv_conf: PathBuf) -> Self {
        Self {
            inner: Shared(Arc::new(Mutex::new(inner))),
            resolver: Arc::default(),
            resolv_conf,
        }
    }
}

impl Transport for Dialling {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = <Inner as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let expected = match address.iter().last() {
            Some(Part::P2p(peer)) => Some(peer),
            _ => None,
        };
        let is_right = move |reached: (PeerId, StreamMuxerBox)| match expected {
            Some(expected) if expected != reached.0 => Err(io::Error::other(WRONG_PEER)),
            _ => Ok(reached),
        };
        if !has_name(&address) {
            let dial = self.inner.dial(address, options)?;
            return Ok(async move { is_right(dial.await?) }.boxed());
        }
        let (inner, path) = (self.inner.clone(), self.resolv_conf.clone());
        let resolver = Arc::clone(&self.resolver);
        let dial = async move {
            let conf = read(path).await?;
            let dial = dial_name(&mut locked(&resolver), inner, conf, address, options)?;
            let reached = dial.await;
            is_right(reached.map_err(|error| io::Error::other(innermost(error)))?)
        };
        Ok(dial.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

/// Dials through the resolver that fits these bytes of `resolv.conf`.
fn dial_name(
    known: &mut Option<Resolver>,
    inner: Shared,
    conf: Vec<u8>,
    address: Multiaddr,
    options: DialOpts,
) -> io::Result<<dns::tokio::Transport<Shared> as Transport>::Dial> {
    if known.as_ref().is_none_or(|known| known.conf != conf) {
        *known = None;
        let (config, settings) = parse_resolv_conf(&conf)
            .map_err(|_| io::Error::other("no nameserver is set (/etc/resolv.conf)"))?;
        let transport = dns::tokio::Transport::custom(inner, config, settings);
        *known = Some(Resolver { conf, transport });
    }
    let Some(resolver) = known else {
        return Err(io::Error::other("no nameserver is set"));
    };
    resolver
        .transport
        .dial(address, options)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Reads `resolv.conf`; one that is not there is an empty one.
async fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    let mut conf = Vec::new();
    match tokio::fs::File::open(path).await {
        Ok(file) => {
            file.take(RESOLV_CONF_MAX).read_to_end(&mut conf).await?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(conf)
}

fn has_name(address: &Multiaddr) -> bool {
    address.iter().any(|part| {
        matches!(
            part,
            Part::Dns(_) | Part::Dns4(_) | Part::Dns6(_) | Part::Dnsaddr(_)
        )
    })
}

/// Returns why a name could not be dialled: the last thing that was tried.
fn innermost(error: dns::Error<io::Error>) -> String {
    match error {
        dns::Error::Dial(mut errors) => errors
            .pop()
            .map_or_else(|| "no address was found".to_owned(), innermost),
        dns::Error::Transport(error) => error.to_string(),
        dns::Error::ResolveError(error) => format!("could not resolve the name: {error}"),
        error @ (dns::Error::MultiaddrNotSupported(_) | dns::Error::TooManyLookups) => {
            error.to_string()
        }
    }
}

/// The inner transport, for those addresses that have a name and for those that have none.
#[derive(Clone)]
struct Shared(Arc<Mutex<Inner>>);

impl Transport for Shared {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = <Inner as Transport>::ListenerUpgrade;
    type Dial = <Inner as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        locked(&self.0).listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        locked(&self.0).remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        locked(&self.0).dial(address, options)
    }

    fn poll(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *locked(&self.0)).poll(context)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::{Endpoint, transport::PortUse},
        identity::Keypair,
    };

    use super::*;

    /// Dials an address on a transport that is driven meanwhile.
    async fn dial(dialler: &mut Dialling, address: &str) -> io::Result<PeerId> {
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let address = address.parse().expect("a multiaddr");
        let dial = dialler.dial(address, options).expect("dials");
        dial.await.map(|(peer, _)| peer)
    }

    fn transport(keypair: &Keypair, resolv_conf: PathBuf) -> Dialling {
        let inner = crate::net::tcp_transport(keypair).expect("a transport");
        Dialling::with(inner, resolv_conf)
    }

    /// Serves one peer after the other; returns the port.
    async fn listener(keypair: &Keypair) -> u16 {
        let mut listener = transport(keypair, PathBuf::new());
        let anywhere = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr");
        listener
            .listen_on(ListenerId::next(), anywhere)
            .expect("listens");
        let next = async |listener: &mut Dialling| {
            std::future::poll_fn(|context| Pin::new(&mut *listener).poll(context)).await
        };
        let event = next(&mut listener).await;
        let TransportEvent::NewAddress { listen_addr, .. } = event else {
            panic!("an address, not {event:?}");
        };
        let port = listen_addr.iter().find_map(|part| match part {
            Part::Tcp(port) => Some(port),
            _ => None,
        });
        tokio::spawn(async move {
            loop {
                if let Some((upgrade, _)) = next(&mut listener).await.into_incoming() {
                    tokio::spawn(async move {
                        // The handshake is all that is looked at.
                        drop(upgrade.await);
                    });
                }
            }
        });
        port.expect("a port")
    }

    #[tokio::test]
    async fn a_name_waits_for_a_nameserver_and_an_address_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let resolv_conf = folder.path().join("resolv.conf");
        let (here, there) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let port = listener(&there).await;
        let peer = there.public().to_peer_id();
        let mut dialler = transport(&here, resolv_conf.clone());
        // Names below `localhost` need no answer of a nameserver.
        let (name, address) = (
            format!("/dns4/localhost/tcp/{port}"),
            format!("/ip4/127.0.0.1/tcp/{port}"),
        );

        let without_file = dial(&mut dialler, &name).await;
        let straight = dial(&mut dialler, &address).await;
        std::fs::write(&resolv_conf, "# nothing yet\n").expect("writes");
        let empty = dial(&mut dialler, &name).await;
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("writes");
        let with_nameserver = dial(&mut dialler, &name).await;
        std::fs::write(&resolv_conf, "").expect("writes");
        let taken_away = dial(&mut dialler, &name).await;

        for refused in [without_file, empty, taken_away] {
            let why = refused.expect_err("no nameserver").to_string();
            assert!(why.contains("no nameserver is set"), "{why}");
        }
        assert_eq!(straight.expect("needs no name"), peer);
        assert_eq!(with_nameserver.expect("resolves"), peer);
    }
}
