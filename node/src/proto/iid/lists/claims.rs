//! Which index an address has: the file `index:address`, or folders of claims.

use std::collections::BTreeMap;

use super::{Skip, Skipped, indexed, skipped};
use crate::proto::iid::{
    Index,
    address::Address,
    published::{KNOWN, Published},
};

/// Knows the index of each address that is let in. One index may have several addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// By the one spelling of the address.
    by_address: BTreeMap<String, Index>,
}

impl Claims {
    /// Reads a file of claims. Of two lines for one address the later holds.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Skipped>) {
        let mut claims = Self::default();
        let skipped = skipped(text, |entry| {
            let (index, address) = indexed(entry)?;
            claims.insert(index, listed(address, &KNOWN)?);
            Ok(())
        });
        (claims, skipped)
    }

    /// Reads a repository of claims: in a folder named by the index lie files named by addresses,
    /// and what the files hold does not matter. Folders of another name are not looked at. Of two
    /// folders for one address that of the higher index holds, in whatever order they come.
    #[must_use]
    pub fn from_folders<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<Skipped>) {
        let mut claims = Self::default();
        let mut skipped = Vec::new();
        for (line, (folder, file)) in (1..).zip(files) {
            let Ok(index) = folder.parse::<Index>() else {
                continue;
            };
            match listed(file, &KNOWN) {
                Ok(address) => {
                    let held = claims
                        .by_address
                        .entry(address.to_string())
                        .or_insert(index);
                    *held = index.max(*held);
                }
                Err(why) => skipped.push(Skipped { line, why }),
            }
        }
        (claims, skipped)
    }

    /// Takes in the claims of another list, which hold over these.
    pub fn merge(&mut self, other: Self) {
        self.by_address.extend(other.by_address);
    }

    /// Returns the index of an address in any spelling, if it is listed.
    #[must_use]
    pub fn index_of(&self, address: &str) -> Option<Index> {
        self.index(&Address::parse(address).ok()?)
    }

    pub(crate) fn index(&self, address: &Address) -> Option<Index> {
        self.by_address.get(&address.to_string()).copied()
    }

    /// Iterates over the addresses in their one spelling, in its order.
    pub fn iter(&self) -> impl Iterator<Item = (Index, &str)> {
        self.by_address
            .iter()
            .map(|(address, index)| (*index, &**address))
    }

    pub(crate) fn insert(&mut self, index: Index, address: Address) {
        self.by_address.insert(address.to_string(), index);
    }
}

/// Reads an address that may stand in a list.
pub(super) fn listed(address: &str, published: &Published) -> Result<Address, Skip> {
    let address = Address::parse(address)?;
    if published.has_address(&address) {
        return Err(Skip::Published);
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::iid::address::AddressError;

    const ALICE: &str = "0xaeC963aC8DF14a807ab97715c564b7bD3973503A";
    const BOB: &str = "0x95fc270Af48a00FF923001006453A98192c98716";
    const DEMONSTRATION: &str = "0x9e85522e84c970431cEac4031Fbd2c24D8943527";

    fn entries(claims: &Claims) -> Vec<(i32, &str)> {
        claims
            .iter()
            .map(|(index, address)| (index.0, address))
            .collect()
    }

    #[test]
    fn what_is_no_entry_is_passed_over_and_reported() {
        let text = format!(
            "\u{feff}# who: what\n\n7:{ALICE}\n8;{BOB}\n8:{BOB}:\nx:{BOB}\n8:\n8:0x12\n-42:{DEMONSTRATION}\n"
        );

        let (claims, skipped) = Claims::parse(&text);

        let why: Vec<_> = skipped.iter().map(|s| (s.line, s.why)).collect();
        assert_eq!(
            why,
            [
                (4, Skip::Form(':')),
                (5, Skip::Form(':')),
                (6, Skip::Index),
                (7, Skip::Address(AddressError::Kind)),
                (8, Skip::Address(AddressError::Ethereum)),
                (9, Skip::Published),
            ]
        );
        assert_eq!(entries(&claims), [(7, ALICE)]);
    }

    /// One published server reads 20 lines.
    #[test]
    fn the_whole_file_counts() {
        let text: String = (1..=1_000).map(|i| format!("{i}:0x{i:040x}\n")).collect();

        let (claims, skipped) = Claims::parse(&text);

        assert_eq!(skipped, []);
        assert_eq!(claims.iter().count(), 1_000);
        assert_eq!(
            claims.index_of(&format!("0x{:040x}", 1_000)),
            Some(Index(1_000))
        );
    }

    /// The published repository of claims has one address in two folders.
    #[test]
    fn folders_are_read_whole_and_in_any_order() {
        let files = [
            ("42", ALICE),
            ("0", ALICE),
            ("0", BOB),
            (".git", "HEAD"),
            ("-42", DEMONSTRATION),
            ("7", "README.md"),
        ];

        let (claims, skipped) = Claims::from_folders(files);
        let (reversed, _) = Claims::from_folders(files.into_iter().rev());

        assert_eq!(entries(&claims), [(0, BOB), (42, ALICE)]);
        assert_eq!(claims, reversed);
        let why: Vec<_> = skipped.iter().map(|s| (s.line, s.why)).collect();
        assert_eq!(
            why,
            [(5, Skip::Published), (6, Skip::Address(AddressError::Kind))]
        );
    }

    #[test]
    fn of_two_lists_the_one_that_is_merged_in_holds() {
        let (mut claims, _) = Claims::parse(&format!("7:{ALICE}\n8:{BOB}"));
        let (other, _) = Claims::parse(&format!("9:{}", ALICE.to_lowercase()));

        claims.merge(other);

        assert_eq!(entries(&claims), [(8, BOB), (9, ALICE)]);
    }
}
