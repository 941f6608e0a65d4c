//! Signing in to a server of somebody else, the client's side (`proto-specs/iid.md`, 5.2 to 5.5).
//!
//! The server is not trusted: nothing is signed but a challenge of the one form that servers have,
//! and that once. That another server's challenge is passed on cannot be seen here (section 8).

use std::{fmt, str::FromStr};

use super::{HELLO, SIGN, TEXT_BYTES_MAX};
use crate::proto::iid::{
    Index,
    address::{Address, AddressError, EthereumAddress, EthereumKey, RsaKey},
};

/// How many texts that mean nothing a server may send before HELLO. Published servers send up to
/// four lines of welcome.
pub const IGNORED_MAX: usize = 32;

/// How many characters of a server's text are handed on.
const SHOWN_CHARS_MAX: usize = 200;

/// What published servers begin a refusal with.
const REFUSALS: [&str; 7] = [
    "FAIL TO SIGN",
    "ASK ADMIN",
    "GUEST DISABLED",
    "GUID MISMATCH",
    "INVALID SHA256",
    "Not in allowed user",
    "SPAM KICK",
];

/// Is the key that we sign in with.
#[derive(Clone, Debug)]
pub enum ClientKey {
    /// A wallet's.
    Ethereum(EthereumKey),
    /// An RSA key, as Unity clients have.
    Rsa(RsaKey),
}

/// Is what a master once signed for a coaster: `<coaster>|<master>|<signature>`.
///
/// It is no secret, but with the coaster's key it is as good as the master's.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// As the master signed it; in another case it would be another text.
    coaster: String,
    master: EthereumAddress,
    signature: String,
}

/// Why a letter is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// It does not have three parts.
    #[error("a letter is `<coaster>|<master>|<signature>`")]
    Form,
    /// One of its addresses is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its master did not sign it.
    #[error("the letter is not signed by its master")]
    Signature,
    /// It is for another key than ours.
    #[error("the letter is for another key than the one to sign in with")]
    OtherKey,
}

/// Is one sign-in to a server.
#[derive(Debug)]
pub struct ClientSignIn {
    key: ClientKey,
    letter: Option<Letter>,
    state: State,
    ignored: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Answered,
    Over,
}

/// Says what a text of the server came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHeard {
    /// It means nothing: go on waiting.
    Ignore,
    /// Send this.
    Answer(String),
    /// We are in.
    SignedIn {
        /// Under which index the server puts what we send.
        index: Index,
        /// What it says besides: an address or two.
        rest: String,
    },
    /// We are not let in, or will not go on: close. Says why, in characters fit to be shown.
    Refused(String),
}

impl ClientKey {
    /// Returns the address that the key signs as.
    #[must_use]
    pub fn address(&self) -> Address {
        match self {
            Self::Ethereum(key) => Address::Ethereum(key.address()),
            Self::Rsa(key) => Address::Rsa(key.address().clone()),
        }
    }

    fn sign(&self, text: &str) -> Option<String> {
        match self {
            Self::Ethereum(key) => Some(key.sign(text)),
            Self::Rsa(key) => key.sign(text),
        }
    }
}

/// Reads the three parts, with blanks and line ends around them, and checks the signature.
impl FromStr for Letter {
    type Err = LetterError;

    fn from_str(text: &str) -> Result<Self, LetterError> {
        let parts: Vec<&str> = text.split('|').map(str::trim).collect();
        let [coaster, master, signature] = parts[..] else {
            return Err(LetterError::Form);
        };
        Address::parse(coaster)?;
        let master: EthereumAddress = master.parse()?;
        if !master.has_signed(coaster, signature) {
            return Err(LetterError::Signature);
        }
        Ok(Self {
            coaster: coaster.to_owned(),
            master,
            signature: signature.to_owned(),
        })
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", self.coaster, self.master, self.signature)
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Letter(of {})", self.master)
    }
}

impl ClientSignIn {
    /// Begins to sign in, with the letter if there is one.
    ///
    /// # Errors
    /// Returns [`LetterError::OtherKey`] if the letter is not for this key.
    pub fn new(key: ClientKey, letter: Option<Letter>) -> Result<Self, LetterError> {
        if let Some(letter) = &letter
            && Address::parse(&letter.coaster)? != key.address()
        {
            return Err(LetterError::OtherKey);
        }
        Ok(Self {
            key,
            letter,
            state: State::Waiting,
            ignored: 0,
        })
    }

    /// Takes a text of the server. After [`ClientHeard::SignedIn`] or [`ClientHeard::Refused`]
    /// everything is refused.
    pub fn hear(&mut self, text: &str) -> ClientHeard {
        if self.state == State::Over {
            return self.refuse("the sign-in is over");
        }
        if text.len() > TEXT_BYTES_MAX {
            return self.refuse("the server's text is too long");
        }
        if let Some(challenge) = text.strip_prefix(SIGN) {
            self.answer(challenge)
        } else if let Some(words) = text.strip_prefix(HELLO) {
            self.greet(words)
        } else if REFUSALS.iter().any(|refusal| text.starts_with(refusal)) {
            self.refuse(text)
        } else {
            self.ignore()
        }
    }

    fn answer(&mut self, challenge: &str) -> ClientHeard {
        if self.state != State::Waiting {
            return self.refuse("the server asked for a second signature");
        }
        if !is_uuid(challenge) {
            return self.refuse("the server asked for a signature of what is no challenge");
        }
        let Some(signature) = self.key.sign(challenge) else {
            return self.refuse("our key did not sign");
        };
        self.state = State::Answered;
        ClientHeard::Answer(match &self.letter {
            None => format!("{challenge}|{}|{signature}", self.key.address()),
            Some(letter) => {
                let (coaster, master) = (&letter.coaster, letter.master);
                format!(
                    "{challenge}|{coaster}|{signature}|{master}|{}",
                    letter.signature
                )
            }
        })
    }

    fn greet(&mut self, words: &str) -> ClientHeard {
        if self.state != State::Answered {
            return self.refuse("the server let us in without a signature");
        }
        let (index, rest) = words.split_once(' ').unwrap_or((words, ""));
        let Ok(index) = index.parse() else {
            return self.refuse("the server named no index");
        };
        self.state = State::Over;
        let rest = shown(rest);
        ClientHeard::SignedIn { index, rest }
    }

    /// `MANUAL:`, announcements of letters and lines of welcome come here.
    fn ignore(&mut self) -> ClientHeard {
        if self.ignored == IGNORED_MAX {
            return self.refuse("the server talks and does not come to the point");
        }
        self.ignored += 1;
        ClientHeard::Ignore
    }

    fn refuse(&mut self, why: &str) -> ClientHeard {
        self.state = State::Over;
        ClientHeard::Refused(shown(why))
    }
}

/// Says whether the text is a UUID as `SIGN:` has it: 36 characters in small letters.
fn is_uuid(text: &str) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match byte {
            b'-' => HYPHENS.contains(&at),
            b'0'..=b'9' | b'a'..=b'f' => !HYPHENS.contains(&at),
            _ => false,
        })
}

/// Makes a text of the server fit for a log line.
fn shown(text: &str) -> String {
    let is_plain = |c: &char| !c.is_control();
    text.trim()
        .chars()
        .filter(is_plain)
        .take(SHOWN_CHARS_MAX)
        .collect()
}
