//! Servers of the older systems that a node is a client of: where one is, and which key the node
//! has there.
//!
//! The login of both systems is a signature over a random challenge that names no server. A server
//! could pass on the challenge of another one and log in there as the node, if the node had one key
//! for both. So the node has a key for each server, derived from one secret and the server's URL
//! (`proto-specs/syft.md`, section 14; `proto-specs/iid.md`, section 10).

use std::{fmt, str::FromStr};

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

/// The schemes of the older systems' servers.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// Longest URL of a server, in bytes.
const URL_BYTES_MAX: usize = 1024;

/// The word for one key at all servers in a configuration.
const SHARED: &str = "shared";

/// The URL of a server, with a host, without credentials, query and fragment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl(Url);

/// A text is not the URL of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a server: expected `https://host[:port][/path]`, or http, ws or wss")]
pub struct ServerUrlError;

impl ServerUrl {
    /// Returns the scheme: `http`, `https`, `ws` or `wss`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// Says whether the connection is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme(), "https" | "wss")
    }

    /// Returns the host; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port, also if the URL does not write it.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = if self.is_secure() { 443 } else { 80 };
        self.0.port().unwrap_or(default)
    }

    /// Returns the host and, if it is not the scheme's own, the port, as the `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Returns what precedes every path of the server: empty, or `/` and more.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    /// Returns the text that a key is derived from: scheme, host, port and path, each always
    /// there, in the one spelling of the WHATWG URL standard.
    #[must_use]
    pub fn canonical(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        let (scheme, port, prefix) = (self.scheme(), self.port(), self.prefix());
        format!("{scheme}://{host}:{port}{prefix}")
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        if text.len() > URL_BYTES_MAX || !text.contains("://") {
            return Err(ServerUrlError);
        }
        let url = Url::parse(text).map_err(|_| ServerUrlError)?;
        let is_plain = SCHEMES.contains(&url.scheme())
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        is_plain.then_some(Self(url)).ok_or(ServerUrlError)
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = ServerUrlError;

    fn try_from(text: String) -> Result<Self, ServerUrlError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.to_string()
    }
}

/// Writes the URL without a slash at its end.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

/// Which key a node has at a server, if it is not the one of the server's URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyOf {
    /// The secret itself, as in versions that had one key for all servers.
    Shared,
    /// The key of this URL, where the server was before.
    Url(ServerUrl),
}

/// A text names no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `shared`, or the URL that the server had before")]
pub struct KeyOfError;

impl FromStr for KeyOf {
    type Err = KeyOfError;

    fn from_str(text: &str) -> Result<Self, KeyOfError> {
        if text == SHARED {
            return Ok(Self::Shared);
        }
        text.parse().map(Self::Url).map_err(|_| KeyOfError)
    }
}

impl TryFrom<String> for KeyOf {
    type Error = KeyOfError;

    fn try_from(text: String) -> Result<Self, KeyOfError> {
        text.parse()
    }
}

impl From<KeyOf> for String {
    fn from(key_of: KeyOf) -> Self {
        key_of.to_string()
    }
}

impl fmt::Display for KeyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.pad(SHARED),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// Returns the key for a server whose `key_of` is this, or the one of its URL.
#[must_use]
pub fn key_of(given: Option<&KeyOf>, url: &ServerUrl) -> KeyOf {
    given.cloned().unwrap_or_else(|| KeyOf::Url(url.clone()))
}

/// Says whether a server could log in as this node at another one: two servers with one key.
#[must_use]
pub fn share_a_key((a, key_a): (&ServerUrl, &KeyOf), (b, key_b): (&ServerUrl, &KeyOf)) -> bool {
    let is_one_key = match (key_a, key_b) {
        (KeyOf::Shared, KeyOf::Shared) => true,
        (KeyOf::Url(a), KeyOf::Url(b)) => a.canonical() == b.canonical(),
        (KeyOf::Shared, KeyOf::Url(_)) | (KeyOf::Url(_), KeyOf::Shared) => false,
    };
    is_one_key && a.canonical() != b.canonical()
}

/// What keys are derived for; the labels are part of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An Ed25519 key at a Syft server.
    Syft,
    /// An Ethereum key at an APIntIO server.
    IidEthereum,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Syft => b"pimesh/syft-server-key/1",
            Self::IidEthereum => b"pimesh/iid-server-key/1",
        }
    }
}

/// Derives the secret for a server: HKDF-SHA256 (RFC 5869) with the label as salt and the
/// canonical URL as info.
#[must_use]
pub fn derive(secret: &[u8; 32], purpose: Purpose, url: &ServerUrl) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(purpose.label()), secret)
        .expand(url.canonical().as_bytes(), &mut *derived)
        .expect("32 bytes are fewer than HKDF-SHA256 gives");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().expect(text)
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (text, is_secure, host, port, authority, prefix) in [
            ("http://a.example", false, "a.example", 80, "a.example", ""),
            (
                "https://A.example/",
                true,
                "a.example",
                443,
                "a.example",
                "",
            ),
            (
                "https://a.example:8443",
                true,
                "a.example",
                8443,
                "a.example:8443",
                "",
            ),
            (
                "https://[::1]:8443/x/y/",
                true,
                "::1",
                8443,
                "[::1]:8443",
                "/x/y",
            ),
            ("ws://[0:0::1]", false, "::1", 80, "[::1]", ""),
        ] {
            let url = url(text);
            assert_eq!(
                (
                    url.is_secure(),
                    url.host(),
                    url.port(),
                    url.authority(),
                    url.prefix()
                ),
                (is_secure, host, port, authority, prefix),
                "{text}"
            );
        }
        for text in [
            "a.example",
            "a.example:80",
            "ftp://a.example",
            "http://",
            "http://a.example?x",
            "http://a.example#x",
            "http://me@a.example",
            "http://a.example:99999",
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(ServerUrlError), "{text}");
        }
    }

    #[test]
    fn one_server_has_one_spelling_and_two_servers_have_two() {
        let one = "https://syft.example.org:443";
        for text in [
            "https://syft.example.org",
            "https://syft.example.org/",
            "HTTPS://Syft.Example.ORG:443//",
        ] {
            assert_eq!(url(text).canonical(), one);
        }
        let others = [
            "http://syft.example.org",
            "https://syft.example.org:8443",
            "https://syft.example.org/b",
            "https://b.syft.example.org",
        ];
        for text in others {
            assert_ne!(url(text).canonical(), one);
        }
    }

    #[test]
    fn a_key_follows_from_secret_purpose_and_url_as_the_specification_says() {
        // Computed with Python's `hmac`, as RFC 5869 says.
        let secret = [7; 32];
        for (purpose, text, expected) in [
            (
                Purpose::Syft,
                "https://syft.example.org/",
                "6782f7a9067e0f0bc8837cdc684a7da565ac6c555c383afaa201aaefeac29645",
            ),
            (
                Purpose::IidEthereum,
                "ws://192.168.1.20:4615",
                "5f4cd538552990fc43bd17b70de368ae16265e2d92882547aaf1ac9283bcb9c0",
            ),
        ] {
            let derived = derive(&secret, purpose, &url(text));
            assert_eq!(hex::encode(*derived), expected);
        }
        let at = |text| derive(&secret, Purpose::Syft, &url(text));
        assert_ne!(*at("https://a.example"), *at("https://b.example"));
    }

    #[test]
    fn two_servers_with_one_key_are_noticed() {
        let (a, b) = (url("https://a.example"), url("https://b.example"));
        let of = |url: &ServerUrl| KeyOf::Url(url.clone());
        assert!(!share_a_key((&a, &of(&a)), (&b, &of(&b))));
        assert!(!share_a_key((&a, &KeyOf::Shared), (&b, &of(&b))));
        assert!(share_a_key((&a, &KeyOf::Shared), (&b, &KeyOf::Shared)));
        assert!(share_a_key((&a, &of(&b)), (&b, &of(&b))));
        assert!(!share_a_key((&a, &KeyOf::Shared), (&a, &KeyOf::Shared)));
    }
}
