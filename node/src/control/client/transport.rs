//! One request and its answer, on a connection of its own.

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{Client, ClientError};
use crate::state::io::Failure;

/// Longest answer that is no stream, in bytes: several times a page of the history. More would fill
/// the memory of a small machine.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Client {
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<()>).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(|body| serde_json::to_vec(&body)).transpose();
        let body = body.map_err(ClientError::NotUnderstood)?;
        decode(&self.bytes(method, path, body).await?)
    }

    pub(super) async fn bytes(
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

    pub(super) async fn request(
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

    pub(super) async fn collect(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLong(ANSWER_BYTES_MAX));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads the next piece of an answer.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.in_time(false, body.frame()).await? else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Waits for the node no longer than it may be silent.
    pub(super) async fn in_time<T>(
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
}

pub(super) fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(ClientError::NotUnderstood)
}

/// Puts the fields of a query behind a path.
pub(super) fn with_query(path: &str, query: &impl Serialize) -> Result<String, ClientError> {
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
pub(super) fn escape(text: &str) -> String {
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
