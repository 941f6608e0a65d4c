//! The form of what a client says before HELLO (`proto-specs/iid.md`, section 5.3).
//!
//! Every tolerance in here is forced by a client that exists; what the parts mean is judged in
//! `sign_in.rs`.

use super::Refused;

/// What a text of the client is.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// No answer at all. The run client greets with `Hello, Server!` before it answers.
    Nothing,
    /// A password, or its hash.
    Password(&'a str),
    /// An answer to the challenge.
    Answer(Answer<'a>),
}

/// An answer of three or five parts.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) challenge: &'a str,
    pub(super) address: &'a str,
    pub(super) signature: &'a str,
    pub(super) letter: Option<Letter<'a>>,
}

/// What makes the address of an answer a coaster.
#[derive(Debug)]
pub(super) struct Letter<'a> {
    pub(super) master: &'a str,
    pub(super) signature: &'a str,
}

const PASSWORD_TAG: &str = "SHA256:";

/// What the page client writes where it has no letter.
const UNDEFINED: &str = "undefined";

/// Takes a text apart.
pub(super) fn read(text: &str) -> Result<Said<'_>, Refused> {
    let text = trim(text);
    if let Some((tag, password)) = text.split_at_checked(PASSWORD_TAG.len())
        && tag.eq_ignore_ascii_case(PASSWORD_TAG)
    {
        return Ok(Said::Password(trim(password)));
    }
    // One more than there may be: how many too many there are does not matter.
    let mut parts = [""; 6];
    let mut count = 0;
    for (part, sent) in parts.iter_mut().zip(text.split('|')) {
        *part = trim(sent);
        count += 1;
    }
    let [challenge, address, signature, master, letter, _] = parts;
    let letter = match count {
        1 => return Ok(Said::Nothing),
        3 => None,
        5 if is_absent(master) && is_absent(letter) => None,
        5 => Some(Letter {
            master,
            signature: letter,
        }),
        _ => return Err(Refused::Form),
    };
    Ok(Said::Answer(Answer {
        challenge,
        address,
        signature,
        letter,
    }))
}

/// Unity joins the parts of a letter with `|` and LF.
fn trim(part: &str) -> &str {
    part.trim_matches([' ', '\t', '\r', '\n'])
}

fn is_absent(part: &str) -> bool {
    part.is_empty() || part == UNDEFINED
}
