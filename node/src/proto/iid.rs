//! (being written)
use serde::{Deserialize, Serialize};
/// Index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index(pub i32);
/// Value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub i32);
/// Date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Date(pub u64);
/// Iid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iid {
    /// Index.
    pub index: Index,
    /// Value.
    pub value: Value,
    /// Date.
    pub date: Date,
}
