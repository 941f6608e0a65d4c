//! A message that its recipient does not take keeps others waiting only for so long.

use super::{
    gateway::{ask, gateway, hear, post, told_user},
    io::Outcome,
    *,
};
use crate::state::post::Ask;

const fn seconds(seconds: u64) -> Now {
    Now {
        mono: Duration::from_secs(NOW.mono.as_secs() + seconds),
        unix_us: NOW.unix_us + 1_000_000 * seconds,
    }
}

/// A gateway whose member with seed 2 is one, too, with the user carol.
fn gateways() -> State {
    let mut state = gateway();
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    state
}

/// Has what is to be written written.
fn settle_disk(state: &mut State, mut outputs: Vec<Output>) -> Vec<Output> {
    let mut all = Vec::new();
    while !outputs.is_empty() {
        let tickets: Vec<Ticket> = outputs
            .iter()
            .filter_map(super::gateway::ticket_of)
            .collect();
        all.append(&mut outputs);
        for ticket in tickets {
            outputs.extend(feed(state, Input::Stored(ticket)));
        }
    }
    all
}

/// Accepts a message, and writes it to the disk.
fn send_to(state: &mut State, to: &str) -> Vec<Output> {
    let command = Command::Send {
        to: Recipients::Named(vec![to.to_owned()]),
        text: "hello".to_owned(),
        via: SendVia::Direct,
        expiry: None,
    };
    let outputs = feed(state, Input::Control(RequestId(7), command));
    settle_disk(state, outputs)
}

/// Posts a message of alice to carol, and writes it to the disk.
fn alice_posts(state: &mut State) -> Vec<Output> {
    let outputs = ask(state, post("alice", "carol", 1));
    settle_disk(state, outputs)
}

/// Answers a request; of a longer one than that, the rest is "try again".
fn answer(state: &mut State, asked: &[Output], first: Status, now: Now) -> Vec<Output> {
    let (id, request) = sent(asked).expect("a request");
    let mut statuses = vec![Status::TryAgain; request.messages.len()];
    statuses[0] = first;
    let result = Ok(DirectResponse(statuses).encode());
    feed_at(state, Input::Net(NetInput::Response { id, result }), now)
}

/// Lets the first message be refused again at this time.
fn refused_again(state: &mut State, status: Status, now: Now) -> Vec<Output> {
    state.handle_timeout(now);
    let asked = outputs(state);
    answer(state, &asked, status, now)
}

fn outcomes(outputs: &[Output]) -> Vec<Outcome> {
    let outcome = |output: &Output| match output {
        Output::Event(Event::Sent(sent)) => Some(sent.outcome.clone()),
        _ => None,
    };
    outputs.iter().filter_map(outcome).collect()
}

fn refused(why: &str) -> Vec<Outcome> {
    vec![Outcome::Refused(why.to_owned())]
}

#[test]
fn a_text_to_a_user_who_is_gone_ends_after_two_minutes_and_the_next_one_at_once() {
    let mut state = gateways();
    let asked = send_to(&mut state, "carol");
    send_to(&mut state, "carol");
    send_to(&mut state, "pi-2");
    let status = Status::WrongRecipient;

    let first = answer(&mut state, &asked, status, NOW);
    let early = refused_again(&mut state, status, seconds(119));
    let ended = refused_again(&mut state, status, seconds(125));
    let next = answer(&mut state, &ended, status, seconds(125));
    let taken = answer(&mut state, &next, Status::Stored, seconds(125));

    assert!(outcomes(&first).is_empty() && outcomes(&early).is_empty());
    assert_eq!(outcomes(&ended), refused("wrong_recipient"));
    assert_eq!(outcomes(&next), refused("wrong_recipient"));
    assert_eq!(outcomes(&taken), [Outcome::Delivered]);
}

#[test]
fn what_is_taken_shows_that_names_are_right_and_the_time_begins_anew() {
    let mut state = gateways();
    let asked = send_to(&mut state, "carol");
    send_to(&mut state, "carol");
    answer(&mut state, &asked, Status::WrongRecipient, NOW);
    let asked = refused_again(&mut state, Status::Stored, seconds(100));

    let first = answer(&mut state, &asked, Status::WrongRecipient, seconds(200));
    let soon = refused_again(&mut state, Status::WrongRecipient, seconds(319));

    assert!(outcomes(&first).is_empty() && outcomes(&soon).is_empty());
}

#[test]
fn a_key_that_does_not_fit_holds_up_the_messages_of_users_for_an_hour() {
    for is_mixed in [false, true] {
        let mut state = gateways();
        let asked = send_to(&mut state, "pi-2");
        if is_mixed {
            alice_posts(&mut state);
        }
        answer(&mut state, &asked, Status::CannotOpen, NOW);

        let early = refused_again(&mut state, Status::CannotOpen, seconds(3_599));
        let late = refused_again(&mut state, Status::CannotOpen, seconds(3_605));

        assert!(outcomes(&early).is_empty());
        let ended = if is_mixed {
            refused("cannot_open")
        } else {
            Vec::new()
        };
        assert_eq!(outcomes(&late), ended, "{is_mixed}");
    }
}

#[test]
fn a_recipient_that_is_busy_ends_nothing() {
    let mut state = gateways();
    let asked = send_to(&mut state, "carol");
    send_to(&mut state, "pi-2");
    answer(&mut state, &asked, Status::TryAgain, NOW);

    let late = refused_again(&mut state, Status::TryAgain, seconds(86_400));

    assert!(outcomes(&late).is_empty());
}

#[test]
fn messages_of_a_user_who_is_forgotten_end_and_those_behind_them_go() {
    let mut state = gateways();
    let posted = alice_posts(&mut state);
    assert!(sent(&posted).is_some());
    send_to(&mut state, "pi-2");

    let user = "alice".to_owned();
    let outputs = carried_out(&mut state, Ask::Forget { user }.into());

    let (_, request) = sent(&outputs).expect("a request");
    assert_eq!(request.messages.len(), 1);
    assert_eq!(state.messages.count(), 1);
}
