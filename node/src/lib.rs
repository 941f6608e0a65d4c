//! Everything a pimesh node is.
//!
//! ```text
//!  node ──▶ net   control   store   identity      sockets, clock, disk, tasks
//!            └───────┬────────┘
//!                    ▼
//!                  state      Input, Output        no I/O, no clock, no randomness of its own
//!                    ▼
//!                  proto      bytes <-> meaning    no I/O
//! ```
//!
//! `proto` and `state` build and test alone with `--no-default-features`. Start a node with
//! [`Node::start`], speak with it through its [`NodeHandle`]:
//!
//! ```no_run
//! # #[cfg(feature = "net")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pimesh_node::{Config, Node, NodeOptions};
//!
//! let node = Node::start(NodeOptions {
//!     home: "/var/lib/pimesh".into(),
//!     config: Config::default(),
//!     fallback_name: "pi-1".parse()?,
//!     passphrase: None,
//! })
//! .await?;
//! println!("{}", node.peer_id());
//! node.run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "net")]
mod accept;
#[cfg(feature = "net")]
pub mod clock;
pub mod config;
#[cfg(feature = "net")]
pub mod control;
#[cfg(feature = "net")]
mod cross_site;
#[cfg(feature = "net")]
mod events;
#[cfg(feature = "disk")]
pub mod files;
#[cfg(feature = "net")]
pub mod gateway;
#[cfg(feature = "net")]
mod handle;
#[cfg(feature = "disk")]
pub mod home;
#[cfg(feature = "disk")]
pub mod identity;
pub mod limits;
#[cfg(feature = "net")]
pub mod metrics;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
pub mod node;
#[cfg(feature = "net")]
mod p2sn_session;
pub mod proto;
#[cfg(feature = "disk")]
pub mod rng;
#[cfg(feature = "net")]
mod rsa;
#[cfg(test)]
mod sim;
pub mod state;
#[cfg(feature = "disk")]
pub mod store;
pub mod text;

pub use config::Config;
#[cfg(feature = "net")]
pub use handle::NodeHandle;
#[cfg(feature = "net")]
pub use node::{Node, Options as NodeOptions};
pub use state::io::Event;

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod vectors;
