//! What the command line uses to speak with a running node.

use std::path::{Path, PathBuf};

use futures::Stream;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::api::{
    EventBody, HistoryQuery, HistoryRow, Join, NewIntegers, NewInvite, NewMessage, Status,
};
use crate::state::{io::Failure, report};

/// Longest line of a stream, in bytes: an event with a message of 1 MiB, escaped.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

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
            Self::Io { .. } => Some("does this user own the node's home folder?".to_owned()),
            Self::Broken(_) | Self::NotUnderstood(_) => None,
        }
    }
}

/// A way to a running node. Each call has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Will speak with the node behind this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
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
        self.call(Method::POST, "/v1/join", Some(Join { ticket }))
            .await
    }

    /// Sends a message; returns once it is on disk.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn send(&self, message: &NewMessage) -> Result<Vec<report::Accepted>, ClientError> {
        self.call(Method::POST, "/v1/messages", Some(message)).await
    }

    /// Returns messages that are on disk.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, ClientError> {
        let pairs = serde_json::to_value(query).map_err(ClientError::NotUnderstood)?;
        let pairs = pairs.as_object().cloned().unwrap_or_default();
        let query: Vec<String> = pairs
            .iter()
            .map(|(key, value)| {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                format!("{key}={}", escape(&value))
            })
            .collect();
        self.get(&format!("/v1/messages?{}", query.join("&"))).await
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

    /// Returns the last integer of each index.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn last_integers(&self) -> Result<Vec<report::Integer>, ClientError> {
        self.get("/v1/integers").await
    }

    /// Returns the counters.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let bytes = self.bytes(Method::GET, "/metrics", None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Follows what happens. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        let lines = self.lines("/v1/events").await?;
        let events = futures::StreamExt::filter_map(lines, |line| async {
            match line {
                Ok(line) => line
                    .strip_prefix("data: ")
                    .map(|data| serde_json::from_str(data).map_err(ClientError::NotUnderstood)),
                Err(error) => Some(Err(error)),
            }
        });
        Ok(Box::pin(events))
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
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(ClientError::NotUnderstood)
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let body = self.request(method, path, body).await?;
        Ok(body
            .collect()
            .await
            .map_err(ClientError::Broken)?
            .to_bytes())
    }

    /// Reads the lines of an answer without end. The first line says that it has begun.
    async fn lines(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        let body = self.request(Method::GET, path, None).await?;
        let mut lines = Box::pin(futures::stream::try_unfold(
            (body, Vec::<u8>::new()),
            |(mut body, mut buffer)| async move {
                loop {
                    if let Some(end) = buffer.iter().position(|&b| b == b'\n') {
                        let line: Vec<u8> = buffer.drain(..=end).collect();
                        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                        return Ok(Some((line, (body, buffer))));
                    }
                    let Some(frame) = body.frame().await else {
                        return Ok(None);
                    };
                    let frame = frame.map_err(ClientError::Broken)?;
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                    if buffer.len() > LINE_BYTES_MAX {
                        return Ok(None);
                    }
                }
            },
        ));
        // Wait for the first line: from then on the node has this reader on its list.
        futures::StreamExt::next(&mut lines).await.transpose()?;
        Ok(lines)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let path = self.socket.clone();
            match source.kind() {
                std::io::ErrorKind::NotFound => ClientError::NoSocket(path),
                std::io::ErrorKind::ConnectionRefused => ClientError::Dead(path),
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
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
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
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(ClientError::Broken)?
            .to_bytes();
        let failure = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            Failure::unavailable(String::from_utf8_lossy(&bytes).trim().to_owned())
        });
        Err(ClientError::Failure(failure))
    }
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
