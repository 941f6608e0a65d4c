//! Bytes that nobody sends, for every parser of bytes from outside.
//!
//! A target is a test in a module named `fuzz` beside its parser. It gives [`fuzz`] a corpus and
//! says what holds for all bytes. Each entry comes once as it is; then come entries with a few
//! changes, for a quarter of a second in every test run, or for longer:
//!
//! ```console
//! $ BOLERO_RANDOM_TEST_TIME_MS=60000 cargo test -p pimesh-node fuzz
//! ```
//!
//! What fails is printed, made smaller, with the `BOLERO_RANDOM_SEED` that makes it again; it
//! becomes a test of its own. `cargo bolero test` runs the same targets and lets coverage steer.

use std::{fmt::Debug, panic::RefUnwindSafe, time::Duration};

use bolero::{TypeGenerator, ValueGenerator, produce};
use serde_json::Value;

/// What `bolero::check!()` returns; it names the test in which it stands.
pub(crate) type Target =
    bolero::TestTarget<bolero::ByteSliceGenerator, bolero::DefaultEngine, bolero::BorrowedInput>;

const TIME: Duration = Duration::from_millis(250);

/// Most changes to one entry: after more of them it means nothing.
const CHANGES_MAX: usize = 4;

/// Calls `check` with the corpus, then with changed entries. `check` panics if what must hold does
/// not, and says whether the bytes meant something.
///
/// # Panics
/// Panics if `check` does, or if no entry of the corpus means anything: then nothing was tested.
pub(crate) fn fuzz(
    target: Target,
    corpus: &[Vec<u8>],
    check: impl Fn(&[u8]) -> bool + RefUnwindSafe,
) {
    let meant = corpus.iter().filter(|entry| check(entry)).count();
    assert!(meant > 0, "no entry of the corpus means anything");
    // One more than there are entries: the last stands for no bytes at all.
    let entry = 0..=corpus.len();
    let changes = produce::<Vec<Change>>().with().len(0..=CHANGES_MAX);
    let changed = (entry, changes).map_gen(|(entry, changes)| {
        let mut bytes = corpus.get(entry).cloned().unwrap_or_default();
        for change in changes {
            change.apply(&mut bytes, corpus);
        }
        bytes
    });
    target
        .with_generator(changed)
        .with_test_time(TIME)
        .for_each(|bytes| {
            check(bytes);
        });
}

/// Decodes, and asserts that what was decoded encodes to bytes that say the same.
pub(crate) fn round_trip<T: PartialEq + Debug, E: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let read = decode(bytes).ok()?;
    let again = decode(&encode(&read));
    assert_eq!(again.as_ref(), Ok(&read));
    again.ok()
}

/// Collects the texts that stand under `member` anywhere in a file of known answers.
pub(crate) fn recorded(file: &str, member: &str) -> Vec<String> {
    fn collect(value: &Value, member: &str, texts: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, member, texts)),
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(text) if name == member => texts.push(text.clone()),
                        _ => collect(value, member, texts),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut texts = Vec::new();
    collect(&crate::vectors::load(file), member, &mut texts);
    crate::vectors::checked(file, texts.len());
    texts
}

/// Makes bytes of the texts of a corpus.
pub(crate) fn bytes_of(texts: impl IntoIterator<Item = impl Into<String>>) -> Vec<Vec<u8>> {
    texts.into_iter().map(|t| t.into().into_bytes()).collect()
}

/// Makes bytes of recorded hexadecimal digits.
pub(crate) fn bytes_of_hex(texts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Vec<u8>> {
    let bytes = |text| hex::decode(text).expect("recorded as hexadecimal digits");
    texts.into_iter().map(bytes).collect()
}

/// One thing that happens to bytes. Places are taken by their remainder.
#[derive(Clone, Debug, TypeGenerator)]
struct Change {
    at: u32,
    how: How,
}

#[derive(Clone, Debug, TypeGenerator)]
enum How {
    Flip {
        bit: u8,
    },
    Insert {
        bytes: Vec<u8>,
    },
    Repeat {
        length: u8,
        #[generator(0..8)]
        times: usize,
    },
    Remove {
        length: u8,
    },
    Cut,
    /// Of protobuf messages the two become one that says both.
    Append {
        entry: u32,
    },
    Graft {
        entry: u32,
        from: u32,
        length: u8,
    },
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = place(self.at, bytes);
        let other = |entry: u32| &corpus[entry as usize % corpus.len()];
        match self.how {
            How::Flip { bit } => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            How::Insert { bytes: new } => drop(bytes.splice(at..at, new)),
            How::Repeat { length, times } => {
                let repeated = piece(bytes, at, length).repeat(times);
                bytes.splice(at..at, repeated);
            }
            How::Remove { length } => {
                let to = at + piece(bytes, at, length).len();
                bytes.drain(at..to);
            }
            How::Cut => bytes.truncate(at),
            How::Append { entry } => bytes.extend(other(entry)),
            How::Graft {
                entry,
                from,
                length,
            } => {
                let other = other(entry);
                let taken = piece(other, place(from, other), length);
                bytes.splice(at..at, taken.iter().copied());
            }
        }
    }
}

fn place(number: u32, bytes: &[u8]) -> usize {
    number as usize % (bytes.len() + 1)
}

fn piece(bytes: &[u8], from: usize, length: u8) -> &[u8] {
    let rest = &bytes[from..];
    &rest[..rest.len().min(length.into())]
}
