//! One connection of a client: WebSocket, sign-in, then integers both ways
//! (`proto-specs/iid.md`, sections 5.1 to 5.7).

use std::{borrow::Cow, time::Duration};

use futures::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Bytes, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{Arrival, HANDSHAKE_TIME, IidGateway, Kind, hub::Seat};
use crate::{
    gateway::visit::Visit,
    proto::iid::{
        Form, IID_BYTES, Iid,
        budget::Span,
        sign_in::{Heard, Policy, RTFM, SignIn, SignedIn, TEXT_BYTES_MAX},
    },
    rng::random,
    state::{
        VALUES_MAX,
        io::{Command, FailureKind},
    },
};

/// What a listener server says first: where its manual is.
const MANUAL: &str = concat!("MANUAL:", env!("CARGO_PKG_REPOSITORY"));

/// How long a client may take to read what it is sent.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often a client is asked whether it is still there, and how long it may be silent.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(90);

type Socket<S> = WebSocketStream<S>;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client went.
    Gone(&'static str),
    /// It is sent away: these texts, and a word for the counter.
    Refused(Vec<Cow<'static, str>>, &'static str),
    /// The gateway closes, or somebody sends the client away by hand.
    Kicked,
}

impl End {
    fn refused(text: impl Into<Cow<'static, str>>, why: &'static str) -> Self {
        Self::Refused(vec![text.into()], why)
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve<S>(arrival: Arrival, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Arrival {
        gateway,
        kind,
        visit,
        _permit,
        unanswered,
    } = arrival;
    let deadline = Instant::now() + gateway.config.limits.sign_in_time;
    let mut socket = match timeout(HANDSHAKE_TIME, upgrade(stream, &gateway)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(_)) => return visit.refuse("no_websocket"),
        Err(_) => return visit.refuse("handshake_timeout"),
    };
    let kicked = visit.kicked();
    let signing_in = sign_in(&gateway, kind, &visit, &mut socket, deadline);
    let signed_in = tokio::select! {
        signed_in = signing_in => signed_in,
        () = kicked => Err(End::Kicked),
    };
    let end = match signed_in {
        Ok(who) => {
            drop(unanswered);
            match welcome(&gateway, &visit, &mut socket, who).await {
                Ok(seat) => converse(&gateway, &visit, seat, &mut socket).await,
                Err(end) => end,
            }
        }
        Err(end) => end,
    };
    finish(socket, visit, end).await;
}

/// Makes a WebSocket of a connection: path `/`, no subprotocol, no compression.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    gateway: &IidGateway,
) -> Result<Socket<S>, tokio_tungstenite::tungstenite::Error> {
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let check = |request: &Request, response: Response| {
        let (status, text) = match gateway.policy.check(request.method(), request.headers()) {
            Ok(()) if request.uri().path() == "/" => return Ok(response),
            Ok(()) => (StatusCode::NOT_FOUND, None),
            Err(refused) => (refused.status(), Some(format!("{refused}\n"))),
        };
        let mut refusal = ErrorResponse::new(text);
        *refusal.status_mut() = status;
        Err(refusal)
    };
    // Small buffers: there may be thousands of connections, and a message has 16 bytes.
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(4096)
        .max_message_size(Some(TEXT_BYTES_MAX))
        .max_frame_size(Some(TEXT_BYTES_MAX));
    accept_hdr_async_with_config(stream, check, Some(config)).await
}

/// Has the client show who it is.
async fn sign_in<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &IidGateway,
    kind: Kind,
    visit: &Visit,
    socket: &mut Socket<S>,
    deadline: Instant,
) -> Result<SignedIn, End> {
    let mut sign_in = SignIn::new(random());
    if kind == Kind::Listen {
        say(socket, MANUAL.to_owned()).await?;
    }
    say(socket, sign_in.greeting()).await?;
    let policy = Policy {
        rsa_bits_min: gateway.config.rsa_bits_min,
        guests: gateway.config.guests,
    };
    loop {
        let Ok(message) = timeout_at(deadline, socket.next()).await else {
            return Err(End::refused("SIGN IN TIMEOUT", "sign_in_timeout"));
        };
        let heard = match message {
            Some(Ok(Message::Text(text))) => {
                sign_in.hear(text.as_str(), &gateway.lists.get(), &policy)
            }
            Some(Ok(Message::Binary(_))) => sign_in.hear_binary(),
            Some(Ok(Message::Close(_))) | None => return Err(End::Gone("closed")),
            Some(Ok(_)) => Heard::Ignored,
            Some(Err(_)) => return Err(End::Gone("broken")),
        };
        match heard {
            Heard::Ignored => {}
            Heard::Accepted(who) => return Ok(who),
            Heard::Refused(refused) => {
                gateway.log_refusal(visit.address(), refused);
                let texts = refused.texts().iter().map(|text| Cow::Borrowed(*text));
                return Err(End::Refused(texts.collect(), refused.name()));
            }
        }
    }
}

/// Tells a client that it is in, and puts it among those who hear. Nothing binary comes before the
/// greeting: published clients end at it.
async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &IidGateway,
    visit: &Visit,
    socket: &mut Socket<S>,
    who: SignedIn,
) -> Result<Seat, End> {
    gateway.hub.may_send(who.index).map_err(spam)?;
    let detail = format!("{} {}", who.method, who.address);
    say(socket, who.hello.clone()).await?;
    visit.signed_in(who.index.to_string(), detail);
    Ok(gateway.hub.join(visit.id(), who))
}

fn spam(span: Span) -> End {
    End::refused(format!("SPAM KICK {}", span.name()), "over_budget")
}

/// Integers both ways, until one side ends it.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &IidGateway,
    visit: &Visit,
    seat: Seat,
    socket: &mut Socket<S>,
) -> End {
    let (sink, stream) = socket.split();
    tokio::select! {
        end = read(gateway, visit, &seat, stream) => end,
        end = write(visit, &seat, sink) => end,
        () = seat.revoked.cancelled() => {
            End::refused("ASK ADMIN FOR A CLAIM TO BE ADDED", "claim_removed")
        }
        () = visit.kicked() => End::Kicked,
    }
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &IidGateway,
    visit: &Visit,
    seat: &Seat,
    mut stream: SplitStream<&mut Socket<S>>,
) -> End {
    loop {
        seat.queue.room().await;
        let Ok(first) = timeout(SILENCE_MAX, stream.next()).await else {
            return End::Gone("silent");
        };
        let mut iids = Vec::new();
        let mut next = Some(first);
        let mut end = None;
        // What has come already travels together.
        while let Some(message) = next.take() {
            match integer(gateway, seat, message) {
                Ok(iid) => iids.extend(iid),
                Err(ended) => end = Some(ended),
            }
            if end.is_none() && iids.len() < VALUES_MAX {
                next = stream.next().now_or_never();
            }
        }
        if !iids.is_empty() {
            visit.received(iids.len() as u64);
            if let Err(refused) = bridge(gateway, visit, iids).await {
                return refused;
            }
        }
        if let Some(end) = end {
            return end;
        }
    }
}

type Received = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

/// Makes an integer of what came, if it is one.
fn integer(gateway: &IidGateway, seat: &Seat, message: Received) -> Result<Option<Iid>, End> {
    let bytes = match message {
        Some(Ok(Message::Binary(bytes))) => bytes,
        Some(Ok(Message::Text(_))) => {
            return Err(not_integers("ONLY BYTE SERVER AND MAX:16", "text"));
        }
        Some(Ok(Message::Close(_))) | None => return Err(End::Gone("closed")),
        Some(Ok(_)) => return Ok(None),
        Some(Err(_)) => return Err(End::Gone("broken")),
    };
    if bytes.len() > IID_BYTES {
        return Err(not_integers("MAX BYTE SIZE 16", "too_long"));
    }
    // Other lengths are no reason to send anybody away: Unity's bridge forwards whatever it gets,
    // and wakes itself with one byte.
    let Ok(form) = Form::decode(&bytes) else {
        return Ok(None);
    };
    let budget = gateway.hub.spend(seat.index, bytes.len() as u64);
    budget.map_err(spam)?;
    Ok(Some(form.restamp(seat.index, gateway.node.date())))
}

fn not_integers(text: &'static str, why: &'static str) -> End {
    End::Refused(vec![text.into(), RTFM.into()], why)
}

/// Hands integers to the node; they come back to those who hear them as events.
async fn bridge(gateway: &IidGateway, visit: &Visit, iids: Vec<Iid>) -> Result<(), End> {
    let client = Some(visit.id());
    match gateway.node.ask(Command::Bridge { client, iids }).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == FailureKind::Unavailable => Err(End::Kicked),
        Err(failure) => {
            tracing::warn!(
                reason = %failure.message,
                hint = failure.hint.as_deref().unwrap_or("-"),
                "integers of a client were not taken"
            );
            Err(End::refused("INDEX NOT VOUCHED FOR", "not_vouched"))
        }
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    visit: &Visit,
    seat: &Seat,
    mut sink: SplitSink<&mut Socket<S>, Message>,
) -> End {
    let slow = || End::refused("TOO SLOW", "slow_reader");
    let mut ping = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    loop {
        let iids = tokio::select! {
            taken = seat.queue.take() => match taken {
                Ok(iids) => iids,
                Err(_) => return slow(),
            },
            _ = ping.tick() => Vec::new(),
        };
        let written = async {
            if iids.is_empty() {
                sink.feed(Message::Ping(Bytes::new())).await?;
            }
            // One allocation for all of them.
            let bytes: Bytes = iids
                .iter()
                .flat_map(|iid| iid.encode())
                .collect::<Vec<_>>()
                .into();
            for at in (0..bytes.len()).step_by(IID_BYTES) {
                let message = Message::Binary(bytes.slice(at..at + IID_BYTES));
                sink.feed(message).await?;
            }
            sink.flush().await
        };
        match timeout(WRITE_TIME, written).await {
            Ok(Ok(())) => visit.sent(iids.len() as u64),
            Ok(Err(_)) => return End::Gone("broken"),
            Err(_) => return slow(),
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    text: String,
) -> Result<(), End> {
    match timeout(WRITE_TIME, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone("broken")),
        Err(_) => Err(End::refused("TOO SLOW", "slow_reader")),
    }
}

/// How long saying goodbye may take.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// How long a connection stays open after its client was refused and told why. A published client
/// comes back at once, for ever, and would do so hundreds of times a second.
const REFUSAL_REST: Duration = Duration::from_secs(1);

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, visit: Visit, end: End) {
    let (texts, code) = match &end {
        End::Gone(_) => (&[][..], CloseCode::Normal),
        End::Refused(texts, _) => (&texts[..], CloseCode::Policy),
        End::Kicked => (&[][..], CloseCode::Away),
    };
    let goodbye = async {
        for text in texts {
            socket.send(Message::text(text.as_ref())).await?;
        }
        if !texts.is_empty() {
            // What comes meanwhile is not read.
            tokio::time::sleep(REFUSAL_REST).await;
        }
        let close = CloseFrame {
            code,
            reason: "".into(),
        };
        socket.send(Message::Close(Some(close))).await?;
        // What the client still sends is read and thrown away: closing with unread bytes would
        // reset the connection, and it might not get the texts.
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    };
    // A client that is gone hears nothing.
    drop(timeout(REFUSAL_REST + GOODBYE_TIME, goodbye).await);
    match end {
        End::Gone(reason) => visit.leave(reason),
        End::Refused(_, why) => visit.refuse(why),
        End::Kicked => visit.refuse("closed"),
    }
}
