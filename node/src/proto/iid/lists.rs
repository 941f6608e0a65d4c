//! Who is let in, and by which letters (`proto-specs/iid.md`, section 5.8).
//!
//! The files of the published servers, one entry a line: `index:address`, `index:hash`,
//! `master>coaster`. Blanks, tabs and CR mean nothing, `#` begins a line of comment, a line that is
//! none of these is passed over and reported. Reading and writing the files is somebody else's.

mod claims;
mod edit;
mod letters;
mod passwords;

pub(super) use self::passwords::{PasswordHash, hash_of, hash_of_digits};
pub use self::{
    claims::Claims,
    edit::{ListError, allow, deny},
    letters::Letters,
    passwords::Passwords,
};
use super::{Index, address::AddressError};

/// Longest file that is worth reading, 16 MiB: some 300,000 Ethereum addresses. Whoever reads the
/// file holds to it.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Holds everything that decides who is let in.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Whose address has which index.
    pub claims: Claims,
    /// Which password has which index; without it nobody signs in by password.
    pub passwords: Option<Passwords>,
    /// If given, only these letters are good.
    pub letters: Option<Letters>,
    /// These letters are never good.
    pub revoked: Letters,
}

/// Is a line that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}")]
pub struct Skipped {
    /// Which line, from 1; of folders, which file.
    pub line: usize,
    /// Why.
    #[source]
    pub why: Skip,
}

/// Why a line is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// It does not have exactly one colon, or `>`.
    #[error("an entry has exactly one `{0}`")]
    Form(char),
    /// What stands before the colon is no index.
    #[error("an index is a whole number of 32 bits")]
    Index,
    /// What stands after the colon is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What stands after the colon is no hash.
    #[error("a password is listed as the 64 hexadecimal digits of its SHA-256")]
    Hash,
    /// A master is an Ethereum address, and this is none.
    #[error("a master is an Ethereum address")]
    Master,
    /// Anybody has that key or password.
    #[error("the secret is published: anybody can sign in with it")]
    Published,
}

/// Returns the lines that hold something, without blanks, and their numbers from 1.
fn entries(text: &str) -> impl Iterator<Item = (usize, String)> {
    // Editors on Windows begin a file with this mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..)
        .zip(text.lines().map(without_blanks))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn without_blanks(line: &str) -> String {
    line.chars()
        .filter(|c| !matches!(c, ' ' | '\t' | '\r'))
        .collect()
}

/// Takes each entry by `take`, and returns those that it refused.
fn skipped(text: &str, mut take: impl FnMut(&str) -> Result<(), Skip>) -> Vec<Skipped> {
    entries(text)
        .filter_map(|(line, entry)| take(&entry).err().map(|why| Skipped { line, why }))
        .collect()
}

/// Splits `index:rest`.
fn indexed(entry: &str) -> Result<(Index, &str), Skip> {
    let (index, rest) = entry.split_once(':').ok_or(Skip::Form(':'))?;
    if rest.contains(':') {
        return Err(Skip::Form(':'));
    }
    Ok((index.parse().map_err(|_| Skip::Index)?, rest))
}
