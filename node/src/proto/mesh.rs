//! (being written)
use serde::{Deserialize, Serialize};
/// Names one message in the whole mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 16]);
