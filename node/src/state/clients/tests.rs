//! Keys are pinned, messages acknowledged on disk, and answers kept in order until they are taken.

mod elsewhere;

use super::*;
use crate::state::{
    Expiry, Settings, State,
    io::{
        Command, Encoding, Event, Failure, FailureKind, Input, Output, Recipients, Record,
        RequestId, SendVia, Ticket,
    },
    tests::{NOW, feed, feed_at, later, message_saying, open, outputs, receive, state},
};

const REQUEST: RequestId = RequestId(7);

fn ask(state: &mut State, question: Question) -> Vec<Output> {
    feed(state, Input::Control(REQUEST, Command::P2sn(question)))
}

fn ask_at(state: &mut State, question: Question, now: Now) -> Vec<Output> {
    feed_at(state, Input::Control(REQUEST, Command::P2sn(question)), now)
}

fn stored(state: &mut State, outputs: &[Output]) -> Vec<Output> {
    feed(
        state,
        Input::Stored(ticket(outputs).expect("something to store")),
    )
}

fn ticket(outputs: &[Output]) -> Option<Ticket> {
    outputs.iter().find_map(|output| match output {
        Output::Store(ticket, _) => Some(*ticket),
        _ => None,
    })
}

fn reply(outputs: &[Output]) -> Option<&Result<Reply, Failure>> {
    outputs.iter().find_map(|output| match output {
        Output::Reply(REQUEST, reply) => Some(reply),
        _ => None,
    })
}

fn judged(outputs: &[Output]) -> Option<bool> {
    match reply(outputs) {
        Some(Ok(Reply::P2sn(Answer::Judged(may)))) => Some(*may),
        _ => None,
    }
}

fn shown(address: &str, key: u8, strict: bool) -> Question {
    Question::Judge {
        address: address.parse().expect("an address"),
        fingerprint: Fingerprint([key; 32]),
        bits: 2048,
        strict,
    }
}

/// Shows a key and lets the disk take what is to be stored.
fn show(state: &mut State, address: &str, key: u8, strict: bool) -> Option<bool> {
    let outputs = ask(state, shown(address, key, strict));
    match ticket(&outputs) {
        Some(_) => {
            assert_eq!(judged(&outputs), None, "before it is on disk");
            let outputs = stored(state, &outputs);
            judged(&outputs)
        }
        None => judged(&outputs),
    }
}

fn client(key: u8) -> ClientName {
    let name = format!("p2sn:10.0.0.7/{}", hex::encode([key; 8]));
    ClientName::new(name).expect("a name")
}

/// A node that knows the client with key 1 at 10.0.0.7.
fn state_with_client() -> State {
    let mut state = state(Settings::default());
    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(true));
    state
}

fn send(state: &mut State, to: &str, text: &str) -> Vec<Output> {
    let command = Command::Send {
        to: Recipients::Named(vec![to.to_owned()]),
        text: text.to_owned(),
        via: SendVia::Direct,
        expiry: Expiry::new(Duration::from_secs(60)).ok(),
    };
    feed(state, Input::Control(REQUEST, command))
}

fn keep(state: &mut State, text: &str) {
    let outputs = send(state, client(1).as_str(), text);
    let outputs = stored(state, &outputs);
    assert!(matches!(reply(&outputs), Some(Ok(Reply::Accepted(_)))));
}

fn take_at(state: &mut State, now: Now) -> Option<(MessageId, String)> {
    let (id, bytes) = take_bytes(state, now)?;
    Some((id, String::from_utf8(bytes).expect("a text")))
}

fn take_bytes(state: &mut State, now: Now) -> Option<(MessageId, Vec<u8>)> {
    let outputs = ask_at(state, Question::Take { client: client(1) }, now);
    match reply(&outputs) {
        Some(Ok(Reply::P2sn(Answer::Taken(taken)))) => taken.clone(),
        other => panic!("taken, got {other:?}"),
    }
}

fn failure(outputs: &[Output]) -> &Failure {
    match reply(outputs) {
        Some(Err(failure)) => failure,
        other => panic!("a failure, got {other:?}"),
    }
}

#[test]
fn the_first_key_of_an_address_is_pinned_and_another_refused_until_it_is_accepted() {
    let mut state = state(Settings::default());
    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(true));
    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(true));

    let refused = ask(&mut state, shown("10.0.0.7", 2, true));

    assert_eq!(judged(&refused), Some(false));
    assert!(refused.iter().any(|output| matches!(
        output,
        Output::Event(Event::ClientKeyChanged { address, .. }) if address == "10.0.0.7"
    )));
    assert!(refused.iter().any(|output| matches!(
        output,
        Output::Event(Event::Refused {
            what: "p2sn_client_key",
            why: "changed",
            ..
        })
    )));
    let address = "10.0.0.7".to_owned();
    let outputs = ask(&mut state, Question::Trust { address });
    stored(&mut state, &outputs);
    assert_eq!(show(&mut state, "10.0.0.7", 2, true), Some(true));
    assert_eq!(
        show(&mut state, "10.0.0.7", 1, true),
        Some(true),
        "both are"
    );
    assert_eq!(show(&mut state, "10.0.0.7", 3, true), Some(false));
}

#[test]
fn the_accepted_key_of_a_server_takes_the_place_of_the_old_one() {
    let mut state = state(Settings::default());
    assert_eq!(show(&mut state, "pi:5050", 1, true), Some(true));
    assert_eq!(
        show(&mut state, "pi:5050", 2, false),
        Some(false),
        "strict or not"
    );
    assert_eq!(
        show(&mut state, "pi:5051", 2, true),
        Some(true),
        "another server"
    );

    let outputs = ask(
        &mut state,
        Question::Trust {
            address: "pi".to_owned(),
        },
    );
    stored(&mut state, &outputs);

    assert_eq!(show(&mut state, "pi:5050", 2, true), Some(true));
    assert_eq!(show(&mut state, "pi:5050", 1, true), Some(false));
}

#[test]
fn without_pinning_each_key_of_a_client_is_taken_and_the_oldest_forgotten() {
    let mut state = state(Settings::default());
    for key in 1..=17 {
        assert_eq!(show(&mut state, "10.0.0.7", key, false), Some(true));
    }

    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(false));
    assert_eq!(show(&mut state, "10.0.0.7", 2, true), Some(true));
}

#[test]
fn one_network_does_not_take_the_places_of_all_others() {
    let mut state = state_with_client();
    for host in 0..1024 {
        let address = format!("2001:db8::{host:x}");
        assert_eq!(show(&mut state, &address, 1, true), Some(true), "{address}");
    }
    assert_eq!(show(&mut state, "2001:db8::ffff", 1, true), Some(false));
    assert_eq!(
        show(&mut state, "2001:db8::1", 1, true),
        Some(true),
        "known"
    );
    for address in ["2001:db8:0:1::1", "10.0.0.9"] {
        assert_eq!(show(&mut state, address, 1, true), Some(true), "{address}");
    }
}

#[test]
fn a_forgotten_address_takes_the_next_key() {
    let mut state = state_with_client();
    let address = "10.0.0.7".to_owned();

    let outputs = ask(&mut state, Question::Forget { address });
    stored(&mut state, &outputs);

    assert_eq!(show(&mut state, "10.0.0.7", 2, true), Some(true));
    assert_eq!(show(&mut state, "10.0.0.7", 1, true), Some(false));
}

#[test]
fn what_a_client_brings_is_acknowledged_once_it_is_on_disk() {
    let mut state = state_with_client();
    let question = Question::Deliver {
        client: client(1),
        to: None,
        bytes: b"door open".to_vec(),
    };

    let asked = ask(&mut state, question);
    let answered = stored(&mut state, &asked);

    assert!(reply(&asked).is_none());
    assert!(matches!(
        reply(&answered),
        Some(Ok(Reply::P2sn(Answer::Delivered)))
    ));
    assert!(answered.iter().any(|output| matches!(
        output,
        Output::Event(Event::Received(received))
            if received.from == "p2sn:10.0.0.7/0101010101010101" && received.text == "door open"
    )));
}

#[test]
fn what_cannot_be_written_is_not_acknowledged() {
    let mut state = state_with_client();
    let question = Question::Deliver {
        client: client(1),
        to: None,
        bytes: b"door open".to_vec(),
    };
    let asked = ask(&mut state, question);
    let ticket = ticket(&asked).expect("something to store");

    let outputs = feed(&mut state, Input::StoreFailed(ticket, "full".to_owned()));

    assert_eq!(failure(&outputs).kind, FailureKind::Unavailable);
}

#[test]
fn what_goes_on_to_a_member_is_marked_with_the_client() {
    let mut state = state_with_client();
    let question = |to: &str| Question::Deliver {
        client: client(1),
        to: Some(to.to_owned()),
        bytes: b"door open".to_vec(),
    };

    let asked = ask(&mut state, question("pi-2"));
    let own = ask(&mut state, question("pi-1"));
    let unknown = ask(&mut state, question("pi-9"));

    let text = asked.iter().find_map(|output| match output {
        Output::Store(_, records) => match &records[0] {
            Record::Outgoing(message) => Some(message.text.clone()),
            _ => None,
        },
        _ => None,
    });
    let marked = "[p2sn:10.0.0.7/0101010101010101] door open";
    assert_eq!(text.as_deref(), Some(marked));
    assert!(reply(&asked).is_none(), "it waits for the disk");
    assert!(own.iter().any(|output| matches!(
        output,
        Output::Store(_, records) if matches!(records[0], Record::Incoming(_))
    )));
    assert_eq!(failure(&unknown).kind, FailureKind::NotFound);
}

#[test]
fn answers_are_taken_in_order_and_gone_when_they_were_handed_over() {
    let mut state = state_with_client();
    keep(&mut state, "one");
    keep(&mut state, "two");

    let (id, first) = take_at(&mut state, NOW).expect("one waits");
    let beside = take_at(&mut state, NOW);
    let handed = ask(&mut state, Question::Handed { id });
    let second = take_at(&mut state, NOW);

    assert_eq!(first, "one");
    assert_eq!(beside, None, "the first is on its way to another");
    assert!(handed.iter().any(|output| matches!(
        output,
        Output::Store(_, records) if matches!(
            &records[0],
            Record::Outcome { outcome: Outcome::Delivered, .. }
        )
    )));
    assert_eq!(second.map(|(_, text)| text).as_deref(), Some("two"));
}

#[test]
fn an_answer_that_was_not_handed_over_is_taken_again_after_a_while() {
    let mut state = state_with_client();
    keep(&mut state, "one");
    take_at(&mut state, NOW).expect("one waits");

    let early = take_at(&mut state, later(Duration::from_secs(14)));
    let again = take_at(&mut state, later(Duration::from_secs(15)));

    assert_eq!(early, None);
    assert_eq!(again.map(|(_, text)| text).as_deref(), Some("one"));
}

#[test]
fn an_answer_that_nobody_takes_expires() {
    let mut state = state_with_client();
    keep(&mut state, "one");
    let due = state.poll_timeout().expect("a time");
    assert!(due <= NOW.mono + Duration::from_secs(60));

    state.handle_timeout(later(Duration::from_secs(60)));

    let outputs = outputs(&mut state);
    assert!(outputs.iter().any(|output| matches!(
        output,
        Output::Event(Event::Sent(sent)) if sent.outcome == Outcome::Expired
    )));
    assert_eq!(take_at(&mut state, later(Duration::from_secs(60))), None);
    assert_eq!(state.clients.count(), 0);
}

#[test]
fn an_answer_is_as_long_as_the_clients_key_allows_and_for_a_client_that_is_known() {
    let mut state = state_with_client();

    let longest = send(&mut state, client(1).as_str(), &"x".repeat(245));
    let too_long = send(&mut state, client(1).as_str(), &"x".repeat(246));
    let unknown = send(&mut state, client(2).as_str(), "x");
    let by_address = send(&mut state, "p2sn:10.0.0.7", "x");

    assert!(ticket(&longest).is_some());
    assert_eq!(failure(&too_long).kind, FailureKind::BadRequest);
    assert_eq!(failure(&unknown).kind, FailureKind::NotFound);
    assert!(ticket(&by_address).is_some());
}

#[test]
fn so_many_answers_wait_for_a_client_and_no_more() {
    let mut state = state_with_client();
    for _ in 0..64 {
        keep(&mut state, "x");
    }

    let outputs = send(&mut state, client(1).as_str(), "x");

    assert_eq!(failure(&outputs).kind, FailureKind::Unavailable);
    assert_eq!(state.clients.count(), 64);
}

#[test]
fn a_member_answers_with_the_mark_that_the_message_had() {
    for (text, waits) in [
        ("[p2sn:10.0.0.7/0101010101010101] come in", Some("come in")),
        ("[p2sn:10.0.0.8/0101010101010101] come in", None),
        ("[p2sn:10.0.0.7/0101010101010101]come in", None),
        ("come in", None),
    ] {
        let mut state = state_with_client();
        open(&mut state);

        let (_, ticket) = receive(&mut state, &message_with(text));
        feed(&mut state, Input::Stored(ticket.expect("a ticket")));

        let taken = take_at(&mut state, NOW).map(|(_, text)| text);
        assert_eq!(taken.as_deref(), waits, "{text}");
    }
}

/// P2SN carries bytes, and the history is text: rule P2SN-BYTES.
#[test]
fn bytes_that_are_no_text_come_in_go_on_and_are_answered() {
    const BYTES: [u8; 3] = [0xff, 0, 0x80];
    let mut state = state_with_client();
    let question = |to: Option<&str>| Question::Deliver {
        client: client(1),
        to: to.map(str::to_owned),
        bytes: BYTES.to_vec(),
    };

    let own = ask(&mut state, question(None));
    let record = own.iter().find_map(|output| match output {
        Output::Store(_, records) => records.first(),
        _ => None,
    });
    let Some(Record::Incoming(message)) = record else {
        panic!("a message, got {record:?}");
    };
    let kept = (message.text.as_str(), message.encoding);
    assert_eq!(kept, ("ff0080", Encoding::Hex));

    let on = ask(&mut state, question(Some("pi-2")));
    let marked = "[p2sn:10.0.0.7/0101010101010101 hex] ff0080";
    assert!(on.iter().any(|output| matches!(
        output,
        Output::Store(_, records)
            if matches!(&records[0], Record::Outgoing(message) if message.text == marked)
    )));

    open(&mut state);
    let (_, ticket) = receive(&mut state, &message_with(marked));
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    let (id, answer) = take_bytes(&mut state, NOW).expect("it waits");
    assert_eq!(answer, BYTES);
    ask(&mut state, Question::Handed { id });

    let named = format!("{} hex", client(1));
    let outputs = send(&mut state, &named, "00ff");
    stored(&mut state, &outputs);
    let answer = take_bytes(&mut state, NOW).map(|(_, bytes)| bytes);
    assert_eq!(answer, Some(vec![0, 0xff]));
    let refused = send(&mut state, &named, "door open");
    assert_eq!(failure(&refused).kind, FailureKind::BadRequest);
}

fn message_with(text: &str) -> crate::proto::mesh::direct::Request {
    message_saying(text, 2, 1, 2, 1)
}

#[test]
fn what_is_known_of_clients_is_known_after_a_restart() {
    let message = ForClient {
        id: MessageId([3; 16]),
        client: client(1),
        created_ms: NOW.unix_ms(),
        expires_ms: NOW.unix_ms() + 1000,
        text: "come in".to_owned(),
        encoding: Encoding::Utf8,
    };
    let pins = vec![("10.0.0.7".to_owned(), [1; 32], 2048)];
    let mut state = state(Settings::default());
    state.clients = Clients::load(pins, vec![message], NOW);

    assert_eq!(show(&mut state, "10.0.0.7", 2, true), Some(false));
    assert_eq!(
        take_at(&mut state, NOW).map(|(_, text)| text).as_deref(),
        Some("come in")
    );
}
