//! The console shortcuts: an integer as a person types it.
//!
//! Specified in `proto-specs/iid.md`, section 4. Blanks around a number never matter; beyond that
//! a text that the published parsers only take by accident is refused. No clock is read: what
//! `now` is comes from the caller, already corrected by the NTP offset.

use std::num::ParseIntError;
use std::str::FromStr;

use super::date::Date;
use super::{Form, Iid, Index, Value};

/// Is what a person typed, before it has a date.
///
/// ```text
/// i:42          42         an integer
/// ii:5,42       5 42       an index and an integer
/// iid:5,42,50   5 42 50    the same, dated 50 ms after now       commas or blanks
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// A value alone.
    Integer(Value),
    /// A value and its owner.
    IndexInteger(Index, Value),
    /// A value, its owner and a date relative to now.
    Delayed {
        /// Whose value it is.
        index: Index,
        /// The value.
        value: Value,
        /// Milliseconds from now to the date, negative for the past.
        delay_ms: i64,
    },
}

/// Says why a text is no shortcut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShortcutError {
    /// The part before the colon is not a known tag.
    #[error("a shortcut begins with `i:`, `ii:`, `iid:` or a number")]
    Tag,
    /// There are too few or too many numbers.
    #[error("expected {expected}")]
    Count {
        /// The numbers that belong there.
        expected: &'static str,
    },
    /// A part is not a whole number of its range.
    #[error("expected a whole number")]
    Number(#[source] ParseIntError),
    /// The delay leads out of the range of dates that may be made.
    #[error("a delay of {delay_ms} ms leads to a date outside 0 to 2^63 - 1")]
    Delay {
        /// The delay asked for.
        delay_ms: i64,
    },
}

impl FromStr for Shortcut {
    type Err = ShortcutError;

    fn from_str(text: &str) -> Result<Shortcut, ShortcutError> {
        match text.trim_ascii().split_once(':') {
            Some((tag, numbers)) => tagged(tag, numbers),
            None if text.contains(',') => shortcut(text.split(',')),
            None => shortcut(text.split_ascii_whitespace()),
        }
    }
}

impl Shortcut {
    /// Returns the byte form of the shortcut, given `now` in Unix milliseconds.
    ///
    /// # Errors
    /// Fails if the delay leads to a date that may not be made.
    pub fn to_form(self, now: Date) -> Result<Form, ShortcutError> {
        match self {
            Shortcut::Integer(value) => Ok(Form::Integer(value)),
            Shortcut::IndexInteger(index, value) => Ok(Form::IndexInteger(index, value)),
            Shortcut::Delayed {
                index,
                value,
                delay_ms,
            } => {
                let date = now
                    .later_by(delay_ms)
                    .ok_or(ShortcutError::Delay { delay_ms })?;
                Ok(Form::IndexIntegerDate(Iid { index, value, date }))
            }
        }
    }
}

fn tagged(tag: &str, numbers: &str) -> Result<Shortcut, ShortcutError> {
    let expected = match tag {
        "i" => "one number after `i:`",
        "ii" => "two numbers after `ii:`, with a comma between",
        "iid" => "three numbers after `iid:`, with commas between",
        _ => return Err(ShortcutError::Tag),
    };
    let shortcut = shortcut(numbers.split(','))?;
    match (tag, shortcut) {
        ("i", Shortcut::Integer(_))
        | ("ii", Shortcut::IndexInteger(..))
        | ("iid", Shortcut::Delayed { .. }) => Ok(shortcut),
        _ => Err(ShortcutError::Count { expected }),
    }
}

/// Makes the shortcut that has as many numbers as there are parts.
fn shortcut<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<Shortcut, ShortcutError> {
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(value), None, ..] => Ok(Shortcut::Integer(number(value)?)),
        [Some(index), Some(value), None, _] => {
            Ok(Shortcut::IndexInteger(number(index)?, number(value)?))
        }
        [Some(index), Some(value), Some(delay), None] => Ok(Shortcut::Delayed {
            index: number(index)?,
            value: number(value)?,
            delay_ms: number(delay)?,
        }),
        [None, ..] | [_, _, _, Some(_)] => Err(ShortcutError::Count {
            expected: "one, two or three numbers",
        }),
    }
}

fn number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, ShortcutError> {
    text.trim_ascii().parse().map_err(ShortcutError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_a_number_never_matter() {
        let two = Ok(Shortcut::IndexInteger(Index(1), Value(2)));

        assert_eq!(" 7 ".parse(), Ok(Shortcut::Integer(Value(7))));
        assert_eq!("1, 2".parse(), two);
        assert_eq!(" 1 , 2 ".parse(), two);
        assert_eq!(" ii: 1 , 2 ".parse(), two);
    }

    #[test]
    fn what_is_left_over_is_refused_and_not_dropped() {
        for text in [
            "i:1:2", "1,2 3", "1,,2", "1,2,", "ii:1 2", "i :1", "i:", ":1", "i", ",",
        ] {
            assert!(text.parse::<Shortcut>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_error_says_what_belongs_there() {
        let error = |text: &str| text.parse::<Shortcut>().unwrap_err().to_string();

        assert_eq!(
            error("I:1"),
            "a shortcut begins with `i:`, `ii:`, `iid:` or a number"
        );
        assert_eq!(
            error("ii:1"),
            "expected two numbers after `ii:`, with a comma between"
        );
        assert_eq!(error("1 2 3 4"), "expected one, two or three numbers");
        assert_eq!(error("i:1.5"), "expected a whole number");
    }

    #[test]
    fn a_delay_out_of_the_range_of_dates_is_refused() {
        let shortcut: Shortcut = "iid:1,2,-101".parse().unwrap();

        assert_eq!(
            shortcut.to_form(Date(100)),
            Err(ShortcutError::Delay { delay_ms: -101 })
        );
    }
}

#[cfg(test)]
mod vectors {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Shortcuts {
        now_ms: String,
        ntp_offset_ms: i64,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        text: String,
        hex: Option<String>,
        #[serde(default = "required")]
        required: bool,
    }

    /// The same text without the blanks that never matter: at the ends, and around separators. A
    /// row of blanks between numbers separates them as one does.
    fn without_blanks(text: &str) -> String {
        let parts = |text: &str, separator: char| -> Vec<String> {
            let parts = text.split(separator);
            parts.map(|part| part.trim_ascii().to_owned()).collect()
        };
        let by_colon = parts(text, ':').into_iter();
        let tidy = by_colon.map(|part| parts(&part, ',').join(","));
        let tidy = tidy.collect::<Vec<_>>().join(":");
        tidy.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_text_becomes_the_recorded_bytes() {
        let shortcuts: Shortcuts = crate::vectors::load("iid/text_shortcuts.json");
        let clock: Date = shortcuts.now_ms.parse().unwrap();
        let now = clock.later_by(shortcuts.ntp_offset_ms).unwrap();
        let encoded = |text: &str| {
            let shortcut = text.parse::<Shortcut>();
            let form = shortcut.and_then(|shortcut| shortcut.to_form(now));
            form.ok().map(|form| hex::encode(form.encode()))
        };

        for case in &shortcuts.cases {
            let (text, bytes) = (case.text.as_str(), encoded(&case.text));
            let tidy = without_blanks(text);
            if case.required {
                assert_eq!(bytes, case.hex, "{text:?}");
            } else if tidy != text {
                // What the published parser made of blanks is an accident; here they never matter.
                assert_eq!(bytes, encoded(&tidy), "{text:?}");
            } else {
                // An accident of another kind is refused, or read as the published parser does.
                assert!(bytes.is_none() || bytes == case.hex, "{text:?}: {bytes:?}");
            }
        }
        crate::vectors::checked("iid/text_shortcuts.json", shortcuts.cases.len());
    }

    fn required() -> bool {
        true
    }
}
