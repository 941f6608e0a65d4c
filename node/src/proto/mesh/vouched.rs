//! The indices that a member may speak for as a gateway: the `vouched` range of its certificate
//! (`proto-specs/mesh.md`, INDEX-BRIDGED), and how people write it.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::proto::iid::Index;

/// What a member may speak for as a gateway: nothing, or a range with both of its ends.
///
/// As a text it is `none`, `all`, or `A..B` with both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vouched(Option<(i32, i32)>);

impl Vouched {
    /// Nothing: the member is no gateway.
    pub const NONE: Self = Self(None);

    /// Everything that no other member owns.
    pub const ALL: Self = Self(Some((i32::MIN, i32::MAX)));

    /// Takes a range, unless it is empty.
    #[must_use]
    pub const fn range(first: i32, last: i32) -> Option<Self> {
        if first > last {
            return None;
        }
        Some(Self(Some((first, last))))
    }

    /// Says whether it has an index.
    #[must_use]
    pub const fn contains(self, index: Index) -> bool {
        match self.0 {
            Some((first, last)) => first <= index.0 && index.0 <= last,
            None => false,
        }
    }

    /// Returns its first and last index, unless it is nothing.
    #[must_use]
    pub const fn ends(self) -> Option<(i32, i32)> {
        self.0
    }

    /// Returns the range that is kept for the clients of one gateway: nothing if that is
    /// everything, which is nobody's own.
    #[must_use]
    pub fn kept(self) -> Option<RangeInclusive<i32>> {
        self.0
            .filter(|_| self != Self::ALL)
            .map(|(first, last)| first..=last)
    }
}

impl Default for Vouched {
    /// Everything, so that a gateway works without a further step.
    fn default() -> Self {
        Self::ALL
    }
}

/// Why a text is no such range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VouchedError {
    /// None of the three forms.
    #[error("expected `none`, `all` or a range of indices like `100..199`, got `{0}`")]
    Form(String),
    /// The first index is above the last one.
    #[error("a range has its lower end first, got `{first}..{last}`")]
    Empty {
        /// The first one.
        first: i32,
        /// The last one.
        last: i32,
    },
}

impl FromStr for Vouched {
    type Err = VouchedError;

    fn from_str(text: &str) -> Result<Self, VouchedError> {
        let form = || VouchedError::Form(text.chars().take(40).collect());
        match text {
            "none" => return Ok(Self::NONE),
            "all" => return Ok(Self::ALL),
            _ => {}
        }
        let (first, last) = text.split_once("..").ok_or_else(form)?;
        let first = first.parse().map_err(|_| form())?;
        let last = last.parse().map_err(|_| form())?;
        Self::range(first, last).ok_or(VouchedError::Empty { first, last })
    }
}

impl TryFrom<String> for Vouched {
    type Error = VouchedError;

    fn try_from(text: String) -> Result<Self, VouchedError> {
        text.parse()
    }
}

impl From<Vouched> for String {
    fn from(vouched: Vouched) -> Self {
        vouched.to_string()
    }
}

impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("none"),
            Some(_) if *self == Self::ALL => f.pad("all"),
            Some((first, last)) => f.pad(&format!("{first}..{last}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_alike() {
        for text in ["none", "all", "100..199", "7..7", "-5..2147483647"] {
            let read: Vouched = text.parse().expect("legal");
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("-2147483648..2147483647".parse(), Ok(Vouched::ALL));
    }

    #[test]
    fn anything_else_is_refused_with_what_was_expected() {
        for text in [
            "",
            "ALL",
            "5",
            "1..",
            "..5",
            "1..=5",
            "1..2..3",
            "0..2147483648",
        ] {
            let form = Err(VouchedError::Form(text.to_owned()));
            assert_eq!(text.parse::<Vouched>(), form);
        }
        let (first, last) = (5, 4);
        assert_eq!(
            "5..4".parse::<Vouched>(),
            Err(VouchedError::Empty { first, last })
        );
    }

    #[test]
    fn both_ends_are_in_the_range() {
        let range = Vouched::range(100, 199).expect("legal");
        let inside = [99, 100, 199, 200].map(|index| range.contains(Index(index)));

        assert_eq!(inside, [false, true, true, false]);
        assert!(!Vouched::NONE.contains(Index(0)));
        assert!(Vouched::ALL.contains(Index(i32::MIN)) && Vouched::ALL.contains(Index(i32::MAX)));
        assert_eq!((range.kept(), Vouched::ALL.kept()), (Some(100..=199), None));
    }
}
