//! Bytes to meaning and back, one file for each document in `proto-specs/`.
//!
//! Nothing in here opens a socket, reads a clock, asks the operating system for randomness or
//! touches a file: whatever a function needs is given to it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod iid;
pub mod mesh;
pub mod p2sn;
pub mod server;
pub mod syft;
