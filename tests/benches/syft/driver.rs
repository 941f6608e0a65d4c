//! Users of a Syft server as the driver plays them, the same for the gateway and for the relays.
//!
//! Letters are sealed and signed in advance, as the Python client writes them: a time in
//! microseconds, and a signature over the nanoseconds that went through its floats.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{Stream, StreamExt, stream::SplitStream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use pimesh_node::proto::syft::{
    self as proto, SealChance, SigningKey, Timestamp,
    http::{ChallengeBody, TokenBody},
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Bytes, Message, Utf8Bytes},
};

/// A connection of a user.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// A letter as it goes into a socket, and the time in it, which no other letter of this run has.
pub(crate) struct Letter {
    pub(crate) frame: Message,
    pub(crate) time: String,
}

/// A user, and the key that says so.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    key: SigningKey,
}

/// A kept connection for requests.
pub(crate) struct Http {
    requests: SendRequest<Full<Bytes>>,
    host: String,
}

impl Http {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with `requests`.
        tokio::spawn(connection);
        let host = address.to_string();
        Ok(Self { requests, host })
    }

    async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Bytes> {
        let request = Request::post(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.to_string().into()))?;
        self.requests.ready().await?;
        let (head, body) = self.requests.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(head.status.is_success(), "{path}: {} {body:?}", head.status);
        Ok(body)
    }
}

impl User {
    /// Makes a user; each name has a key of its own.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let mut seed = [7; 32];
        for (byte, of_name) in seed.iter_mut().zip(name.bytes()) {
            *byte = of_name;
        }
        let key = SigningKey::from_seed(&seed);
        Self { name, key }
    }

    pub(crate) async fn register(&self, http: &mut Http) -> anyhow::Result<()> {
        let key = self.key.public().to_base64();
        let body = json!({"user_id": self.name, "username": self.name, "public_key": key});
        http.post("/auth/register", &body).await?;
        Ok(())
    }

    /// Logs in with both steps, and returns the token.
    pub(crate) async fn login(&self, http: &mut Http) -> anyhow::Result<String> {
        let name = &self.name;
        let answer = http.post("/auth/login", &json!({"user_id": name})).await?;
        let challenge = serde_json::from_slice::<ChallengeBody>(&answer)?.challenge;
        let signature = STANDARD.encode(self.key.sign(challenge.as_bytes()));
        let body = json!({"user_id": name, "signature": signature});
        let answer = http.post("/auth/login?verify=true", &body).await?;
        Ok(serde_json::from_slice::<TokenBody>(&answer)?.token)
    }

    /// Connects with a token.
    pub(crate) async fn connect(&self, at: SocketAddr, token: &str) -> anyhow::Result<Socket> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{at}/ws?token={token}");
        let (socket, _) = client_async(url, stream).await?;
        Ok(socket)
    }

    /// Writes so many letters, no two the same in all of this run.
    pub(crate) fn letters(&self, to: &Self, count: usize) -> Vec<Letter> {
        static LAST_MICROS: AtomicU64 = AtomicU64::new(0);
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let chance = SealChance::from_rng(&mut rng);
        let content = proto::seal("the door to the garden is open", to.key.public(), &chance);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let first = LAST_MICROS
            .fetch_add(count as u64, Ordering::Relaxed)
            .wrapping_add(now);
        let letter = |micros| self.letter(to, &content, micros);
        (first..).take(count).map(letter).collect()
    }

    fn letter(&self, to: &Self, content: &str, micros: u64) -> Letter {
        let second = Timestamp::on_grid(micros / 1_000_000 * 1_000);
        let second = second.as_str().trim_end_matches(".000Z");
        let time = Timestamp::from_text(format!("{second}.{:06}+00:00", micros % 1_000_000));
        let nanos = time.python_nanos().unwrap_or_default();
        let signed = format!("{}|{}|{nanos}|{content}", self.name, to.name);
        let frame = json!({
            "from": self.name,
            "to": to.name,
            "content": content,
            "is_forward_message": false,
            "timestamp": time.as_str(),
            "signature": STANDARD.encode(self.key.sign(signed.as_bytes())),
        });
        Letter {
            frame: Message::text(frame.to_string()),
            time: time.as_str().to_owned(),
        }
    }
}

/// Waits for a letter; none may come before it. Pings are answered on the way.
pub(crate) async fn heard(
    stream: &mut (impl Heard + Unpin),
    letter: &Letter,
) -> anyhow::Result<()> {
    let text = next_text(stream).await?;
    let time = &letter.time;
    ensure!(text.contains(time), "not the letter of {time} but {text}");
    Ok(())
}

/// Reads for a user who only writes: pings want answers. Returns what comes instead of silence.
pub(crate) async fn refused(mut stream: SplitStream<Socket>) -> anyhow::Error {
    match next_text(&mut stream).await {
        Ok(text) => anyhow!("the server says to a sender: {text}"),
        Err(error) => error,
    }
}

async fn next_text(stream: &mut (impl Heard + Unpin)) -> anyhow::Result<Utf8Bytes> {
    loop {
        match stream.next().await.context("the connection ended")?? {
            Message::Text(text) => return Ok(text),
            Message::Close(why) => bail!("the server closes: {why:?}"),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// What comes from a server.
pub(crate) trait Heard: Stream<Item = tungstenite::Result<Message>> {}

impl<S: Stream<Item = tungstenite::Result<Message>>> Heard for S {}
