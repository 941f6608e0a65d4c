//! The known answers of `proto-specs/vectors`.

use serde::Deserialize;

use super::super::native::guest_index;
use super::*;

#[derive(Deserialize)]
struct Native {
    registry: BTreeMap<String, Vec<i32>>,
    gateways: BTreeMap<String, Vec<i32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    source: String,
    now_ms: String,
    hex: String,
    verdict: String,
    why: Option<String>,
}

#[test]
fn every_frame_gets_the_recorded_verdict_alone_and_as_a_message() {
    let native: Native = crate::vectors::load("iid/native.json");
    let mut of_frames = Receiver::new();
    let mut of_messages = Receiver::new();

    for case in &native.cases {
        let bytes = hex::decode(&case.hex).unwrap();
        let frame = FrameRef::decode(&bytes).map(Message::from);
        let message = Message::decode(&bytes);
        assert_verdict(&native, case, &mut of_frames, frame);
        assert_verdict(&native, case, &mut of_messages, message);
    }

    crate::vectors::checked("iid/native.json", native.cases.len());
}

fn assert_verdict(
    native: &Native,
    case: &Case,
    receiver: &mut Receiver,
    decoded: Result<Message<'_>, Refusal>,
) {
    let source: PeerId = case.source.parse().unwrap();
    let now_ms = case.now_ms.parse().unwrap();
    let may_send = |index, entry| may_send(native, &source, index, entry);
    let judged = decoded.and_then(|message| receiver.receive(&source, &message, may_send, now_ms));
    let (verdict, why) = match judged {
        Ok(()) => ("accept", None),
        Err(Refusal::Ignore(ignored)) => ("ignore", Some(ignored.name())),
        Err(Refusal::Reject(rejected)) => ("reject", Some(rejected.name())),
    };
    assert_eq!(
        (verdict, why),
        (case.verdict.as_str(), case.why.as_deref()),
        "{}",
        case.name
    );
}

/// A peer in no list has one guest index; a gateway speaks for its clients, and only so.
fn may_send(native: &Native, source: &PeerId, index: Index, entry: Entry) -> bool {
    let name = source.to_string();
    let has = |list: &BTreeMap<String, Vec<i32>>| {
        list.get(&name)
            .is_some_and(|indices| indices.contains(&index.0))
    };
    match entry {
        Entry::Bridged => has(&native.gateways),
        Entry::Native if native.registry.contains_key(&name) => has(&native.registry),
        Entry::Native => index == guest_index(source),
    }
}
