//! The names of users, and what a gateway knows of one (`proto-specs/syft.md`, sections 5 and 14).
//!
//! User ids are free text in the old programs, e-mail addresses most of all. What would make the
//! signed text ambiguous or a path of HTTP unreachable is refused at the registration.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use unicode_script::{Script, UnicodeScript};

use crate::text::is_hidden;

/// Longest user id, in bytes: the longest e-mail address there is (RFC 5321) is one shorter.
pub const USER_ID_BYTES_MAX: usize = 255;

/// Longest name for people that a user registers with, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;

/// Most descriptions of a user: more than the agents write.
pub const DESCRIPTIONS_MAX: usize = 64;

/// Longest sum of the descriptions of a user, in bytes. Every gateway keeps those of every user.
pub const DESCRIPTIONS_BYTES_MAX: usize = 8 * 1024;

/// Names that mean something to the old programs.
const RESERVED: [&str; 3] = ["system", "broadcast", "server"];

/// Scripts that are written together and do not look alike (UTS #39, "highly restrictive").
const EAST_ASIAN_AND_LATIN: [Script; 6] = [
    Script::Latin,
    Script::Han,
    Script::Hiragana,
    Script::Katakana,
    Script::Hangul,
    Script::Bopomofo,
];

/// Letters that have a picture of nothing, or of another letter in another style.
const STYLED: [std::ops::RangeInclusive<char>; 11] = [
    // Combining grapheme joiner, Hangul fillers, Braille blank, variation selectors.
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{e0100}'..='\u{e01ef}',
    // Letterlike, enclosed, fullwidth and halfwidth, mathematical letters.
    '\u{2100}'..='\u{214f}',
    '\u{2460}'..='\u{24ff}',
    '\u{ff00}'..='\u{ffef}',
    '\u{1d400}'..='\u{1d7ff}',
    '\u{1f100}'..='\u{1f1ff}',
];

/// The name of a user, as clients write it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Arc<str>);

/// Why a text is no user id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserIdError {
    /// It is empty or too long.
    #[error("a user id has 1 to {USER_ID_BYTES_MAX} bytes, got {0}")]
    Length(usize),
    /// A character of it is not taken.
    #[error("a user id has no `|`, no `/`, no control characters and no blank at its ends")]
    Character,
    /// It is a word of the protocol.
    #[error("`{0}` means something else")]
    Reserved(String),
    /// A new id has a character that a reader cannot see or tells from another one badly.
    #[error(
        "a new user id has no invisible characters, no blanks but U+0020, and no letters that are \
         styled forms of others; {0:?} is one"
    )]
    Misleading(char),
    /// A new id has letters of several scripts, of which some look alike.
    #[error("a new user id has the letters of one script, or Latin ones with those of East Asia")]
    Scripts,
}

impl UserId {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether a new user may have this id: readers can tell it from others. Users who are
    /// there already keep their ids.
    ///
    /// # Errors
    /// Returns what could mislead.
    pub fn check_new(&self) -> Result<(), UserIdError> {
        if let Some(c) = self.0.chars().find(|&c| is_misleading(c)) {
            return Err(UserIdError::Misleading(c));
        }
        let scripts = self.0.chars().map(|c| c.script());
        let mut scripts: Vec<Script> = scripts
            .filter(|script| !matches!(script, Script::Common | Script::Inherited))
            .collect();
        scripts.dedup();
        let all_of = |allowed: &[Script]| scripts.iter().all(|script| allowed.contains(script));
        let is_one = scripts.first().is_none_or(|first| all_of(&[*first]));
        if is_one || all_of(&EAST_ASIAN_AND_LATIN) {
            return Ok(());
        }
        Err(UserIdError::Scripts)
    }

    /// Splits `user@node` at its last `@`.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &str)> {
        let (user, node) = self.0.rsplit_once('@')?;
        Some((user.parse().ok()?, node))
    }

    /// Returns `user@node`.
    ///
    /// # Errors
    /// Fails if that is too long for a user id.
    pub fn at(&self, node: &str) -> Result<Self, UserIdError> {
        format!("{self}@{node}").parse()
    }
}

impl std::str::FromStr for UserId {
    type Err = UserIdError;

    fn from_str(text: &str) -> Result<Self, UserIdError> {
        if text.is_empty() || text.len() > USER_ID_BYTES_MAX {
            return Err(UserIdError::Length(text.len()));
        }
        let is_bad = |c: char| c == '|' || c == '/' || c.is_control();
        if text.contains(is_bad) || text.trim() != text {
            return Err(UserIdError::Character);
        }
        if RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Err(UserIdError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

fn is_misleading(c: char) -> bool {
    is_hidden(c)
        || (c.is_whitespace() && c != ' ')
        || STYLED.iter().any(|styled| styled.contains(&c))
}

impl TryFrom<String> for UserId {
    type Error = UserIdError;

    fn try_from(text: String) -> Result<Self, UserIdError> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({})", self.0)
    }
}

/// What a user says he can do, in his order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Descriptions(Vec<String>);

/// Descriptions are too many or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user has at most {DESCRIPTIONS_MAX} descriptions with {DESCRIPTIONS_BYTES_MAX} bytes")]
pub struct DescriptionsError;

impl Descriptions {
    /// Returns the texts.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Descriptions {
    type Error = DescriptionsError;

    fn try_from(texts: Vec<String>) -> Result<Self, DescriptionsError> {
        let bytes: usize = texts.iter().map(String::len).sum();
        if texts.len() > DESCRIPTIONS_MAX || bytes > DESCRIPTIONS_BYTES_MAX {
            return Err(DescriptionsError);
        }
        Ok(Self(texts))
    }
}

impl From<Descriptions> for Vec<String> {
    fn from(descriptions: Descriptions) -> Self {
        descriptions.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_people_have_them_are_taken() {
        for id in ["alice", "bob+x@example.org", "böb", "a b", "#room", "日本"] {
            assert_eq!(id.parse::<UserId>().as_ref().map(UserId::as_str), Ok(id));
        }
    }

    #[test]
    fn ids_that_would_be_ambiguous_or_mean_something_else_are_refused() {
        for id in ["a|b", "a/b", "a\nb", "a\0", " a", "a ", "a\u{85}"] {
            assert_eq!(id.parse::<UserId>(), Err(UserIdError::Character), "{id:?}");
        }
        for id in ["system", "Broadcast", "SERVER"] {
            let reserved = UserIdError::Reserved(id.to_owned());
            assert_eq!(id.parse::<UserId>(), Err(reserved));
        }
        assert_eq!("".parse::<UserId>(), Err(UserIdError::Length(0)));
        assert!("x".repeat(255).parse::<UserId>().is_ok());
        let long = "x".repeat(256).parse::<UserId>();
        assert_eq!(long, Err(UserIdError::Length(256)));
    }

    #[test]
    fn a_new_id_is_one_that_readers_tell_from_others() {
        let check = |id: &str| id.parse::<UserId>().expect(id).check_new();
        for id in [
            "alice",
            "bob+x@example.org",
            "böb",
            "a b",
            "#room",
            "日本",
            "Tokyo東京タワー",
            "алиса",
            "مطبخ",
            "küche 🍳",
            "αλίκη",
            "김철수2",
        ] {
            assert_eq!(check(id), Ok(()), "{id}");
        }
        for id in [
            "al\u{200b}ice",
            "\u{202e}ecila",
            "a\u{2066}b",
            "alice\u{feff}",
            "a\u{ad}b",
            "al\u{200d}ice",
            "a\u{a0}b",
            "a\u{3000}b",
            "\u{3164}",
            "alice\u{fe0f}",
            "\u{ff41}lice",
            "\u{1d41a}lice",
            "\u{e0041}a",
            "a\u{e000}",
        ] {
            let misleading = |result| matches!(result, Err(UserIdError::Misleading(_)));
            assert!(misleading(check(id)), "{id:?}");
        }
        for id in ["\u{430}lice", "al\u{456}ce", "\u{3b1}lice", "алicе"] {
            assert_eq!(check(id), Err(UserIdError::Scripts), "{id}");
        }
    }

    #[test]
    fn the_node_stands_behind_the_last_at_sign() {
        let id: UserId = "bob@example.org@pi-1".parse().expect("a user id");
        let user = "bob@example.org".parse().expect("a user id");
        assert_eq!(id.split(), Some((user, "pi-1")));
        assert_eq!("bob".parse::<UserId>().expect("an id").split(), None);
        assert_eq!("@pi-1".parse::<UserId>().expect("an id").split(), None);
    }

    #[test]
    fn descriptions_have_a_number_and_a_size() {
        let texts = |count, bytes| vec!["x".repeat(bytes); count];
        assert!(Descriptions::try_from(texts(64, 128)).is_ok());
        assert!(Descriptions::try_from(texts(65, 1)).is_err());
        assert!(Descriptions::try_from(texts(1, 8193)).is_err());
    }
}
