//! `Debug` prints no text of a message and no ticket, of what the control socket takes and gives.

use super::*;
use crate::{
    control::api::{EventBody, HistoryRow, Join, NewMessage},
    gateway::p2sn::{NewP2snMessage, P2snReplied},
    state::io::{Party, Recipients, SendVia, Via},
};

const HIDDEN: &str = "hunter2";

fn printed(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    assert!(!text.contains(HIDDEN), "{text}");
    text
}

#[test]
fn bodies_print_how_long_a_text_is_and_not_the_text() {
    let text = || HIDDEN.to_owned();
    printed(&Join { ticket: text() });
    let message = NewMessage {
        to: Recipients::All,
        text: text(),
        via: SendVia::Direct,
        expiry_s: None,
    };
    assert!(printed(&message).contains("text: 7 bytes"));
    printed(&NewP2snMessage {
        to: "old".to_owned(),
        text: text(),
        timeout_s: None,
    });
    printed(&P2snReplied {
        address: "old:3615".to_owned(),
        fingerprint: String::new(),
        bits: 2048,
        reply: text(),
        reply_hex: Some(text()),
    });
    let history = HistoryRow {
        row: 1,
        id: MessageId([1; 16]),
        name: "pi-2".to_owned(),
        name_then: None,
        peer_id: peer().to_string(),
        created_ms: 1,
        at_ms: 2,
        via: "direct".to_owned(),
        outcome: String::new(),
        text: text(),
        encoding: Encoding::Utf8,
    };
    assert!(printed(&history).contains("text: 7 bytes"));
    let received = report::Received {
        id: MessageId([1; 16]),
        from: "pi-2".to_owned(),
        peer_id: Party::Member(peer()),
        created_ms: 1,
        received_ms: 2,
        via: Via::Direct,
        text: text(),
        encoding: Encoding::Utf8,
    };
    assert!(printed(&EventBody::Received(received)).contains("text: 7 bytes"));
}
