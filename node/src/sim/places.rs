//! Where machines are: they move, the LAN says where they are now, and others lie about that.
//!
//! A dial leads to a machine only if the address at which it is now is among those that are tried.

use std::time::Duration;

use super::{Happening, World};
use crate::{
    proto::mesh::{Address, sync},
    state::io::{InboundId, Input, NetInput, OwnReach, Protocol},
};

/// The longest time between two announcements on the LAN.
const ANNOUNCED_MS: u64 = 4_000;

/// Returns the address of a place at which nobody ever moves.
pub(super) fn address(place: usize) -> Address {
    Address::new(format!("sim/{place}")).expect("legal")
}

impl World {
    /// Returns where a machine or a stranger is now.
    pub(super) fn address_of(&self, place: usize) -> Address {
        match self.machines.get(place) {
            Some(machine) => {
                let text = format!("sim/{place}/{}", machine.moves);
                Address::new(text).expect("legal")
            }
            None => address(place),
        }
    }

    pub(super) fn tell_own_address(&mut self, at: usize) {
        let addresses = vec![self.address_of(at)];
        let reach = OwnReach::Network;
        let told = NetInput::OwnAddresses { addresses, reach };
        self.input(at, Input::Net(told));
    }

    /// A machine gets another address, and its connections end.
    pub(super) fn move_machine(&mut self, at: usize) {
        self.machines[at].moves += 1;
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            self.break_between(at, other);
        }
        self.tell_own_address(at);
        self.count("machines_moved", 1);
    }

    /// Now and then the LAN says where somebody is, among lies.
    pub(super) fn lan_speaks(&mut self) {
        let (at, of) = (self.any_machine(), self.any_machine());
        if at != of {
            self.lie_about_places(at, of);
            if !self.is_cut(at, of) && self.machines[of].state.is_some() {
                self.discovers(at, of, self.address_of(of));
            }
        }
        let next = Duration::from_millis(self.chance(ANNOUNCED_MS));
        self.at(next, Happening::Lan);
    }

    fn discovers(&mut self, at: usize, of: usize, address: Address) {
        let peer = self.machines[of].peer;
        self.input(at, Input::Net(NetInput::Discovered { peer, address }));
    }

    /// Tells a machine ten wrong addresses of another one, and has a member tell sixteen more.
    pub(super) fn lie_about_places(&mut self, at: usize, of: usize) {
        for _ in 0..10 {
            let lie = self.lie_of_a_place();
            self.discovers(at, of, lie);
            self.count("addresses_forged", 1);
        }
        let liar = self.any_machine();
        if liar == at || liar == of {
            return;
        }
        let lies = (0..16).map(|_| self.lie_of_a_place()).collect();
        let request = sync::Request {
            addresses: vec![(self.machines[of].peer, lies)],
            ..sync::Request::default()
        };
        let told = NetInput::Request {
            peer: self.machines[liar].peer,
            protocol: Protocol::Sync,
            id: InboundId(u64::MAX),
            bytes: request.encode(),
        };
        self.input(at, Input::Net(told));
    }

    fn lie_of_a_place(&mut self) -> Address {
        let number = self.chance(u64::MAX);
        Address::new(format!("lie/{number}")).expect("legal")
    }
}
