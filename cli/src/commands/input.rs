//! Texts from standard input.

use std::io::{self, IsTerminal, Read};

use anyhow::Context;

use crate::output;

/// How far a text that is too long is read on, to say how long it is.
const COUNTED_MAX: u64 = 64 << 20;

/// Reads standard input to its end, without the line break there.
///
/// # Errors
/// Fails if it is longer than `max` bytes, and says how long; nothing is cut off.
pub(super) fn read_text(what: &str, max: usize) -> anyhow::Result<String> {
    read_text_from(io::stdin().lock(), what, max)
}

fn read_text_from(mut input: impl Read, what: &str, max: usize) -> anyhow::Result<String> {
    // The line break at the end does not count, and one byte more shows a text that is too long.
    let limit = max as u64 + 3;
    let mut bytes = Vec::new();
    let reading = || format!("read {what} from standard input");
    (&mut input)
        .take(limit)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    let read = bytes.len();
    let end = match bytes.as_slice() {
        [.., b'\r', b'\n'] => read - 2,
        [.., b'\n'] => read - 1,
        _ => read,
    };
    if end > max || read as u64 == limit {
        let mut rest = input.take(COUNTED_MAX);
        let more = io::copy(&mut rest, &mut io::sink()).with_context(reading)?;
        let at_least = if more == COUNTED_MAX {
            "more than "
        } else {
            ""
        };
        return Err(output::wrong(
            format!(
                "{what} from standard input has {at_least}{} bytes; the most is {max}",
                read as u64 + more
            ),
            "nothing was sent; send it in parts, or send where it can be found",
        ));
    }
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|error| {
        output::wrong(
            format!(
                "{what} from standard input is not text in UTF-8: {}",
                error.utf8_error()
            ),
            "nothing was sent; `base64` makes text of any bytes",
        )
    })
}

/// Reads the first line of standard input; none of it is cut off.
pub(super) fn read_line(what: &str, max: usize) -> anyhow::Result<String> {
    let text = read_text(what, max)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Says whether a person types standard input.
pub(super) fn is_typed() -> bool {
    io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Result<String, String> {
        read_text_from(input.as_bytes(), "the message", 10).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_text_that_fits_is_read_without_its_last_line_break() {
        assert_eq!(read("0123456789").as_deref(), Ok("0123456789"));
        assert_eq!(read("0123456789\n").as_deref(), Ok("0123456789"));
        assert_eq!(read("0123456789\r\n").as_deref(), Ok("0123456789"));
        assert_eq!(read("01234567\n\n").as_deref(), Ok("01234567\n"));
        assert_eq!(read("").as_deref(), Ok(""));
    }

    #[test]
    fn a_text_that_is_too_long_is_not_cut_off_and_its_size_is_said() {
        for (text, bytes) in [
            ("0123456789x".to_owned(), 11),
            ("0123456789\nmore".to_owned(), 15),
            ("0123456789\n\n".to_owned(), 12),
            ("0123456789x\r\n".to_owned(), 13),
            ("x".repeat(100_000), 100_000),
        ] {
            let said = read(&text).expect_err("too long");
            let expected =
                format!("the message from standard input has {bytes} bytes; the most is 10");
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn an_endless_text_is_given_up() {
        let error = read_text_from(io::repeat(b'x'), "the message", 10).expect_err("endless");
        assert!(format!("{error:#}").contains("more than 671"), "{error:#}");
    }
}
