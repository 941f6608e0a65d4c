//! Calls about membership: open tickets, names, leaving, and the mesh key.

use hyper::Method;

use super::{Client, ClientError, escape};
use crate::{
    control::api::{Leave, NewName, ShareMeshKey},
    state::report,
};

impl Client {
    /// Returns the tickets that may still be used.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn invites(&self) -> Result<Vec<report::OpenInvite>, ClientError> {
        self.get("/v1/invites").await
    }

    /// Makes the ticket with this id or name useless, or all of them; returns which.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn cancel_invites(
        &self,
        which: Option<&str>,
    ) -> Result<Vec<report::OpenInvite>, ClientError> {
        let path = match which {
            Some(which) => format!("/v1/invites/{}", escape(which)),
            None => "/v1/invites".to_owned(),
        };
        self.call(Method::DELETE, &path, None::<()>).await
    }

    /// Gives a member another name, or this node itself.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn rename(
        &self,
        peer: Option<&str>,
        name: &str,
    ) -> Result<report::Renamed, ClientError> {
        let body = NewName {
            peer: peer.map(str::to_owned),
            name: name.to_owned(),
        };
        self.call(Method::POST, "/v1/rename", Some(body)).await
    }

    /// Leaves the mesh; `sure` even if nobody else is known to hold the mesh key.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn leave(&self, sure: bool) -> Result<report::Left, ClientError> {
        self.call(Method::POST, "/v1/leave", Some(Leave { sure }))
            .await
    }

    /// Gives the mesh key to a member; returns once it is on its disk.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn share_mesh_key(&self, peer: &str) -> Result<report::KeyShared, ClientError> {
        let peer = peer.to_owned();
        self.call(
            Method::POST,
            "/v1/mesh-key/share",
            Some(ShareMeshKey { peer }),
        )
        .await
    }

    /// Has the node look at the file with the mesh key again.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn reload_mesh_key(&self) -> Result<(), ClientError> {
        self.call(Method::POST, "/v1/mesh-key/reload", None::<()>)
            .await
    }
}
