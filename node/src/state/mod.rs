//! What the node knows and decides (being written).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod io;
pub mod report;

/// Settings of the state (being written).
#[derive(Clone, Debug)]
pub struct Settings {}
