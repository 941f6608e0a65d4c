//! Which words of `pimesh send` are members, and which is the text.

use pimesh_node::state::io::Recipients;

use crate::output;

/// To whom, and what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) to: Recipients,
    /// The text; `None` if it comes from standard input.
    pub(super) text: Option<String>,
}

/// Takes the words apart. A text behind `--` is the text whatever it looks like; otherwise it is the
/// last word, if that cannot be meant otherwise.
pub(super) fn split(
    mut peers: Vec<String>,
    behind_dashes: Option<String>,
    all: bool,
) -> anyhow::Result<Split> {
    let is_clear = behind_dashes.is_some();
    let text = behind_dashes.or_else(|| peers.pop());
    let Some(text) = text else {
        return Err(no_text());
    };
    let text = Some(text).filter(|text| is_clear || text != "-");
    if all {
        if let Some(peer) = peers.first() {
            return Err(output::wrong(
                format!("`--all` and `{peer}`: name members or say `--all`, not both"),
                "a text of several words stands in quotes: `pimesh send --all \"door open\"`",
            ));
        }
        return Ok(Split {
            to: Recipients::All,
            text,
        });
    }
    match (peers.as_slice(), &text) {
        ([], _) => return Err(no_text()),
        ([_], _) | (_, None) => {}
        ([first, rest @ ..], Some(text)) => {
            if !is_clear && !text.contains(char::is_whitespace) {
                return Err(unclear(first, rest, text));
            }
        }
    }
    Ok(Split {
        to: Recipients::Named(peers),
        text,
    })
}

fn no_text() -> anyhow::Error {
    output::wrong(
        "there is no text, or nobody to send it to",
        "write `pimesh send PEER \"TEXT\"`; `pimesh peers` lists the members",
    )
}

/// Says that the last words may be one text whose quotes were forgotten.
fn unclear(first: &str, rest: &[String], text: &str) -> anyhow::Error {
    let rest = rest.join(" ");
    output::wrong(
        format!(
            "it is not clear where the text begins in `{first} {rest} {text}`: nothing was sent"
        ),
        format!(
            "to send several words to `{first}`, put them into quotes: \
             `pimesh send {first} \"{rest} {text}\"`; to send `{text}` to all the others: \
             `pimesh send {first} {rest} -- {text}`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(
        words: &[&str],
        behind: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let split = split(words, behind.map(str::to_owned), false);
        let split = split.map_err(|error| format!("{error:#}"))?;
        match split.to {
            Recipients::Named(peers) => Ok((peers, split.text)),
            Recipients::All => panic!("not all"),
        }
    }

    fn to(peers: &[&str], text: Option<&str>) -> Result<(Vec<String>, Option<String>), String> {
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        Ok((peers, text.map(str::to_owned)))
    }

    #[test]
    fn the_last_word_is_the_text() {
        assert_eq!(taken(&["a", "hello"], None), to(&["a"], Some("hello")));
        assert_eq!(taken(&["a", ""], None), to(&["a"], Some("")));
        assert_eq!(
            taken(&["a", "b", "door open"], None),
            to(&["a", "b"], Some("door open"))
        );
        assert_eq!(taken(&["a", "b", "-"], None), to(&["a", "b"], None));
    }

    #[test]
    fn a_forgotten_quote_sends_nothing_to_a_member_named_like_a_word() {
        let said = taken(&["a", "door", "open"], None).expect_err("not clear");

        assert!(said.contains("`a door open`: nothing was sent"), "{said}");
        assert_eq!(
            taken(&["a", "door"], Some("open")),
            to(&["a", "door"], Some("open"))
        );
    }

    #[test]
    fn a_text_behind_dashes_is_the_text_whatever_it_looks_like() {
        assert_eq!(taken(&["a"], Some("--all")), to(&["a"], Some("--all")));
        assert_eq!(taken(&["a"], Some("-")), to(&["a"], Some("-")));
        let all = split(Vec::new(), Some("--".to_owned()), true).expect("to all");
        assert_eq!(all.to, Recipients::All);
        assert!(split(vec!["door".to_owned()], Some("open".to_owned()), true).is_err());
        assert!(taken(&[], None).is_err());
        assert!(taken(&["hello"], None).is_err());
    }
}
