//! What is asked about old P2SN clients and servers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};

use super::{
    Control,
    api::{NewP2snMessage, P2snAddress, P2snReplied},
    server::{Answer, Posted},
};
use crate::{
    NodeHandle,
    gateway::Gateways,
    state::{clients::Question, report::P2snKey},
};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/v1/p2sn/send", post(send))
        .route("/v1/p2sn/keys", get(keys))
        .route("/v1/p2sn/trust", post(trust))
        .route("/v1/p2sn/forget", post(forget))
}

async fn send(
    State(gateways): State<Arc<Gateways>>,
    Posted(message): Posted<NewP2snMessage>,
) -> Answer<P2snReplied> {
    Ok(Json(gateways.p2sn_send(message).await?))
}

async fn keys(State(node): State<NodeHandle>) -> Answer<Vec<P2snKey>> {
    Ok(Json(node.p2sn_keys(Question::Keys).await?))
}

async fn trust(
    State(node): State<NodeHandle>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    Ok(Json(node.p2sn_keys(Question::Trust { address }).await?))
}

async fn forget(
    State(node): State<NodeHandle>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    Ok(Json(node.p2sn_keys(Question::Forget { address }).await?))
}
