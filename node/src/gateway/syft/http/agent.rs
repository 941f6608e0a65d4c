//! Requests that the user's own agent answers (`proto-specs/syft.md`, section 8).

use std::sync::Arc;

use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Request, admitted,
    refusal::{Answer, Refusal, invalid},
};
use crate::{gateway::syft::tokens::TokenError, proto::syft::forward};

impl Request {
    /// Has the user's own agent answer; refusals are JSON here, as they were.
    pub(super) async fn ask_agent(self, kind: forward::Kind) -> Response {
        let answered = self.forward(kind).await;
        answered.unwrap_or_else(|Refusal(status, text)| {
            (status, axum::Json(json!({"error": true, "message": text}))).into_response()
        })
    }

    pub(super) async fn forward(self, kind: forward::Kind) -> Answer {
        if self.parts.method != Method::POST {
            return Err(Refusal::method());
        }
        let claims = self.claims()?;
        let gateway = Arc::clone(&self.gateway);
        let user = admitted(&gateway, &claims).await?.user;
        let name = claims
            .user_id
            .parse()
            .map_err(|_| invalid(TokenError::Foreign))?;
        // Bodies of many users at once share the room of the frames that wait.
        let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "The node is busy");
        let _room = gateway
            .frames
            .take(self.body_bytes_max())
            .ok_or_else(busy)?;
        let body = self.bytes(forward::BODY_BYTES_MAX).await?;
        let request = forward::Request::read(kind, &body)?;
        let frame = request.frame(&name, gateway.unix_ms())?;
        let asked = gateway
            .forwards
            .ask(Arc::clone(&gateway.hub), user, frame)
            .await;
        let content = asked.map_err(|error| {
            gateway.count("forward", error.name());
            Refusal::from(error)
        })?;
        let answer = request.answer(&content).map_err(|error| {
            gateway.count("forward", "unreadable");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })?;
        Ok(axum::Json(answer).into_response())
    }

    /// Returns how long the body of a request to an agent can become.
    pub(super) fn body_bytes_max(&self) -> usize {
        let hint = hyper::body::Body::size_hint(&self.body).upper();
        let hint = hint.and_then(|bytes| usize::try_from(bytes).ok());
        hint.unwrap_or(usize::MAX).min(forward::BODY_BYTES_MAX)
    }
}
