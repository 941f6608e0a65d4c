//! Which letters are good or revoked: the file `master>coaster`.
//!
//! `master>*` stands for every letter of that master, `*>coaster` for every letter to that coaster,
//! and an address alone for every letter that names it on either side: a list of revoked letters
//! must not let through what its owner meant to stop.

use std::collections::BTreeSet;

use super::{Skip, Skipped, skipped};
use crate::proto::iid::address::Address;

const ANY: &str = "*";

/// Names letters by who signed them and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    pairs: BTreeSet<(String, String)>,
    masters: BTreeSet<String>,
    coasters: BTreeSet<String>,
}

impl Letters {
    /// Reads a file of letters.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Skipped>) {
        let mut letters = Self::default();
        let skipped = skipped(text, |entry| letters.insert(entry));
        (letters, skipped)
    }

    /// Says whether the letter of that master to that coaster is among these.
    #[must_use]
    pub fn has(&self, master: &Address, coaster: &Address) -> bool {
        let (master, coaster) = (master.to_string(), coaster.to_string());
        self.masters.contains(&master)
            || self.coasters.contains(&coaster)
            || self.pairs.contains(&(master, coaster))
    }

    fn insert(&mut self, entry: &str) -> Result<(), Skip> {
        match entry.split_once('>') {
            None => {
                let address = Address::parse(entry)?.to_string();
                self.masters.insert(address.clone());
                self.coasters.insert(address);
            }
            Some((_, coaster)) if coaster.contains('>') => return Err(Skip::Form('>')),
            Some((ANY, ANY)) => return Err(Skip::Form('*')),
            Some((master, ANY)) => drop(self.masters.insert(of_master(master)?)),
            Some((ANY, coaster)) => {
                self.coasters.insert(Address::parse(coaster)?.to_string());
            }
            Some((master, coaster)) => {
                let coaster = Address::parse(coaster)?.to_string();
                self.pairs.insert((of_master(master)?, coaster));
            }
        }
        Ok(())
    }
}

fn of_master(text: &str) -> Result<String, Skip> {
    match Address::parse(text)? {
        Address::Ethereum(address) => Ok(address.to_string()),
        Address::Rsa(_) => Err(Skip::Master),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::iid::published::RSA_DEMONSTRATION;

    fn ethereum(byte: &str) -> Address {
        Address::parse(&format!("0x{}", byte.repeat(20))).expect("an address")
    }

    #[test]
    fn a_line_names_one_letter_or_all_of_one_side() {
        let (a, b, c) = (ethereum("0a"), ethereum("0b"), ethereum("0c"));
        let text = format!(" {} > {} # not a comment\n{a} > {b}\n{b}>*\n*>{c}\n", a, c)
            .replace(" # not a comment", "");

        let (letters, skipped) =
            Letters::parse(&text.replace(&b.to_string(), &b.to_string().to_lowercase()));

        assert_eq!(skipped, []);
        assert!(letters.has(&a, &b));
        assert!(!letters.has(&a, &a));
        assert!(letters.has(&b, &a), "every letter of b");
        assert!(letters.has(&a, &c), "every letter to c");
        assert!(!letters.has(&c, &a));
    }

    #[test]
    fn an_address_alone_names_every_letter_with_it() {
        let (a, b) = (ethereum("0a"), ethereum("0b"));

        let (letters, _) = Letters::parse(&format!("{a}\n"));

        assert!(letters.has(&a, &b));
        assert!(letters.has(&b, &a));
        assert!(!letters.has(&b, &b));
    }

    #[test]
    fn what_names_no_letter_is_reported() {
        let a = ethereum("0a");
        let text = format!("{a}>{a}>{a}\n*>*\n{RSA_DEMONSTRATION}>{a}\n{a}>b\n");

        let (letters, skipped) = Letters::parse(&text);

        assert_eq!(letters, Letters::default());
        let lines: Vec<_> = skipped.iter().map(|s| s.line).collect();
        assert_eq!(lines, [1, 2, 3, 4]);
        assert_eq!(skipped[2].why, Skip::Master);
    }
}
