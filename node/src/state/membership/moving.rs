//! How this node goes from one mesh into another: by leaving, and by joining.
//!
//! What belongs to a mesh goes as a whole, in one place: in memory by [`State::move_to`], which names
//! every field of the state, and on the disk by the records of [`State::records_of_moving`], which
//! are written all or none. A field or a table that is new has to be put on one side or the other.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use super::{Certificate, Goodbyes, Membership, joining::Joining, leaving::Farewell};
use crate::state::{
    State,
    floods::Floods,
    io::{Loaded, Now, Outcome, Place, Record},
};

/// Why messages end that wait for members of a mesh that was left.
const LEFT: &str = "left the mesh";

/// What this node is doing about its own place in a mesh.
#[derive(Default)]
pub(in crate::state) struct UnderWay {
    pub(super) joining: Option<Joining>,
    /// Whether another mesh is on its way to the disk, in the place of the one that this node is in.
    pub(super) leaving: bool,
    pub(super) farewell: Option<Farewell>,
    /// Whether the mesh key is on its way to the disk.
    pub(super) key_coming: bool,
}

impl UnderWay {
    /// Says whether another mesh is on its way to the disk, in the place of the one that this node
    /// is in.
    pub(in crate::state) const fn is_leaving(&self) -> bool {
        self.leaving
    }
}

impl State {
    /// Returns what is written when this node goes into another mesh: the new membership, and the
    /// end of all that belongs to the one that it is in.
    pub(super) fn records_of_moving(
        &self,
        next: &Certificate,
        goodbyes: &Goodbyes,
        now: Now,
    ) -> Vec<Record> {
        let certificate = next.encode();
        let is_another = Certificate::mesh_of(&certificate).ok() != Some(self.membership.mesh);
        let mut records = vec![Record::JoinedMesh { certificate }];
        records.extend(goodbyes.records());
        // A node that enters its mesh again finds its members again, and their users.
        if is_another {
            let places = self.users.places();
            let former = places.filter_map(|place| self.other_node(&place));
            records.extend(former.map(|node| Record::ForgetUsersOf { node }));
            let messages = self.messages.waiting();
            let former = messages.filter(|message| self.other_node(&message.recipient).is_some());
            records.extend(former.map(|message| Record::Outcome {
                id: message.id,
                outcome: Outcome::Refused(LEFT.to_owned()),
                at_ms: now.unix_ms(),
            }));
        }
        records
    }

    /// Puts another mesh in the place of the one that this node is in; that is on disk. Connections
    /// stay until whoever calls this has said goodbye.
    pub(super) fn move_to(&mut self, next: Membership, now: Now) {
        let is_another = next.mesh != self.membership.mesh;
        if is_another {
            let waiting = self.messages.recipients();
            let former = waiting.filter_map(|place| self.other_node(&place));
            for peer in former.collect::<Vec<_>>() {
                self.give_up_messages_to(peer, LEFT, now);
            }
        }
        let own_peer = self.own.peer;
        // Every field is named, so that one that is added has to be decided about.
        let Self {
            // What belongs to the mesh, or has some of it.
            membership,
            peers,
            links,
            sync,
            copies,
            users,
            integers,
            floods,
            keys,
            under_way,
            effects,
            // History, names, and what waits for others than members.
            names: _,
            messages: _,
            letters: _,
            clients: _,
            capacity: _,
            // What goes on whichever mesh it is: whoever asked is answered.
            changes: _,
            // The node itself, its gateways, and its clock.
            own: _,
            records: _,
            settings: _,
            calendar: _,
            started: _,
        } = self;
        *membership = next;
        under_way.leaving = false;
        effects.timers().leave_mesh();
        peers.forget_all(effects);
        links.end_all();
        sync.forget_all();
        copies.forget_all();
        users.leave_mesh(own_peer, |place| {
            !is_another || place == own_peer || place.is_server()
        });
        integers.leave_mesh();
        *floods = Floods::default();
        keys.leave_mesh();
        self.note_all_names();
        self.add_configured_addresses();
    }

    /// Gives up messages that were on their way to the disk when this node went into another mesh.
    pub(in crate::state) fn give_up_if_moved(&mut self, place: &Place, now: Now) {
        if let Some(peer) = self.other_node(place)
            && !self.membership.members.contains_key(&peer)
        {
            self.give_up_messages_to(peer, LEFT, now);
        }
    }

    /// Returns the peer id of a place that is another node, and neither this one nor a foreign server.
    fn other_node(&self, place: &Place) -> Option<PeerId> {
        place.node().filter(|peer| *peer != self.own.peer)
    }
}

impl Membership {
    /// Takes out what is of nodes that were never members of this mesh: a mesh that was left may have
    /// told it at the last moment. Returns the records of that.
    pub(in crate::state) fn sift(&self, loaded: &mut Loaded) -> Vec<Record> {
        let own = self.own.terms().peer;
        let is_here = |peer: &PeerId| *peer == own || self.members.contains_key(peer);
        let mut gone = BTreeSet::new();
        loaded.users.retain(|user| {
            let former = user.place.node().filter(|node| !is_here(node));
            gone.extend(former);
            former.is_none()
        });
        let of_users = gone.into_iter().map(|node| Record::ForgetUsersOf { node });
        let mut records: Vec<Record> = of_users.collect();
        loaded.addresses.retain(|(peer, _)| {
            let stays = is_here(peer);
            if !stays {
                records.push(Record::Addresses {
                    peer: *peer,
                    addresses: Vec::new(),
                });
            }
            stays
        });
        records
    }
}
