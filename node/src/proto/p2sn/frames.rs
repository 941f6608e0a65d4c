//! Frames cut out of whatever pieces the bytes come in (`proto-specs/p2sn.md`, section 4).

/// Ends every frame.
pub(super) const END: u8 = 0x04;

/// Longest frame of the exchange, in bytes: the base64 of a PEM of an 8,192-bit key has 1,920.
const EXCHANGE_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Most bytes that wait to be cut: one frame, and the start of the next.
const BUFFER_BYTES_MAX: usize = 2 * EXCHANGE_FRAME_BYTES_MAX;

/// Bytes that came and are no whole frame yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// A block was taken for a frame without its end, which may still come.
    swallow_end: bool,
}

/// More bytes than a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Frames {
    /// Adds bytes that came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES_MAX {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the next frame, without its end.
    ///
    /// `block_chars` is given in the message phase: clients up to 0.3.0-beta.1 send a message as
    /// one bare block, so that many characters are a frame although no end came.
    pub(super) fn next(&mut self, block_chars: Option<usize>) -> Result<Option<Vec<u8>>, TooLong> {
        if self.swallow_end && !self.buffer.is_empty() {
            self.swallow_end = false;
            if self.buffer[0] == END {
                self.buffer.remove(0);
            }
        }
        let end = self.buffer.iter().position(|&b| b == END);
        if let Some(end) = end.filter(|&end| block_chars.is_none_or(|block| end <= block)) {
            let mut frame: Vec<u8> = self.buffer.drain(..=end).collect();
            frame.pop();
            return if frame.len() > EXCHANGE_FRAME_BYTES_MAX {
                Err(TooLong)
            } else {
                Ok(Some(frame))
            };
        }
        match block_chars {
            Some(block) if self.buffer.len() >= block => {
                self.swallow_end = true;
                Ok(Some(self.buffer.drain(..block).collect()))
            }
            Some(_) => Ok(None),
            None if self.buffer.len() > EXCHANGE_FRAME_BYTES_MAX => Err(TooLong),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frames: &mut Frames, block: Option<usize>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| frames.next(block).expect("no frame is too long")).collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_come_in() {
        let mut whole = Frames::default();
        whole.push(b"one\x04two\x04th").expect("room");
        assert_eq!(all(&mut whole, None), [b"one".to_vec(), b"two".to_vec()]);
        whole.push(b"ree\x04").expect("room");
        assert_eq!(all(&mut whole, None), [b"three".to_vec()]);

        let mut bytewise = Frames::default();
        let mut got = Vec::new();
        for byte in b"one\x04\x04two\x04" {
            bytewise.push(&[*byte]).expect("room");
            got.extend(all(&mut bytewise, None));
        }
        assert_eq!(got, [b"one".to_vec(), b"".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_bare_block_is_a_frame_and_a_late_end_is_swallowed() {
        let mut frames = Frames::default();
        frames.push(b"AAAA").expect("room");
        assert_eq!(all(&mut frames, Some(4)), [b"AAAA".to_vec()]);
        frames.push(b"\x04BBBB").expect("room");
        assert_eq!(all(&mut frames, Some(4)), [b"BBBB".to_vec()]);
        frames.push(b"CCCC\x04DD\x04").expect("room");
        assert_eq!(
            all(&mut frames, Some(4)),
            [b"CCCC".to_vec(), b"DD".to_vec()]
        );
    }

    #[test]
    fn a_frame_without_end_is_too_long_at_some_point() {
        let mut frames = Frames::default();

        let refused =
            (0..70).any(|_| frames.push(&[b'x'; 1000]).is_err() || frames.next(None).is_err());

        assert!(refused);
        assert!(frames.buffer.len() <= BUFFER_BYTES_MAX);
    }
}
