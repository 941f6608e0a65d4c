//! Calls about the node itself, messages and integers.

use std::time::Duration;

use hyper::Method;

use super::{Client, ClientError, OTHERS_TIME};
use crate::{
    control::api::{NewIntegers, NewMessage, Status},
    state::{io::SendVia, report},
};

/// How long reading `pimesh.toml` again may take: gateways close and open, and one may have to make
/// an RSA key first.
const RELOAD_TIME: Duration = Duration::from_secs(180);

impl Client {
    /// Returns how the node is.
    ///
    /// # Errors
    /// As all calls: why there is no answer, or the node's own failure.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Has the node read `pimesh.toml` again.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn reload(&self) -> Result<(), ClientError> {
        let patient = self.patient(self.silence.max(RELOAD_TIME));
        patient.call(Method::POST, "/v1/reload", None::<()>).await
    }

    /// Returns the counters.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let bytes = self.bytes(Method::GET, "/metrics", None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a message; returns once it is on disk.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn send(&self, message: &NewMessage) -> Result<Vec<report::Accepted>, ClientError> {
        let patient = match message.via {
            SendVia::Direct => self.clone(),
            SendVia::P2sn => self.patient(self.silence + OTHERS_TIME),
        };
        patient
            .call(Method::POST, "/v1/messages", Some(message))
            .await
    }

    /// Returns messages that wait.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn outbox(&self) -> Result<Vec<report::Pending>, ClientError> {
        self.get("/v1/outbox").await
    }

    /// Broadcasts integers.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn publish(&self, integers: &NewIntegers) -> Result<report::Published, ClientError> {
        self.call(Method::POST, "/v1/integers", Some(integers))
            .await
    }

    /// Returns the last integer of each index.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn last_integers(&self) -> Result<Vec<report::Integer>, ClientError> {
        self.get("/v1/integers").await
    }
}
