//! Calls about members: who they are, tickets, names, leaving, and the mesh key.

use hyper::Method;

use super::{Client, ClientError, OTHERS_TIME, transport::escape};
use crate::{
    control::api::{GiveIndices, Join, Leave, NewInvite, NewName, NewTrust, ShareMeshKey, Vouch},
    proto::mesh::{ranges::Ranges, vouched::Vouched},
    state::report,
};

impl Client {
    /// Returns the members.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn peers(&self) -> Result<Vec<report::Peer>, ClientError> {
        self.get("/v1/peers").await
    }

    /// Takes a member out of the mesh.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn remove(&self, peer: &str) -> Result<report::Removed, ClientError> {
        self.call(
            Method::DELETE,
            &format!("/v1/peers/{}", escape(peer)),
            None::<()>,
        )
        .await
    }

    /// Returns everybody who can be written to.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn who(&self) -> Result<Vec<report::Who>, ClientError> {
        self.call(Method::GET, "/v1/who", None::<()>).await
    }

    /// Accepts the changed key of a member or user; with `name`, that the bare name means this user.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn trust(&self, who: &str, name: bool) -> Result<report::Trusted, ClientError> {
        let who = who.to_owned();
        self.call(Method::POST, "/v1/trust", Some(NewTrust { who, name }))
            .await
    }

    /// Changes what a member may speak for as a gateway.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn vouch(
        &self,
        peer: &str,
        vouched: Vouched,
    ) -> Result<report::Vouched, ClientError> {
        let path = format!("/v1/peers/{}/vouch", escape(peer));
        self.call(Method::POST, &path, Some(Vouch { vouched }))
            .await
    }

    /// States which further indices a member owns, in the place of those that it owned.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn give_indices(
        &self,
        peer: &str,
        further: Ranges,
    ) -> Result<report::GivenIndices, ClientError> {
        let path = format!("/v1/peers/{}/indices", escape(peer));
        self.call(Method::POST, &path, Some(GiveIndices { further }))
            .await
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn invite(&self, invite: &NewInvite) -> Result<report::Invite, ClientError> {
        self.call(Method::POST, "/v1/invites", Some(invite)).await
    }

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

    /// Enters a mesh.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn join(&self, ticket: String) -> Result<report::Joined, ClientError> {
        let patient = self.patient(self.silence + OTHERS_TIME);
        patient
            .call(Method::POST, "/v1/join", Some(Join { ticket }))
            .await
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
