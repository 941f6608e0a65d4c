//! Durations and sizes as people write them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Reads a duration as people write it: a number and `ms`, `s`, `min`, `h` or `d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit = if unit == "m" { "min" } else { unit };
    let (_, millis) = *SPANS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A duration as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Span(pub(super) Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self).ok_or_else(|| {
            format!("`{text}` is no duration; write for example \"30s\", \"15min\" or \"7d\"")
        })
    }
}

impl From<Span> for String {
    fn from(Span(span): Span) -> Self {
        let ms = span.as_millis();
        let unit = SPANS
            .iter()
            .rev()
            .find(|(_, of)| ms.is_multiple_of(u128::from(*of)));
        let (unit, of) = unit.unwrap_or(&SPANS[0]);
        format!("{}{unit}", ms / u128::from(*of))
    }
}

/// The units of durations, in milliseconds.
const SPANS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A size as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Size(pub(super) u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let scale = |(number, unit): (u64, &str)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift)
        };
        split_unit(&text).and_then(scale).map(Self).ok_or_else(|| {
            format!("`{text}` is no size; write for example \"64 KiB\" or \"256 MiB\"")
        })
    }
}

impl From<Size> for String {
    fn from(Size(bytes): Size) -> Self {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let fits = |(_, shift): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
        let (unit, shift) = units.into_iter().find(fits).unwrap_or(("B", 0));
        format!("{} {unit}", bytes >> shift)
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}
