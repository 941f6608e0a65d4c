//! A relay of the shape of a Syft server and nothing more, on the libraries of the gateway, in a
//! process of its own: how far the gateway is from the ideal. It reads from each frame for whom it is,
//! and passes it on as it came. It stores nothing, checks no signature, and has no login: a token is
//! the name of its user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, channel::mpsc};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

use super::driver::Heard;
use crate::child::answer;

/// Where frames for each user go.
type Users = Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>;

/// Read buffer of a client, in bytes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the relay reads of a frame.
#[derive(Deserialize)]
struct Addressed<'a> {
    to: &'a str,
}

/// The child.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    answer(&listener.local_addr()?)?;
    let users = Arc::<Users>::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let users = Arc::clone(&users);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &users).await {
                eprintln!("  relay: {error:#}");
            }
        });
    }
}

async fn serve(stream: TcpStream, users: &Users) -> anyhow::Result<()> {
    let mut user = None;
    #[expect(clippy::result_large_err, reason = "tungstenite has it so")]
    let entering = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let query = request.uri().query().unwrap_or_default();
        user = query.strip_prefix("token=").map(str::to_owned);
        Ok(response)
    };
    // As small as those of the gateway; most clients are quiet.
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let socket = accept_hdr_async_with_config(stream, entering, Some(config)).await?;
    let (sink, stream) = socket.split();
    let user = user.context("a token")?;
    let (frames, waiting) = mpsc::unbounded();
    lock(users).insert(user.clone(), frames);
    tokio::select! {
        read = read(stream, &user, users) => read?,
        written = waiting.map(Ok).forward(sink) => written?,
    }
    lock(users).remove(&user);
    Ok(())
}

/// Passes on what a user sends, until he goes.
async fn read(mut stream: impl Heard + Unpin, user: &str, users: &Users) -> anyhow::Result<()> {
    // A driver that has what it wanted breaks the connection.
    while let Ok(Some(message)) = stream.try_next().await {
        let Message::Text(text) = &message else {
            continue;
        };
        let to = serde_json::from_str::<Addressed<'_>>(text)?.to;
        let users = lock(users);
        if to == "broadcast" {
            let others = users.iter().filter(|(name, _)| *name != user);
            others.for_each(|(_, frames)| drop(frames.unbounded_send(message.clone())));
        } else if let Some(frames) = users.get(to) {
            // A receiver that is going loses it.
            drop(frames.unbounded_send(message));
        }
    }
    Ok(())
}

fn lock(
    users: &Users,
) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Message>>> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}
