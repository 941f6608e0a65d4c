//! The node as a client of a Syft server, its own kind or the old one (`proto-specs/syft.md`,
//! sections 5, 6 and 14).
//!
//! | file | what |
//! | --- | --- |
//! | `site` | requests over HTTP, and opening the WebSocket |
//! | `session` | one connection: messages both ways |
//! | `share` | how much a server may send, and how often it is in the log |
//!
//! One task for each server: register, log in, connect, and then messages both ways, until the
//! connection ends; then again after a wait with full jitter. No answer of a server ends that for
//! good: a captive portal gives every kind of answer. Only when the proof of the key is refused,
//! the wait is long. The key is one for this server, and it signs only a challenge that is base64 of
//! exactly 32 bytes.

mod session;
mod share;
mod site;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::{
    session::Session,
    share::Share,
    site::{Answered, Ended, Site, Socket, parsed, said},
};
use crate::{
    config::gateway::{Gateways, syft::SyftServer},
    gateway::{
        backoff::Backoff,
        context::Context,
        outbound::{Outbound, Running, ServerStatus, Servers},
        standing::{Standing, millis},
        with_causes,
    },
    proto::{
        server::KeyOf,
        syft::{
            SigningKey,
            http::{ChallengeBody, Login, Registration, TokenBody, answer_challenge},
        },
    },
    rng::random,
    state::io::Gateway,
    text,
};

/// Longest wait after the proof of the key was refused; the shortest is half of it. The owner of
/// the server has to do something first, and each attempt costs the server a signature.
const REFUSED_WAIT: Duration = Duration::from_secs(600);

/// How many characters of a reason are kept: a server's own words may be in it.
const REASON_CHARS_MAX: usize = 400;

/// How it stands with a server, as `pimesh gateway syft list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// What it is called here.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The user that this node is there.
    pub user: String,
    /// `connecting`, `connected`, `waiting` for the next attempt, or `refused`: the server does not
    /// accept the key for this user; that is tried again, too, after minutes.
    pub state: String,
    /// Why it is not connected, or why the last attempt failed.
    pub reason: Option<String>,
    /// Time until the next attempt, if one is waited for.
    #[serde(default)]
    pub next_ms: Option<u64>,
}

/// The servers that this node is a client of.
pub(crate) struct Outgoing {
    node: Context,
    servers: Servers<SyftServer, ServerReport>,
}

impl Outgoing {
    pub(super) const fn new(node: Context) -> Self {
        Self {
            node,
            servers: Servers::new(),
        }
    }

    /// Returns how it stands with each.
    pub(super) fn reports(&self) -> Vec<ServerReport> {
        self.servers.each(report)
    }
}

impl Outbound for Outgoing {
    fn apply(&self, config: &Gateways) -> BoxFuture<'static, ()> {
        self.servers.set(&config.syft_servers, |server| {
            let client = Server::new(server, self.node.clone());
            let standing = Arc::clone(&client.standing);
            Running {
                task: tokio::spawn(client.run()).abort_handle(),
                standing,
            }
        });
        std::future::ready(()).boxed()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        let reports = self.reports();
        reports.into_iter().map(ServerStatus::from).collect()
    }

    fn close(&self) {
        self.servers.close();
    }
}

impl From<ServerReport> for ServerStatus {
    fn from(report: ServerReport) -> Self {
        let (state, hint) = match report.reason {
            None => (report.state, None),
            Some(reason) => {
                let hint = format!("is it up, and does it know the user {}?", report.user);
                (format!("{} ({reason})", report.state), Some(hint))
            }
        };
        Self {
            gateway: Gateway::Syft,
            url: report.url,
            state,
            hint,
        }
    }
}

/// A server that this node is a client of.
struct Server {
    config: SyftServer,
    node: Context,
    standing: Arc<Standing<ServerReport>>,
}

/// Returns the report with the time until the next attempt.
fn report(standing: &Standing<ServerReport>) -> ServerReport {
    let (report, wait) = standing.report();
    ServerReport {
        next_ms: wait.map(millis),
        ..report
    }
}

impl Server {
    fn new(config: SyftServer, node: Context) -> Self {
        let report = ServerReport {
            name: config.name.to_string(),
            url: config.url.to_string(),
            user: config.user.to_string(),
            state: "connecting".to_owned(),
            reason: None,
            next_ms: None,
        };
        Self {
            config,
            node,
            standing: Arc::new(Standing::new(report)),
        }
    }

    /// Stays connected, or tries to, until the task ends.
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut share = Share::new();
        let mut key = None;
        loop {
            // The reason of the last attempt stays to be seen until this one has come to an end.
            self.standing
                .change(|report| "connecting".clone_into(&mut report.state));
            let begun = Instant::now();
            let ended = self.attempt(&mut key, &mut share).await;
            let chance = u64::from_le_bytes(random());
            let (state, reason, wait) = match ended {
                Ended::Later(reason) => ("waiting", reason, backoff.next(begun.elapsed(), chance)),
                Ended::Refused(reason) => {
                    let half = REFUSED_WAIT / 2;
                    let jitter = Duration::from_millis(chance % millis(half));
                    ("refused", reason, half + jitter)
                }
            };
            let reason = text::visible_start(&reason, REASON_CHARS_MAX);
            let server = &self.config.name;
            if state == "refused" {
                tracing::warn!(%server, %reason, ?wait, "the Syft server refuses the login");
            } else {
                tracing::info!(%server, %reason, ?wait, "not connected to the Syft server");
            }
            self.set(state, Some(reason));
            self.standing.wait(wait).await;
        }
    }

    /// Makes one connection and serves it; returns why it ended, or was not to be had.
    async fn attempt(&self, key: &mut Option<SigningKey>, share: &mut Share) -> Ended {
        let key = match key {
            Some(key) => key,
            None => match self.load_key().await {
                Ok(loaded) => key.insert(loaded),
                Err(ended) => return ended,
            },
        };
        match self.connect(key).await {
            Ok((site, socket)) => {
                self.set("connected", None);
                tracing::info!(server = %self.config.name, "connected to the Syft server");
                let session = Session::new(&self.config, &self.node, key, site, socket, share);
                Ended::Later(session.run().await)
            }
            Err(ended) => ended,
        }
    }

    /// Loads the key; a sealed key file takes about a second.
    async fn load_key(&self) -> Result<SigningKey, Ended> {
        let (keys, key_of) = (Arc::clone(self.node.keys()), self.config.key());
        let loading = tokio::task::spawn_blocking(move || keys.syft_server(&key_of));
        let stopping = |_| Ended::Later("the node is stopping".to_owned());
        let loaded = loading.await.map_err(stopping)?;
        loaded.map_err(|error| Ended::Later(with_causes(&error)))
    }

    fn set(&self, state: &'static str, reason: Option<String>) {
        self.standing.change(|report| {
            state.clone_into(&mut report.state);
            report.reason = reason;
        });
    }

    /// Registers, logs in and connects.
    async fn connect(&self, key: &SigningKey) -> Result<(Site, Socket), Ended> {
        let site = Site::new(&self.config);
        let user_id = self.config.user.to_string();
        let registration = Registration {
            user_id: user_id.clone(),
            username: user_id.clone(),
            public_key: key.public().to_base64(),
        };
        // Registered before is as good; the login tells whether with this key.
        let registered = site.post("/auth/register", &registration).await?;
        let login = Login {
            user_id: user_id.clone(),
            signature: None,
        };
        let answer = site.post("/auth/login", &login).await?;
        let challenge: ChallengeBody =
            parsed("the login", answer).map_err(|ended| with_registration(ended, &registered))?;
        let signature = answer_challenge(&challenge.challenge, key)
            .map_err(|error| Ended::Later(error.to_string()))?;
        let login = Login {
            user_id,
            signature: Some(signature),
        };
        let answer = site.post("/auth/login?verify=true", &login).await?;
        if matches!(answer.0, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refused(&answer));
        }
        let TokenBody { token } = parsed("the proof of the key", answer)?;
        let token = Zeroizing::new(token);
        let socket = site.socket(&token).await?;
        Ok((site, socket))
    }

    /// The server has another key for this user: says what a person can do.
    fn refused(&self, answer: &Answered) -> Ended {
        let (user, answer) = (&self.config.user, said("the proof of the key", answer));
        let earlier = match self.config.key() {
            KeyOf::Url(_) => {
                "; if an earlier pimesh registered the user, connect with `--key-of shared`, and if \
                 the server had another URL, with `--key-of URL`"
            }
            KeyOf::Shared => "",
        };
        Ended::Refused(format!(
            "{answer}: there `{user}` has another key. Take another `--user`, or have that one \
             removed there{earlier}"
        ))
    }
}

/// Says also what became of the registration, if a login could not work without it.
fn with_registration(ended: Ended, registered: &Answered) -> Ended {
    let is_there = registered.0.is_success() || registered.0 == StatusCode::CONFLICT;
    match ended {
        Ended::Later(reason) if !is_there => Ended::Later(format!(
            "{}; {reason}",
            said("the registration", registered)
        )),
        ended => ended,
    }
}
