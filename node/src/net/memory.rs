//! The limit of memory in use, for strangers.
//!
//! What a process has in memory includes what its allocator keeps for later, so a node that once
//! needed much stays over the limit although nothing needs it. Members are never refused for that:
//! they are few, and what each of them can take has limits of its own.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    memory_connection_limits,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Refuses connections of strangers while more memory is in use than the limit.
pub(super) struct MemoryLimit {
    limit: memory_connection_limits::Behaviour,
    members: BTreeSet<PeerId>,
}

impl MemoryLimit {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            limit: memory_connection_limits::Behaviour::with_max_bytes(bytes_max),
            members: BTreeSet::new(),
        }
    }

    /// From here on this peer is a member, or none.
    pub(super) fn set_member(&mut self, peer: PeerId, is_member: bool) {
        if is_member {
            self.members.insert(peer);
        } else {
            self.members.remove(&peer);
        }
    }
}

impl NetworkBehaviour for MemoryLimit {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    // Who is there is known after the handshake; those who dial us have a limit of their own
    // until then.
    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            self.limit
                .handle_pending_inbound_connection(connection, local, remote)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    // This node dials members, and who has invited it.
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

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
    use super::*;

    fn is_let_in(limit: &mut MemoryLimit, peer: PeerId) -> bool {
        let (id, at) = (ConnectionId::new_unchecked(1), Multiaddr::empty());
        // Before the handshake nobody is judged.
        let pending = limit.handle_pending_inbound_connection(id, &at, &at);
        let established = limit.handle_established_inbound_connection(id, peer, &at, &at);
        pending.is_ok() && established.is_ok()
    }

    #[test]
    fn over_the_limit_strangers_are_refused_and_members_are_not() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let mut limit = MemoryLimit::new(1);
        limit.set_member(member, true);

        assert!(is_let_in(&mut limit, member) && !is_let_in(&mut limit, stranger));
        assert!(
            limit
                .handle_pending_outbound_connection(
                    ConnectionId::new_unchecked(2),
                    Some(stranger),
                    &[],
                    Endpoint::Dialer
                )
                .is_ok(),
            "an inviter is no member yet"
        );
        limit.set_member(member, false);
        assert!(!is_let_in(&mut limit, member), "it was removed");
    }

    #[test]
    fn below_the_limit_everybody_is_let_in() {
        let mut limit = MemoryLimit::new(usize::MAX);

        assert!(is_let_in(&mut limit, PeerId::random()));
    }
}
