//! The HTTP surface of the old Syft server, with its status codes and texts
//! (`proto-specs/syft.md`, section 5).
//!
//! Paths are taken apart by hand: double slashes collapse, and the last part is decoded once, as
//! the old server did. Errors are plain text with a final line feed.
//!
//! | file | what |
//! | --- | --- |
//! | `login` | registering, logging in and logging out |
//! | `agent` | requests that the user's own agent answers |
//! | `refusal` | what is refused, and how it is said |

mod agent;
mod login;
mod refusal;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, WebSocketUpgrade},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::json;

use self::refusal::{Answer, Refusal, invalid, too_many_failures, unexpected};
use super::{Caller, SyftGateway, session, tokens::TokenError};
use crate::{
    proto::syft::{
        DESCRIPTIONS_BYTES_MAX, Descriptions, FRAME_BYTES_MAX, Reader, UserId, forward,
        http::{ActiveBody, BODY_BYTES_MAX, Claims, TokenId, UserBody},
    },
    state::{
        io::{FailureKind, Gateway},
        post::{Admitted, Ask, Found, Told},
    },
};

/// How long the body of a request may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Longest path that is looked at, in bytes: a user id, each byte of it in three characters.
const PATH_BYTES_MAX: usize = 1024;

/// Read buffer of a session, in bytes. There are many sessions, and most are quiet.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Largest write buffer of a session: one frame, and what is around it.
const WRITE_BUFFER_BYTES_MAX: usize = FRAME_BYTES_MAX + 64 * 1024;

const HOME_PAGE: &str = "This is a pimesh node. Syft agents are welcome.\n";

/// Answers one request.
pub(super) async fn answer(
    gateway: Arc<SyftGateway>,
    caller: Arc<Caller>,
    request: hyper::Request<hyper::body::Incoming>,
) -> Response {
    let (parts, body) = request.into_parts();
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let is_preflight = parts.method == Method::OPTIONS;
    let allowed = origin.filter(|origin| gateway.policy.allows(origin));
    let checked = gateway.policy.check(&parts.method, &parts.headers);
    let request = Request {
        gateway: Arc::clone(&gateway),
        caller,
        parts,
        body: Body::new(body),
    };
    let answered = match (&allowed, is_preflight, checked) {
        (None, true, _) => Err(Refusal::method()),
        (_, _, Err(refused)) => {
            request.gateway.count("request", refused.name());
            Err(refused.into())
        }
        (Some(_), true, Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
        (_, false, Ok(())) => request.route().await,
    };
    let mut response = answered.into_response();
    if let Some(origin) = allowed {
        allow(response.headers_mut(), origin);
    }
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
    const FIELDS: HeaderValue = HeaderValue::from_static("authorization, content-type");
    const BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, FIELDS);
    headers.insert(header::VARY, BY_ORIGIN);
}

/// One request, and what answers it.
struct Request {
    gateway: Arc<SyftGateway>,
    caller: Arc<Caller>,
    parts: Parts,
    body: Body,
}

impl Request {
    async fn route(self) -> Answer {
        self.check_open()?;
        let path = self.parts.uri.path();
        if path.len() > PATH_BYTES_MAX {
            return Err(Refusal::new(
                StatusCode::URI_TOO_LONG,
                "The path is too long",
            ));
        }
        let words: Vec<String> = path
            .split('/')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let is_get = self.parts.method == Method::GET;
        let is_post = self.parts.method == Method::POST;
        match words[..] {
            [] if is_get => Ok(HOME_PAGE.into_response()),
            ["health"] if is_get => {
                let body = json!({"status": "healthy", "service": "websocket-server"});
                Ok(axum::Json(body).into_response())
            }
            ["auth", "register"] if is_post => self.register().await,
            ["auth", "login"] if is_post => self.login().await,
            ["auth", "logout"] if is_post => self.logout().await,
            ["auth", "users"] if is_get => Err(Refusal::bad("User ID is required")),
            ["auth", "users", id] if is_get => self.user(&decoded(id)).await,
            ["auth", "check-userid", id] if is_get => {
                let exists = find(&self.gateway, &decoded(id)).await?.is_some();
                Ok(axum::Json(json!({ "exists": exists })).into_response())
            }
            ["user", "trackers" | "apis"] => self.market().await,
            ["trackers" | "apis"] if is_get => Ok(axum::Json(json!([])).into_response()),
            ["tracker-apps"] if is_get => Ok(axum::Json(json!({})).into_response()),
            ["tracker-folder", _] if is_get => {
                let text = "Tracker package not found";
                Err(Refusal::new(StatusCode::NOT_FOUND, text))
            }
            ["active-users"] if is_get => self.active().await,
            ["user", "descriptions"] if is_get => Err(Refusal::bad("User ID not specified in URL")),
            ["user", "descriptions"] if is_post => self.describe().await,
            ["user", "descriptions", id] if is_get => {
                let found = find(&self.gateway, &decoded(id)).await?;
                let texts = found.map(|found| found.descriptions).unwrap_or_default();
                Ok(axum::Json(texts).into_response())
            }
            ["ws"] if is_get => self.enter().await,
            ["direct-message", ..] => Ok(self.ask_agent(forward::Kind::Query).await),
            ["register-document", ..] => Ok(self.ask_agent(forward::Kind::Register).await),
            ["append-document", ..] => Ok(self.ask_agent(forward::Kind::Append).await),
            []
            | ["health" | "active-users" | "ws"]
            | ["trackers" | "apis" | "tracker-apps"]
            | ["tracker-folder", _]
            | ["auth", "register" | "login" | "logout" | "users"]
            | ["auth", "users" | "check-userid", _]
            | ["user", "descriptions"]
            | ["user", "descriptions", _] => Err(Refusal::method()),
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "There is nothing here")),
        }
    }

    /// Refuses what comes after the gateway has begun to close.
    fn check_open(&self) -> Result<(), Refusal> {
        if self.gateway.closing.is_cancelled() {
            let text = "This gateway is closing";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        Ok(())
    }

    async fn user(self, id: &str) -> Answer {
        let found = find(&self.gateway, id).await?;
        let found = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "User not found"))?;
        let body = UserBody {
            user_id: id.to_owned(),
            username: found.title,
            public_key: found.key.to_base64(),
        };
        Ok(axum::Json(body).into_response())
    }

    async fn active(self) -> Answer {
        let Told::Everybody(users) = self.gateway.node.ask_gateway(Ask::Everybody).await? else {
            return Err(unexpected());
        };
        let mut body = ActiveBody::default();
        for user in users {
            if user.online {
                body.online.push(user.name);
            } else {
                body.offline.push(user.name);
            }
        }
        Ok(axum::Json(body).into_response())
    }

    async fn describe(self) -> Answer {
        let claims = self.claims()?;
        let gateway = Arc::clone(&self.gateway);
        admitted(&gateway, &claims).await?;
        let name = claims
            .user_id
            .parse()
            .map_err(|_| invalid(TokenError::Foreign))?;
        let texts: Vec<String> = self
            .json("Invalid JSON payload, expected an array of strings")
            .await?;
        if texts.is_empty() {
            return Err(Refusal::bad("Descriptions list cannot be empty"));
        }
        let descriptions = Descriptions::try_from(texts);
        let descriptions = descriptions.map_err(|error| Refusal::bad(&error.to_string()))?;
        let ask = Ask::Describe { name, descriptions };
        gateway.node.ask_gateway(ask).await?;
        Ok("Descriptions list updated".into_response())
    }

    /// Answers for the app marketplace, of which this gateway keeps nothing: its lists are empty.
    async fn market(self) -> Answer {
        let claims = self.claims()?;
        admitted(&self.gateway, &claims).await?;
        match self.parts.method {
            Method::GET => Ok(axum::Json(json!([])).into_response()),
            Method::POST => {
                let text = "This node keeps no lists for the app marketplace";
                Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text))
            }
            _ => Err(Refusal::method()),
        }
    }

    /// Opens a session. A good token enters whatever others at its address did: no old client logs
    /// in again, and many may share an address.
    async fn enter(mut self) -> Answer {
        let (gateway, address) = (Arc::clone(&self.gateway), self.caller.address.ip());
        let entering = match self.token() {
            Ok(token) => entering(&gateway, &token).await,
            Err(refusal) => Err(refusal),
        };
        let (name, token, user) = match entering {
            Ok(entering) => entering,
            Err(refusal) => {
                gateway.count("token", "refused");
                let is_within = gateway.failures.take(&address.into(), gateway.now());
                return Err(if is_within {
                    refusal
                } else {
                    too_many_failures()
                });
            }
        };
        let upgrade = WebSocketUpgrade::from_request_parts(&mut self.parts, &()).await;
        let Ok(upgrade) = upgrade else {
            return Err(Refusal::bad("Bad Request"));
        };
        let visit = gateway.node.arrive(Gateway::Syft, self.caller.address);
        // Who is listed before the gateway closes is sent away with all others; who comes later enters
        // nothing.
        self.check_open()?;
        let user_agent = self.parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.and_then(|text| text.to_str().ok());
        let entry = session::Entry {
            name,
            token,
            user,
            reader: Reader::from_user_agent(user_agent.unwrap_or_default()),
            visit,
            _caller: self.caller,
        };
        Ok(upgrade
            .max_message_size(FRAME_BYTES_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .on_upgrade(move |socket| session::run(gateway, entry, socket)))
    }

    /// Returns the token, from the query or from the header.
    fn token(&self) -> Result<String, Refusal> {
        let query = self.parts.uri.query().unwrap_or_default();
        let in_query = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="));
        match (in_query, self.bearer()) {
            (Some(token), _) => Ok(decoded(token)),
            (None, Ok(token)) => Ok(token.to_owned()),
            (None, Err(_)) => Err(Refusal::unauthorized("Missing authentication token")),
        }
    }

    fn bearer(&self) -> Result<&str, Refusal> {
        let value = self.parts.headers.get(header::AUTHORIZATION);
        let value = value.ok_or_else(|| Refusal::unauthorized("Missing Authorization header"))?;
        let split = value.to_str().ok().and_then(|text| text.split_once(' '));
        match split {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
            _ => Err(Refusal::unauthorized("Invalid Authorization header")),
        }
    }

    fn claims(&self) -> Result<Claims, Refusal> {
        let token = self.bearer()?;
        let now_ms = self.gateway.unix_ms();
        self.gateway.tokens.read(token, now_ms).map_err(invalid)
    }

    async fn json<T: serde::de::DeserializeOwned>(self, wrong: &str) -> Result<T, Refusal> {
        // A list of descriptions, with its quotes and escapes, is the longest body.
        const { assert!(BODY_BYTES_MAX >= 6 * DESCRIPTIONS_BYTES_MAX) };
        let bytes = self.bytes(BODY_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|_| Refusal::bad(wrong))
    }

    async fn bytes(self, max: usize) -> Result<Bytes, Refusal> {
        match tokio::time::timeout(BODY_TIME, to_bytes(self.body, max)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => {
                let text = format!("A body has at most {max} bytes");
                Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text))
            }
            Err(_) => {
                let text = "The body took too long";
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text))
            }
        }
    }
}

/// Judges a token as `/ws` does.
async fn entering(
    gateway: &SyftGateway,
    token: &str,
) -> Result<(UserId, TokenId, Admitted), Refusal> {
    let claims = gateway.tokens.read_with_grace(token, gateway.unix_ms());
    let claims = claims.map_err(invalid)?;
    let user = admitted(gateway, &claims).await?;
    let name = claims.user_id.parse().ok();
    let (Some(name), Some(id)) = (name, claims.id()) else {
        return Err(invalid(TokenError::Foreign));
    };
    Ok((name, id, user))
}

async fn find(gateway: &SyftGateway, name: &str) -> Result<Option<Found>, Refusal> {
    let Ok(name) = name.parse() else {
        return Ok(None);
    };
    match gateway.node.ask_gateway(Ask::Find { name }).await? {
        Told::Found(found) => Ok(found),
        _ => Err(unexpected()),
    }
}

/// Asks whether a token may still speak for its user.
async fn admitted(gateway: &SyftGateway, claims: &Claims) -> Result<Admitted, Refusal> {
    let invalid_user = || Refusal::unauthorized("Invalid user");
    let name = claims.user_id.parse().map_err(|_| invalid_user())?;
    let token = claims.id().ok_or_else(|| invalid(TokenError::Foreign))?;
    if gateway.revoked.has(token).await? {
        return Err(Refusal::unauthorized(
            "Invalid token: the token was revoked",
        ));
    }
    let key = claims.key.clone();
    match gateway.node.ask_gateway(Ask::Admit { name, key }).await {
        Ok(Told::Admitted(admitted)) => Ok(admitted),
        Ok(_) => Err(unexpected()),
        Err(failure) if failure.kind == FailureKind::NotFound => Err(invalid_user()),
        Err(failure) if failure.kind == FailureKind::Conflict => {
            let text = format!("Invalid token: {}", failure.message);
            Err(Refusal::unauthorized(text))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Decodes `%41` once. What is no text afterwards names nobody.
fn decoded(word: &str) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<2>().filter(|_| first == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        for (word, expected) in [
            ("bob%2Bx@example.org", "bob+x@example.org"),
            ("b%C3%B3b", "bób"),
            ("%2541", "%41"),
            ("a+b", "a+b"),
            ("50%", "50%"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("%ff", ""),
        ] {
            assert_eq!(decoded(word), expected);
        }
    }
}
