//! The history of messages: read page by page, however long it is, and deleted by those who own it.

use std::{io, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};

use super::{
    api::{Counted, Deleted, Deletion, HISTORY_DEFAULT, HistoryQuery, HistoryRow},
    server::{Answer, Asked, Refused},
};
use crate::{
    NodeHandle,
    state::{
        io::{Command, Failure, Party, Reply, Selection},
        report,
    },
    store::{History, Row, StoreError},
};

/// Messages that a query asks for, a page at a time.
#[derive(Debug)]
pub struct Pages {
    history: Arc<History>,
    selection: Selection,
    names: Vec<report::Names>,
    /// Behind which row the next page begins.
    after: i64,
    /// How many more are wanted.
    left: u64,
}

impl Pages {
    /// Reads the next page; it has at least one message, and a megabyte and a half at most.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<HistoryRow>>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let (history, selection) = (Arc::clone(&self.history), self.selection.clone());
        let (after, left) = (self.after, self.left);
        let page = read(move || history.page(&selection, after, left)).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = last.row;
        self.left -= page.len() as u64;
        Ok(Some(page.into_iter().map(|row| self.named(row)).collect()))
    }

    /// Adds the names of the other side. A user's message bears the name that it came with.
    fn named(&self, row: Row) -> HistoryRow {
        let (name, name_then) = if row.user.is_empty() {
            let is_of = |names: &&report::Names| Party::Member(names.peer_id) == row.peer;
            let called = self.names.iter().find(is_of);
            let name = called.map_or_else(|| row.peer.to_string(), |names| names.name.clone());
            let then = Some(row.name_then).filter(|then| !then.is_empty() && *then != name);
            (name, then)
        } else {
            (row.user, None)
        };
        HistoryRow {
            row: row.row,
            id: row.id,
            name,
            name_then,
            peer_id: row.peer.to_string(),
            created_ms: row.created_ms,
            at_ms: row.at_ms,
            via: row.via,
            outcome: row.outcome,
            text: row.text,
            encoding: row.encoding,
        }
    }
}

impl NodeHandle {
    /// Begins to read messages that are on disk.
    ///
    /// # Errors
    /// Returns why they cannot be read.
    pub async fn history(&self, query: HistoryQuery) -> Result<Pages, Failure> {
        let names = self.names().await?;
        let selection = selection(&names, &query)?;
        let left = match (query.all, query.limit) {
            (true, Some(_)) => {
                return Err(Failure::bad_request("one of `all` and `limit`, not both"));
            }
            (true, None) => u64::MAX,
            (false, limit) => limit.unwrap_or(HISTORY_DEFAULT),
        };
        let history = Arc::clone(self.stored());
        let after = match query.after {
            Some(after) => after,
            None if query.all => 0,
            None => {
                let (history, selection) = (Arc::clone(&history), selection.clone());
                read(move || history.before_last(&selection, left)).await?
            }
        };
        Ok(Pages {
            history,
            selection,
            names,
            after,
            left,
        })
    }

    /// Counts the messages that fit a query, whatever its `limit` and `after`.
    ///
    /// # Errors
    /// Returns why they cannot be counted.
    pub async fn count_history(&self, query: HistoryQuery) -> Result<Counted, Failure> {
        let selection = selection(&self.names().await?, &query)?;
        let history = Arc::clone(self.stored());
        let count = read(move || history.count(&selection)).await?;
        Ok(Counted { count })
    }

    /// Deletes messages from the history; those that wait in the outbox stay. With `dry_run` it
    /// only says how many there are.
    ///
    /// # Errors
    /// Returns why they cannot be deleted.
    pub async fn delete_history(&self, deletion: Deletion) -> Result<Deleted, Failure> {
        let is_everything =
            deletion.id.is_none() && deletion.peer.is_none() && deletion.before_ms.is_none();
        if is_everything != deletion.all {
            let text = "say which messages: an `id`, a `peer`, `before_ms`, or else `all`";
            return Err(Failure::bad_request(text));
        }
        let (peer, user) = resolve(&self.names().await?, deletion.peer)?;
        let mut selection = Selection {
            way: deletion.way,
            id: deletion.id,
            peer,
            user,
            before_ms: deletion.before_ms,
            up_to: deletion.up_to,
            ..Selection::default()
        };
        let history = Arc::clone(self.stored());
        let chosen = selection.clone();
        let (count, last) = read(move || history.count_deletable(&chosen)).await?;
        if count > 0 && !deletion.dry_run {
            // What comes from here on was not counted, and stays.
            selection.up_to = Some(last);
            match self.ask(Command::DeleteHistory(selection)).await? {
                Reply::HistoryDeleted => {}
                _ => {
                    return Err(Failure::unavailable(
                        "the node gave an answer that does not fit",
                    ));
                }
            }
        }
        Ok(Deleted { count, up_to: last })
    }

    async fn names(&self) -> Result<Vec<report::Names>, Failure> {
        match self.ask(Command::Names).await? {
            Reply::Names(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }
}

/// Reads the store off the loop.
async fn read<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(run).await;
    let done = done.map_err(|_| Failure::unavailable("the node is stopping"))?;
    done.map_err(|error| {
        let failure = Failure::fault(format!("could not read the history: {error}"));
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })
}

/// Returns what a query selects.
fn selection(names: &[report::Names], query: &HistoryQuery) -> Result<Selection, Failure> {
    let (peer, user) = resolve(names, query.peer.clone())?;
    Ok(Selection {
        way: query.way,
        id: query.id,
        peer,
        user,
        since_ms: query.since_ms,
        before_ms: query.before_ms,
        search: query.search.clone(),
        ..Selection::default()
    })
}

/// Finds whom a name means: a member, a former one, a client, or a user. A present
/// name comes first; a former name counts if only one member had it.
fn resolve(
    names: &[report::Names],
    wanted: Option<String>,
) -> Result<(Option<Party>, Option<String>), Failure> {
    let Some(wanted) = wanted else {
        return Ok((None, None));
    };
    let is_now = |n: &&report::Names| n.member && n.name == wanted;
    let is_peer = |n: &&report::Names| n.peer_id.to_string() == wanted;
    let was = |n: &&report::Names| n.name == wanted || n.earlier.contains(&wanted);
    let now = names.iter().find(is_now);
    if let Some(found) = now.or_else(|| names.iter().find(is_peer)) {
        return Ok((Some(Party::Member(found.peer_id)), None));
    }
    let former: Vec<&report::Names> = names.iter().filter(was).collect();
    match former.as_slice() {
        [one] => Ok((Some(Party::Member(one.peer_id)), None)),
        // Messages of a peer whose name is not known are there under its peer id, and those of
        // clients under their names.
        [] => match wanted.parse::<Party>() {
            Ok(party) => Ok((Some(party), None)),
            Err(_) if wanted.contains('@') => Ok((None, Some(wanted))),
            Err(_) => Err(Failure::not_found(format!("no member is named `{wanted}`"))
                .with_hint("`pimesh peers` lists the members")),
        },
        several => {
            let ids: Vec<String> = several.iter().map(|n| n.peer_id.to_string()).collect();
            Err(
                Failure::conflict(format!("several former members were named `{wanted}`"))
                    .with_hint(format!("name one by its peer id: {}", ids.join(", "))),
            )
        }
    }
}

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
