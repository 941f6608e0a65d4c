//! `pimesh.toml` becomes a [`Config`], every value legal.
//!
//! Nothing else reads the file. Every key has a default that suits two Pis on a kitchen table. It is
//! defined in one place (`section.rs`), and [`example`] shows all of them.

pub mod certificate;
#[cfg(test)]
mod fuzz;
pub mod gateway;
mod keys;
mod section;
#[cfg(test)]
mod tests;
pub mod unencrypted;
mod units;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

#[cfg(feature = "disk")]
use std::path::Path;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use self::{
    keys::check_keys,
    section::section,
    units::{Size, Span},
};
pub use self::{
    keys::{example, keys},
    units::parse_duration,
};
use crate::{
    proto::mesh::{Address, NodeName, parse_peer},
    state::{Expiry, Settings},
};

/// Longest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Its name in the home folder.
pub const FILE_NAME: &str = "pimesh.toml";

/// The configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The name this node would like to have; the host name if `None`.
    pub name: Option<NodeName>,
    /// The network.
    pub network: Network,
    /// What the state uses.
    pub settings: Settings,
    /// Size of a new RSA key, in bits.
    pub rsa_bits: usize,
    /// A file with the passphrase of the key files.
    pub passphrase_file: Option<PathBuf>,
    /// The control socket.
    pub control: Control,
    /// The gateways for older clients.
    pub gateways: gateway::Gateways,
    /// NTP servers that tell the time, each `HOST` or `HOST:PORT`; the system clock does if none.
    pub ntp: Vec<String>,
    /// The log.
    pub log: Log,
}

/// The `[network]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Further addresses to tell others.
    pub announce: Vec<Address>,
    /// Whether to look for peers on the LAN.
    pub mdns: bool,
    /// Most open connections.
    pub connections_max: u32,
    /// Most memory in use, in bytes, at which connections are still taken.
    pub memory_bytes_max: usize,
}

/// The `[control]` section.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Control {
    /// The unix socket; `control.sock` in the home folder if `None`.
    pub socket: Option<PathBuf>,
    /// The group whose members may use the unix socket, too, by its name or number.
    pub socket_group: Option<String>,
    /// A loopback TCP address that serves the same, with a bearer token.
    pub tcp: Option<SocketAddr>,
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged, as a filter of `tracing`.
    pub level: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the configuration in a home folder is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("could not read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it says is not legal.
    #[error("{path} is not legal")]
    Illegal {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
}

/// Why a configuration is not legal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is no TOML, or a value has the wrong type.
    #[error("{0}")]
    Toml(String),
    /// A key does not exist.
    #[error("line {line}: there is no key `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where.
        line: usize,
        /// The key with its section.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value is out of range.
    #[error("`{key}` is {expected}, got `{found}`")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("").expect("the defaults are legal, as a test shows")
    }
}

impl Config {
    /// Reads the configuration in a home folder; without a file, the defaults.
    ///
    /// # Errors
    /// Returns why it is not taken.
    #[cfg(feature = "disk")]
    pub fn load(home: &Path) -> Result<Self, LoadError> {
        let path = home.join(FILE_NAME);
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(LoadError::Read { path, source }),
        };
        Self::parse(&text).map_err(|source| LoadError::Illegal { path, source })
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// Returns the first thing that is not legal.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read(text)?.into_config()
    }
}

/// Returns the text of a configuration file.
///
/// # Errors
/// Returns why it cannot be read, or that it is too long.
#[cfg(feature = "disk")]
pub fn read_file(path: &Path) -> io::Result<String> {
    crate::files::read_bounded(path, FILE_BYTES_MAX)
}

/// Returns what a configuration sets, and the defaults of what it does not set, as it would stand
/// in `pimesh.toml`.
///
/// # Errors
/// See [`Config::parse`].
pub fn in_force(text: &str) -> Result<toml::Table, ConfigError> {
    Config::parse(text)?;
    toml::Table::try_from(read(text)?).map_err(|e| ConfigError::Toml(e.to_string()))
}

fn read(text: &str) -> Result<File, ConfigError> {
    check_keys(text)?;
    toml::from_str(text).map_err(|e| ConfigError::Toml(e.to_string()))
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    node: NodeSection,
    network: NetworkSection,
    messages: MessagesSection,
    integers: IntegersSection,
    identity: IdentitySection,
    control: ControlSection,
    gateway: gateway::Section,
    clock: ClockSection,
    log: LogSection,
}

section! {
    struct NodeSection {
        /// The name this node would like to have in the mesh. Default: the host name.
        name: Option<String> = None, r#""pi-1""#;
    }
}

section! {
    struct NetworkSection {
        /// Where to listen, as multiaddrs. Port 0 takes any free port.
        listen: Vec<String> = [
            "/ip4/0.0.0.0/udp/4630/quic-v1",
            "/ip4/0.0.0.0/tcp/4630",
            "/ip6/::/udp/4630/quic-v1",
            "/ip6/::/tcp/4630",
        ]
        .map(str::to_owned)
        .to_vec();
        /// Further addresses to tell the others, before those of the interfaces; for example of a
        /// forwarded port.
        announce: Vec<String> = Vec::new();
        /// Addresses of peers outside the LAN; each ends in `/p2p/` and the peer id.
        peers: Vec<String> = Vec::new();
        /// Whether to look for peers on the LAN.
        mdns: bool = true;
        /// Most open connections with peers. Those without a handshake have a limit of their own.
        connections_max: u32 = 512;
        /// Memory in use at which connections of strangers are refused. Members are never refused
        /// for it.
        memory_max: Size = Size(256 << 20);
    }
}

section! {
    struct MessagesSection {
        /// How long a message is kept trying: 1min to 30d.
        expiry: Span = Span(Settings::default().expiry.time());
        /// Most messages in the outbox, and their most bytes of text.
        outbox_count_max: usize = Settings::default().outbox_count_max;
        outbox_size_max: Size = Size(Settings::default().outbox_bytes_max as u64);
        /// How long, and how much, history is kept: texts, and 256 bytes for each message; at most
        /// half of the disk. Beyond it the oldest messages of the sender that has most go first.
        /// What waits in the outbox is kept in any case. One sender may bring a quarter of it in a
        /// day; more is refused as `mailbox_full`.
        history_age_max: Span = Span(Settings::default().history_age_max);
        history_size_max: Size = Size(Settings::default().history_bytes_max);
    }
}

section! {
    struct IntegersSection {
        /// How long an integer is worth delivering: 1ms to 10min.
        ttl: Span = Span(Settings::default().integer_ttl);
        /// Integers that one sender may send in a second, steadily (0: no limit), and at once.
        budget_per_second: u32 = Settings::default().budget_per_second;
        budget_burst: u32 = Settings::default().budget_burst;
    }
}

section! {
    struct IdentitySection {
        /// Size of a new RSA key (P2SN): 2048, 3072 or 4096 bits.
        rsa_bits: usize = 3072;
        /// A file with the passphrase of the key files, readable by its owner only.
        passphrase_file: Option<PathBuf> = None, r#""/etc/pimesh/passphrase""#;
    }
}

section! {
    struct ControlSection {
        /// The unix socket of the commands. Default: `control.sock` in the home folder.
        socket: Option<PathBuf> = None, r#""/run/pimesh/control.sock""#;
        /// A group whose members may use the socket, too. The folder of the socket has to let them
        /// in; the home folder does not.
        socket_group: Option<String> = None, r#""pimesh""#;
        /// Serve the same on loopback, with the bearer token in `control.token` in the home folder.
        tcp: Option<String> = None, r#""127.0.0.1:4631""#;
    }
}

section! {
    struct ClockSection {
        /// NTP servers, such as ["pool.ntp.org", "pi-1.local:123"]: the dates that this node makes
        /// follow them; the system's clock is not set. Without any, the system's clock is right.
        ntp: Vec<String> = Vec::new();
    }
}

section! {
    struct LogSection {
        /// error, warn, info, debug or trace; or a filter such as "info,pimesh_node=debug".
        level: String = "info".to_owned();
        /// text or json.
        format: LogFormat = LogFormat::Text;
    }
}

impl File {
    fn into_config(self) -> Result<Config, ConfigError> {
        const MINUTE: Duration = Duration::from_secs(60);
        let name = self.node.name.map(|name| {
            let expected = "1 to 63 letters, digits, `-`, `_` and `.`, without `-` in \
                            front, and no reserved word";
            NodeName::chosen(&name).map_err(|_| value("node.name", expected, &name))
        });
        let Span(found) = self.messages.expiry;
        let expiry = Expiry::new(found).ok().filter(|_| found >= MINUTE);
        let Some(expiry) = expiry else {
            let found = format_args!("{found:?}");
            return Err(value("messages.expiry", "1min to 30d", found));
        };
        let Span(integer_ttl) = self.integers.ttl;
        if integer_ttl < Duration::from_millis(1) || integer_ttl > 10 * MINUTE {
            return Err(value(
                "integers.ttl",
                "1ms to 10min",
                format_args!("{integer_ttl:?}"),
            ));
        }
        if ![2048, 3072, 4096].contains(&self.identity.rsa_bits) {
            let found = self.identity.rsa_bits;
            return Err(value("identity.rsa_bits", "2048, 3072 or 4096", found));
        }
        let count = self.messages.outbox_count_max;
        if !(1..=1_000_000).contains(&count) {
            return Err(value("messages.outbox_count_max", "1 to 1000000", count));
        }
        if !(4..=65_536).contains(&self.network.connections_max) {
            let found = self.network.connections_max;
            return Err(value("network.connections_max", "4 to 65536", found));
        }
        let tcp = self.control.tcp.map(|text| {
            let address = text
                .parse::<SocketAddr>()
                .ok()
                .filter(|a| a.ip().is_loopback());
            address.ok_or_else(|| value("control.tcp", "a loopback address with a port", text))
        });
        let gateways = self.gateway.into_gateways()?;
        Ok(Config {
            name: name.transpose()?,
            network: Network {
                listen: addresses("network.listen", self.network.listen)?,
                announce: addresses("network.announce", self.network.announce)?,
                mdns: self.network.mdns,
                connections_max: self.network.connections_max,
                memory_bytes_max: usize::try_from(self.network.memory_max.0).unwrap_or(usize::MAX),
            },
            settings: Settings {
                expiry,
                outbox_count_max: count,
                outbox_bytes_max: usize::try_from(self.messages.outbox_size_max.0)
                    .unwrap_or(usize::MAX),
                history_age_max: self.messages.history_age_max.0,
                history_bytes_max: self.messages.history_size_max.0,
                integer_ttl,
                budget_per_second: self.integers.budget_per_second,
                budget_burst: self.integers.budget_burst,
                peers: peers(&self.network.peers)?,
                letters: gateways.syft.limits.letters,
                servers: gateways
                    .syft_servers
                    .iter()
                    .map(|server| server.name.clone())
                    .collect(),
            },
            rsa_bits: self.identity.rsa_bits,
            passphrase_file: self.identity.passphrase_file,
            control: Control {
                socket: self.control.socket,
                socket_group: self.control.socket_group,
                tcp: tcp.transpose()?,
            },
            gateways,
            ntp: ntp_servers(self.clock.ntp)?,
            log: Log {
                level: self.log.level,
                format: self.log.format,
            },
        })
    }
}

/// Reads addresses of peers, each ending in `/p2p/` and a peer id.
fn peers(texts: &[String]) -> Result<Vec<(PeerId, Address)>, ConfigError> {
    let read = |text: &String| {
        let (address, peer) = text.rsplit_once("/p2p/")?;
        Some((parse_peer(peer)?, Address::new(address)?))
    };
    let expected = "a multiaddr that ends in `/p2p/` and a peer id";
    let peer = |text| read(text).ok_or_else(|| value("network.peers", expected, text));
    texts.iter().map(peer).collect()
}

/// Most NTP servers.
const NTP_SERVERS_MAX: usize = 8;

fn ntp_servers(servers: Vec<String>) -> Result<Vec<String>, ConfigError> {
    if servers.len() > NTP_SERVERS_MAX {
        return Err(value("clock.ntp", "8 servers at most", servers.len()));
    }
    let is_host = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    match servers.iter().find(|server| !is_host(server)) {
        Some(server) => Err(value(
            "clock.ntp",
            "a list of host names or addresses",
            server,
        )),
        None => Ok(servers),
    }
}

fn value(key: &'static str, expected: &'static str, found: impl fmt::Display) -> ConfigError {
    ConfigError::Value {
        key,
        expected,
        found: found.to_string(),
    }
}

fn addresses(key: &'static str, texts: Vec<String>) -> Result<Vec<Address>, ConfigError> {
    let read = |text: String| {
        let address = Address::new(text.clone()).filter(|_| text.starts_with('/'));
        address.ok_or_else(|| value(key, "a list of multiaddrs", text))
    };
    texts.into_iter().map(read).collect()
}
