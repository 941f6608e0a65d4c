//! (being written)
/// SHA-256 of a public key's PKCS#1 DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);
