//! Adds to and takes from the text of a file of claims, and leaves the rest as its owner wrote it.

use super::{
    Skip,
    claims::{Claims, listed},
    indexed, without_blanks,
};
use crate::proto::iid::{
    Index,
    address::{Address, AddressError},
    published::KNOWN,
};

/// Why an address cannot be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Anybody has its key.
    #[error("the key of this address is published: anybody can sign in with it")]
    Published,
}

/// Returns the text with a line for the address at its end, unless it is listed so already.
///
/// # Errors
/// Fails if the address is none, or if its key is published.
pub fn allow(text: &str, index: Index, address: &str) -> Result<String, ListError> {
    let address = listed(&without_blanks(address), &KNOWN).map_err(|why| match why {
        Skip::Address(error) => ListError::Address(error),
        _ => ListError::Published,
    })?;
    let address = address.to_string();
    if Claims::parse(text).0.index_of(&address) == Some(index) {
        return Ok(text.to_owned());
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok(format!("{text}{end}{index}:{address}\n"))
}

/// Returns the text without the lines for an index, or for an address or hash in any spelling, and
/// how many these were.
#[must_use]
pub fn deny(text: &str, what: &str) -> (String, usize) {
    let what = without_blanks(what);
    let is_kept = |line: &&str| !is_for(line, &what);
    let kept: String = text.split_inclusive('\n').filter(is_kept).collect();
    let removed = text.split_inclusive('\n').count() - kept.split_inclusive('\n').count();
    (kept, removed)
}

fn is_for(line: &str, what: &str) -> bool {
    let line = without_blanks(line.trim_end_matches('\n').trim_start_matches('\u{feff}'));
    if line.starts_with('#') || what.is_empty() {
        return false;
    }
    let Ok((index, name)) = indexed(&line) else {
        return false;
    };
    match what.parse::<Index>() {
        Ok(what) => index == what,
        Err(_) => spelling(name) == spelling(what),
    }
}

/// Brings an address to its one spelling, and a hash to small letters.
fn spelling(name: &str) -> String {
    match Address::parse(name) {
        Ok(address) => address.to_string(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "0xaeC963aC8DF14a807ab97715c564b7bD3973503A";
    const BOB: &str = "0x95fc270Af48a00FF923001006453A98192c98716";

    #[test]
    fn what_is_allowed_comes_last_and_nothing_else_changes() {
        let text = format!("# mine: all\r\n 8 : {BOB}");

        let longer = allow(&text, Index(7), &ALICE.to_lowercase()).expect("an address");

        assert_eq!(longer, format!("# mine: all\r\n 8 : {BOB}\n7:{ALICE}\n"));
        assert_eq!(allow(&longer, Index(7), ALICE), Ok(longer.clone()));
        assert_eq!(allow("", Index(7), ALICE), Ok(format!("7:{ALICE}\n")));
        let moved = allow(&longer, Index(9), ALICE).expect("an address");
        assert_eq!(Claims::parse(&moved).0.index_of(ALICE), Some(Index(9)));
    }

    #[test]
    fn what_is_no_address_or_published_is_not_allowed() {
        let published = "0x9E85522e84c970431cEac4031Fbd2c24D8943527";

        assert_eq!(
            allow("", Index(7), "alice"),
            Err(ListError::Address(AddressError::Kind))
        );
        assert_eq!(
            allow("", Index(7), "0x12"),
            Err(ListError::Address(AddressError::Ethereum))
        );
        let injected = format!("{ALICE}\n8:{BOB}");
        assert_eq!(
            allow("", Index(7), &injected),
            Err(ListError::Address(AddressError::Ethereum))
        );
        assert_eq!(allow("", Index(7), published), Err(ListError::Published));
        assert_eq!(allow("", Index(-42), published), Err(ListError::Published));
    }

    #[test]
    fn an_index_or_an_address_is_taken_out_wherever_it_stands() {
        let text = format!(
            "# 7:{ALICE}\n7:{ALICE}\n 8 : {BOB} \r\n9:{}",
            ALICE.to_lowercase()
        );

        let by_address = deny(&text, &format!(" {}", ALICE.to_lowercase()));
        let by_index = deny(&text, "8");

        assert_eq!(by_address, (format!("# 7:{ALICE}\n 8 : {BOB} \r\n"), 2));
        assert_eq!(by_index.1, 1);
        assert!(!by_index.0.contains(BOB));
        assert_eq!(deny(&text, "10"), (text.clone(), 0));
        assert_eq!(deny(&text, ""), (text.clone(), 0));
    }

    #[test]
    fn a_published_address_that_stands_in_a_list_can_be_taken_out() {
        let text = "-42:0x9e85522e84c970431cEac4031Fbd2c24D8943527\n";

        assert_eq!(deny(text, "-42"), (String::new(), 1));
        assert_eq!(
            deny(text, "0x9E85522E84C970431CEAC4031FBD2C24D8943527"),
            (String::new(), 1)
        );
    }
}
