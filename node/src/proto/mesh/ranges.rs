//! Indices that one member owns, as ranges: how people write them, and what may stand in a
//! statement (`proto-specs/mesh.md`, INDEX-FURTHER).

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::proto::iid::Index;

/// Indices from one to another, both in it. As a text it is `7`, or `100..109`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IndexRange {
    first: i32,
    last: i32,
}

impl IndexRange {
    /// Takes both ends, unless the first one is above the last one.
    #[must_use]
    pub const fn new(first: i32, last: i32) -> Option<Self> {
        if first > last {
            return None;
        }
        Some(Self { first, last })
    }

    /// Returns the first index.
    #[must_use]
    pub const fn first(self) -> Index {
        Index(self.first)
    }

    /// Returns both ends.
    #[must_use]
    pub const fn bounds(self) -> RangeInclusive<i32> {
        self.first..=self.last
    }

    /// Returns what is left without the first index.
    #[must_use]
    pub const fn rest(self) -> Option<Self> {
        match self.first.checked_add(1) {
            Some(next) => Self::new(next, self.last),
            None => None,
        }
    }

    fn count(self) -> u64 {
        u64::from(self.first.abs_diff(self.last)) + 1
    }
}

/// Why a text is no such range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither of the two forms.
    #[error("expected an index like `7` or a range of them like `100..109`, got `{0}`")]
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

impl FromStr for IndexRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let form = || RangeError::Form(text.chars().take(40).collect());
        let number = |text: &str| text.parse::<i32>().map_err(|_| form());
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        Self::new(first, last).ok_or(RangeError::Empty { first, last })
    }
}

impl TryFrom<String> for IndexRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<IndexRange> for String {
    fn from(range: IndexRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return f.pad(&self.first.to_string());
        }
        f.pad(&format!("{}..{}", self.first, self.last))
    }
}

/// Ranges that do not overlap, in their order: at most [`Ranges::MAX`] of them, with at most
/// [`Ranges::INDICES_MAX`] indices. As a text they have commas between them, and none is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<IndexRange>", into = "Vec<IndexRange>")]
pub struct Ranges(Vec<IndexRange>);

/// Why ranges cannot be one member's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// One is illegal.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Too many ranges.
    #[error("a member owns at most {max} ranges of indices, got {got}", max = Ranges::MAX)]
    Ranges {
        /// How many.
        got: usize,
    },
    /// Too many indices.
    #[error("a member owns at most {max} indices, got {got}", max = Ranges::INDICES_MAX)]
    Indices {
        /// How many.
        got: u64,
    },
    /// An index is in two of them.
    #[error("index {0} is named twice")]
    Twice(Index),
}

impl Ranges {
    /// Most ranges: enough for a board of inputs with separate indices, and few enough for one
    /// statement.
    pub const MAX: usize = 16;

    /// Most indices: a quarter of the last values that are kept of the whole mesh.
    pub const INDICES_MAX: u64 = 1024;

    /// Takes ranges in any order.
    ///
    /// # Errors
    /// Returns why they cannot be one member's.
    pub fn new(mut ranges: Vec<IndexRange>) -> Result<Self, RangesError> {
        if ranges.len() > Self::MAX {
            return Err(RangesError::Ranges { got: ranges.len() });
        }
        let count: u64 = ranges.iter().map(|range| range.count()).sum();
        if count > Self::INDICES_MAX {
            return Err(RangesError::Indices { got: count });
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if let [one, next] = pair
                && one.last >= next.first
            {
                return Err(RangesError::Twice(Index(next.first)));
            }
        }
        Ok(Self(ranges))
    }

    /// Says whether an index is in one of them.
    #[must_use]
    pub fn contains(&self, index: Index) -> bool {
        self.0.iter().any(|range| range.bounds().contains(&index.0))
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns them in their order.
    pub fn iter(&self) -> impl Iterator<Item = IndexRange> {
        self.0.iter().copied()
    }
}

impl TryFrom<Vec<IndexRange>> for Ranges {
    type Error = RangesError;

    fn try_from(ranges: Vec<IndexRange>) -> Result<Self, RangesError> {
        Self::new(ranges)
    }
}

impl From<Ranges> for Vec<IndexRange> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        Self::new(parts.map(str::parse).collect::<Result<_, RangeError>>()?)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.pad(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_alike() {
        for text in ["", "7", "-5..-1,7,100..109", "2147483647"] {
            let read: Ranges = text.parse().expect("legal");
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(
            "9,5..7".parse::<Ranges>().map(|r| r.to_string()),
            Ok("5..7,9".to_owned())
        );
    }

    #[test]
    fn ranges_that_cannot_be_one_members_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Ranges>().expect_err("refused");

        assert_eq!(refused("1..3,3"), RangesError::Twice(Index(3)));
        assert_eq!(refused("1..1025"), RangesError::Indices { got: 1025 });
        assert_eq!(
            refused("-2147483648..2147483647"),
            RangesError::Indices { got: 1 << 32 }
        );
        let many: Vec<String> = (0..17).map(|n| (2 * n).to_string()).collect();
        assert_eq!(refused(&many.join(",")), RangesError::Ranges { got: 17 });
        for text in ["a", "1..", "5..4", "1..=2", "1 2"] {
            assert!(matches!(refused(text), RangesError::Range(_)), "{text}");
        }
    }

    #[test]
    fn both_ends_are_in_a_range_and_the_rest_begins_behind_the_first() {
        let ranges: Ranges = "7,100..109".parse().expect("legal");
        let inside = [6, 7, 8, 99, 100, 109, 110].map(|index| ranges.contains(Index(index)));

        assert_eq!(inside, [false, true, false, false, true, true, false]);
        let range: IndexRange = "100..109".parse().expect("legal");
        assert_eq!(range.rest(), IndexRange::new(101, 109));
        assert_eq!(range.first(), Index(100));
        let one: IndexRange = "2147483647".parse().expect("legal");
        assert_eq!(one.rest(), None);
    }
}
