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
    time::timeout,
};
use tokio_tungstenite::{
    Connector,
    tungstenite::{self, protocol::WebSocketConfig},
};

use crate::{
    config::gateway::syft::SyftServer,
    gateway::{
        paced::{self, PacedSocket},
        tls,
    },
    limits::Rate,
    proto::{server::ServerUrl, syft::FRAME_BYTES_MAX},
};

/// How long a request, or a connection, may take.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// How much is read of a server, whatever it is: interim answers and empty frames too. A message of
/// the greatest length needs some seconds; `share` says how many there may be.
const READ_RATE: Rate = Rate {
    per_second: 512 * 1024,
    burst: 4 * 1024 * 1024,
};

/// Longest answer of HTTP that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How much of an answer that says no is handed on, in bytes.
const ANSWER_BYTES_SHOWN: usize = 200;

/// A connection that ended, or was not to be had.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is tried again soon.
    Later(String),
    /// The server does not accept the proof of the key: it is tried again after minutes.
    Refused(String),
}

/// A status and a body.
pub(super) type Answered = (StatusCode, Bytes);

/// A connection for messages.
pub(super) type Socket = PacedSocket;

/// A server, with the certificates that are believed at the moment.
pub(super) struct Site {
    url: ServerUrl,
    tls: Arc<ClientConfig>,
}

impl Site {
    pub(super) fn new(server: &SyftServer) -> Self {
        let tls = match server.fingerprint {
            Some(sha256) => tls::pinned_client_config(sha256),
            None => tls::client_config(),
        };
        let url = server.url.clone();
        Self { url, tls }
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
            .uri(format!("{}{path}", self.url.prefix()))
            .header("host", self.url.authority())
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Ended::Later(error.to_string()))?;
        let answering = async {
            let stream = paced::connect(&self.url, READ_RATE).await;
            let stream = stream.map_err(|error| Ended::Later(error.to_string()))?;
            if !self.url.is_secure() {
                return ask(stream, request).await;
            }
            let name = ServerName::try_from(self.url.host().to_owned());
            let name = name.map_err(|error| Ended::Later(error.to_string()))?;
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
        let url = self.url.to_string().replacen("http", "ws", 1);
        let url = format!("{url}/ws?token={token}");
        let connector = Connector::Rustls(Arc::clone(&self.tls));
        let opening = paced::web_socket(&url, &self.url, READ_RATE, limits, connector);
        match timeout(REQUEST_TIME, opening).await {
            Ok(Ok(socket)) => Ok(socket),
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

/// Reads an answer. Whatever else came than what is expected, it may come from something in
/// between, such as the login page of a network, and is no reason to give up.
pub(super) fn parsed<T: DeserializeOwned>(what: &str, answer: Answered) -> Result<T, Ended> {
    if answer.0 == StatusCode::OK
        && let Ok(body) = serde_json::from_slice(&answer.1)
    {
        return Ok(body);
    }
    Err(Ended::Later(said(what, &answer)))
}

/// Says what an answer was, with the beginning of its text.
pub(super) fn said(what: &str, (status, bytes): &Answered) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(ANSWER_BYTES_SHOWN)]);
    let text = text.trim();
    if status.is_redirection() {
        format!("{what} was redirected ({status}): a login page of the network may be in between")
    } else if text.starts_with('<') {
        format!(
            "{what} was answered with a web page ({status}): a login page of the network may be \
             in between, or this is no Syft server"
        )
    } else if *status == StatusCode::OK {
        format!("{what} was answered with something else than a Syft server has")
    } else {
        format!("{what} was answered {status}: {text}")
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;
    use crate::{gateway::paced::Paced, proto::syft::http::TokenBody};

    #[tokio::test(start_paused = true)]
    async fn interim_answers_without_end_cost_no_more_than_their_bytes_and_end_in_time() {
        const RATE: Rate = Rate {
            per_second: 10_000,
            burst: 20_000,
        };
        // Many times as much as is read: where nothing limits that, the test fails and ends.
        const ENDLESS: usize = 10_000_000;
        const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let (near, mut far) = tokio::io::duplex(1024);
        let endless = tokio::spawn(async move {
            let mut sent = 0;
            // Behind the request, as an answer has to be.
            far.read_exact(&mut [0; 16]).await.expect("a request");
            while sent < ENDLESS && far.write_all(INTERIM).await.is_ok() {
                sent += INTERIM.len();
            }
            sent
        });
        let request = Request::builder().uri("/auth/login");
        let request = request.body(Full::default()).expect("a request");
        let begun = Instant::now();

        let asked = ask(Paced::new(near, RATE), request);
        let answered = timeout(REQUEST_TIME, asked).await;

        assert!(answered.is_err(), "{answered:?}");
        let sent = endless.await.expect("the connection is closed");
        let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few");
        assert!(seconds <= 22, "closed after {seconds} s");
        assert!(sent <= 20_000 + seconds * 10_000 + 1024, "{sent} bytes");
    }

    #[test]
    fn a_user_id_stands_in_a_path_so_that_it_is_decoded_once() {
        assert_eq!(encoded("bob+x@example.org"), "bob%2Bx%40example.org");
        assert_eq!(encoded("bób/%"), "b%C3%B3b%2F%25");
    }

    #[test]
    fn no_answer_ends_it_for_good_and_each_says_what_it_was() {
        for (status, body, says) in [
            (401, "{\"error\":\"who\"}", "401 Unauthorized: {\"error\""),
            (429, "", "429"),
            (200, "<!DOCTYPE html><html>", "web page"),
            (403, " <html>Log in to the hotel", "web page"),
            (302, "", "redirected"),
            (511, "{}", "511"),
            (200, "{\"token\":7}", "something else"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = (status, Bytes::from_static(body.as_bytes()));
            let Err(Ended::Later(reason)) = parsed::<TokenBody>("the login", answer) else {
                panic!("{status} {body}");
            };
            assert!(reason.contains(says), "{reason}");
        }
    }
}
