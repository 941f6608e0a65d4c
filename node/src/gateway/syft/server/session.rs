//! One connection to a Syft server: messages both ways.
//!
//! What waits for a server is in the outbox. A message that goes out again after a lost connection
//! is the same to the byte, because its envelope is sealed with nonces that are made of its id and
//! the key; so the server, and the readers there, can tell a repetition.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use hyper::{StatusCode, body::Bytes};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    share::Share,
    site::{Ended, Site, Socket, encoded},
};
use crate::{
    config::gateway::syft::SyftServer,
    gateway::context::Context,
    proto::syft::{
        self, PublicKey, SigningKey, Trust, UserId,
        http::UserBody,
        letter::{Addressee, Fingerprint, Letter},
    },
    state::{
        io::{Event, Outcome},
        post::{Ask, Fetched, NotPinned, ToServer, Told},
    },
    text,
};

/// How long a server may take to read what it is sent, and how long it may be silent while a pong
/// is waited for.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long a pong may take in all: what the server sent before it is read first, within its share.
const PONG_TIME: Duration = Duration::from_secs(300);

/// How often the server is asked whether it is there, and how long it may be silent.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const SILENCE_MAX: Duration = Duration::from_secs(70);

/// Messages in a second: the old server drops what is faster, without storing it.
const SEND_INTERVAL: Duration = Duration::from_millis(210);

/// Keys that are remembered for one connection.
const KEYS_MAX: usize = 4096;

/// How many characters of what the server says are logged.
const TEXT_CHARS_MAX: usize = 200;

type Frame = Option<Result<Message, tungstenite::Error>>;

/// One connection.
pub(super) struct Session<'a> {
    config: &'a SyftServer,
    node: &'a Context,
    key: &'a SigningKey,
    site: Site,
    socket: Socket,
    share: &'a mut Share,
    /// A frame that was read and waits until the share allows it.
    held: Option<Frame>,
    /// The keys that the server names for its users.
    offered: BTreeMap<UserId, Option<PublicKey>>,
}

impl<'a> Session<'a> {
    pub(super) const fn new(
        config: &'a SyftServer,
        node: &'a Context,
        key: &'a SigningKey,
        site: Site,
        socket: Socket,
        share: &'a mut Share,
    ) -> Self {
        Self {
            config,
            node,
            key,
            site,
            socket,
            share,
            held: None,
            offered: BTreeMap::new(),
        }
    }

    /// Passes messages both ways; returns why the connection ended.
    pub(super) async fn run(mut self) -> String {
        let config = self.config;
        let mut events = self.node.events();
        let mut heard = Instant::now();
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            if let Err(reason) = self.send_waiting().await {
                return reason;
            }
            tokio::select! {
                frame = self.next() => {
                    heard = Instant::now();
                    if let Err(reason) = self.heard(frame).await {
                        return reason;
                    }
                }
                () = woken(config, &mut events) => {}
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return "the server is silent".to_owned();
                    }
                    self.write(Message::Ping(Bytes::new())).await.ok();
                }
            }
        }
    }

    /// Reads the next frame, once the share of the server allows it. Nothing is lost if the future
    /// is dropped.
    async fn next(&mut self) -> Frame {
        loop {
            let Some(frame) = &self.held else {
                self.held = Some(self.socket.next().await);
                continue;
            };
            let bytes = match frame {
                Some(Ok(message)) => message.len(),
                Some(Err(_)) | None => 0,
            };
            match self.share.take(bytes) {
                Ok(()) => return self.held.take().flatten(),
                Err(wait) => {
                    if let Some(suppressed) = self.share.log("throttled") {
                        let server = &self.config.name;
                        tracing::warn!(%server, suppressed, "the Syft server sends more than its share; it is read more slowly");
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Sends what waits, each message behind the pong of the one before: what the server has not
    /// read goes again on the next connection.
    async fn send_waiting(&mut self) -> Result<(), String> {
        loop {
            let server = self.config.name.clone();
            let ask = Ask::Server(ToServer::Fetch { server });
            let Ok(Told::Fetched(waiting)) = self.node.ask_gateway(ask).await else {
                return Err("the node is stopping".to_owned());
            };
            if waiting.is_empty() {
                return Ok(());
            }
            for message in waiting {
                let outcome = match self.key_of(&message.user).await? {
                    Err(why) => Outcome::Refused(why.to_owned()),
                    Ok(key) => {
                        let frame = self.sealed(&message, &key);
                        self.write(Message::text(frame)).await?;
                        self.confirmed(&message).await?;
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
                drop(self.node.ask_gateway(Ask::Server(settle)).await);
                tokio::time::sleep(SEND_INTERVAL).await;
            }
        }
    }

    /// Waits for the pong to a ping behind a message.
    async fn confirmed(&mut self, message: &Fetched) -> Result<(), String> {
        let mark = Bytes::copy_from_slice(&message.id.0);
        self.write(Message::Ping(mark.clone())).await?;
        let late = |_| "the server does not answer".to_owned();
        let begun = Instant::now();
        while begun.elapsed() < PONG_TIME {
            match timeout(WRITE_TIME, self.next()).await.map_err(late)? {
                Some(Ok(Message::Pong(bytes))) if bytes == mark => return Ok(()),
                frame => self.heard(frame).await?,
            }
        }
        Err("the server answers no ping".to_owned())
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
        let sealed = syft::Message::signed(from, to, content, message.created_ms, self.key);
        String::from_utf8(sealed.encode()).expect("JSON is UTF-8")
    }

    /// Takes what the server sent.
    async fn heard(&mut self, frame: Frame) -> Result<(), String> {
        let bytes = match frame {
            Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
            Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Close(_))) | None => return Err("the server closed".to_owned()),
            Some(Err(_)) => return Err("the connection broke".to_owned()),
        };
        let Some((from, text, fingerprint)) = self.opened(&bytes).await? else {
            return Ok(());
        };
        let server = self.config.name.clone();
        let received = ToServer::Received {
            server,
            from,
            text,
            fingerprint,
        };
        match self.node.ask_gateway(Ask::Server(received)).await {
            Ok(_) => Ok(()),
            // Not on disk: the server has it still, and sends it again after a new connection if
            // nothing said that it was read.
            Err(failure) => Err(failure.message),
        }
    }

    /// Opens a message whose sender signed it; all others are counted and left.
    async fn opened(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<(UserId, String, Fingerprint)>, String> {
        let Ok(message) = syft::Message::decode(bytes) else {
            return Ok(self.refuse("malformed", ""));
        };
        if message.from == "system" {
            if let Some(suppressed) = self.share.log("system") {
                let server = &self.config.name;
                let text = text::visible_start(&message.content, TEXT_CHARS_MAX);
                tracing::info!(%server, %text, suppressed, "the Syft server says");
            }
            return Ok(None);
        }
        let Ok(letter) = Letter::of(message) else {
            return Ok(self.refuse("malformed", ""));
        };
        if letter.to == Addressee::Broadcast && !self.config.broadcasts {
            return Ok(self.refuse("broadcast", letter.from.as_str()));
        }
        let key = match self.key_of(&letter.from).await? {
            Ok(key) => key,
            Err(why) => return Ok(self.refuse(why, letter.from.as_str())),
        };
        let own = self.config.user.as_str();
        let received = syft::receive(bytes, own, self.key, |_| Some(key));
        let refused = match received {
            Ok(received) if received.trust == Trust::Verified => {
                let fingerprint = letter.fingerprint();
                return Ok(Some((letter.from, received.content, fingerprint)));
            }
            Ok(received) => match received.trust {
                Trust::Unsigned => "unsigned",
                Trust::DecryptionFailed => "cannot_open",
                _ => "wrong_signature",
            },
            Err(_) => "malformed",
        };
        Ok(self.refuse(refused, letter.from.as_str()))
    }

    /// Counts a message that is left, and logs the first of its kind in a minute.
    fn refuse<T>(&mut self, why: &'static str, from: &str) -> Option<T> {
        self.node.tell(Event::Refused {
            peer: None,
            what: "server_message",
            why,
        });
        // Broadcasts are left because nobody asked for them: that is not worth a line.
        if why != "broadcast"
            && let Some(suppressed) = self.share.log(why)
        {
            let server = &self.config.name;
            let from = text::visible_start(from, TEXT_CHARS_MAX);
            tracing::info!(%server, %from, why, suppressed, "a message of the Syft server is left out");
        }
        None
    }

    /// Returns which key of a user counts: the server is asked once on each connection, the state,
    /// which has the pinned ones, each time.
    async fn key_of(&mut self, user: &UserId) -> Result<Result<PublicKey, &'static str>, String> {
        let Some(key) = self.offered_key(user).await? else {
            return Ok(Err("unknown_user"));
        };
        let pin = ToServer::Pin {
            server: self.config.name.clone(),
            user: user.clone(),
            key,
        };
        match self.node.ask_gateway(Ask::Server(pin)).await {
            Ok(Told::Pinned(pinned)) => Ok(pinned.map_err(NotPinned::name)),
            Ok(_) => Err("the node is stopping".to_owned()),
            // The node is stopping, or could not write the key down: it is tried again later.
            Err(failure) => Err(failure.message),
        }
    }

    /// Returns the key that the server names for a user.
    async fn offered_key(&mut self, user: &UserId) -> Result<Option<PublicKey>, String> {
        if let Some(key) = self.offered.get(user) {
            return Ok(*key);
        }
        let path = format!("/auth/users/{}", encoded(user.as_str()));
        let (status, bytes) = match self.site.get(&path).await {
            Ok(answer) => answer,
            Err(Ended::Later(reason) | Ended::Refused(reason)) => return Err(reason),
        };
        if status != StatusCode::OK {
            return Ok(None);
        }
        let body = serde_json::from_slice::<UserBody>(&bytes).ok();
        let key = body.and_then(|body| PublicKey::from_base64(&body.public_key).ok());
        if self.offered.len() < KEYS_MAX {
            self.offered.insert(user.clone(), key);
        }
        Ok(key)
    }

    async fn write(&mut self, message: Message) -> Result<(), String> {
        match timeout(WRITE_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the connection broke".to_owned()),
            Err(_) => Err("the server does not read".to_owned()),
        }
    }
}

/// Waits until something may wait for this server.
async fn woken(config: &SyftServer, events: &mut Receiver<Arc<Event>>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Event::LetterWaits { user: Some(user) } = &*event
                    && user.as_str() == config.name.as_str()
                {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
