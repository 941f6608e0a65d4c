//! The router and its sockets.
//!
//! The unix socket is readable and writable by its owner only. The same router may listen on
//! loopback, where every request needs the bearer token of `control.token`.

use std::{
    convert::Infallible,
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path as UrlPath, Query, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
    routing::{delete, get, post},
};
use futures::{Stream, StreamExt, stream};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{
    api::{
        BODY_BYTES_MAX, EventBody, HistoryQuery, Join, Lost, NewIntegers, NewInvite, NewMessage,
        singles,
    },
    handle::NodeHandle,
};
use crate::state::{
    io::{Command, Event, Failure, FailureKind, Reply},
    report,
};

/// How often a quiet stream of events says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longest path of a unix socket, in bytes (unix(7), `sun_path` with its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// Serves the control socket until the task is dropped.
///
/// A socket that a dead node left behind is replaced: the caller holds the lock of the home folder,
/// so no node is alive behind it.
///
/// # Errors
/// Returns why the socket cannot be made.
pub fn serve_unix(path: &Path, handle: NodeHandle) -> io::Result<impl Future<Output = ()> + use<>> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let text = format!("the path of a socket has at most {SOCKET_PATH_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let router = router(handle);
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control socket failed");
        }
    })
}

/// Serves the same on loopback, for those who have the token.
///
/// # Errors
/// Returns why it cannot listen, or why the token cannot be read or made.
pub fn serve_tcp(
    address: SocketAddr,
    token_file: &Path,
    handle: NodeHandle,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let token = Arc::new(read_or_make_token(token_file)?);
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = router(handle).layer(axum::middleware::from_fn(move |request, next| {
        let token = token.clone();
        async move { check_token(&token, request, next).await }
    }));
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control port failed");
        }
    })
}

fn router(handle: NodeHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peer}", delete(remove))
        .route("/v1/peers/{peer}/trust", post(trust))
        .route("/v1/invites", post(invite))
        .route("/v1/join", post(join))
        .route("/v1/messages", get(history).post(send))
        .route("/v1/outbox", get(outbox))
        .route("/v1/integers", get(last_integers).post(publish))
        .route("/v1/integers/stream", get(integer_stream))
        .route("/v1/events", get(events))
        .route("/metrics", get(metrics))
        .fallback(|| async { Refused(Failure::not_found("there is nothing at this path")) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handle)
}

/// A failure as an answer.
struct Refused(Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            FailureKind::BadRequest => StatusCode::BAD_REQUEST,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self.0)).into_response()
    }
}

type Answer<T> = Result<Json<T>, Refused>;

/// The loop answers each command with its own reply; any other is a bug there.
fn unexpected(_: Reply) -> Refused {
    Refused(Failure::unavailable(
        "the node gave an answer that does not fit",
    ))
}

/// Decodes a JSON body, with an error that a person understands.
fn body<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(bytes).map_err(|error| {
        Refused(Failure::bad_request(format!(
            "the body is not what is expected here: {error}"
        )))
    })
}

async fn status(State(node): State<NodeHandle>) -> Answer<super::api::Status> {
    match node.ask(Command::Status).await? {
        Reply::Status(status) => Ok(Json(node.status(*status))),
        other => Err(unexpected(other)),
    }
}

async fn peers(State(node): State<NodeHandle>) -> Answer<Vec<report::Peer>> {
    match node.ask(Command::Peers).await? {
        Reply::Peers(peers) => Ok(Json(peers)),
        other => Err(unexpected(other)),
    }
}

async fn remove(
    State(node): State<NodeHandle>,
    UrlPath(peer): UrlPath<String>,
) -> Answer<report::Removed> {
    match node.ask(Command::Remove { peer }).await? {
        Reply::Removed(removed) => Ok(Json(removed)),
        other => Err(unexpected(other)),
    }
}

async fn trust(
    State(node): State<NodeHandle>,
    UrlPath(peer): UrlPath<String>,
) -> Answer<report::Trusted> {
    match node.ask(Command::Trust { peer }).await? {
        Reply::Trusted(trusted) => Ok(Json(trusted)),
        other => Err(unexpected(other)),
    }
}

async fn invite(State(node): State<NodeHandle>, bytes: Bytes) -> Answer<report::Invite> {
    let NewInvite {
        name,
        index,
        lifetime_s,
    } = body(&bytes)?;
    let lifetime = lifetime_s.map(Duration::from_secs);
    match node
        .ask(Command::Invite {
            name,
            index,
            lifetime,
        })
        .await?
    {
        Reply::Invited(invite) => Ok(Json(invite)),
        other => Err(unexpected(other)),
    }
}

async fn join(State(node): State<NodeHandle>, bytes: Bytes) -> Answer<report::Joined> {
    let Join { ticket } = body(&bytes)?;
    match node.ask(Command::Join { ticket }).await? {
        Reply::Joined(joined) => Ok(Json(joined)),
        other => Err(unexpected(other)),
    }
}

async fn send(State(node): State<NodeHandle>, bytes: Bytes) -> Answer<Vec<report::Accepted>> {
    let NewMessage {
        to,
        text,
        via,
        expiry_s,
    } = body(&bytes)?;
    let expiry = expiry_s.map(Duration::from_secs);
    match node
        .ask(Command::Send {
            to,
            text,
            via,
            expiry,
        })
        .await?
    {
        Reply::Accepted(accepted) => Ok(Json(accepted)),
        other => Err(unexpected(other)),
    }
}

async fn history(
    State(node): State<NodeHandle>,
    query: Result<Query<HistoryQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Vec<super::api::HistoryRow>> {
    let Query(query) = query.map_err(|e| Failure::bad_request(e.body_text()))?;
    Ok(Json(node.history(query).await?))
}

async fn outbox(State(node): State<NodeHandle>) -> Answer<Vec<report::Pending>> {
    match node.ask(Command::Outbox).await? {
        Reply::Outbox(outbox) => Ok(Json(outbox)),
        other => Err(unexpected(other)),
    }
}

async fn publish(State(node): State<NodeHandle>, bytes: Bytes) -> Answer<report::Published> {
    let NewIntegers { index, values, at } = body(&bytes)?;
    match node.ask(Command::Integers { index, values, at }).await? {
        Reply::Published(published) => Ok(Json(published)),
        other => Err(unexpected(other)),
    }
}

async fn last_integers(State(node): State<NodeHandle>) -> Answer<Vec<report::Integer>> {
    match node.ask(Command::LastIntegers).await? {
        Reply::LastIntegers(last) => Ok(Json(last)),
        other => Err(unexpected(other)),
    }
}

async fn metrics(State(node): State<NodeHandle>) -> String {
    node.metrics()
}

async fn events(
    State(node): State<NodeHandle>,
) -> Sse<impl Stream<Item = Result<axum::response::sse::Event, Infallible>>> {
    let events = BroadcastStream::new(node.events()).map(|event| {
        let body = match event {
            Ok(event) => EventBody::from(&*event),
            Err(BroadcastStreamRecvError::Lagged(lost)) => EventBody::Lagged { lost },
        };
        let event = axum::response::sse::Event::default();
        Ok(event.json_data(&body).unwrap_or_default())
    });
    // The first word says that from here on nothing is missed.
    let hello = stream::iter([Ok(
        axum::response::sse::Event::default().comment("following")
    )]);
    Sse::new(hello.chain(events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn integer_stream(State(node): State<NodeHandle>) -> Response {
    let lines = BroadcastStream::new(node.events()).filter_map(|event| async move {
        match event {
            Ok(event) => match &*event {
                Event::Integers(integers) => Some(lines(singles(integers))),
                _ => None,
            },
            Err(BroadcastStreamRecvError::Lagged(lost)) => Some(lines([Lost { lost }])),
        }
    });
    let hello = stream::iter([String::from("\n")]);
    let body = Body::from_stream(hello.chain(lines).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Writes one JSON object a line.
fn lines<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if let Ok(line) = serde_json::to_string(&item) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

async fn check_token(token: &str, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    if given.as_bytes().ct_eq(token.as_bytes()).into() {
        return next.run(request).await;
    }
    let failure = Failure::bad_request("the bearer token is missing or wrong")
        .with_hint("it is in `control.token` in the node's home folder");
    (StatusCode::UNAUTHORIZED, Json(failure)).into_response()
}

/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 32;

fn read_or_make_token(path: &Path) -> io::Result<String> {
    match fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            let token = hex::encode(crate::identity::random::<TOKEN_BYTES>());
            file.write_all(token.as_bytes())?;
            file.sync_all()?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let token = fs::read_to_string(path)?.trim().to_owned();
            if token.len() < TOKEN_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the token is too short",
                ));
            }
            Ok(token)
        }
        Err(error) => Err(error),
    }
}
