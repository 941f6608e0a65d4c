//! Chance that is the same in every run, so that a test that fails fails again.

/// A small generator (xorshift64).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins at a number that is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub const fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns so many bytes at most.
    pub fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.number() % (most + 1);
        (0..count).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}
