//! `/pimesh/member/1`: requests and answers on one particular connection, open to strangers.
//!
//! Here the answer decides over the very connection that carried the request. Requests of strangers
//! are short, few and have little time.

use std::time::Duration;

use libp2p::StreamProtocol;

use super::{
    exchange::{Exchange, Terms},
    reading::Reading,
};
use crate::proto::mesh::member::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/pimesh/member/1");

/// How long a request may take from first to last byte.
const TIME: Duration = Duration::from_secs(10);

/// Most requests of one peer that are read or answered at once. A handshake needs one, and a peer
/// may have two under way.
const INBOUND_MAX: usize = 4;

/// Bytes of requests that are read at once, of all strangers together.
const READING_BYTES_MAX: usize = 64 * REQUEST_BYTES_MAX;

/// Makes the behaviour.
pub(super) fn behaviour() -> Exchange {
    Exchange::new(Terms {
        protocol: PROTOCOL,
        request_max: REQUEST_BYTES_MAX,
        response_max: RESPONSE_BYTES_MAX,
        time: TIME,
        at_once: INBOUND_MAX,
        inbound_max: INBOUND_MAX,
        reading: Reading::new(READING_BYTES_MAX),
    })
}
