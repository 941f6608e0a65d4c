//! Everything that can happen to the state, and everything that may follow: two enums with
//! a handful of arms. All of it is plain data, so that a log of inputs replays a run.
//!
//! | file | what |
//! | --- | --- |
//! | `net` | what comes from the network, and what it is asked to do |
//! | `command` | what is asked through the control socket and by gateways, and the answers |
//! | `disk` | what is to be on disk |
//! | `encoding` | how the text of a message stands for its bytes |
//! | `event` | what happened, for people, logs, counters and followers |
//! | `ids` | names for what is under way |
//! | `party` | who is at the other end of a message |
//! | `records` | what a gateway keeps in the small durable space of its own |

mod command;
mod disk;
mod encoding;
mod endpoint;
mod event;
mod ids;
mod net;
mod records;

use std::time::Duration;

pub use self::{
    command::{At, Command, Failure, FailureKind, OverBudget, Recipients, Reply},
    disk::{
        Disk, ForClient, Incoming, Invite, Loaded, Outcome, Outgoing, OutgoingKind, Record,
        Selection, Way,
    },
    encoding::Encoding,
    endpoint::{Endpoint, NoParty, Party, Place, SendVia, ServerId, Via},
    event::Event,
    ids::{ClientId, Connection, GossipId, InboundId, OutboundId, RequestId, SessionId, Ticket},
    net::{Direction, NetInput, NetOutput, Opening, OwnReach, Protocol, Transport, Tried, Verdict},
    records::{
        GatewayRecord, KEY_BYTES_MAX, Keep, RecordChange, RecordKey, RecordTooLong, RecordValue,
        VALUE_BYTES_MAX,
    },
};

use crate::proto::mesh::certificate::MeshKey;
pub use crate::proto::{Gateway, mesh::ClientName};

/// What happens to the state.
#[derive(Debug)]
pub enum Input {
    /// Something came from the network.
    Net(NetInput),
    /// Somebody asks through the control socket.
    Control(RequestId, Command),
    /// The records of this ticket are on disk.
    Stored(Ticket),
    /// The records of this ticket could not be written, and are not on disk.
    StoreFailed(Ticket, String),
    /// An NTP server says that the calendar clock is right.
    ClockConfirmed,
    /// The room on the disk was measured.
    Disk(Disk),
}

/// What the state wants done.
#[derive(Debug)]
pub enum Output {
    /// Do this on the network.
    Net(NetOutput),
    /// Answer this request of the control socket.
    Reply(RequestId, Result<Reply, Failure>),
    /// Write these records, all or none, after those of every earlier ticket.
    Store(Ticket, Vec<Record>),
    /// Change the file with the mesh key; its completion follows as for records, in any order.
    KeyFile(Ticket, KeyFile),
    /// Tell whoever listens; also the source of log lines and counters.
    Event(Event),
}

/// What becomes of the file with the mesh key. Leaving a mesh takes two steps, so that a power cut in
/// between leaves the key of the mesh that is on disk: what is put aside becomes the key when it is
/// that of the mesh, and else nothing.
#[derive(Debug)]
pub enum KeyFile {
    /// This is the mesh key from here on.
    Keep(MeshKey),
    /// This may become the mesh key: put it aside.
    Stage(MeshKey),
    /// What was put aside is the mesh key from here on.
    Adopt,
}

/// The two clocks, read at the same moment by whoever calls the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started. Never jumps: for waiting.
    pub mono: Duration,
    /// Calendar time in microseconds since 1970-01-01 UTC. May jump: for dates people see.
    pub unix_us: u64,
}

impl Now {
    /// Returns the calendar time in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.unix_us / 1000
    }
}
