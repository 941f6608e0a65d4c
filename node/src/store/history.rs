//! Reading the history of messages, beside the writer: a page at a time, so that neither the
//! number of messages nor their size shows in the memory of the node.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, Rows, ToSql};

use super::{
    error::{Flaw, StoreError},
    pruning::NOT_WAITING,
    schema::{bytes, encoding, number, party, party_bytes},
};
use crate::{
    proto::mesh::MessageId,
    state::io::{Encoding, Party, Selection, Way},
};

/// Most rows of one page.
const PAGE_ROWS: u64 = 256;

/// Bytes of text after which a page ends: with the longest message behind it, it has 1.5 MiB.
const PAGE_BYTES: usize = 512 * 1024;

/// One message.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the history.
    pub row: i64,
    /// Its id.
    pub id: MessageId,
    /// Whom it came from or went to; of a user's message the member with his gateway.
    pub peer: Party,
    /// The user, as `user@node`; empty for the member itself.
    pub user: String,
    /// What a member was called when the message was written down; empty if that is not known.
    pub name_then: String,
    /// When the sender accepted it, Unix ms by the sender's clock.
    pub created_ms: u64,
    /// When it came, or when its outcome was known, Unix ms.
    pub at_ms: u64,
    /// The protocol it went through: `direct` or `p2sn`.
    pub via: String,
    /// How sending ended; empty while it waits, and for received ones.
    pub outcome: String,
    /// The text.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// How it stands for bytes.
    pub encoding: Encoding,
}

/// The history, for reading.
#[derive(Debug)]
pub struct History {
    connection: Mutex<Connection>,
    path: PathBuf,
}

/// The condition of a selection, with the values of [`values`].
pub(super) const WANTED: &str = "direction = :direction AND row <= :up_to \
     AND (:first IS NULL OR id BETWEEN :first AND :last) AND (:peer IS NULL OR peer = :peer) \
     AND (:user IS NULL OR user = :user) AND at_ms >= :since AND at_ms < :before \
     AND (:search IS NULL OR body LIKE :search ESCAPE '\\')";

/// Calls `run` with the values of [`WANTED`], and with more.
pub(super) fn with_values<T>(
    selection: &Selection,
    more: &[(&str, &dyn ToSql)],
    run: impl FnOnce(&[(&str, &dyn ToSql)]) -> T,
) -> T {
    let time = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let direction = i64::from(selection.way == Way::Sent);
    let up_to = selection.up_to.unwrap_or(i64::MAX);
    // A received message is stored under its id and what follows it.
    let first = selection.id.map(|id| id.0.to_vec());
    let last = selection.id.map(|id| [&id.0[..], &[0xff; 64]].concat());
    let peer = selection.peer.as_ref().map(party_bytes);
    let since = selection.since_ms.map_or(0, time);
    let before = selection.before_ms.map_or(i64::MAX, time);
    let search = selection.search.as_ref();
    let search = search.map(|text| format!("%{}%", escape(text)));
    let mut values: Vec<(&str, &dyn ToSql)> = vec![
        (":direction", &direction),
        (":up_to", &up_to),
        (":first", &first),
        (":last", &last),
        (":peer", &peer),
        (":user", &selection.user),
        (":since", &since),
        (":before", &before),
        (":search", &search),
    ];
    values.extend_from_slice(more);
    run(&values)
}

impl History {
    pub(super) const fn new(connection: Connection, path: PathBuf) -> Self {
        Self {
            connection: Mutex::new(connection),
            path,
        }
    }

    /// Returns the first messages behind a row, in the order in which they came: at most `count`,
    /// and no more than a page. If there is none, nothing further is there. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn page(
        &self,
        selection: &Selection,
        after: i64,
        count: u64,
    ) -> Result<Vec<Row>, StoreError> {
        let sql = format!(
            "SELECT row, substr(id, 1, 16), peer, created_ms, at_ms, via, outcome, body, user, \
             is_hex, \
             coalesce((SELECT n.name FROM names n WHERE n.peer = history.peer \
             AND n.from_row <= history.row ORDER BY n.from_row DESC, n.row DESC LIMIT 1), '') \
             FROM history WHERE row > :after AND {WANTED} ORDER BY row LIMIT :count"
        );
        let count = count.min(PAGE_ROWS).cast_signed();
        self.read(
            &sql,
            selection,
            &[(":after", &after), (":count", &count)],
            |mut rows| {
                let (mut page, mut size) = (Vec::new(), 0);
                while size < PAGE_BYTES
                    && let Some(row) = rows.next()?
                {
                    let row = read_row(row)?;
                    size += row.text.len();
                    page.push(row);
                }
                Ok(page)
            },
        )
    }

    /// Returns the row behind which the last `count` messages are; 0 if there are no more than
    /// that. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn before_last(&self, selection: &Selection, count: u64) -> Result<i64, StoreError> {
        let sql = format!(
            "SELECT row FROM history WHERE {WANTED} ORDER BY row DESC LIMIT 1 OFFSET :count"
        );
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.read(&sql, selection, &[(":count", &count)], |mut rows| {
            Ok(rows.next()?.map_or(Ok(0), |row| row.get(0))?)
        })
    }

    /// Returns the last row that a message got, also if that one is deleted. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn last_row(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'history'";
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let row = connection.query_row(sql, [], |row| row.get(0));
        row.map_err(|error| Flaw::from(error).at(&self.path))
    }

    /// Returns how many messages there are. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn count(&self, selection: &Selection) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM history WHERE {WANTED}");
        self.read(&sql, selection, &[], |mut rows| match rows.next()? {
            Some(row) => number(row, 0),
            None => Ok(0),
        })
    }

    /// Returns how many messages there are that do not wait in the outbox, and the row of the last
    /// one. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn count_deletable(&self, selection: &Selection) -> Result<(u64, i64), StoreError> {
        let sql = format!(
            "SELECT count(*), coalesce(max(row), 0) FROM history WHERE {WANTED} AND {NOT_WAITING}"
        );
        self.read(&sql, selection, &[], |mut rows| match rows.next()? {
            Some(row) => Ok((number(row, 0)?, row.get(1)?)),
            None => Ok((0, 0)),
        })
    }

    fn read<T>(
        &self,
        sql: &str,
        selection: &Selection,
        more: &[(&str, &dyn ToSql)],
        take: impl FnOnce(Rows<'_>) -> Result<T, Flaw>,
    ) -> Result<T, StoreError> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let mut statement = connection.prepare_cached(sql)?;
            with_values(selection, more, |values| take(statement.query(values)?))
        };
        run().map_err(|flaw: Flaw| flaw.at(&self.path))
    }
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, Flaw> {
    Ok(Row {
        row: row.get(0)?,
        id: MessageId(bytes(row, 1)?),
        peer: party(row, 2)?,
        created_ms: number(row, 3)?,
        at_ms: number(row, 4)?,
        via: row.get(5)?,
        outcome: row.get(6)?,
        text: row.get(7)?,
        user: row.get(8)?,
        encoding: encoding(row.get(9)?),
        name_then: row.get(10)?,
    })
}

/// Takes the meaning out of the wildcards of `LIKE`.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}
