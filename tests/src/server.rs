//! A Syft server of the test's own: it answers HTTP as the test says, and hands out WebSockets.

use std::sync::Arc;

use anyhow::{Context, ensure};
use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::WebSocketStream;

/// Longest request or answer that is read, in bytes.
const BYTES_MAX: usize = 64 * 1024;

/// A request: its path with the query, and its body.
pub type Request = (String, String);

/// A status, further header lines (each with its line end) and a body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines.
    pub headers: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Makes an answer without further header lines.
    #[must_use]
    pub fn new(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            headers: "",
            body: body.to_string(),
        }
    }
}

/// A server on loopback; it ends with this value.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub url: String,
    /// WebSockets that were opened at it.
    pub sockets: mpsc::UnboundedReceiver<WebSocketStream<TcpStream>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// Fails if there is no port.
    pub async fn start(
        answer: impl Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (opened, sockets) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, opened) = (Arc::clone(&answer), opened.clone());
                tokio::spawn(async move { serve(stream, &*answer, &opened).await });
            }
        });
        Ok(Self { url, sockets, task })
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync),
    opened: &mpsc::UnboundedSender<WebSocketStream<TcpStream>>,
) -> anyhow::Result<()> {
    let mut start = [0; 7];
    while stream.peek(&mut start).await? < start.len() {
        tokio::task::yield_now().await;
    }
    if &start == b"GET /ws" {
        let socket = tokio_tungstenite::accept_async(stream).await?;
        return opened.send(socket).context("the test has ended");
    }
    let (head, body) = read(&mut stream).await?;
    let path = head.split(' ').nth(1).context("a path")?.to_owned();
    let Answer {
        status,
        headers,
        body,
    } = answer((path, body)).await;
    let length = body.len();
    let text = format!("HTTP/1.1 {status} -\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    Ok(stream.write_all(text.as_bytes()).await?)
}

/// Makes a request with a JSON body; returns the status and the body.
///
/// # Errors
/// Fails if there is no answer.
pub async fn post(url: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let authority = url.strip_prefix("http://").context("http")?;
    let mut stream = TcpStream::connect(authority).await?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let (head, body) = read(&mut stream).await?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body))
}

/// Reads a head and as much body as it announces.
async fn read(stream: &mut TcpStream) -> anyhow::Result<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| {
                let value = line.strip_prefix("content-length:")?;
                value.trim().parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        ensure!(bytes.len() < BYTES_MAX, "too long");
        ensure!(stream.read_buf(&mut bytes).await? > 0, "closed: {text}");
    }
}
