//! The router and its sockets.
//!
//! The unix socket is readable and writable by its owner only. The same router may listen on
//! loopback, where every request needs the bearer token of `control.token`. Each of the two has
//! its own limit of open connections, so that nobody on the port can shut out the owner.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path as UrlPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
    routing::{delete, get, post},
};
use futures::{FutureExt, Stream, StreamExt, stream};
use subtle::ConstantTimeEq;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::OwnedSemaphorePermit,
};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use zeroize::Zeroizing;

use super::{
    Control,
    api::{
        EventQuery, GiveIndices, Join, Lost, NewIntegers, NewInvite, NewMessage, NewTrust,
        StreamQuery, Streamed, Vouch,
    },
    history,
    limit::{Limited, Streams},
    serving::serve,
    words::Words,
};
use crate::{
    NodeHandle,
    accept::Accepting,
    cross_site::{Bodies, Hosts, Policy},
    files,
    gateway::{GatewayReport, Gateways, ServerStatus, visit::ClientReport},
    proto::iid::Value,
    routes::{Answer, Asked, BODY_BYTES_MAX, Posted, Refused},
    state::{
        VALUES_MAX,
        io::{Event, Failure},
        post::User,
        report,
    },
};

/// How often a quiet stream of events says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longest path of a unix socket, in bytes (unix(7), `sun_path` with its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// How long what a client still sends is taken after it was refused. A socket that is closed with
/// unread bytes in it may lose the answer.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves the control socket until the task is dropped.
///
/// A socket that a dead node left behind is replaced: the caller holds the lock of the home folder,
/// so no node is alive behind it.
///
/// # Errors
/// Returns why the socket cannot be made.
pub fn serve_unix(path: &Path, control: Control) -> io::Result<impl Future<Output = ()> + use<>> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let text = format!("the path of a socket has at most {SOCKET_PATH_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let listener = Limited::new(Accepting(listener));
    let router = router(control);
    Ok(serve(listener, router))
}

/// Removes a socket. Anything else at that path is somebody's file.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => {
            let text = "there is a file at this path, and it is no socket";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Serves the same on loopback, for those who have the token.
///
/// # Errors
/// Returns why it cannot listen, or why the token cannot be read or made.
pub fn serve_tcp(
    address: SocketAddr,
    token_file: &Path,
    control: Control,
) -> io::Result<impl Future<Output = ()> + use<>> {
    if !address.ip().is_loopback() {
        let text = format!("the control port is for loopback only, got {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let token = read_or_make_token(token_file)?;
    let listener = std::net::TcpListener::bind(address)?;
    serve_listener(listener, token, control)
}

fn serve_listener(
    listener: std::net::TcpListener,
    token: String,
    control: Control,
) -> io::Result<impl Future<Output = ()> + use<>> {
    listener.set_nonblocking(true)?;
    let listener = Limited::new(Accepting(TcpListener::from_std(listener)?));
    let token = Arc::new(token);
    // The token keeps pages out that cannot know it; these checks come before it, so that no page
    // learns whether a guess was right. Integers are streamed as plain text.
    let policy = Policy {
        origins: Vec::new(),
        hosts: Hosts::Named(Vec::new()),
        bodies: Bodies::Any,
    };
    let router = router(control)
        .layer(axum::middleware::from_fn(move |request, next| {
            let token = token.clone();
            async move { check_token(&token, request, next).await }
        }))
        .layer(axum::middleware::from_fn(
            move |request: Request, next: Next| {
                let checked = policy.check(request.method(), request.headers());
                async move {
                    match checked {
                        Ok(()) => next.run(request).await,
                        Err(refused) => {
                            let failure = Failure::bad_request(refused.to_string());
                            (refused.status(), Json(failure)).into_response()
                        }
                    }
                }
            },
        ));
    Ok(serve(listener, router))
}

fn router(control: Control) -> Router {
    let of_gateways = control.gateways.routes().with_state(());
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peer}", delete(remove))
        .route("/v1/who", get(who))
        .route("/v1/trust", post(trust))
        .route("/v1/peers/{peer}/vouch", post(vouch))
        .route("/v1/peers/{peer}/indices", post(give_indices))
        .route("/v1/invites", post(invite))
        .route("/v1/join", post(join))
        .route(
            "/v1/messages",
            get(history::list).post(send).delete(history::delete),
        )
        .route("/v1/messages/count", get(history::count))
        .route("/v1/messages/stream", get(history::lines))
        .route("/v1/outbox", get(outbox))
        .route("/v1/integers", get(last_integers).post(publish))
        .route(
            "/v1/integers/stream",
            get(integer_stream).post(publish_stream),
        )
        .merge(super::members::routes())
        .merge(of_gateways)
        .route("/v1/events", get(events))
        .route("/v1/reload", post(reload))
        .route("/v1/gateways", get(gateways))
        .route("/v1/servers", get(servers))
        .route("/v1/users", get(users))
        .route("/v1/clients", get(clients))
        .route("/v1/clients/{client}", delete(kick))
        .route("/metrics", get(metrics))
        .fallback(|| async { Refused::from(Failure::not_found("there is nothing at this path")) })
        .method_not_allowed_fallback(|| async {
            Refused::from(Failure::bad_request("this path does not take that method"))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(Extension(Streams::default()))
        .with_state(control)
}

async fn status(State(control): State<Control>) -> Answer<super::api::Status> {
    Ok(Json(control.status(control.node.status().await?)))
}

async fn reload(State(control): State<Control>) -> Answer<()> {
    control.reload().await?;
    Ok(Json(()))
}

async fn gateways(State(gateways): State<Arc<Gateways>>) -> Json<Vec<GatewayReport>> {
    Json(gateways.list())
}

async fn servers(State(gateways): State<Arc<Gateways>>) -> Json<Vec<ServerStatus>> {
    Json(gateways.servers())
}

async fn users(State(node): State<NodeHandle>) -> Answer<Vec<User>> {
    Ok(Json(node.users().await?))
}

async fn clients(State(gateways): State<Arc<Gateways>>) -> Json<Vec<ClientReport>> {
    Json(gateways.clients())
}

async fn kick(
    State(gateways): State<Arc<Gateways>>,
    UrlPath(client): UrlPath<String>,
) -> Answer<Vec<ClientReport>> {
    Ok(Json(gateways.kick(&client)?))
}

async fn peers(State(node): State<NodeHandle>) -> Answer<Vec<report::Peer>> {
    Ok(Json(node.peers().await?))
}

async fn remove(
    State(node): State<NodeHandle>,
    UrlPath(peer): UrlPath<String>,
) -> Answer<report::Removed> {
    Ok(Json(node.remove(peer).await?))
}

async fn who(State(node): State<NodeHandle>) -> Answer<Vec<report::Who>> {
    Ok(Json(node.who().await?))
}

async fn trust(
    State(node): State<NodeHandle>,
    Posted(NewTrust { who, name }): Posted<NewTrust>,
) -> Answer<report::Trusted> {
    Ok(Json(node.trust(who, name).await?))
}

async fn vouch(
    State(node): State<NodeHandle>,
    UrlPath(peer): UrlPath<String>,
    Posted(Vouch { vouched }): Posted<Vouch>,
) -> Answer<report::Vouched> {
    Ok(Json(node.vouch(peer, vouched).await?))
}

async fn give_indices(
    State(node): State<NodeHandle>,
    UrlPath(peer): UrlPath<String>,
    Posted(GiveIndices { further }): Posted<GiveIndices>,
) -> Answer<report::GivenIndices> {
    Ok(Json(node.give_indices(peer, further).await?))
}

async fn invite(
    State(node): State<NodeHandle>,
    Posted(invite): Posted<NewInvite>,
) -> Answer<report::Invite> {
    Ok(Json(node.invite_with(invite.into()).await?))
}

async fn join(
    State(node): State<NodeHandle>,
    Posted(Join { ticket }): Posted<Join>,
) -> Answer<report::Joined> {
    Ok(Json(node.join(ticket).await?))
}

async fn send(
    State(node): State<NodeHandle>,
    Posted(message): Posted<NewMessage>,
) -> Answer<Vec<report::Accepted>> {
    let NewMessage {
        to,
        text,
        via,
        expiry_s,
    } = message;
    let expiry = expiry_s.map(Duration::from_secs);
    Ok(Json(node.send_to(to, text, via, expiry).await?))
}

async fn outbox(State(node): State<NodeHandle>) -> Answer<Vec<report::Pending>> {
    Ok(Json(node.outbox().await?))
}

async fn publish(
    State(node): State<NodeHandle>,
    Posted(integers): Posted<NewIntegers>,
) -> Answer<report::Published> {
    let NewIntegers { index, values, at } = integers;
    Ok(Json(node.publish_at(index, values, at).await?))
}

/// Publishes integers as they come. Those that are there at once go together.
async fn publish_stream(
    State(node): State<NodeHandle>,
    Extension(streams): Extension<Streams>,
    Asked(query): Asked<StreamQuery>,
    request: Request,
) -> Answer<Streamed> {
    let _place = streams.take()?;
    let mut body = request.into_body().into_data_stream();
    let mut count = 0;
    match publish_all(&node, query, &mut body, &mut count).await {
        Ok(()) => Ok(Json(Streamed { count })),
        Err(mut failure) => {
            let sent = crate::text::count(count, "integer");
            failure.message = format!("{} (after {sent})", failure.message);
            tokio::spawn(tokio::time::timeout(DRAIN, body.for_each(async |_| {})));
            Err(failure.into())
        }
    }
}

async fn publish_all(
    node: &NodeHandle,
    query: StreamQuery,
    body: &mut axum::body::BodyDataStream,
    count: &mut usize,
) -> Result<(), Failure> {
    let at = query.at()?;
    let broken = |_| Failure::bad_request("the stream of integers broke off");
    let mut words = Words::default();
    let mut values = Vec::new();
    while let Some(bytes) = body.next().await {
        words.push(&bytes.map_err(broken)?, &mut values)?;
        while values.len() < VALUES_MAX
            && let Some(Some(bytes)) = body.next().now_or_never()
        {
            words.push(&bytes.map_err(broken)?, &mut values)?;
        }
        publish_batches(node, query, at, &mut values, count).await?;
    }
    words.finish(&mut values)?;
    publish_batches(node, query, at, &mut values, count).await
}

async fn publish_batches(
    node: &NodeHandle,
    query: StreamQuery,
    at: Option<crate::state::io::At>,
    values: &mut Vec<Value>,
    count: &mut usize,
) -> Result<(), Failure> {
    let mut rest = values.as_slice();
    let mut fits = VALUES_MAX;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(rest.len().min(fits));
        match node.publish_at(query.index, batch.to_vec(), at).await {
            Ok(_) => {
                *count += batch.len();
                rest = behind;
                fits = VALUES_MAX;
            }
            Err(Failure {
                over_budget: Some(budget),
                ..
            }) => {
                // What fits goes out; the rest waits until the others take more.
                fits = budget.fits;
                if fits == 0 {
                    tokio::time::sleep(Duration::from_millis(budget.retry_ms)).await;
                    fits = VALUES_MAX;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    values.clear();
    Ok(())
}

async fn last_integers(State(node): State<NodeHandle>) -> Answer<Vec<report::Integer>> {
    Ok(Json(node.last_integers().await?))
}

async fn metrics(State(node): State<NodeHandle>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], node.metrics()).into_response()
}

type SseEvent = axum::response::sse::Event;

async fn events(
    State(node): State<NodeHandle>,
    Extension(streams): Extension<Streams>,
    Asked(query): Asked<EventQuery>,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Refused> {
    let wanted = query.wanted()?;
    let place = streams.take()?;
    let is_wanted = move |event: &Event| match &wanted {
        Some(kinds) => kinds.contains(&event.kind()),
        None => true,
    };
    let events = BroadcastStream::new(node.events()).filter_map(move |event| {
        // Held as long as the stream lasts.
        let _: &OwnedSemaphorePermit = &place;
        let event = match event {
            Ok(event) => is_wanted(&event).then_some(event),
            Err(BroadcastStreamRecvError::Lagged(lost)) => Some(Arc::new(Event::Lagged { lost })),
        };
        let event = event.map(|event| SseEvent::default().json_data(&*event).unwrap_or_default());
        std::future::ready(event.map(Ok))
    });
    // The first word says that from here on nothing is missed.
    let hello = stream::iter([Ok(SseEvent::default().comment("following"))]);
    Ok(Sse::new(hello.chain(events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn integer_stream(
    State(node): State<NodeHandle>,
    Extension(streams): Extension<Streams>,
) -> Result<Response, Refused> {
    let place = streams.take()?;
    let lines = BroadcastStream::new(node.events()).filter_map(|event| async move {
        match event {
            Ok(event) => match &*event {
                Event::Integers(integers) => Some(lines(integers.singles())),
                _ => None,
            },
            Err(BroadcastStreamRecvError::Lagged(lost)) => Some(lines([Lost { lost }])),
        }
    });
    let hello = stream::iter([String::from("\n")]);
    let body = Body::from_stream(hello.chain(kept_alive(lines)).map(move |lines| {
        // Held as long as the stream lasts.
        let _: &OwnedSemaphorePermit = &place;
        Ok::<_, Infallible>(lines)
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Adds an empty line where nothing came for a while, so that a reader can tell a quiet stream from a
/// dead node.
fn kept_alive(lines: impl Stream<Item = String>) -> impl Stream<Item = String> {
    stream::unfold(Box::pin(lines), |mut lines| async move {
        match tokio::time::timeout(KEEP_ALIVE, lines.next()).await {
            Ok(line) => line.map(|line| (line, lines)),
            Err(_) => Some((String::from("\n"), lines)),
        }
    })
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

/// Longest file with the token, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 32;

fn read_or_make_token(path: &Path) -> io::Result<String> {
    let make = || Zeroizing::new(hex::encode(crate::rng::random::<TOKEN_BYTES>()));
    let text = files::read_or_create(path, TOKEN_FILE_BYTES_MAX, make)?;
    let token = text.trim().to_owned();
    if token.len() < TOKEN_BYTES {
        let text = "the token is too short";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(token)
}
