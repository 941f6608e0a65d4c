//! `[gateway.iid]`: the gateway for IID and APIntIO clients, and APIntIO servers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Span, TlsFiles, check_keys, loopback, tls_files, value};
use crate::{
    config::{
        section::{Key, section},
        unencrypted::Unencrypted,
    },
    proto::{
        iid::{Index, budget::Limits},
        server::{KeyOf, ServerUrl, key_of},
    },
};

/// The gateway for IID and APIntIO clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iid {
    /// Whether it is open.
    pub enabled: bool,
    /// Where clients sign in and push (the published servers: port 4615).
    pub listen: SocketAddr,
    /// Where listeners connect, if that is served apart (the published listener server: port 4616).
    pub listen_only: Option<SocketAddr>,
    /// The allow list of addresses; `iid/claims.txt` in the home folder if `None`.
    pub claims: Option<PathBuf>,
    /// A further allow list with RSA addresses.
    pub rsa_keys: Option<PathBuf>,
    /// A list of SHA-256 hashes of passwords; passwords are refused if `None`.
    pub password_sha256: Option<PathBuf>,
    /// The letters that are good, one `master>coaster` a line; any letter is if `None`.
    pub letters: Option<PathBuf>,
    /// Least size of an RSA key, in bits.
    pub rsa_bits_min: usize,
    /// Whether negative indices may sign in.
    pub guests: bool,
    /// Whether each client hears every index, and not its own alone.
    pub all_indices: bool,
    /// Pages of these origins may connect; `*` stands for all.
    pub origins: Vec<String>,
    /// Where integers are sent, 16 bytes in a datagram each.
    pub udp_out: Vec<SocketAddr>,
    /// Where datagrams with integers are taken.
    pub udp_in: Option<SocketAddr>,
    /// The index they get; this node's own if `None`.
    pub udp_in_index: Option<Index>,
    /// Certificate and key for TLS, both PEM files.
    pub tls: Option<TlsFiles>,
    /// What a client may do.
    pub limits: IidLimits,
}

impl Iid {
    /// Returns where it exchanges with other machines what it does not encrypt.
    pub(super) fn unencrypted(&self) -> Vec<Unencrypted> {
        let plain = [Some(self.listen), self.listen_only];
        let plain = plain.into_iter().filter(|_| self.tls.is_none());
        plain
            .chain([self.udp_in])
            .flatten()
            .chain(self.udp_out.iter().copied())
            .filter(|address| self.enabled && !address.ip().is_loopback())
            .map(|address| Unencrypted {
                gateway: "iid",
                address,
            })
            .collect()
    }
}

/// An APIntIO server that this node is a client of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IidServer {
    /// Where it is: `ws://` or `wss://`.
    pub url: ServerUrl,
    /// The kind of key to sign in with.
    #[serde(default)]
    pub key: KeyKind,
    /// Which key of that kind; the one of `url` if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_of: Option<KeyOf>,
    /// Whether integers come from there only, and none are sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receive_only: bool,
}

impl IidServer {
    /// Returns which key this node has there.
    #[must_use]
    pub fn key_of(&self) -> KeyOf {
        key_of(self.key_of.as_ref(), &self.url)
    }
}

/// A key to sign in to an APIntIO server with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// An Ethereum key.
    #[default]
    Ethereum,
    /// An RSA key.
    Rsa,
}

/// What a client of the IID gateway may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IidLimits {
    /// How long signing in may take. A person may sign by hand, in a wallet.
    pub sign_in_time: Duration,
    /// Most connections, signed in or not.
    pub connections_max: usize,
    /// Most bytes of integers that one index may send in each span of time.
    pub budget: Limits,
}

/// Its sections of `pimesh.toml`.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    ("gateway.iid", IidSection::KEYS),
    ("gateway.iid.limits", IidLimitsSection::KEYS),
];

section! {
    pub(super) struct IidSection {
        /// The gateway for IID and APIntIO clients: `pimesh gateway enable iid`.
        enabled: bool = false;
        /// Where clients sign in and push, and where listeners connect if that is served apart.
        listen: SocketAddr = loopback(4615);
        listen_only: Option<SocketAddr> = None, r#""127.0.0.1:4616""#;
        /// The allow list, one `index:address` a line; a folder with a folder for each index is
        /// good too. Paths are relative to the home folder. Default: iid/claims.txt.
        claims: Option<PathBuf> = None, r#""iid/claims.txt""#;
        /// Further lists: RSA addresses, and SHA-256 hashes of passwords (a hash is as good as the
        /// password, and crosses the wire in clear).
        rsa_keys: Option<PathBuf> = None, r#""iid/rsa.txt""#;
        password_sha256: Option<PathBuf> = None, r#""iid/passwords.txt""#;
        /// The letters that are good, one `master>coaster` a line. Without it any letter is, unless
        /// revoked.
        letters: Option<PathBuf> = None, r#""iid/letters.txt""#;
        /// Least size of an RSA key. Published clients have 1024 bits, which is weak.
        rsa_bits_min: usize = 1024;
        /// Whether guests (negative indices) may sign in.
        guests: bool = false;
        /// Whether each client hears every index, and not its own alone.
        all_indices: bool = false;
        /// Web pages that may connect, such as ["https://play.example.org"]. They sign in like any
        /// client, so all may by default.
        origins: Vec<String> = vec!["*".to_owned()];
        /// Integers are also sent here, 16 bytes in a datagram each.
        udp_out: Vec<SocketAddr> = vec![loopback(3615), loopback(4625)];
        /// Datagrams of 4, 8, 12 or 16 bytes are taken here, and get this index (default: the
        /// node's own).
        udp_in: Option<SocketAddr> = None, r#""127.0.0.1:3617""#;
        udp_in_index: Option<i32> = None, "7";
        /// Certificate chain and key, both PEM; read again when they change.
        tls_certificate: Option<PathBuf> = None, r#""iid/cert.pem""#;
        tls_key: Option<PathBuf> = None, r#""iid/key.pem""#;
        /// APIntIO servers that this node is a client of, whether or not the gateway is open; each
        /// is { url = "ws://…", key = "ethereum" } or "rsa". `pimesh gateway iid connect` writes
        /// this. With `key_of = "ws://…"` the node has the key that it had when the server was at
        /// that URL; with `key_of = "shared"` the one of earlier versions, for one server at most.
        /// With `receive_only = true` nothing is sent there.
        servers: Vec<IidServer> = Vec::new();
        limits: IidLimitsSection = IidLimitsSection::default();
    }
}

section! {
    struct IidLimitsSection {
        /// How long signing in may take: 1s to 1h.
        sign_in_time: Span = Span(Duration::from_secs(120));
        connections_max: usize = 4096;
        /// Bytes of integers that one index may send; 0 for no limit.
        bytes_per_minute: u64 = Limits::default().minute;
        bytes_per_hour: u64 = Limits::default().hour;
        bytes_per_day: u64 = Limits::default().day;
        bytes_per_month: u64 = Limits::default().month;
    }
}

impl IidSection {
    pub(super) fn checked_servers(&self) -> Result<Vec<IidServer>, ConfigError> {
        const KEY: &str = "gateway.iid.servers";
        let is_iid = |url: &ServerUrl| ["ws", "wss"].contains(&url.scheme());
        if let Some(server) = self.servers.iter().find(|server| !is_iid(&server.url)) {
            let expected = "a list of servers, each with a `url` that begins with ws:// or wss://";
            return Err(value(KEY, expected, &server.url));
        }
        if self.servers.len() > IID_SERVERS_MAX {
            return Err(value(KEY, "16 servers at most", self.servers.len()));
        }
        for kind in [KeyKind::Ethereum, KeyKind::Rsa] {
            let servers = self.servers.iter().filter(|server| server.key == kind);
            check_keys(KEY, servers.map(|server| (&server.url, server.key_of())))?;
        }
        Ok(self.servers.clone())
    }

    pub(super) fn into_iid(self) -> Result<Iid, ConfigError> {
        if !(1024..=8192).contains(&self.rsa_bits_min) {
            let found = self.rsa_bits_min;
            return Err(value("gateway.iid.rsa_bits_min", "1024 to 8192", found));
        }
        let limits = self.limits;
        let Span(sign_in_time) = limits.sign_in_time;
        if !(1..=3600).contains(&sign_in_time.as_secs()) {
            let found = format_args!("{sign_in_time:?}");
            return Err(value("gateway.iid.limits.sign_in_time", "1s to 1h", found));
        }
        if !(1..=65_536).contains(&limits.connections_max) {
            let found = limits.connections_max;
            let key = "gateway.iid.limits.connections_max";
            return Err(value(key, "1 to 65536", found));
        }
        if self.udp_out.len() > UDP_TARGETS_MAX {
            let found = self.udp_out.len();
            return Err(value("gateway.iid.udp_out", "16 addresses at most", found));
        }
        Ok(Iid {
            enabled: self.enabled,
            listen: self.listen,
            listen_only: self.listen_only,
            claims: self.claims,
            rsa_keys: self.rsa_keys,
            password_sha256: self.password_sha256,
            letters: self.letters,
            rsa_bits_min: self.rsa_bits_min,
            guests: self.guests,
            all_indices: self.all_indices,
            origins: self.origins,
            udp_out: self.udp_out,
            udp_in: self.udp_in,
            udp_in_index: self.udp_in_index.map(Index),
            tls: tls_files("gateway.iid.tls_key", self.tls_certificate, self.tls_key)?,
            limits: IidLimits {
                sign_in_time,
                connections_max: limits.connections_max,
                budget: Limits {
                    minute: limits.bytes_per_minute,
                    hour: limits.bytes_per_hour,
                    day: limits.bytes_per_day,
                    month: limits.bytes_per_month,
                },
            },
        })
    }
}

/// Most APIntIO servers that this node is a client of.
const IID_SERVERS_MAX: usize = 16;

/// Most targets of integers over UDP.
const UDP_TARGETS_MAX: usize = 16;
