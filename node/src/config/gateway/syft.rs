//! `[gateway.syft]`: the gateway for Syft agents, and Syft servers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Size, Span, TlsFiles, check_keys, loopback, tls_files, value};
use crate::{
    config::{
        certificate::CertificateSha256,
        section::{Key, section},
    },
    proto::{
        mesh::NodeName,
        server::{KeyOf, ServerUrl, key_of},
        syft::UserId,
    },
    state::LetterLimits,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

/// What a client of the Syft gateway may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyftLimits {
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
    /// Frames that a user may send in a second, steadily.
    pub frames_per_second: u32,
    /// Frames that a user may send at once.
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

/// Its sections of `pimesh.toml`.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    ("gateway.syft", SyftSection::KEYS),
    ("gateway.syft.limits", SyftLimitsSection::KEYS),
];

section! {
    pub(super) struct SyftSection {
        /// The gateway for Syft agents: `pimesh gateway enable syft`.
        enabled: bool = false;
        listen: SocketAddr = loopback(8765);
        /// "off" (on loopback only), "self-signed", or "files" with the two below.
        tls: String = "off".to_owned();
        tls_certificate: Option<PathBuf> = None, r#""syft/cert.pem""#;
        tls_key: Option<PathBuf> = None, r#""syft/key.pem""#;
        /// Whether anybody may register. If not: `pimesh gateway syft add`.
        open_registration: bool = true;
        /// Web pages that may call the gateway, such as ["https://app.example.org"]; ["*"] for all.
        cors_origins: Vec<String> = Vec::new();
        /// Further names under which clients look for this gateway, such as ["pi.example.org"],
        /// where a proxy stands before it. Others are refused as long as `tls` is "off": a
        /// stranger's name may lead here.
        hosts: Vec<String> = Vec::new();
        /// Syft servers that this node is a client of: `pimesh gateway syft connect` writes
        /// { url = "https://…", user = "kitchen", name = "hub" }, and as they are asked for
        /// `fingerprint`, `broadcasts = true` (take messages to all) and `key_of`, as for APIntIO
        /// servers.
        servers: Vec<SyftServer> = Vec::new();
        limits: SyftLimitsSection = SyftLimitsSection::default();
    }
}

section! {
    struct SyftLimitsSection {
        connections_max: usize = 4096;
        connections_per_address_max: usize = 2048;
        /// Frames that one connection may send in a second, steadily, and at once. 256 more wait.
        frames_per_second: u32 = 50;
        frames_burst: u32 = 100;
        /// Registrations from one address at once; after that, four a minute.
        registrations_burst: u32 = 64;
        /// How long a token is good, and how much longer for `/ws`: old clients never log in again.
        token_lifetime: Span = Span(DAY);
        token_grace: Span = Span(30 * DAY);
        /// What is kept for each user who is away: messages, their bytes, and how long.
        queue_count_max: usize = LetterLimits::default().count_max;
        queue_size_max: Size = Size(LetterLimits::default().bytes_max as u64);
        queue_age_max: Span = Span(LetterLimits::default().age_max);
    }
}

/// Most Syft servers that this node is a client of.
const SYFT_SERVERS_MAX: usize = 16;

impl SyftSection {
    pub(super) fn checked_servers(&self) -> Result<Vec<SyftServer>, ConfigError> {
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

    pub(super) fn into_syft(self) -> Result<Syft, ConfigError> {
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
