//! One key file: its two lines, its permissions, and how it is written.

use std::{
    fs::{File, Metadata},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::Passphrase;
use crate::{files, rng::random};

/// Longest key file, in bytes: the PEM of a 4,096-bit key, sealed and in base64, has about 4,400.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The first word of every key file.
const MAGIC: &str = "pimesh-key";
const VERSION: &str = "v1";

/// Argon2id with 64 MiB and three passes (RFC 9106, section 4, second recommendation): about a
/// second on a Pi 3.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// What a key file may ask for at most, so that a changed file cannot exhaust the machine.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 10;

const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// Which key a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The libp2p key.
    Node,
    /// The messaging key.
    Messaging,
    /// The RSA key.
    Rsa,
    /// The mesh key.
    Mesh,
    /// The Ethereum key with which this node signs in to APIntIO servers.
    Ethereum,
    /// The RSA key for the same.
    IidRsa,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::Messaging,
        Self::Rsa,
        Self::Mesh,
        Self::Ethereum,
        Self::IidRsa,
    ];

    /// Returns the word in the file's first line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Messaging => "messaging",
            Self::Rsa => "rsa",
            Self::Mesh => "mesh",
            Self::Ethereum => "ethereum",
            Self::IidRsa => "iid-rsa",
        }
    }

    /// Returns the name of the file in the home folder.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Node => "node.key",
            Self::Messaging => "messaging.key",
            Self::Rsa => "rsa.key",
            Self::Mesh => "mesh.key",
            Self::Ethereum => "ethereum.key",
            Self::IidRsa => "iid-rsa.key",
        }
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system failed.
    #[error("could not use {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read or change it.
    #[error(
        "{path} has permissions {mode:o}: others could use it; `chmod {wanted:o} {path}` mends that"
    )]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// It is the key of another mesh.
    #[error("{path} has the key of mesh {found}, and this node is in mesh {expected}")]
    OtherMesh {
        /// Which file.
        path: PathBuf,
        /// The mesh of its key.
        found: String,
        /// The mesh of the node.
        expected: String,
    },
    /// It is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// It is not there.
    #[error("there is no {path}")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// It was made once, and is not there any more.
    #[error("{path} is missing, and the others know this node by it")]
    Lost {
        /// Which file.
        path: PathBuf,
    },
    /// It is damaged.
    #[error("{path} is damaged; restore it from a backup")]
    Torn {
        /// Which file.
        path: PathBuf,
    },
    /// It holds another key.
    #[error("{path} is not a {wanted} key file")]
    OtherKind {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A newer program wrote it.
    #[error("{path} was written by a newer pimesh")]
    Newer {
        /// Which file.
        path: PathBuf,
    },
    /// It is sealed, and no passphrase was given.
    #[error(
        "{path} is sealed with a passphrase; set `identity.passphrase_file`, or run on a terminal"
    )]
    NeedsPassphrase {
        /// Which file.
        path: PathBuf,
    },
    /// The passphrase is wrong, or the file was changed. Nothing says which.
    #[error("{path} does not open with this passphrase")]
    WrongPassphrase {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads a key, or `None` if there is no file.
pub(super) fn load(
    path: &Path,
    kind: Kind,
    passphrase: Option<&Passphrase>,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
    match read_private(path) {
        Err(KeyFileError::Missing { .. }) => Ok(None),
        text => decode(&text?, path, kind, passphrase).map(Some),
    }
}

/// Writes a key to a file in the home folder that is not there yet.
pub(super) fn create(
    path: &Path,
    kind: Kind,
    secret: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    let text = encode(kind, secret, passphrase);
    files::create(path, text.as_bytes()).map_err(not_created(path))
}

/// Writes a key to a file anywhere that is not there yet.
pub(super) fn export(
    path: &Path,
    kind: Kind,
    secret: &[u8],
    seal: &Passphrase,
) -> Result<(), KeyFileError> {
    let text = encode(kind, secret, Some(seal));
    files::create_own(path, text.as_bytes()).map_err(not_created(path))
}

fn not_created(path: &Path) -> impl Fn(std::io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.clone() },
        _ => io(&path)(source),
    }
}

/// Writes a key in the place of the one that is there.
pub(super) fn replace(
    path: &Path,
    kind: Kind,
    secret: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    let text = encode(kind, secret, passphrase);
    files::replace(path, text.as_bytes(), files::OWNER_ONLY).map_err(io(path))
}

/// Returns the text of a file that its owner alone can read or change.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let (file, found): (File, Metadata) =
        files::open_regular(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => KeyFileError::Missing {
                path: path.to_owned(),
            },
            _ => io(path)(source),
        })?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions {
            path: path.to_owned(),
            mode,
            wanted: 0o600,
        });
    }
    let text = files::read_opened(file, FILE_BYTES_MAX).map_err(|source| match source.kind() {
        // No text, or too long for a key.
        std::io::ErrorKind::InvalidData => KeyFileError::Torn {
            path: path.to_owned(),
        },
        _ => io(path)(source),
    })?;
    Ok(Zeroizing::new(text))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io {
        path: path.clone(),
        source,
    }
}

fn encode(kind: Kind, secret: &[u8], passphrase: Option<&Passphrase>) -> Zeroizing<String> {
    let name = kind.name();
    let Some(passphrase) = passphrase else {
        let body = Zeroizing::new(STANDARD.encode(secret));
        return Zeroizing::new(format!("{MAGIC} {VERSION} {name} plain\n{}\n", *body));
    };
    let (salt, nonce) = (random::<SALT_BYTES>(), random::<NONCE_BYTES>());
    let head = format!(
        "{MAGIC} {VERSION} {name} argon2id+aes-256-gcm m={MEMORY_KIB},t={PASSES},p={LANES} {} {}",
        STANDARD.encode(salt),
        STANDARD.encode(nonce)
    );
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).expect("fixed and legal");
    let key = derive(passphrase, &salt, params);
    let sealed = Aes256Gcm::new((&*key).into())
        .encrypt(
            (&nonce).into(),
            Payload {
                msg: secret,
                aad: head.as_bytes(),
            },
        )
        .expect("AES-GCM takes a few kilobytes");
    Zeroizing::new(format!("{head}\n{}\n", STANDARD.encode(sealed)))
}

fn decode(
    text: &str,
    path: &Path,
    kind: Kind,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let path = path.to_owned();
    let torn = || KeyFileError::Torn { path: path.clone() };
    let (head, body) = text.split_once('\n').ok_or_else(torn)?;
    let mut words = head.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(torn());
    }
    if words.next() != Some(VERSION) {
        return Err(KeyFileError::Newer { path });
    }
    if words.next() != Some(kind.name()) {
        return Err(KeyFileError::OtherKind {
            path,
            wanted: kind.name(),
        });
    }
    let body = body.strip_suffix('\n').ok_or_else(torn)?;
    let body = Zeroizing::new(STANDARD.decode(body).map_err(|_| torn())?);
    let rest: Vec<&str> = words.collect();
    match rest.as_slice() {
        ["plain"] => Ok(body),
        ["argon2id+aes-256-gcm", params, salt, nonce] => {
            let params = read_params(params).ok_or_else(torn)?;
            let salt: [u8; SALT_BYTES] = exact(salt).ok_or_else(torn)?;
            let nonce: [u8; NONCE_BYTES] = exact(nonce).ok_or_else(torn)?;
            let Some(passphrase) = passphrase else {
                return Err(KeyFileError::NeedsPassphrase { path });
            };
            let key = derive(passphrase, &salt, params);
            Aes256Gcm::new((&*key).into())
                .decrypt(
                    (&nonce).into(),
                    Payload {
                        msg: &body,
                        aad: head.as_bytes(),
                    },
                )
                .map(Zeroizing::new)
                .map_err(|_| KeyFileError::WrongPassphrase { path })
        }
        _ => Err(torn()),
    }
}

fn exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn read_params(text: &str) -> Option<Params> {
    let mut numbers = text.split(',').zip(["m=", "t=", "p="]).map(|(part, name)| {
        part.strip_prefix(name)
            .and_then(|number| number.parse::<u32>().ok())
    });
    let (memory, passes, lanes) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if memory > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes != LANES {
        return None;
    }
    Params::new(memory, passes, lanes, Some(32)).ok()
}

fn derive(passphrase: &Passphrase, salt: &[u8], params: Params) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .expect("salt and key have legal lengths");
    key
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzz::{bytes_of, fuzz};

    /// What a sealed file of the tests asks for, so that opening it costs nothing.
    const CHEAP: &str = "m=8,t=1,p=1";

    fn sealed(secret: &[u8], passphrase: &Passphrase) -> String {
        let (salt, nonce) = ([1; SALT_BYTES], [2; NONCE_BYTES]);
        let head = format!(
            "pimesh-key v1 mesh argon2id+aes-256-gcm {CHEAP} {} {}",
            STANDARD.encode(salt),
            STANDARD.encode(nonce)
        );
        let key = derive(passphrase, &salt, read_params(CHEAP).expect("legal"));
        let payload = Payload {
            msg: secret,
            aad: head.as_bytes(),
        };
        let sealed = Aes256Gcm::new((&*key).into())
            .encrypt((&nonce).into(), payload)
            .expect("short");
        format!("{head}\n{}\n", STANDARD.encode(sealed))
    }

    #[test]
    fn a_key_file_is_read_as_it_was_written_or_not_at_all() {
        let path = Path::new("mesh.key");
        let secret = [9; 32];
        let passphrase = Passphrase::new("open sesame".to_owned().into());
        let corpus = bytes_of([
            sealed(&secret, &passphrase),
            encode(Kind::Mesh, &secret, None).to_string(),
            encode(Kind::Rsa, &secret, None).to_string(),
            "pimesh-key v2 mesh plain\n\n".to_owned(),
        ]);
        fuzz(bolero::check!(), &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let passphrase = text.contains(CHEAP).then_some(&passphrase);
            let Ok(read) = decode(&text, path, Kind::Mesh, passphrase) else {
                return false;
            };
            if text.contains("plain\n") {
                assert_eq!(*encode(Kind::Mesh, &read, None), *text);
            } else {
                assert_eq!(**read, secret);
            }
            true
        });
    }

    #[test]
    fn what_a_key_file_asks_for_is_bounded() {
        let corpus = bytes_of([CHEAP, "m=262144,t=10,p=1", "m=262145,t=1,p=1", "m=8,t=1"]);
        fuzz(bolero::check!(), &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let Some(params) = read_params(&text) else {
                return false;
            };
            assert!((8..=262_144).contains(&params.m_cost()));
            assert!((1..=10).contains(&params.t_cost()));
            assert_eq!(params.p_cost(), 1);
            true
        });
    }
}
