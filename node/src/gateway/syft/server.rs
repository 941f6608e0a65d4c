//! The node as a client of a Syft server, its own kind or the old one (`proto-specs/syft.md`,
//! sections 5, 6 and 9).
//!
//! `site` asks over HTTP and opens the WebSocket.
//!
//! One task for each server: register, log in, connect, and then letters both ways, until the
//! connection ends; then again after a wait with full jitter. The messaging key answers the login,
//! and only a challenge that is base64 of exactly 32 bytes; libp2p's key never does. What waits for
//! a server is in the outbox. A message that goes out again after a lost connection is the same to
//! the byte, because its envelope is sealed with chance that is made of its id and the key; so the
//! server, and whoever reads there, can tell a repetition.

mod site;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use hyper::{StatusCode, body::Bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{self, Message};
use zeroize::Zeroizing;

use self::site::{Ended, Site, Socket, encoded, parsed};
use crate::{
    NodeHandle,
    config::gateway::SyftServer,
    gateway::backoff::Backoff,
    identity::random,
    proto::syft::{
        self, PublicKey, SigningKey, Trust, UserId,
        door::{ChallengeBody, Login, Registration, TokenBody, UserBody, answer_challenge},
        letter::{Fingerprint, Letter},
    },
    state::{
        io::{Event, Outcome},
        post::{Ask, Fetched, ToServer, Told},
    },
};

/// How long a server may take to read what it is sent, or to answer a ping behind it.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often the server is asked whether it is there, and how long it may be silent.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const SILENCE_MAX: Duration = Duration::from_secs(70);

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

/// Keys of the server's users, asked for once on each connection.
struct Keys {
    site: Site,
    known: BTreeMap<UserId, Option<PublicKey>>,
}

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
                Ok((site, socket)) => {
                    self.set("connected", None);
                    tracing::info!(server = %self.config.name, "connected to the Syft server");
                    self.relay(site, socket).await
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
    async fn connect(&self) -> Result<(Site, Socket), Ended> {
        let site = Site::new(&self.config)?;
        let user_id = self.config.user.to_string();
        let registration = Registration {
            user_id: user_id.clone(),
            username: user_id.clone(),
            public_key: self.key.public().to_base64(),
        };
        // Registered before is as good; the login tells whether with this key.
        site.post("/auth/register", &registration).await?;
        let login = Login {
            user_id: user_id.clone(),
            signature: None,
        };
        let challenge: ChallengeBody = parsed(site.post("/auth/login", &login).await?)?;
        let signature = answer_challenge(&challenge.challenge, &self.key)
            .map_err(|error| Ended::Refused(error.to_string()))?;
        let login = Login {
            user_id,
            signature: Some(signature),
        };
        let answer = site.post("/auth/login?verify=true", &login).await?;
        let TokenBody { token } = parsed(answer)?;
        let token = Zeroizing::new(token);
        let socket = site.socket(&token).await?;
        Ok((site, socket))
    }

    /// Passes messages both ways; returns why the connection ended.
    async fn relay(&self, site: Site, mut socket: Socket) -> String {
        let mut events = self.node.events();
        let mut keys = Keys {
            site,
            known: BTreeMap::new(),
        };
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
    async fn send_waiting(&self, socket: &mut Socket, keys: &mut Keys) -> Result<(), String> {
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
        keys: &mut Keys,
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
        keys: &mut Keys,
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
        keys: &mut Keys,
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
    async fn key_of(&self, user: &UserId, keys: &mut Keys) -> Result<Option<PublicKey>, String> {
        /// Keys that are remembered for one connection.
        const KEYS_MAX: usize = 4096;
        if let Some(key) = keys.known.get(user) {
            return Ok(*key);
        }
        let path = format!("/auth/users/{}", encoded(user.as_str()));
        let (status, bytes) = match keys.site.get(&path).await {
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
        if keys.known.len() < KEYS_MAX {
            keys.known.insert(user.clone(), key);
        }
        Ok(key)
    }
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), String> {
    match timeout(WRITE_TIME, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the connection broke".to_owned()),
        Err(_) => Err("the server does not read".to_owned()),
    }
}
