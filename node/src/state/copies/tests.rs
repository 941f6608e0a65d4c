//! Restarts and copies, as one observer and as two see them.

use super::*;
use crate::proto::mesh::peer_of_seed;

const NOW: Now = Now {
    mono: Duration::from_secs(10),
    unix_us: 0,
};

struct Observer {
    copies: Copies,
    next: u64,
}

impl Observer {
    fn new() -> Self {
        let copies = Copies::new(&mut Effects::new([1; 32]));
        Self { copies, next: 0 }
    }

    /// Sends a request; returns its number.
    fn ask(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The peer answers; says whether there are two.
    fn answer(&mut self, boot: u64, request: Option<u64>) -> bool {
        let (peer, boot) = (peer_of_seed(2), BootId::new(boot));
        self.copies.heard(peer, boot, request, self.next, NOW)
    }

    /// A start connects: it is asked, speaks, and answers.
    fn connects(&mut self, boot: u64) -> bool {
        let request = self.ask();
        self.answer(boot, None) | self.answer(boot, Some(request))
    }

    fn is_told(&mut self, boot: u64, outlived: &[u64]) -> bool {
        let sighting = Sighting {
            peer: peer_of_seed(2),
            boot: BootId::new(boot),
            outlived: outlived.iter().copied().map(BootId::new).collect(),
        };
        self.copies
            .sighted(&sighting, peer_of_seed(3), self.next, NOW)
    }
}

#[test]
fn restarts_are_no_copies_however_quick_and_many() {
    let mut observer = Observer::new();

    for boot in 1..100 {
        assert!(!observer.connects(boot));
        assert!(!observer.connects(boot), "it comes back without a restart");
    }
}

#[test]
fn an_answer_that_was_on_the_way_when_another_start_spoke_proves_nothing() {
    let mut observer = Observer::new();
    observer.connects(1);
    let request = observer.ask();

    assert!(!observer.connects(2));
    assert!(!observer.answer(1, Some(request)), "it was asked before");
    assert!(!observer.answer(1, None), "nobody knows when it said that");
}

#[test]
fn two_that_come_and_go_in_turns_are_copies() {
    let mut observer = Observer::new();

    assert!(!observer.connects(1));
    assert!(!observer.connects(2));
    assert!(observer.connects(1));
    // Each proof stands for itself.
    assert!(!observer.connects(1));
    assert!(!observer.connects(1));
    assert!(observer.connects(2));
}

#[test]
fn a_sighting_of_a_dead_start_proves_nothing() {
    let mut observer = Observer::new();
    observer.connects(1);
    observer.connects(2);

    // Somebody has not yet noticed that the first one is gone.
    assert!(!observer.is_told(1, &[]));
    assert!(!observer.connects(2));
    assert!(!observer.is_told(2, &[1]));
}

#[test]
fn a_proof_that_was_told_in_part_is_not_taken_for_ones_own() {
    let peer = peer_of_seed(2);
    let mut observer = Observer::new();
    observer.connects(1);

    assert!(!observer.is_told(9, &[1]), "a lie, or half of a proof");
    assert!(observer.connects(1), "the other half is seen here");
    let told = observer.copies.proven_by(&peer);
    assert!(!observer.connects(2));
    assert!(observer.connects(1), "all of it is seen here");

    assert_eq!(told, Some(peer_of_seed(3)));
    assert_eq!(observer.copies.proven_by(&peer), None);
}

#[test]
fn two_members_with_one_copy_each_find_out_together() {
    let (mut one, mut other) = (Observer::new(), Observer::new());
    one.connects(1);
    other.connects(2);

    assert!(!one.is_told(2, &[]));
    assert!(!one.connects(1), "it outlived the other one here");
    assert!(!other.is_told(1, &[2]));

    assert!(other.connects(2), "and this one as well");
}

#[test]
fn what_is_remembered_of_a_peer_is_bounded() {
    let mut observer = Observer::new();
    observer.connects(1);

    for boot in 2..1000 {
        let ids: Vec<u64> = (0..8).map(|id| 10_000 + 8 * boot + id).collect();
        observer.is_told(boot, &ids);
        // Each answer outlives all that are known.
        observer.connects(1);
    }

    let known = &observer.copies.peers[&peer_of_seed(2)];
    assert_eq!(known.boots.len(), 8);
    assert!(known.boots.iter().any(|boot| boot.id == BootId::new(1)));
    let ids: Vec<BootId> = known.boots.iter().map(|boot| boot.id).collect();
    let outlived = known.boots.iter().flat_map(|boot| &boot.outlived);
    assert!(outlived.clone().all(|id| ids.contains(id)));
    assert!(outlived.count() > 0);
}

#[test]
fn the_hint_says_how_long_the_warning_stays() {
    let minutes = COPY_MEMORY.as_secs() / 60;
    let stays = format!("goes away {minutes} minutes after");
    assert!(report::COPIED_HINT.contains(&stays));
}
