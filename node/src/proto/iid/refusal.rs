//! Why a message of the native form is turned down, and whether anybody is to blame.
//!
//! Specified in `proto-specs/iid.md`, section 9. The names are part of the interface: counters are
//! called by them. Deciding is done where messages are decoded (`native.rs`) and judged
//! (`receiver.rs`).

use super::Index;
use super::layout::{FRAME_IIDS_MAX, HEAD_BYTES, MESSAGE_BYTES_MAX, Sequence, TTL_MS_MAX, VERSION};

/// Says why a received message is not handed out, and whether that counts against its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An honest node may have sent it: it is dropped, and nobody is blamed.
    #[error(transparent)]
    Ignore(Ignored),
    /// No honest node sends it: it is dropped, and counts against whoever passed it on.
    #[error(transparent)]
    Reject(Rejected),
}

/// Says why a message is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is of a later version.
    #[error("a message of version {0}, expected {VERSION}")]
    Version(u8),
    /// It was sent later than our clock allows.
    #[error("sent {ahead_ms} ms after our clock")]
    Future {
        /// How far it is ahead of our clock.
        ahead_ms: u64,
    },
    /// It is older than its time to live.
    #[error("sent {age_ms} ms ago, longer than its time to live")]
    Expired {
        /// How long ago it was sent.
        age_ms: u64,
    },
    /// Its sequence was accepted before.
    #[error("sequence {0} came before")]
    Duplicate(Sequence),
    /// Its sequence is so far behind that nobody remembers whether it came before.
    #[error("sequence {0} is too far behind")]
    TooOld(Sequence),
    /// It is of a further source while as many are remembered as there is room for.
    #[error("no room to remember a further source")]
    Crowded,
}

/// Says why a message is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is not made of frames.
    #[error(transparent)]
    Form(FormError),
    /// It speaks for an index that its source may not use.
    #[error("the source may not speak for index {0}")]
    Index(Index),
}

/// Says which rule of the byte form is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// There is less than the head of a frame.
    #[error("a frame begins with {HEAD_BYTES} bytes, got {0}")]
    Short(usize),
    /// A frame after the first is of another version.
    #[error("a frame of version {0} after one of version {VERSION}")]
    Version(u8),
    /// A flag without a meaning is set.
    #[error("unknown flags in {0:#04x}")]
    Flags(u8),
    /// The byte in reserve is not zero.
    #[error("byte 3 is 0, got {0}")]
    Reserved(u8),
    /// The number of IIDs is out of range.
    #[error("a frame holds 1 to {FRAME_IIDS_MAX} IIDs, got {0}")]
    Count(usize),
    /// The time to live is out of range.
    #[error("a time to live is 1 to {TTL_MS_MAX} ms, got {0}")]
    Ttl(u32),
    /// There are fewer IIDs than the frame says.
    #[error("expected {expected} bytes of IIDs, got {got}")]
    Iids {
        /// The bytes the count asks for.
        expected: usize,
        /// The bytes left.
        got: usize,
    },
    /// A lone frame is followed by something.
    #[error("{0} bytes after the frame")]
    Trailing(usize),
    /// A frame does not come after the one before it.
    #[error("sequence {then} follows sequence {first}")]
    Order {
        /// The sequence of the earlier frame.
        first: Sequence,
        /// The sequence of the later frame.
        then: Sequence,
    },
    /// The message is longer than any message may be.
    #[error("a message is at most {MESSAGE_BYTES_MAX} bytes, got {0}")]
    Long(usize),
}

impl Refusal {
    /// Returns the stable name of the reason, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Ignore(ignored) => ignored.name(),
            Refusal::Reject(rejected) => rejected.name(),
        }
    }
}

impl Ignored {
    /// Returns the stable name of the reason, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Ignored::Version(_) => "version",
            Ignored::Future { .. } => "future",
            Ignored::Expired { .. } => "expired",
            Ignored::Duplicate(_) => "duplicate",
            Ignored::TooOld(_) => "too_old",
            Ignored::Crowded => "crowded",
        }
    }
}

impl Rejected {
    /// Returns the stable name of the reason, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Rejected::Form(_) => "form",
            Rejected::Index(_) => "index",
        }
    }
}

impl From<FormError> for Refusal {
    fn from(error: FormError) -> Refusal {
        Refusal::Reject(Rejected::Form(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_stable_names_and_say_what_is_wrong() {
        let reject = Refusal::Reject(Rejected::Index(Index(9)));
        let ignore = Refusal::Ignore(Ignored::Expired { age_ms: 15_001 });

        assert_eq!(reject.name(), "index");
        assert_eq!(reject.to_string(), "the source may not speak for index 9");
        assert_eq!(ignore.name(), "expired");
        assert_eq!(
            ignore.to_string(),
            "sent 15001 ms ago, longer than its time to live"
        );
        assert_eq!(
            FormError::Ttl(0).to_string(),
            "a time to live is 1 to 600000 ms, got 0"
        );
    }
}
