//! Tokens: JSON Web Tokens (HS256) with a secret of this node that outlives restarts.
//!
//! No old client ever logs in again by itself, so tokens stay good over restarts, and for `/ws`
//! also for a while after their end (`proto-specs/syft.md`, section 9). Whether a token was revoked is
//! in `revoked`; whether its user has another key by now is known to the state.

use std::{io, path::Path, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use zeroize::Zeroizing;

use crate::{
    files,
    proto::syft::{
        PublicKey,
        http::{Claims, key_name},
    },
    rng::random,
};

/// Bytes of the secret: as many as HS256's hash has.
const SECRET_BYTES: usize = 32;

/// Longest file with the secret, in bytes: its digits, and line ends of an editor.
const SECRET_FILE_BYTES_MAX: u64 = 1024;

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 2048;

/// Makes tokens and reads them.
pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    lifetime: Duration,
    grace: Duration,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// Not one that this node made.
    #[error("token validation failed: signature is invalid")]
    Foreign,
    /// Its time is over.
    #[error("token validation failed: token is expired")]
    Expired,
}

impl Tokens {
    /// Reads the secret, or makes it.
    pub(super) fn load(path: &Path, lifetime: Duration, grace: Duration) -> io::Result<Self> {
        let secret = read_or_make(path)?;
        Ok(Self {
            encoding: EncodingKey::from_secret(&secret[..]),
            decoding: DecodingKey::from_secret(&secret[..]),
            lifetime,
            grace,
        })
    }

    /// Makes a token for a name and the key that logged in.
    pub(super) fn issue(&self, name: &str, key: &PublicKey, unix_ms: u64) -> Option<String> {
        let claims = Claims {
            user_id: name.to_owned(),
            exp: unix_ms / 1000 + self.lifetime.as_secs(),
            jti: hex::encode(random::<16>()),
            key: key_name(key),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).ok()
    }

    /// Reads a token, and says whether its time is not over yet.
    pub(super) fn read(&self, token: &str, unix_ms: u64) -> Result<Claims, TokenError> {
        let claims = self.decode(token)?;
        if claims.exp <= unix_ms / 1000 {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// Reads a token as `/ws` does: some time after its end it is still good.
    pub(super) fn read_with_grace(&self, token: &str, unix_ms: u64) -> Result<Claims, TokenError> {
        let claims = self.decode(token)?;
        if claims.exp.saturating_add(self.grace.as_secs()) <= unix_ms / 1000 {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// Returns when a token is good for nothing any more, Unix ms.
    pub(super) const fn end_ms(&self, claims: &Claims) -> u64 {
        let end = claims.exp.saturating_add(self.grace.as_secs());
        end.saturating_mul(1000)
    }

    fn decode(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Foreign);
        }
        let mut rules = Validation::new(Algorithm::HS256);
        // The time is judged above, in two ways.
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        let read = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules);
        read.map(|read| read.claims)
            .map_err(|_| TokenError::Foreign)
    }
}

fn read_or_make(path: &Path) -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let make = || Zeroizing::new(hex::encode(*Zeroizing::new(random::<SECRET_BYTES>())));
    let text = files::read_or_create(path, SECRET_FILE_BYTES_MAX, make)?;
    let bytes = hex::decode(text.trim()).map(Zeroizing::new);
    let secret = bytes
        .ok()
        .and_then(|bytes| bytes.as_slice().try_into().ok());
    let damaged = "it is not 64 hexadecimal digits";
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, damaged);
    secret.map(Zeroizing::new).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::syft::SigningKey;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW_MS: u64 = 1_800_000_000_000;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn tokens(folder: &Path) -> Tokens {
        Tokens::load(&folder.join("secret"), DAY, 30 * DAY).expect("a secret")
    }

    #[test]
    fn a_token_is_good_after_a_restart_and_for_another_node_it_is_not() {
        let home = tempfile::tempdir().expect("a folder");
        let token = tokens(home.path()).issue("alice", key().public(), NOW_MS);
        let token = token.expect("a token");

        let again = tokens(home.path()).read(&token, NOW_MS).expect("good");
        assert_eq!(again.user_id, "alice");
        let other = tempfile::tempdir().expect("a folder");
        let refused = tokens(other.path()).read(&token, NOW_MS);
        assert_eq!(refused, Err(TokenError::Foreign));
    }

    #[test]
    fn a_token_ends_after_a_day_and_for_ws_thirty_days_later() {
        let home = tempfile::tempdir().expect("a folder");
        let tokens = tokens(home.path());
        let token = tokens.issue("alice", key().public(), NOW_MS).expect("one");
        let at = |days: u64| NOW_MS + days * 86_400_000;

        assert!(tokens.read(&token, at(1) - 1000).is_ok());
        assert_eq!(tokens.read(&token, at(1)), Err(TokenError::Expired));
        assert!(tokens.read_with_grace(&token, at(31) - 1000).is_ok());
        let late = tokens.read_with_grace(&token, at(31));
        assert_eq!(late, Err(TokenError::Expired));
    }

    #[test]
    fn a_changed_token_and_one_without_a_signature_are_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let tokens = tokens(home.path());
        let token = tokens.issue("alice", key().public(), NOW_MS).expect("one");
        let parts: Vec<&str> = token.split('.').collect();
        // {"alg":"none","typ":"JWT"}
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
        let other = tokens.issue("bob", key().public(), NOW_MS).expect("one");
        let theirs = other.split('.').nth(1).expect("three parts");
        let mixed = format!("{}.{theirs}.{}", parts[0], parts[2]);
        for bad in [none, mixed, String::new(), "x".repeat(5000)] {
            assert_eq!(tokens.read(&bad, NOW_MS), Err(TokenError::Foreign), "{bad}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("secret");
        drop(tokens(home.path()));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(Tokens::load(&path, DAY, DAY).is_err());
    }
}
