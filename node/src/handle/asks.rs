//! What can be asked of a node: one method for each command, with the type of its answer.

use std::time::Duration;

use super::{NodeHandle, Sending};
use crate::{
    proto::{
        iid::{Index, Value},
        mesh::{ranges::Ranges, vouched::Vouched},
    },
    state::{
        Wanted,
        io::{At, Command, Failure, Recipients, Reply, SendVia},
        post::{Ask, Told, User},
        report,
    },
};

/// Asks a node, and takes the reply of this kind.
macro_rules! ask {
    ($node:expr, $command:expr, $kind:ident) => {
        match $node.ask($command).await? {
            Reply::$kind(answer) => answer,
            _ => return Err(does_not_fit()),
        }
    };
}

/// The loop answers each command with its own reply; any other is a bug there.
pub(crate) fn does_not_fit() -> Failure {
    Failure::fault("the node gave an answer that does not fit")
}

/// # Errors
/// Every method returns what could not be done and why; that the node stops is one reason.
impl NodeHandle {
    /// Returns what this node is, and how it is.
    pub async fn status(&self) -> Result<report::Status, Failure> {
        Ok(*ask!(self, Command::Status, Status))
    }

    /// Returns who is in the mesh, this node included.
    pub async fn peers(&self) -> Result<Vec<report::Peer>, Failure> {
        Ok(ask!(self, Command::Peers, Peers))
    }

    /// Makes a ticket: whoever has it may join this node's mesh once, within 15 minutes, with the
    /// lowest free index. [`Self::invite_with`] makes others.
    pub async fn invite(&self) -> Result<report::Invite, Failure> {
        self.invite_with(Wanted::default()).await
    }

    /// Makes a ticket as it is wanted.
    pub async fn invite_with(&self, wanted: Wanted) -> Result<report::Invite, Failure> {
        Ok(ask!(self, Command::Invite(wanted), Invited))
    }

    /// Returns the tickets that may still be used.
    pub async fn invites(&self) -> Result<Vec<report::OpenInvite>, Failure> {
        Ok(ask!(self, Command::Invites, Invites))
    }

    /// Makes a ticket useless, by its short id or its name; all of them if `None`.
    pub async fn cancel_invites(
        &self,
        which: Option<String>,
    ) -> Result<Vec<report::OpenInvite>, Failure> {
        Ok(ask!(
            self,
            Command::CancelInvites { which },
            InvitesCancelled
        ))
    }

    /// Enters the mesh that a ticket is of.
    pub async fn join(&self, ticket: impl Into<String>) -> Result<report::Joined, Failure> {
        let ticket = ticket.into();
        Ok(ask!(self, Command::Join { ticket }, Joined))
    }

    /// Leaves the mesh. The last holder of its key does that only if it is `sure`.
    pub async fn leave(&self, sure: bool) -> Result<report::Left, Failure> {
        Ok(ask!(self, Command::Leave { sure }, Left))
    }

    /// Gives a member another name; this node itself if `peer` is `None`.
    pub async fn rename(
        &self,
        peer: Option<String>,
        name: String,
    ) -> Result<report::Renamed, Failure> {
        Ok(ask!(self, Command::Rename { peer, name }, Renamed))
    }

    /// Takes a member out of the mesh.
    pub async fn remove(&self, peer: String) -> Result<report::Removed, Failure> {
        Ok(ask!(self, Command::Remove { peer }, Removed))
    }

    /// Returns everybody who can be written to.
    pub async fn who(&self) -> Result<Vec<report::Who>, Failure> {
        Ok(ask!(self, Command::Who, Who))
    }

    /// Accepts the changed key of a member or user; with `name`, that the bare name means this user.
    pub async fn trust(&self, who: String, name: bool) -> Result<report::Trusted, Failure> {
        Ok(ask!(self, Command::Trust { who, name }, Trusted))
    }

    /// Changes what a member may speak for as a gateway.
    pub async fn vouch(&self, peer: String, vouched: Vouched) -> Result<report::Vouched, Failure> {
        Ok(ask!(self, Command::Vouch { peer, vouched }, Vouched))
    }

    /// States which further indices a member owns, in the place of those that it owned.
    pub async fn give_indices(
        &self,
        peer: String,
        further: Ranges,
    ) -> Result<report::GivenIndices, Failure> {
        Ok(ask!(
            self,
            Command::GiveIndices { peer, further },
            IndicesGiven
        ))
    }

    /// Gives the mesh key to a member.
    pub async fn share_mesh_key(&self, peer: String) -> Result<report::KeyShared, Failure> {
        Ok(ask!(self, Command::ShareMeshKey { peer }, KeyShared))
    }

    /// Sends a message to a member, a user of a gateway or a client, by its name or peer id. Returns
    /// once it is on this node's disk: it is kept and tried until the recipient has it, or its time
    /// is over. [`Sending::delivered`] waits for that.
    pub async fn send(&self, to: &str, text: impl Into<String>) -> Result<Sending, Failure> {
        // Followed before sending, so that a fast delivery is not missed.
        let events = self.subscribe();
        let to = Recipients::Named(vec![to.to_owned()]);
        let accepted = self.send_to(to, text.into(), SendVia::Direct, None).await?;
        let accepted = accepted.into_iter().next().ok_or_else(does_not_fit)?;
        Ok(Sending::new(self.clone(), events, accepted))
    }

    /// Sends a message to several members, or to all. With an `expiry`, it is kept trying for so
    /// long.
    pub async fn send_to(
        &self,
        to: Recipients,
        text: String,
        via: SendVia,
        expiry: Option<Duration>,
    ) -> Result<Vec<report::Accepted>, Failure> {
        let command = Command::send(to, text, via, expiry)?;
        Ok(ask!(self, command, Accepted))
    }

    /// Returns the messages that are not delivered yet.
    pub async fn outbox(&self) -> Result<Vec<report::Pending>, Failure> {
        Ok(ask!(self, Command::Outbox, Outbox))
    }

    /// Broadcasts integers to every member that is connected, under an index that this node owns or
    /// may speak for; under its own if `None`. Waits for a moment if even the fastest member has not
    /// taken those before.
    pub async fn publish(
        &self,
        index: Option<Index>,
        values: impl IntoIterator<Item = i32>,
    ) -> Result<report::Published, Failure> {
        let values = values.into_iter().map(Value).collect();
        self.publish_at(index, values, None).await
    }

    /// The same, with a time at which the integers are meant to be carried out.
    pub async fn publish_at(
        &self,
        index: Option<Index>,
        values: Vec<Value>,
        at: Option<At>,
    ) -> Result<report::Published, Failure> {
        self.room().await;
        Ok(ask!(
            self,
            Command::Integers { index, values, at },
            Published
        ))
    }

    /// Returns the last integer of each index.
    pub async fn last_integers(&self) -> Result<Vec<report::Integer>, Failure> {
        Ok(ask!(self, Command::LastIntegers, LastIntegers))
    }

    /// Returns what members are called, and were called before.
    pub(crate) async fn names(&self) -> Result<Vec<report::Names>, Failure> {
        Ok(ask!(self, Command::Names, Names))
    }

    /// Returns the index that this node owns, unless the node is stopping.
    pub(crate) async fn index(&self) -> Option<Index> {
        match self.ask(Command::OwnIndex).await {
            Ok(Reply::OwnIndex(index)) => Some(index),
            _ => None,
        }
    }

    /// Returns the members, and the users of their Syft gateways.
    pub(crate) async fn users(&self) -> Result<Vec<User>, Failure> {
        match self.ask_gateway(Ask::Everybody).await? {
            Told::Everybody(users) => Ok(users),
            _ => Err(does_not_fit()),
        }
    }

    /// Asks what a gateway for Syft agents asks.
    pub(crate) async fn ask_gateway(&self, ask: Ask) -> Result<Told, Failure> {
        Ok(ask!(self, ask.into(), Told))
    }
}
