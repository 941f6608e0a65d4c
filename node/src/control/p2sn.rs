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
    server::{Answer, Posted, unexpected},
};
use crate::{
    NodeHandle,
    gateway::Gateways,
    state::{
        clients::{Answer as Told, Question},
        io::{Command, Reply},
        report::P2snKey,
    },
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
    ask(&node, Question::Keys).await
}

async fn trust(
    State(node): State<NodeHandle>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    ask(&node, Question::Trust { address }).await
}

async fn forget(
    State(node): State<NodeHandle>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    ask(&node, Question::Forget { address }).await
}

async fn ask(node: &NodeHandle, question: Question) -> Answer<Vec<P2snKey>> {
    match node.ask(Command::P2sn(question)).await? {
        Reply::P2sn(Told::Keys(keys)) => Ok(Json(keys)),
        other => Err(unexpected(other)),
    }
}
