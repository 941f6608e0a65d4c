//! What a gateway keeps in a small durable space of its own: keys and values, on disk before it is said.
//!
//! A gateway needs no table of the store for that. What is kept may have an end, after which it goes
//! by itself, by the date that the node believes; a clock that leaps ends nothing (`state/calendar.rs`).

use crate::{
    NodeHandle,
    handle::does_not_fit,
    state::io::{
        Command, Failure, Gateway, GatewayRecord, Keep, RecordChange, RecordKey, RecordTooLong,
        Reply,
    },
};

/// The records of one gateway; it sees no others. Cheap to clone.
///
/// # Errors
/// All methods fail if the node stops; changes also if they are not on disk, or there is no room.
#[derive(Clone, Debug)]
pub struct Records {
    node: NodeHandle,
    gateway: Gateway,
}

impl Records {
    pub(super) const fn new(node: NodeHandle, gateway: Gateway) -> Self {
        Self { node, gateway }
    }

    /// Returns the record with this key.
    pub async fn get(&self, key: RecordKey) -> Result<Option<GatewayRecord>, Failure> {
        Ok(self.ask(Keep::Get(key)).await?.pop())
    }

    /// Returns the records whose keys begin so, in the order of their keys.
    pub async fn list(&self, prefix: RecordKey) -> Result<Vec<GatewayRecord>, Failure> {
        self.ask(Keep::List(prefix)).await
    }

    /// Keeps a record, in the place of the one with its key.
    pub async fn put(&self, record: GatewayRecord) -> Result<(), Failure> {
        self.change(vec![RecordChange::Put(record)]).await
    }

    /// Keeps the record with this key no longer.
    pub async fn delete(&self, key: RecordKey) -> Result<(), Failure> {
        self.change(vec![RecordChange::Delete(key)]).await
    }

    /// Makes these changes, all or none.
    pub async fn change(&self, changes: Vec<RecordChange>) -> Result<(), Failure> {
        self.ask(Keep::Change(changes)).await.map(drop)
    }

    async fn ask(&self, asked: Keep) -> Result<Vec<GatewayRecord>, Failure> {
        match self.node.ask(Command::Keep(self.gateway, asked)).await? {
            Reply::Kept(found) => Ok(found),
            _ => Err(does_not_fit()),
        }
    }
}

impl From<RecordTooLong> for Failure {
    fn from(error: RecordTooLong) -> Self {
        Self::bad_request(error.to_string())
    }
}
