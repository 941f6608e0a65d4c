//! What is asked about membership: tickets that are open, names, leaving, and the mesh key.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};

use super::{
    Control,
    api::{Leave, NewName, ShareMeshKey},
    server::{Answer, Posted, unexpected},
};
use crate::{
    NodeHandle,
    state::{
        io::{Command, Reply},
        report,
    },
};

/// Returns the routes; `invite` makes a ticket.
pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/v1/invites", get(invites).delete(cancel_all))
        .route("/v1/invites/{ticket}", delete(cancel))
        .route("/v1/rename", post(rename))
        .route("/v1/leave", post(leave))
        .route("/v1/mesh-key/share", post(share))
        .route("/v1/mesh-key/reload", post(reload_key))
}

async fn invites(State(node): State<NodeHandle>) -> Answer<Vec<report::OpenInvite>> {
    match node.ask(Command::Invites).await? {
        Reply::Invites(invites) => Ok(Json(invites)),
        other => Err(unexpected(other)),
    }
}

async fn cancel_all(State(node): State<NodeHandle>) -> Answer<Vec<report::OpenInvite>> {
    cancel_invites(&node, None).await
}

async fn cancel(
    State(node): State<NodeHandle>,
    Path(ticket): Path<String>,
) -> Answer<Vec<report::OpenInvite>> {
    cancel_invites(&node, Some(ticket)).await
}

async fn cancel_invites(
    node: &NodeHandle,
    which: Option<String>,
) -> Answer<Vec<report::OpenInvite>> {
    match node.ask(Command::CancelInvites { which }).await? {
        Reply::InvitesCancelled(cancelled) => Ok(Json(cancelled)),
        other => Err(unexpected(other)),
    }
}

async fn rename(
    State(node): State<NodeHandle>,
    Posted(NewName { peer, name }): Posted<NewName>,
) -> Answer<report::Renamed> {
    match node.ask(Command::Rename { peer, name }).await? {
        Reply::Renamed(renamed) => Ok(Json(renamed)),
        other => Err(unexpected(other)),
    }
}

async fn leave(
    State(node): State<NodeHandle>,
    Posted(Leave { sure }): Posted<Leave>,
) -> Answer<report::Left> {
    match node.ask(Command::Leave { sure }).await? {
        Reply::Left(left) => Ok(Json(left)),
        other => Err(unexpected(other)),
    }
}

async fn share(
    State(node): State<NodeHandle>,
    Posted(ShareMeshKey { peer }): Posted<ShareMeshKey>,
) -> Answer<report::KeyShared> {
    match node.ask(Command::ShareMeshKey { peer }).await? {
        Reply::KeyShared(shared) => Ok(Json(shared)),
        other => Err(unexpected(other)),
    }
}

async fn reload_key(State(node): State<NodeHandle>) -> Answer<()> {
    node.reload_mesh_key().await?;
    Ok(Json(()))
}
