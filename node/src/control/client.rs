//! What the command line uses to speak with a running node.

mod history;
mod members;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Frame, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::api::{
    EventBody, EventQuery, Join, NewIntegers, NewInvite, NewMessage, NewP2snMessage, P2snAddress,
    P2snReplied, Status, StreamQuery, Streamed, Vouch,
};
use crate::{
    gateway::{
        DoorReport, iid::upstream::ServerReport, syft::server::ServerReport as SyftServerReport,
        visit::ClientReport,
    },
    proto::{
        mesh::vouched::Vouched,
        syft::door::{Registration, UserBody},
    },
    state::{
        io::{Failure, FailureKind, SendVia},
        post::User,
        report,
    },
};

/// Longest line of a stream, in bytes: an event with a message of 1 MiB, escaped.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest answer that is no stream, in bytes: several times a page of the history. More would fill
/// the memory of a small machine.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the node may be silent before it counts as not answering. It says something each 15 s on
/// a stream (`KEEP_ALIVE` in `server`), and answers a command in far less than this.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How much longer than [`SILENCE_MAX`] the node may take for what itself waits for another
/// machine: each of these ends by its own limit before.
const OTHERS_TIME: Duration = Duration::from_secs(60);

/// How long reading `pimesh.toml` again may take: gateways close and open, and one may have to make
/// an RSA key first.
const RELOAD_TIME: Duration = Duration::from_secs(180);

/// The lines of an answer.
type LineStream = std::pin::Pin<Box<dyn Stream<Item = Result<String, ClientError>> + Send>>;

/// The body of a request.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why the node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("could not reach the node: no socket at `{0}`")]
    NoSocket(PathBuf),
    /// There is a socket, but nobody behind it.
    #[error("could not reach the node: nobody answers at `{0}`")]
    Dead(PathBuf),
    /// The socket cannot be used.
    #[error("could not reach the node at `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer broke off.
    #[error("the node's answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is not what this program expects.
    #[error("the node's answer is not understood; `pimesh doctor` compares versions")]
    NotUnderstood(#[source] serde_json::Error),
    /// The answer, or a line of it, has no end.
    #[error("the node's answer is too long: more than {} MiB", .0 >> 20)]
    TooLong(usize),
    /// Nothing comes, although there is a connection.
    #[error("the node at `{path}` did not answer: nothing came for {} s", waited.as_secs())]
    Silent {
        /// Where it is.
        path: PathBuf,
        /// How long nothing came.
        waited: Duration,
        /// Whether it may do what was asked all the same.
        may_act: bool,
    },
    /// The node takes no connection.
    #[error("the node at `{0}` takes no connections: too many wait already")]
    Busy(PathBuf),
    /// The node says no.
    #[error("{}", .0.message)]
    Failure(Failure),
}

impl ClientError {
    /// Returns what to try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSocket(_) | Self::Dead(_) => {
                Some("start it with `pimesh run`, or name another home with `--home`".to_owned())
            }
            Self::Failure(failure) => failure.hint.clone(),
            Self::Io { .. } => Some(
                "does this user own the node's home folder, or is it in the node's group \
                 (`control.socket_group`)? A user who was put into a group logs in anew"
                    .to_owned(),
            ),
            Self::Silent { may_act: true, .. } => Some(
                "the node may be stopped or very busy, and may still do what was asked; look at \
                 its log, and at `pimesh outbox` or `pimesh status` before trying again"
                    .to_owned(),
            ),
            Self::Silent { may_act: false, .. } | Self::Busy(_) => Some(
                "the node may be stopped or very busy: look at its log, or restart it".to_owned(),
            ),
            Self::TooLong(_) => Some("ask for less, for example with `--limit`".to_owned()),
            Self::Broken(_) | Self::NotUnderstood(_) => None,
        }
    }

    /// Says whether the node is gone, does not answer, or has no place for the question now, so that
    /// the same may work later; otherwise it gave an answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::NoSocket(_)
            | Self::Dead(_)
            | Self::Io { .. }
            | Self::Broken(_)
            | Self::Silent { .. }
            | Self::Busy(_) => true,
            Self::Failure(failure) => failure.kind == FailureKind::Unavailable,
            Self::NotUnderstood(_) | Self::TooLong(_) => false,
        }
    }
}

/// A way to a running node. Each call has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// How long the node may be silent.
    silence: Duration,
}

impl Client {
    /// Will speak with the node behind this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            silence: SILENCE_MAX,
        }
    }

    /// Lets the node be silent for this long instead of [`SILENCE_MAX`].
    #[must_use]
    pub fn patient(&self, silence: Duration) -> Self {
        Self {
            silence,
            ..self.clone()
        }
    }

    /// Returns the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns how the node is.
    ///
    /// # Errors
    /// As all calls: why there is no answer, or the node's own failure.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Returns the members.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn peers(&self) -> Result<Vec<report::Peer>, ClientError> {
        self.get("/v1/peers").await
    }

    /// Takes a member out of the mesh.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn remove(&self, peer: &str) -> Result<report::Removed, ClientError> {
        self.call(
            Method::DELETE,
            &format!("/v1/peers/{}", escape(peer)),
            None::<()>,
        )
        .await
    }

    /// Accepts a member's changed RSA key.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn trust(&self, peer: &str) -> Result<report::Trusted, ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/peers/{}/trust", escape(peer)),
            None::<()>,
        )
        .await
    }

    /// Changes what a member may speak for as a gateway.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn vouch(
        &self,
        peer: &str,
        vouched: Vouched,
    ) -> Result<report::Vouched, ClientError> {
        let path = format!("/v1/peers/{}/vouch", escape(peer));
        self.call(Method::POST, &path, Some(Vouch { vouched }))
            .await
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn invite(&self, invite: &NewInvite) -> Result<report::Invite, ClientError> {
        self.call(Method::POST, "/v1/invites", Some(invite)).await
    }

    /// Enters a mesh.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn join(&self, ticket: String) -> Result<report::Joined, ClientError> {
        let patient = self.patient(self.silence + OTHERS_TIME);
        patient
            .call(Method::POST, "/v1/join", Some(Join { ticket }))
            .await
    }

    /// Sends a message; returns once it is on disk.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn send(&self, message: &NewMessage) -> Result<Vec<report::Accepted>, ClientError> {
        let patient = match message.via {
            SendVia::Direct => self.clone(),
            SendVia::P2sn => self.patient(self.silence + OTHERS_TIME),
        };
        patient
            .call(Method::POST, "/v1/messages", Some(message))
            .await
    }

    /// Returns messages that wait.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn outbox(&self) -> Result<Vec<report::Pending>, ClientError> {
        self.get("/v1/outbox").await
    }

    /// Broadcasts integers.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn publish(&self, integers: &NewIntegers) -> Result<report::Published, ClientError> {
        self.call(Method::POST, "/v1/integers", Some(integers))
            .await
    }

    /// Broadcasts integers that come piece by piece, as text with white space between them; returns
    /// when the last one is out. That takes as long as the text does, and as the node's budget needs.
    ///
    /// # Errors
    /// See [`Self::status`]. What came before the error is out.
    pub async fn publish_stream(
        &self,
        query: &StreamQuery,
        text: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Streamed, ClientError> {
        let path = with_query("/v1/integers/stream", query)?;
        let frames = futures::StreamExt::map(text, |piece| piece.map(Frame::data));
        let body = BodyExt::boxed_unsync(StreamBody::new(frames));
        let answer = self.request(Method::POST, &path, body).await?;
        decode(&self.collect(answer).await?)
    }

    /// Returns the last integer of each index.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn last_integers(&self) -> Result<Vec<report::Integer>, ClientError> {
        self.get("/v1/integers").await
    }

    /// Has the node read `pimesh.toml` again.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn reload(&self) -> Result<(), ClientError> {
        let patient = self.patient(self.silence.max(RELOAD_TIME));
        patient.call(Method::POST, "/v1/reload", None::<()>).await
    }

    /// Returns the Syft servers that the node is a client of.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn syft_servers(&self) -> Result<Vec<SyftServerReport>, ClientError> {
        self.get("/v1/gateways/syft/servers").await
    }

    /// Returns everybody who can be written to: users of all doors, and the members themselves.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("/v1/users").await
    }

    /// Makes somebody a user of this node's door, by the rules by which he would register himself.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn add_user(&self, user: &Registration) -> Result<UserBody, ClientError> {
        self.call(Method::POST, "/v1/users", Some(user)).await
    }

    /// Takes a user of this node's door out, with what waits for him.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn forget_user(&self, user: &str) -> Result<(), ClientError> {
        let path = format!("/v1/users/{}", escape(user));
        self.call(Method::DELETE, &path, None::<()>).await
    }

    /// Returns the doors for older clients.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn gateways(&self) -> Result<Vec<DoorReport>, ClientError> {
        self.get("/v1/gateways").await
    }

    /// Returns the APIntIO servers that the node is a client of.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn iid_servers(&self) -> Result<Vec<ServerReport>, ClientError> {
        self.get("/v1/gateways/iid/servers").await
    }

    /// Returns the clients behind them.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn clients(&self) -> Result<Vec<ClientReport>, ClientError> {
        self.get("/v1/clients").await
    }

    /// Sends a message to a plain P2SN server, and returns its reply.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_send(&self, message: &NewP2snMessage) -> Result<P2snReplied, ClientError> {
        let own = message.timeout_s.map(Duration::from_secs);
        let patient = self.patient(self.silence.saturating_add(own.unwrap_or(OTHERS_TIME)));
        patient
            .call(Method::POST, "/v1/p2sn/send", Some(message))
            .await
    }

    /// Returns the keys of old P2SN clients and servers.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_keys(&self) -> Result<Vec<report::P2snKey>, ClientError> {
        self.get("/v1/p2sn/keys").await
    }

    /// Accepts the key that was refused at this address.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_trust(
        &self,
        address: &P2snAddress,
    ) -> Result<Vec<report::P2snKey>, ClientError> {
        self.call(Method::POST, "/v1/p2sn/trust", Some(address))
            .await
    }

    /// Takes away the keys that are pinned to this address.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_forget(
        &self,
        address: &P2snAddress,
    ) -> Result<Vec<report::P2snKey>, ClientError> {
        self.call(Method::POST, "/v1/p2sn/forget", Some(address))
            .await
    }

    /// Sends clients away: the one with this number, or all with this name.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn kick(&self, who: &str) -> Result<Vec<ClientReport>, ClientError> {
        let path = format!("/v1/clients/{}", escape(who));
        self.call(Method::DELETE, &path, None::<()>).await
    }

    /// Returns the counters.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let bytes = self.bytes(Method::GET, "/metrics", None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Follows everything that happens. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        self.follow("/v1/events").await
    }

    /// Follows events of these [`KINDS`](super::api::KINDS); [`EventBody::Lagged`] comes in any
    /// case. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events_of(
        &self,
        kinds: &[&str],
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        let kinds = Some(kinds.join(","));
        self.follow(&with_query("/v1/events", &EventQuery { kinds })?)
            .await
    }

    /// Follows integers, each as one line of JSON. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn integer_lines(
        &self,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        self.lines("/v1/integers/stream").await
    }

    async fn follow(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        let lines = self.lines(path).await?;
        let events = futures::StreamExt::filter_map(lines, |line| async {
            match line {
                Ok(line) => line.strip_prefix("data: ").map(|d| decode(d.as_bytes())),
                Err(error) => Some(Err(error)),
            }
        });
        Ok(Box::pin(events))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(|body| serde_json::to_vec(&body)).transpose();
        let body = body.map_err(ClientError::NotUnderstood)?;
        decode(&self.bytes(method, path, body).await?)
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let may_act = method != Method::GET;
        let body = whole(body.unwrap_or_default());
        let answer = self
            .in_time(may_act, self.request(method, path, body))
            .await??;
        self.collect(answer).await
    }

    /// Reads the lines of an answer without end. The first line says that it has begun.
    async fn lines(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        let answer = self.request(Method::GET, path, whole(Vec::new()));
        let body = self.in_time(false, answer).await??;
        let start = (self.clone(), body, Lines::default());
        let mut lines = Box::pin(futures::stream::try_unfold(
            start,
            |(client, mut body, mut lines)| async move {
                loop {
                    if let Some(line) = lines.next() {
                        return Ok(Some((line, (client, body, lines))));
                    }
                    let Some(data) = client.piece(&mut body).await? else {
                        return Ok(None);
                    };
                    lines.push(&data)?;
                }
            },
        ));
        // Wait for the first line: from then on the node has this reader on its list.
        futures::StreamExt::next(&mut lines).await.transpose()?;
        Ok(lines)
    }

    /// Waits for the node no longer than it may be silent.
    async fn in_time<T>(
        &self,
        may_act: bool,
        answer: impl Future<Output = T>,
    ) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(self.silence, answer).await;
        answer.map_err(|_| ClientError::Silent {
            path: self.socket.clone(),
            waited: self.silence,
            may_act,
        })
    }

    /// Reads the next piece of an answer.
    async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.in_time(false, body.frame()).await? else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    async fn collect(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLong(ANSWER_BYTES_MAX));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let path = self.socket.clone();
            match source.kind() {
                std::io::ErrorKind::NotFound => ClientError::NoSocket(path),
                std::io::ErrorKind::ConnectionRefused => ClientError::Dead(path),
                // The queue of a unix socket is full: nobody takes connections out of it.
                std::io::ErrorKind::WouldBlock => ClientError::Busy(path),
                _ => ClientError::Io { path, source },
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "pimesh")
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| ClientError::Io {
                path: self.socket.clone(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
            })?;
        let response = sender
            .send_request(request)
            .await
            .map_err(ClientError::Broken)?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let bytes = self.collect(response.into_body()).await?;
        let failure = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            Failure::unavailable(String::from_utf8_lossy(&bytes).trim().to_owned())
        });
        Err(ClientError::Failure(failure))
    }
}

/// Cuts lines out of pieces. Each byte is looked at once and moved once, however long a piece is.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    taken: usize,
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), ClientError> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        // What is left is the beginning of one line.
        if self.bytes.len() > LINE_BYTES_MAX {
            return Err(ClientError::TooLong(LINE_BYTES_MAX));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        let rest = &self.bytes[self.searched..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + end;
        let line = String::from_utf8_lossy(&self.bytes[self.taken..end]);
        let line = line.trim_end().to_owned();
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(ClientError::NotUnderstood)
}

/// Puts the fields of a query behind a path.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, ClientError> {
    let fields = serde_json::to_value(query).map_err(ClientError::NotUnderstood)?;
    let fields = fields.as_object().cloned().unwrap_or_default();
    let pair = |(key, value): (&String, &serde_json::Value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        format!("{key}={}", escape(&value))
    };
    let pairs: Vec<String> = fields.iter().map(pair).collect();
    Ok(format!("{path}?{}", pairs.join("&")))
}

/// Escapes what may not stand in a path or a query (RFC 3986, section 2.3).
fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string cannot fail");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::HistoryQuery;

    #[test]
    fn lines_come_out_wherever_the_answer_is_cut() {
        let text = "one\n\ntwo\r\nthree\n";

        for cut in 0..=text.len() {
            let (mut lines, mut all) = (Lines::default(), Vec::new());
            for piece in [&text[..cut], &text[cut..]] {
                lines.push(piece.as_bytes()).expect("short");
                all.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(all, ["one", "", "two", "three"], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];

        assert!(lines.push(&piece).is_ok());
        assert!(lines.push(&piece).is_ok() && lines.next().is_none());
        assert!(matches!(lines.push(&piece), Err(ClientError::TooLong(_))));
    }

    #[test]
    fn what_may_not_stand_in_a_query_is_escaped() {
        let query = HistoryQuery {
            peer: Some("a b/ü&=".to_owned()),
            limit: Some(7),
            ..HistoryQuery::default()
        };

        let path = with_query("/v1/messages", &query).expect("encodes");

        assert_eq!(
            path,
            "/v1/messages?limit=7&peer=a%20b%2F%C3%BC%26%3D&way=received"
        );
    }
}
