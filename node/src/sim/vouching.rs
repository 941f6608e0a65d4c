//! Ranges of members that change while things fail, and what everybody comes to know of them.

use super::{Happening, World, machine::Asked};
use crate::{
    proto::mesh::{
        certificate::{Certificate, Terms},
        vouched::Vouched,
    },
    state::io::Command,
};

/// Changes in a run.
const CHANGES: usize = 4;

impl World {
    pub(super) fn plan_vouching(&mut self) {
        for _ in 0..CHANGES {
            self.some_time(Happening::Vouch);
        }
    }

    /// The first machine, which has the mesh key, changes somebody's range. The own index stays in
    /// it, because everybody goes on bridging that.
    pub(super) fn vouch(&mut self) {
        if self.machines[0].state.is_none() {
            return;
        }
        let at = self.any_machine();
        let seed = self.machines[at].seed;
        let below = i32::try_from(self.chance(1_000_000)).expect("small");
        let vouched = Vouched::range(-below, i32::from(seed)).expect("legal");
        let peer = self.machines[at].peer.to_string();
        self.count("ranges_changed", 1);
        self.ask(0, Command::Vouch { peer, vouched }, Asked::Nothing);
    }

    /// Checks that all disks have the same last certificate of each machine.
    pub(super) fn check_certificates(&self) {
        for (of, machine) in self.machines.iter().enumerate() {
            let own = self.certified(of, of);
            assert_eq!(own.peer, machine.peer);
            for at in 0..self.machines.len() {
                assert_eq!(self.certified(at, of), own, "{at} has another of {of}");
            }
        }
    }

    /// Returns what the disk of a machine says of another one, or of itself.
    fn certified(&self, at: usize, of: usize) -> Terms {
        let on = &self.machines[at].disk.loaded;
        let own = on.certificate.iter();
        let mesh = Certificate::mesh_of(own.clone().next().expect("a member")).expect("legal");
        let all = own.chain(&on.members);
        let terms = all.map(|bytes| Certificate::decode(bytes, &mesh).expect("legal"));
        let mut terms = terms.map(|certificate| certificate.terms().clone());
        let peer = self.peer(of);
        let last = terms.by_ref().filter(|terms| terms.peer == peer).last();
        last.expect("everybody knows everybody")
    }
}
