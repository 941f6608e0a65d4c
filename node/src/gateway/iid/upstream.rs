//! The node as a client of an APIntIO server: it signs in with a key of its own, and integers of
//! that index run both ways (`proto-specs/iid.md`, section 10).
//!
//! No circles: the server's echo of what was sent is dropped, what came from the server is never
//! sent to it, and what passed already in either direction is known by its index, value and date.
//! Without a date that tells, what entered the mesh through another node's door is not passed on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{Bytes, Message, protocol::WebSocketConfig},
};

use super::recent::Recent;
use crate::{
    NodeHandle,
    config::gateway::{IidServer, KeyKind},
    gateway::{
        backoff::Backoff,
        standing::{Standing, millis},
        tls,
    },
    identity::{KeyFileError, random},
    limits::LogLimit,
    proto::iid::{
        Date, Form, Iid, Index, Value,
        sign_in::client::{ClientHeard, ClientKey, ClientSignIn},
    },
    state::{
        VALUES_MAX,
        io::{ClientId, Command, Event},
        report::Integers,
    },
    text,
};

/// How long connecting and signing in may take.
const SIGN_IN_TIME: Duration = Duration::from_secs(30);

/// How long a server may take to read what it is sent.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often the server is asked whether it is there, and how long it may be silent.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Longest message of a server, in bytes.
const MESSAGE_BYTES_MAX: usize = 8192;

/// How many characters of what the server says are logged or reported.
const TEXT_CHARS_MAX: usize = 200;

/// How long what passed is remembered.
const RECENT_TIME: Duration = Duration::from_secs(60);

/// Most kinds of integers whose echo is waited for.
const ECHOES_MAX: usize = 65_536;

/// A server, as `pimesh gateway iid servers` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Where it is.
    pub url: String,
    /// The address with which this node signs in there. Its owner has to allow it.
    pub address: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: ServerState,
    /// Integers that came from it.
    pub received: u64,
    /// Integers that were sent to it.
    pub sent: u64,
}

/// How it stands with a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServerState {
    /// A connection is being made.
    Connecting,
    /// This node is signed in.
    SignedIn {
        /// The index that it has there.
        index: Index,
    },
    /// There is no connection; the next attempt is due.
    Waiting {
        /// Why.
        reason: String,
        /// Time until the next attempt.
        next_ms: u64,
    },
}

/// Why the node cannot be a client of a server.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It has no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The node ends before the key is there.
    #[error("the node is stopping")]
    Stopping,
}

/// A server that the node is a client of.
pub(crate) struct Upstream {
    server: IidServer,
    key: ClientKey,
    node: NodeHandle,
    client: ClientId,
    standing: Arc<Standing<ServerReport>>,
    started: Instant,
    log: Mutex<LogLimit<&'static str>>,
}

/// Returns the report with the time until the next attempt.
pub(crate) fn report(standing: &Standing<ServerReport>) -> ServerReport {
    let (mut report, wait) = standing.report();
    if let ServerState::Waiting { next_ms, .. } = &mut report.state {
        *next_ms = wait.map_or(0, millis);
    }
    report
}

impl Upstream {
    /// Loads the key, or makes it; an RSA key takes a while.
    pub(crate) async fn new(server: IidServer, node: NodeHandle) -> Result<Self, UpstreamError> {
        let keys = Arc::clone(node.keys());
        let (kind, key_of) = (server.key, server.key_of());
        let load = move || match kind {
            KeyKind::Ethereum => keys.ethereum(&key_of).map(ClientKey::Ethereum),
            KeyKind::Rsa => keys.iid_rsa(&key_of).map(ClientKey::Rsa),
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let key = loaded.map_err(|_| UpstreamError::Stopping)??;
        let report = ServerReport {
            url: server.url.to_string(),
            address: key.address().to_string(),
            state: ServerState::Connecting,
            received: 0,
            sent: 0,
        };
        Ok(Self {
            client: node.gateways().reserve(),
            standing: Arc::new(Standing::new(report)),
            started: Instant::now(),
            log: Mutex::default(),
            server,
            key,
            node,
        })
    }

    pub(crate) fn standing(&self) -> Arc<Standing<ServerReport>> {
        Arc::clone(&self.standing)
    }

    /// Stays connected, or tries to, until the task ends.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            self.set(ServerState::Connecting);
            let begun = Instant::now();
            let reason = match timeout(SIGN_IN_TIME, self.sign_in()).await {
                Ok(Ok((socket, index))) => self.relay(socket, index).await,
                Ok(Err(reason)) => reason,
                Err(_) => "signing in took too long".to_owned(),
            };
            let reason = text::visible_start(&reason, TEXT_CHARS_MAX);
            let wait = backoff.next(begun.elapsed(), u64::from_le_bytes(random()));
            tracing::info!(url = %self.server.url, %reason, ?wait, "not connected to the APIntIO server");
            self.set(ServerState::Waiting {
                reason,
                next_ms: millis(wait),
            });
            self.standing.wait(wait).await;
        }
    }

    async fn sign_in(&self) -> Result<(Socket, Index), String> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = Connector::Rustls(tls::client_config());
        let connecting = connect_async_tls_with_config(
            self.server.url.to_string(),
            Some(config),
            true,
            Some(connector),
        );
        let (mut socket, _) = connecting.await.map_err(|error| error.to_string())?;
        let mut sign_in = ClientSignIn::new(self.key.clone(), None)
            .expect("without a letter there is nothing to refuse");
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message.map_err(|error| error.to_string())? else {
                continue;
            };
            match sign_in.hear(text.as_str()) {
                ClientHeard::Ignore => {}
                ClientHeard::Answer(answer) => {
                    let sent = socket.send(Message::text(answer)).await;
                    sent.map_err(|error| error.to_string())?;
                }
                ClientHeard::SignedIn { index, .. } => return Ok((socket, index)),
                ClientHeard::Refused(reason) => return Err(reason),
            }
        }
        Err("the server closed the connection".to_owned())
    }

    /// Passes integers both ways until the connection ends; returns why it did.
    async fn relay(&self, mut socket: Socket, index: Index) -> String {
        tracing::info!(url = %self.server.url, %index, "signed in to the APIntIO server");
        self.set(ServerState::SignedIn { index });
        let mut events = self.node.events();
        let mut passed = Passed::new(index, self.client);
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut heard = Instant::now();
        loop {
            let ended = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    self.receive(&mut socket, message, &mut passed).await
                }
                event = events.recv() => self.forward(&mut socket, event, &mut events, &mut passed).await,
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        Err("the server is silent".to_owned())
                    } else {
                        write(&mut socket, [Message::Ping(Bytes::new())]).await
                    }
                }
            };
            if let Err(reason) = ended {
                return reason;
            }
        }
    }

    async fn receive(
        &self,
        socket: &mut Socket,
        first: Received,
        passed: &mut Passed,
    ) -> Result<(), String> {
        let mut iids = Vec::new();
        let mut next = Some(first);
        // What has come already travels together.
        while let Some(message) = next.take() {
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Ok(form) = Form::decode(&bytes) {
                        let iid = form.restamp(passed.index, self.node.date());
                        iids.extend(passed.is_news_from_server(&iid).then_some(iid));
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    if let Some(suppressed) = self.may_log("text") {
                        let text = text::visible_start(&text, TEXT_CHARS_MAX);
                        tracing::debug!(url = %self.server.url, %text, suppressed, "the server says");
                    }
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err("the server closed the connection".to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
            if iids.len() < VALUES_MAX {
                next = socket.next().now_or_never();
            }
        }
        if iids.is_empty() {
            return Ok(());
        }
        self.count(iids.len() as u64, 0);
        let client = Some(self.client);
        let bridged = self.node.ask(Command::Bridge { client, iids }).await;
        bridged.map(drop).map_err(|failure| failure.message)
    }

    async fn forward(
        &self,
        socket: &mut Socket,
        first: Result<Arc<Event>, RecvError>,
        events: &mut Receiver<Arc<Event>>,
        passed: &mut Passed,
    ) -> Result<(), String> {
        let mut messages = Vec::new();
        let mut next = Some(first);
        while let Some(event) = next.take() {
            match event {
                Ok(event) => {
                    if let Event::Integers(integers) = &*event {
                        let news = integers
                            .iids
                            .iter()
                            .filter(|iid| passed.is_news_for_server(iid, integers));
                        let news: Vec<Iid> = news.copied().collect();
                        for iid in news {
                            passed.sent(&iid);
                            messages.push(Message::binary(iid.encode().to_vec()));
                        }
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    if let Some(suppressed) = self.may_log("lost") {
                        tracing::warn!(url = %self.server.url, lost, suppressed, "integers came faster than the server takes them");
                    }
                }
                Err(RecvError::Closed) => return Err("the node is stopping".to_owned()),
            }
            if messages.len() < VALUES_MAX {
                next = events.try_recv().ok().map(Ok);
            }
        }
        self.count(0, messages.len() as u64);
        write(socket, messages).await
    }

    /// Says whether a line of this kind is to be logged, with the number of lines since the last
    /// one that were not.
    fn may_log(&self, kind: &'static str) -> Option<u64> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.admit(kind, self.started.elapsed())
    }

    fn set(&self, state: ServerState) {
        self.standing.change(|report| report.state = state);
    }

    fn count(&self, received: u64, sent: u64) {
        self.standing.change(|report| {
            report.received += received;
            report.sent += sent;
        });
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Received = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

async fn write(
    socket: &mut Socket,
    messages: impl IntoIterator<Item = Message>,
) -> Result<(), String> {
    let writing = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    match timeout(WRITE_TIME, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the server does not read".to_owned()),
    }
}

/// What passed already, in both directions.
struct Passed {
    index: Index,
    client: ClientId,
    recent: Recent,
    /// How often the server will send an integer back because it was sent to it.
    echoes: HashMap<(Value, Date), u32>,
}

impl Passed {
    fn new(index: Index, client: ClientId) -> Self {
        Self {
            index,
            client,
            recent: Recent::new(RECENT_TIME),
            echoes: HashMap::new(),
        }
    }

    /// Notes an integer that is sent to the server.
    fn sent(&mut self, iid: &Iid) {
        self.recent.remember(iid, Instant::now());
        // A server that sends nothing back would have it grow for ever.
        if self.echoes.len() >= ECHOES_MAX {
            self.echoes.clear();
        }
        *self.echoes.entry((iid.value, iid.date)).or_default() += 1;
    }

    /// Says whether an integer from the server is none that was sent to it, or came before.
    fn is_news_from_server(&mut self, iid: &Iid) -> bool {
        let echo = (iid.value, iid.date);
        if let Some(expected) = self.echoes.get_mut(&echo) {
            *expected -= 1;
            if *expected == 0 {
                self.echoes.remove(&echo);
            }
            return false;
        }
        !self.recent.remember(iid, Instant::now())
    }

    /// Says whether an integer of the node is for the server, and did not come from there.
    fn is_news_for_server(&self, iid: &Iid, integers: &Integers) -> bool {
        if iid.index != self.index || integers.last_known || integers.client == Some(self.client) {
            return false;
        }
        if Recent::is_told_apart(iid) {
            !self.recent.knows(iid)
        } else {
            // Another node's door may stand before the same server.
            !integers.bridged || integers.client.is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::PeerId;

    use super::*;

    const OWN: ClientId = ClientId(1);

    fn iid(index: i32, date: u64) -> Iid {
        Iid {
            index: Index(index),
            value: Value(5),
            date: Date(date),
        }
    }

    fn integers(iid: Iid, bridged: bool, client: Option<ClientId>) -> Integers {
        Integers {
            source: PeerId::random(),
            name: "pi-2".to_owned(),
            sent_ms: 0,
            received_us: 0,
            clock_offset_us: None,
            held: false,
            last_known: false,
            bridged,
            client,
            iids: vec![iid],
        }
    }

    const DATE: u64 = 1_700_000_000_000;

    #[test]
    fn the_echo_of_the_server_is_no_news_and_an_equal_integer_after_it_is() {
        let mut passed = Passed::new(Index(7), OWN);
        let undated = iid(7, 0);
        assert!(passed.is_news_for_server(&undated, &integers(undated, false, None)));
        passed.sent(&undated);

        assert!(!passed.is_news_from_server(&undated), "the echo");
        assert!(passed.is_news_from_server(&undated), "another client's");
        passed.sent(&iid(7, DATE));
        assert!(!passed.is_news_from_server(&iid(7, DATE)), "the echo");
        assert!(
            !passed.is_news_from_server(&iid(7, DATE)),
            "known by its date"
        );
    }

    #[test]
    fn what_came_from_the_server_never_goes_back_to_it() {
        let mut passed = Passed::new(Index(7), OWN);
        let dated = iid(7, DATE);
        assert!(passed.is_news_from_server(&dated));

        assert!(!passed.is_news_for_server(&dated, &integers(dated, true, Some(OWN))));
        // As another node heard it from the same server.
        assert!(!passed.is_news_for_server(&dated, &integers(dated, true, None)));
        let undated = iid(7, 0);
        assert!(!passed.is_news_for_server(&undated, &integers(undated, true, None)));
        assert!(passed.is_news_for_server(&undated, &integers(undated, true, Some(ClientId(2)))));
        let other = iid(8, DATE);
        assert!(!passed.is_news_for_server(&other, &integers(other, false, None)));
    }
}
