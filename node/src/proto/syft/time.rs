//! Times as texts, and the two numbers that may have been signed (`proto-specs/syft.md`,
//! section 3).
//!
//! The text is what travels. Signatures are over nanoseconds that each side computes from it: the
//! exact ones, or Python's, which went through two roundings of a 64-bit float. A reader that
//! computes another number than the signer gets another text, from which it computes the signed one
//! ([`Timestamp::text_for`]), if there is such a text.

use std::{borrow::Cow, fmt};

use jiff::civil;

/// A time as a text, and the nanoseconds that a signer may have made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    exact: Option<i64>,
    python: Option<i128>,
}

/// A program that receives messages: how it computes the number that it verifies a signature over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The Python client: [`Timestamp::python_nanos`].
    Python,
    /// The Go client: [`Timestamp::exact_nanos`].
    Go,
    /// Not known. The Electron client, which computes the exact number of a text cut to
    /// milliseconds, does not say what it is.
    Unknown,
}

impl Reader {
    /// Tells a program by the `User-Agent` of its request.
    #[must_use]
    pub fn from_user_agent(text: &str) -> Self {
        if text.starts_with("Python/") {
            Self::Python
        } else if text.starts_with("Go-http-client/") {
            Self::Go
        } else {
            Self::Unknown
        }
    }
}

/// From this Unix second on, a multiple of 4 ms is not exact in Python's arithmetic any more
/// (2^31 seconds, January 2038).
const GRID_ENDS_S: u64 = 1 << 31;

/// The last Unix second that is exact in Python's arithmetic, in February 2116. A clock that is
/// beyond it is wrong or this program very old; what it signs still verifies everywhere.
const EXACT_ENDS_S: u64 = (1 << 53) / 1_953_125;

impl Timestamp {
    /// Reads a text, whatever it is. A text that is no time has no candidates.
    #[must_use]
    pub fn from_text(text: impl Into<String>) -> Self {
        let text = text.into();
        let read = Reading::of(&text);
        let exact = read
            .as_ref()
            .filter(|r| r.strict)
            .and_then(Reading::exact_nanos);
        let python = read.as_ref().map(Reading::python_nanos);
        Self {
            text,
            exact,
            python,
        }
    }

    /// Makes the time that this node signs with: not later than `unix_ms`, and on the grid on
    /// which Go, Python and JavaScript compute the same number from 2023 on. Times beyond 2116
    /// become the last one on it.
    #[must_use]
    pub fn on_grid(unix_ms: u64) -> Self {
        let unix_ms = unix_ms.min(EXACT_ENDS_S * 1000);
        let step = if unix_ms / 1000 < GRID_ENDS_S {
            4
        } else {
            1000
        };
        let ms = i64::try_from(unix_ms - unix_ms % step).unwrap_or(0);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
        Self::from_text(format!("{time:.3}"))
    }

    /// Returns the text, as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the exact nanoseconds since 1970, if the text is RFC 3339 and they fit.
    #[must_use]
    pub const fn exact_nanos(&self) -> Option<i64> {
        self.exact
    }

    /// Returns the nanoseconds that the Python client computes.
    #[must_use]
    pub const fn python_nanos(&self) -> Option<i128> {
        self.python
    }

    /// Returns the numbers that may have been signed, each once, and the likelier one first: to try
    /// one costs more than all else that is done for a message. Python writes UTC as `+00:00`, Go
    /// and JavaScript as `Z`.
    pub fn candidates(&self) -> impl Iterator<Item = i128> + use<> {
        let exact = self.exact.map(i128::from);
        let [first, second] = if self.text.ends_with("+00:00") {
            [self.python, exact]
        } else {
            [exact, self.python]
        };
        let second = second.filter(|_| second != first);
        first.into_iter().chain(second)
    }

    /// Returns this time with a text that says which number was signed: the first of its
    /// [`candidates`](Self::candidates) is `signed`. The published clients write such texts.
    #[must_use]
    pub fn with_signed(self, signed: i128) -> Self {
        if self.candidates().next() == Some(signed) {
            return self;
        }
        let text = if self.python == Some(signed) {
            python_text(signed)
        } else {
            exact_text(signed)
        };
        text.map_or(self, Self::from_text)
    }

    /// Returns a text from which a reader computes the number that was signed, which is the first of
    /// the [`candidates`](Self::candidates). This is the text as it is if the reader does so anyway,
    /// and also if there is no text from which it would.
    #[must_use]
    pub fn text_for(&self, reader: Reader) -> Cow<'_, str> {
        let as_it_is = Cow::Borrowed(self.text.as_str());
        let Some(signed) = self.candidates().next() else {
            return as_it_is;
        };
        let exact = || self.exact.map(i128::from) == Some(signed);
        let other = match reader {
            Reader::Python if self.python != Some(signed) => python_text(signed),
            Reader::Go if !exact() => exact_text(signed),
            // A text that suits both kinds of reader, if there is one.
            Reader::Unknown if !exact() => exact_text(signed)
                .filter(|text| Self::from_text(text.as_str()).python == Some(signed)),
            Reader::Python | Reader::Go | Reader::Unknown => None,
        };
        other.map_or(as_it_is, Cow::Owned)
    }
}

/// Writes a time as Go does, with all nine digits.
fn exact_text(nanos: i128) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanos).ok()?;
    Some(format!("{time:.9}"))
}

/// Writes a time as Python does, such that Python computes this number from it. There is a text for
/// a few numbers only: two roundings lead to multiples of 256, and not to all of them.
fn python_text(nanos: i128) -> Option<String> {
    let below = i64::try_from(nanos.div_euclid(1000)).ok()?;
    let micros = [below, below.checked_add(1)?]
        .into_iter()
        .find(|micros| python_nanos(*micros) == nanos)?;
    let time = jiff::Timestamp::from_microsecond(micros).ok()?;
    let digits = if micros % 1_000_000 == 0 { 0 } else { 6 };
    let text = format!("{time:.digits$}");
    Some(format!("{}+00:00", text.strip_suffix('Z')?))
}

/// Does what `int(datetime.timestamp() * 1e9)` does with the microseconds of a time.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the two roundings are the point"
)]
fn python_nanos(micros: i64) -> i128 {
    ((micros as f64 / 1e6) * 1e9) as i128
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Longest text that is read as a time, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// What a text says.
struct Reading {
    seconds: i64,
    /// Nanoseconds within the second, cut after nine digits.
    nanos: u32,
    /// Whether the text is RFC 3339 in upper case with a full zone, as Go wants it.
    strict: bool,
}

impl Reading {
    fn of(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX || !text.is_ascii() {
            return None;
        }
        let bytes = text.as_bytes();
        let head: &[u8; 19] = bytes.first_chunk()?;
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if separators.iter().any(|&(at, wanted)| head[at] != wanted) {
            return None;
        }
        let local = civil::DateTime::new(
            i16::try_from(number(&head[0..4])?).ok()?,
            i8::try_from(number(&head[5..7])?).ok()?,
            i8::try_from(number(&head[8..10])?).ok()?,
            i8::try_from(number(&head[11..13])?).ok()?,
            i8::try_from(number(&head[14..16])?).ok()?,
            i8::try_from(number(&head[17..19])?).ok()?,
            0,
        )
        .ok()?;
        let rest = &bytes[19..];
        let (nanos, fraction_bytes) = fraction(rest);
        let (offset_seconds, full_zone) = zone(&rest[fraction_bytes..])?;
        let seconds = local
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_second();
        Some(Self {
            seconds: seconds - offset_seconds,
            nanos,
            strict: head[10] == b'T' && fraction_bytes != 1 && full_zone,
        })
    }

    fn exact_nanos(&self) -> Option<i64> {
        self.seconds
            .checked_mul(1_000_000_000)?
            .checked_add(i64::from(self.nanos))
    }

    fn python_nanos(&self) -> i128 {
        python_nanos(self.seconds * 1_000_000 + i64::from(self.nanos / 1000))
    }
}

/// Reads decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0u32, |n, d| {
        n.checked_mul(10)?.checked_add(u32::from(d - b'0'))
    })
}

/// Reads a point and digits: the nanoseconds, and how many bytes they took.
fn fraction(bytes: &[u8]) -> (u32, usize) {
    let Some(digits) = bytes.strip_prefix(b".") else {
        return (0, 0);
    };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let nine = digits[..count]
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    (nine.fold(0, |n, d| n * 10 + u32::from(d - b'0')), 1 + count)
}

/// Reads a zone: its offset in seconds, and whether it is written as RFC 3339 wants.
fn zone(bytes: &[u8]) -> Option<(i64, bool)> {
    let (sign, rest) = match bytes {
        b"Z" => return Some((0, true)),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes, full) = match rest {
        [h1, h2, b':', m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?, true),
        [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?, false),
        [h1, h2] => (number(&[*h1, *h2])?, 0, false),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some((sign * i64::from(hours * 3600 + minutes * 60), full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_we_sign_with_is_on_the_grid_and_written_with_three_digits() {
        assert_eq!(
            Timestamp::on_grid(1_747_396_800_127).as_str(),
            "2025-05-16T12:00:00.124Z"
        );
        assert_eq!(
            Timestamp::on_grid(1_747_396_800_000).as_str(),
            "2025-05-16T12:00:00.000Z"
        );
        assert_eq!(
            Timestamp::on_grid(2_147_483_648_999).as_str(),
            "2038-01-19T03:14:08.000Z"
        );
        for beyond in [4_611_686_018_427, 206_622_368_596_000, u64::MAX] {
            let time = Timestamp::on_grid(beyond);
            assert_eq!(time.as_str(), "2116-02-20T23:53:38.000Z");
            assert_eq!(time.candidates().count(), 1);
        }
    }

    #[test]
    fn the_number_of_the_client_that_writes_so_comes_first() {
        const EXACT: i128 = 1_747_396_800_123_000_000;
        const PYTHON: i128 = 1_747_396_800_122_999_808;
        for (text, expected) in [
            ("2025-05-16T12:00:00.123000+00:00", [PYTHON, EXACT]),
            ("2025-05-16T12:00:00.123Z", [EXACT, PYTHON]),
            ("2025-05-16T14:00:00.123+02:00", [EXACT, PYTHON]),
        ] {
            let candidates: Vec<i128> = Timestamp::from_text(text).candidates().collect();
            assert_eq!(candidates, expected, "{text}");
        }
    }

    #[test]
    fn a_reader_gets_a_text_from_which_it_computes_the_signed_number_if_there_is_one() {
        use Reader::{Go, Python, Unknown};
        // Python's number of the first text ends in 457024, and of the second one in 122999808.
        let above = "2025-05-16T12:00:00.123457+00:00";
        let below = "2025-05-16T12:00:00.123000+00:00";
        let exact = "2025-05-16T12:00:00.123457024Z";
        for (text, reader, expected) in [
            (above, Python, above),
            (above, Go, exact),
            (above, Unknown, exact),
            (below, Python, below),
            (below, Go, "2025-05-16T12:00:00.122999808Z"),
            // From that one Python would compute something else.
            (below, Unknown, below),
            // Signed by Go: a number that Python reaches, and one that it does not.
            (exact, Python, exact),
            ("2025-05-16T12:00:00.122999808Z", Python, below),
            (
                "2025-05-16T12:00:00.123456789Z",
                Python,
                "2025-05-16T12:00:00.123456789Z",
            ),
            (
                "2025-05-16T14:00:00.5+02:00",
                Go,
                "2025-05-16T14:00:00.5+02:00",
            ),
            ("yesterday", Go, "yesterday"),
        ] {
            let time = Timestamp::from_text(text);
            assert_eq!(time.text_for(reader), expected, "{text} {reader:?}");
        }
    }

    #[test]
    fn a_text_that_does_not_say_which_number_was_signed_is_written_so_that_it_does() {
        const EXACT: i128 = 1_747_396_800_123_000_000;
        const PYTHON: i128 = 1_747_396_800_122_999_808;
        let as_python = "2025-05-16T12:00:00.123000+00:00";
        for (text, signed, expected) in [
            (as_python, PYTHON, as_python),
            (as_python, EXACT, "2025-05-16T12:00:00.123000000Z"),
            ("2025-05-16T12:00:00.123Z", PYTHON, as_python),
            (
                "2025-05-16T12:00:00.123Z",
                EXACT,
                "2025-05-16T12:00:00.123Z",
            ),
            // Both numbers are one, and the text stays.
            (
                "2025-05-16T12:00:00.500000+00:00",
                1_747_396_800_500_000_000,
                "2025-05-16T12:00:00.500000+00:00",
            ),
        ] {
            let time = Timestamp::from_text(text).with_signed(signed);
            assert_eq!(time.as_str(), expected, "{text} {signed}");
            assert_eq!(time.candidates().next(), Some(signed));
        }
    }

    #[test]
    fn programs_are_told_by_what_they_call_themselves() {
        for (text, expected) in [
            ("Python/3.11 websockets/17.4", Reader::Python),
            ("Go-http-client/1.1", Reader::Go),
            ("Mozilla/5.0 (X11) Electron/30.0", Reader::Unknown),
            ("", Reader::Unknown),
        ] {
            assert_eq!(Reader::from_user_agent(text), expected, "{text}");
        }
    }

    #[test]
    fn on_the_grid_both_candidates_are_one() {
        let mut ms = 1_700_000_000_000;
        while ms < 2_300_000_000_000 {
            let time = Timestamp::on_grid(ms);
            assert_eq!(time.candidates().count(), 1, "{time}");
            ms += 59_999_876_543;
        }
    }
}

#[cfg(test)]
mod vectors {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{checked, load};

    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        text: String,
        exact_nanos: Option<String>,
        python_nanos: Option<String>,
    }

    #[test]
    fn texts_give_the_numbers_that_go_and_python_compute() {
        let file: File = load("syft/timestamp.json");

        for case in &file.cases {
            let time = Timestamp::from_text(case.text.as_str());
            assert_eq!(time.as_str(), case.text);
            let exact = time.exact_nanos().map(|n| n.to_string());
            assert_eq!(exact, case.exact_nanos, "exact of {:?}", case.text);
            let python = time.python_nanos().map(|n| n.to_string());
            assert_eq!(python, case.python_nanos, "python of {:?}", case.text);
        }
        checked("syft/timestamp.json", file.cases.len());
    }
}
