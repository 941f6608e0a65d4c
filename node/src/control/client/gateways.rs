//! Calls about gateways, who is behind them, and what each of them serves itself.

use std::time::Duration;

use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{Client, ClientError, OTHERS_TIME, transport::escape};
use crate::{
    gateway::{GatewayReport, ServerStatus, visit::ClientReport},
    state::{io::Gateway, post::User},
};

impl Client {
    /// Returns the gateways for older clients.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn gateways(&self) -> Result<Vec<GatewayReport>, ClientError> {
        self.get("/v1/gateways").await
    }

    /// Returns the clients behind them.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn clients(&self) -> Result<Vec<ClientReport>, ClientError> {
        self.get("/v1/clients").await
    }

    /// Sends clients away: the one with this number, or all with this name.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn kick(&self, who: &str) -> Result<Vec<ClientReport>, ClientError> {
        let path = format!("/v1/clients/{}", escape(who));
        self.call(Method::DELETE, &path, None::<()>).await
    }

    /// Returns the foreign servers that the node is a client of.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn servers(&self) -> Result<Vec<ServerStatus>, ClientError> {
        self.get("/v1/servers").await
    }

    /// Returns the members, and the users of their Syft gateways.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("/v1/users").await
    }

    /// Returns a way to ask one gateway for what it serves itself.
    #[must_use]
    pub fn gateway(&self, gateway: Gateway) -> GatewayClient {
        GatewayClient {
            client: self.clone(),
            gateway,
        }
    }
}

/// A way to what one gateway serves itself: `routes.rs` in its folder says what that is.
///
/// A path is given in parts, which stand behind `/v1/gateways/NAME/`.
#[derive(Clone, Debug)]
pub struct GatewayClient {
    client: Client,
    gateway: Gateway,
}

impl GatewayClient {
    /// Lets the gateway itself wait for this long, or for as long as another machine may take.
    #[must_use]
    pub fn waiting(&self, time: Option<Duration>) -> Self {
        let silence = self.client.silence;
        let silence = silence.saturating_add(time.unwrap_or(OTHERS_TIME));
        Self {
            client: self.client.patient(silence),
            gateway: self.gateway,
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        self.client.get(&self.path(path)).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let path = self.path(path);
        self.client.call(Method::POST, &path, Some(body)).await
    }

    /// Has something taken away.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        let path = self.path(path);
        self.client.call(Method::DELETE, &path, None::<()>).await
    }

    fn path(&self, parts: &[&str]) -> String {
        let base = format!("/v1/gateways/{}", self.gateway.name());
        let add = |path: String, part: &&str| format!("{path}/{}", escape(part));
        parts.iter().fold(base, add)
    }
}
