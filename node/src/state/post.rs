//! What a gateway for Syft agents asks the state, and what it is told: plain data.
//!
//! `state/users.rs` answers what is about people, `state/letters.rs` what is about letters. A
//! letter itself is read from the store by its row; what is in here is small.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::io::{Outcome, Place};
use crate::proto::{
    mesh::{MessageId, NodeName},
    syft::{
        Descriptions, PublicKey, UserId,
        http::NewUser,
        letter::{Fingerprint, Letter},
    },
};

/// What a gateway asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Take up a user.
    Register {
        /// Who.
        user: NewUser,
        /// Whether he stays although he does not log in: the operator adds him.
        stays: bool,
    },
    /// Take a user of this gateway out, so that his name may be registered with another key.
    Forget {
        /// Who.
        user: String,
    },
    /// Who is known by this name?
    Find {
        /// `user` or `user@node`.
        name: UserId,
    },
    /// Which user of this gateway logs in under this name?
    Local {
        /// His id, or `user@node` with this node.
        name: UserId,
    },
    /// Everybody, with who is here.
    Everybody,
    /// Replace what a user of this gateway says he can do.
    Describe {
        /// Under which name he is logged in.
        name: UserId,
        /// The texts.
        descriptions: Descriptions,
    },
    /// May a client that logged in like this speak for this user of this gateway?
    Admit {
        /// Under which name it logged in.
        name: UserId,
        /// The key that it logged in with, as tokens name it.
        key: String,
    },
    /// A client of a user of this gateway came.
    Arrived(UserId),
    /// A client of a user of this gateway went.
    Left(UserId),
    /// Carry a letter. Its signature was checked with the key of the user's admission.
    Post {
        /// The user of this gateway who sends it.
        user: UserId,
        /// The letter.
        letter: Box<Letter>,
    },
    /// A client of this user has all his letters up to this row.
    Taken {
        /// The user of this gateway.
        user: UserId,
        /// The row.
        row: u64,
    },
    /// Something about a foreign server.
    Server(ToServer),
}

/// What the connection to a foreign server asks.
#[derive(Clone, derive_more::Debug)]
pub enum ToServer {
    /// What is to be sent there?
    Fetch {
        /// The server.
        server: NodeName,
    },
    /// A message has come to its end.
    Settle {
        /// The server.
        server: NodeName,
        /// The message.
        id: MessageId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The server says that this is the key of one of its users. Which key counts?
    Pin {
        /// The server.
        server: NodeName,
        /// The user.
        user: UserId,
        /// The key.
        key: PublicKey,
    },
    /// A message came that its sender signed; into the inbox with it.
    Received {
        /// The server.
        server: NodeName,
        /// The sender.
        from: UserId,
        /// The text.
        #[debug("{} bytes", text.len())]
        text: String,
        /// What a repetition would have in common with it.
        fingerprint: Fingerprint,
    },
}

/// A message that waits for a foreign server.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its name.
    pub id: MessageId,
    /// For whom.
    pub user: UserId,
    /// What.
    #[debug("{} bytes", text.len())]
    pub text: String,
    /// When it was accepted, Unix ms.
    pub created_ms: u64,
}

/// What a gateway is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// He is on disk, now or already with this very key.
    Registered,
    /// It is on disk, or needs none.
    Done,
    /// Who it is, if anybody.
    Found(Option<Found>),
    /// Everybody.
    Everybody(Vec<User>),
    /// The token may speak.
    Admitted(Admitted),
    /// What became of a letter.
    Posted(Posted),
    /// Messages for a foreign server, in their order.
    Fetched(Vec<Fetched>),
    /// The key of a server's user that counts, or why there is none.
    Pinned(Result<PublicKey, NotPinned>),
}

/// Why the key of a server's user was not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPinned {
    /// There are as many pins as this node keeps for the server, and each is of a user who was
    /// written to here.
    Full,
    /// The name could be taken for another one.
    Name,
}

impl NotPinned {
    /// Returns the stable name, for counters and outcomes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "pins_full",
            Self::Name => "misleading_name",
        }
    }
}

/// Who is known by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name for people.
    pub title: String,
    /// The key.
    pub key: PublicKey,
    /// What he says he can do.
    pub descriptions: Descriptions,
    /// The user of this gateway that it is, if he is one of this gateway.
    pub here: Option<UserId>,
}

/// A user whose token may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// His id at this gateway.
    pub user: UserId,
    /// His key.
    pub key: PublicKey,
    /// The last row that he has.
    pub taken: u64,
    /// If the name he logged in with means somebody else: what to tell him.
    pub warning: Option<String>,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is on disk, here or on its way to the other gateway.
    Accepted,
    /// It was carried before.
    Repeated,
}

/// One user, as `pimesh gateway syft users` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name under which the mesh knows him.
    pub name: String,
    /// His id at his gateway.
    pub user: String,
    /// The name of his gateway, which is a member of the mesh.
    pub node: String,
    /// His name for people.
    pub title: String,
    /// Base64 of his key.
    pub key: String,
    /// Another key that his gateway showed and that is refused.
    pub shown: Option<String>,
    /// Whether a client of his is connected; for a member whether the node is.
    pub online: bool,
    /// Letters that wait for him here.
    pub waiting: usize,
    /// Whether this is a member node itself.
    pub is_node: bool,
}

/// A user, as he is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// His id at his gateway.
    pub id: UserId,
    /// The user's place: a node's gateway, or a foreign server.
    pub place: Place,
    /// His name for people.
    pub title: String,
    /// His key, pinned.
    pub key: PublicKey,
    /// Another key that his gateway showed later.
    pub shown: Option<PublicKey>,
    /// When he registered, by his gateway's clock, Unix ms; 0 if that clock was not set.
    pub registered_ms: u64,
    /// What he says he can do.
    pub descriptions: Descriptions,
    /// The last row that he has; for users of this gateway.
    pub taken: u64,
    /// When a message to a user of a foreign server was last accepted here, Unix ms; 0 if never.
    pub written_ms: u64,
    /// Whether he stays: he has logged in, or the operator added him, or he is of another gateway.
    pub stays: bool,
    /// Whether his id alone, without `@node`, means him at this node.
    pub holds_name: bool,
}

impl UserRecord {
    /// Takes over what differs between two records of this user, and leaves the rest.
    pub(super) fn change(&mut self, before: &Self, after: Self) {
        let Self {
            title,
            key,
            shown,
            descriptions,
            written_ms,
            stays,
            holds_name,
            // These never change, but for the last one, which the letters know.
            id: _,
            place: _,
            registered_ms: _,
            taken: _,
        } = after;
        if title != before.title {
            self.title = title;
        }
        if key != before.key {
            self.key = key;
        }
        if shown != before.shown {
            self.shown = shown;
        }
        if descriptions != before.descriptions {
            self.descriptions = descriptions;
        }
        if holds_name != before.holds_name {
            self.holds_name = holds_name;
        }
        if written_ms != before.written_ms {
            self.written_ms = written_ms;
        }
        if stays != before.stays {
            self.stays = stays;
        }
    }
}

/// A letter on the disk of the gateway of its recipient.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct LetterRecord {
    /// Its place; grows.
    pub row: u64,
    /// Its name in the whole mesh.
    pub id: MessageId,
    /// For whom; `None` for all users of this gateway but the sender.
    pub user: Option<UserId>,
    /// The sender's id, if he is a user of this gateway.
    pub sender: Option<UserId>,
    /// The sender, as people know him.
    pub from: String,
    /// The member that brought it; this node for its own users.
    pub node: PeerId,
    /// When it came, Unix ms.
    pub at_ms: u64,
    /// What a repetition would have in common with it.
    pub fingerprint: Fingerprint,
    /// The frame without an id; empty when it was loaded, for it stays on disk.
    #[debug("{} bytes", frame.len())]
    pub frame: String,
    /// Its length in bytes.
    pub bytes: usize,
}

/// How far a letter is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", content = "reason", rename_all = "snake_case")]
pub enum Stage {
    /// It is on the disk of the recipient's gateway.
    Delivered,
    /// A client of the recipient has it.
    Read,
    /// The recipient's gateway, or this one, did not take it.
    Refused(String),
    /// Its time ran out.
    Expired,
}

/// News of a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterNews {
    /// Its name in the whole mesh.
    pub id: MessageId,
    /// Who sent it.
    pub from: String,
    /// Whom it is for; `broadcast` for all.
    pub to: String,
    /// How far it is.
    #[serde(flatten)]
    pub stage: Stage,
}
