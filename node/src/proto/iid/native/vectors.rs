//! The known answers of `proto-specs/vectors`.

use serde::Deserialize;

use super::super::Value;
use super::*;

#[derive(Deserialize)]
struct Native {
    encode: Vec<Encode>,
    ids: Vec<Id>,
}

#[derive(Deserialize)]
struct Encode {
    name: String,
    seq: String,
    sent_ms: String,
    ttl_ms: u32,
    flags: u8,
    iids: Vec<RecordedIid>,
    hex: String,
}

#[derive(Deserialize)]
struct RecordedIid {
    index: i32,
    value: i32,
    date: String,
}

#[derive(Deserialize)]
struct Id {
    peer_id: String,
    peer_bytes: String,
    guest_index: i32,
    seq: String,
    message_id: String,
}

#[test]
fn frames_and_ids_are_the_recorded_ones() {
    let native: Native = crate::vectors::load("iid/native.json");

    for case in &native.encode {
        let frame = frame(case);
        let bytes = hex::decode(&case.hex).unwrap();
        assert_eq!(frame.encode(), bytes, "{}", case.name);
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{}", case.name);
    }
    for case in &native.ids {
        let peer: PeerId = case.peer_id.parse().unwrap();
        let sequence = Sequence(case.seq.parse().unwrap());
        assert_eq!(hex::encode(peer.to_bytes()), case.peer_bytes, "{peer}");
        assert_eq!(guest_index(&peer), Index(case.guest_index), "{peer}");
        assert_eq!(
            hex::encode(message_id(&peer, sequence)),
            case.message_id,
            "{peer}"
        );
    }

    crate::vectors::checked("iid/native.json", native.encode.len() + native.ids.len());
}

fn frame(case: &Encode) -> Frame {
    let head = Head {
        entry: if case.flags & 1 == 0 {
            Entry::Native
        } else {
            Entry::Bridged
        },
        held: case.flags & 2 != 0,
        ttl: Ttl::from_ms(case.ttl_ms).unwrap(),
        sequence: Sequence(case.seq.parse().unwrap()),
        sent_ms: case.sent_ms.parse().unwrap(),
    };
    let iids = case.iids.iter().map(|iid| Iid {
        index: Index(iid.index),
        value: Value(iid.value),
        date: iid.date.parse().unwrap(),
    });
    Frame::new(head, iids.collect()).unwrap()
}
