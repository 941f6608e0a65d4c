//! Randomness for keys, tokens and names of temporary files.

/// Returns bytes from the operating system's randomness.
///
/// # Panics
/// Panics if it has none: then nothing here can be secret.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}
