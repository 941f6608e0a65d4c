//! What a gateway may ask of the node.

use std::{fmt, net::SocketAddr, ops::Deref, sync::Arc};

use super::{
    records::Records,
    visit::{Visit, Visitors},
};
use crate::{
    NodeHandle,
    state::io::{ClientId, Gateway},
};

/// The node, and the list of who is connected to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    node: NodeHandle,
    visitors: Arc<Visitors>,
}

impl Context {
    pub(super) const fn new(node: NodeHandle, visitors: Arc<Visitors>) -> Self {
        Self { node, visitors }
    }

    /// Returns what a gateway keeps for itself, over restarts.
    pub(crate) fn records(&self, gateway: Gateway) -> Records {
        Records::new(self.node.clone(), gateway)
    }

    /// Registers a connection of a client. It is listed until the visit is dropped.
    pub(crate) fn arrive(&self, gateway: Gateway, address: SocketAddr) -> Visit {
        let since_ms = self.node.clock().now().unix_ms();
        self.visitors.arrive(gateway, address, since_ms)
    }

    /// Returns a name for a connection that is not a client's.
    pub(crate) fn reserve(&self) -> ClientId {
        self.visitors.reserve()
    }

    /// Counts something that is not worth an event of its own.
    pub(crate) fn count(&self, what: &'static str) {
        self.visitors.count(what);
    }
}

impl Deref for Context {
    type Target = NodeHandle;

    fn deref(&self) -> &NodeHandle {
        &self.node
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context(..)")
    }
}
