//! Followers of events and of integers, quick ones and slow ones.

use futures::StreamExt;

use super::*;
use crate::control::api::{EventBody, Lost};

#[tokio::test]
async fn a_follower_gets_the_kinds_it_wants_from_the_moment_it_is_told() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut all = fixture.client.events().await.expect("follows");
    let mut some = fixture
        .client
        .events_of(&["member_removed", "sent"])
        .await
        .expect("follows");

    for event in [integers([1, 2]), removed("a"), Event::Revoked, removed("b")] {
        fixture.events.tell(event);
    }

    let mut names = Vec::new();
    for _ in 0..2 {
        let Some(Ok(EventBody::MemberRemoved { name, .. })) = some.next().await else {
            panic!("another kind")
        };
        names.push(name);
    }
    assert_eq!(names, ["a", "b"]);
    let Some(Ok(EventBody::Integers(heard))) = all.next().await else {
        panic!("another kind")
    };
    assert_eq!(heard.singles().len(), 2);
}

/// An event of each kind, as its readers know it. Names in here are part of the interface.
const JSON: &str = include_str!("events.jsonl");

#[test]
fn every_event_is_told_as_its_readers_know_it() {
    let mut kinds = Vec::new();
    for line in JSON.lines() {
        let event: EventBody = serde_json::from_str(line).expect(line);
        let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(json["event"], event.kind());
        assert_eq!(serde_json::to_value(&event).expect("encodes"), json);
        kinds.push(event.kind());
    }
    assert_eq!(kinds, EventBody::KINDS, "one of each, in their order");
}

/// Sends more than a reader that does not read can be behind; returns the last value.
fn flood(fixture: &Fixture) -> i32 {
    let last = 20_000;
    for value in 0..=last {
        // A reader may already be gone.
        fixture.events.tell(integers([value]));
    }
    last
}

#[tokio::test]
async fn a_slow_follower_loses_the_oldest_events_and_is_told_how_many() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut events = fixture
        .client
        .events_of(&["integers"])
        .await
        .expect("follows");

    let last = flood(&fixture);

    let (mut lost, mut seen, mut newest) = (0, 0, -1);
    while newest < last {
        match events.next().await.expect("goes on").expect("is legal") {
            EventBody::Lagged { lost: more } => lost += more,
            EventBody::Integers(heard) => {
                let Value(value) = heard.iids[0].value;
                assert!(value > newest, "out of order");
                newest = value;
                seen += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0);
    assert_eq!(lost + seen, 20_001, "each is seen or counted as lost");
}

#[tokio::test]
async fn a_slow_listener_reads_how_much_it_lost_between_the_integers() {
    let fixture = Fixture::serving(|_| panic!("nothing is asked"));
    let mut lines = fixture.client.integer_lines().await.expect("follows");

    let last = flood(&fixture);

    let (mut lost, mut seen, mut newest) = (0, 0, -1);
    while newest < last {
        let line = lines.next().await.expect("goes on").expect("is legal");
        if let Ok(Lost { lost: more }) = serde_json::from_str(&line) {
            lost += more;
            continue;
        }
        let integer: report::Integer = serde_json::from_str(&line).expect("an integer");
        newest = integer.value.0;
        seen += 1;
    }
    assert!(lost > 0);
    assert_eq!(lost + seen, 20_001, "each is seen or counted as lost");
}
