//! Everything a pimesh node is.

pub mod proto;
// STATE
// pub mod state;

#[cfg(test)]
mod vectors;
