//! What `pimesh gateway p2sn` asks of the node, under `/v1/gateways/p2sn`.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /send` | [`NewP2snMessage`] | [`P2snReplied`] |
//! | `GET /keys` | | list of [`P2snKey`] |
//! | `POST /trust` | [`P2snAddress`] | list of [`P2snKey`], what is pinned |
//! | `POST /forget` | [`P2snAddress`] | list of [`P2snKey`], what was pinned |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, State},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::send::{NewP2snMessage, P2snReplied, Sender};
use crate::{
    gateway::context::Context,
    handle::does_not_fit,
    routes::{Answer, Posted, Refused},
    state::{
        clients::{self, Question},
        io::{Command, Reply},
        report::P2snKey,
    },
};

/// The body of `POST /trust` and `POST /forget`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct P2snAddress {
    /// A client's IP address, or a server's `HOST` or `HOST:PORT`.
    pub address: String,
}

#[derive(Clone)]
struct Asked {
    node: Context,
    sender: Arc<Sender>,
}

impl FromRef<Asked> for Context {
    fn from_ref(asked: &Asked) -> Self {
        asked.node.clone()
    }
}

impl FromRef<Asked> for Arc<Sender> {
    fn from_ref(asked: &Asked) -> Self {
        Self::clone(&asked.sender)
    }
}

pub(super) fn routes(node: Context, sender: Arc<Sender>) -> Router {
    Router::new()
        .route("/send", post(send))
        .route("/keys", get(keys))
        .route("/trust", post(trust))
        .route("/forget", post(forget))
        .with_state(Asked { node, sender })
}

async fn send(
    State(sender): State<Arc<Sender>>,
    Posted(message): Posted<NewP2snMessage>,
) -> Answer<P2snReplied> {
    Ok(Json(sender.send(message).await?))
}

async fn keys(State(node): State<Context>) -> Answer<Vec<P2snKey>> {
    ask(&node, Question::Keys).await
}

async fn trust(
    State(node): State<Context>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    ask(&node, Question::Trust { address }).await
}

async fn forget(
    State(node): State<Context>,
    Posted(P2snAddress { address }): Posted<P2snAddress>,
) -> Answer<Vec<P2snKey>> {
    ask(&node, Question::Forget { address }).await
}

async fn ask(node: &Context, question: Question) -> Answer<Vec<P2snKey>> {
    match node.ask(Command::P2sn(question)).await? {
        Reply::P2sn(clients::Answer::Keys(keys)) => Ok(Json(keys)),
        _ => Err(Refused::from(does_not_fit())),
    }
}
