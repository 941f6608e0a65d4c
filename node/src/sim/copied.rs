//! Two machines with one identity: somebody copied the SD card of one of them.

use std::time::Duration;

use super::{World, machine};

/// The machine whose card is copied, and the one that has the copy.
const ORIGINAL: usize = 2;
const COPY: usize = 3;

/// Within this time everybody has to notice.
const NOTICED: Duration = Duration::from_secs(60);

impl World {
    /// Makes a mesh of three, of which the last one will have a copy.
    fn before_the_copy(seed: u64) -> Self {
        let machines = [1, 2, 3, 3].map(machine);
        let mut world = Self::of(seed, machines.into());
        for at in 0..COPY {
            world.power_on(at);
        }
        world.join_all(COPY);
        // Until everybody has told its address, and that is on the disk that is copied.
        world.pass(Duration::from_secs(5));
        world
    }

    pub(super) fn has_copies(&self) -> bool {
        self.machines.len() > COPY
    }

    fn copy_card(&mut self) {
        self.machines[COPY].disk = self.machines[ORIGINAL].disk.clone();
        self.power_on(COPY);
    }

    /// Cuts the net in two, so that each of the others reaches one copy, and the copies nobody else.
    fn keep_copies_apart(&mut self) {
        self.cut
            .extend([(0, COPY), (1, ORIGINAL), (ORIGINAL, COPY)]);
        self.break_between(1, ORIGINAL);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        // No wait for one thing may be as long as this.
        while self.now <= until {
            let some = (self.now + Duration::from_secs(300)).min(until);
            self.steps_until(|world| world.now > some);
        }
    }

    fn all_warn(&self) -> bool {
        let on = self.machines.iter().filter(|m| m.state.is_some());
        on.into_iter().all(|m| m.warns_of_copies)
    }

    fn nobody_warns(&self) -> bool {
        !self.machines.iter().any(|m| m.warns_of_copies)
    }
}

mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Lets everybody notice a copy, and forget it once it is gone.
    fn notice_and_forget(world: &mut World, seed: u64) {
        if seed % 2 == 1 {
            world.keep_copies_apart();
        }
        world.copy_card();
        let began = world.now;

        world.steps_until(World::all_warn);
        let noticed = world.now - began;
        world.send_message(0, ORIGINAL);
        world.pass(Duration::from_secs(30 * 60));
        let (stands, warning) = (world.all_warn(), world.machines[0].warned.clone());
        world.power_cut(COPY);
        world.cut.clear();
        world.pass(Duration::from_secs(10 * 60));

        assert!(noticed <= NOTICED, "{seed}: {noticed:?}");
        assert!(stands, "{seed}: it is forgotten while both run");
        let warning = warning.expect("the sender is warned");
        assert!(warning.contains("two machines"), "{warning}");
        assert!(world.nobody_warns(), "{seed}: it is never forgotten");
        assert!(world.all_connected(COPY), "{seed}: what remains is a mesh");
    }

    #[test]
    fn copies_are_noticed_by_themselves_and_everybody_and_forgotten_when_one_is_gone() {
        for seed in 0..40 {
            let mut world = World::before_the_copy(seed);
            let run = AssertUnwindSafe(|| notice_and_forget(&mut world, seed));
            if catch_unwind(run).is_err() {
                let warn: Vec<bool> = world.machines.iter().map(|m| m.warns_of_copies).collect();
                let last = world.trace.len().saturating_sub(40);
                let last = world.trace[last..].iter().map(|line| format!("{line:?}\n"));
                let (now, last) = (world.now, last.collect::<String>());
                panic!("{last}seed {seed} at {now:?}: who warns: {warn:?}");
            }
        }
    }

    #[test]
    fn a_machine_that_restarts_in_haste_is_no_copy() {
        for seed in 0..20 {
            let mut world = World::before_the_copy(seed);
            for _ in 0..30 {
                let at = 1 + usize::try_from(world.chance(2)).expect("small");
                world.power_cut(at);
                world.power_on(at);
                let some = Duration::from_millis(world.chance(15_000));
                world.pass(some);
                assert!(world.nobody_warns(), "{seed}: a restart is no copy");
            }
        }
    }
}
