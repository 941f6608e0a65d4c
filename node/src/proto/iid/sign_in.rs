//! Signing in to the WebSocket gateway, the server's side (`proto-specs/iid.md`, 5.2 to 5.5).
//!
//! ```text
//! S  SIGN:<uuid>                                        greeting
//! C  <uuid>|<address>|<signature>                       or with a letter of the master, or SHA256:
//! S  HELLO <index> <address>                            or a refusal, and the end
//! ```
//!
//! One [`SignIn`] serves one connection. It counts and judges; sending, closing and the clock are
//! the gateway's. What comes after HELLO is not in here.

mod answer;
pub mod client;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;

use self::answer::{Answer, Said};
use super::{
    Index,
    address::{Address, EthereumAddress, rsa::is_large_enough},
    lists::{Lists, PasswordHash, hash_of, hash_of_digits},
    published::{KNOWN, Published},
};

/// Longest text of a client before HELLO. The longest real answer, RSA with 4,096 bits and a
/// letter, has 1,966 bytes; one with 8,192 bits has some 3,600.
pub const TEXT_BYTES_MAX: usize = 8_192;

/// How many messages that mean nothing a client may send before its answer. One published client
/// sends one.
pub const IGNORED_MAX: usize = 8;

/// What a challenge begins with.
pub const SIGN: &str = "SIGN:";

/// What success begins with.
pub const HELLO: &str = "HELLO ";

/// Is the sign-in of one connection.
pub struct SignIn {
    challenge: String,
    ignored: usize,
    is_over: bool,
    published: &'static Published,
}

/// Says which keys and users a gateway takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Smallest RSA modulus, in bits. Published clients use 1,024.
    pub rsa_bits_min: usize,
    /// Whether users with a negative index may sign in.
    pub guests: bool,
}

/// Says what a message of the client came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It means nothing: go on waiting.
    Ignored,
    /// The client is who it says.
    Accepted(SignedIn),
    /// It is not let in: tell it why and close.
    Refused(Refused),
}

/// Says who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Under which index everything from this connection goes.
    pub index: Index,
    /// What the client is told.
    pub hello: String,
    /// Who it is, for logs and lists: the address that holds the index, of an RSA key its tag and
    /// end, of a password the first digits of its hash.
    pub address: String,
    /// Who acts for that address by its letter, likewise.
    pub coaster: Option<String>,
    /// By which means.
    pub method: Method,
    holder: Box<Holder>,
}

/// Names what the lists are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Address(Address),
    Letter { master: Address, coaster: Address },
    Password(PasswordHash),
}

impl SignedIn {
    /// Says whether it could still sign in, as far as these lists go.
    #[must_use]
    pub fn is_still_allowed(&self, lists: &Lists) -> bool {
        let index = match &*self.holder {
            Holder::Address(address) => lists.claims.index(address),
            Holder::Letter { master, coaster } => {
                if check_letter(master, coaster, lists).is_err() {
                    return false;
                }
                lists.claims.index(master)
            }
            Holder::Password(hash) => {
                let passwords = lists.passwords.as_ref();
                passwords.and_then(|passwords| passwords.index_of(hash))
            }
        };
        index == Some(self.index)
    }
}

/// Names the means of signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// With the wallet that holds the index.
    Ethereum,
    /// With a wallet that has a letter of the one that holds the index.
    EthereumLetter,
    /// With the RSA key that holds the index.
    Rsa,
    /// With an RSA key that has a letter of the wallet that holds the index.
    RsaLetter,
    /// With a password.
    Password,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The answer does not have three or five parts.
    #[error("an answer has 3 or 5 parts")]
    Form,
    /// It answers another challenge, or one that was used.
    #[error("the answer is to another challenge")]
    Challenge,
    /// An address or signature is malformed, or they do not belong together.
    #[error("the signature is not by that address")]
    Signature,
    /// The RSA key is smaller than this gateway takes.
    #[error("an RSA key has at least {min} bits at this gateway, got {bits}")]
    SmallKey {
        /// What came.
        bits: usize,
        /// The limit.
        min: usize,
    },
    /// Nobody gave the address an index.
    #[error("the address is not listed")]
    NotAllowed,
    /// The index is a guest's, and guests are off.
    #[error("guests are not let in")]
    Guest,
    /// The password is not listed, or there are none.
    #[error("the password is not listed")]
    Password,
    /// The letter was withdrawn.
    #[error("the letter is revoked")]
    LetterRevoked,
    /// Only listed letters are good, and this is none.
    #[error("the letter is not listed")]
    LetterNotListed,
    /// The client sent too much, or too often what means nothing.
    #[error("at most {IGNORED_MAX} messages and {TEXT_BYTES_MAX} bytes come before the answer")]
    TooMuch,
    /// Anybody has that key or password.
    #[error("the secret is published: anybody can sign in with it")]
    Published,
}

impl SignIn {
    /// Begins with a fresh challenge made of sixteen random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self::with_challenge(uuid(random))
    }

    /// Returns the first text for the client.
    #[must_use]
    pub fn greeting(&self) -> String {
        format!("{SIGN}{}", self.challenge)
    }

    /// Takes a text of the client. After one answer, whatever came of it, the challenge is used and
    /// every further text is refused.
    pub fn hear(&mut self, text: &str, lists: &Lists, policy: &Policy) -> Heard {
        if self.is_over {
            return Heard::Refused(Refused::Challenge);
        }
        if text.len() > TEXT_BYTES_MAX {
            return self.end(Err(Refused::TooMuch));
        }
        let judged = match answer::read(text) {
            Ok(Said::Nothing) => return self.ignore(),
            Ok(Said::Password(password)) => self.judge_password(password, lists, policy),
            Ok(Said::Answer(answer)) => self.judge_answer(&answer, lists, policy),
            Err(refused) => Err(refused),
        };
        self.end(judged)
    }

    /// Takes a binary message of the client, which means nothing before HELLO.
    pub fn hear_binary(&mut self) -> Heard {
        if self.is_over {
            return Heard::Refused(Refused::Challenge);
        }
        self.ignore()
    }

    fn with_challenge(challenge: String) -> Self {
        Self {
            challenge,
            ignored: 0,
            is_over: false,
            published: &KNOWN,
        }
    }

    fn ignore(&mut self) -> Heard {
        if self.ignored == IGNORED_MAX {
            return self.end(Err(Refused::TooMuch));
        }
        self.ignored += 1;
        Heard::Ignored
    }

    fn end(&mut self, judged: Result<SignedIn, Refused>) -> Heard {
        self.is_over = true;
        match judged {
            Ok(signed_in) => Heard::Accepted(signed_in),
            Err(refused) => Heard::Refused(refused),
        }
    }

    fn judge_answer(
        &self,
        answer: &Answer<'_>,
        lists: &Lists,
        policy: &Policy,
    ) -> Result<SignedIn, Refused> {
        if answer.challenge != self.challenge {
            return Err(Refused::Challenge);
        }
        let signer = self.signer(answer.address, policy)?;
        if !signer.has_signed(answer.challenge, answer.signature) {
            return Err(Refused::Signature);
        }
        match &answer.letter {
            None => {
                let index = listed(&signer, lists, policy)?;
                Ok(SignedIn {
                    index,
                    hello: format!("{HELLO}{index} {signer}"),
                    address: signer.short(),
                    coaster: None,
                    method: Method::direct(&signer),
                    holder: Box::new(Holder::Address(signer)),
                })
            }
            Some(letter) => {
                let master = self.master(answer.address, letter)?;
                check_letter(&master, &signer, lists)?;
                let index = listed(&master, lists, policy)?;
                Ok(SignedIn {
                    index,
                    hello: format!("{HELLO}{index} {master} {signer}"),
                    address: master.short(),
                    coaster: Some(signer.short()),
                    method: Method::by_letter(&signer),
                    holder: Box::new(Holder::Letter {
                        master,
                        coaster: signer,
                    }),
                })
            }
        }
    }

    /// Reads the address of whoever answers; what anybody can sign with is no proof.
    fn signer(&self, text: &str, policy: &Policy) -> Result<Address, Refused> {
        let signer = Address::parse(text).map_err(|_| Refused::Signature)?;
        if let Address::Rsa(rsa) = &signer
            && !is_large_enough(rsa.bits(), policy.rsa_bits_min)
        {
            return Err(Refused::SmallKey {
                bits: rsa.bits(),
                min: policy.rsa_bits_min,
            });
        }
        if self.published.has_address(&signer) {
            return Err(Refused::Published);
        }
        Ok(signer)
    }

    /// Checks the letter itself: the master signed the coaster's address as it was sent.
    fn master(&self, coaster: &str, letter: &answer::Letter<'_>) -> Result<Address, Refused> {
        let master: EthereumAddress = letter.master.parse().map_err(|_| Refused::Signature)?;
        if !master.has_signed(coaster, letter.signature) {
            return Err(Refused::Signature);
        }
        let master = Address::Ethereum(master);
        if self.published.has_address(&master) {
            return Err(Refused::Published);
        }
        Ok(master)
    }

    /// A client sends the password or its hash. Both are looked up every time, so that the time it
    /// takes does not tell which was nearer.
    fn judge_password(
        &self,
        password: &str,
        lists: &Lists,
        policy: &Policy,
    ) -> Result<SignedIn, Refused> {
        let passwords = lists.passwords.as_ref().ok_or(Refused::Password)?;
        if password.is_empty() {
            return Err(Refused::Password);
        }
        let typed = hash_of(password);
        let sent = hash_of_digits(password).unwrap_or_else(|| typed.clone());
        if self.published.has_password(&typed) || self.published.has_password(&sent) {
            return Err(Refused::Published);
        }
        let (by_sent, by_typed) = (passwords.index_of(&sent), passwords.index_of(&typed));
        let (index, hash) = match (by_sent, by_typed) {
            (Some(index), _) => (index, sent),
            (None, Some(index)) => (index, typed),
            (None, None) => return Err(Refused::Password),
        };
        check_guest(index, policy)?;
        let shown = hex::encode(&hash[..PASSWORD_BYTES_SHOWN]);
        Ok(SignedIn {
            index,
            hello: format!("{HELLO}{index} {shown}..."),
            address: format!("password {shown}"),
            coaster: None,
            method: Method::Password,
            holder: Box::new(Holder::Password(*hash)),
        })
    }
}

/// The challenge is no secret, but logs have no use for it.
impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("ignored", &self.ignored)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Method {
    /// Returns the stable name, for counters and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethereum => "ethereum",
            Self::EthereumLetter => "ethereum letter",
            Self::Rsa => "rsa",
            Self::RsaLetter => "rsa letter",
            Self::Password => "password",
        }
    }

    const fn direct(signer: &Address) -> Self {
        match signer {
            Address::Ethereum(_) => Self::Ethereum,
            Address::Rsa(_) => Self::Rsa,
        }
    }

    const fn by_letter(coaster: &Address) -> Self {
        match coaster {
            Address::Ethereum(_) => Self::EthereumLetter,
            Address::Rsa(_) => Self::RsaLetter,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Refused {
    /// Returns the stable name of the reason, for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Challenge => "challenge",
            Self::Signature => "signature",
            Self::SmallKey { .. } => "small_key",
            Self::NotAllowed => "not_allowed",
            Self::Guest => "guest",
            Self::Password => "password",
            Self::LetterRevoked => "letter_revoked",
            Self::LetterNotListed => "letter_not_listed",
            Self::TooMuch => "too_much",
            Self::Published => "published",
        }
    }

    /// Returns what the client is told, one text a message, before the close (section 5.5).
    #[must_use]
    pub const fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Form
            | Self::Challenge
            | Self::Signature
            | Self::SmallKey { .. }
            | Self::TooMuch => &["FAIL TO SIGN"],
            Self::NotAllowed | Self::LetterRevoked | Self::LetterNotListed | Self::Published => {
                &["ASK ADMIN FOR A CLAIM TO BE ADDED", RTFM]
            }
            Self::Guest => &["GUEST DISABLED"],
            Self::Password => &["INVALID SHA256"],
        }
    }
}

/// Where a refused person can read on: the second text of some refusals.
pub const RTFM: &str = concat!("RTFM:", env!("CARGO_PKG_REPOSITORY"));

/// How much of the hash of a password the client is shown, as the published server does.
const PASSWORD_BYTES_SHOWN: usize = 4;

fn check_letter(master: &Address, coaster: &Address, lists: &Lists) -> Result<(), Refused> {
    if lists.revoked.has(master, coaster) {
        return Err(Refused::LetterRevoked);
    }
    match &lists.letters {
        Some(good) if !good.has(master, coaster) => Err(Refused::LetterNotListed),
        Some(_) | None => Ok(()),
    }
}

fn listed(address: &Address, lists: &Lists, policy: &Policy) -> Result<Index, Refused> {
    let index = lists.claims.index(address).ok_or(Refused::NotAllowed)?;
    check_guest(index, policy)?;
    Ok(index)
}

const fn check_guest(index: Index, policy: &Policy) -> Result<(), Refused> {
    if index.0 < 0 && !policy.guests {
        return Err(Refused::Guest);
    }
    Ok(())
}

/// Writes a version-4 UUID (RFC 9562, section 5.4) in small letters.
fn uuid(mut random: [u8; 16]) -> String {
    random[6] = 0x40 | random[6] & 0x0f;
    random[8] = 0x80 | random[8] & 0x3f;
    let hex = hex::encode(random);
    let [a, b, c, d, e] = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("{a}-{b}-{c}-{d}-{e}")
}
