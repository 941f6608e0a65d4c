//! Everything a pimesh node is.

pub mod config;
#[cfg(feature = "disk")]
pub mod identity;
pub mod proto;

pub mod state;
#[cfg(feature = "disk")]
pub mod store;

#[cfg(test)]
mod vectors;
