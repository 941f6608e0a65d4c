//! The key files in the home folder, readable by their owner only.
//!
//! | file | key | used for |
//! | --- | --- | --- |
//! | `node.key` | Ed25519 | the libp2p peer id; signs nothing else |
//! | `messaging.key` | Ed25519 | signs and opens direct messages; the keys for Syft servers are derived from it |
//! | `rsa.key` | RSA | P2SN |
//! | `mesh.key` | Ed25519 | says who is a member; only on nodes that may invite |
//! | `ethereum.key` | secp256k1 | the keys for APIntIO servers are derived from it; made when first needed |
//! | `iid-rsa-….key` | RSA | signs in to one APIntIO server; made when first needed |
//! | `iid-rsa.key` | RSA | signs in to the APIntIO server with `key_of = "shared"` |
//!
//! Each file is one line that says what it is and one line of base64. With a passphrase the second
//! line is sealed with AES-256-GCM under a key from Argon2id, with the first line as associated
//! data, so that no part of it can be changed.
//!
//! `keys.txt` lists the key files that were made here. One that is listed and missing is never made
//! again: the others know this node by its key.

mod file;
mod made;
mod server_keys;

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use libp2p_identity::Keypair;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use zeroize::Zeroizing;

pub(crate) use self::made::list_all;
pub use self::{
    file::{KeyFileError, Kind},
    made::{LIST_NAME, forget, made},
};
use crate::{
    files,
    proto::{
        mesh::certificate::{MeshId, MeshKey},
        p2sn, syft,
    },
    rng::random,
    state::io::KeyFile,
};

/// Opens the key files.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Shortest passphrase, in bytes.
    pub const BYTES_MIN: usize = 8;

    /// Takes a text.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Reads the first line of a file that its owner alone can read.
    ///
    /// # Errors
    /// Returns why it cannot be read, or that others can.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let text = file::read_private(path)?;
        Ok(Self(Zeroizing::new(
            text.lines().next().unwrap_or_default().to_owned(),
        )))
    }

    /// Says whether it is worth the work of deriving a key from it.
    #[must_use]
    pub fn is_long_enough(&self) -> bool {
        self.0.len() >= Self::BYTES_MIN
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The keys a node has from its first start on.
pub struct Identity {
    /// The libp2p key.
    pub node: Keypair,
    /// The messaging key.
    pub messaging: syft::SigningKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node.public().to_peer_id())
    }
}

impl Identity {
    /// Reads the two keys, and makes those that were never made.
    ///
    /// # Errors
    /// Returns what is wrong with the folder or with a file.
    pub fn load_or_create(
        home: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, KeyFileError> {
        prepare_home(home)?;
        Self::read(home, |kind| seed_of(home, kind, passphrase))
    }

    /// Reads the two keys of a node that has them.
    ///
    /// # Errors
    /// Returns what is wrong with the folder or with a file.
    pub fn load(home: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KeyFileError> {
        Self::read(home, |kind| existing_seed(home, kind, passphrase))
    }

    fn read(
        home: &Path,
        seed: impl Fn(Kind) -> Result<Zeroizing<[u8; 32]>, KeyFileError>,
    ) -> Result<Self, KeyFileError> {
        let node = Keypair::ed25519_from_bytes(*seed(Kind::Node)?);
        let node = node.map_err(|_| KeyFileError::Torn {
            path: home.join(Kind::Node.file_name()),
        })?;
        let messaging = syft::SigningKey::from_seed(&*seed(Kind::Messaging)?);
        Ok(Self { node, messaging })
    }
}

/// Creates the home folder, or refuses one that others can enter.
///
/// # Errors
/// Returns what is wrong with it.
pub fn prepare_home(home: &Path) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Io {
        path: home.to_owned(),
        source,
    };
    if !home.exists() {
        files::create_folder(home).map_err(failed)?;
    }
    let mode = fs::metadata(home).map_err(failed)?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(KeyFileError::Permissions {
            path: home.to_owned(),
            mode: mode & 0o777,
            wanted: 0o700,
        });
    }
    Ok(())
}

/// Reads the mesh key, if this node holds one.
///
/// # Errors
/// Returns what is wrong with the file.
pub fn load_mesh_key(
    home: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Option<MeshKey>, KeyFileError> {
    let seed = load_seed(home, Kind::Mesh, passphrase)?;
    Ok(seed.map(|seed| MeshKey::from_seed(&seed)))
}

/// Reads the mesh key, and makes one if there is none.
///
/// # Errors
/// Returns what is wrong with the folder or with the file.
pub fn load_or_create_mesh_key(
    home: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<MeshKey, KeyFileError> {
    Ok(MeshKey::from_seed(&*seed_of(home, Kind::Mesh, passphrase)?))
}

/// Puts the mesh key aside, because this node entered a mesh that another key rules.
///
/// # Errors
/// Returns why the file cannot be removed.
pub fn remove_mesh_key(home: &Path) -> Result<(), KeyFileError> {
    made::forget(home, Kind::Mesh.file_name())?;
    let path = home.join(Kind::Mesh.file_name());
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(KeyFileError::Io { path, source })
        }
        _ => Ok(()),
    }
}

/// The mesh key of a mesh that this node is about to be in.
const STAGED_MESH_KEY: &str = "mesh-next.key";

/// Says that the mesh key was exported, and of which mesh.
const EXPORTED: &str = "mesh-key.exported";

/// Longest such file, in bytes: a mesh and a line end.
const EXPORTED_BYTES_MAX: u64 = 256;

/// Makes what a power cut left of a change of meshes whole: a key that was put aside is the mesh
/// key if it is that of the mesh which this node is in, and rubbish if not.
///
/// # Errors
/// Returns what is wrong with a file.
pub fn settle_mesh_key(
    home: &Path,
    passphrase: Option<&Passphrase>,
    mesh: &MeshId,
) -> Result<(), KeyFileError> {
    let path = home.join(STAGED_MESH_KEY);
    let Some(bytes) = file::load(&path, Kind::Mesh, passphrase)? else {
        return Ok(());
    };
    if MeshKey::from_seed(&*seed(&bytes, &path)?).mesh() == *mesh {
        return adopt_mesh_key(home);
    }
    fs::remove_file(&path).map_err(|source| KeyFileError::Io { path, source })
}

/// Makes the key that was put aside the mesh key. Doing it twice is harmless.
fn adopt_mesh_key(home: &Path) -> Result<(), KeyFileError> {
    let (from, path) = (
        home.join(STAGED_MESH_KEY),
        home.join(Kind::Mesh.file_name()),
    );
    match files::rename(&from, &path) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(KeyFileError::Io { path, source }),
        Ok(()) => made::list(home, Kind::Mesh.file_name()),
    }
}

/// Notes, for good, that the mesh key was exported to a file.
///
/// # Errors
/// Returns why that cannot be written.
pub fn note_export(home: &Path, mesh: &MeshId) -> Result<(), KeyFileError> {
    let path = home.join(EXPORTED);
    let text = format!("{mesh}\n");
    files::replace(&path, text.as_bytes(), files::OWNER_ONLY)
        .map_err(|source| KeyFileError::Io { path, source })
}

/// Says whether the key of this mesh was exported here.
#[must_use]
pub fn is_exported(home: &Path, mesh: &MeshId) -> bool {
    let text = files::read_bounded(&home.join(EXPORTED), EXPORTED_BYTES_MAX);
    text.is_ok_and(|text| text.trim() == mesh.to_string())
}

/// Writes the mesh key to a file of its own, sealed with a passphrase: the backup, and the way to
/// make another node one that may invite.
///
/// # Errors
/// Returns why it cannot be written; an existing file is not overwritten.
pub fn export_mesh_key(
    home: &Path,
    passphrase: Option<&Passphrase>,
    to: &Path,
    seal: &Passphrase,
) -> Result<MeshKey, KeyFileError> {
    let seed = load_seed(home, Kind::Mesh, passphrase)?.ok_or_else(|| KeyFileError::Missing {
        path: home.join(Kind::Mesh.file_name()),
    })?;
    // Elsewhere it belongs to whoever exports it, whatever folder that is.
    let is_in_home = std::path::absolute(to).is_ok_and(|to| to.starts_with(home));
    if is_in_home {
        file::create(to, Kind::Mesh, &*seed, Some(seal))?;
    } else {
        file::export(to, Kind::Mesh, &*seed, seal)?;
    }
    let key = MeshKey::from_seed(&seed);
    note_export(home, &key.mesh())?;
    Ok(key)
}

/// Reads a mesh key that was exported, and keeps it in the home folder. Only the key of the expected
/// mesh is taken, if that is known.
///
/// # Errors
/// Returns what is wrong with the file; a mesh key that is there already is not overwritten.
pub fn import_mesh_key(
    home: &Path,
    passphrase: Option<&Passphrase>,
    from: &Path,
    seal: &Passphrase,
    expected: Option<MeshId>,
) -> Result<MeshKey, KeyFileError> {
    let bytes = file::load(from, Kind::Mesh, Some(seal))?.ok_or_else(|| KeyFileError::Missing {
        path: from.to_owned(),
    })?;
    let seed = seed(&bytes, from)?;
    let found = MeshKey::from_seed(&seed).mesh();
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(KeyFileError::OtherMesh {
            path: from.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        });
    }
    prepare_home(home)?;
    create(home, Kind::Mesh.file_name(), Kind::Mesh, &*seed, passphrase)?;
    Ok(MeshKey::from_seed(&seed))
}

/// Says whether the key files are sealed with a passphrase.
///
/// # Errors
/// Returns why the first of them cannot be read; on a first start there is none.
pub fn is_sealed(home: &Path) -> Result<bool, KeyFileError> {
    let path = home.join(Kind::Node.file_name());
    let text = file::read_private(&path)?;
    Ok(!text.lines().next().unwrap_or_default().ends_with(" plain"))
}

/// Says whether there is a file with the mesh key.
#[must_use]
pub fn has_mesh_key(home: &Path) -> bool {
    home.join(Kind::Mesh.file_name()).exists()
}

/// Reads the RSA key, if it was made already.
///
/// # Errors
/// Returns what is wrong with the file.
pub fn load_rsa(
    home: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Option<p2sn::PrivateKey>, KeyFileError> {
    let path = home.join(Kind::Rsa.file_name());
    let Some(pem) = file::load(&path, Kind::Rsa, passphrase)? else {
        return Ok(None);
    };
    rsa_of(&pem, &path).map(Some)
}

/// Says whether a key file is good, as far as it can be seen without its passphrase. Files that are
/// not key files of a node are passed over.
///
/// # Errors
/// Returns what is wrong with it.
pub fn check_key_file(path: &Path) -> Result<(), KeyFileError> {
    let is_named = |kind: &Kind| {
        path.file_name()
            .is_some_and(|name| name == kind.file_name())
    };
    let Some(kind) = Kind::ALL.into_iter().find(is_named) else {
        return Ok(());
    };
    let found = match file::load(path, kind, None) {
        Err(KeyFileError::NeedsPassphrase { .. }) => return Ok(()),
        found => found?,
    };
    let Some(found) = found else { return Ok(()) };
    match kind {
        Kind::Node | Kind::Messaging | Kind::Mesh => seed(&found, path).map(drop),
        Kind::Rsa => rsa_of(&found, path).map(drop),
        Kind::Ethereum | Kind::IidRsa => Ok(()),
    }
}

fn rsa_of(pem: &[u8], path: &Path) -> Result<p2sn::PrivateKey, KeyFileError> {
    let torn = || KeyFileError::Torn {
        path: path.to_owned(),
    };
    let pem = str::from_utf8(pem).map_err(|_| torn())?;
    p2sn::PrivateKey::from_pem(pem).map_err(|_| torn())
}

/// Makes the RSA key. Takes seconds, on a small machine many.
///
/// # Errors
/// Returns why it cannot be written.
pub fn create_rsa(
    home: &Path,
    passphrase: Option<&Passphrase>,
    bits: usize,
) -> Result<p2sn::PrivateKey, KeyFileError> {
    let path = home.join(Kind::Rsa.file_name());
    not_made_yet(home, Kind::Rsa.file_name())?;
    let mut rng = ChaCha20Rng::from_seed(random());
    let unusable = |_| KeyFileError::Torn { path: path.clone() };
    let key = p2sn::PrivateKey::generate(bits, &mut rng).map_err(unusable)?;
    let pem = key.to_pem().map_err(unusable)?;
    create(
        home,
        Kind::Rsa.file_name(),
        Kind::Rsa,
        pem.as_bytes(),
        passphrase,
    )?;
    Ok(key)
}

/// The keys with which this node is a client of older systems. They are made when they are first
/// asked for.
pub struct KeyRing {
    home: PathBuf,
    passphrase: Option<Passphrase>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing(..)")
    }
}

impl KeyRing {
    pub(crate) const fn new(home: PathBuf, passphrase: Option<Passphrase>) -> Self {
        Self { home, passphrase }
    }

    /// Returns the mesh key, if this node holds one, and whether it was ever exported.
    ///
    /// # Errors
    /// Returns what is wrong with the file.
    pub fn mesh(&self) -> Result<(Option<MeshKey>, bool), KeyFileError> {
        let key = load_mesh_key(&self.home, self.passphrase.as_ref())?;
        let exported = key
            .as_ref()
            .is_some_and(|key| is_exported(&self.home, &key.mesh()));
        Ok((key, exported))
    }

    /// Changes the file with the mesh key.
    ///
    /// # Errors
    /// Returns why it cannot be written; then it is as it was.
    pub(crate) fn change_mesh_key(&self, change: &KeyFile) -> Result<(), KeyFileError> {
        let write = |name: &str, key: &MeshKey| {
            let path = self.home.join(name);
            let phrase = self.passphrase.as_ref();
            file::replace(&path, Kind::Mesh, &*key.to_seed(), phrase)
        };
        match change {
            KeyFile::Keep(key) => {
                write(Kind::Mesh.file_name(), key)?;
                made::list(&self.home, Kind::Mesh.file_name())
            }
            KeyFile::Stage(key) => write(STAGED_MESH_KEY, key),
            KeyFile::Adopt => adopt_mesh_key(&self.home),
        }
    }
}

/// Seals every key file with another passphrase, or with none.
///
/// Each file is replaced as a whole. If the power goes in between, some files have the old and
/// some the new passphrase: run it again with the same two, and it goes on.
///
/// # Errors
/// Returns what is wrong with a file; files before it are changed already.
pub fn change_passphrase(
    home: &Path,
    old: Option<&Passphrase>,
    new: Option<&Passphrase>,
) -> Result<usize, KeyFileError> {
    let mut changed = 0;
    for (name, kind) in server_keys::key_files(home)? {
        let path = home.join(name);
        let loaded = match file::load(&path, kind, old) {
            Err(KeyFileError::WrongPassphrase { .. } | KeyFileError::NeedsPassphrase { .. }) => {
                file::load(&path, kind, new)?
            }
            loaded => loaded?,
        };
        if let Some(secret) = loaded {
            file::replace(&path, kind, &secret, new)?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn load_seed(
    home: &Path,
    kind: Kind,
    passphrase: Option<&Passphrase>,
) -> Result<Option<Zeroizing<[u8; 32]>>, KeyFileError> {
    let path = home.join(kind.file_name());
    file::load(&path, kind, passphrase)?
        .map(|bytes| seed(&bytes, &path))
        .transpose()
}

fn seed(bytes: &[u8], path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let torn = |_| KeyFileError::Torn {
        path: path.to_owned(),
    };
    bytes.try_into().map(Zeroizing::new).map_err(torn)
}

/// Reads a seed, or makes it. If two processes make it at once, both get the one that was first.
fn seed_of(
    home: &Path,
    kind: Kind,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    if let Some(seed) = load_seed(home, kind, passphrase)? {
        return Ok(seed);
    }
    if made::is_listed(home, kind.file_name())? {
        // Another process may have made it between the two looks.
        return existing_seed(home, kind, passphrase);
    }
    let seed = Zeroizing::new(random());
    match create(home, kind.file_name(), kind, &*seed, passphrase) {
        Ok(()) => Ok(seed),
        Err(KeyFileError::Exists { .. }) => existing_seed(home, kind, passphrase),
        Err(error) => Err(error),
    }
}

fn existing_seed(
    home: &Path,
    kind: Kind,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let lost = || KeyFileError::Lost {
        path: home.join(kind.file_name()),
    };
    load_seed(home, kind, passphrase)?.ok_or_else(lost)
}

/// Writes a key that was never made here, and lists it.
fn create(
    home: &Path,
    file: &str,
    kind: Kind,
    secret: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    file::create(&home.join(file), kind, secret, passphrase)?;
    made::list(home, file)
}

/// Refuses to make a key whose file is missing although it was made once.
fn not_made_yet(home: &Path, file: &str) -> Result<(), KeyFileError> {
    if made::is_listed(home, file)? {
        let path = home.join(file);
        return Err(KeyFileError::Lost { path });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
