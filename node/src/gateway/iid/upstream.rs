//! The node as a client of an APIntIO server: it signs in with a key of its own, and integers of
//! that index run both ways (`proto-specs/iid.md`, section 10).
//!
//! No circles (rules SERVER-ECHO and SERVER-FELLOW): the server's echo of what was sent to it is
//! taken out, once for each that was sent, and what came from the server is not sent to it. What
//! entered the mesh at another node's gateway is sent, unless that node is seen to be a client of the
//! same server, or the date is no time. Equal integers stay apart (`echo`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        oneshot,
    },
    time::timeout,
};
use tokio_tungstenite::{
    Connector,
    tungstenite::{Bytes, Message, protocol::WebSocketConfig},
};

use super::echo::{Mirrors, PROOF, Passed, is_dated};
use crate::{
    config::gateway::{
        Gateways,
        iid::{IidServer, KeyKind},
    },
    gateway::{
        backoff::Backoff,
        context::Context,
        outbound::{Outbound, Running, ServerStatus, Servers},
        paced::{PacedSocket, web_socket},
        standing::{Standing, millis},
        tls, with_causes,
    },
    limits::{LogLimit, Rate},
    proto::iid::{
        Form, Iid, Index,
        sign_in::client::{ClientHeard, ClientKey, ClientSignIn},
    },
    rng::random,
    state::{
        VALUES_MAX,
        io::{ClientId, Command, Event, Gateway},
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

/// How long an echo of the server is waited for: a round trip, and what waits on the way.
const ECHO_TIME: Duration = Duration::from_secs(10);

/// How much is read of a server: some 3,000 integers a second, more than the other nodes take from
/// this one. What is more waits at the server.
const READ_RATE: Rate = Rate {
    per_second: 64 * 1024,
    burst: 256 * 1024,
};

/// How long a change of settings waits for the keys for foreign servers. An RSA key is made in some
/// seconds, on the smallest Pi in more; then its server is listed without an address for a while.
const KEY_TIME: Duration = Duration::from_secs(10);

/// How far apart the same integer may come from the server and from a node that is its client, too.
const FELLOW_TIME: Duration = Duration::from_secs(60);

/// A server, as `pimesh gateway iid servers` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Where it is.
    pub url: String,
    /// The address with which this node signs in there. Its owner has to allow it. `None` as long
    /// as the key for it is not loaded.
    pub address: Option<String>,
    /// Whether integers come from there only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receive_only: bool,
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

/// The APIntIO servers that the node is a client of.
pub(crate) struct Upstreams {
    node: Context,
    servers: Servers<IidServer, ServerReport>,
}

impl Upstreams {
    pub(super) const fn new(node: Context) -> Self {
        Self {
            node,
            servers: Servers::new(),
        }
    }

    /// Returns how it stands with each.
    pub(super) fn reports(&self) -> Vec<ServerReport> {
        self.servers.each(report)
    }
}

impl Outbound for Upstreams {
    fn apply(&self, config: &Gateways) -> BoxFuture<'static, ()> {
        let mut looking = Vec::new();
        self.servers.set(&config.iid_servers, |server| {
            let (looked, looks) = oneshot::channel();
            let upstream = Upstream::new(server, self.node.clone());
            let standing = Arc::clone(&upstream.standing);
            looking.push(looks);
            Running {
                task: tokio::spawn(upstream.run(looked)).abort_handle(),
                standing,
            }
        });
        // The answer to `connect` shows the address of the key, so the key is waited for.
        async move {
            let keys = futures::future::join_all(looking);
            drop(timeout(KEY_TIME, keys).await);
        }
        .boxed()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        let reports = self.reports();
        reports.into_iter().map(ServerStatus::from).collect()
    }

    fn close(&self) {
        self.servers.close();
    }
}

impl From<ServerReport> for ServerStatus {
    fn from(report: ServerReport) -> Self {
        let (state, hint) = match report.state {
            ServerState::SignedIn { index } => (format!("signed in as {index}"), None),
            ServerState::Connecting => ("connecting".to_owned(), Some(AGAIN.to_owned())),
            ServerState::Waiting { reason, .. } => {
                let hint = match report.address {
                    Some(address) => format!("is it up, and does it allow {address}?"),
                    None => "mend the key file; it is tried again by itself".to_owned(),
                };
                (reason, Some(hint))
            }
        };
        Self {
            gateway: Gateway::Iid,
            url: report.url,
            state,
            hint,
        }
    }
}

/// What to do about a connection that is being made.
const AGAIN: &str = "look again in a moment";

/// A server that the node is a client of.
struct Upstream {
    server: IidServer,
    node: Context,
    client: ClientId,
    standing: Arc<Standing<ServerReport>>,
    started: Instant,
    log: Mutex<LogLimit<&'static str>>,
}

/// Returns the report with the time until the next attempt.
fn report(standing: &Standing<ServerReport>) -> ServerReport {
    let (mut report, wait) = standing.report();
    if let ServerState::Waiting { next_ms, .. } = &mut report.state {
        *next_ms = wait.map_or(0, millis);
    }
    report
}

impl Upstream {
    fn new(server: IidServer, node: Context) -> Self {
        let report = ServerReport {
            url: server.url.to_string(),
            address: None,
            receive_only: server.receive_only,
            state: ServerState::Connecting,
            received: 0,
            sent: 0,
        };
        Self {
            client: node.reserve(),
            standing: Arc::new(Standing::new(report)),
            started: Instant::now(),
            log: Mutex::default(),
            server,
            node,
        }
    }

    /// Stays connected, or tries to, until the task ends. `looked` is dropped when the key is loaded
    /// or cannot be.
    async fn run(self, looked: oneshot::Sender<()>) {
        let mut backoff = Backoff::default();
        let (mut key, mut looked) = (None, Some(looked));
        loop {
            self.set(ServerState::Connecting);
            let begun = Instant::now();
            let reason = self.attempt(&mut key, &mut looked).await;
            let reason = text::visible_start(&reason, TEXT_CHARS_MAX);
            let wait = backoff.next(begun.elapsed(), u64::from_le_bytes(random()));
            tracing::info!(url = %self.server.url, %reason, ?wait, "not connected to the APIntIO server");
            self.set(ServerState::Waiting {
                reason,
                next_ms: millis(wait),
            });
            drop(looked.take());
            self.standing.wait(wait).await;
        }
    }

    /// Makes one connection and serves it; returns why it ended, or was not to be had.
    async fn attempt(
        &self,
        key: &mut Option<ClientKey>,
        looked: &mut Option<oneshot::Sender<()>>,
    ) -> String {
        let key = match key {
            Some(key) => key,
            None => match self.load_key().await {
                Ok(loaded) => key.insert(loaded),
                Err(reason) => return reason,
            },
        };
        drop(looked.take());
        match timeout(SIGN_IN_TIME, self.sign_in(key)).await {
            Ok(Ok((socket, index))) => self.relay(socket, index).await,
            Ok(Err(reason)) => reason,
            Err(_) => "signing in took too long".to_owned(),
        }
    }

    /// Loads the key, or makes it; an RSA key takes a while.
    async fn load_key(&self) -> Result<ClientKey, String> {
        let keys = Arc::clone(self.node.keys());
        let (kind, key_of) = (self.server.key, self.server.key_of());
        let load = move || match kind {
            KeyKind::Ethereum => keys.ethereum(&key_of).map(ClientKey::Ethereum),
            KeyKind::Rsa => keys.iid_rsa(&key_of).map(ClientKey::Rsa),
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let loaded = loaded.map_err(|_| "the node is stopping".to_owned())?;
        let key = loaded.map_err(|error| with_causes(&error))?;
        let address = key.address().to_string();
        self.standing
            .change(|report| report.address = Some(address));
        Ok(key)
    }

    async fn sign_in(&self, key: &ClientKey) -> Result<(Socket, Index), String> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = Connector::Rustls(tls::client_config());
        let url = &self.server.url;
        let socket = web_socket(&url.to_string(), url, READ_RATE, config, connector).await;
        let mut socket = socket.map_err(|error| error.to_string())?;
        let mut sign_in = ClientSignIn::new(key.clone(), None)
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
        let mut traffic = Traffic::new(index, self.client);
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut heard = Instant::now();
        loop {
            let ended = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    self.receive(&mut socket, message, &mut traffic).await
                }
                event = events.recv() => self.forward(&mut socket, event, &mut events, &mut traffic).await,
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
        traffic: &mut Traffic,
    ) -> Result<(), String> {
        let mut iids = Vec::new();
        let mut next = Some(first);
        // What has come already travels together.
        while let Some(message) = next.take() {
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Ok(form) = Form::decode(&bytes) {
                        let iid = form.restamp(traffic.index, self.node.date());
                        let is_news = traffic.is_news_from_server(&iid, Instant::now());
                        iids.extend(is_news.then_some(iid));
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
        traffic: &mut Traffic,
    ) -> Result<(), String> {
        let mut messages = Vec::new();
        let mut next = Some(first);
        while let Some(event) = next.take() {
            match event {
                Ok(event) => {
                    if let Event::Integers(integers) = &*event {
                        // What is not sent has no echo.
                        let iids: &[Iid] = if self.server.receive_only {
                            &[]
                        } else {
                            &integers.iids[..]
                        };
                        for iid in iids {
                            if traffic.is_for_server(iid, integers, Instant::now()) {
                                messages.push(Message::binary(iid.encode().to_vec()));
                            }
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

type Socket = PacedSocket;
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

/// What runs between the node and the server.
struct Traffic {
    index: Index,
    client: ClientId,
    /// What was sent to the server, which sends all of it back.
    sent: Passed<()>,
    /// What came from the server, and nodes that are its clients, too.
    fellows: Mirrors<PeerId>,
    /// What the server brought, and whether it brings what the mesh got from it: it is a gateway of
    /// this very mesh.
    server: Mirrors<()>,
}

impl Traffic {
    fn new(index: Index, client: ClientId) -> Self {
        Self {
            index,
            client,
            sent: Passed::new(ECHO_TIME),
            fellows: Mirrors::new(FELLOW_TIME),
            server: Mirrors::new(ECHO_TIME),
        }
    }

    /// Says whether an integer from the server is not the echo of one that was sent to it.
    fn is_news_from_server(&mut self, iid: &Iid, now: Instant) -> bool {
        if self.sent.take_back(iid, (), now) {
            return false;
        }
        if self.server.look(iid, (), |_| 0, now) {
            tracing::warn!(
                "the APIntIO server brings what this mesh got from it, so it is a gateway of this \
                 mesh; copies are taken out. hint: `pimesh gateway iid disconnect`, for members need \
                 no server among themselves"
            );
        }
        if self.server.take_echo(iid, (), now) {
            return false;
        }
        self.server.note(iid, Some(()), now);
        self.fellows.note(iid, None, now);
        true
    }

    /// Says whether an integer of the node is for the server, and did not come from there; notes
    /// that it is sent if so.
    fn is_for_server(&mut self, iid: &Iid, integers: &Integers, now: Instant) -> bool {
        if iid.index != self.index || integers.last_known || integers.client == Some(self.client) {
            return false;
        }
        let is_for_server = match (integers.bridged, integers.client) {
            (true, None) => self.is_of_no_fellow(iid, integers.source, now),
            // Entered at a gateway of this node, which may be the server.
            (true, Some(_)) => self.is_in_no_circle(iid, integers.source, now),
            (false, _) => true,
        };
        if !is_for_server {
            return false;
        }
        self.sent.note(iid, None, now);
        self.server.note(iid, None, now);
        true
    }

    /// Says whether what a client of this node sent does not come round over the server again and
    /// again.
    fn is_in_no_circle(&mut self, iid: &Iid, node: PeerId, now: Instant) -> bool {
        if self.fellows.look(iid, node, |_| 0, now) {
            tracing::warn!(
                "this node is a client of its own gateway; copies are taken out. hint: `pimesh \
                 gateway iid disconnect`"
            );
        }
        if self.fellows.take_echo(iid, node, now) {
            return false;
        }
        self.fellows.note(iid, Some(node), now);
        true
    }

    /// Says whether what entered at another node's gateway does not reach the server through that
    /// node: rule SERVER-FELLOW.
    fn is_of_no_fellow(&mut self, iid: &Iid, node: PeerId, now: Instant) -> bool {
        if !is_dated(iid) {
            return false;
        }
        if self.fellows.look(iid, node, |_| PROOF, now) {
            tracing::info!(
                %node,
                "another node is a client of the same server; what it hands in is not sent there"
            );
        }
        if self.fellows.is_one(node, now) {
            return false;
        }
        self.fellows.note(iid, Some(node), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::iid::{Date, Value};

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

    const SECONDS: u64 = 1_700_000_000;
    const FINE: u64 = 1_700_000_000_123;

    #[test]
    fn each_echo_of_the_server_is_taken_out_once_and_equal_integers_arrive() {
        for date in [0, SECONDS, FINE] {
            let (mut traffic, now) = (Traffic::new(Index(7), OWN), Instant::now());
            let iid = iid(7, date);
            for _ in 0..6 {
                assert!(traffic.is_for_server(&iid, &integers(iid, false, None), now));
            }
            let news = (0..12).filter(|_| traffic.is_news_from_server(&iid, now));
            assert_eq!(news.count(), 6, "{date}: six echoes, six of another client");
        }
    }

    #[test]
    fn what_came_from_the_server_never_goes_back_to_it() {
        let (mut traffic, now) = (Traffic::new(Index(7), OWN), Instant::now());
        let dated = iid(7, FINE);
        assert!(traffic.is_news_from_server(&dated, now));

        assert!(!traffic.is_for_server(&dated, &integers(dated, true, Some(OWN)), now));
        // As another node heard it from the same server.
        let fellow = integers(dated, true, None);
        assert!(!traffic.is_for_server(&dated, &fellow, now));
        let later = iid(7, SECONDS);
        let same_node = Integers {
            source: fellow.source,
            ..integers(later, true, None)
        };
        assert!(!traffic.is_for_server(&later, &same_node, now), "a fellow");
        assert!(traffic.is_for_server(&later, &integers(later, true, None), now));
        let undated = iid(7, 0);
        assert!(!traffic.is_for_server(&undated, &integers(undated, true, None), now));
        assert!(traffic.is_for_server(&undated, &integers(undated, true, Some(ClientId(2))), now));
        let other = iid(8, FINE);
        assert!(!traffic.is_for_server(&other, &integers(other, false, None), now));
    }

    /// The server is a gateway of this mesh: what comes from it is told to the mesh, and so to the
    /// server's clients, of which this node is one.
    #[test]
    fn a_circle_over_a_server_of_this_mesh_ends_and_later_integers_pass_once() {
        for (date, most) in [(0, 257), (SECONDS, 33), (FINE, 33)] {
            let (mut traffic, now) = (Traffic::new(Index(7), OWN), Instant::now());
            let first = iid(7, date);
            assert!(traffic.is_for_server(&first, &integers(first, false, None), now));
            assert!(!traffic.is_news_from_server(&first, now), "the echo");
            // What was sent to the mesh itself, and then what came from the server.
            let mut copies = 0;
            while traffic.is_news_from_server(&first, now) {
                copies += 1;
                assert!(copies <= most, "{date}");
            }
            // Of the next ones, no copy comes in: the echo, and what was sent to the mesh itself.
            for number in 1..200 {
                let next = Iid {
                    value: Value(100 + number),
                    ..first
                };
                let own = integers(next, false, None);
                assert!(traffic.is_for_server(&next, &own, now));
                let news = (0..2).filter(|_| traffic.is_news_from_server(&next, now));
                assert_eq!(news.count(), 0, "{date} {number}");
            }
        }
    }

    #[test]
    fn a_circle_over_this_nodes_own_gateway_ends() {
        let (mut traffic, now) = (Traffic::new(Index(7), OWN), Instant::now());
        let iid = iid(7, FINE);
        let of_client = integers(iid, true, Some(ClientId(2)));
        let mut rounds = 0;
        while traffic.is_for_server(&iid, &of_client, now) {
            rounds += 1;
            assert!(rounds <= 32);
        }
    }

    /// The mesh is faster than the server: a copy by way of another node comes first each time.
    #[test]
    fn a_circle_over_a_fellow_that_is_faster_than_the_server_ends() {
        for date in [SECONDS, FINE] {
            let (mut traffic, now) = (Traffic::new(Index(7), OWN), Instant::now());
            let iid = iid(7, date);
            let fellow = integers(iid, true, None);
            let mut rounds = 0;
            // Each that is sent comes to the fellow, and from there again; and here as an echo.
            traffic.is_for_server(&iid, &fellow, now);
            traffic.is_news_from_server(&iid, now);
            traffic.is_news_from_server(&iid, now);
            while traffic.is_for_server(&iid, &fellow, now) {
                traffic.is_news_from_server(&iid, now);
                rounds += 1;
                assert!(rounds <= 32, "{date}");
            }
        }
    }
}
