//! Which gateways let everybody in their network read along.

use std::net::SocketAddr;

use super::gateway::Gateways;

/// A listener whose clients do not encrypt, where other machines reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unencrypted {
    /// The section of its gateway.
    pub gateway: &'static str,
    /// Where it listens or sends to.
    pub address: SocketAddr,
}

impl Unencrypted {
    /// Says what that means.
    #[must_use]
    pub fn problem(&self) -> String {
        format!(
            "the gateway {} at {} does not encrypt: everybody in that network can read what its \
             clients send and receive",
            self.gateway, self.address
        )
    }

    /// What to do about it.
    pub const TODO: &str = "set `tls_certificate` and `tls_key` of the gateway in `pimesh.toml`, or \
                            let it listen on loopback; datagrams cannot be encrypted";
}

impl Gateways {
    /// Returns where enabled gateways exchange with other machines what they do not encrypt.
    /// P2SN encrypts by itself, and Syft without TLS is for loopback only.
    #[must_use]
    pub fn unencrypted(&self) -> Vec<Unencrypted> {
        let iid = &self.iid;
        let plain = [Some(iid.listen), iid.listen_only];
        let plain = plain.into_iter().filter(|_| iid.tls.is_none());
        plain
            .chain([iid.udp_in])
            .flatten()
            .chain(iid.udp_out.iter().copied())
            .filter(|address| iid.enabled && !address.ip().is_loopback())
            .map(|address| Unencrypted {
                gateway: "iid",
                address,
            })
            .collect()
    }
}
