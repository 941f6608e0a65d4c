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
//! `proto` and `state` build and test alone with `--no-default-features`.
//!
//! # A node inside another program
//!
//! What is at the root of this crate is for programs that embed a node; the modules are for the
//! program `pimesh` and change with it.
//!
//! [`Node::builder`] starts a node in a home folder. Everything that can be asked of it is a method
//! of [`NodeHandle`], for which [`Node`] stands; a [`Failure`] says what could not be done, of which
//! kind that is, and often what to try. [`NodeHandle::inbox`] reads received messages and misses
//! none; [`NodeHandle::subscribe`] follows everything else. `examples/two_pis.rs` runs two nodes that
//! meet.
//!
//! ```no_run
//! # #[cfg(feature = "net")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use pimesh_node::{Begin, Config, Event, Node};
//!
//! // In a mesh of its own at the first start, and from then on in the one that it joined.
//! let home = "/var/lib/my-program/pimesh";
//! let node = Node::builder(home)
//!     .name("pi-2".parse()?)
//!     .config(Config::parse("[network]\nlisten = [\"/ip4/0.0.0.0/udp/4630/quic-v1\"]")?)
//!     .start()
//!     .await?;
//! // The ticket is what `pimesh invite` printed on another machine, or `node.invite()` returned.
//! node.join("pimesh1:…").await?;
//!
//! // Returns once the message is on this disk; then waits until it is on that of pi-1.
//! let mut message = node.send("pi-1", "door open").await?;
//! message.delivered(Duration::from_secs(60)).await?;
//!
//! // Integers reach whoever is connected.
//! node.publish(None, [42]).await?;
//! let mut events = node.subscribe();
//! if let Some(event) = events.next().await?
//!     && let Event::Integers(heard) = &*event
//! {
//!     println!("{} says {:?}", heard.name, heard.iids);
//! }
//!
//! // Behind the row that this program has kept for itself: also what came while it did not run.
//! let mut inbox = node.inbox(Begin::After(7)).await?;
//! if let Some(message) = inbox.next().await? {
//!     println!("{}: {}", message.name, message.text);
//!     // Dealt with: keep `message.row`.
//! }
//! node.shutdown().await;
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
mod routes;
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
pub use handle::{
    Begin, Counted, Deleted, Deletion, Events, EventsLost, HistoryQuery, HistoryRow, Inbox,
    NodeHandle, Pages, Sending,
};
#[cfg(feature = "disk")]
pub use identity::Passphrase;
pub use libp2p_identity::PeerId;
#[cfg(feature = "net")]
pub use node::{Node, NodeBuilder, StartError};
pub use proto::{
    iid::{Index, Value},
    mesh::{MessageId, NodeName},
};
pub use state::{
    Wanted,
    io::{Event, Failure, FailureKind, Outcome, Recipients, SendVia},
    report,
};

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod vectors;
