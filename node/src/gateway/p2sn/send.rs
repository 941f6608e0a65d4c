//! This node as the client of a plain P2SN server: one message, one reply.
//!
//! Nothing is kept and nothing is sent again: the asker waits, and hears what became of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    config::gateway::{Gateways, p2sn::P2sn as Config},
    gateway::{
        context::Context,
        outbound::{Outbound, ServerStatus},
    },
    p2sn_session::{Ended, Owner, Steps, Terms, run_client},
    proto::p2sn::{KeyError, KeyPolicy, Limits, PinAddress, PublicKey, Reason},
    state::{
        clients::{Answer, Question},
        io::{Command, Failure, Reply},
    },
};

/// How long all of it may take if the asker names no time: an exchange and a slow server's reply.
const TIME: Duration = Duration::from_secs(20);

/// Longest time that may be asked for.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Threads for the RSA of one message.
const STEPS_AT_ONCE: usize = 1;

/// Messages that are under way at once.
static UNDER_WAY: Semaphore = Semaphore::const_new(8);

/// The body of `POST /v1/gateways/p2sn/send`.
#[derive(Clone, derive_more::Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewP2snMessage {
    /// The server: `HOST` or `HOST:PORT`.
    pub to: String,
    /// The text.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How long all of it may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The answer to `POST /v1/gateways/p2sn/send`.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct P2snReplied {
    /// The server, with its port.
    pub address: String,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// Size of its key.
    pub bits: usize,
    /// What it replied, as text.
    #[debug("{} bytes", reply.len())]
    pub reply: String,
    /// What it replied, in hexadecimal, if it was no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[debug("{:?} bytes", reply_hex.as_ref().map(|hidden| hidden.len()))]
    pub reply_hex: Option<String>,
}

/// What sends messages to plain P2SN servers.
pub(crate) struct Sender {
    node: Context,
    /// How, once it is known.
    config: Mutex<Option<Config>>,
}

impl Sender {
    pub(super) const fn new(node: Context) -> Self {
        Self {
            node,
            config: Mutex::new(None),
        }
    }

    /// Sends a message and returns the reply.
    pub(super) async fn send(&self, message: NewP2snMessage) -> Result<P2snReplied, Failure> {
        let config = self.config().clone();
        let starting = || Failure::unavailable("the node is starting");
        send(&self.node, &config.ok_or_else(starting)?, message).await
    }

    fn config(&self) -> MutexGuard<'_, Option<Config>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message goes to whatever server it names: none is configured.
impl Outbound for Sender {
    fn apply(&self, config: &Gateways) -> BoxFuture<'static, ()> {
        *self.config() = Some(config.p2sn.clone());
        std::future::ready(()).boxed()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        Vec::new()
    }

    fn close(&self) {}
}

/// Sends a message and returns the reply.
///
/// # Errors
/// Returns why there is none, and whether the server may have the message all the same.
async fn send(
    node: &Context,
    config: &Config,
    message: NewP2snMessage,
) -> Result<P2snReplied, Failure> {
    let NewP2snMessage {
        to,
        text,
        timeout_s,
    } = message;
    let address = PinAddress::server(&to)
        .map_err(|error| Failure::bad_request(format!("`{to}` is no address: {error}")))?;
    let time = timeout_s.map_or(TIME, Duration::from_secs);
    if time.is_zero() || time > TIME_MAX {
        let text = format!("the timeout is 1 to {} s", TIME_MAX.as_secs());
        return Err(Failure::bad_request(text));
    }
    let own = node.rsa().borrow().clone();
    let own = own.ok_or_else(|| {
        Failure::unavailable("this node's RSA key is still being made")
            .with_hint("try again in a minute")
    })?;
    let terms = Terms {
        own,
        policy: KeyPolicy {
            bits_min: config.min_key_bits,
        },
        limits: Limits {
            exchange: time,
            reply: time,
            ..Limits::old_clients()
        },
        steps: Steps::at_once(STEPS_AT_ONCE),
    };
    let mut asker = Asker {
        node,
        address: address.clone(),
        message: Some(text.into_bytes()),
        key: None,
        is_changed: false,
        reply: None,
    };
    let ended = timeout(time, asker.run(terms)).await;
    let ended = ended.unwrap_or(Err(Unsent::Late(time)));
    asker.outcome(ended)
}

/// Why no reply came.
enum Unsent {
    Connect(std::io::Error),
    Session(Ended),
    Late(Duration),
}

/// The owner of the session.
struct Asker<'a> {
    node: &'a Context,
    address: PinAddress,
    /// What is to be sent; `None` once it went.
    message: Option<Vec<u8>>,
    key: Option<(String, usize)>,
    is_changed: bool,
    reply: Option<Vec<u8>>,
}

impl Asker<'_> {
    async fn run(&mut self, terms: Terms) -> Result<(), Unsent> {
        let stopping = |_| Unsent::Session(Ended::Stopping);
        let _under_way = UNDER_WAY.acquire().await.map_err(stopping)?;
        let stream = TcpStream::connect(self.address.to_string())
            .await
            .map_err(Unsent::Connect)?;
        // What is sent is small and waited for. A socket that refuses this works all the same.
        drop(stream.set_nodelay(true));
        run_client(stream.compat(), terms, self)
            .await
            .map_err(Unsent::Session)
    }

    fn outcome(self, ended: Result<(), Unsent>) -> Result<P2snReplied, Failure> {
        let address = self.address.to_string();
        let may_have_it = self.message.is_none();
        let (Some(reply), Some((fingerprint, bits))) = (self.reply, self.key.clone()) else {
            let unsent = ended.err().unwrap_or(Unsent::Session(Ended::Closed));
            let mut failure = failure(&address, unsent, self.key, self.is_changed);
            if may_have_it {
                failure
                    .message
                    .push_str("; the server may have the message");
            }
            return Err(failure);
        };
        let (reply, reply_hex) = match String::from_utf8(reply) {
            Ok(text) => (text, None),
            Err(error) => {
                let bytes = error.into_bytes();
                let hex = hex::encode(&bytes);
                (String::from_utf8_lossy(&bytes).into_owned(), Some(hex))
            }
        };
        Ok(P2snReplied {
            address,
            fingerprint,
            bits,
            reply,
            reply_hex,
        })
    }
}

impl Owner for Asker<'_> {
    async fn judge(&mut self, key: &PublicKey) -> bool {
        self.key = Some((key.fingerprint().to_string(), key.bits()));
        let question = Question::Judge {
            address: self.address.clone(),
            fingerprint: key.fingerprint(),
            bits: key.bits(),
            strict: true,
        };
        match self.node.ask(Command::P2sn(question)).await {
            Ok(Reply::P2sn(Answer::Judged(may))) => {
                self.is_changed = !may;
                may
            }
            _ => false,
        }
    }

    async fn established(&mut self) -> Option<Vec<u8>> {
        self.message.take()
    }

    async fn message(&mut self, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }

    async fn replied(&mut self, bytes: Vec<u8>) {
        self.reply = Some(bytes);
    }
}

fn failure(
    address: &str,
    unsent: Unsent,
    key: Option<(String, usize)>,
    is_changed: bool,
) -> Failure {
    match unsent {
        Unsent::Connect(error) => {
            Failure::unavailable(format!("could not connect to {address}: {error}"))
        }
        Unsent::Late(time) => {
            let text = format!("{address} gave no reply within {} s", time.as_secs());
            Failure::timed_out(text).with_hint("`--timeout` gives it longer")
        }
        Unsent::Session(Ended::Session(Reason::KeyRefused)) if is_changed => {
            let shown = key.map(|(fingerprint, _)| fingerprint).unwrap_or_default();
            Failure::refused(format!(
                "the RSA key of {address} is not the pinned one; it showed {shown}"
            ))
            .with_hint(format!(
                "if that is right, `pimesh p2sn trust {address}` accepts it"
            ))
        }
        Unsent::Session(Ended::Session(Reason::BadKey(error))) => {
            let text = format!("the RSA key of {address} is refused: {error}");
            let failure = Failure::refused(text);
            match error {
                KeyError::Small { .. } => failure.with_hint(
                    "`min_key_bits` in `pimesh.toml`, [gateway.p2sn], says how small it may be",
                ),
                KeyError::Pem
                | KeyError::Large { .. }
                | KeyError::Exponent
                | KeyError::Unusable => failure,
            }
        }
        // The session's own times are as long as the command's, and may end first.
        Unsent::Session(Ended::Session(
            reason @ (Reason::ExchangeTimeout | Reason::ReplyTimeout),
        )) => Failure::timed_out(format!("{address}: {reason}"))
            .with_hint("`--timeout` gives it longer"),
        Unsent::Session(Ended::Send(error)) => Failure::bad_request(error.to_string()),
        Unsent::Session(ended) => Failure::unavailable(format!("{address}: {ended}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::io::FailureKind;

    #[test]
    fn whatever_time_ends_first_the_command_was_not_done_in_time() {
        for late in [
            Unsent::Late(Duration::from_secs(1)),
            Unsent::Session(Ended::Session(Reason::ExchangeTimeout)),
            Unsent::Session(Ended::Session(Reason::ReplyTimeout)),
        ] {
            let failure = failure("127.0.0.1:1", late, None, false);

            assert_eq!(failure.kind, FailureKind::TimedOut, "{failure:?}");
            assert!(failure.hint.is_some());
        }
    }
}
