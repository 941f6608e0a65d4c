//! The history of messages: read page by page, however long it is, and deleted by those who own it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{NodeHandle, asks::does_not_fit};
use crate::{
    proto::mesh::MessageId,
    state::{
        io::{Command, Encoding, Failure, Party, Reply, Selection, Way},
        report,
    },
    store::{History, Row, StoreError},
};

/// Messages of the history that are returned if the query does not say how many.
pub const HISTORY_DEFAULT: u64 = 100;

/// The query of `GET /v1/messages`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Which way they went.
    #[serde(default)]
    pub way: Way,
    /// The message with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// From or to this member or client only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// At this Unix millisecond or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Before this Unix millisecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<u64>,
    /// Behind this row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// With this text in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// At most so many: the first ones behind `after`, or the last ones if `after` is not given;
    /// [`HISTORY_DEFAULT`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// All of them, in the place of `limit`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// The query of `DELETE /v1/messages`: what fits all that is given is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// Which way they went.
    #[serde(default)]
    pub way: Way,
    /// The message with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// From or to this member or client only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Before this Unix millisecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<u64>,
    /// All of them: needed if nothing of the above is given, and not allowed otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Up to this row only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<i64>,
    /// Only say how many there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The answer to `DELETE /v1/messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// How many messages were deleted, or would be.
    pub count: u64,
    /// The row of the last of them.
    pub up_to: i64,
}

/// The answer to `GET /v1/messages/count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many messages there are.
    pub count: u64,
}

/// One message of the history.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryRow {
    /// Its place; rows grow in the order in which messages came.
    pub row: i64,
    /// Its id.
    pub id: MessageId,
    /// Name of the other side, as it is called now.
    pub name: String,
    /// What it was called when the message was written down, if that was another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_then: Option<String>,
    /// Peer id of the other side, or the name of a client.
    pub peer_id: String,
    /// When the sender accepted it.
    pub created_ms: u64,
    /// When it came, or when its outcome was known.
    pub at_ms: u64,
    /// The protocol: `direct`, `p2sn` or `syft`.
    pub via: String,
    /// How sending ended; empty while it waits, and for received ones.
    pub outcome: String,
    /// The text.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How it stands for bytes.
    #[serde(default, skip_serializing_if = "Encoding::is_utf8")]
    pub encoding: Encoding,
}

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
    /// Returns behind which row the next page begins.
    pub(super) const fn after(&self) -> i64 {
        self.after
    }

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

    /// Returns a row, if the store has given it to a message once.
    pub(super) async fn check_row(&self, row: i64) -> Result<i64, Failure> {
        let history = Arc::clone(self.stored());
        let last = read(move || history.last_row()).await?;
        if row > last {
            let text = format!("the newest message has row {last}, and not {row} or a later one");
            return Err(Failure::conflict(text).with_hint(
                "the store was replaced by another one; begin with the oldest message",
            ));
        }
        Ok(row)
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
                _ => return Err(does_not_fit()),
            }
        }
        Ok(Deleted { count, up_to: last })
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

/// Returns true for `user@node`: neither a peer id nor the name of a client has an `@`.
fn is_full_name(text: &str) -> bool {
    text.rsplit_once('@')
        .is_some_and(|(user, node)| !user.is_empty() && !node.is_empty())
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
        [] if is_full_name(&wanted) => Ok((None, Some(wanted))),
        [] => match wanted.parse::<Party>() {
            Ok(party) => Ok((Some(party), None)),
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
