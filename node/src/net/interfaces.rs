//! Notices that a network interface or one of its addresses changed.
//!
//! The kernel tells on a netlink socket (rtnetlink(7)). What exactly changed does not matter: any
//! word from it is a hint to dial.

use std::time::Duration;

use futures::FutureExt;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::Instant;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// A change comes as a burst of messages; this is how long it may last.
const BURST: Duration = Duration::from_millis(200);

/// Listens to the kernel.
pub(super) struct Interfaces {
    socket: Option<TokioSocket>,
    burst_until: Option<Instant>,
}

impl Interfaces {
    /// Opens the socket. Without it nothing is noticed, and dials wait for their backoff.
    pub(super) fn new() -> Self {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = open()
            .inspect_err(|error| tracing::warn!(%error, "cannot watch network interfaces"))
            .ok();
        Self {
            socket,
            burst_until: None,
        }
    }

    /// Waits for the next change. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let Some(socket) = &mut self.socket else {
            return std::future::pending().await;
        };
        if self.burst_until.is_none() {
            if let Err(error) = socket.recv_from_full().await {
                tracing::debug!(%error, "lost messages about network interfaces");
            }
            self.burst_until = Some(Instant::now() + BURST);
        }
        if let Some(until) = self.burst_until {
            tokio::time::sleep_until(until).await;
        }
        self.burst_until = None;
        while socket
            .recv_from_full()
            .now_or_never()
            .is_some_and(|read| read.is_ok())
        {}
    }
}
