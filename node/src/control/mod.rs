//! The door for the command line, dashboards and scripts: HTTP/1.1 with JSON on a unix socket.
//!
//! | file | what |
//! | --- | --- |
//! | `api` | bodies of requests and answers |
//! | `handle` | how they reach the node's loop |
//! | `server` | the router and its sockets |
//! | `history` | messages that are on disk: read page by page, and deleted |
//! | `share` | lets a group use the unix socket |
//! | `limit` | how many connections are open at once |
//! | `serving` | how long the client of a connection may take |
//! | `words` | integers out of a stream of text |
//! | `members` | what is asked about membership: open tickets, names |
//! | `p2sn` | what is asked about old P2SN clients and servers |
//! | `syft` | what is asked about the users of Syft, and about Syft servers |
//! | `client` | what the command line uses |

pub mod api;
pub mod client;
pub mod handle;
mod history;
mod limit;
mod members;
mod p2sn;
pub mod server;
mod serving;
pub(crate) mod share;
mod syft;
#[cfg(test)]
mod tests;
pub mod words;
