//! The node as a client of a Syft server, its own kind or the old one (`proto-specs/syft.md`,
//! sections 5, 6 and 9).
//!
//! One task for each server: register, log in, connect, and then letters both ways, until the
//! connection ends; then again after a wait with full jitter. The messaging key answers the login,
//! and only a challenge that is base64 of exactly 32 bytes; libp2p's key never does. What waits for
//! a server is in the outbox. A message that goes out again after a lost connection is the same to
//! the byte, because its envelope is sealed with chance that is made of its id and the key; so the
//! server, and whoever reads there, can tell a repetition.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use zeroize::Zeroizing;

use crate::{
    NodeHandle,
    config::gateway::SyftServer,
    gateway::{backoff::Backoff, tls},
    identity::random,
    proto::syft::{
        self, FRAME_BYTES_MAX, PublicKey, SigningKey, Trust, UserId,
        door::{ChallengeBody, Login, Registration, TokenBody, UserBody, answer_challenge},
        letter::{Fingerprint, Letter},
    },
    state::{
        io::{Event, Outcome},
        post::{Ask, Fetched, ToServer, Told},
    },
};

/// How long a request, or a connection, may take.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// How long a server may take to read what it is sent, or to answer a ping behind it.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often the server is asked whether it is there, and how long it may be silent.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// Longest answer of HTTP that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Messages in a second: the old server drops what is faster, without storing it.
const SEND_INTERVAL: Duration = Duration::from_millis(210);

/// How it stands with a server, as `pimesh gateway syft list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// What it is called here.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The user that this node is there.
    pub user: String,
    /// `connecting`, `connected`, `waiting` for the next attempt, or `refused` until something is
    /// changed.
    pub state: String,
    /// Why it is not connected.
    pub reason: Option<String>,
}

/// A connection that ended, or was not to be had.
enum Ended {
    /// It may be better later.
    Later(String),
    /// It will not be better by itself.
    Refused(String),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server that this node is a client of.
pub(crate) struct Server {
    config: SyftServer,
    key: SigningKey,
    node: NodeHandle,
    report: Arc<Mutex<ServerReport>>,
}

impl Server {
    pub(crate) fn new(config: SyftServer, key: SigningKey, node: NodeHandle) -> Self {
        let report = ServerReport {
            name: config.name.to_string(),
            url: config.url.clone(),
            user: config.user.to_string(),
            state: "connecting".to_owned(),
            reason: None,
        };
        Self {
            config,
            key,
            node,
            report: Arc::new(Mutex::new(report)),
        }
    }

    pub(crate) fn report(&self) -> Arc<Mutex<ServerReport>> {
        Arc::clone(&self.report)
    }

    /// Stays connected until the task is dropped, or the server says for good that it will not.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            self.set("connecting", None);
            let begun = Instant::now();
            let reason = match self.connect().await {
                Ok(socket) => {
                    self.set("connected", None);
                    tracing::info!(server = %self.config.name, "connected to the Syft server");
                    self.relay(socket).await
                }
                Err(Ended::Later(reason)) => reason,
                Err(Ended::Refused(reason)) => {
                    tracing::warn!(server = %self.config.name, %reason, "the Syft server refuses");
                    return self.set("refused", Some(reason));
                }
            };
            let wait = backoff.next(begun.elapsed(), u64::from_le_bytes(random()));
            let server = &self.config.name;
            tracing::info!(%server, %reason, ?wait, "not connected to the Syft server");
            self.set("waiting", Some(reason));
            tokio::time::sleep(wait).await;
        }
    }

    fn set(&self, state: &'static str, reason: Option<String>) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone_into(&mut report.state);
        report.reason = reason;
    }

    /// Registers, logs in and connects.
    async fn connect(&self) -> Result<Socket, Ended> {
        let user_id = self.config.user.to_string();
        let registration = Registration {
            user_id: user_id.clone(),
            username: user_id.clone(),
            public_key: self.key.public().to_base64(),
        };
        // Registered before is as good; the login tells whether with this key.
        self.post("/auth/register", &registration).await?;
        let login = Login {
            user_id: user_id.clone(),
            signature: None,
        };
        let challenge: ChallengeBody = parsed(self.post("/auth/login", &login).await?)?;
        let signature = answer_challenge(&challenge.challenge, &self.key)
            .map_err(|error| Ended::Refused(error.to_string()))?;
        let login = Login {
            user_id,
            signature: Some(signature),
        };
        let answer = self.post("/auth/login?verify=true", &login).await?;
        let TokenBody { token } = parsed(answer)?;
        let token = Zeroizing::new(token);
        self.open(&token).await
    }

    async fn open(&self, token: &str) -> Result<Socket, Ended> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let base = self
            .config
            .url
            .trim_end_matches('/')
            .replacen("http", "ws", 1);
        let url = format!("{base}/ws?token={token}");
        let connector = Connector::Rustls(tls::client_config());
        let opening = connect_async_tls_with_config(&url, Some(limits), true, Some(connector));
        match timeout(REQUEST_TIME, opening).await {
            Ok(Ok((socket, _))) => Ok(socket),
            // With a new login the next attempt may be taken. The error must not show the URL.
            Ok(Err(tungstenite::Error::Http(answer))) => {
                Err(Ended::Later(format!("/ws answered {}", answer.status())))
            }
            Ok(Err(tungstenite::Error::Io(error))) => Err(Ended::Later(error.to_string())),
            Ok(Err(_)) => Err(Ended::Later("no WebSocket was to be had".to_owned())),
            Err(_) => Err(Ended::Later("connecting took too long".to_owned())),
        }
    }

    /// Passes messages both ways; returns why the connection ended.
    async fn relay(&self, mut socket: Socket) -> String {
        let mut events = self.node.events();
        let mut keys = BTreeMap::new();
        let mut heard = Instant::now();
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            if let Err(reason) = self.send_waiting(&mut socket, &mut keys).await {
                return reason;
            }
            tokio::select! {
                frame = socket.next() => {
                    heard = Instant::now();
                    if let Err(reason) = self.heard(frame, &mut keys).await {
                        return reason;
                    }
                }
                () = self.woken(&mut events) => {}
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return "the server is silent".to_owned();
                    }
                    write(&mut socket, Message::Ping(Bytes::new())).await.ok();
                }
            }
        }
    }

    /// Waits until something may wait for this server.
    async fn woken(&self, events: &mut Receiver<Arc<Event>>) {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Event::LetterWaits { user: Some(user) } = &*event
                        && user.as_str() == self.config.name.as_str()
                    {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Sends what waits, each message behind the pong of the one before: what the server has not
    /// read goes again on the next connection.
    async fn send_waiting(
        &self,
        socket: &mut Socket,
        keys: &mut BTreeMap<UserId, Option<PublicKey>>,
    ) -> Result<(), String> {
        loop {
            let server = self.config.name.clone();
            let ask = Ask::Server(ToServer::Fetch { server });
            let Ok(Told::Fetched(waiting)) = self.node.ask_door(ask).await else {
                return Err("the node is stopping".to_owned());
            };
            if waiting.is_empty() {
                return Ok(());
            }
            for message in waiting {
                let outcome = match self.key_of(&message.user, keys).await? {
                    None => Outcome::Refused("unknown_user".to_owned()),
                    Some(key) => {
                        let frame = self.sealed(&message, &key);
                        write(socket, Message::text(frame)).await?;
                        self.confirmed(socket, &message, keys).await?;
                        Outcome::Delivered
                    }
                };
                let server = self.config.name.clone();
                let id = message.id;
                let settle = ToServer::Settle {
                    server,
                    id,
                    outcome,
                };
                drop(self.node.ask_door(Ask::Server(settle)).await);
                tokio::time::sleep(SEND_INTERVAL).await;
            }
        }
    }

    /// Waits for the pong to a ping behind a message.
    async fn confirmed(
        &self,
        socket: &mut Socket,
        message: &Fetched,
        keys: &mut BTreeMap<UserId, Option<PublicKey>>,
    ) -> Result<(), String> {
        let mark = Bytes::copy_from_slice(&message.id.0);
        write(socket, Message::Ping(mark.clone())).await?;
        let pong = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Pong(bytes))) if bytes == mark => return Ok(()),
                    frame => self.heard(frame, keys).await?,
                }
            }
        };
        let late = |_| "the server does not answer".to_owned();
        timeout(WRITE_TIME, pong).await.map_err(late)?
    }

    /// Seals a message; the same message gives the same bytes.
    fn sealed(&self, message: &Fetched, key: &PublicKey) -> String {
        let mut hash = Sha256::new();
        hash.update(b"pimesh/syft-server-seal/1\0");
        hash.update(&self.key.to_seed()[..]);
        hash.update(message.id.0);
        // Another key of the recipient gets another envelope key.
        hash.update(key.as_bytes());
        hash.update(message.text.as_bytes());
        let mut rng = ChaCha20Rng::from_seed(hash.finalize().into());
        let chance = syft::SealChance::from_rng(&mut rng);
        let content = syft::seal(&message.text, key, &chance);
        let (from, to) = (self.config.user.as_str(), message.user.as_str());
        let sealed = syft::Message::signed(from, to, content, message.created_ms, &self.key);
        String::from_utf8(sealed.encode()).expect("JSON is UTF-8")
    }

    /// Takes what the server sent.
    async fn heard(
        &self,
        frame: Option<Result<Message, tungstenite::Error>>,
        keys: &mut BTreeMap<UserId, Option<PublicKey>>,
    ) -> Result<(), String> {
        let bytes = match frame {
            Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
            Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Close(_))) | None => return Err("the server closed".to_owned()),
            Some(Err(_)) => return Err("the connection broke".to_owned()),
        };
        let Some((from, text, fingerprint)) = self.opened(&bytes, keys).await? else {
            return Ok(());
        };
        let server = self.config.name.clone();
        let received = ToServer::Received {
            server,
            from,
            text,
            fingerprint,
        };
        match self.node.ask_door(Ask::Server(received)).await {
            Ok(_) => Ok(()),
            // Not on disk: the server has it still, and sends it again after a new connection if
            // nothing said that it was read.
            Err(failure) => Err(failure.message),
        }
    }

    /// Opens a message whose sender signed it; all others are counted and left.
    async fn opened(
        &self,
        bytes: &[u8],
        keys: &mut BTreeMap<UserId, Option<PublicKey>>,
    ) -> Result<Option<(UserId, String, Fingerprint)>, String> {
        let refuse = |why| {
            self.node.tell(Event::Refused {
                peer: None,
                what: "server_message",
                why,
            });
            Ok(None)
        };
        let Ok(message) = syft::Message::decode(bytes) else {
            return refuse("malformed");
        };
        if message.from == "system" {
            let server = &self.config.name;
            tracing::info!(%server, text = ?message.content, "the Syft server says");
            return Ok(None);
        }
        let Ok(letter) = Letter::of(message) else {
            return refuse("malformed");
        };
        let key = self.key_of(&letter.from, keys).await?;
        let own = self.config.user.as_str();
        let received = syft::receive(bytes, own, &self.key, |_| key);
        match received {
            Ok(received) if received.trust == Trust::Verified => {
                let fingerprint = letter.fingerprint();
                Ok(Some((letter.from, received.content, fingerprint)))
            }
            Ok(received) => refuse(match received.trust {
                Trust::Unsigned => "unsigned",
                Trust::DecryptionFailed => "cannot_open",
                _ => "wrong_signature",
            }),
            Err(_) => refuse("malformed"),
        }
    }

    /// Asks the server for a user's key, and the state whether it is the pinned one.
    async fn key_of(
        &self,
        user: &UserId,
        keys: &mut BTreeMap<UserId, Option<PublicKey>>,
    ) -> Result<Option<PublicKey>, String> {
        /// Keys that are remembered for one connection.
        const KEYS_MAX: usize = 4096;
        if let Some(key) = keys.get(user) {
            return Ok(*key);
        }
        let path = format!("/auth/users/{}", encoded(user.as_str()));
        let (status, bytes) = match self.request(Method::GET, &path, Bytes::new()).await {
            Ok(answer) => answer,
            Err(Ended::Later(reason) | Ended::Refused(reason)) => return Err(reason),
        };
        if status != StatusCode::OK {
            return Ok(None);
        }
        let body = serde_json::from_slice::<UserBody>(&bytes).ok();
        let key = body.and_then(|body| PublicKey::from_base64(&body.public_key).ok());
        let Some(key) = key else { return Ok(None) };
        let pin = ToServer::Pin {
            server: self.config.name.clone(),
            user: user.clone(),
            key,
        };
        let Ok(Told::Pinned(key)) = self.node.ask_door(Ask::Server(pin)).await else {
            return Err("the node is stopping".to_owned());
        };
        if keys.len() < KEYS_MAX {
            keys.insert(user.clone(), key);
        }
        Ok(key)
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<(StatusCode, Bytes), Ended> {
        let body = serde_json::to_vec(body).expect("texts are JSON");
        self.request(Method::POST, path, body.into()).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Ended> {
        let later = |what: &dyn std::fmt::Display| Ended::Later(what.to_string());
        let (secure, rest) = match self.config.url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some((_, rest)) => (false, rest),
            None => return Err(Ended::Refused("the URL is none".to_owned())),
        };
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let path = if prefix.is_empty() {
            path.to_owned()
        } else {
            format!("/{prefix}{path}")
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", authority)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Ended::Refused(error.to_string()))?;
        let port = if secure { 443 } else { 80 };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{port}")
        };
        let answering = async {
            let stream = TcpStream::connect(&address).await.map_err(|e| later(&e))?;
            if !secure {
                return ask(stream, request).await;
            }
            let host = if has_port {
                authority
                    .rsplit_once(':')
                    .map_or(authority, |(host, _)| host)
            } else {
                authority
            };
            let name = host.trim_matches(['[', ']']).to_owned();
            let name = rustls::pki_types::ServerName::try_from(name);
            let name = name.map_err(|error| Ended::Refused(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(tls::client_config());
            let stream = connector.connect(name, stream).await;
            ask(stream.map_err(|e| later(&e))?, request).await
        };
        let late = |_| Ended::Later("the server took too long".to_owned());
        timeout(REQUEST_TIME, answering).await.map_err(late)?
    }
}

/// Makes one request on a connection of its own.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Ended> {
    let later = |error: hyper::Error| Ended::Later(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(later)?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(later)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    driving.abort();
    let body = body.map_err(|error| Ended::Later(error.to_string()))?;
    Ok((status, body.to_bytes()))
}

/// Reads an answer. What the server refuses will be refused again; what it cannot do now may work
/// later.
fn parsed<T: DeserializeOwned>((status, bytes): (StatusCode, Bytes)) -> Result<T, Ended> {
    if status == StatusCode::OK {
        let wrong = |_| Ended::Later("the server's answer is not what is expected".to_owned());
        return serde_json::from_slice(&bytes).map_err(wrong);
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let text = format!("the login was answered {status}: {}", text.trim());
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        Err(Ended::Refused(text))
    } else {
        Err(Ended::Later(text))
    }
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), String> {
    match timeout(WRITE_TIME, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the connection broke".to_owned()),
        Err(_) => Err("the server does not read".to_owned()),
    }
}

/// Encodes a path parameter: everything but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_stands_in_a_path_so_that_it_is_decoded_once() {
        assert_eq!(encoded("bob+x@example.org"), "bob%2Bx%40example.org");
        assert_eq!(encoded("bób/%"), "b%C3%B3b%2F%25");
    }

    #[test]
    fn what_a_server_refuses_is_not_tried_again_and_what_it_cannot_do_is() {
        let parsed = |status| parsed::<TokenBody>((status, Bytes::new()));
        for status in [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST] {
            assert!(matches!(parsed(status), Err(Ended::Refused(_))), "{status}");
        }
        for status in [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::OK,
        ] {
            assert!(matches!(parsed(status), Err(Ended::Later(_))), "{status}");
        }
    }
}
