//! How many connections libp2p may hold: in all, and with one peer.
//!
//! libp2p's own behaviour for this keeps an entry for each peer that ever was connected. Here a
//! peer without a connection leaves nothing behind.

use std::{
    collections::HashMap,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{closing::CLOSING_MAX, connections::UNOPENED_MAX};

/// Most connections that are not open: those without a handshake, those that say goodbye, and as
/// many again for those that libp2p has not begun to close yet. `connections` limits the open ones.
const NOT_OPEN_MAX: usize = 2 * (UNOPENED_MAX + CLOSING_MAX);

/// Most connections to one peer: one that is open, one fresh one, and the same from its side.
const PER_PEER_MAX: usize = 4;

/// Refuses connections that are too many.
pub(super) struct Established {
    max: usize,
    all: usize,
    /// How many each peer has, for those that have any.
    of_peers: HashMap<PeerId, usize>,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
enum TooMany {
    #[error("there are {0} connections")]
    InAll(usize),
    #[error("there are {0} connections with this peer")]
    WithPeer(usize),
}

impl Established {
    /// Allows this many open connections, and those that are not open beside them.
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            max: open_max.saturating_add(NOT_OPEN_MAX),
            all: 0,
            of_peers: HashMap::new(),
        }
    }

    fn check(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        let with_peer = self.of_peers.get(peer).copied().unwrap_or_default();
        if with_peer >= PER_PEER_MAX {
            return Err(ConnectionDenied::new(TooMany::WithPeer(with_peer)));
        }
        if self.all >= self.max {
            return Err(ConnectionDenied::new(TooMany::InAll(self.all)));
        }
        Ok(())
    }

    fn opened(&mut self, peer: PeerId) {
        self.all += 1;
        *self.of_peers.entry(peer).or_default() += 1;
    }

    fn closed(&mut self, peer: &PeerId) {
        let Some(with_peer) = self.of_peers.get_mut(peer) else {
            return;
        };
        self.all = self.all.saturating_sub(1);
        *with_peer -= 1;
        if *with_peer == 0 {
            self.of_peers.remove(peer);
        }
    }
}

impl NetworkBehaviour for Established {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.opened(established.peer_id),
            FromSwarm::ConnectionClosed(closed) => self.closed(&closed.peer_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::ConnectedPoint,
        swarm::{ConnectionClosed, behaviour::ConnectionEstablished},
    };

    use super::*;

    fn id() -> ConnectionId {
        ConnectionId::new_unchecked(1)
    }

    fn endpoint() -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: Multiaddr::empty(),
        }
    }

    /// Connects, unless it is refused.
    fn connects(established: &mut Established, peer: PeerId) -> bool {
        let at = Multiaddr::empty();
        let refused = established
            .handle_established_inbound_connection(id(), peer, &at, &at)
            .is_err();
        if !refused {
            let event = FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id(),
                endpoint: &endpoint(),
                failed_addresses: &[],
                other_established: 0,
            });
            established.on_swarm_event(event);
        }
        !refused
    }

    fn leaves(established: &mut Established, peer: PeerId) {
        let event = FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: id(),
            endpoint: &endpoint(),
            cause: None,
            remaining_established: 0,
        });
        established.on_swarm_event(event);
    }

    #[test]
    fn one_peer_has_four_connections_at_most_and_others_have_theirs() {
        let (mut established, peer) = (Established::new(64), PeerId::random());
        for _ in 0..4 {
            assert!(connects(&mut established, peer));
        }

        assert!(!connects(&mut established, peer));
        assert!(connects(&mut established, PeerId::random()));
        leaves(&mut established, peer);
        assert!(connects(&mut established, peer));
    }

    #[test]
    fn there_is_a_limit_for_all_and_a_place_that_is_left_is_free() {
        let mut established = Established::new(64);
        let peers: Vec<PeerId> = (0..64 + 256).map(|_| PeerId::random()).collect();
        for peer in &peers {
            assert!(connects(&mut established, *peer));
        }

        assert!(!connects(&mut established, PeerId::random()));
        leaves(&mut established, peers[0]);
        assert!(connects(&mut established, PeerId::random()));
    }

    #[test]
    fn peers_that_are_gone_leave_nothing_behind() {
        let mut established = Established::new(64);
        for _ in 0..1000 {
            let peer = PeerId::random();
            assert!(connects(&mut established, peer));
            leaves(&mut established, peer);
        }

        assert!(established.of_peers.is_empty() && established.all == 0);
    }
}
