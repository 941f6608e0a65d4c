//! The files that say who may sign in; read again when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    config::gateway::iid::Iid as Config,
    files,
    gateway::refresh::{Refresh, Waiting},
    proto::iid::lists::{Claims, Letters, Lists, Passwords, Skipped},
};

/// Where letters are that were taken back, in the home folder.
pub(super) const REVOKED: &str = "iid/revoked.txt";

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Longest list, in bytes: some 200,000 claims.
pub const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most folders of a claim repository.
const FOLDERS_MAX: usize = 100_000;

/// Lines of a list that are named in the log when they are not understood.
const SKIPPED_SHOWN: usize = 5;

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the list {path}")]
pub struct ListFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Where the lists are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) claims: PathBuf,
    rsa_keys: Option<PathBuf>,
    passwords: Option<PathBuf>,
    letters: Option<PathBuf>,
    revoked: PathBuf,
}

impl Files {
    pub(super) fn new(config: &Config, home: &Path) -> Self {
        let in_home = |path: &Option<PathBuf>| path.as_ref().map(|path| home.join(path));
        Self {
            claims: in_home(&config.claims).unwrap_or_else(|| home.join("iid/claims.txt")),
            rsa_keys: in_home(&config.rsa_keys),
            passwords: in_home(&config.password_sha256),
            letters: in_home(&config.letters),
            revoked: home.join(REVOKED),
        }
    }

    fn load(&self) -> Result<Lists, ListFileError> {
        let (mut claims, skipped) = if self.claims.is_dir() {
            read_folders(&self.claims)?
        } else {
            Claims::parse(&read_or_nothing(&self.claims)?)
        };
        tell(&self.claims, &skipped);
        if let Some(path) = &self.rsa_keys {
            let (further, skipped) = Claims::parse(&read(path)?);
            tell(path, &skipped);
            claims.merge(further);
        }
        let passwords = self.passwords.as_ref().map(|path| {
            let (passwords, skipped) = Passwords::parse(&read(path)?);
            tell(path, &skipped);
            Ok(passwords)
        });
        let letters = self.letters.as_ref().map(|path| {
            let (letters, skipped) = Letters::parse(&read(path)?);
            tell(path, &skipped);
            Ok(letters)
        });
        let (revoked, skipped) = Letters::parse(&read_or_nothing(&self.revoked)?);
        tell(&self.revoked, &skipped);
        Ok(Lists {
            claims,
            passwords: passwords.transpose()?,
            letters: letters.transpose()?,
            revoked,
        })
    }

    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let paths = [
            Some(&self.claims),
            self.rsa_keys.as_ref(),
            self.passwords.as_ref(),
            self.letters.as_ref(),
            Some(&self.revoked),
        ];
        let stamp = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        paths.into_iter().flatten().map(stamp).collect()
    }
}

fn read(path: &Path) -> Result<String, ListFileError> {
    files::read_bounded(path, LIST_BYTES_MAX).map_err(|source| ListFileError {
        path: path.to_owned(),
        source,
    })
}

/// A list that is not there yet is empty; it is never made with content.
fn read_or_nothing(path: &Path) -> Result<String, ListFileError> {
    match read(path) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Reads a claim repository: a folder for each index, in it a file for each address.
fn read_folders(root: &Path) -> Result<(Claims, Vec<Skipped>), ListFileError> {
    let failed = |source| ListFileError {
        path: root.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for folder in fs::read_dir(root).map_err(failed)?.take(FOLDERS_MAX) {
        let folder = folder.map_err(failed)?;
        if !folder.path().is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path()).map_err(failed)? {
            let file = file.map_err(failed)?.file_name();
            let index = folder.file_name().to_string_lossy().into_owned();
            names.push((index, file.to_string_lossy().into_owned()));
        }
    }
    let pairs = names.iter().map(|(index, file)| (&**index, &**file));
    Ok(Claims::from_folders(pairs))
}

fn tell(path: &Path, skipped: &[Skipped]) {
    for line in skipped.iter().take(SKIPPED_SHOWN) {
        tracing::warn!(path = %path.display(), line = line.line, why = %line.why, "line skipped");
    }
    if skipped.len() > SKIPPED_SHOWN {
        let more = skipped.len() - SKIPPED_SHOWN;
        tracing::warn!(path = %path.display(), more, "more lines skipped");
    }
}

/// The lists as they are now.
pub(super) struct CurrentLists {
    files: Files,
    current: Mutex<Arc<Lists>>,
    stamp: Mutex<Vec<Option<(SystemTime, u64)>>>,
}

impl CurrentLists {
    pub(super) fn load(files: Files) -> Result<Self, ListFileError> {
        let stamp = files.stamp();
        Ok(Self {
            current: Mutex::new(Arc::new(files.load()?)),
            stamp: Mutex::new(stamp),
            files,
        })
    }

    pub(super) fn get(&self) -> Arc<Lists> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Looks at the files on a thread of its own: a disk may be slow, and a list long.
    async fn off_the_loop<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> T {
        let files = self.files.clone();
        let looked = tokio::task::spawn_blocking(move || look(&files)).await;
        match looked {
            Ok(looked) => looked,
            // Ends only with a panic, or together with the node.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the files have changed and were read again. Lists that cannot be read change
    /// nothing. `refresh` has them looked at without waiting; returns those who asked for that.
    pub(super) async fn changed(&self, refresh: &Refresh) -> Option<Waiting> {
        loop {
            let waiting = tokio::time::timeout(LOOK_INTERVAL, refresh.asked())
                .await
                .ok();
            let stamp = self.off_the_loop(|files| files.stamp()).await;
            let known = {
                let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *known, stamp.clone())
            };
            if known == stamp && waiting.is_none() {
                continue;
            }
            match self.off_the_loop(|files| files.load()).await {
                Ok(lists) => {
                    let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(lists);
                    return waiting;
                }
                Err(error) => {
                    let error = crate::gateway::with_causes(&error);
                    tracing::warn!(%error, "kept the old lists");
                }
            }
        }
    }
}
