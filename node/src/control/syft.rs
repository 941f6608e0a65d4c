//! What is asked about the users of Syft, and about the Syft servers that this node is a client of.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    routing::{delete, get},
};

use super::{
    Control,
    server::{Answer, Posted},
};
use crate::{
    NodeHandle,
    gateway::{Gateways, syft::server::ServerReport},
    handle::does_not_fit,
    proto::syft::http::{Registration, UserBody},
    state::{
        io::Failure,
        post::{Ask, Told, User},
    },
};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/v1/gateways/syft/servers", get(servers))
        .route("/v1/users", get(users).post(add))
        .route("/v1/users/{user}", delete(forget))
}

async fn servers(State(gateways): State<Arc<Gateways>>) -> Json<Vec<ServerReport>> {
    Json(gateways.syft_servers_report())
}

async fn users(State(node): State<NodeHandle>) -> Answer<Vec<User>> {
    match node.ask_gateway(Ask::Everybody).await? {
        Told::Everybody(users) => Ok(Json(users)),
        _ => Err(does_not_fit().into()),
    }
}

/// Registers a user as he would do it himself, also at a gateway that lets nobody register.
async fn add(
    State(node): State<NodeHandle>,
    Posted(registration): Posted<Registration>,
) -> Answer<UserBody> {
    let user = registration.check();
    let user = user.map_err(|error| Failure::bad_request(error.to_string()))?;
    let name = user.id.clone();
    node.ask_gateway(Ask::Register { user, stays: true })
        .await?;
    let local = Ask::Local { name: name.clone() };
    match node.ask_gateway(local).await? {
        Told::Found(Some(found)) => Ok(Json(UserBody {
            user_id: name.to_string(),
            username: found.title,
            public_key: found.key.to_base64(),
        })),
        // Somebody took him out at the same time.
        Told::Found(None) => Err(Failure::not_found(format!("`{name}` was taken out")).into()),
        _ => Err(does_not_fit().into()),
    }
}

async fn forget(State(node): State<NodeHandle>, UrlPath(user): UrlPath<String>) -> Answer<()> {
    node.ask_gateway(Ask::Forget { user }).await?;
    Ok(Json(()))
}
