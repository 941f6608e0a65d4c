//! What `pimesh gateway syft` asks of the node, under `/v1/gateways/syft`.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /servers` | | list of [`ServerReport`] |
//! | `POST /users` | [`Registration`] | [`UserBody`]: who is a user of this node's gateway |
//! | `DELETE /users/{user}` | | `null`, once a user of this node's gateway is gone |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, Path, State},
    routing::{delete, get, post},
};

use super::server::{Outgoing, ServerReport};
use crate::{
    gateway::context::Context,
    handle::does_not_fit,
    proto::syft::http::{Registration, UserBody},
    routes::{Answer, Posted},
    state::{
        io::Failure,
        post::{Ask, Told},
    },
};

#[derive(Clone)]
struct Asked {
    node: Context,
    outbound: Arc<Outgoing>,
}

impl FromRef<Asked> for Context {
    fn from_ref(asked: &Asked) -> Self {
        asked.node.clone()
    }
}

impl FromRef<Asked> for Arc<Outgoing> {
    fn from_ref(asked: &Asked) -> Self {
        Self::clone(&asked.outbound)
    }
}

pub(super) fn routes(node: Context, outbound: Arc<Outgoing>) -> Router {
    Router::new()
        .route("/servers", get(servers))
        .route("/users", post(add))
        .route("/users/{user}", delete(forget))
        .with_state(Asked { node, outbound })
}

async fn servers(State(outbound): State<Arc<Outgoing>>) -> Json<Vec<ServerReport>> {
    Json(outbound.reports())
}

/// Registers a user for the operator, also where `open_registration` is off.
async fn add(
    State(node): State<Context>,
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
        // Another request removed the user at the same time.
        Told::Found(None) => Err(Failure::not_found(format!("`{name}` was taken out")).into()),
        _ => Err(does_not_fit().into()),
    }
}

async fn forget(State(node): State<Context>, Path(user): Path<String>) -> Answer<()> {
    node.ask_gateway(Ask::Forget { user }).await?;
    Ok(Json(()))
}
