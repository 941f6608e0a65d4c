//! What a gateway keeps in the small durable space of its own, and how it asks for it.

use std::fmt;

/// Longest key of a record, in bytes: a word for what it is about, and a hash.
pub const KEY_BYTES_MAX: usize = 64;

/// Longest value of a record, in bytes: a letter of delegation with its signatures.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The key of a record: at most [`KEY_BYTES_MAX`] bytes. Records are in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(Vec<u8>);

/// What a record says: at most [`VALUE_BYTES_MAX`] bytes. It may be a secret, and is not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RecordValue(Vec<u8>);

/// Too many bytes for a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} of a gateway's record has at most {max} bytes, got {bytes}")]
pub struct RecordTooLong {
    what: &'static str,
    max: usize,
    bytes: usize,
}

impl RecordKey {
    /// Takes these bytes.
    ///
    /// # Errors
    /// Fails if they are too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, RecordTooLong> {
        short("key", KEY_BYTES_MAX, bytes.into()).map(Self)
    }

    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl RecordValue {
    /// Takes these bytes.
    ///
    /// # Errors
    /// Fails if they are too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, RecordTooLong> {
        short("value", VALUE_BYTES_MAX, bytes.into()).map(Self)
    }

    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

fn short(what: &'static str, max: usize, bytes: Vec<u8>) -> Result<Vec<u8>, RecordTooLong> {
    let count = bytes.len();
    let too_long = RecordTooLong {
        what,
        max,
        bytes: count,
    };
    (count <= max).then_some(bytes).ok_or(too_long)
}

/// One record of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRecord {
    /// Under which it is found.
    pub key: RecordKey,
    /// What it says.
    pub value: RecordValue,
    /// When it goes by itself, Unix ms, by the date that the node believes; never if `None`.
    pub ends_ms: Option<u64>,
}

/// What a gateway asks about its records.
#[derive(Clone, Debug)]
pub enum Keep {
    /// The record with this key, if there is one.
    Get(RecordKey),
    /// All records whose keys begin so.
    List(RecordKey),
    /// Change these, all or none; answered once that is on disk.
    Change(Vec<RecordChange>),
}

/// One change of a gateway's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// Keep this; it takes the place of the one with its key.
    Put(GatewayRecord),
    /// Keep the one with this key no longer.
    Delete(RecordKey),
}
