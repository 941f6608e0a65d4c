//! Where the known answers are: `PIMESH_VECTORS`, or `proto-specs/vectors` of this checkout.
//!
//! Every test module named `vectors` reads its files through here and ends with [`checked`], so
//! that a set that is empty or was not found fails instead of passing silently.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// Reads and decodes one file of known answers, for example `load("p2sn/exchange.json")`.
///
/// # Panics
/// Panics if the file is missing or is not of the expected form: this is test code.
pub(crate) fn load<T: DeserializeOwned>(file: &str) -> T {
    let folder = std::env::var_os("PIMESH_VECTORS").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../proto-specs/vectors"
            ))
        },
        PathBuf::from,
    );
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("read the vectors {}: {e}", path.display()));
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("decode the vectors {}: {e}", path.display()))
}

/// Says how many cases of a file were checked, and fails on none.
///
/// # Panics
/// Panics if `cases` is zero.
pub(crate) fn checked(file: &str, cases: usize) {
    assert!(cases > 0, "{file}: no case was checked");
    #[expect(
        clippy::print_stdout,
        reason = "the number of cases is what the test reports"
    )]
    {
        println!("vectors {file}: {cases} cases checked");
    }
}

/// Reads recorded hexadecimal digits.
///
/// # Panics
/// Panics if they are none, or too many or too few.
pub(crate) fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).expect("recorded as so many hexadecimal digits");
    bytes
}
