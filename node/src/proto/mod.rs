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

use serde::{Deserialize, Serialize};

/// A gateway for clients of an older system, by the protocol that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// IID and APIntIO.
    Iid,
    /// P2SN.
    P2sn,
    /// Syft.
    Syft,
}

impl Gateway {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Iid, Self::P2sn, Self::Syft];

    /// Returns its name: on the command line, in the configuration, in metrics and on the disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iid => "iid",
            Self::P2sn => "p2sn",
            Self::Syft => "syft",
        }
    }

    /// Returns the one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gateway| gateway.name() == name)
    }
}
