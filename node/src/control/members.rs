//! What is asked about membership: tickets that are open, names, leaving, and the mesh key.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};

use super::{
    Control,
    api::{Leave, NewName, ShareMeshKey},
};
use crate::{
    NodeHandle,
    routes::{Answer, Posted},
    state::report,
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
    Ok(Json(node.invites().await?))
}

async fn cancel_all(State(node): State<NodeHandle>) -> Answer<Vec<report::OpenInvite>> {
    Ok(Json(node.cancel_invites(None).await?))
}

async fn cancel(
    State(node): State<NodeHandle>,
    Path(ticket): Path<String>,
) -> Answer<Vec<report::OpenInvite>> {
    Ok(Json(node.cancel_invites(Some(ticket)).await?))
}

async fn rename(
    State(node): State<NodeHandle>,
    Posted(NewName { peer, name }): Posted<NewName>,
) -> Answer<report::Renamed> {
    Ok(Json(node.rename(peer, name).await?))
}

async fn leave(
    State(node): State<NodeHandle>,
    Posted(Leave { sure }): Posted<Leave>,
) -> Answer<report::Left> {
    Ok(Json(node.leave(sure).await?))
}

async fn share(
    State(node): State<NodeHandle>,
    Posted(ShareMeshKey { peer }): Posted<ShareMeshKey>,
) -> Answer<report::KeyShared> {
    Ok(Json(node.share_mesh_key(peer).await?))
}

async fn reload_key(State(node): State<NodeHandle>) -> Answer<()> {
    node.reload_mesh_key().await?;
    Ok(Json(()))
}
