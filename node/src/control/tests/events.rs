//! Followers of events and of integers, quick ones and slow ones.

use futures::StreamExt;

use super::*;
use crate::control::api::{EventBody, KINDS, Lost, kind};

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
    let Some(Ok(EventBody::Integers { integers })) = all.next().await else {
        panic!("another kind")
    };
    assert_eq!(integers.len(), 2);
}

#[test]
fn every_event_is_of_the_kind_that_its_json_says() {
    let refused = Event::Refused {
        peer: None,
        what: "certificate",
        why: "expired",
    };
    let counted = Event::Counted {
        what: "message_resent",
        times: 2,
    };
    for event in [
        integers([1]),
        removed("a"),
        Event::Revoked,
        refused,
        counted,
        Event::ClockDoubted { ahead_ms: 1 },
        Event::ClockBelieved,
    ] {
        let json = serde_json::to_value(EventBody::from(&event)).expect("encodes");
        assert_eq!(json["event"], kind(&event));
        assert!(KINDS.contains(&kind(&event)));
    }
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
            EventBody::Integers { integers } => {
                let Value(value) = integers[0].value;
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
