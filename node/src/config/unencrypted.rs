//! Which gateways let everybody in their network read along.

use std::net::SocketAddr;

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
