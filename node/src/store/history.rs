//! Reading the history of messages, beside the writer.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::{
    StoreError,
    schema::{bytes, encoding, number, party, party_bytes},
};
use crate::{
    proto::mesh::MessageId,
    state::io::{Encoding, Party},
};

/// Most rows of one page.
const ROWS_MAX: u32 = 1000;

/// Which way messages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    Received,
    /// From this node.
    Sent,
}

/// Which messages are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which way they went.
    pub direction: Direction,
    /// From or to this member or client only.
    pub peer: Option<Party>,
    /// From or to this user only, as `user@node`.
    pub user: Option<String>,
    /// At this Unix millisecond or later.
    pub since_ms: Option<u64>,
    /// Behind this row; rows grow in the order in which messages came.
    pub after: Option<i64>,
    /// With this text in them, without regard to the case of ASCII letters.
    pub search: Option<String>,
    /// At most so many: the first ones behind `after`, or the last ones if `after` is not given.
    pub limit: u32,
}

/// One message.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the history.
    pub row: i64,
    /// Its id.
    pub id: MessageId,
    /// Whom it came from or went to; of a user's message the member with his door.
    pub peer: Party,
    /// The user, as `user@node`; empty for the member itself.
    pub user: String,
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
}

impl History {
    pub(super) const fn new(connection: Connection) -> Self {
        Self {
            connection: Mutex::new(connection),
        }
    }

    /// Returns messages in the order in which they came. Blocks for the disk.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub fn read(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Without a cursor the last rows are wanted, and turned round afterwards.
        let order = if query.after.is_some() { "ASC" } else { "DESC" };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT row, id, peer, created_ms, at_ms, via, outcome, body, user, is_hex \
             FROM history \
             WHERE direction = ?1 AND (?2 IS NULL OR peer = ?2) AND at_ms >= ?3 AND row > ?4 \
             AND (?5 IS NULL OR body LIKE ?5 ESCAPE '\\') AND (?7 IS NULL OR user = ?7) ORDER BY row {order} LIMIT ?6"
        ))?;
        let pattern = query
            .search
            .as_ref()
            .map(|text| format!("%{}%", escape(text)));
        let mut rows = statement.query(params![
            i64::from(query.direction == Direction::Sent),
            query.peer.as_ref().map(party_bytes),
            query.since_ms.unwrap_or(0).cast_signed(),
            query.after.unwrap_or(0),
            pattern,
            query.limit.clamp(1, ROWS_MAX),
            query.user,
        ])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(Row {
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
            });
        }
        if query.after.is_none() {
            all.reverse();
        }
        Ok(all)
    }
}

/// Takes the meaning out of the wildcards of `LIKE`.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}
