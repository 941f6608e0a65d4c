//! Frames cut out of whatever pieces the bytes come in (`proto-specs/p2sn.md`, sections 4 and 5).

use std::fmt;

/// Ends every frame.
pub(super) const END: u8 = 0x04;

/// Longest frame of the exchange, in bytes: the base64 of a PEM of an 8,192-bit key has 1,920,
/// and there may be text before a PEM.
pub(super) const EXCHANGE_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Blocks that may wait in the message phase: the one that is due, and three that a peer sent
/// without waiting for the reply, which no real client does.
pub(super) const BLOCKS_WAITING_MAX: usize = 4;

/// What completes a frame at this point of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its end: rule P2SN-EXCHANGE-END.
    AtEnd,
    /// Its end, or that many characters, which are one block: rule P2SN-BARE-BLOCK.
    AtBlock(usize),
}

impl Cut {
    /// Returns how many bytes may wait to be cut.
    const fn waiting_bytes_max(self) -> usize {
        match self {
            Self::AtEnd => EXCHANGE_FRAME_BYTES_MAX + 1,
            Self::AtBlock(block) => BLOCKS_WAITING_MAX * (block + 1),
        }
    }
}

/// Bytes that came and are no whole frame yet.
#[derive(Default)]
pub(super) struct Frames {
    waiting: Vec<u8>,
    /// A block was taken for a frame without its end, which may still come.
    swallow_end: bool,
}

impl Frames {
    /// Takes as many of the bytes as may wait, and returns how many these are.
    pub(super) fn push(&mut self, bytes: &[u8], cut: Cut) -> usize {
        let room = cut.waiting_bytes_max().saturating_sub(self.waiting.len());
        let taken = room.min(bytes.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Takes the next frame, without its end.
    pub(super) fn next(&mut self, cut: Cut) -> Option<Vec<u8>> {
        self.swallow_late_end();
        let end = self.waiting.iter().position(|&b| b == END);
        match (end, cut) {
            (Some(end), Cut::AtBlock(block)) if end > block => Some(self.take_block(block)),
            (Some(end), _) => {
                let mut frame: Vec<u8> = self.waiting.drain(..=end).collect();
                frame.pop();
                Some(frame)
            }
            (None, Cut::AtBlock(block)) if self.waiting.len() >= block => {
                Some(self.take_block(block))
            }
            (None, _) => None,
        }
    }

    fn take_block(&mut self, block: usize) -> Vec<u8> {
        self.swallow_end = true;
        self.waiting.drain(..block).collect()
    }

    fn swallow_late_end(&mut self) {
        if !self.swallow_end || self.waiting.is_empty() {
            return;
        }
        self.swallow_end = false;
        if self.waiting[0] == END {
            self.waiting.remove(0);
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} bytes wait)", self.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(frames: &mut Frames, cut: Cut) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| frames.next(cut)).collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_come_in() {
        let mut whole = Frames::default();
        whole.push(b"one\x04two\x04th", Cut::AtEnd);
        assert_eq!(
            all(&mut whole, Cut::AtEnd),
            [b"one".to_vec(), b"two".to_vec()]
        );
        whole.push(b"ree\x04", Cut::AtEnd);
        assert_eq!(all(&mut whole, Cut::AtEnd), [b"three".to_vec()]);

        let mut bytewise = Frames::default();
        let mut got = Vec::new();
        for byte in b"one\x04\x04two\x04" {
            bytewise.push(&[*byte], Cut::AtEnd);
            got.extend(all(&mut bytewise, Cut::AtEnd));
        }
        assert_eq!(got, [b"one".to_vec(), b"".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_bare_block_is_a_frame_and_a_late_end_is_swallowed() {
        let cut = Cut::AtBlock(4);
        let mut frames = Frames::default();
        frames.push(b"AAAA", cut);
        assert_eq!(all(&mut frames, cut), [b"AAAA".to_vec()]);
        frames.push(b"\x04BBBB", cut);
        assert_eq!(all(&mut frames, cut), [b"BBBB".to_vec()]);
        frames.push(b"CCCC\x04DD\x04", cut);
        assert_eq!(all(&mut frames, cut), [b"CCCC".to_vec(), b"DD".to_vec()]);
    }

    #[test]
    fn only_one_late_end_is_swallowed() {
        let cut = Cut::AtBlock(4);
        let mut frames = Frames::default();
        frames.push(b"AAAA", cut);
        assert_eq!(all(&mut frames, cut), [b"AAAA".to_vec()]);

        frames.push(b"\x04\x04", cut);

        assert_eq!(all(&mut frames, cut), [b"".to_vec()]);
    }

    #[test]
    fn no_more_bytes_wait_than_the_phase_allows() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(&[b'x'; 70_000], Cut::AtEnd), 8_193);
        assert_eq!(frames.push(b"x", Cut::AtEnd), 0);
        assert_eq!(frames.next(Cut::AtEnd), None);

        let mut frames = Frames::default();
        assert_eq!(frames.push(&[b'x'; 70_000], Cut::AtBlock(172)), 692);
        assert_eq!(frames.push(b"x", Cut::AtBlock(172)), 0);
    }

    #[test]
    fn the_longest_frame_of_the_exchange_passes() {
        let mut frames = Frames::default();
        let frame = [&[b'x'; 8_192][..], &[END]].concat();

        assert_eq!(frames.push(&frame, Cut::AtEnd), 8_193);

        assert_eq!(frames.next(Cut::AtEnd).map(|f| f.len()), Some(8_192));
    }
}
