//! Which index a password has: the file `index:hash`.
//!
//! To these servers the hash is the password, for a client may send either. So the list is a
//! secret: it is wiped when dropped, and is not searched faster for one guess than for another.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{Skip, Skipped, entries, indexed, skipped};
use crate::proto::iid::{
    Index,
    published::{KNOWN, Published},
};

/// Is SHA-256 of a password.
pub(crate) type PasswordHash = [u8; 32];

/// Knows the index of each password.
#[derive(Clone, Default)]
pub struct Passwords {
    entries: Vec<(Index, Zeroizing<PasswordHash>)>,
}

impl Passwords {
    /// Reads a file of hashes. Of two lines for one hash the later holds.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Skipped>) {
        Self::read(text, &KNOWN)
    }

    /// As [`Self::parse`], with what counts as published.
    pub(crate) fn read(text: &str, published: &Published) -> (Self, Vec<Skipped>) {
        // Room for all at once: a list that grows leaves copies behind that nobody wipes.
        let mut list = Vec::with_capacity(entries(text).count());
        let skipped = skipped(text, |entry| {
            let (index, hash) = indexed(entry)?;
            let hash = hash_of_digits(hash).ok_or(Skip::Hash)?;
            if published.has_password(&hash) {
                return Err(Skip::Published);
            }
            list.push((index, hash));
            Ok(())
        });
        (Self { entries: list }, skipped)
    }

    /// Returns the index of a hash, if it is listed. Takes the same time for any hash.
    pub(crate) fn index_of(&self, hash: &PasswordHash) -> Option<Index> {
        let mut index = 0_i32;
        let mut is_listed = Choice::from(0);
        for (of_entry, listed) in &self.entries {
            let is_this = listed[..].ct_eq(&hash[..]);
            index.conditional_assign(&of_entry.0, is_this);
            is_listed |= is_this;
        }
        bool::from(is_listed).then_some(Index(index))
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({} of them)", self.entries.len())
    }
}

/// Hashes what a person typed.
pub(crate) fn hash_of(password: &str) -> Zeroizing<PasswordHash> {
    Zeroizing::new(Sha256::digest(password).into())
}

/// Reads 64 hexadecimal digits of any case.
pub(crate) fn hash_of_digits(digits: &str) -> Option<Zeroizing<PasswordHash>> {
    let mut hash = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *hash).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_passwords_and_odd_lines_are_passed_over() {
        let good = hex::encode(hash_of("correct horse battery"));
        let potato = hex::encode(hash_of("Potato"));
        let text = format!(
            "-42:{potato}\n7:{good}\n8:Potato\n9:{}\n10:{good}",
            &good[1..]
        );

        let (passwords, skipped) = Passwords::parse(&text);

        let why: Vec<_> = skipped.iter().map(|s| (s.line, s.why)).collect();
        assert_eq!(
            why,
            [(1, Skip::Published), (3, Skip::Hash), (4, Skip::Hash)]
        );
        assert_eq!(
            passwords.index_of(&hash_of("correct horse battery")),
            Some(Index(10))
        );
        assert_eq!(passwords.index_of(&hash_of("Potato")), None);
        assert_eq!(format!("{passwords:?}"), "Passwords(2 of them)");
    }
}
