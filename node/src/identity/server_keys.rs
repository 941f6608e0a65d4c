//! The keys with which this node signs in to servers of the older systems: one for each server, so
//! that no server can use a signature at another one (`proto/server.rs`).
//!
//! Ed25519 and Ethereum keys are derived from one key file. RSA keys cannot be derived so that every
//! later version derives the same; each has a file, named by the hash of the server's URL.

use std::{fs, path::Path};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{KeyFileError, KeyRing, Kind, create, file, not_made_yet, seed_of};
use crate::{
    proto::{
        iid::address::{EthereumKey, RsaKey},
        p2sn,
        server::{KeyOf, Purpose, ServerUrl, derive},
        syft,
    },
    rng::random,
};

/// Size of the RSA key for APIntIO servers, in bits: the name of the scheme says so.
const IID_RSA_BITS: usize = 4096;

/// What the name of the file of a server's RSA key begins and ends with.
const IID_RSA_PREFIX: &str = "iid-rsa-";
const KEY_SUFFIX: &str = ".key";

/// How many bytes of the hash of a URL are in a file name.
const URL_HASH_BYTES: usize = 8;

impl KeyRing {
    /// Returns the key for a Syft server.
    ///
    /// # Errors
    /// Returns what is wrong with the file.
    pub fn syft_server(&self, key_of: &KeyOf) -> Result<syft::SigningKey, KeyFileError> {
        let seed = seed_of(&self.home, Kind::Messaging, self.passphrase.as_ref())?;
        let secret = match key_of {
            KeyOf::Shared => seed,
            KeyOf::Url(url) => derive(&seed, Purpose::Syft, url),
        };
        Ok(syft::SigningKey::from_seed(&secret))
    }

    /// Returns the Ethereum key for an APIntIO server.
    ///
    /// # Errors
    /// Returns what is wrong with the file.
    pub fn ethereum(&self, key_of: &KeyOf) -> Result<EthereumKey, KeyFileError> {
        let seed = seed_of(&self.home, Kind::Ethereum, self.passphrase.as_ref())?;
        let secret = match key_of {
            KeyOf::Shared => seed,
            KeyOf::Url(url) => derive(&seed, Purpose::IidEthereum, url),
        };
        // Out of range once in 2^127: no file gives such a number on purpose.
        EthereumKey::from_bytes(&secret).map_err(|_| KeyFileError::Torn {
            path: self.home.join(Kind::Ethereum.file_name()),
        })
    }

    /// Returns the RSA key for an APIntIO server. Making it takes seconds, on a small machine many.
    ///
    /// # Errors
    /// Returns what is wrong with the file.
    pub fn iid_rsa(&self, key_of: &KeyOf) -> Result<RsaKey, KeyFileError> {
        let name = match key_of {
            KeyOf::Shared => Kind::IidRsa.file_name().to_owned(),
            KeyOf::Url(url) => iid_rsa_file(url),
        };
        let path = self.home.join(&name);
        let phrase = self.passphrase.as_ref();
        let torn = || KeyFileError::Torn { path: path.clone() };
        let pem = match file::load(&path, Kind::IidRsa, phrase)? {
            Some(pem) => pem,
            None => {
                not_made_yet(&self.home, &name)?;
                let mut rng = ChaCha20Rng::from_seed(random());
                let key = p2sn::PrivateKey::generate(IID_RSA_BITS, &mut rng).map_err(|_| torn())?;
                let pem = key.to_pem().map_err(|_| torn())?;
                create(&self.home, &name, Kind::IidRsa, pem.as_bytes(), phrase)?;
                Zeroizing::new(pem.as_bytes().to_vec())
            }
        };
        let pem = str::from_utf8(&pem).map_err(|_| torn())?;
        RsaKey::parse(pem).map_err(|_| torn())
    }
}

fn iid_rsa_file(url: &ServerUrl) -> String {
    let hash = Sha256::digest(url.canonical());
    let hash = hex::encode(&hash[..URL_HASH_BYTES]);
    format!("{IID_RSA_PREFIX}{hash}{KEY_SUFFIX}")
}

/// Returns the names of all key files that a home can have: the fixed ones, and those of the RSA
/// keys for servers that are there.
pub(super) fn key_files(home: &Path) -> Result<Vec<(String, Kind)>, KeyFileError> {
    let fixed = Kind::ALL.map(|kind| (kind.file_name().to_owned(), kind));
    let failed = |source| KeyFileError::Io {
        path: home.to_owned(),
        source,
    };
    let mut files = fixed.to_vec();
    for entry in fs::read_dir(home).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(name) = name.to_str()
            && name.starts_with(IID_RSA_PREFIX)
            && name.ends_with(KEY_SUFFIX)
        {
            files.push((name.to_owned(), Kind::IidRsa));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Passphrase, change_passphrase};

    fn of(url: &str) -> KeyOf {
        KeyOf::Url(url.parse().expect("a URL"))
    }

    #[test]
    fn each_server_has_a_key_of_its_own_and_it_stays_the_same() {
        let home = tempfile::tempdir().expect("a folder");
        let ring = KeyRing::new(home.path().to_owned(), None);
        let syft = |key_of: &KeyOf| *ring.syft_server(key_of).expect("a key").public();
        let ethereum = |key_of: &KeyOf| ring.ethereum(key_of).expect("a key").address();
        let (a, b) = (of("https://a.example"), of("https://b.example"));
        assert_eq!(syft(&a), syft(&of("https://A.example:443/")));
        assert_eq!(ethereum(&a), ethereum(&of("https://A.example:443/")));
        for (one, other) in [(&a, &b), (&a, &KeyOf::Shared)] {
            assert_ne!(syft(one), syft(other));
            assert_ne!(ethereum(one), ethereum(other));
        }
        let messaging = seed_of(home.path(), Kind::Messaging, None).expect("a seed");
        let messaging = syft::SigningKey::from_seed(&messaging);
        assert_eq!(syft(&KeyOf::Shared), *messaging.public());
    }

    #[test]
    fn another_passphrase_seals_the_rsa_keys_of_servers_as_well() {
        let home = tempfile::tempdir().expect("a folder");
        let KeyOf::Url(url) = of("ws://a.example:4615") else {
            panic!("a URL");
        };
        let path = home.path().join(iid_rsa_file(&url));
        file::create(&path, Kind::IidRsa, b"a key", None).expect("written");
        let passphrase = Passphrase::new("open sesame".to_owned().into());

        let changed = change_passphrase(home.path(), None, Some(&passphrase));

        assert_eq!(changed.expect("changed"), 1);
        assert!(file::load(&path, Kind::IidRsa, None).is_err());
        let loaded = file::load(&path, Kind::IidRsa, Some(&passphrase));
        assert_eq!(loaded.expect("sealed").as_deref(), Some(&b"a key".to_vec()));
    }
}
