//! Everything a pimesh node is.

pub mod proto;

pub mod state;

#[cfg(test)]
mod vectors;
