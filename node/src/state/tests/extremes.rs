//! Whatever number comes through the control socket or by the wire: an answer, and no panic. These
//! tests are built with checks for overflow.

use super::{io::FailureKind, *};
#[cfg(feature = "net")]
use crate::control::api::{NewIntegers, NewInvite, NewMessage};
use crate::proto::mesh::parse_peer;

/// Numbers at the edges of what JSON brings, and what no number is.
#[cfg(feature = "net")]
const NUMBERS: [&str; 11] = [
    "0",
    "1",
    "-1",
    "2592000",
    "2592001",
    "18446744073709551",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "-9223372036854775808",
    "1e300",
];

#[cfg(feature = "net")]
fn body<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// Says what the control socket answers to these numbers: a failure, or nothing if it is taken.
#[cfg(feature = "net")]
fn answer(state: &mut State, command: Result<Command, Failure>) -> Option<Failure> {
    let command = match command {
        Ok(command) => command,
        Err(failure) => return Some(failure),
    };
    let outputs = feed(state, Input::Control(RequestId(7), command));
    let stored: Vec<Ticket> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Store(ticket, _) => Some(*ticket),
            _ => None,
        })
        .collect();
    for ticket in stored {
        feed(state, Input::Stored(ticket));
    }
    failure(&outputs).cloned()
}

#[cfg(feature = "net")]
fn sending(message: NewMessage) -> Result<Command, Failure> {
    let expiry = message.expiry_s.map(Duration::from_secs);
    Command::send(message.to, message.text, message.via, expiry)
}

#[cfg(feature = "net")]
fn publishing(integers: NewIntegers) -> Command {
    let NewIntegers { index, values, at } = integers;
    Command::Integers { index, values, at }
}

#[cfg(feature = "net")]
#[test]
fn no_number_from_the_control_socket_ends_the_node() {
    for number in NUMBERS {
        let mut state = state(Settings::default());
        open(&mut state);
        let to = [
            "\"all\"",
            "{\"named\":[\"pi-2\"]}",
            "{\"named\":[\"p2sn:10.0.0.7\"]}",
        ];
        for to in to {
            let text = format!("{{\"to\":{to},\"text\":\"x\",\"expiry_s\":{number}}}");
            if let Some(message) = body::<NewMessage>(&text) {
                answer(&mut state, sending(message));
            }
        }
        let text = format!("{{\"lifetime_s\":{number}}}");
        if let Some(invite) = body::<NewInvite>(&text) {
            answer(&mut state, Ok(Command::Invite(invite.into())));
        }
        let text = format!("{{\"index\":{number}}}");
        if let Some(invite) = body::<NewInvite>(&text) {
            answer(&mut state, Ok(Command::Invite(invite.into())));
        }
        for at in ["unix_ms", "in_ms"] {
            let text = format!("{{\"values\":[1],\"at\":{{\"{at}\":{number}}}}}");
            if let Some(integers) = body::<NewIntegers>(&text) {
                answer(&mut state, Ok(publishing(integers)));
            }
        }
        for field in ["index", "values"] {
            let value = if field == "values" {
                format!("[{number}]")
            } else {
                number.to_owned()
            };
            let other = if field == "values" {
                ""
            } else {
                ",\"values\":[1]"
            };
            let text = format!("{{\"{field}\":{value}{other}}}");
            if let Some(integers) = body::<NewIntegers>(&text) {
                answer(&mut state, Ok(publishing(integers)));
            }
        }
        // What follows from what was taken: its times, and its end.
        for passed in [Duration::from_secs(1), 31 * Duration::from_secs(86_400)] {
            feed_at(
                &mut state,
                Input::Control(RequestId(8), Command::Outbox),
                later(passed),
            );
            state.handle_timeout(later(passed));
            outputs(&mut state);
        }
    }
}

#[cfg(feature = "net")]
#[test]
fn a_message_is_kept_for_a_second_to_thirty_days() {
    let mut state = state(Settings::default());
    let mut refused = |seconds: u64| {
        let message = NewMessage {
            to: Recipients::All,
            text: "x".to_owned(),
            via: SendVia::Direct,
            expiry_s: Some(seconds),
        };
        answer(&mut state, sending(message))
    };
    for seconds in [1, 60, 2_592_000] {
        assert_eq!(refused(seconds), None, "{seconds} s");
    }
    for seconds in [0, 2_592_001, u64::MAX / 1000, u64::MAX] {
        let failure = refused(seconds).expect("refused");
        assert!(failure.message.contains("1 s to 30 days"), "{failure:?}");
        assert!(failure.hint.is_some());
    }
}

#[test]
fn a_ticket_is_good_for_a_second_to_seven_days() {
    let mut state = state(Settings::default());
    for (lifetime, is_good) in [
        (Duration::ZERO, false),
        (Duration::from_secs(1), true),
        (Duration::from_secs(604_800), true),
        (Duration::from_secs(604_801), false),
        (Duration::MAX, false),
    ] {
        let command = Command::Invite(Wanted {
            lifetime: Some(lifetime),
            ..Wanted::default()
        });
        let outputs = carried_out(&mut state, command);
        let refused = failure(&outputs);
        assert_eq!(refused.is_none(), is_good, "{lifetime:?}");
        assert!(refused.is_none_or(|f| f.message.contains("1 s to 7 days")));
    }
}

#[test]
fn a_member_with_the_last_date_there_is_comes_back_with_a_ticket_to_no_harm() {
    let mut state = state(Settings::default());
    let last = mesh_key().issue(Terms {
        issued_ms: u64::MAX,
        ..certificate(5).terms().clone()
    });
    state.learn_statements(vec![last.encode()], vec![], NOW);
    outputs(&mut state);
    let (_, secret) = super::tickets::invite(&mut state, None);

    let refused = join(&mut state, 5, &secret, 5, NOW);

    assert_eq!(refused, Some(Refusal::NotAMember));
}

#[test]
fn no_settings_end_the_node() {
    let mut state = state(Settings::default());
    open(&mut state);
    let settings = Settings {
        outbox_count_max: usize::MAX,
        outbox_bytes_max: usize::MAX,
        history_age_max: Duration::MAX,
        history_bytes_max: u64::MAX,
        integer_ttl: Duration::MAX,
        budget_per_second: u32::MAX,
        budget_burst: u32::MAX,
        ..Settings::default()
    };
    feed(
        &mut state,
        Input::Control(RequestId(1), Command::Configure(Box::new(settings))),
    );
    let (_, ticket) = send(&mut state, "hello");
    feed(&mut state, Input::Stored(ticket.expect("a ticket")));
    let integers = Command::Integers {
        index: None,
        values: vec![Value(i32::MIN)],
        at: None,
    };
    feed(&mut state, Input::Control(RequestId(2), integers));
    state.handle_timeout(later(Duration::from_secs(86_400)));
    outputs(&mut state);
}

#[test]
fn a_name_that_is_too_long_is_not_looked_up() {
    let state = state(Settings::default());
    // Base58 of so many letters takes seconds.
    let long = "a".repeat(1_000_000);

    let failure = state.resolve(&long).expect_err("too long");

    assert_eq!(failure.kind, FailureKind::BadRequest);
    assert!(failure.message.len() < 100, "{}", failure.message);
    assert_eq!(parse_peer(&long), None);
    assert_eq!(
        parse_peer(&peer_of_seed(2).to_string()),
        Some(peer_of_seed(2))
    );
}
