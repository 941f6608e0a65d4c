//! The native form: frames of integers, the messages that carry them, and their ids.
//!
//! Specified in `proto-specs/iid.md`, section 9. Who may send what, how old it may be and whether
//! it came before is the receiver's business (`receiver.rs`). Nothing in here signs: gossipsub
//! signs the message, and so vouches for its source.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;

use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};

pub use super::layout::{
    FRAME_IIDS_MAX, HEAD_BYTES, MESSAGE_BYTES_MAX, Sequence, TTL_MS_MAX, VERSION,
};
use super::refusal::{FormError, Ignored, Refusal};
use super::{IID_BYTES, Iid, Index, field};

/// The gossipsub topic that carries all integers.
pub const TOPIC: &str = "/pimesh/iid/1";

/// The length of a gossipsub message id.
pub const MESSAGE_ID_BYTES: usize = 20;

const FLAG_BRIDGED: u8 = 1;
const FLAG_HELD: u8 = 2;

/// The length of the longest frame, only used to guess how many a message holds.
const FRAME_BYTES_MAX: usize = HEAD_BYTES + FRAME_IIDS_MAX * IID_BYTES;

/// Says how the IIDs of a frame entered the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The node that sends them made them.
    Native,
    /// A client made them, and the node that sends them is its gateway.
    Bridged,
}

/// Says for how long after it was sent a frame is worth delivering: 1 to 600,000 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

/// Holds what is said once for all IIDs of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How the IIDs entered the mesh.
    pub entry: Entry,
    /// Whether the dates say when to carry the values out, rather than when they were sent.
    pub held: bool,
    /// How long the frame is worth delivering.
    pub ttl: Ttl,
    /// The number of the frame.
    pub sequence: Sequence,
    /// When the origin sent the frame, in Unix milliseconds of its corrected clock.
    pub sent_ms: u64,
}

/// Is a frame to send: a head and 1 to 64 IIDs.
///
/// ```text
///  0        1        2        3        4
///  version  flags    count n  0        ttl in ms
///  8                                   16
///  sequence                            sent, Unix ms
/// 24
///  n IIDs of 16 bytes                  all little endian
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    head: Head,
    iids: Vec<Iid>,
}

/// Is a received frame, its IIDs still in the bytes they came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef<'a> {
    head: Head,
    iids: &'a [[u8; IID_BYTES]],
}

/// Is a received message: one frame or more, their sequences strictly growing.
///
/// A frame says how long it is, so frames follow each other without anything between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    frames: Vec<FrameRef<'a>>,
}

impl Ttl {
    /// The longest time to live.
    pub const MAX: Ttl = Ttl(TTL_MS_MAX);

    /// The usual time to live.
    pub const DEFAULT: Ttl = Ttl(10_000);

    /// Makes a time to live of that many milliseconds.
    ///
    /// # Errors
    /// Fails on 0 and on more than [`Ttl::MAX`].
    pub fn from_ms(ms: u32) -> Result<Ttl, FormError> {
        match ms {
            1..=TTL_MS_MAX => Ok(Ttl(ms)),
            _ => Err(FormError::Ttl(ms)),
        }
    }

    /// Returns the time to live of a frame of values to be carried out at their dates.
    ///
    /// That is the usual time after the latest date that can be read, as far as [`Ttl::MAX`]
    /// allows: a node that joins meanwhile can still be told.
    pub fn of_held(iids: &[Iid], now_ms: u64) -> Ttl {
        let latest_ms = iids
            .iter()
            .filter_map(|iid| iid.date.reading().unix_ms)
            .max();
        let latest_ms = latest_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        let wait_ms = latest_ms.saturating_sub(now_ms);
        u32::try_from(wait_ms)
            .map_or(Ttl::MAX, |wait_ms| {
                Ttl(wait_ms.saturating_add(Ttl::DEFAULT.0))
            })
            .min(Ttl::MAX)
    }

    /// Returns the milliseconds.
    pub const fn as_ms(self) -> u32 {
        self.0
    }
}

impl Head {
    fn encode(self, count: u8) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.flags();
        bytes[2] = count;
        bytes[4..8].copy_from_slice(&self.ttl.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.sent_ms.to_le_bytes());
        bytes
    }

    fn flags(self) -> u8 {
        let bridged = match self.entry {
            Entry::Native => 0,
            Entry::Bridged => FLAG_BRIDGED,
        };
        let held = if self.held { FLAG_HELD } else { 0 };
        bridged | held
    }

    /// Decodes a head and the number of IIDs that follow it.
    fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<(Head, usize), FormError> {
        let [version, flags, count, reserved] = field(bytes, 0);
        if version != VERSION {
            return Err(FormError::Version(version));
        }
        if flags & !(FLAG_BRIDGED | FLAG_HELD) != 0 {
            return Err(FormError::Flags(flags));
        }
        if reserved != 0 {
            return Err(FormError::Reserved(reserved));
        }
        let count = usize::from(count);
        check_count(count)?;
        let head = Head {
            entry: if flags & FLAG_BRIDGED == 0 {
                Entry::Native
            } else {
                Entry::Bridged
            },
            held: flags & FLAG_HELD != 0,
            ttl: Ttl::from_ms(u32::from_le_bytes(field(bytes, 4)))?,
            sequence: Sequence(u64::from_le_bytes(field(bytes, 8))),
            sent_ms: u64::from_le_bytes(field(bytes, 16)),
        };
        Ok((head, count))
    }
}

impl Frame {
    /// Puts the IIDs under the head.
    ///
    /// # Errors
    /// Fails unless there are 1 to [`FRAME_IIDS_MAX`] IIDs.
    pub fn new(head: Head, iids: Vec<Iid>) -> Result<Frame, FormError> {
        check_count(iids.len())?;
        Ok(Frame { head, iids })
    }

    /// Decodes a message of one frame.
    ///
    /// # Errors
    /// Fails as [`FrameRef::decode`] does.
    pub fn decode(bytes: &[u8]) -> Result<Frame, Refusal> {
        FrameRef::decode(bytes).map(FrameRef::to_frame)
    }

    /// Encodes the frame; the result is a whole message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        self.encode_into(&mut bytes);
        bytes
    }

    /// Returns the length of the encoded frame.
    pub fn encoded_bytes(&self) -> usize {
        HEAD_BYTES + self.iids.len() * IID_BYTES
    }

    /// Returns the head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Returns the IIDs.
    pub fn iids(&self) -> &[Iid] {
        &self.iids
    }

    /// Takes the frame apart into its IIDs.
    pub fn into_iids(self) -> Vec<Iid> {
        self.iids
    }

    fn encode_into(&self, bytes: &mut Vec<u8>) {
        let count = u8::try_from(self.iids.len()).expect("a frame holds at most 64 IIDs");
        bytes.extend_from_slice(&self.head.encode(count));
        for iid in &self.iids {
            bytes.extend_from_slice(&iid.encode());
        }
    }
}

impl<'a> FrameRef<'a> {
    /// Decodes a message of one frame.
    ///
    /// # Errors
    /// Fails if the bytes are of another version, or not exactly one frame.
    pub fn decode(bytes: &'a [u8]) -> Result<FrameRef<'a>, Refusal> {
        check_version(bytes)?;
        let (frame, rest) = FrameRef::split_from(bytes)?;
        match rest.len() {
            0 => Ok(frame),
            trailing => Err(FormError::Trailing(trailing).into()),
        }
    }

    /// Returns the head.
    pub fn head(self) -> Head {
        self.head
    }

    /// Decodes the IIDs, one after the other.
    pub fn iids(self) -> impl ExactSizeIterator<Item = Iid> + use<'a> {
        self.iids.iter().map(Iid::decode)
    }

    /// Copies the frame out of the bytes it came in.
    pub fn to_frame(self) -> Frame {
        Frame {
            head: self.head,
            iids: self.iids().collect(),
        }
    }

    /// Decodes the frame at the front, and returns it with what follows.
    fn split_from(bytes: &'a [u8]) -> Result<(FrameRef<'a>, &'a [u8]), FormError> {
        let Some((head, rest)) = bytes.split_first_chunk() else {
            return Err(FormError::Short(bytes.len()));
        };
        let (head, count) = Head::decode(head)?;
        let expected = count * IID_BYTES;
        let Some((iids, rest)) = rest.split_at_checked(expected) else {
            return Err(FormError::Iids {
                expected,
                got: rest.len(),
            });
        };
        let (iids, _) = iids.as_chunks();
        Ok((FrameRef { head, iids }, rest))
    }
}

impl<'a> Message<'a> {
    /// Decodes a message.
    ///
    /// The first byte is the version of the whole message, so that it can be told apart from
    /// frames followed by rubbish.
    ///
    /// # Errors
    /// Fails if the message is of another version, is longer than [`MESSAGE_BYTES_MAX`], or is not
    /// made of frames with strictly growing sequences. One bad frame spoils all of them.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        check_version(bytes)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(FormError::Long(bytes.len()).into());
        }
        let mut frames: Vec<FrameRef<'_>> =
            Vec::with_capacity(bytes.len().div_ceil(FRAME_BYTES_MAX));
        let mut rest = bytes;
        while !rest.is_empty() {
            let (frame, after) = FrameRef::split_from(rest)?;
            if let Some(before) = frames.last() {
                check_order(before.head, frame.head)?;
            }
            frames.push(frame);
            rest = after;
        }
        Ok(Message { frames })
    }

    /// Encodes frames as one message.
    ///
    /// # Errors
    /// Fails if there is no frame, if the sequences do not grow, or if the message would be longer
    /// than [`MESSAGE_BYTES_MAX`].
    pub fn encode(frames: &[Frame]) -> Result<Vec<u8>, FormError> {
        let length = frames.iter().map(Frame::encoded_bytes).sum();
        if length == 0 {
            return Err(FormError::Short(0));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(FormError::Long(length));
        }
        for pair in frames.windows(2) {
            check_order(pair[0].head, pair[1].head)?;
        }
        let mut bytes = Vec::with_capacity(length);
        for frame in frames {
            frame.encode_into(&mut bytes);
        }
        Ok(bytes)
    }

    /// Returns the frames, at least one.
    pub fn frames(&self) -> &[FrameRef<'a>] {
        &self.frames
    }
}

impl<'a> From<FrameRef<'a>> for Message<'a> {
    fn from(frame: FrameRef<'a>) -> Message<'a> {
        Message {
            frames: vec![frame],
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the one index that a peer in no list may use.
pub fn guest_index(peer: &PeerId) -> Index {
    let digest: [u8; 32] = Sha256::digest(peer.to_bytes()).into();
    let low = u32::from_le_bytes(field(&digest, 0)) & 0x7fff_ffff;
    Index(-1 - low.cast_signed())
}

/// Returns the gossipsub id of the message whose first frame has this sequence.
pub fn message_id(source: &PeerId, sequence: Sequence) -> [u8; MESSAGE_ID_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(source.to_bytes())
        .chain_update(sequence.0.to_le_bytes())
        .finalize()
        .into();
    field(&digest, 0)
}

/// Returns the gossipsub id of a message that is not decoded.
///
/// Gossipsub asks for the id before anybody looks at the message. One too short to have a sequence
/// gets the id of sequence 0: it is rejected whatever its id.
pub fn message_id_of(source: &PeerId, message: &[u8]) -> [u8; MESSAGE_ID_BYTES] {
    let sequence = match message.get(8..16) {
        Some(bytes) => Sequence(u64::from_le_bytes(field(bytes, 0))),
        None => Sequence::default(),
    };
    message_id(source, sequence)
}

/// Looks at the version of a message; only a frame's length of bytes has one.
fn check_version(bytes: &[u8]) -> Result<(), Refusal> {
    match bytes {
        [VERSION, ..] if bytes.len() >= HEAD_BYTES => Ok(()),
        [version, ..] if bytes.len() >= HEAD_BYTES => {
            Err(Refusal::Ignore(Ignored::Version(*version)))
        }
        _ => Err(FormError::Short(bytes.len()).into()),
    }
}

fn check_count(count: usize) -> Result<(), FormError> {
    match count {
        1..=FRAME_IIDS_MAX => Ok(()),
        _ => Err(FormError::Count(count)),
    }
}

fn check_order(first: Head, then: Head) -> Result<(), FormError> {
    if first.sequence < then.sequence {
        return Ok(());
    }
    Err(FormError::Order {
        first: first.sequence,
        then: then.sequence,
    })
}
