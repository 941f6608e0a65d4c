//! Members that are renamed and given the mesh key while things fail; and, once all is well, one
//! that leaves and comes back with a ticket of another holder than the first.

use std::time::Duration;

use super::{
    Happening, World,
    machine::{Asked, mesh_key},
};
use crate::{
    proto::mesh::{
        certificate::Certificate,
        statement::{Says, Statement},
    },
    state::{
        Wanted,
        io::{Command, KeyFile, Ticket},
    },
};

/// Names that are given in a run.
const RENAMES: usize = 3;

/// How often the mesh key is given to the second machine in a run.
const SHARES: usize = 3;

/// How long tickets are good here: clocks are up to an hour off.
const LIFETIME: Duration = Duration::from_secs(6 * 24 * 60 * 60);

impl World {
    pub(super) fn plan_members(&mut self) {
        for _ in 0..RENAMES {
            self.some_time(Happening::Rename);
        }
        for _ in 0..SHARES {
            self.some_time(Happening::Share);
        }
    }

    /// The first machine, which has the mesh key, gives somebody another name.
    pub(super) fn rename(&mut self) {
        if self.machines[0].state.is_none() {
            return;
        }
        let of = self.any_machine();
        self.next_name += 1;
        let name = format!("named-{}", self.next_name);
        let peer = Some(self.machines[of].peer.to_string());
        self.machines[of].names.insert(name.clone());
        self.count("members_renamed", 1);
        self.ask(0, Command::Rename { peer, name }, Asked::Nothing);
    }

    /// The first machine gives the mesh key to the second one.
    pub(super) fn share(&mut self) {
        if self.machines[0].state.is_some() {
            let peer = self.machines[1].peer.to_string();
            self.ask(0, Command::ShareMeshKey { peer }, Asked::Share { to: 1 });
        }
    }

    /// Checks that a machine which is said to hold the mesh key has it on its disk.
    pub(super) fn check_share(&mut self, to: usize) {
        let held = self.machines[to].key_file.as_ref().map(|key| key.mesh());
        assert_eq!(held, Some(mesh_key(1).mesh()), "shared, and not on disk");
        self.count("mesh_keys_shared", 1);
    }

    /// Checks that everybody is called what somebody asked for, and that the names of all are
    /// remembered.
    pub(super) fn check_names(&self) {
        for machine in &self.machines {
            let on = machine.disk.loaded.certificate.as_ref().expect("a member");
            let mesh = Certificate::mesh_of(on).expect("legal");
            let own = Certificate::decode(on, &mesh).expect("legal");
            let name = own.terms().name.to_string();
            assert!(machine.names.contains(&name), "{name} was never asked for");
            for other in &self.machines {
                let noted = &other.disk.loaded.names;
                let last = noted.iter().rfind(|(peer, _)| *peer == machine.peer);
                assert_eq!(last.map(|(_, name)| name), Some(&name));
            }
        }
    }

    /// The last machine leaves for good reason or none, is refused with a ticket that was
    /// cancelled, and returns with a good one. Its messages and the others' go on.
    pub(super) fn leave_and_return(&mut self) {
        let last = self.machines.len() - 1;
        self.share();
        self.steps_until(|world| world.machines[1].key_file.is_some());
        let wanted = || {
            Command::Invite(Wanted {
                lifetime: Some(LIFETIME),
                ..Wanted::default()
            })
        };
        self.ask(1, wanted(), Asked::Ticket);
        self.steps_until(|world| world.cancelled.is_some());
        let pins = self.machines[last].disk.loaded.pins.len();
        self.ask(last, Command::Leave { sure: true }, Asked::Leave);
        self.steps_until(|world| world.has_left(last));
        assert_eq!(self.machines[last].disk.loaded.pins.len(), pins);
        let ticket = self.cancelled.clone().expect("cancelled");
        self.ask(last, Command::Join { ticket }, Asked::Refused("cancelled"));
        self.steps_until(|world| world.counts.contains_key("cancelled_tickets_refused"));
        self.ask(1, wanted(), Asked::Invite { joiner: last });
        self.steps_until(|world| world.all_connected(world.machines.len()));
        for (from, to) in self.pairs() {
            self.send_message(from, to);
        }
        self.steps_until(|world| world.is_settled() && world.all_accepted());
        let disk_of = |peer: &libp2p_identity::PeerId| {
            let at = self.place(peer).expect("a machine");
            self.machines[at].disk.clone()
        };
        self.model.check_messages(disk_of);
    }

    /// Says whether a machine is in a mesh of its own, on disk, with its key, and all others know
    /// that it left.
    fn has_left(&self, at: usize) -> bool {
        let machine = &self.machines[at];
        let peer = machine.peer;
        let own = machine.disk.loaded.certificate.as_ref().expect("a member");
        let own_mesh = Certificate::mesh_of(own).expect("legal");
        let key = machine.key_file.as_ref().map(|key| key.mesh());
        let knows = |other: &super::Machine| {
            let statements = other.disk.loaded.statements.iter();
            let mut read =
                statements.filter_map(|bytes| Statement::decode(bytes, &mesh_key(1).mesh()).ok());
            read.any(|s| s.peer() == peer && *s.says() == Says::Left)
        };
        let mut others = self.machines.iter().filter(|other| other.peer != peer);
        self.counts.contains_key("members_left")
            && machine.disk.loaded.members.is_empty()
            && key == Some(own_mesh)
            && others.all(knows)
    }

    fn all_accepted(&self) -> bool {
        self.machines.iter().all(|machine| !machine.has_asked())
    }

    /// Changes a machine's file with the mesh key, some time later.
    pub(super) fn change_key_file(&mut self, at: usize, ticket: Ticket, file: KeyFile) {
        self.machines[at].writing_key.push((ticket, file));
        let time = Duration::from_millis(1 + self.chance(50));
        let life = self.machines[at].life;
        self.at(time, Happening::KeyWritten(at, life));
        if self.trouble && self.chance(4) == 0 {
            self.at(time / 2, Happening::PowerFails(at, life));
        }
    }
}
