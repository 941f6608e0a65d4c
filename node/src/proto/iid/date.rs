//! The date field, and how a date of an unknown maker is read for display and scheduling.
//!
//! Specified in `proto-specs/iid.md`, section 2.3. Reading never changes a date: what is relayed
//! is always the number that came.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Milliseconds from the start of year 1 to that of 1970, the difference between the two epochs.
const YEAR_1_TO_1970_MS: i64 = 62_135_596_800_000;

/// A .NET tick is 100 ns, so this many make a millisecond.
const TICKS_PER_MS: u64 = 10_000;

/// A date from here on carries a tag in front of its 18 lower decimal digits.
const TAG_UNIT: u64 = 1_000_000_000_000_000_000;

/// Holds the 64 bits of the date field as they came; what we make is Unix milliseconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Date(pub u64);

/// Says what a date most likely means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateReading {
    /// The convention its maker seems to follow.
    pub kind: DateKind,
    /// The moment in Unix milliseconds, if one can be told; before 1970 it is negative.
    pub unix_ms: Option<i64>,
}

/// Names the conventions that makers of dates follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateKind {
    /// Zero: no date was given.
    None,
    /// A number too small to be a date.
    Small,
    /// Seconds since 1970.
    UnixSeconds,
    /// Milliseconds since 1970, the working meaning of the field.
    UnixMilliseconds,
    /// Milliseconds since the start of year 1.
    MillisecondsSinceYear1,
    /// Microseconds since 1970.
    UnixMicroseconds,
    /// Steps of 100 ns since 1970.
    Unix100Nanoseconds,
    /// .NET ticks: steps of 100 ns since the start of year 1.
    NetTicks,
    /// The two leading ones of 20 decimal digits are this tag.
    Tagged(u8),
    /// A number in none of the ranges.
    Unknown,
}

impl Date {
    /// Returns the moment `ms` milliseconds later, or earlier if it is negative.
    ///
    /// There is none below 0, and none from 2^63 on: some readers take the field as signed.
    pub fn later_by(self, ms: i64) -> Option<Date> {
        let date = self.0.checked_add_signed(ms)?;
        i64::try_from(date).is_ok().then_some(Date(date))
    }

    /// Reads the date by its size.
    pub fn reading(self) -> DateReading {
        match self.0 {
            0 => DateReading::without_moment(DateKind::None),
            1..100_000_000 => DateReading::without_moment(DateKind::Small),
            seconds @ 100_000_000..10_000_000_000 => {
                DateReading::since_1970(DateKind::UnixSeconds, seconds * 1_000)
            }
            ms @ 10_000_000_000..10_000_000_000_000 => {
                DateReading::since_1970(DateKind::UnixMilliseconds, ms)
            }
            ms @ 62_000_000_000_000..66_000_000_000_000 => {
                DateReading::since_year_1(DateKind::MillisecondsSinceYear1, ms)
            }
            us @ 1_000_000_000_000_000..10_000_000_000_000_000 => {
                DateReading::since_1970(DateKind::UnixMicroseconds, us / 1_000)
            }
            ticks @ 10_000_000_000_000_000..100_000_000_000_000_000 => {
                DateReading::since_1970(DateKind::Unix100Nanoseconds, ticks / TICKS_PER_MS)
            }
            ticks @ 620_000_000_000_000_000..660_000_000_000_000_000 => {
                DateReading::since_year_1(DateKind::NetTicks, ticks / TICKS_PER_MS)
            }
            tagged @ TAG_UNIT.. => DateReading::tagged(tagged),
            _ => DateReading::without_moment(DateKind::Unknown),
        }
    }
}

impl DateReading {
    fn without_moment(kind: DateKind) -> DateReading {
        DateReading {
            kind,
            unix_ms: None,
        }
    }

    fn since_1970(kind: DateKind, ms: u64) -> DateReading {
        DateReading {
            kind,
            unix_ms: i64::try_from(ms).ok(),
        }
    }

    fn since_year_1(kind: DateKind, ms: u64) -> DateReading {
        DateReading {
            kind,
            unix_ms: i64::try_from(ms).ok().map(|ms| ms - YEAR_1_TO_1970_MS),
        }
    }

    fn tagged(date: u64) -> DateReading {
        let tag = u8::try_from(date / TAG_UNIT).expect("the largest date has tag 18");
        let kind = DateKind::Tagged(tag);
        match tag {
            1..=4 | 10 => DateReading::since_1970(kind, date % TAG_UNIT / 1_000),
            _ => DateReading::without_moment(kind),
        }
    }
}

impl DateKind {
    /// Returns the stable name of the convention, without the tag.
    pub fn name(self) -> &'static str {
        match self {
            DateKind::None => "none",
            DateKind::Small => "small",
            DateKind::UnixSeconds => "unix_s",
            DateKind::UnixMilliseconds => "unix_ms",
            DateKind::MillisecondsSinceYear1 => "ms_since_year_1",
            DateKind::UnixMicroseconds => "unix_us",
            DateKind::Unix100Nanoseconds => "unix_100ns",
            DateKind::NetTicks => "net_ticks",
            DateKind::Tagged(_) => "tagged",
            DateKind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Date {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Date, ParseIntError> {
        text.parse().map(Date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_ends_where_the_specification_says() {
        let edges = [
            (9_999_999_999_999, DateKind::UnixMilliseconds),
            (10_000_000_000_000, DateKind::Unknown),
            (61_999_999_999_999, DateKind::Unknown),
            (62_000_000_000_000, DateKind::MillisecondsSinceYear1),
            (65_999_999_999_999, DateKind::MillisecondsSinceYear1),
            (66_000_000_000_000, DateKind::Unknown),
            (999_999_999_999_999, DateKind::Unknown),
            (1_000_000_000_000_000, DateKind::UnixMicroseconds),
            (9_999_999_999_999_999, DateKind::UnixMicroseconds),
            (10_000_000_000_000_000, DateKind::Unix100Nanoseconds),
            (99_999_999_999_999_999, DateKind::Unix100Nanoseconds),
            (100_000_000_000_000_000, DateKind::Unknown),
            (619_999_999_999_999_999, DateKind::Unknown),
            (620_000_000_000_000_000, DateKind::NetTicks),
            (659_999_999_999_999_999, DateKind::NetTicks),
            (660_000_000_000_000_000, DateKind::Unknown),
            (999_999_999_999_999_999, DateKind::Unknown),
            (1_000_000_000_000_000_000, DateKind::Tagged(1)),
            (9_999_999_999_999_999_999, DateKind::Tagged(9)),
            (10_000_000_000_000_000_000, DateKind::Tagged(10)),
        ];

        for (date, kind) in edges {
            assert_eq!(Date(date).reading().kind, kind, "{date}");
        }
    }

    #[test]
    fn a_moment_before_1970_is_negative_and_rounded_down() {
        assert_eq!(
            Date(62_000_000_000_000).reading().unix_ms,
            Some(-135_596_800_000)
        );
        assert_eq!(
            Date(620_000_000_000_009_999).reading().unix_ms,
            Some(-135_596_800_000)
        );
    }

    #[test]
    fn the_tags_three_and_four_carry_microseconds_and_five_carries_nothing() {
        assert_eq!(
            Date(3_001_736_463_172_000_000).reading().unix_ms,
            Some(1_736_463_172_000)
        );
        assert_eq!(
            Date(4_001_736_463_172_000_000).reading().unix_ms,
            Some(1_736_463_172_000)
        );
        assert_eq!(Date(5_001_736_463_172_000_000).reading().unix_ms, None);
    }

    #[test]
    fn a_date_that_looks_negative_to_others_is_never_made() {
        assert_eq!(Date(100).later_by(-100), Some(Date(0)));
        assert_eq!(Date(100).later_by(-101), None);
        assert_eq!(
            Date(0).later_by(i64::MAX),
            Some(Date(9_223_372_036_854_775_807))
        );
        assert_eq!(Date(1).later_by(i64::MAX), None);
    }
}

#[cfg(test)]
mod vectors {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Dates {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        date: String,
        kind: String,
        unix_ms: Option<String>,
        tag: Option<u8>,
    }

    #[test]
    fn every_date_is_read_as_recorded() {
        let dates: Dates = crate::vectors::load("iid/dates.json");

        for case in &dates.cases {
            let reading = case.date.parse::<Date>().unwrap().reading();
            let tag = match reading.kind {
                DateKind::Tagged(tag) => Some(tag),
                _ => None,
            };
            let unix_ms = reading.unix_ms.map(|ms| ms.to_string());
            assert_eq!(reading.kind.name(), case.kind, "{}", case.date);
            assert_eq!(tag, case.tag, "{}", case.date);
            assert_eq!(unix_ms, case.unix_ms, "{}", case.date);
        }

        crate::vectors::checked("iid/dates.json", dates.cases.len());
    }
}
