//! Direct messages: accepted, sent again, received, refused.

use super::{io::Outcome, *};

#[test]
fn accepted_is_said_only_after_the_message_is_on_disk() {
    let mut state = state(Settings::default());
    open(&mut state);
    let is_reply = |o: &Output| matches!(o, Output::Reply(_, Ok(Reply::Accepted(_))));

    let (before, ticket) = send(&mut state, "hello");
    let after = feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    assert!(!before.iter().any(is_reply) && sent(&before).is_none());
    assert!(after.iter().any(is_reply) && sent(&after).is_some());
}

#[test]
fn a_message_that_cannot_be_written_is_not_accepted() {
    let mut state = state(Settings::default());

    let (_, ticket) = send(&mut state, "hello");
    let failed = Input::StoreFailed(ticket.expect("a ticket"), "disk full".to_owned());
    let outputs = feed(&mut state, failed);

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("disk full")));
    assert_eq!(state.messages.count(), 0);
}

#[test]
fn a_full_outbox_takes_no_more() {
    let mut state = state(Settings {
        outbox_count_max: 1,
        ..Settings::default()
    });
    let (_, ticket) = send(&mut state, "one");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    let (outputs, ticket) = send(&mut state, "two");

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("outbox is full")));
    assert_eq!(ticket, None);
}

#[test]
fn messages_on_their_way_to_the_disk_take_room_in_the_outbox() {
    let mut state = state(Settings {
        outbox_count_max: 1,
        ..Settings::default()
    });
    let (_, first) = send(&mut state, "one");

    let (outputs, second) = send(&mut state, "two");
    let failed = Input::StoreFailed(first.expect("a ticket"), "disk full".to_owned());
    feed(&mut state, failed);
    let (_, third) = send(&mut state, "three");

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("outbox is full")));
    assert_eq!(second, None);
    assert!(third.is_some(), "what could not be written takes no room");
}

#[test]
fn a_request_without_an_answer_is_sent_again_after_45_seconds() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    open(&mut state);
    state.handle_timeout(NOW);
    outputs(&mut state);

    let wait = Duration::from_secs(45);
    state.handle_timeout(later(wait - Duration::from_millis(1)));
    assert!(sent(&outputs(&mut state)).is_none());
    let due = state.poll_timeout().expect("a timer");
    state.handle_timeout(later(wait));

    assert_eq!(due, later(wait).mono);
    assert!(sent(&outputs(&mut state)).is_some());
}

#[test]
fn a_request_that_the_recipient_could_not_take_is_sent_again_soon() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    let (id, _) = sent(&open(&mut state)).expect("a request");
    state.handle_timeout(NOW);
    outputs(&mut state);

    let result = Ok(DirectResponse(vec![Status::TryAgain]).encode());
    let refused = feed(&mut state, Input::Net(NetInput::Response { id, result }));
    let due = state.poll_timeout().expect("a timer");
    state.handle_timeout(later(Duration::from_secs(1)));

    assert!(sent(&refused).is_none(), "not at once");
    assert!(due <= later(Duration::from_secs(1)).mono, "{due:?}");
    assert!(sent(&outputs(&mut state)).is_some());
}

#[test]
fn one_request_carries_no_more_messages_than_a_request_may() {
    for (count, text, expected) in [(200, "x".to_owned(), 128), (5, "x".repeat(100_000), 2)] {
        let mut state = state(Settings::default());
        for _ in 0..count {
            let (_, ticket) = send(&mut state, &text);
            feed(&mut state, Input::Stored(ticket.expect("a ticket")));
        }

        let outputs = open(&mut state);

        let messages = sent(&outputs).map(|(_, request)| request.messages.len());
        assert_eq!(messages, Some(expected));
    }
}

#[test]
fn a_message_to_a_member_that_is_removed_meanwhile_is_given_up() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    let peer = "pi-2".to_owned();
    carried_out(&mut state, Command::Remove { peer });

    let outputs = feed(&mut state, Input::Stored(ticket.expect("a ticket")));

    let is_refused = |output: &Output| {
        matches!(output, Output::Event(Event::Sent(sent))
            if sent.outcome == Outcome::Refused("removed".to_owned()))
    };
    assert!(outputs.iter().any(is_refused), "{outputs:?}");
    assert_eq!(state.messages.count(), 0);
}

#[test]
fn a_message_is_answered_once_it_is_on_disk_and_a_repeated_one_at_once() {
    let mut state = state(Settings::default());
    open(&mut state);
    let request = message(2, 1, 2, 1);

    let (early, ticket) = receive(&mut state, &request);
    let (stored, _) = answer_of(&feed(&mut state, Input::Stored(ticket.expect("a ticket"))));
    let (repeated, second) = receive(&mut state, &request);

    assert_eq!((early, stored), (None, Some(Status::Stored)));
    assert_eq!((repeated, second), (Some(Status::Duplicate), None));
}

#[test]
fn forged_and_misdirected_messages_are_refused_with_the_reason() {
    for (request, expected) in [
        (message(2, 1, 3, 1), Status::WrongSignature),
        (message(3, 1, 2, 1), Status::WrongSender),
        (message(2, 3, 2, 1), Status::WrongRecipient),
    ] {
        let mut state = state(Settings::default());
        open(&mut state);

        let (status, ticket) = receive(&mut state, &request);

        assert_eq!((status, ticket), (Some(expected), None));
    }
}

#[test]
fn the_nodes_own_name_is_not_answered_with_a_name_like_it() {
    let mut state = state(Settings::default());
    let own = state.membership.own_terms().name.to_string();
    let command = Command::Send {
        to: Recipients::Named(vec![own.clone()]),
        text: "hello".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    };

    let outputs = feed(&mut state, Input::Control(RequestId(1), command));

    let [Output::Reply(_, Err(failure))] = outputs.as_slice() else {
        panic!("a failure, not {outputs:?}")
    };
    assert_eq!(failure.message, format!("`{own}` is this node itself"));
    let hint = failure.hint.clone().unwrap_or_default();
    assert!(!hint.contains("did you mean"), "{hint}");
}

#[test]
fn a_message_that_cannot_be_opened_is_sent_again_and_not_given_up() {
    for status in [
        Status::CannotOpen,
        Status::WrongSignature,
        Status::WrongSender,
        Status::WrongRecipient,
    ] {
        let mut state = state(Settings::default());
        let (_, ticket) = send(&mut state, "hello");
        feed(&mut state, Input::Stored(ticket.expect("a ticket")));
        let (id, _) = sent(&open(&mut state)).expect("a request");

        let result = Ok(DirectResponse(vec![status]).encode());
        let answered = feed(&mut state, Input::Net(NetInput::Response { id, result }));
        state.handle_timeout(later(Duration::from_secs(1)));

        let is_outcome = |o: &Output| matches!(o, Output::Event(Event::Sent(_)));
        assert!(!answered.iter().any(is_outcome), "{status:?}");
        assert!(sent(&outputs(&mut state)).is_some(), "{status:?}");
    }
}

#[test]
fn a_message_that_the_recipient_overtook_is_not_sent_again_as_it_would_count_as_delivered() {
    let mut state = state(Settings::default());
    for text in ["one", "two"] {
        let (_, ticket) = send(&mut state, text);
        feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    }
    let (id, _) = sent(&open(&mut state)).expect("a request");

    let statuses = vec![Status::CannotOpen, Status::Stored];
    let result = Ok(DirectResponse(statuses).encode());
    let outputs = feed(&mut state, Input::Net(NetInput::Response { id, result }));

    let ends: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Event(Event::Sent(sent)) => Some(sent.outcome.clone()),
            _ => None,
        })
        .collect();
    let refused = Outcome::Refused("cannot_open".to_owned());
    assert_eq!(ends, [refused, Outcome::Delivered]);
}

#[test]
fn nothing_is_taken_behind_a_message_that_may_come_again() {
    let mut state = state(Settings::default());
    open(&mut state);
    let mut request = message(2, 1, 3, 1);
    request.messages.extend(message(2, 1, 2, 2).messages);

    let outputs = feed(
        &mut state,
        Input::Net(NetInput::Request {
            peer: peer_of_seed(2),
            protocol: Protocol::Direct,
            id: InboundId(9),
            bytes: request.encode(),
        }),
    );

    let statuses = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Respond { bytes, .. }) => DirectResponse::decode(bytes).ok(),
        _ => None,
    });
    let expected = vec![Status::WrongSignature, Status::TryAgain];
    assert_eq!(statuses.map(|r| r.0), Some(expected));
    let is_stored = |o: &Output| matches!(o, Output::Store(..));
    assert!(!outputs.iter().any(is_stored), "{outputs:?}");
}

#[test]
fn a_node_whose_messaging_key_is_not_in_its_certificate_does_not_start() {
    let setup = Setup {
        messaging_key: messaging_key(3),
        ..setup(1)
    };
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        ..Loaded::default()
    };

    let refused = State::new(setup, loaded, NOW).expect_err("it could read nothing");

    assert_eq!(refused, StartError::OtherMessagingKey);
}

/// Sends to these; returns why not, if nothing was sent.
fn send_to_named(state: &mut State, names: Vec<String>) -> Option<Failure> {
    let command = Command::Send {
        to: Recipients::Named(names),
        text: "hello".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    };
    let outputs = feed(state, Input::Control(RequestId(7), command));
    failure(&outputs).cloned()
}

#[test]
fn too_many_recipients_are_an_error_that_names_the_limit_and_nothing_is_sent() {
    let mut state = state(Settings::default());

    let most = send_to_named(&mut state, vec!["pi-2".to_owned(); 256]);
    let one_more = send_to_named(&mut state, vec!["pi-2".to_owned(); 257]);

    assert_eq!(most, None);
    let one_more = one_more.expect("refused");
    assert!(one_more.message.contains("at most 256"), "{one_more:?}");
    assert!(one_more.message.contains("257"), "{one_more:?}");
}

#[test]
fn a_message_to_nobody_says_that_a_recipient_is_missing() {
    let mut state = state(Settings::default());

    let failure = send_to_named(&mut state, vec![]).expect("refused");

    assert!(failure.message.contains("needs a recipient"), "{failure:?}");
}
