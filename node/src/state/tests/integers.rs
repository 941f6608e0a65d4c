//! Integers: whose are taken, which is the last value, and who sends too many.

use super::*;
use crate::proto::mesh::sync::LastInteger;

#[test]
fn a_member_speaks_for_its_own_index_only() {
    let mut state = state(Settings::default());

    assert_eq!(gossip(&mut state, 2, 1, 1), Verdict::Accept);
    // Who owns which index may be news on its way to us, so the neighbour is not blamed.
    assert_eq!(gossip(&mut state, 1, 2, 1), Verdict::Ignore);
    let known: Vec<Index> = state.report_last().iter().map(|i| i.index).collect();
    assert_eq!(known, [Index(2)]);
}

/// More messages than a member may send of no use.
const MANY: u64 = 6_000;

#[derive(Clone, Copy)]
enum Way {
    Line,
    Gossip,
}

/// Takes a message of the member with seed 2; says whether its connection is closed.
fn is_closed_by(state: &mut State, way: Way, sequence: u64) -> bool {
    let source = peer_of_seed(2);
    let frame = IntegerFrame::new(head(sequence), vec![iid(2, 1)]).expect("legal");
    let bytes = frame.encode();
    let input = match way {
        Way::Line => NetInput::Live { source, bytes },
        Way::Gossip => NetInput::Gossip {
            source,
            from: source,
            id: GossipId(sequence),
            bytes,
        },
    };
    let outputs = feed(state, Input::Net(input));
    let close = |output: &Output| matches!(output, Output::Net(NetOutput::Close { .. }));
    outputs.iter().any(close)
}

#[test]
fn gossip_that_overtakes_the_line_costs_its_author_nothing() {
    let mut state = state(Settings::default());
    open(&mut state);
    for sequence in 1..=MANY {
        for way in [Way::Gossip, Way::Line] {
            assert!(!is_closed_by(&mut state, way, sequence), "{sequence}");
        }
    }
}

#[test]
fn neither_way_costs_anything_that_is_far_behind_the_other() {
    for (first, second) in [(Way::Gossip, Way::Line), (Way::Line, Way::Gossip)] {
        let mut state = state(Settings::default());
        open(&mut state);
        for way in [first, second] {
            for sequence in 1..=MANY {
                assert!(!is_closed_by(&mut state, way, sequence), "{sequence}");
            }
        }
    }
}

#[test]
fn a_member_that_repeats_itself_on_its_line_loses_its_connection() {
    for first in [Way::Line, Way::Gossip] {
        let mut state = state(Settings::default());
        open(&mut state);
        assert!(!is_closed_by(&mut state, first, 1));
        assert!(!is_closed_by(&mut state, Way::Line, 1));

        let closes = (0..MANY).any(|_| is_closed_by(&mut state, Way::Line, 1));

        assert!(closes);
    }
}

#[test]
fn an_integer_that_was_overtaken_is_not_the_last_value() {
    let mut state = state(Settings::default());

    hear(&mut state, &[iid(2, 20)], head(11), NOW);
    let outputs = hear(&mut state, &[iid(2, 10)], head(10), NOW);

    assert_eq!(verdict(&outputs), Verdict::Accept);
    assert_eq!(last_value(&state, 2), Some(20));
}

#[test]
fn an_integer_that_was_overtaken_by_a_handed_over_one_is_not_the_last_value() {
    let mut state = state(Settings::default());
    open(&mut state);
    let last = LastInteger {
        iid: iid(2, 20),
        source: peer_of_seed(2),
        sent_ms: NOW.unix_ms() + 5,
    };
    let request = SyncRequest {
        last: vec![last],
        ..SyncRequest::default()
    };
    sync(&mut state, &request, NOW);

    hear(&mut state, &[iid(2, 10)], head(10), NOW);
    let overtaken = last_value(&state, 2);
    // As after the sender's clock was set back by a minute.
    let set_back = Head {
        sent_ms: NOW.unix_ms() - 60_000,
        ttl: Ttl::from_ms(100_000).expect("legal"),
        ..head(11)
    };
    hear(&mut state, &[iid(2, 30)], set_back, NOW);

    assert_eq!((overtaken, last_value(&state, 2)), (Some(20), Some(30)));
}

#[test]
fn a_value_handed_over_from_far_ahead_gives_way_to_a_live_one() {
    let mut state = state(Settings::default());
    open(&mut state);
    let last = |state: &State| state.report_last().first().map(|last| last.value.0);

    sync_last(&mut state, 6, NOW.unix_ms() - 10);
    sync_last(&mut state, 7, NOW.unix_ms() - 20);
    assert_eq!(last(&state), Some(6));
    sync_last(&mut state, 5, u64::MAX);
    assert_eq!(last(&state), Some(5));
    assert_eq!(gossip(&mut state, 2, 1, 1), Verdict::Accept);
    assert_eq!(last(&state), Some(1));
}

/// Tells the last integer of the member with seed 2, as sync does.
fn sync_last(state: &mut State, value: i32, sent_ms: u64) {
    sync_last_of(state, peer_of_seed(2), &[2], value, sent_ms);
}

/// Has the member with seed 2 tell last integers of a source.
fn sync_last_of(state: &mut State, source: PeerId, indices: &[i32], value: i32, sent_ms: u64) {
    let last = indices.iter().map(|index| LastInteger {
        iid: Iid {
            index: Index(*index),
            value: Value(value),
            date: Date(sent_ms),
        },
        source,
        sent_ms,
    });
    let request = SyncRequest {
        last: last.collect(),
        ..SyncRequest::default()
    };
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Sync,
        id: InboundId(9),
        bytes: request.encode(),
    };
    feed(state, Input::Net(input));
}

#[test]
fn a_last_value_is_believed_from_its_source_alone() {
    let mut state = state(Settings::default());
    open(&mut state);
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    outputs(&mut state);

    sync_last_of(&mut state, peer_of_seed(3), &[3], 5, NOW.unix_ms());
    sync_last_of(&mut state, peer_of_seed(1), &[1], 5, NOW.unix_ms());
    sync_last(&mut state, 6, NOW.unix_ms());

    let values = [1, 2, 3].map(|index| last_value(&state, index));
    assert_eq!(values, [None, Some(6), None]);
}

#[test]
fn a_node_tells_its_own_last_values_and_no_others() {
    let mut state = state(Settings::default());
    hear(&mut state, &[iid(2, 7)], head(1), NOW);
    say(&mut state, 1, NOW).expect("within the budget");

    let told = told(&open(&mut state));

    let sources: Vec<PeerId> = told[0].1.last.iter().map(|last| last.source).collect();
    assert_eq!(sources, [peer_of_seed(1)]);
}

#[test]
fn a_last_value_from_the_future_keeps_none_of_another_source_out() {
    let gateway = mesh_key().issue(Terms {
        vouched: Vouched::ALL,
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&gateway, [0; 32], Settings::default());
    let third = mesh_key().issue(Terms {
        vouched: Vouched::ALL,
        ..certificate(3).terms().clone()
    });
    state.learn_statements(vec![third.encode()], vec![], NOW);
    outputs(&mut state);
    let last = |source: u8, value: i32, sent_ms: u64| LastInteger {
        iid: iid(500, value),
        source: peer_of_seed(source),
        sent_ms,
    };

    state.learn_last_values(peer_of_seed(2), vec![last(2, 1, u64::MAX)], NOW);
    state.learn_last_values(peer_of_seed(3), vec![last(3, 2, NOW.unix_ms())], NOW);

    assert_eq!(last_value(&state, 500), Some(2));
}

#[test]
fn a_member_with_very_many_indices_pushes_out_its_own_last_values_only() {
    let gateway = mesh_key().issue(Terms {
        vouched: Vouched::ALL,
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&gateway, [0; 32], Settings::default());
    open(&mut state);
    say(&mut state, 1, NOW).expect("within the budget");
    let others = certificate(3);
    state.learn_statements(vec![others.encode()], vec![], NOW);
    let first: Vec<i32> = (1_000..1_000 + 4_096).collect();

    sync_last_of(&mut state, peer_of_seed(2), &first, 1, NOW.unix_ms());
    let third = LastInteger {
        iid: iid(3, 9),
        source: peer_of_seed(3),
        sent_ms: NOW.unix_ms(),
    };
    state.learn_last_values(peer_of_seed(3), vec![third], NOW);
    sync_last_of(&mut state, peer_of_seed(2), &[900, 901], 1, NOW.unix_ms());

    assert_eq!(state.report_last().len(), 4_096);
    assert!(last_value(&state, 1).is_some(), "this node's own");
    assert_eq!(last_value(&state, 3), Some(9));
    assert_eq!(last_value(&state, 901), Some(1));
    assert_eq!(last_value(&state, 1_000), None, "its first one gave way");
}

#[test]
fn a_frame_with_several_indices_has_a_last_value_of_each() {
    let gateway = mesh_key().issue(Terms {
        vouched: Vouched::range(300, 399).expect("legal"),
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&gateway, [0; 32], Settings::default());
    let bridged = Head {
        entry: Entry::Bridged,
        ..head(1)
    };

    hear(
        &mut state,
        &[iid(300, 1), iid(301, 2), iid(300, 3)],
        bridged,
        NOW,
    );

    assert_eq!(
        (last_value(&state, 300), last_value(&state, 301)),
        (Some(3), Some(2))
    );
}

#[test]
fn a_sender_over_its_budget_is_ignored_and_not_blamed() {
    let mut state = state(Settings {
        budget_per_second: 1,
        budget_burst: 64,
        ..Settings::default()
    });

    assert_eq!(gossip(&mut state, 2, 1, 64), Verdict::Accept);
    let outputs = {
        assert_eq!(gossip(&mut state, 2, 2, 1), Verdict::Ignore);
        outputs(&mut state)
    };
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::Event(Event::Integers(_))))
    );
}

#[test]
fn integers_that_were_too_many_at_once_are_counted_against_their_sender() {
    let mut state = state(Settings::default());
    let source = certificate(2).terms().peer;

    let outputs = feed(&mut state, Input::Net(NetInput::LiveTooLong { source }));

    let is_counted = |output: &Output| {
        matches!(output, Output::Event(Event::Refused { peer: Some(peer), what: "integer", why: "too_long" })
            if *peer == source)
    };
    assert!(outputs.iter().any(is_counted), "{outputs:?}");
}

fn say(state: &mut State, count: i32, now: Now) -> Result<usize, Failure> {
    let command = Command::Integers {
        index: None,
        values: (0..count).map(Value).collect(),
        at: None,
    };
    state.handle(Input::Control(RequestId(1), command), now);
    let outputs = outputs(state);
    let sent = outputs
        .iter()
        .filter(|output| matches!(output, Output::Net(NetOutput::Publish { .. })));
    let sent = sent.count();
    let reply = outputs.into_iter().find_map(|output| match output {
        Output::Reply(_, result) => Some(result),
        _ => None,
    });
    match reply.expect("an answer") {
        Ok(Reply::Published(published)) => {
            assert!(sent > 0, "said to be sent");
            Ok(published.count)
        }
        Ok(other) => panic!("not published: {other:?}"),
        Err(failure) => {
            assert_eq!(sent, 0, "not said to be sent");
            Err(failure)
        }
    }
}

#[test]
fn a_node_sends_no_more_than_the_others_take_and_says_when_it_can() {
    let mut state = state(Settings {
        budget_per_second: 1_000,
        budget_burst: 2_000,
        ..Settings::default()
    });
    let later = |ms| later(Duration::from_millis(ms));

    // 95 of 100, so that what arrives closer together is still taken.
    assert_eq!(say(&mut state, 1_900, NOW), Ok(1_900));
    let over = say(&mut state, 500, NOW).expect_err("over budget");

    // A tenth of a second's worth at a time.
    let budget = over.over_budget.expect("when to try again");
    assert_eq!((budget.fits, budget.retry_ms), (0, 100));
    let over = say(&mut state, 500, later(100)).expect_err("not all");
    assert_eq!(over.over_budget.map(|budget| budget.fits), Some(95));
    assert_eq!(say(&mut state, 95, later(100)), Ok(95));
    let over = say(&mut state, 10, later(101)).expect_err("over budget");
    assert_eq!(over.over_budget.map(|budget| budget.retry_ms), Some(10));
    assert_eq!(say(&mut state, 10, later(111)), Ok(10));
}
