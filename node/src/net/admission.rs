//! Connections of others that are being set up: how many at once, and who gives way.
//!
//! libp2p sets up a connection before it shows it to anybody, and its own limit refuses newcomers
//! while a stranger holds all places with connections that say nothing. Here a newcomer always gets
//! a place, and the oldest attempt of the address with most of them ends for it. An honest attempt
//! takes some milliseconds, so it is rarely the oldest.
//!
//! Each transport has places of its own. The source address of a UDP packet can be forged, and
//! libp2p-quic offers no way to ask for a proof first (QUIC's Retry, RFC 9000, section 8.1.2), so a
//! flood of forged packets must not take the places of TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use libp2p::{
    Multiaddr, TransportError,
    core::{
        Transport,
        transport::{Boxed, DialOpts, ListenerId, TransportEvent},
    },
    multiaddr::Protocol as Part,
};

use super::places::Places;
use crate::limits::Source;

/// Most connections of others that are being set up at once on one transport. More than a mesh
/// makes at once; each costs a socket and some kilobytes.
const PENDING_MAX: usize = 64;

/// How many attempts gave way and were not told yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenWay(Arc<AtomicU64>);

impl GivenWay {
    /// Returns how many there were since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A transport whose listeners set up a limited number of connections at once.
pub(super) struct Admission<O> {
    transport: Boxed<O>,
    pending: Places,
    given_way: GivenWay,
}

impl<O> Admission<O> {
    pub(super) fn new(transport: Boxed<O>, given_way: GivenWay) -> Self {
        Self {
            transport,
            pending: Places::new(PENDING_MAX),
            given_way,
        }
    }
}

impl<O: 'static> Transport for Admission<O> {
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<O> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<O> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.transport.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.transport.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        // The loop that polls here runs more often than the tasks that set connections up: without
        // this, a flood has it accept thousands before the first of those that gave way has ended.
        std::task::ready!(self.pending.poll_ready(cx));
        let event = std::task::ready!(Pin::new(&mut self.transport).poll(cx));
        let TransportEvent::Incoming {
            listener_id,
            upgrade,
            local_addr,
            send_back_addr,
        } = event
        else {
            return Poll::Ready(event);
        };
        let (handle, registration) = AbortHandle::new_pair();
        let attempt = self.pending.take(&source_of(&send_back_addr), handle);
        let given_way = self.given_way.clone();
        let upgrade = Abortable::new(upgrade, registration)
            .map(move |done| {
                drop(attempt);
                done.unwrap_or_else(|_| {
                    given_way.0.fetch_add(1, Ordering::Relaxed);
                    Err(io::Error::other("gave way to a newer attempt"))
                })
            })
            .boxed();
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade,
            local_addr,
            send_back_addr,
        })
    }
}

/// Returns the source behind an address. All without an IP address count as one.
pub(super) fn source_of(address: &Multiaddr) -> Source {
    let ip = address.iter().find_map(|part| match part {
        Part::Ip4(ip) => Some(IpAddr::V4(ip)),
        Part::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    });
    Source::from(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

#[cfg(test)]
mod tests {
    use futures::future::Pending;

    use super::*;

    /// A transport to which somebody always connects, and then says nothing.
    struct Flooded;

    impl Transport for Flooded {
        type Output = ();
        type Error = io::Error;
        type ListenerUpgrade = Pending<Result<(), io::Error>>;
        type Dial = Pending<Result<(), io::Error>>;

        fn listen_on(
            &mut self,
            _: ListenerId,
            address: Multiaddr,
        ) -> Result<(), TransportError<Self::Error>> {
            Err(TransportError::MultiaddrNotSupported(address))
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(
            &mut self,
            address: Multiaddr,
            _: DialOpts,
        ) -> Result<Self::Dial, TransportError<Self::Error>> {
            Err(TransportError::MultiaddrNotSupported(address))
        }

        fn poll(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
            Poll::Ready(TransportEvent::Incoming {
                listener_id: ListenerId::next(),
                upgrade: futures::future::pending(),
                local_addr: Multiaddr::empty(),
                send_back_addr: Multiaddr::empty(),
            })
        }
    }

    #[test]
    fn a_flood_is_not_accepted_faster_than_those_that_gave_way_end() {
        let mut admission = Admission::new(Flooded.boxed(), GivenWay::default());
        let waker = futures::task::noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut attempts = Vec::new();

        while let Poll::Ready(TransportEvent::Incoming { upgrade, .. }) =
            Pin::new(&mut admission).poll(&mut cx)
        {
            attempts.push(upgrade);
            assert!(attempts.len() <= 2 * PENDING_MAX, "bounded");
        }

        // Run once, those that gave way are gone, and there is room for as many more.
        attempts.retain_mut(|attempt| attempt.poll_unpin(&mut cx).is_pending());
        assert_eq!(attempts.len(), PENDING_MAX);
        assert!(Pin::new(&mut admission).poll(&mut cx).is_ready());
    }

    #[test]
    fn addresses_without_an_ip_address_have_one_source_and_ports_do_not_matter() {
        let of = |text: &str| source_of(&text.parse().expect("a multiaddr"));
        assert_eq!(of("/ip4/10.0.0.1/tcp/1"), of("/ip4/10.0.0.1/udp/2/quic-v1"));
        assert_ne!(of("/ip4/10.0.0.1/tcp/1"), of("/ip4/10.0.0.2/tcp/1"));
        assert_eq!(of("/ip6/fd00::1/tcp/1"), of("/ip6/fd00::2:1/tcp/1"));
        assert_eq!(of("/memory/1"), of("/memory/2"));
    }
}
