//! Changes that commands ask for: on the disk first, then in memory.
//!
//! A command that changes what is on the disk makes its records and a [`Change`], and nothing else.
//! Once the records are written, the change happens in memory, others are told, and whoever asked is
//! answered. If they cannot be written, whoever asked is told so, and nothing has changed.
//!
//! Of commands that change the mesh, and of nodes that join, each is judged by what the one before it
//! left behind (two tickets never give one index, two nodes never get one name), so they wait for
//! each other.

use std::{collections::VecDeque, time::Duration};

use libp2p_identity::PeerId;

use super::{
    After, State, clients,
    io::{
        Command, Connection, Failure, Gateway, InboundId, Invite, Now, Record, RecordChange, Reply,
        RequestId, ServerId,
    },
    keys,
    post::UserRecord,
};
use crate::proto::{
    mesh::{
        certificate::{Certificate, Revocation},
        member::{Join, Refusal},
        statement::Statement,
    },
    p2sn::{Fingerprint, PinAddress},
    syft::UserId,
};

/// Most commands that wait for the one before them: as many as the control socket has places. As many
/// nodes wait to join: each has a good ticket.
const WAITING_MAX: usize = 64;

/// A change on its way to the disk.
pub(super) struct Changing {
    /// Who is answered; nobody, if the answer has gone already.
    asked: Option<(RequestId, Reply)>,
    change: Change,
}

/// What changes in memory once it is on the disk.
pub(super) enum Change {
    /// Nothing: it is a change of the disk alone.
    Disk,
    /// Something about the mesh.
    Mesh(Box<Mesh>),
    /// The RSA key of a member that counts from here on.
    MemberKey(PeerId, keys::Pin),
    /// A key that is pinned to a client's or server's address.
    ClientKey(clients::Pinning),
    /// Keys that are pinned to an address no more.
    ForgetClientKeys(PinAddress, Vec<Fingerprint>),
    /// A user, as known before and from here on.
    User(Box<(UserRecord, UserRecord)>),
    /// Whom a bare name means: users, as known before and from here on.
    Name(Vec<(UserRecord, UserRecord)>),
    /// A user of this gateway is gone: this registration, and no later one.
    ForgetUser(Box<UserRecord>),
    /// The key of a foreign server's user is pinned no more.
    ForgetServersUser(UserId, ServerId),
    /// What a gateway keeps.
    Records(Gateway, Vec<RecordChange>),
}

/// A change of the mesh by its mesh key's holder.
pub(super) enum Mesh {
    Certificate(Certificate),
    Revocation(Revocation),
    Statement(Statement),
    Invite {
        invite: Invite,
        /// When it ends, on the clock that never jumps.
        end: Duration,
        /// Tickets whose time is over.
        over: Vec<[u8; 32]>,
    },
}

/// Commands that change the mesh: one is on its way to the disk, and others wait for it.
#[derive(Default)]
pub(super) struct Changes {
    is_under_way: bool,
    waiting: VecDeque<Waiting>,
}

/// What changes the mesh, and waits for its turn.
enum Waiting {
    Command(RequestId, Command),
    /// A node that came with a good ticket.
    Join(Connection, InboundId, PeerId, Box<Join>),
}

impl Changes {
    fn commands(&self) -> usize {
        let is_command = |waiting: &&Waiting| matches!(waiting, Waiting::Command(..));
        self.waiting.iter().filter(is_command).count()
    }
}

/// Says whether a command changes the mesh.
const fn changes_mesh(command: &Command) -> bool {
    matches!(
        command,
        Command::Invite(_)
            | Command::CancelInvites { .. }
            | Command::Rename { .. }
            | Command::Vouch { .. }
            | Command::GiveIndices { .. }
            | Command::Remove { .. }
            | Command::Join { .. }
            | Command::Leave { .. }
    )
}

impl From<Mesh> for Change {
    fn from(change: Mesh) -> Self {
        Self::Mesh(Box::new(change))
    }
}

impl State {
    /// Takes a command, once those before it that change the mesh are through.
    pub(super) fn handle_command(&mut self, request: RequestId, command: Command, now: Now) {
        let changes = &mut self.changes;
        if !changes.is_under_way || !changes_mesh(&command) {
            return self.carry_out(request, command, now);
        }
        if changes.commands() < WAITING_MAX {
            let waiting = Waiting::Command(request, command);
            return changes.waiting.push_back(waiting);
        }
        let failure = Failure::unavailable("the disk is slow, and many commands wait for it");
        let failure = failure.with_hint("try again in a few seconds");
        self.effects.fail(request, failure);
    }

    /// Has a node with a good ticket wait until what changes the mesh is through. Says whether it has
    /// to; if there is no room, it is to come again.
    pub(super) fn join_waits(
        &mut self,
        connection: Connection,
        inbound: InboundId,
        peer: PeerId,
        join: &Join,
    ) -> Result<bool, Refusal> {
        let changes = &mut self.changes;
        if !changes.is_under_way {
            return Ok(false);
        }
        if changes.waiting.len() - changes.commands() >= WAITING_MAX {
            return Err(Refusal::TryAgain);
        }
        let join = Box::new(join.clone());
        let waiting = Waiting::Join(connection, inbound, peer, join);
        changes.waiting.push_back(waiting);
        Ok(true)
    }

    /// Something that changes the mesh is on its way to the disk; [`Self::go_on`] ends that.
    pub(super) const fn mesh_is_changing(&mut self) {
        self.changes.is_under_way = true;
    }

    /// Has a change written; it happens once it is on the disk.
    pub(super) fn change(
        &mut self,
        asked: Option<(RequestId, Reply)>,
        records: Vec<Record>,
        change: Change,
    ) {
        if let Change::Mesh(_) = change {
            self.changes.is_under_way = true;
        }
        let changing = Changing { asked, change };
        self.effects
            .store(records, Some(After::Changed(Box::new(changing))));
    }

    pub(super) fn changed(&mut self, changing: Changing, now: Now) {
        let Changing { asked, change } = changing;
        let is_of_mesh = matches!(change, Change::Mesh(_));
        match change {
            Change::Disk => {}
            Change::Mesh(change) => self.mesh_changed(*change, now),
            Change::MemberKey(peer, pin) => self.member_key_changed(peer, pin),
            Change::ClientKey(pinning) => {
                self.clients.pinned(pinning.clone());
                self.tell_of_pinning(&pinning, now);
            }
            Change::ForgetClientKeys(address, keys) => {
                self.clients.forget_keys(&address, &keys);
                self.tell_of_keys(&address, &keys, now);
            }
            Change::User(change) => self.user_changed(change.0, change.1, now),
            Change::Name(users) => {
                for (before, after) in users {
                    let node = after.place.node().filter(|_| after.holds_name);
                    let holder = node.map(|node| (after.id.clone(), node));
                    self.user_changed(before, after, now);
                    if let Some((name, node)) = holder {
                        self.only_holder(&name, node);
                    }
                }
            }
            Change::ForgetUser(user) => self.user_forgotten(&user, now),
            Change::ForgetServersUser(user, server) => {
                self.users.remove(&user, server);
            }
            Change::Records(gateway, changes) => self.records.changed(gateway, &changes),
        }
        if let Some((request, reply)) = asked {
            self.effects.reply(request, reply);
        }
        if is_of_mesh {
            self.go_on(now);
        }
    }

    pub(super) fn not_changed(&mut self, changing: Changing, reason: &str, now: Now) {
        if let Some((request, _)) = changing.asked {
            self.effects.fail(request, Failure::not_stored(reason));
        }
        if let Change::Mesh(_) = changing.change {
            self.go_on(now);
        }
    }

    /// Goes on with what waited, up to the next one that has to be written.
    pub(super) fn go_on(&mut self, now: Now) {
        self.changes.is_under_way = false;
        while !self.changes.is_under_way
            && let Some(waiting) = self.changes.waiting.pop_front()
        {
            match waiting {
                Waiting::Command(request, command) => self.carry_out(request, command, now),
                // One whose connection has gone asks anew.
                Waiting::Join(connection, inbound, peer, join) => {
                    if self.links.is_new(connection) && self.links.peer(connection) == Some(peer) {
                        self.join_requested(connection, inbound, peer, &join, now);
                    }
                }
            }
        }
    }

    fn mesh_changed(&mut self, change: Mesh, now: Now) {
        match change {
            Mesh::Certificate(certificate) => self.certificate_issued(certificate, now),
            Mesh::Revocation(revocation) => self.revocation_issued(revocation, now),
            Mesh::Statement(statement) => self.statement_issued(statement, now),
            Mesh::Invite { invite, end, over } => self.membership.invited(invite, end, &over),
        }
    }
}
