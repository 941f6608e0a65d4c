//! What a web page of another site may not do: one check for every HTTP listener of the node.
//!
//! A browser sends requests on behalf of any page to any address that its machine reaches, the
//! node's own ports on loopback included. It says which page asks (`Origin`), and under which name
//! it looked for this machine (`Host`). So three things are checked before a request is read:
//!
//! * the origin: a page may ask only if it is allowed to, or came from this very listener;
//! * the host: behind the name of a stranger's domain may stand this machine's address (DNS
//!   rebinding), and then the browser takes the stranger's page for one of this listener;
//! * the type of the body: forms and plain text are sent without asking first (Fetch standard,
//!   CORS-safelisted request header), by old browsers even without `Origin`.
//!
//! Programs that are no browsers send no `Origin`, and reach the node by an address or a name that
//! it knows.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority};

use crate::text;

/// Most characters of a foreign header that are shown.
const SHOWN_MAX: usize = 80;

/// What a listener allows.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Pages of these origins may ask; `*` stands for all.
    pub(crate) origins: Vec<String>,
    /// Under which names the listener is known.
    pub(crate) hosts: Hosts,
    /// Which bodies are taken.
    pub(crate) bodies: Bodies,
}

/// Under which names a listener is known.
#[derive(Clone, Debug)]
pub(crate) enum Hosts {
    /// Under every name: something else keeps other sites out.
    Any,
    /// By any IP address, as `localhost`, and under these names.
    Named(Vec<String>),
}

/// Which bodies a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// All: something else keeps other sites out.
    Any,
    /// None of those that a form of any page can send.
    NoForms,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It looks for another host.
    #[error("this node is not called `{0}`")]
    Host(String),
    /// It comes from a page that may not ask.
    #[error("pages of `{0}` may not ask this node")]
    Origin(String),
    /// Its body is of a type that any page could send.
    #[error("a body of the type `{0}` is not taken, send `application/json`")]
    ContentType(String),
}

impl Refused {
    /// Returns a short constant for counters.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Origin(_) => "origin",
            Self::ContentType(_) => "content_type",
        }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

impl Policy {
    /// Checks the head of a request.
    ///
    /// # Errors
    /// Returns why it is refused.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(header::HOST);
        if let Some(host) = host
            && !self.is_known(host)
        {
            return Err(Refused::Host(shown(host)));
        }
        for origin in headers.get_all(header::ORIGIN) {
            if !self.allows(origin) && !is_same(origin, host) {
                return Err(Refused::Origin(shown(origin)));
            }
        }
        let kind = headers.get(header::CONTENT_TYPE);
        if let Some(kind) = kind
            && self.bodies == Bodies::NoForms
            && method != Method::GET
            && is_form(kind)
        {
            return Err(Refused::ContentType(shown(kind)));
        }
        Ok(())
    }

    /// Says whether pages of this origin are on the list.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        let is_it = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
        self.origins.iter().any(is_it)
    }

    fn is_known(&self, host: &HeaderValue) -> bool {
        let Hosts::Named(names) = &self.hosts else {
            return true;
        };
        let Some(name) = host_name(host) else {
            return false;
        };
        // A page can only have an address for its host if it came from that address.
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }
}

/// Returns the name in a `Host`, without port, in lower case.
fn host_name(host: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    let name = authority.host().to_ascii_lowercase();
    Some(name.strip_suffix('.').unwrap_or(&name).to_owned())
}

/// Says whether a page came from the host that it asks.
fn is_same(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = host.and_then(|host| host.to_str().ok());
    match (origin, host) {
        (Some((_, page)), Some(host)) => page.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Says whether a page sends a body of this type without asking first.
fn is_form(kind: &HeaderValue) -> bool {
    const FORMS: [&str; 3] = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ];
    let text = kind.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    FORMS.iter().any(|form| form.eq_ignore_ascii_case(essence))
}

fn shown(value: &HeaderValue) -> String {
    text::visible_start(&String::from_utf8_lossy(value.as_bytes()), SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            origins: vec!["https://app.example".to_owned()],
            hosts: Hosts::Named(vec!["pi-1.local".to_owned()]),
            bodies: Bodies::NoForms,
        }
    }

    fn check(policy: &Policy, head: &[(header::HeaderName, &str)]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.append(name, value.parse().expect("a value"));
        }
        let checked = policy.check(&Method::POST, &headers);
        checked.map_err(|refused| refused.name())
    }

    #[test]
    fn a_name_that_is_not_the_nodes_is_refused_and_addresses_are_not() {
        let host = |host| check(&policy(), &[(header::HOST, host)]);
        for known in [
            "127.0.0.1:8765",
            "[::1]:8765",
            "192.168.1.20",
            "localhost:8765",
            "LOCALHOST",
            "localhost.",
            "a.localhost:1",
            "Pi-1.local:8765",
        ] {
            assert_eq!(host(known), Ok(()), "{known}");
        }
        for stranger in [
            "evil.example:8765",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "1.evil",
            "pi-1.local.evil.example",
            "",
            "a b",
        ] {
            assert_eq!(host(stranger), Err("host"), "{stranger}");
        }
        assert_eq!(check(&policy(), &[]), Ok(()), "HTTP/1.0 has none");
        let any = Policy {
            hosts: Hosts::Any,
            ..policy()
        };
        assert_eq!(check(&any, &[(header::HOST, "evil.example")]), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_may_not_ask() {
        let from = |policy: &Policy, origin| {
            let head = [(header::HOST, "127.0.0.1:8765"), (header::ORIGIN, origin)];
            check(policy, &head)
        };
        for good in ["https://app.example", "http://127.0.0.1:8765"] {
            assert_eq!(from(&policy(), good), Ok(()), "{good}");
        }
        for bad in [
            "https://evil.example",
            "http://app.example",
            "https://app.example.evil",
            "http://127.0.0.1:80",
            "http://127.0.0.1",
            "null",
            "",
        ] {
            assert_eq!(from(&policy(), bad), Err("origin"), "{bad}");
        }
        let all = Policy {
            origins: vec!["*".to_owned()],
            ..policy()
        };
        assert_eq!(from(&all, "null"), Ok(()));
        let twice = [
            (header::ORIGIN, "https://app.example"),
            (header::ORIGIN, "https://evil.example"),
        ];
        assert_eq!(check(&policy(), &twice), Err("origin"));
    }

    #[test]
    fn bodies_that_any_page_could_send_are_refused() {
        let of = |policy: &Policy, kind| check(policy, &[(header::CONTENT_TYPE, kind)]);
        for form in [
            "text/plain",
            "Text/Plain; charset=utf-8",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(of(&policy(), form), Err("content_type"), "{form}");
        }
        for good in ["application/json", "application/octet-stream"] {
            assert_eq!(of(&policy(), good), Ok(()), "{good}");
        }
        let any = Policy {
            bodies: Bodies::Any,
            ..policy()
        };
        assert_eq!(of(&any, "text/plain"), Ok(()));
    }

    #[test]
    fn what_is_foreign_in_a_refusal_is_visible() {
        let mut headers = HeaderMap::new();
        let long = format!("a\u{202e}{}", "x".repeat(200));
        let value = HeaderValue::from_bytes(long.as_bytes()).expect("a value");
        headers.insert(header::ORIGIN, value);

        let refused = policy().check(&Method::GET, &headers).expect_err("foreign");

        let text = refused.to_string();
        assert!(text.contains("\\u{202e}") && text.len() < 160, "{text}");
    }
}
