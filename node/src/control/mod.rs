//! The gateway for the command line, dashboards and scripts: HTTP/1.1 with JSON on a unix socket.
//!
//! What is asked of one of the gateways is served in that gateway's own folder (`routes.rs`), under
//! `/v1/gateways/NAME`.
//!
//! | file | what |
//! | --- | --- |
//! | `api` | bodies of requests and answers |
//! | `server` | the router and its sockets |
//! | `history` | messages that are on disk: read page by page, and deleted |
//! | `share` | lets a group use the unix socket |
//! | `limit` | how many connections are open at once |
//! | `serving` | how long the client of a connection may take |
//! | `words` | integers out of a stream of text |
//! | `members` | what is asked about membership: open tickets, names |
//! | `client` | what the command line uses |

pub mod api;
pub mod client;
mod history;
mod limit;
mod members;
pub mod server;
mod serving;
pub(crate) mod share;
#[cfg(test)]
mod tests;
pub mod words;

use std::sync::Arc;

use axum::extract::FromRef;

use crate::{
    NodeHandle,
    config::Config,
    gateway::Gateways,
    state::{
        io::{Command, Failure},
        report,
    },
};

/// What the control socket shows and changes: a node, and its gateways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    node: NodeHandle,
    gateways: Arc<Gateways>,
}

impl FromRef<Control> for NodeHandle {
    fn from_ref(control: &Control) -> Self {
        control.node.clone()
    }
}

impl FromRef<Control> for Arc<Gateways> {
    fn from_ref(control: &Control) -> Self {
        Self::clone(&control.gateways)
    }
}

impl Control {
    pub(crate) const fn new(node: NodeHandle, gateways: Arc<Gateways>) -> Self {
        Self { node, gateways }
    }

    /// Reads `pimesh.toml` again. The network, the control socket, the identity, the clock and the
    /// log take effect at the next start.
    ///
    /// # Errors
    /// Returns why the file is not taken; then everything stays as it was.
    pub async fn reload(&self) -> Result<(), Failure> {
        let illegal = |error: &dyn std::error::Error| {
            let cause = error.source().map(|cause| format!(": {cause}"));
            Failure::bad_request(format!("{error}{}", cause.unwrap_or_default()))
                .with_hint("`pimesh config check` checks the file")
        };
        let config = Config::load(self.node.home()).map_err(|e| illegal(&e))?;
        let settings = Box::new(config.settings);
        self.node.ask(Command::Configure(settings)).await?;
        // Runs in its own task, so that it completes even if the caller disconnects.
        let gateways = Arc::clone(&self.gateways);
        let applying = tokio::spawn(async move { gateways.apply(&config.gateways).await });
        applying.await.map_err(|_| {
            Failure::unavailable("the gateways could not be opened and closed as configured")
        })
    }

    fn status(&self, node: report::Status) -> api::Status {
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.node.home().display().to_string(),
            listeners: self.node.listeners(),
            gateways: self.gateways.list(),
            clock: self.node.clock().report(),
            node,
        }
    }
}
