//! The RSA key of a node that starts: read, or made, however often that has to be tried.

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    identity::{self, KeyFileError, Passphrase},
    proto::p2sn::PrivateKey,
};

/// The wait after the first attempt that failed; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(5);

/// No wait is longer. An attempt to make a key takes some seconds of one core.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// Loads the RSA key or makes it, on a thread of its own: on a small machine that takes a while. It
/// is tried again until it goes well, or nobody waits for it any more.
pub(crate) fn prepare(
    home: &Path,
    passphrase: Option<Passphrase>,
    bits: usize,
) -> oneshot::Receiver<PrivateKey> {
    let (mut sender, receiver) = oneshot::channel();
    let home = home.to_owned();
    tokio::spawn(async move {
        let key = tokio::select! {
            key = until_ready(home, passphrase, bits) => key,
            () = sender.closed() => return,
        };
        // A node that has stopped meanwhile needs no key.
        drop(sender.send(key));
    });
    receiver
}

async fn until_ready(home: PathBuf, passphrase: Option<Passphrase>, bits: usize) -> PrivateKey {
    let mut wait = WAIT_FIRST;
    let mut last = None;
    loop {
        let (folder, phrase) = (home.clone(), passphrase.clone());
        let tried = tokio::task::spawn_blocking(move || attempt(&folder, phrase.as_ref(), bits));
        let problem = match tried.await {
            Ok(Ok(key)) => return key,
            Ok(Err(error)) => problem(&error),
            Err(error) => format!("could not make the RSA key: {error}"),
        };
        // The same again is not worth a line.
        if last.as_ref() != Some(&problem) {
            tracing::error!(
                "{problem}; P2SN is off until that is mended, and it is tried again (`pimesh doctor` looks at the disk and the key files)"
            );
        }
        last = Some(problem);
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(WAIT_MAX);
    }
}

fn attempt(
    home: &Path,
    passphrase: Option<&Passphrase>,
    bits: usize,
) -> Result<PrivateKey, KeyFileError> {
    match identity::load_rsa(home, passphrase)? {
        Some(key) => Ok(key),
        None => identity::create_rsa(home, passphrase, bits),
    }
}

/// Says what could not be done, and why, to the last cause.
fn problem(error: &KeyFileError) -> String {
    let mut text = match error {
        KeyFileError::Io { .. } => format!("could not read or make the RSA key: {error}"),
        _ => format!("the RSA key is of no use: {error}"),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_cause() {
        let full = KeyFileError::Io {
            path: "rsa.key".into(),
            source: std::io::Error::other("no space left"),
        };
        let torn = KeyFileError::Torn {
            path: "rsa.key".into(),
        };

        let why = "could not read or make the RSA key: could not use rsa.key: no space left";
        assert_eq!(problem(&full), why);
        let why = "the RSA key is of no use: rsa.key is damaged; restore it from a backup";
        assert_eq!(problem(&torn), why);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_could_not_be_had_is_tried_again_until_it_can() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("rsa.key");
        // A folder in its place: not even root can read or write a key there.
        std::fs::create_dir(&path).expect("made");
        let key = prepare(home.path(), None, 2048);
        let mended = async {
            tokio::time::sleep(WAIT_FIRST * 2).await;
            std::fs::remove_dir(&path).expect("removed");
        };

        let (key, ()) = tokio::join!(tokio::time::timeout(WAIT_MAX * 2, key), mended);

        assert!(matches!(key, Ok(Ok(_))), "tried once only");
        assert!(path.is_file());
    }
}
