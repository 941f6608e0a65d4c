//! A connection to a server of which no more is read than so many bytes a second.
//!
//! A server that this node is a client of decides what it sends: integers without end, interim
//! answers, empty frames. Whatever it is, it costs no more than its bytes, and what is not read
//! holds the server back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};

use crate::{
    limits::{Bucket, Rate},
    proto::server::ServerUrl,
};

/// Most bytes that are read at once.
const CHUNK_BYTES: u32 = 8 * 1024;

/// A WebSocket to a server, read at a limited rate.
pub(crate) type PacedSocket = WebSocketStream<MaybeTlsStream<Paced<TcpStream>>>;

/// A connection that is read at a limited rate.
#[derive(Debug)]
pub(crate) struct Paced<I> {
    io: I,
    bucket: Bucket,
    began: Instant,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I> Paced<I> {
    /// Reads no more bytes than `rate` says; its burst is at least [`CHUNK_BYTES`].
    pub(crate) fn new(io: I, rate: Rate) -> Self {
        Self {
            io,
            bucket: Bucket::new(rate),
            began: Instant::now(),
            waiting: None,
        }
    }
}

/// Connects to a server, and reads from it at a limited rate.
pub(crate) async fn connect(url: &ServerUrl, rate: Rate) -> io::Result<Paced<TcpStream>> {
    let stream = TcpStream::connect((url.host(), url.port())).await?;
    stream.set_nodelay(true)?;
    Ok(Paced::new(stream, rate))
}

/// Opens a WebSocket at an address of a server, and reads from it at a limited rate.
pub(crate) async fn web_socket(
    address: &str,
    url: &ServerUrl,
    rate: Rate,
    limits: WebSocketConfig,
    connector: Connector,
) -> Result<PacedSocket, tungstenite::Error> {
    let stream = connect(url, rate).await?;
    let (socket, _) =
        client_async_tls_with_config(address, stream, Some(limits), Some(connector)).await?;
    Ok(socket)
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ready_at = |bucket: &Bucket, began: Instant| {
            let now = began.elapsed();
            let at = bucket.ready_at(CHUNK_BYTES, now);
            (at > now).then(|| began + at)
        };
        while let Some(at) = ready_at(&this.bucket, this.began) {
            let wait = this
                .waiting
                .get_or_insert_with(|| Box::pin(sleep_until(at)));
            ready!(wait.as_mut().poll(cx));
            this.waiting = None;
        }
        let most = buffer.remaining().min(CHUNK_BYTES as usize);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        // There is enough for a whole chunk.
        this.bucket.take_units(
            u32::try_from(read).unwrap_or(CHUNK_BYTES),
            this.began.elapsed(),
        );
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::{
        Message,
        protocol::{
            Role,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    };

    use super::*;

    const RATE: Rate = Rate {
        per_second: 10_000,
        burst: 20_000,
    };

    /// What stands for no end, in bytes or frames: many times as much as may be read. Where nothing
    /// limits the reading, a test fails and does not run for ever.
    const ENDLESS: usize = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn a_server_without_end_is_read_at_the_rate_and_held_back() {
        let (near, mut far) = tokio::io::duplex(1024);
        let endless = tokio::spawn(async move {
            let mut sent = 0;
            while sent < ENDLESS && far.write_all(&[7; 512]).await.is_ok() {
                sent += 512;
            }
        });
        let mut paced = Paced::new(near, RATE);
        let (mut read, mut buffer) = (0, [0; 4096]);

        let reading = async {
            loop {
                match paced.read(&mut buffer).await.expect("there is more") {
                    0 => break,
                    more => read += more,
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(10), reading).await);

        let most = 20_000 + 10 * 10_000;
        assert!((most - 20_000..=most).contains(&read), "{read} bytes");
        drop(paced);
        endless.await.expect("ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_with_interim_answers_without_end_has_no_web_socket() {
        let (near, mut far) = tokio::io::duplex(1024);
        let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
        let endless = tokio::spawn(async move {
            let mut sent = 0;
            while sent < ENDLESS && far.write_all(interim).await.is_ok() {
                sent += interim.len();
            }
        });
        let paced = Paced::new(near, RATE);

        let opened = client_async_tls_with_config("ws://server", paced, None, None).await;

        let refused = opened.expect_err("the first answer counts");
        assert!(matches!(refused, tungstenite::Error::Http(_)), "{refused}");
        drop(refused);
        endless.await.expect("the connection is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_frames_without_end_cost_no_more_than_their_bytes() {
        let (near, far) = tokio::io::duplex(1024);
        let mut server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let frames = tokio::spawn(async move {
            let mut sent = 0;
            let mut kind = Data::Text;
            while sent < ENDLESS {
                let frame = Frame::message(Vec::new(), OpCode::Data(kind), false);
                if server.send(Message::Frame(frame)).await.is_err() {
                    break;
                }
                (sent, kind) = (sent + 1, Data::Continue);
            }
            sent
        });
        let paced = Paced::new(near, RATE);
        let mut client = WebSocketStream::from_raw_socket(paced, Role::Client, None).await;

        let heard = tokio::time::timeout(Duration::from_secs(10), client.next()).await;

        assert!(heard.is_err(), "the message never ends");
        drop(client);
        let sent = frames.await.expect("ends");
        assert!(sent <= (20_000 + 10 * 10_000 + 1024) / 2, "{sent} frames");
    }
}
