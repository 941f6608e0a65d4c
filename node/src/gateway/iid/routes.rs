//! What `pimesh gateway iid` asks of the node, under `/v1/gateways/iid`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /servers` | list of [`ServerReport`] |

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};

use super::upstream::{ServerReport, Upstreams};

pub(super) fn routes(outbound: Arc<Upstreams>) -> Router {
    Router::new()
        .route("/servers", get(servers))
        .with_state(outbound)
}

async fn servers(State(outbound): State<Arc<Upstreams>>) -> Json<Vec<ServerReport>> {
    Json(outbound.reports())
}
