//! The keys of the known answers, for tests: making keys takes too long for them.

use std::{collections::BTreeMap, sync::LazyLock};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::Deserialize;

use super::{KeyPolicy, PrivateKey};
use crate::vectors::load;

/// Takes every key that P2SN itself takes.
pub(super) const ANY_SIZE: KeyPolicy = KeyPolicy { bits_min: 1024 };

/// `p2sn/exchange.json`.
#[derive(Deserialize)]
pub(super) struct Exchange {
    pub(super) keys: Vec<Key>,
    pub(super) decrypt: Vec<Decrypt>,
}

/// A key, and the frames in which it is shown.
#[derive(Deserialize)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) bits: usize,
    pub(super) private_pem: String,
    pub(super) public_pem: String,
    pub(super) server_pubkey_frame_hex: String,
    pub(super) client_pubkey_frame_hex: String,
}

/// A frame that opens to a plaintext.
#[derive(Deserialize)]
pub(super) struct Decrypt {
    pub(super) key: String,
    pub(super) plaintext_hex: String,
    pub(super) frame_hex: String,
}

impl Exchange {
    pub(super) fn load() -> Self {
        load("p2sn/exchange.json")
    }
}

/// Every private key by its name in the file. Reading one checks its primes, which takes long.
static PRIVATE: LazyLock<BTreeMap<String, PrivateKey>> = LazyLock::new(|| {
    let private = |key: Key| {
        let read = PrivateKey::from_foreign_pem(&key.private_pem).expect("a private key");
        (key.id, read)
    };
    Exchange::load().keys.into_iter().map(private).collect()
});

/// Returns a private key by its name in the file.
pub(super) fn private(id: &str) -> PrivateKey {
    PRIVATE[id].clone()
}

/// Returns the key of 1,024 bits.
pub(super) fn small() -> PrivateKey {
    private("dev-1024")
}

/// Returns the key of 2,048 bits.
pub(super) fn large() -> PrivateKey {
    private("dev-2048")
}

/// Returns the same random numbers each time.
pub(super) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}
