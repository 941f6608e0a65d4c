//! Limits that every edge of the node shares: how fast, how many at once, how often in the log.
//!
//! Each limit has a share per [`Source`], so that one sender that is too fast or too many keeps
//! nobody else out. Nothing here reads a clock: the time is a [`Duration`](std::time::Duration) on
//! a clock that never jumps, and it comes from the caller.
//!
//! | file | what |
//! | --- | --- |
//! | `source` | the rate-limit key of an address |
//! | `bucket` | token buckets: how fast |
//! | `connections` | permits for connections: how many at once |
//! | `shares` | who gives way when something is full |
//! | `log` | the first line of a kind per minute; the rest is counted |

mod bucket;
mod connections;
mod log;
mod shares;
mod source;

pub use self::{
    bucket::{Bucket, Buckets, Rate},
    connections::{ConnectionLimit, Permit},
    log::LogLimit,
    shares::Shares,
    source::Source,
};
