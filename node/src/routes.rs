//! Helpers for the HTTP routes of the control socket, which `control` and each gateway define: reading
//! bodies and queries, writing answers and failures.

use std::time::Duration;

use axum::{
    Json,
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::state::io::{Failure, FailureKind};

/// Longest body of a request, in bytes: a message of 1 MiB of which JSON writes each byte with six
/// (`\u0001`), and room for the rest. Streams of integers have no limit, for they are not collected.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the body of a request may take that is no stream: a local client has it at hand.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);

/// A failure as an answer.
pub(crate) struct Refused(Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            FailureKind::BadRequest => StatusCode::BAD_REQUEST,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::Fault => StatusCode::INTERNAL_SERVER_ERROR,
            FailureKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Refused => StatusCode::FORBIDDEN,
            FailureKind::OverBudget => StatusCode::TOO_MANY_REQUESTS,
        };
        (status, Json(self.0)).into_response()
    }
}

pub(crate) type Answer<T> = Result<Json<T>, Refused>;

/// A JSON body, or an error that a person understands.
pub(crate) struct Posted<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Posted<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let too_long =
            || Failure::bad_request(format!("a body has at most {BODY_BYTES_MAX} bytes"));
        // Told by its length, a body that is too long is not waited for.
        if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(Refused(too_long()));
        }
        let body = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await;
        let too_late = |_| {
            let time = BODY_TIME.as_secs();
            Failure::timed_out(format!(
                "the body of the request did not come within {time} s"
            ))
        };
        let bytes = body.map_err(too_late)?.map_err(|error| {
            if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_long()
            } else {
                Failure::bad_request(error.body_text())
            }
        })?;
        let body = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::bad_request(format!("the body is not what is expected here: {error}"))
        })?;
        Ok(Self(body))
    }
}

/// What stands behind the `?`, or an error that a person understands.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Refused> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
        Ok(Self(query))
    }
}
