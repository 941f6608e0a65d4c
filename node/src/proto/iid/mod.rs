//! IID, "Index Integer Date": the four byte forms and what they mean.
//!
//! Specified in `proto-specs/iid.md`, sections 1, 2, 4, 5.2 to 5.6, 5.8 and 9. The modules below hold
//! one matter each: the date, the console shortcuts, the messages nodes exchange, the receiver that
//! judges them, and its reasons.
//!
//! Signing in to the WebSocket gateway, on both sides, is in `sign_in.rs`; who is let in in
//! `lists.rs`. What a gateway does with a message of a wrong length is not in here: this only says
//! which wrong length it has.

pub mod address;
pub mod budget;
pub mod date;
mod layout;
pub mod lists;
pub mod native;
pub mod published;
pub mod receiver;
pub mod refusal;
pub mod sign_in;
pub mod text;

#[cfg(test)]
mod fuzz;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

pub use self::date::Date;

/// The length of an [`Iid`], the longest of the four byte forms.
pub const IID_BYTES: usize = 16;

/// Says whose value it is: positive for a registered user, negative for a guest.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Index(pub i32);

/// Carries the integer itself, which means whatever sender and receiver agree on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Value(pub i32);

/// Holds the three fields of the complete form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Iid {
    /// Whose value it is.
    pub index: Index,
    /// The value.
    pub value: Value,
    /// When it was sent, or when it is to be carried out.
    pub date: Date,
}

/// Is one of the four byte forms; the length alone tells them apart.
///
/// ```text
///  4 bytes   value
///  8 bytes   index  value
/// 12 bytes   value  date
/// 16 bytes   index  value  date        all little endian; index and value 4 bytes, date 8
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A value without owner and date (4 bytes).
    Integer(Value),
    /// A value and its owner (8 bytes).
    IndexInteger(Index, Value),
    /// A value and its date (12 bytes).
    IntegerDate(Value, Date),
    /// All three fields (16 bytes).
    IndexIntegerDate(Iid),
}

/// Says that a message has none of the four lengths.
///
/// The two cases are apart because a gateway passes over the one and hangs up on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The message is no longer than an IID, but has none of the four lengths.
    #[error("an IID is 4, 8, 12 or 16 bytes, got {0}")]
    Stray(usize),
    /// The message is longer than the longest form.
    #[error("an IID is at most {IID_BYTES} bytes, got {0}")]
    TooLong(usize),
}

impl Form {
    /// Decodes one whole message.
    ///
    /// # Errors
    /// Fails if the message has none of the four lengths; every content is legal.
    pub fn decode(bytes: &[u8]) -> Result<Form, LengthError> {
        match bytes.len() {
            4 => Ok(Form::Integer(value_at(bytes, 0))),
            8 => Ok(Form::IndexInteger(index_at(bytes, 0), value_at(bytes, 4))),
            12 => Ok(Form::IntegerDate(value_at(bytes, 0), date_at(bytes, 4))),
            IID_BYTES => Ok(Form::IndexIntegerDate(Iid::decode(&field(bytes, 0)))),
            stray @ 0..IID_BYTES => Err(LengthError::Stray(stray)),
            long => Err(LengthError::TooLong(long)),
        }
    }

    /// Encodes the form as one message of its own length.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Form::Integer(value) => value.0.to_le_bytes().to_vec(),
            Form::IndexInteger(index, value) => {
                [index.0.to_le_bytes(), value.0.to_le_bytes()].concat()
            }
            Form::IntegerDate(value, date) => {
                let mut bytes = value.0.to_le_bytes().to_vec();
                bytes.extend_from_slice(&date.0.to_le_bytes());
                bytes
            }
            Form::IndexIntegerDate(iid) => iid.encode().to_vec(),
        }
    }

    /// Completes what a client signed in as `index` sent (section 5.6).
    ///
    /// The index is always that of the client, whatever it wrote, and a date is kept as sent. Only
    /// a form without a date gets one: `now`, in Unix milliseconds.
    pub fn restamp(self, index: Index, now: Date) -> Iid {
        let (value, date) = match self {
            Form::Integer(value) | Form::IndexInteger(_, value) => (value, now),
            Form::IntegerDate(value, date) => (value, date),
            Form::IndexIntegerDate(iid) => (iid.value, iid.date),
        };
        Iid { index, value, date }
    }
}

impl Iid {
    /// Decodes the complete form; every content is legal.
    pub fn decode(bytes: &[u8; IID_BYTES]) -> Iid {
        Iid {
            index: index_at(bytes, 0),
            value: value_at(bytes, 4),
            date: date_at(bytes, 8),
        }
    }

    /// Encodes the complete form.
    pub fn encode(self) -> [u8; IID_BYTES] {
        let mut bytes = [0; IID_BYTES];
        bytes[..4].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.value.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.date.0.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Index {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Index, ParseIntError> {
        text.parse().map(Index)
    }
}

impl FromStr for Value {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Value, ParseIntError> {
        text.parse().map(Value)
    }
}

fn index_at(bytes: &[u8], at: usize) -> Index {
    Index(i32::from_le_bytes(field(bytes, at)))
}

fn value_at(bytes: &[u8], at: usize) -> Value {
    Value(i32::from_le_bytes(field(bytes, at)))
}

fn date_at(bytes: &[u8], at: usize) -> Date {
    Date(u64::from_le_bytes(field(bytes, at)))
}

/// Copies the `N` bytes at `at`; the caller has made sure that they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Date = Date(1_736_463_172_123);

    #[test]
    fn only_a_form_without_a_date_is_dated_now() {
        let dated = Iid {
            index: Index(8),
            value: Value(1),
            date: Date(0),
        };

        assert_eq!(Form::Integer(Value(1)).restamp(Index(7), NOW).date, NOW);
        assert_eq!(
            Form::IndexInteger(Index(8), Value(1))
                .restamp(Index(7), NOW)
                .date,
            NOW
        );
        assert_eq!(
            Form::IntegerDate(Value(1), Date(5))
                .restamp(Index(7), NOW)
                .date,
            Date(5)
        );
        assert_eq!(
            Form::IndexIntegerDate(dated).restamp(Index(7), NOW).date,
            Date(0)
        );
    }

    #[test]
    fn a_client_cannot_speak_for_another_index() {
        let claimed = Iid {
            index: Index(8),
            value: Value(1),
            date: Date(2),
        };

        assert_eq!(
            Form::IndexIntegerDate(claimed).restamp(Index(7), NOW).index,
            Index(7)
        );
        assert_eq!(
            Form::IndexInteger(Index(8), Value(1))
                .restamp(Index(7), NOW)
                .index,
            Index(7)
        );
    }

    #[test]
    fn a_wrong_length_is_named_in_the_error() {
        let stray = Form::decode(&[0; 9]).unwrap_err();
        let long = Form::decode(&[0; 17]).unwrap_err();

        assert_eq!(stray.to_string(), "an IID is 4, 8, 12 or 16 bytes, got 9");
        assert_eq!(long.to_string(), "an IID is at most 16 bytes, got 17");
    }
}

#[cfg(test)]
mod vectors {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Codec {
        encode: Vec<Encode>,
        out_of_range: OutOfRange,
    }

    #[derive(Deserialize)]
    struct Encode {
        kind: String,
        index: Option<i32>,
        value: i32,
        date: Option<String>,
        hex: String,
    }

    #[derive(Deserialize)]
    struct OutOfRange {
        value: Vec<String>,
        date: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Lengths {
        connection_index: i32,
        now_ms: String,
        messages: Vec<Message>,
        restamp: Vec<Restamp>,
    }

    #[derive(Deserialize)]
    struct Message {
        length: usize,
        hex: Option<String>,
        fill: Option<String>,
        action: String,
        out_hex: Option<String>,
        out: Option<Out>,
        claimed_index_dropped: Option<i32>,
    }

    #[derive(Deserialize)]
    struct Out {
        index: i32,
        value: i32,
        date: String,
    }

    #[derive(Deserialize)]
    struct Restamp {
        connection_index: i32,
        in_hex: String,
        out_hex: String,
    }

    #[test]
    fn the_four_forms_encode_and_decode_as_recorded() {
        let codec: Codec = crate::vectors::load("iid/codec.json");

        for case in &codec.encode {
            let bytes = hex::decode(&case.hex).unwrap();
            let form = form(case);
            assert_eq!(form.encode(), bytes, "{}", case.hex);
            assert_eq!(Form::decode(&bytes), Ok(form), "{}", case.hex);
        }
        for value in &codec.out_of_range.value {
            assert!(value.parse::<Value>().is_err(), "{value}");
            assert!(value.parse::<Index>().is_err(), "{value}");
        }
        for date in &codec.out_of_range.date {
            assert!(date.parse::<Date>().is_err(), "{date}");
        }

        let out_of_range = codec.out_of_range.value.len() + codec.out_of_range.date.len();
        crate::vectors::checked("iid/codec.json", codec.encode.len() + out_of_range);
    }

    #[test]
    fn each_length_is_relayed_passed_over_or_too_long_as_recorded() {
        let lengths: Lengths = crate::vectors::load("iid/lengths.json");
        let now: Date = lengths.now_ms.parse().unwrap();

        for case in &lengths.messages {
            let bytes = bytes(case);
            assert_eq!(bytes.len(), case.length);
            match Form::decode(&bytes) {
                Ok(form) => {
                    let iid = form.restamp(Index(lengths.connection_index), now);
                    assert_eq!(case.action, "relay", "{} bytes", case.length);
                    assert_eq!(Some(hex::encode(iid.encode())), case.out_hex);
                    assert_eq!(Some(iid), case.out.as_ref().map(iid_of));
                    assert_eq!(claimed_index(form), case.claimed_index_dropped.map(Index));
                }
                Err(LengthError::Stray(got)) => {
                    assert_eq!((case.action.as_str(), case.length), ("ignore", got));
                }
                Err(LengthError::TooLong(got)) => {
                    assert_eq!((case.action.as_str(), case.length), ("kick", got));
                }
            }
        }
        for case in &lengths.restamp {
            let form = Form::decode(&hex::decode(&case.in_hex).unwrap()).unwrap();
            let iid = form.restamp(Index(case.connection_index), now);
            assert_eq!(hex::encode(iid.encode()), case.out_hex, "{}", case.in_hex);
            assert_eq!(Iid::decode(&iid.encode()), iid, "{}", case.in_hex);
        }

        let cases = lengths.messages.len() + lengths.restamp.len();
        crate::vectors::checked("iid/lengths.json", cases);
    }

    fn form(case: &Encode) -> Form {
        let value = Value(case.value);
        let date = || case.date.as_ref().unwrap().parse().unwrap();
        let index = || Index(case.index.unwrap());
        match case.kind.as_str() {
            "i" => Form::Integer(value),
            "ii" => Form::IndexInteger(index(), value),
            "id" => Form::IntegerDate(value, date()),
            "iid" => Form::IndexIntegerDate(Iid {
                index: index(),
                value,
                date: date(),
            }),
            other => panic!("no form is called {other}"),
        }
    }

    fn bytes(case: &Message) -> Vec<u8> {
        match (&case.hex, &case.fill) {
            (Some(hex), _) => hex::decode(hex).unwrap(),
            (None, Some(fill)) => hex::decode(fill).unwrap().repeat(case.length),
            (None, None) => panic!("a case of {} bytes without bytes", case.length),
        }
    }

    fn iid_of(out: &Out) -> Iid {
        let date = out.date.parse().unwrap();
        Iid {
            index: Index(out.index),
            value: Value(out.value),
            date,
        }
    }

    fn claimed_index(form: Form) -> Option<Index> {
        match form {
            Form::Integer(_) | Form::IntegerDate(..) => None,
            Form::IndexInteger(index, _) => Some(index),
            Form::IndexIntegerDate(iid) => Some(iid.index),
        }
    }
}
