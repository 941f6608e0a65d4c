//! What is taken in: shares of senders, and the reserve of the disk.

use super::*;
use crate::{
    proto::syft::letter::Fingerprint,
    state::{
        clients::Question,
        io::{ClientName, Disk, Outcome, SessionId},
        post::{Ask, ToServer},
    },
};

const MIB: u64 = 1024 * 1024;

fn with_history(history_bytes_max: u64) -> State {
    let mut state = state(Settings {
        history_bytes_max,
        ..Settings::default()
    });
    open(&mut state);
    state
}

/// Lets the member with seed 2 bring a text; what can be stored is stored.
fn bring(state: &mut State, sequence: u64, text: &str, now: Now) -> Status {
    let request = message_saying(text, 2, 1, 2, sequence);
    statuses(state, &request, now)[0]
}

/// Returns what becomes of each message of a request, once it is on disk.
fn statuses(state: &mut State, request: &DirectRequest, now: Now) -> Vec<Status> {
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: request.encode(),
    };
    let mut all = feed_at(state, Input::Net(input), now);
    if let (_, Some(ticket)) = answer_of(&all) {
        all.extend(feed_at(state, Input::Stored(ticket), now));
    }
    let statuses = all.iter().find_map(|output| match output {
        Output::Net(NetOutput::Respond { bytes, .. }) => DirectResponse::decode(bytes).ok(),
        _ => None,
    });
    statuses.expect("an answer").0
}

fn pruned_to(outputs: &[Output]) -> Option<u64> {
    outputs.iter().find_map(|output| match output {
        Output::Store(_, records) => match records[..] {
            [Record::Prune { bytes_max, .. }] => Some(bytes_max),
            _ => None,
        },
        _ => None,
    })
}

fn measured(state: &mut State, free_bytes: u64, size_bytes: u64, history: u64) -> Vec<Output> {
    let disk = Disk {
        free_bytes,
        size_bytes,
        history_bytes: history,
    };
    let mut outputs = feed(state, Input::Disk(disk));
    if let Some(ticket) = prune_ticket(&outputs) {
        outputs.extend(feed(state, Input::Stored(ticket)));
    }
    outputs
}

fn prune_ticket(outputs: &[Output]) -> Option<Ticket> {
    outputs.iter().find_map(|output| match output {
        Output::Store(ticket, records) if matches!(records[..], [Record::Prune { .. }]) => {
            Some(*ticket)
        }
        _ => None,
    })
}

/// Has a message accepted for the member with seed 2, which takes none.
fn leave_waiting(state: &mut State, text: &str) {
    let (outputs, ticket) = send(state, text);
    assert_eq!(pruned_to(&outputs), None);
    feed(state, Input::Stored(ticket.expect("a ticket")));
}

#[test]
fn a_sender_beyond_its_share_of_a_day_is_told_so_and_nobody_else_is() {
    let mut state = with_history(4 * 1000);
    let day = later(Duration::from_secs(24 * 60 * 60));

    let first: Vec<Status> = (1..=4)
        .map(|n| bring(&mut state, n, "hello", NOW))
        .collect();
    let name = ClientName::new("p2sn:10.0.0.7/abababababababab").expect("a name");
    let of_client = Question::Deliver {
        client: name,
        to: None,
        bytes: b"hello".to_vec(),
    };
    let client = Input::Control(RequestId(1), Command::P2sn(of_client));
    let of_client = feed(&mut state, client);
    let next_day = bring(&mut state, 5, "hello", day);

    let [stored, full] = [Status::Stored, Status::MailboxFull];
    assert_eq!(
        first,
        [stored, stored, stored, full],
        "261 bytes each of 1000"
    );
    assert!(failure(&of_client).is_none() && answer_of(&of_client).1.is_some());
    assert_eq!(next_day, stored);
}

#[test]
fn messages_without_text_are_limited_too() {
    let mut state = with_history(4 * 1000);

    let brought: Vec<Status> = (1..=5).map(|n| bring(&mut state, n, "", NOW)).collect();

    let stored = brought.iter().filter(|s| **s == Status::Stored).count();
    assert_eq!(stored, 3, "256 bytes each of 1000");
}

/// Whatever brings a message of somebody else.
fn ways_in(number: u64) -> [Input; 6] {
    let request = |bytes: Vec<u8>| NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes,
    };
    let name = ClientName::new("p2sn:10.0.0.7/abababababababab").expect("a name");
    let deliver = Question::Deliver {
        client: name,
        to: None,
        bytes: b"hello".to_vec(),
    };
    let received = Ask::Server(ToServer::Received {
        server: "hub".parse().expect("a name"),
        from: super::gateway::id("alice"),
        text: "hello".to_owned(),
        fingerprint: Fingerprint([u8::try_from(number).expect("small"); 16]),
    });
    let p2sn = NetInput::P2snMessage {
        session: SessionId::Theirs(number),
        peer: peer_of_seed(2),
        bytes: b"hello".to_vec(),
    };
    let letter = super::gateway::letter_of("carol", "bob", 1, "carol");
    [
        Input::Net(request(message(2, 1, 2, 1).encode())),
        Input::Net(request(super::gateway::brought(&letter, 1).encode())),
        Input::Net(p2sn),
        Input::Control(RequestId(number), Command::P2sn(deliver)),
        Input::Control(RequestId(number), received.into()),
        Input::Control(RequestId(number), super::gateway::post_to_node("alice", 1)),
    ]
}

#[test]
fn what_could_not_be_written_takes_nothing_of_its_senders_share() {
    for way in 0..6 {
        let settings = Settings {
            history_bytes_max: 4 * 1000,
            servers: vec!["hub".parse().expect("a name")],
            ..Settings::default()
        };
        let mut state = super::gateway::gateway_with(settings);
        let carol = super::gateway::told_user("carol", NOW.unix_ms());
        super::gateway::hear(&mut state, vec![carol]);

        for number in 1..=20 {
            let input = ways_in(number).into_iter().nth(way).expect("a way");
            let outputs = feed(&mut state, input);
            let ticket = super::gateway::ticket(&outputs);
            let ticket = ticket.unwrap_or_else(|| panic!("{way}, {number}: {outputs:?}"));
            let reason = "read-only file system".to_owned();
            feed(&mut state, Input::StoreFailed(ticket, reason));
        }
    }
}

#[test]
fn all_clients_together_have_one_share() {
    let mut state = with_history(4 * 1000);
    let mut bring = |number: u8| {
        let name = format!("p2sn:10.0.0.{number}/abababababababab");
        let client = ClientName::new(name).expect("a name");
        let deliver = Question::Deliver {
            client,
            to: None,
            bytes: Vec::new(),
        };
        let outputs = feed(
            &mut state,
            Input::Control(RequestId(1), Command::P2sn(deliver)),
        );
        failure(&outputs).is_none()
    };

    assert_eq!([1, 2, 3, 4].map(&mut bring), [true, true, true, false]);
}

#[test]
fn nothing_from_outside_is_taken_while_the_disk_has_only_its_reserve() {
    let mut state = with_history(256 * MIB);
    let is_low = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Event(Event::DiskSpace { is_low, .. }) => Some(*is_low),
            _ => None,
        })
    };

    let low = measured(&mut state, 5 * MIB, 48 * MIB, MIB);
    let held_back = bring(&mut state, 1, "hello", NOW);
    let (_, own) = send(&mut state, "own");
    let still_low = measured(&mut state, 7 * MIB, 48 * MIB, MIB);
    let again = bring(&mut state, 1, "hello", NOW);
    let free = measured(&mut state, 8 * MIB, 48 * MIB, MIB);
    let taken = bring(&mut state, 1, "hello", NOW);

    assert_eq!((is_low(&low), held_back), (Some(true), Status::TryAgain));
    assert!(own.is_some(), "what the owner sends is taken");
    assert_eq!((is_low(&still_low), again), (None, Status::TryAgain));
    assert_eq!((is_low(&free), taken), (Some(false), Status::Stored));
}

#[test]
fn what_was_written_since_the_disk_was_measured_counts() {
    let mut state = with_history(256 * MIB);
    measured(&mut state, 6 * MIB + 100_000, 48 * MIB, 0);

    let text = "x".repeat(60_000);
    let brought = [1, 2].map(|n| bring(&mut state, n, &text, NOW));

    assert_eq!(brought, [Status::Stored, Status::TryAgain]);
}

#[test]
fn a_small_full_disk_is_made_room_on_and_a_large_one_is_not() {
    let mut state = with_history(256 * MIB);
    // The reserve is 6 MiB, and there is room again from 7.5 MiB on.
    let small = measured(&mut state, 0, 48 * MIB, 20 * MIB);
    let least = measured(&mut state, 0, 48 * MIB, 7 * MIB);
    let none = measured(&mut state, 0, 48 * MIB, 6 * MIB);
    let large = measured(&mut state, 0, 32 * 1024 * MIB, 200 * MIB);

    assert_eq!(pruned_to(&small), Some(20 * MIB - 7 * MIB - MIB / 2));
    assert_eq!(
        pruned_to(&least),
        Some(6 * MIB),
        "an eighth of the disk stays"
    );
    assert_eq!((pruned_to(&none), pruned_to(&large)), (None, None));
}

#[test]
fn the_history_is_pruned_when_it_crosses_its_limit_and_not_an_hour_later() {
    let mut state = with_history(MIB);
    let large = 1024 * MIB;
    assert_eq!(
        pruned_to(&measured(&mut state, large, 2 * large, MIB)),
        None
    );

    let text = "x".repeat(9_000);
    let (first, ticket) = send(&mut state, &text);
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    let (second, _) = send(&mut state, &text);

    assert_eq!((pruned_to(&first), pruned_to(&second)), (None, Some(MIB)));
}

#[test]
fn nothing_is_pruned_for_messages_that_wait_for_they_would_stay() {
    let mut state = with_history(MIB);
    let large = 1024 * MIB;
    leave_waiting(&mut state, &"x".repeat(1 << 20));
    leave_waiting(&mut state, &"x".repeat(1 << 20));

    let waiting = measured(&mut state, large, 2 * large, 2 * MIB + 512);
    let few = measured(&mut state, large, 2 * large, 2 * MIB + 16_000);
    let many = measured(&mut state, large, 2 * large, 2 * MIB + 20_000);

    assert_eq!((pruned_to(&waiting), pruned_to(&few)), (None, None));
    assert_eq!(pruned_to(&many), Some(MIB));
}

#[test]
fn pruning_that_fails_is_tried_again_after_a_minute() {
    let mut state = with_history(MIB);
    let disk = Disk {
        free_bytes: 1024 * MIB,
        size_bytes: 2048 * MIB,
        history_bytes: 2 * MIB,
    };
    let first = feed(&mut state, Input::Disk(disk));
    let under_way = feed(&mut state, Input::Disk(disk));
    let reason = "read-only file system".to_owned();
    let ticket = prune_ticket(&first).expect("a ticket");
    feed(&mut state, Input::StoreFailed(ticket, reason));

    let soon = later(Duration::from_secs(59));
    let soon = feed_at(&mut state, Input::Disk(disk), soon);
    let minute = later(Duration::from_secs(60));
    let minute = feed_at(&mut state, Input::Disk(disk), minute);

    assert_eq!((pruned_to(&under_way), pruned_to(&soon)), (None, None));
    assert_eq!(pruned_to(&minute), Some(MIB));
}

#[test]
fn a_disk_that_does_not_say_how_large_it_is_sets_no_limit() {
    let mut state = with_history(256 * MIB);

    let unknown = measured(&mut state, 0, 0, 20 * MIB);
    let brought = bring(&mut state, 1, "hello", NOW);
    let over = measured(&mut state, 0, 0, 300 * MIB);

    assert_eq!((pruned_to(&unknown), brought), (None, Status::Stored));
    assert_eq!(pruned_to(&over), Some(256 * MIB), "as it was configured");
}

#[test]
fn half_of_a_small_disk_is_the_limit_of_its_history() {
    let mut state = with_history(256 * MIB);

    let pruned = measured(&mut state, 20 * MIB, 48 * MIB, 25 * MIB);
    let texts = [3 * MIB / 4; 9].map(|bytes| "x".repeat(usize::try_from(bytes).expect("small")));
    let brought = (1..).zip(&texts);
    let brought: Vec<Status> = brought
        .map(|(n, text)| bring(&mut state, n, text, NOW))
        .collect();

    assert_eq!(pruned_to(&pruned), Some(24 * MIB));
    let full = brought
        .iter()
        .position(|status| *status == Status::MailboxFull);
    assert_eq!(full, Some(7), "a quarter of 24 MiB in a day: {brought:?}");
}

#[test]
fn what_follows_a_refused_message_in_a_request_waits_for_the_next_request() {
    let mut state = state(Settings::default());
    open(&mut state);
    let one = |key, sequence| message(2, 1, key, sequence).messages.remove(0);
    let both = DirectRequest {
        messages: vec![one(3, 1), one(2, 2)],
    };

    let first = statuses(&mut state, &both, NOW);
    // The answer was lost, and the same comes again; then what is left.
    let again = statuses(&mut state, &both, NOW);
    let rest = DirectRequest {
        messages: vec![one(2, 2)],
    };
    let rest = statuses(&mut state, &rest, NOW);

    let refused = [Status::WrongSignature, Status::TryAgain];
    assert_eq!(
        (first.as_slice(), again.as_slice()),
        (&refused[..], &refused[..])
    );
    assert_eq!(rest, [Status::Stored]);
}

#[test]
fn what_was_not_reached_in_a_request_is_sent_at_once() {
    let mut state = state(Settings::default());
    for text in ["one", "two"] {
        let (_, ticket) = send(&mut state, text);
        feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    }
    let (id, _) = sent(&open(&mut state)).expect("a request");

    let answer = DirectResponse(vec![Status::MailboxFull, Status::TryAgain]);
    let result = Ok(answer.encode());
    let outputs = feed(&mut state, Input::Net(NetInput::Response { id, result }));

    let is_refused = |output: &Output| {
        matches!(output, Output::Event(Event::Sent(sent))
            if sent.outcome == Outcome::Refused("mailbox_full".to_owned()))
    };
    assert!(outputs.iter().any(is_refused), "{outputs:?}");
    let next = sent(&outputs).map(|(_, request)| request.messages.len());
    assert_eq!(next, Some(1));
}

#[test]
fn a_change_of_the_limit_changes_the_shares() {
    let mut state = with_history(0);
    assert_eq!(
        bring(&mut state, 1, "hello", NOW),
        Status::Stored,
        "one passes a full bucket"
    );
    assert_eq!(bring(&mut state, 2, "hello", NOW), Status::MailboxFull);

    let settings = Settings {
        history_bytes_max: MIB,
        ..Settings::default()
    };
    let configure = Command::Configure(Box::new(settings));
    feed(&mut state, Input::Control(RequestId(1), configure));

    assert_eq!(bring(&mut state, 2, "hello", NOW), Status::Stored);
}
