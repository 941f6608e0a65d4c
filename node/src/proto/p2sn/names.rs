//! What keys are pinned to, and what clients are called (`proto-specs/p2sn.md`, section 9).
//!
//! Nothing in here looks up a name or opens a socket.

use std::{fmt, net::IpAddr, str::FromStr};

use super::keys::Fingerprint;

/// The port of the published servers.
pub const PORT: u16 = 5050;

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Hexadecimal digits of a fingerprint in a client's name: 64 bits, too many to make a key that
/// fits a given name.
const NAME_DIGITS: usize = 16;

/// Where a key is pinned to: rule P2SN-PIN-ADDRESS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinAddress {
    /// A client, by the address that it connects from; its port is another one each time.
    Client(IpAddr),
    /// A server that we connect to, by the host as the owner wrote it, and its port.
    Server {
        /// The host's name or address, in lower case.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A text that is no address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `HOST` or `HOST:PORT`, with an IPv6 address in brackets")]
pub struct NoAddress;

impl PinAddress {
    /// Names a client. An IPv4 address that came through an IPv6 socket is the IPv4 address.
    #[must_use]
    pub const fn client(address: IpAddr) -> Self {
        Self::Client(address.to_canonical())
    }

    /// Reads the address of a server: `HOST:PORT`, or `HOST` with the usual port.
    ///
    /// # Errors
    /// Fails for a text that is neither.
    pub fn server(text: &str) -> Result<Self, NoAddress> {
        let (host, port) = match split_port(text) {
            Some((host, port)) => (host, port.parse().map_err(|_| NoAddress)?),
            None => (text, PORT),
        };
        let is_v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bracketed.unwrap_or(host) {
            bare if is_v6(bare) => format!("[{bare}]"),
            name if bracketed.is_none() && is_host_name(name) => name.to_owned(),
            _ => return Err(NoAddress),
        };
        if port == 0 {
            return Err(NoAddress);
        }
        let host = host.to_ascii_lowercase();
        Ok(Self::Server { host, port })
    }

    /// Returns what the client with this key at this address is called, if it is a client.
    #[must_use]
    pub fn client_name(&self, fingerprint: &Fingerprint) -> Option<String> {
        match self {
            Self::Client(_) => Some(format!("p2sn:{self}/{fingerprint:.NAME_DIGITS$}")),
            Self::Server { .. } => None,
        }
    }
}

/// Splits `host:port`. An IPv6 address without brackets has no port.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_bare_v6 = host.contains(':') && !host.ends_with(']');
    (!is_bare_v6).then_some((host, port))
}

fn is_host_name(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(is_letter)
}

impl fmt::Display for PinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(IpAddr::V4(address)) => address.fmt(f),
            Self::Client(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Server { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for PinAddress {
    type Err = NoAddress;

    /// Reads what [`fmt::Display`] writes: an IP address alone is a client's.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        match bare.unwrap_or(text).parse() {
            Ok(address) => Ok(Self::client(address)),
            Err(_) => Self::server(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Option<String> {
        PinAddress::server(text).ok().map(|a| a.to_string())
    }

    #[test]
    fn the_address_of_a_server_is_its_host_as_written_and_its_port() {
        assert_eq!(server("Example.org").as_deref(), Some("example.org:5050"));
        assert_eq!(server("pi-2:1").as_deref(), Some("pi-2:1"));
        assert_eq!(server("10.0.0.1:65535").as_deref(), Some("10.0.0.1:65535"));
        assert_eq!(server("[::1]:7").as_deref(), Some("[::1]:7"));
        assert_eq!(server("[::1]").as_deref(), Some("[::1]:5050"));
        assert_eq!(server("::1").as_deref(), Some("[::1]:5050"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "", ":1", "a:", "a:0", "a:65536", "a b:1", "[x]:1", "a/b", "[::1]x:1", "é:1",
        ] {
            assert_eq!(server(text), None, "{text}");
        }
        assert_eq!(server(&"a".repeat(254)), None);
    }

    #[test]
    fn an_address_reads_back_as_what_it_was() {
        for text in ["127.0.0.1", "[::1]", "127.0.0.1:5050", "[::1]:5050", "pi:7"] {
            let address: PinAddress = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(
            PinAddress::client("::ffff:10.0.0.1".parse().expect("an address")).to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_client_is_called_by_its_address_and_the_beginning_of_its_fingerprint() {
        let fingerprint = Fingerprint([0xab; 32]);
        let client: PinAddress = "10.0.0.7".parse().expect("an address");
        let server = PinAddress::server("10.0.0.7").expect("an address");
        assert_eq!(
            client.client_name(&fingerprint).as_deref(),
            Some("p2sn:10.0.0.7/abababababababab")
        );
        assert_eq!(server.client_name(&fingerprint), None);
    }
}
