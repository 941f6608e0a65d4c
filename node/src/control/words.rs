//! Integers out of a stream of text, cut anywhere: decimal, with white space between them.

use crate::{proto::iid::Value, state::io::Failure};

/// Longest word, in bytes. The longest integer has eleven.
const WORD_BYTES_MAX: usize = 32;

/// The beginning of a word whose end has not come.
#[derive(Debug, Default)]
pub struct Words {
    begun: Vec<u8>,
}

impl Words {
    /// Takes the next piece, and adds the integers that end in it.
    ///
    /// # Errors
    /// Fails at the first word that is no integer; those before it are added.
    pub fn push(&mut self, piece: &[u8], values: &mut Vec<Value>) -> Result<(), Failure> {
        let mut words = piece.split(u8::is_ascii_whitespace);
        // Of n words, n - 1 end in this piece.
        let mut word = words.next().unwrap_or_default();
        for next in words {
            self.end(word, values)?;
            word = next;
        }
        self.begun.extend_from_slice(word);
        if self.begun.len() > WORD_BYTES_MAX {
            return Err(no_integer(&self.begun[..WORD_BYTES_MAX]));
        }
        Ok(())
    }

    /// Ends the stream, and adds the integer that ends with it.
    ///
    /// # Errors
    /// See [`Self::push`].
    pub fn finish(mut self, values: &mut Vec<Value>) -> Result<(), Failure> {
        self.end(&[], values)
    }

    fn end(&mut self, word: &[u8], values: &mut Vec<Value>) -> Result<(), Failure> {
        if self.begun.is_empty() {
            return parse(word, values);
        }
        self.begun
            .extend_from_slice(&word[..word.len().min(WORD_BYTES_MAX)]);
        let word = std::mem::take(&mut self.begun);
        parse(&word, values)
    }
}

fn parse(word: &[u8], values: &mut Vec<Value>) -> Result<(), Failure> {
    if word.is_empty() {
        return Ok(());
    }
    let short = Some(word).filter(|word| word.len() <= WORD_BYTES_MAX);
    let value = short.and_then(|word| str::from_utf8(word).ok()?.parse().ok());
    values.push(Value(value.ok_or_else(|| no_integer(word))?));
    Ok(())
}

fn no_integer(word: &[u8]) -> Failure {
    let word = &word[..word.len().min(WORD_BYTES_MAX)];
    Failure::bad_request(format!("`{}` is no 32-bit integer", word.escape_ascii()))
        .with_hint("integers go from -2147483648 to 2147483647, with white space between them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<i32>, String> {
        let (mut words, mut values) = (Words::default(), Vec::new());
        for piece in pieces {
            words.push(piece, &mut values).map_err(|f| f.message)?;
        }
        words.finish(&mut values).map_err(|f| f.message)?;
        Ok(values.into_iter().map(|Value(value)| value).collect())
    }

    #[test]
    fn integers_are_the_same_wherever_the_text_is_cut() {
        let text = b" 1\t-22\r\n\n2147483647 -2147483648 +5";
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(
                read(&[first, second]),
                Ok(vec![1, -22, i32::MAX, i32::MIN, 5]),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_no_integer_is_named() {
        for (text, named) in [
            ("1 two 3", "two"),
            ("2147483648", "2147483648"),
            ("1.5", "1.5"),
            ("\u{1}", "\\x01"),
        ] {
            let said = read(&[text.as_bytes()]).expect_err(text);
            assert_eq!(said, format!("`{named}` is no 32-bit integer"));
        }
    }

    #[test]
    fn a_word_without_end_is_given_up() {
        let piece = [b'1'; 20];
        assert!(read(&[&piece, &piece]).is_err());
        assert!(read(&[&[b'1'; 100_000]]).is_err());
        assert!(read(&[&piece, &[b'1'; 100_000], b" "]).is_err());
    }

    #[test]
    fn a_word_that_is_too_long_is_refused_wherever_it_is_cut() {
        let text = format!("{}5 ", "0".repeat(33));
        for cut in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert!(read(&[first, second]).is_err(), "cut at {cut}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::fuzz::{bytes_of, fuzz};

    fn read(text: &[u8], piece: usize) -> Option<Vec<Value>> {
        let (mut words, mut values) = (Words::default(), Vec::new());
        for piece in text.chunks(piece) {
            words.push(piece, &mut values).ok()?;
        }
        words.finish(&mut values).ok()?;
        Some(values)
    }

    #[test]
    fn integers_are_the_same_in_whatever_pieces_they_come() {
        let corpus = bytes_of([
            " 1\t-22\r\n\n2147483647 -2147483648 +5",
            "1 two 3",
            "00000000000000000000000000000001 7",
            "000000000000000000000000000000001 7",
        ]);
        fuzz(bolero::check!(), &corpus, |bytes| {
            let words = bytes.split(u8::is_ascii_whitespace);
            let expected: Option<Vec<Value>> = words
                .filter(|word| !word.is_empty())
                .map(|word| str::from_utf8(word).ok().filter(|word| word.len() <= 32))
                .map(|word| word?.parse().ok())
                .collect();
            for piece in [1, 2, 3, 31, bytes.len().max(1)] {
                assert_eq!(read(bytes, piece), expected, "pieces of {piece}");
            }
            expected.is_some()
        });
    }
}
