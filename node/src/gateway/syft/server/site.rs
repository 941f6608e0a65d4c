//! Where a Syft server is, and how it is asked: HTTP with a connection for each request, and the
//! WebSocket. What is asked, and what follows from the answers, is not in here.

use std::{io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};

use crate::{config::gateway::SyftServer, gateway::tls, proto::syft::FRAME_BYTES_MAX};

/// How long a request, or a connection, may take.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// Longest answer of HTTP that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection that ended, or was not to be had.
#[derive(Debug)]
pub(super) enum Ended {
    /// It may be better later.
    Later(String),
    /// It will not be better by itself.
    Refused(String),
}

/// A status and a body.
pub(super) type Answered = (StatusCode, Bytes);

/// A connection for messages.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server, with the certificates that are believed at the moment.
pub(super) struct Site {
    /// Without a slash at the end.
    url: String,
    is_secure: bool,
    /// What stands between `//` and the next slash.
    authority: String,
    host: String,
    port: u16,
    /// What comes before all paths; empty, or begins with a slash.
    prefix: String,
    tls: Arc<ClientConfig>,
}

impl Site {
    pub(super) fn new(server: &SyftServer) -> Result<Self, Ended> {
        let tls = match server.fingerprint {
            Some(sha256) => tls::pinned_client_config(sha256),
            None => tls::client_config(),
        };
        Self::at(&server.url, tls).ok_or_else(|| Ended::Refused("the URL is none".to_owned()))
    }

    fn at(url: &str, tls: Arc<ClientConfig>) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let (scheme, rest) = url.split_once("://")?;
        let is_secure = scheme == "https";
        let (authority, prefix) = match rest.split_once('/') {
            Some((authority, prefix)) => (authority, format!("/{prefix}")),
            None => (rest, String::new()),
        };
        let with_port = authority.rsplit_once(':');
        let with_port = with_port.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = with_port.unwrap_or((authority, if is_secure { 443 } else { 80 }));
        Some(Self {
            url: url.to_owned(),
            is_secure,
            authority: authority.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            prefix,
            tls,
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answered, Ended> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answered, Ended> {
        let body = serde_json::to_vec(body).expect("texts are JSON");
        self.request(Method::POST, path, body.into()).await
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Answered, Ended> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Ended::Refused(error.to_string()))?;
        let answering = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| Ended::Later(error.to_string()))?;
            if !self.is_secure {
                return ask(stream, request).await;
            }
            let name = ServerName::try_from(self.host.clone());
            let name = name.map_err(|error| Ended::Refused(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector.connect(name, stream).await;
            ask(stream.map_err(|error| insecure(&error))?, request).await
        };
        let late = |_| Ended::Later("the server took too long".to_owned());
        timeout(REQUEST_TIME, answering).await.map_err(late)?
    }

    /// Opens the connection for messages.
    pub(super) async fn socket(&self, token: &str) -> Result<Socket, Ended> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let url = format!("{}/ws?token={token}", self.url.replacen("http", "ws", 1));
        let connector = Connector::Rustls(Arc::clone(&self.tls));
        let opening = connect_async_tls_with_config(&url, Some(limits), true, Some(connector));
        match timeout(REQUEST_TIME, opening).await {
            Ok(Ok((socket, _))) => Ok(socket),
            // With a new login the next attempt may be taken. The error must not show the URL.
            Ok(Err(tungstenite::Error::Http(answer))) => {
                Err(Ended::Later(format!("/ws answered {}", answer.status())))
            }
            Ok(Err(tungstenite::Error::Io(error))) => Err(insecure(&error)),
            Ok(Err(_)) => Err(Ended::Later("no WebSocket was to be had".to_owned())),
            Err(_) => Err(Ended::Later("connecting took too long".to_owned())),
        }
    }
}

/// Says why there is no TLS; of a certificate what can be done about it. The server may get another
/// certificate, so it is tried again.
fn insecure(error: &io::Error) -> Ended {
    let cause = error.get_ref();
    let cause = cause.and_then(|cause| cause.downcast_ref::<rustls::Error>());
    Ended::Later(match cause {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        )) => "the certificate of the server is not the one with the given `--fingerprint`; \
               another server may have answered"
            .to_owned(),
        Some(error @ rustls::Error::InvalidCertificate(_)) => format!(
            "this system does not trust the certificate of the server ({error}); if it is one of \
             its own, connect with `--fingerprint` and what `pimesh gateway syft fingerprint` \
             prints there"
        ),
        _ => error.to_string(),
    })
}

/// Makes one request on a connection of its own.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answered, Ended> {
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
pub(super) fn parsed<T: DeserializeOwned>((status, bytes): Answered) -> Result<T, Ended> {
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

/// Encodes a path parameter: everything but letters, digits and `-._~`.
pub(super) fn encoded(text: &str) -> String {
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
    use crate::proto::syft::door::TokenBody;

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

    #[test]
    fn a_url_is_taken_apart() {
        let tls = tls::client_config();
        for (url, is_secure, host, port, prefix) in [
            ("http://a.example", false, "a.example", 80, ""),
            ("https://a.example/", true, "a.example", 443, ""),
            ("https://a.example:8443", true, "a.example", 8443, ""),
            ("https://[::1]:8443/x/y/", true, "::1", 8443, "/x/y"),
            ("http://[::1]", false, "::1", 80, ""),
        ] {
            let site = Site::at(url, Arc::clone(&tls)).expect("a URL");
            let Site {
                is_secure: s,
                host: h,
                port: p,
                prefix: x,
                ..
            } = site;
            assert_eq!(
                (s, h.as_str(), p, x.as_str()),
                (is_secure, host, port, prefix),
                "{url}"
            );
        }
        assert!(Site::at("a.example", tls).is_none());
    }
}
