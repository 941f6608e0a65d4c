//! What a node says for clients behind its gateways, and what it believes of other gateways:
//! proto-specs/mesh.md, INDEX-BRIDGED.

use super::*;
use crate::proto::iid::native::Message;
use io::{ClientId, FailureKind};

/// A certificate as `certificate` makes it, for a gateway.
fn gateway(seed: u8, vouched: Vouched) -> Certificate {
    mesh_key().issue(Terms {
        vouched,
        ..certificate(seed).terms().clone()
    })
}

fn range(first: i32, last: i32) -> Vouched {
    Vouched::range(first, last).expect("legal")
}

/// A node with seed 1 and this certificate that knows the member with seed 2.
fn state_with(own: &Certificate) -> State {
    let setup = Setup {
        mesh_key: Some(mesh_key()),
        ..setup(1)
    };
    let loaded = Loaded {
        certificate: Some(own.encode()),
        members: vec![certificate(2).encode()],
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    state
}

fn bridge(state: &mut State, iids: Vec<Iid>) -> Vec<Output> {
    let client = Some(ClientId(7));
    let command = Command::Bridge { client, iids };
    feed(state, Input::Control(RequestId(1), command))
}

fn failure(outputs: &[Output]) -> &Failure {
    match outputs {
        [Output::Reply(RequestId(1), Err(failure))] => failure,
        other => panic!("a failure and nothing else, not {other:?}"),
    }
}

#[test]
fn what_a_client_says_goes_out_marked_and_as_it_is() {
    let mut state = state_with(&gateway(1, Vouched::ALL));
    let dated = Iid {
        date: Date(42),
        ..iid(-7, 20)
    };

    let outputs = bridge(&mut state, vec![iid(300, 10), dated]);

    let [
        Output::Net(NetOutput::Publish { frame, .. }),
        Output::Event(Event::Integers(told)),
        Output::Reply(RequestId(1), Ok(Reply::Bridged { published: 2 })),
    ] = &outputs[..]
    else {
        panic!("published, told and answered, not {outputs:?}");
    };
    let message = Message::decode(frame).expect("legal");
    let [frame] = message.frames() else {
        panic!("one frame, not {message:?}");
    };
    let head = frame.head();
    assert_eq!((head.entry, head.held), (Entry::Bridged, false));
    assert_eq!(head.ttl, Ttl::DEFAULT);
    assert_eq!(
        frame.iids().collect::<Vec<_>>(),
        [iid(300, 10), dated],
        "dates of clients are not ours to change"
    );
    assert_eq!((told.bridged, told.client), (true, Some(ClientId(7))));
    assert_eq!(told.iids, [iid(300, 10), dated]);
    let last = state.report_last();
    assert!(last.iter().all(|last| last.bridged), "{last:?}");
}

#[test]
fn a_gateway_speaks_for_nothing_outside_its_range() {
    let mut state = state_with(&gateway(1, range(100, 199)));

    let low = bridge(&mut state, vec![iid(100, 1), iid(99, 1), iid(5, 1)]);
    let high = bridge(&mut state, vec![iid(200, 1)]);
    let inside = bridge(&mut state, vec![iid(100, 1), iid(199, 1)]);

    let refusal = failure(&low);
    assert_eq!(refusal.kind, FailureKind::Conflict);
    assert_eq!(refusal.message, "this node does not vouch for index 99");
    assert!(
        refusal
            .hint
            .as_ref()
            .is_some_and(|hint| hint.starts_with("`pimesh peers vouch pi-1 all`")),
        "{refusal:?}"
    );
    assert!(failure(&high).message.ends_with("index 200"));
    assert!(matches!(
        inside.last(),
        Some(Output::Reply(_, Ok(Reply::Bridged { published: 2 })))
    ));
}

#[test]
fn a_gateway_for_everything_speaks_for_no_other_member() {
    let mut state = state_with(&gateway(1, Vouched::ALL));

    let own = bridge(&mut state, vec![iid(1, 1)]);
    let other = bridge(&mut state, vec![iid(2, 1)]);

    assert!(matches!(
        own.last(),
        Some(Output::Reply(_, Ok(Reply::Bridged { published: 1 })))
    ));
    assert_eq!(failure(&other).message, "index 2 is that of `pi-2`");
}

#[test]
fn a_member_that_vouches_for_nothing_is_no_gateway() {
    let mut state = state_with(&certificate(1));

    let own = bridge(&mut state, vec![iid(1, 1)]);
    let other = bridge(&mut state, vec![iid(300, 1)]);

    assert!(failure(&own).message.ends_with("index 1"));
    assert!(failure(&other).message.ends_with("index 300"));
}

#[test]
fn one_command_bridges_between_one_integer_and_as_many_as_a_message_holds() {
    let mut state = state_with(&gateway(1, Vouched::ALL));

    let none = bridge(&mut state, vec![]);
    let too_many = bridge(&mut state, vec![iid(300, 1); VALUES_MAX + 1]);
    let most = bridge(&mut state, vec![iid(300, 1); VALUES_MAX]);

    assert_eq!(failure(&none).kind, FailureKind::BadRequest);
    assert_eq!(failure(&too_many).kind, FailureKind::BadRequest);
    assert!(matches!(
        most.last(),
        Some(Output::Reply(_, Ok(Reply::Bridged { published: 3840 })))
    ));
}

#[test]
fn another_gateway_for_everything_does_not_speak_for_this_node() {
    let member = gateway(2, Vouched::ALL);
    let mut state = state_knowing(&member, [0; 32], Settings::default());
    let bridged = |sequence| Head {
        entry: Entry::Bridged,
        ..head(sequence)
    };

    let ours = hear(&mut state, &[iid(300, 1), iid(1, 66)], bridged(1), NOW);
    let clients = hear(&mut state, &[iid(300, 1)], bridged(2), NOW);

    assert_eq!(verdict(&ours), Verdict::Ignore);
    assert_eq!(verdict(&clients), Verdict::Accept);
    assert_eq!(last_value(&state, 1), None);
    let told = clients.iter().find_map(|output| match output {
        Output::Event(Event::Integers(told)) => Some((told.bridged, told.client)),
        _ => None,
    });
    assert_eq!(told, Some((true, None)));
}

#[test]
fn a_range_for_everything_takes_no_index_and_a_narrower_one_takes_its_own() {
    let invited = |own: &Certificate, index| {
        let mut state = state_with(own);
        let command = Command::Invite(Wanted {
            name: None,
            index,
            further: Ranges::default(),
            vouched: Vouched::ALL,
            lifetime: None,
        });
        let outputs = feed(&mut state, Input::Control(RequestId(1), command));
        outputs.into_iter().find_map(|output| match output {
            Output::Store(_, records) => records.into_iter().find_map(|record| match record {
                Record::Invite(invite) => Some(invite.index.0),
                _ => None,
            }),
            _ => None,
        })
    };

    assert_eq!(invited(&gateway(1, Vouched::ALL), None), Some(3));
    let narrower = gateway(1, range(3, i32::MAX - 1));
    assert_eq!(invited(&narrower, None), Some(i32::MAX));
    assert_eq!(invited(&narrower, Some(Index(4))), None);
    assert_eq!(invited(&narrower, Some(Index(-4))), Some(-4));
    assert_eq!(invited(&gateway(1, range(1, i32::MAX)), None), None);
}

#[test]
fn a_flood_of_clients_leaves_the_node_its_share_of_the_budget_and_is_heard_here() {
    let mut state = state_with(&gateway(1, Vouched::ALL));
    let is_sent = |outputs: &[Output]| {
        let is = |output: &Output| matches!(output, Output::Net(NetOutput::Publish { .. }));
        outputs.iter().any(is)
    };
    let batch = || vec![iid(300, 10); 1000];
    // Four fifths of 20,000 at once, and of 2,000 in each second.
    for _ in 0..16 {
        assert!(is_sent(&bridge(&mut state, batch())));
    }

    let outputs = bridge(&mut state, batch());

    assert!(!is_sent(&outputs));
    let is_heard =
        |o: &Output| matches!(o, Output::Event(Event::Integers(i)) if i.iids.len() == 1000);
    assert!(outputs.iter().any(is_heard), "the clients here hear it");
    let command = Command::Integers {
        index: None,
        values: vec![Value(1)],
        at: None,
    };
    let own = feed(&mut state, Input::Control(RequestId(2), command));
    assert!(is_sent(&own), "the node itself is not silenced");
}
