//! The history of messages, as the control socket shows it.

use std::io;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};

use super::api::{Counted, Deleted, Deletion, HistoryQuery, HistoryRow};
use crate::{
    handle::{NodeHandle, Pages},
    routes::{Answer, Asked, Refused},
    state::io::Failure,
};

/// `GET /v1/messages`: a JSON list, written as it is read.
pub(super) async fn list(
    State(node): State<NodeHandle>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Response, Refused> {
    let pages = pages(node.history(query).await?).await?;
    let mut is_first = true;
    let items = pages.map(move |page| {
        let mut text = String::new();
        for row in page? {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(&row)?);
        }
        Ok::<_, io::Error>(Bytes::from(text))
    });
    let bracket = |text: &'static str| stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    let body = Body::from_stream(bracket("[").chain(items).chain(bracket("]")));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// `GET /v1/messages/count`.
pub(super) async fn count(
    State(node): State<NodeHandle>,
    Asked(query): Asked<HistoryQuery>,
) -> Answer<Counted> {
    Ok(Json(node.count_history(query).await?))
}

/// `GET /v1/messages/stream`: the same, one message a line behind a first empty line.
pub(super) async fn lines(
    State(node): State<NodeHandle>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Response, Refused> {
    let pages = pages(node.history(query).await?).await?;
    let items = pages.map(|page| {
        let mut text = String::new();
        for row in page? {
            text.push_str(&serde_json::to_string(&row)?);
            text.push('\n');
        }
        Ok::<_, io::Error>(Bytes::from(text))
    });
    let hello = stream::iter([Ok(Bytes::from_static(b"\n"))]);
    let body = Body::from_stream(hello.chain(items));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Reads the first page, so that what is wrong is an answer of its own; the rest is read as the
/// reader takes it. What goes wrong later breaks the answer off.
async fn pages(
    mut pages: Pages,
) -> Result<impl Stream<Item = io::Result<Vec<HistoryRow>>>, Failure> {
    let first = pages.next().await?.map(Ok);
    let rest = stream::try_unfold(pages, |mut pages| async {
        let page = pages.next().await;
        let page = page.map_err(|failure| io::Error::other(failure.message))?;
        Ok(page.map(|page| (page, pages)))
    });
    Ok(stream::iter(first).chain(rest))
}

/// `DELETE /v1/messages`.
pub(super) async fn delete(
    State(node): State<NodeHandle>,
    Asked(deletion): Asked<Deletion>,
) -> Answer<Deleted> {
    Ok(Json(node.delete_history(deletion).await?))
}
