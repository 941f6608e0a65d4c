//! What is refused over HTTP, and how the old server said it (`proto-specs/syft.md`, section 5).

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    cross_site,
    gateway::syft::{forward::ForwardError, tokens::TokenError},
    proto::syft::forward,
    state::io::{Failure, FailureKind},
};

/// A refusal: status and text.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

pub(super) type Answer = Result<Response, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
    }

    pub(super) fn bad(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn unauthorized(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, text)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::BadRequest => StatusCode::BAD_REQUEST,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::Fault => StatusCode::INTERNAL_SERVER_ERROR,
            FailureKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Refused => StatusCode::FORBIDDEN,
            FailureKind::OverBudget => StatusCode::TOO_MANY_REQUESTS,
        };
        Self(status, failure.message)
    }
}

impl From<cross_site::Refused> for Refusal {
    fn from(refused: cross_site::Refused) -> Self {
        Self(refused.status(), refused.to_string())
    }
}

impl From<forward::RequestError> for Refusal {
    fn from(error: forward::RequestError) -> Self {
        let status = match error {
            forward::RequestError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<ForwardError> for Refusal {
    fn from(error: ForwardError) -> Self {
        let status = match error {
            ForwardError::Busy => StatusCode::TOO_MANY_REQUESTS,
            ForwardError::NotConnected | ForwardError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

pub(super) fn too_many_failures() -> Refusal {
    let text = "Too many failed attempts from this address";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, text)
}

pub(super) fn invalid(error: TokenError) -> Refusal {
    Refusal::unauthorized(format!("Invalid token: {error}"))
}

/// The state answers each question with its own answer; any other is a bug there.
pub(super) fn unexpected() -> Refusal {
    let text = "The node gave an answer that does not fit";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
