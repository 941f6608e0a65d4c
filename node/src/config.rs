//! `pimesh.toml` becomes a [`Config`], every value legal.
//!
//! Nothing else reads the file. Every key has a default that suits two Pis on a kitchen table, and
//! [`EXAMPLE`] shows all of them.

pub mod gateway;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

#[cfg(feature = "disk")]
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    proto::mesh::{Address, NodeName},
    state::Settings,
};

/// Every key with its default and what it means.
pub const EXAMPLE: &str = include_str!("pimesh.example.toml");

/// Longest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Its name in the home folder.
pub const FILE_NAME: &str = "pimesh.toml";

/// The configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name this node would like to have; the host name if `None`.
    pub name: Option<NodeName>,
    /// The network.
    pub network: Network,
    /// What the state uses.
    pub settings: Settings,
    /// Configured addresses of peers, each ending in `/p2p/` and a peer id.
    pub peers: Vec<String>,
    /// Size of a new RSA key, in bits.
    pub rsa_bits: usize,
    /// A file with the passphrase of the key files.
    pub passphrase_file: Option<PathBuf>,
    /// The control socket.
    pub control: Control,
    /// The doors for older clients.
    pub gateways: gateway::Gateways,
    /// NTP servers that tell the time, each `HOST` or `HOST:PORT`; the system clock does if none.
    pub ntp: Vec<String>,
    /// The log.
    pub log: Log,
}

/// The `[network]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Further addresses to tell others.
    pub announce: Vec<Address>,
    /// Whether to look for peers on the LAN.
    pub mdns: bool,
    /// Most connections.
    pub connections_max: u32,
    /// Most memory in use, in bytes, at which connections are still taken.
    pub memory_bytes_max: usize,
}

/// The `[control]` section.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Control {
    /// The unix socket; `control.sock` in the home folder if `None`.
    pub socket: Option<PathBuf>,
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

/// Returns every key with its section, as the example names them.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches("# ").trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

/// Refuses keys that do not exist, with their line and the nearest one that does.
fn check_keys(text: &str) -> Result<(), ConfigError> {
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::Toml(e.to_string().trim_end().to_owned()))?;
    let known = keys();
    let Some(key) = leaves(&table).find(|key| !known.contains(key)) else {
        return Ok(());
    };
    let likeness = |known: &&String| (strsim::jaro_winkler(known, &key) * 1e6) as u64;
    let nearest = known
        .iter()
        .max_by_key(likeness)
        .filter(|n| likeness(n) > 800_000);
    Err(ConfigError::UnknownKey {
        line: line_of(text, &key),
        nearest: nearest.cloned(),
        key,
    })
}

/// Returns the keys in a table and in the tables within it, each with its section.
fn leaves(table: &toml::Table) -> impl Iterator<Item = String> {
    let mut waiting: Vec<(String, &toml::Value)> = table
        .iter()
        .map(|(key, value)| (key.clone(), value))
        .collect();
    std::iter::from_fn(move || {
        loop {
            match waiting.pop()? {
                (section, toml::Value::Table(table)) => {
                    let inner = table.iter();
                    waiting.extend(inner.map(|(key, value)| (format!("{section}.{key}"), value)));
                }
                (key, _) => return Some(key),
            }
        }
    })
}

fn line_of(text: &str, key: &str) -> usize {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut current = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            header.trim().clone_into(&mut current);
        } else if current == section
            && line
                .split_once('=')
                .is_some_and(|(key, _)| key.trim() == name)
        {
            return number;
        }
    }
    1
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

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct NodeSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct NetworkSection {
    listen: Vec<String>,
    announce: Vec<String>,
    peers: Vec<String>,
    mdns: bool,
    connections_max: u32,
    memory_max: Size,
}

impl Default for NetworkSection {
    fn default() -> Self {
        let listen = [
            "/ip4/0.0.0.0/udp/4630/quic-v1",
            "/ip4/0.0.0.0/tcp/4630",
            "/ip6/::/udp/4630/quic-v1",
            "/ip6/::/tcp/4630",
        ];
        Self {
            listen: listen.map(str::to_owned).to_vec(),
            announce: Vec::new(),
            peers: Vec::new(),
            mdns: true,
            connections_max: 512,
            memory_max: Size(256 << 20),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct MessagesSection {
    expiry: Span,
    outbox_count_max: usize,
    outbox_size_max: Size,
    history_age_max: Span,
    history_size_max: Size,
}

impl Default for MessagesSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            expiry: Span(settings.expiry),
            outbox_count_max: settings.outbox_count_max,
            outbox_size_max: Size(settings.outbox_bytes_max as u64),
            history_age_max: Span(settings.history_age_max),
            history_size_max: Size(settings.history_bytes_max),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct IntegersSection {
    ttl: Span,
    budget_per_second: u32,
    budget_burst: u32,
}

impl Default for IntegersSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            ttl: Span(settings.integer_ttl),
            budget_per_second: settings.budget_per_second,
            budget_burst: settings.budget_burst,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct IdentitySection {
    rsa_bits: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase_file: Option<PathBuf>,
}

impl Default for IdentitySection {
    fn default() -> Self {
        Self {
            rsa_bits: 3072,
            passphrase_file: None,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ControlSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ClockSection {
    ntp: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct LogSection {
    level: String,
    format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl File {
    fn into_config(self) -> Result<Config, ConfigError> {
        const MINUTE: Duration = Duration::from_secs(60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let name = self.node.name.map(|name| {
            let expected = "1 to 63 letters, digits, `-`, `_` and `.`, and no reserved word";
            name.parse()
                .map_err(|_| value("node.name", expected, &name))
        });
        let Span(expiry) = self.messages.expiry;
        if expiry < MINUTE || expiry > 30 * DAY {
            return Err(value(
                "messages.expiry",
                "1min to 30d",
                format_args!("{expiry:?}"),
            ));
        }
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
        for peer in &self.network.peers {
            if !peer.starts_with('/') || !peer.contains("/p2p/") {
                return Err(value(
                    "network.peers",
                    "a multiaddr that ends in `/p2p/…`",
                    peer,
                ));
            }
        }
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
                peers: Vec::new(),
                letters: gateways.syft.limits.letters,
                servers: gateways
                    .syft_servers
                    .iter()
                    .map(|server| server.name.clone())
                    .collect(),
            },
            peers: self.network.peers,
            rsa_bits: self.identity.rsa_bits,
            passphrase_file: self.identity.passphrase_file,
            control: Control {
                socket: self.control.socket,
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

/// A duration as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self).ok_or_else(|| {
            format!("`{text}` is no duration; write for example \"30s\", \"15min\" or \"7d\"")
        })
    }
}

impl From<Span> for String {
    fn from(Span(span): Span) -> Self {
        let ms = span.as_millis();
        let unit = SPANS
            .iter()
            .rev()
            .find(|(_, of)| ms.is_multiple_of(u128::from(*of)));
        let (unit, of) = unit.unwrap_or(&SPANS[0]);
        format!("{}{unit}", ms / u128::from(*of))
    }
}

/// The units of durations, in milliseconds.
const SPANS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration as people write it: a number and `ms`, `s`, `min`, `h` or `d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit = if unit == "m" { "min" } else { unit };
    let (_, millis) = *SPANS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A size as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Size(u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let scale = |(number, unit): (u64, &str)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift)
        };
        split_unit(&text).and_then(scale).map(Self).ok_or_else(|| {
            format!("`{text}` is no size; write for example \"64 KiB\" or \"256 MiB\"")
        })
    }
}

impl From<Size> for String {
    fn from(Size(bytes): Size) -> Self {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let fits = |(_, shift): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
        let (unit, shift) = units.into_iter().find(fits).unwrap_or(("B", 0));
        format!("{} {unit}", bytes >> shift)
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let shown: String = EXAMPLE
            .lines()
            .filter(|line| !line.starts_with("## "))
            .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)))
            .collect();
        let mut parsed = Config::parse(&shown).expect("the example is legal");
        assert_eq!(
            parsed.name.take().map(String::from),
            Some("pi-1".to_owned())
        );
        assert!(parsed.passphrase_file.take().is_some());
        assert!(parsed.control.socket.take().is_some() && parsed.control.tcp.take().is_some());
        let iid = &mut parsed.gateways.iid;
        assert!(iid.listen_only.take().is_some() && iid.claims.take().is_some());
        assert!(iid.rsa_keys.take().is_some() && iid.password_sha256.take().is_some());
        assert!(iid.letters.take().is_some() && iid.tls.take().is_some());
        assert!(iid.udp_in.take().is_some() && iid.udp_in_index.take().is_some());
        assert!(parsed.gateways.p2sn.deliver_to.take().is_some());

        assert_eq!(parsed, Config::default());
        assert_eq!(keys().len(), 70);
    }

    #[test]
    fn what_is_in_force_reads_as_the_configuration_it_came_from() {
        let text = "[node]\nname = \"pi-1\"\n[messages]\nexpiry = \"90s\"\n\
                    history_size_max = \"1500 B\"\n[control]\ntcp = \"127.0.0.1:4631\"\n";

        let shown = in_force(text).expect("legal").to_string();

        assert_eq!(Config::parse(&shown), Config::parse(text));
        for line in [
            r#"expiry = "90s""#,
            r#"history_size_max = "1500 B""#,
            "mdns = true",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        let defaults = in_force("").expect("legal").to_string();
        for line in [
            r#"expiry = "7d""#,
            r#"memory_max = "256 MiB""#,
            r#"ttl = "10s""#,
        ] {
            assert!(defaults.contains(line), "{defaults}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
        let error = Config::parse("[network]\nmdns = true\nlissten = []\n").expect_err("refused");

        assert_eq!(
            error.to_string(),
            "line 3: there is no key `network.lissten`; did you mean `network.listen`?"
        );
        assert!(matches!(
            Config::parse("x = 1"),
            Err(ConfigError::UnknownKey { line: 1, .. })
        ));
    }

    #[test]
    fn values_out_of_range_are_named_with_what_they_may_be() {
        for (text, message) in [
            (
                "[messages]\nexpiry = \"31d\"",
                "`messages.expiry` is 1min to 30d, got `2678400s`",
            ),
            (
                "[identity]\nrsa_bits = 1024",
                "`identity.rsa_bits` is 2048, 3072 or 4096, got `1024`",
            ),
            (
                "[control]\ntcp = \"0.0.0.0:1\"",
                "`control.tcp` is a loopback address with a port, got `0.0.0.0:1`",
            ),
        ] {
            assert_eq!(Config::parse(text).expect_err(text).to_string(), message);
        }
        assert!(Config::parse("[messages]\nexpiry = 7").is_err());
        assert!(Config::parse("[messages]\nexpiry = \"soon\"").is_err());
    }

    #[test]
    fn a_file_that_is_all_brackets_is_refused() {
        let brackets = "[".repeat(FILE_BYTES_MAX as usize);

        assert!(Config::parse(&brackets).is_err());
        assert!(Config::parse(&format!("a = {brackets}")).is_err());
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("200 ms"), Some(Duration::from_millis(200)));
        assert_eq!(parse_duration("15min"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("7"), None);
        assert_eq!(Size::try_from("4 MiB".to_owned()), Ok(Size(4_194_304)));
        assert!(Size::try_from("4 MB".to_owned()).is_err());
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzz::{bytes_of, fuzz};

    #[test]
    fn a_configuration_is_legal_or_an_error_that_says_something() {
        let shown = EXAMPLE.replace("\n# ", "\n");
        let corpus = bytes_of([
            &shown,
            "[network]\nlissten = []",
            "[network]\nconnections_max = 65537",
            "[messages]\nexpiry = \"31d\"\nhistory_age_max = \"18446744073709551615ms\"",
            "[messages]\noutbox_count_max = 0",
            "[integers]\nttl = \"601s\"",
            "[control]\ntcp = \"[::1]:0\"",
            "[control]\ntcp = \"0.0.0.0:0\"",
            "node.name = \"\\u00e9\"",
            &format!("a = {}", "[".repeat(200)),
        ]);
        fuzz(bolero::check!(), &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let lines = text.lines().count().max(1);
            match Config::parse(&text) {
                Ok(config) => {
                    let hours = |d: Duration| d.as_secs_f64() / 3600.0;
                    let settings = &config.settings;
                    assert!((1.0 / 60.0..=720.0).contains(&hours(settings.expiry)));
                    assert!((1..=600_000).contains(&settings.integer_ttl.as_millis()));
                    assert!((1..=1_000_000).contains(&settings.outbox_count_max));
                    assert!((4..=65_536).contains(&config.network.connections_max));
                    assert!(matches!(config.rsa_bits, 2048 | 3072 | 4096));
                    assert!(config.control.tcp.is_none_or(|tcp| tcp.ip().is_loopback()));
                    assert!(config.peers.iter().all(|peer| peer.contains("/p2p/")));
                    true
                }
                Err(ConfigError::UnknownKey { line, nearest, .. }) => {
                    assert!((1..=lines).contains(&line));
                    assert!(nearest.is_none_or(|nearest| keys().contains(&nearest)));
                    false
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            }
        });
    }

    #[test]
    fn a_duration_or_a_size_is_its_number_times_its_unit() {
        let durations = ["30s", "200 ms", "15min", "7d", "18446744073709551615ms"];
        let sizes = ["4 MiB", "0B", "17179869183GiB"];
        let corpus = bytes_of(durations.into_iter().chain(sizes));
        fuzz(bolero::check!(), &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            let number: Option<u128> = digits.parse().ok();
            let units = [1, 1000, 60_000, 3_600_000, 86_400_000];
            let shifts = [0, 10, 20, 30];
            let duration = parse_duration(&text).map(|duration| duration.as_millis());
            let size = Size::try_from(text.into_owned()).ok();
            let is = |read: u128, unit: u128| number.is_some_and(|n| n * unit == read);
            assert!(duration.is_none_or(|ms| units.iter().any(|unit| is(ms, *unit))));
            assert!(size.is_none_or(|s| shifts.iter().any(|s2| is(s.0.into(), 1 << s2))));
            duration.is_some() || size.is_some()
        });
    }
}
