//! The `[gateway.…]` sections: which gateways for older clients are open, where, and how far.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Size, Span, certificate::CertificateSha256, value};
use crate::{
    proto::{
        iid::{Index, budget::Limits},
        mesh::NodeName,
        p2sn::KeyPolicy,
        server::{KeyOf, ServerUrl, key_of, share_a_key},
        syft::UserId,
    },
    state::LetterLimits,
};

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

/// A Syft server that this node is a client of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyftServer {
    /// Where it is: `http://` or `https://`.
    pub url: ServerUrl,
    /// The user that this node is there.
    pub user: UserId,
    /// What it is called here: its users are `user@name`.
    pub name: NodeName,
    /// The certificate that it has; one that this system trusts if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<CertificateSha256>,
    /// Which key this node has there; the one of `url` if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_of: Option<KeyOf>,
    /// Whether the server's messages to all come into the inbox.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broadcasts: bool,
}

impl SyftServer {
    /// Returns which key this node has there.
    #[must_use]
    pub fn key(&self) -> KeyOf {
        key_of(self.key_of.as_ref(), &self.url)
    }
}

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

/// The gateway for P2SN peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P2sn {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The member that gets the messages; this node if `None`.
    pub deliver_to: Option<String>,
    /// Least size of a peer's RSA key, in bits.
    pub min_key_bits: usize,
    /// Whether a client is refused whose key is not pinned to its address. Without it, each key
    /// is pinned beside the others: for programs that make a new key at each start.
    pub pin_clients: bool,
    /// How long a key exchange may take.
    pub exchange_time: Duration,
    /// How long a client may be silent between messages.
    pub idle_time: Duration,
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
}

/// The gateway for Syft agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syft {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether and how the gateway speaks TLS.
    pub tls: Tls,
    /// Whether anybody may register.
    pub open_registration: bool,
    /// Pages of these origins may call the gateway; none if empty. `*` stands for all.
    pub cors_origins: Vec<String>,
    /// Further names under which clients look for the gateway, if it does not speak TLS.
    pub hosts: Vec<String>,
    /// What a client may do.
    pub limits: SyftLimits,
}

/// What a client of the Syft gateway may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyftLimits {
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
    /// Frames that a user may send in a second, steadily.
    pub frames_per_second: u32,
    /// Frames that he may send at once.
    pub frames_burst: u32,
    /// Registrations from one address that are let through at once.
    pub registrations_burst: u32,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// How long after that it is still good for `/ws`: clients never log in again by themselves.
    pub token_grace: Duration,
    /// What is kept for a user who is away.
    pub letters: LetterLimits,
}

/// Whether and how a gateway speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// In clear; on loopback only.
    Off,
    /// With a certificate that the node makes for itself and keeps.
    SelfSigned,
    /// With these files.
    Files(TlsFiles),
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Section {
    iid: IidSection,
    p2sn: P2snSection,
    syft: SyftSection,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct IidSection {
    enabled: bool,
    listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_only: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rsa_keys: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_sha256: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    letters: Option<PathBuf>,
    rsa_bits_min: usize,
    guests: bool,
    all_indices: bool,
    origins: Vec<String>,
    udp_out: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_in: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_in_index: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    servers: Vec<IidServer>,
    limits: IidLimitsSection,
}

impl Default for IidSection {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: loopback(4615),
            listen_only: None,
            claims: None,
            rsa_keys: None,
            password_sha256: None,
            letters: None,
            rsa_bits_min: 1024,
            guests: false,
            all_indices: false,
            origins: vec!["*".to_owned()],
            udp_out: vec![loopback(3615), loopback(4625)],
            udp_in: None,
            udp_in_index: None,
            tls_certificate: None,
            tls_key: None,
            servers: Vec::new(),
            limits: IidLimitsSection::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct IidLimitsSection {
    sign_in_time: Span,
    connections_max: usize,
    bytes_per_minute: u64,
    bytes_per_hour: u64,
    bytes_per_day: u64,
    bytes_per_month: u64,
}

impl Default for IidLimitsSection {
    fn default() -> Self {
        let budget = Limits::default();
        Self {
            sign_in_time: Span(Duration::from_secs(120)),
            connections_max: 4096,
            bytes_per_minute: budget.minute,
            bytes_per_hour: budget.hour,
            bytes_per_day: budget.day,
            bytes_per_month: budget.month,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct P2snSection {
    enabled: bool,
    listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_to: Option<String>,
    min_key_bits: usize,
    pin_clients: bool,
    exchange_time: Span,
    idle_time: Span,
    connections_max: usize,
    connections_per_address_max: usize,
}

impl Default for P2snSection {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: loopback(5050),
            deliver_to: None,
            min_key_bits: KeyPolicy::default().bits_min,
            pin_clients: true,
            exchange_time: Span(Duration::from_secs(10)),
            idle_time: Span(Duration::from_secs(300)),
            connections_max: 256,
            connections_per_address_max: 32,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct SyftSection {
    enabled: bool,
    listen: SocketAddr,
    tls: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    open_registration: bool,
    cors_origins: Vec<String>,
    hosts: Vec<String>,
    servers: Vec<SyftServer>,
    limits: SyftLimitsSection,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct SyftLimitsSection {
    connections_max: usize,
    connections_per_address_max: usize,
    frames_per_second: u32,
    frames_burst: u32,
    registrations_burst: u32,
    token_lifetime: Span,
    token_grace: Span,
    queue_count_max: usize,
    queue_size_max: Size,
    queue_age_max: Span,
}

impl Default for SyftLimitsSection {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let letters = LetterLimits::default();
        Self {
            connections_max: 4096,
            connections_per_address_max: 2048,
            frames_per_second: 50,
            frames_burst: 100,
            registrations_burst: 64,
            token_lifetime: Span(DAY),
            token_grace: Span(30 * DAY),
            queue_count_max: letters.count_max,
            queue_size_max: Size(letters.bytes_max as u64),
            queue_age_max: Span(letters.age_max),
        }
    }
}

impl Default for SyftSection {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: loopback(8765),
            tls: "off".to_owned(),
            tls_certificate: None,
            tls_key: None,
            open_registration: true,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            servers: Vec::new(),
            limits: SyftLimitsSection::default(),
        }
    }
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

impl IidSection {
    fn checked_servers(&self) -> Result<Vec<IidServer>, ConfigError> {
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

    fn into_iid(self) -> Result<Iid, ConfigError> {
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

impl P2snSection {
    fn into_p2sn(self) -> Result<P2sn, ConfigError> {
        if !(1024..=8192).contains(&self.min_key_bits) {
            let found = self.min_key_bits;
            return Err(value("gateway.p2sn.min_key_bits", "1024 to 8192", found));
        }
        let (Span(exchange_time), Span(idle_time)) = (self.exchange_time, self.idle_time);
        if !(1..=60).contains(&exchange_time.as_secs()) {
            let found = format_args!("{exchange_time:?}");
            return Err(value("gateway.p2sn.exchange_time", "1s to 1m", found));
        }
        if !(1..=86_400).contains(&idle_time.as_secs()) {
            let found = format_args!("{idle_time:?}");
            return Err(value("gateway.p2sn.idle_time", "1s to 1d", found));
        }
        let all = self.connections_max;
        if !(1..=4096).contains(&all) {
            return Err(value("gateway.p2sn.connections_max", "1 to 4096", all));
        }
        let each = self.connections_per_address_max;
        if !(1..=4096).contains(&each) {
            let key = "gateway.p2sn.connections_per_address_max";
            return Err(value(key, "1 to 4096", each));
        }
        Ok(P2sn {
            enabled: self.enabled,
            listen: self.listen,
            deliver_to: self.deliver_to,
            min_key_bits: self.min_key_bits,
            pin_clients: self.pin_clients,
            exchange_time,
            idle_time,
            connections_max: all,
            connections_per_address_max: each,
        })
    }
}

/// Most Syft servers that this node is a client of.
const SYFT_SERVERS_MAX: usize = 16;

impl SyftSection {
    fn checked_servers(&self) -> Result<Vec<SyftServer>, ConfigError> {
        const KEY: &str = "gateway.syft.servers";
        let is_syft = |url: &ServerUrl| ["http", "https"].contains(&url.scheme());
        if let Some(server) = self.servers.iter().find(|server| !is_syft(&server.url)) {
            let expected = "a list of servers, each with a `url` that begins with http:// or \
                            https://, a `user` and a `name`";
            return Err(value(KEY, expected, &server.url));
        }
        let is_plain = |s: &&SyftServer| s.fingerprint.is_some() && !s.url.is_secure();
        if let Some(server) = self.servers.iter().find(is_plain) {
            let expected = "a `fingerprint` only where the `url` begins with https://";
            return Err(value(KEY, expected, &server.url));
        }
        if self.servers.len() > SYFT_SERVERS_MAX {
            return Err(value(KEY, "16 servers at most", self.servers.len()));
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(server) = self.servers.iter().find(|s| !names.insert(s.name.as_str())) {
            return Err(value(KEY, "names of which each stands once", &server.name));
        }
        let keys = self.servers.iter();
        check_keys(KEY, keys.map(|server| (&server.url, server.key())))?;
        Ok(self.servers.clone())
    }

    fn into_syft(self) -> Result<Syft, ConfigError> {
        let files = tls_files("gateway.syft.tls_key", self.tls_certificate, self.tls_key)?;
        let expected =
            "\"off\", \"self-signed\" or \"files\" (with `tls_certificate` and `tls_key`)";
        let tls = match (self.tls.as_str(), files) {
            ("off", _) => Tls::Off,
            ("self-signed", _) => Tls::SelfSigned,
            ("files", Some(files)) => Tls::Files(files),
            _ => return Err(value("gateway.syft.tls", expected, self.tls)),
        };
        if tls == Tls::Off && !self.listen.ip().is_loopback() {
            let expected = "a loopback address as long as `tls` is \"off\"";
            return Err(value("gateway.syft.listen", expected, self.listen));
        }
        Ok(Syft {
            enabled: self.enabled,
            listen: self.listen,
            tls,
            open_registration: self.open_registration,
            cors_origins: self.cors_origins,
            hosts: self.hosts,
            limits: self.limits.into_limits()?,
        })
    }
}

impl SyftLimitsSection {
    fn into_limits(self) -> Result<SyftLimits, ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let within = |key, (least, most): (usize, usize), found: usize| {
            if (least..=most).contains(&found) {
                Ok(())
            } else {
                Err(value(key, "1 to 65536", found))
            }
        };
        within(
            "gateway.syft.limits.connections_max",
            (1, 65_536),
            self.connections_max,
        )?;
        within(
            "gateway.syft.limits.connections_per_address_max",
            (1, 65_536),
            self.connections_per_address_max,
        )?;
        if !(1..=65_536).contains(&self.registrations_burst) {
            let key = "gateway.syft.limits.registrations_burst";
            return Err(value(key, "1 to 65536", self.registrations_burst));
        }
        let rates = [self.frames_per_second, self.frames_burst];
        if !rates.iter().all(|rate| (1..=1_000_000).contains(rate)) {
            let found = format_args!("{rates:?}");
            let key = "gateway.syft.limits.frames_per_second";
            return Err(value(key, "1 to 1000000, as `frames_burst` is", found));
        }
        let Span(token_lifetime) = self.token_lifetime;
        if !(Duration::from_secs(1)..=3650 * DAY).contains(&token_lifetime) {
            let found = format_args!("{token_lifetime:?}");
            return Err(value(
                "gateway.syft.limits.token_lifetime",
                "1s to 3650d",
                found,
            ));
        }
        Ok(SyftLimits {
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            frames_per_second: self.frames_per_second,
            frames_burst: self.frames_burst,
            registrations_burst: self.registrations_burst,
            token_lifetime,
            token_grace: self.token_grace.0,
            letters: LetterLimits {
                count_max: self.queue_count_max,
                bytes_max: usize::try_from(self.queue_size_max.0).unwrap_or(usize::MAX),
                age_max: self.queue_age_max.0,
            },
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
