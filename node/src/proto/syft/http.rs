//! The HTTP bodies of a Syft server, its tokens and its challenges (`proto-specs/syft.md`,
//! section 5). Which path takes which is the gateway's matter.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    identity::{PublicKey, SigningKey},
    user::{TITLE_BYTES_MAX, UserId},
};

/// Longest body of a request that is no upload of descriptions, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a challenge may be answered.
pub const CHALLENGE_TIME: Duration = Duration::from_secs(60);

/// Challenges that one user may have open: a few devices that log in at once.
const CHALLENGES_PER_USER_MAX: usize = 8;

/// Challenges that are open in all; anybody may ask for them.
const CHALLENGES_MAX: usize = 4096;

/// The body of `POST /auth/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The wished user id.
    pub user_id: String,
    /// A name for people.
    #[serde(default)]
    pub username: String,
    /// Base64 of an Ed25519 public key.
    pub public_key: String,
}

/// A registration that may be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The user id.
    pub id: UserId,
    /// A name for people.
    pub title: String,
    /// The key that signs and opens his messages.
    pub key: PublicKey,
}

/// Why a registration is refused for what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The id.
    #[error(transparent)]
    Id(#[from] super::user::UserIdError),
    /// The key.
    #[error(transparent)]
    Key(#[from] super::identity::KeyError),
    /// The name for people.
    #[error("a user name has at most {TITLE_BYTES_MAX} bytes, got {0}")]
    Title(usize),
    /// Clients write the id into URLs as it is: `a?b` would be given the key of `a`.
    #[error("a user id has no `?`, `#`, `%` and `\\`, and is not `.` or `..`")]
    Url,
}

/// Names that mean everybody to `pimesh send`, beside those that no user has at all.
const RESERVED: [&str; 1] = ["all"];

impl Registration {
    /// Takes what it says.
    ///
    /// # Errors
    /// Returns what cannot be registered.
    pub fn check(self) -> Result<NewUser, RegistrationError> {
        if self.username.len() > TITLE_BYTES_MAX {
            return Err(RegistrationError::Title(self.username.len()));
        }
        if self.user_id.contains(['?', '#', '%', '\\']) || [".", ".."].contains(&&*self.user_id) {
            return Err(RegistrationError::Url);
        }
        let id: UserId = self.user_id.parse()?;
        id.check_new()?;
        // Users who have such a name from before keep it.
        if RESERVED
            .iter()
            .any(|word| self.user_id.eq_ignore_ascii_case(word))
        {
            return Err(super::UserIdError::Reserved(self.user_id).into());
        }
        Ok(NewUser {
            id,
            title: self.username,
            key: PublicKey::from_base64(&self.public_key)?,
        })
    }
}

/// The body of `POST /auth/login`; with a signature it is the second step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Who wants to log in.
    pub user_id: String,
    /// Base64 of the signature over the challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// The answer to the first step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeBody {
    /// Base64 of 32 random bytes.
    pub challenge: String,
}

/// The answer to the second step.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBody {
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for TokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenBody(..)")
    }
}

/// The answer to `GET /auth/users/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserBody {
    /// The user id.
    pub user_id: String,
    /// His name for people.
    #[serde(default)]
    pub username: String,
    /// Base64 of his public key.
    pub public_key: String,
}

/// The answer to `GET /active-users`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveBody {
    /// Who is here.
    pub online: Vec<String>,
    /// Who is not.
    pub offline: Vec<String>,
}

/// The claims of a token. Clients never look at them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user id that logged in, as it was written: its bearer speaks under this name.
    pub user_id: String,
    /// When it ends, in Unix seconds.
    pub exp: u64,
    /// Names the token, so that it can be revoked: hexadecimal of 16 random bytes.
    pub jti: String,
    /// Names the key that logged in; a token dies with it.
    pub key: String,
}

impl Claims {
    /// Returns the number by which the token is revoked, if it is one of ours.
    #[must_use]
    pub fn id(&self) -> Option<TokenId> {
        let bytes = hex::decode(&self.jti).ok()?;
        bytes.try_into().ok().map(TokenId)
    }
}

/// Names a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 16]);

/// Returns the short name of a key in tokens.
#[must_use]
pub fn key_name(key: &PublicKey) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..8])
}

/// A text that a client signs to prove who it is. It is used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    bytes: [u8; 32],
    until: Duration,
}

impl Challenge {
    /// Returns the text that is sent.
    #[must_use]
    pub fn text(bytes: &[u8; 32]) -> String {
        STANDARD.encode(bytes)
    }

    /// Says whether a signature answers it: over the text, as the Syft clients do, or over the
    /// bytes, as those of Synaptic do.
    fn is_answered(&self, key: &PublicKey, signature: &[u8; 64]) -> bool {
        let text = Self::text(&self.bytes);
        [text.as_bytes(), &self.bytes]
            .iter()
            .any(|signed| key.verify(signed, signature).is_ok())
    }
}

/// The challenges that are open.
#[derive(Debug, Default)]
pub struct Challenges {
    open: BTreeMap<UserId, Vec<Challenge>>,
    count: usize,
}

/// How an answer to a challenge was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Right; the challenge is used up.
    Right,
    /// To none of the open challenges, which are used up all the same.
    Wrong,
    /// No challenge is open.
    NoChallenge,
}

impl Challenges {
    /// Opens a challenge. At the limit for one user his oldest goes; at the limit for all, nothing
    /// is opened.
    pub fn open(&mut self, user: &UserId, bytes: [u8; 32], now: Duration) -> Option<String> {
        if self.count >= CHALLENGES_MAX {
            self.forget_old(now);
        }
        if self.count >= CHALLENGES_MAX {
            return None;
        }
        let of_user = self.open.entry(user.clone()).or_default();
        if of_user.len() >= CHALLENGES_PER_USER_MAX {
            of_user.remove(0);
            self.count -= 1;
        }
        of_user.push(Challenge {
            bytes,
            until: now + CHALLENGE_TIME,
        });
        self.count += 1;
        Some(Challenge::text(&bytes))
    }

    /// Takes an answer. The challenge that it answers is used up; a wrong answer uses up the
    /// oldest, so that nobody tries signature after signature.
    pub fn answer(
        &mut self,
        user: &UserId,
        key: &PublicKey,
        signature: &[u8; 64],
        now: Duration,
    ) -> Answered {
        let Some(of_user) = self.open.get_mut(user) else {
            return Answered::NoChallenge;
        };
        let before = of_user.len();
        of_user.retain(|challenge| challenge.until > now);
        let answered = match of_user.iter().position(|c| c.is_answered(key, signature)) {
            Some(at) => {
                of_user.remove(at);
                Answered::Right
            }
            None if of_user.is_empty() => Answered::NoChallenge,
            None => {
                of_user.remove(0);
                Answered::Wrong
            }
        };
        self.count -= before - of_user.len();
        if of_user.is_empty() {
            self.open.remove(user);
        }
        answered
    }

    fn forget_old(&mut self, now: Duration) {
        self.open.retain(|_, of_user| {
            of_user.retain(|challenge| challenge.until > now);
            !of_user.is_empty()
        });
        self.count = self.open.values().map(Vec::len).sum();
    }
}

/// A server asked for a signature over something that is no challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's challenge is not base64 of 32 bytes; signing it might sign a message")]
pub struct NoChallenge;

/// Answers the challenge of a server. A server may send any text, for example that of a message;
/// only base64 of exactly 32 bytes is signed.
///
/// # Errors
/// Returns [`NoChallenge`] for any other text.
pub fn answer_challenge(text: &str, key: &SigningKey) -> Result<String, NoChallenge> {
    let bytes = STANDARD.decode(text).map_err(|_| NoChallenge)?;
    if bytes.len() != 32 {
        return Err(NoChallenge);
    }
    Ok(STANDARD.encode(key.sign(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn user() -> UserId {
        "alice".parse().expect("an id")
    }

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn signed(text: &str) -> [u8; 64] {
        key().sign(text.as_bytes())
    }

    #[test]
    fn a_challenge_is_answered_once() {
        let mut challenges = Challenges::default();
        let text = challenges.open(&user(), [1; 32], NOW).expect("room");
        let mut answer = || challenges.answer(&user(), key().public(), &signed(&text), NOW);

        assert_eq!(answer(), Answered::Right);
        assert_eq!(answer(), Answered::NoChallenge);
    }

    #[test]
    fn the_signature_may_be_over_the_text_or_over_the_bytes() {
        let mut challenges = Challenges::default();
        challenges.open(&user(), [1; 32], NOW);
        let over_bytes = key().sign(&[1; 32]);
        let answered = challenges.answer(&user(), key().public(), &over_bytes, NOW);
        assert_eq!(answered, Answered::Right);
    }

    #[test]
    fn a_challenge_ends_after_its_time() {
        let mut challenges = Challenges::default();
        let text = challenges.open(&user(), [1; 32], NOW).expect("room");
        let late = NOW + CHALLENGE_TIME;
        let answered = challenges.answer(&user(), key().public(), &signed(&text), late);
        assert_eq!(answered, Answered::NoChallenge);
    }

    #[test]
    fn a_second_device_does_not_disturb_the_first_and_a_wrong_answer_uses_one_up() {
        let mut challenges = Challenges::default();
        let first = challenges.open(&user(), [1; 32], NOW).expect("room");
        let second = challenges.open(&user(), [2; 32], NOW).expect("room");
        let mut answer =
            |text: &str| challenges.answer(&user(), key().public(), &signed(text), NOW);

        assert_eq!(answer(&second), Answered::Right);
        assert_eq!(answer("something else"), Answered::Wrong);
        assert_eq!(answer(&first), Answered::NoChallenge);
    }

    #[test]
    fn challenges_are_bounded_for_a_user_and_in_all() {
        let mut challenges = Challenges::default();
        for number in 0..20 {
            challenges.open(&user(), [number; 32], NOW);
        }
        assert_eq!(challenges.count, CHALLENGES_PER_USER_MAX);
        for number in 0..5000 {
            let id = format!("user-{number}").parse().expect("an id");
            challenges.open(&id, [1; 32], NOW);
        }
        assert_eq!(challenges.count, CHALLENGES_MAX);
        let late = NOW + CHALLENGE_TIME;
        assert!(challenges.open(&user(), [1; 32], late).is_some());
        assert_eq!(challenges.count, 1);
    }

    #[test]
    fn a_node_signs_no_challenge_that_might_be_something_else() {
        let message = "alice|broadcast|1747396800000000000|hello";
        let too_short = STANDARD.encode([1; 31]);
        let too_long = STANDARD.encode([1; 33]);
        for text in [message, &too_short, &too_long, "", "AAAA"] {
            assert_eq!(answer_challenge(text, &key()), Err(NoChallenge), "{text}");
        }
        let text = Challenge::text(&[1; 32]);
        let answer = STANDARD.encode(signed(&text));
        assert_eq!(answer_challenge(&text, &key()), Ok(answer));
    }

    #[test]
    fn an_id_that_a_client_could_not_ask_for_is_not_registered() {
        let hidden = Registration {
            user_id: "al\u{200b}ice".to_owned(),
            username: String::new(),
            public_key: key().public().to_base64(),
        };
        assert!(matches!(hidden.check(), Err(RegistrationError::Id(_))));
        for id in ["a?b", "a#b", "a%41", "a\\b", ".", ".."] {
            let registration = Registration {
                user_id: id.to_owned(),
                username: String::new(),
                public_key: key().public().to_base64(),
            };
            assert_eq!(registration.check(), Err(RegistrationError::Url), "{id}");
        }
    }

    #[test]
    fn a_registration_is_taken_apart_once() {
        let registration = |id: &str, key: &str| Registration {
            user_id: id.to_owned(),
            username: "Alice".to_owned(),
            public_key: key.to_owned(),
        };
        let good = key().public().to_base64();
        let user = registration("alice", &good).check().expect("a user");
        assert_eq!((user.id.as_str(), user.key), ("alice", *key().public()));
        for reserved in ["system", "all", "ALL"] {
            assert!(registration(reserved, &good).check().is_err(), "{reserved}");
        }
        // Published clients have mail addresses as ids.
        assert!(registration("all@example.org", &good).check().is_ok());
        let zero = STANDARD.encode([0; 32]);
        assert!(registration("alice", &zero).check().is_err());
        assert!(registration("alice", "AAAA").check().is_err());
    }

    #[test]
    fn a_token_says_nothing_when_it_is_printed() {
        let body = TokenBody {
            token: "secret".to_owned(),
        };
        assert_eq!(format!("{body:?}"), "TokenBody(..)");
    }
}
