//! Calls about gateways, their clients, servers and users.

use std::time::Duration;

use hyper::Method;

use super::{Client, ClientError, OTHERS_TIME, transport::escape};
use crate::{
    control::api::{NewP2snMessage, P2snAddress, P2snReplied},
    gateway::{
        GatewayReport, iid::upstream::ServerReport, syft::server::ServerReport as SyftServerReport,
        visit::ClientReport,
    },
    proto::syft::http::{Registration, UserBody},
    state::{post::User, report},
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

    /// Returns the APIntIO servers that the node is a client of.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn iid_servers(&self) -> Result<Vec<ServerReport>, ClientError> {
        self.get("/v1/gateways/iid/servers").await
    }

    /// Returns the Syft servers that the node is a client of.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn syft_servers(&self) -> Result<Vec<SyftServerReport>, ClientError> {
        self.get("/v1/gateways/syft/servers").await
    }

    /// Returns everybody who can be written to: users of all gateways, and the members themselves.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("/v1/users").await
    }

    /// Adds a user to this node's gateway, by the rules for users who register themselves.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn add_user(&self, user: &Registration) -> Result<UserBody, ClientError> {
        self.call(Method::POST, "/v1/users", Some(user)).await
    }

    /// Removes a user of this node's gateway, and the messages that wait for that user.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn forget_user(&self, user: &str) -> Result<(), ClientError> {
        let path = format!("/v1/users/{}", escape(user));
        self.call(Method::DELETE, &path, None::<()>).await
    }

    /// Sends a message to a plain P2SN server, and returns its reply.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_send(&self, message: &NewP2snMessage) -> Result<P2snReplied, ClientError> {
        let own = message.timeout_s.map(Duration::from_secs);
        let patient = self.patient(self.silence.saturating_add(own.unwrap_or(OTHERS_TIME)));
        patient
            .call(Method::POST, "/v1/p2sn/send", Some(message))
            .await
    }

    /// Returns the keys of old P2SN clients and servers.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_keys(&self) -> Result<Vec<report::P2snKey>, ClientError> {
        self.get("/v1/p2sn/keys").await
    }

    /// Accepts the key that was refused at this address.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_trust(
        &self,
        address: &P2snAddress,
    ) -> Result<Vec<report::P2snKey>, ClientError> {
        self.call(Method::POST, "/v1/p2sn/trust", Some(address))
            .await
    }

    /// Takes away the keys that are pinned to this address.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn p2sn_forget(
        &self,
        address: &P2snAddress,
    ) -> Result<Vec<report::P2snKey>, ClientError> {
        self.call(Method::POST, "/v1/p2sn/forget", Some(address))
            .await
    }
}
