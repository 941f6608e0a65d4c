//! Syft agents at the door of a node: clients in Python on the libraries of the original.

mod crowd;
mod door;
mod forward;
mod hostile;
mod mesh;
mod server;
