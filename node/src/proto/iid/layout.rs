//! Sizes and numbers of the native form, for those who read it and those who say what is wrong.
//!
//! Specified in `proto-specs/iid.md`, section 9.

/// The version in the first byte of every frame.
pub const VERSION: u8 = 1;

/// The length of a frame's head.
pub const HEAD_BYTES: usize = 24;

/// The most IIDs in one frame: a frame stays below 1,100 bytes, small enough for any link.
pub const FRAME_IIDS_MAX: usize = 64;

/// The most bytes in one message; enough for 62 full frames, that is 3,968 integers.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The longest time to live: a value that is later than this is of no use to anybody.
pub const TTL_MS_MAX: u32 = 600_000;

/// Counts the frames of one origin, strictly growing; a restart never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);
