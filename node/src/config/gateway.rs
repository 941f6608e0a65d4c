//! The `[gateway.…]` sections: which gateways for older clients are open, where, and how far.
//!
//! A gateway's section is a file of its own; here are the list of them and what they share.

pub mod iid;
pub mod p2sn;
pub mod syft;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use self::{
    iid::{Iid, IidSection, IidServer},
    p2sn::{P2sn, P2snSection},
    syft::{Syft, SyftSection, SyftServer},
};
use super::{ConfigError, Size, Span, section::Key, unencrypted::Unencrypted, value};
use crate::proto::server::{KeyOf, ServerUrl, share_a_key};

/// The gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// For IID and APIntIO clients.
    pub iid: Iid,
    /// APIntIO servers that this node is a client of.
    pub iid_servers: Vec<IidServer>,
    /// For P2SN peers.
    pub p2sn: P2sn,
    /// For Syft agents.
    pub syft: Syft,
    /// Syft servers that this node is a client of.
    pub syft_servers: Vec<SyftServer>,
}

impl Gateways {
    /// Returns where enabled gateways exchange with other machines what they do not encrypt.
    /// P2SN encrypts by itself, and Syft without TLS is for loopback only.
    #[must_use]
    pub fn unencrypted(&self) -> Vec<Unencrypted> {
        self.iid.unencrypted()
    }

    /// Returns the hosts of the foreign servers that this node is a client of.
    pub fn server_hosts(&self) -> impl Iterator<Item = &str> {
        let iid = self.iid_servers.iter().map(|server| &server.url);
        let syft = self.syft_servers.iter().map(|server| &server.url);
        iid.chain(syft).map(ServerUrl::host)
    }
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The sections of each gateway, in the order of the example.
pub(super) const SECTIONS: [&[(&str, &[Key])]; 3] = [iid::SECTIONS, p2sn::SECTIONS, syft::SECTIONS];

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Section {
    iid: IidSection,
    p2sn: P2snSection,
    syft: SyftSection,
}

impl Section {
    pub(super) fn into_gateways(self) -> Result<Gateways, ConfigError> {
        Ok(Gateways {
            iid_servers: self.iid.checked_servers()?,
            iid: self.iid.into_iid()?,
            p2sn: self.p2sn.into_p2sn()?,
            syft_servers: self.syft.checked_servers()?,
            syft: self.syft.into_syft()?,
        })
    }
}

/// Refuses two servers that have one key of this node: each could log in at the other with it.
fn check_keys<'a>(
    key_name: &'static str,
    servers: impl Iterator<Item = (&'a ServerUrl, KeyOf)>,
) -> Result<(), ConfigError> {
    let servers: Vec<_> = servers.collect();
    for (at, (url, key)) in servers.iter().enumerate() {
        let earlier = &servers[..at];
        let is_same = |(other, its): &&(&ServerUrl, KeyOf)| share_a_key((url, key), (other, its));
        if let Some((other, _)) = earlier.iter().find(is_same) {
            let expected = "a list of servers with a key for each, so that none can log in at \
                            another as this node; one `key_of` stands for one server";
            let found = format_args!("`key_of = \"{key}\"` for {other} and {url}");
            return Err(value(key_name, expected, found));
        }
    }
    Ok(())
}

fn tls_files(
    key_name: &'static str,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        _ => Err(value(key_name, "set if the certificate is", "one of them")),
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
