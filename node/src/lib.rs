//! Everything a pimesh node is.

pub mod proto;

#[cfg(test)]
mod vectors;
