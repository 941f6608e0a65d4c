//! Letters that wait: how long, and how many for all.

use super::{
    gateway::{ask, done, gateway, id, post, register, ticket},
    *,
};
use crate::state::post::Stage;

const DAY_MS: u64 = 86_400_000;

/// Lets an hour's look happen at a time of the calendar, until which as much time has passed;
/// returns what follows.
fn look(state: &mut State, hour: u64, unix_ms: u64) -> Vec<Output> {
    let passed = Duration::from_millis(unix_ms - NOW.unix_ms());
    let now = Now {
        mono: NOW.mono + passed + Duration::from_secs(hour * 3600),
        unix_us: unix_ms * 1000,
    };
    state.handle_timeout(now);
    outputs(state)
}

fn rows_gone(outputs: &[Output]) -> Vec<u64> {
    let records = outputs.iter().filter_map(|output| match output {
        Output::Store(_, records) => Some(records),
        _ => None,
    });
    let gone = records.flatten().filter_map(|record| match record {
        Record::LettersGone { rows } => Some(rows.clone()),
        _ => None,
    });
    gone.flatten().collect()
}

#[test]
fn a_letter_that_waits_too_long_is_dropped_counted_and_its_sender_told() {
    let mut state = gateway();
    for number in 0..2 {
        done(&mut state, post("alice", "bob", number)).expect("room");
    }
    done(&mut state, post("alice", "broadcast", 9)).expect("room");

    let early = look(&mut state, 1, NOW.unix_ms() + 30 * DAY_MS);
    assert_eq!(rows_gone(&early), [0; 0]);
    let late = look(&mut state, 2, NOW.unix_ms() + 30 * DAY_MS + 1);

    assert_eq!(rows_gone(&late), [1, 2, 3]);
    assert_eq!(state.letters.count_for(&id("bob"), true), 0);
    let count = |wanted: fn(&Event) -> bool| {
        let events = late.iter().filter(|output| match output {
            Output::Event(event) => wanted(event),
            _ => false,
        });
        events.count()
    };
    assert_eq!(
        count(|event| matches!(
            event,
            Event::Counted {
                what: "letter_expired",
                ..
            }
        )),
        2
    );
    assert_eq!(
        count(|event| matches!(event, Event::Letter(news) if news.stage == Stage::Expired)),
        2
    );
    let told: Vec<_> = late
        .iter()
        .filter_map(|output| match output {
            Output::Event(Event::TellUser { user, text }) => Some((user.as_str(), text.as_str())),
            _ => None,
        })
        .collect();
    let text = "2 of your messages to bob waited too long for him and were dropped.";
    assert_eq!(told, [("alice", text)]);
}

#[test]
fn a_letter_that_came_before_the_clock_was_set_has_its_whole_time() {
    let mut state = state(Settings::default());
    open(&mut state);
    for name in ["alice", "bob"] {
        register(&mut state, name).expect("free");
    }
    let unset = Now {
        mono: NOW.mono,
        unix_us: 60_000_000,
    };
    let command = post("alice", "bob", 1).into();
    state.handle(Input::Control(RequestId(7), command), unset);
    let ticket = ticket(&outputs(&mut state)).expect("records");
    state.handle(Input::Stored(ticket), unset);

    let first_look = NOW.unix_ms();
    assert_eq!(rows_gone(&look(&mut state, 1, first_look)), [0; 0]);
    assert_eq!(
        rows_gone(&look(&mut state, 2, first_look + 30 * DAY_MS)),
        [0; 0]
    );
    assert_eq!(
        rows_gone(&look(&mut state, 3, first_look + 30 * DAY_MS + 1)),
        [1]
    );
}

#[test]
fn of_too_many_broadcasts_the_first_go() {
    let mut state = gateway();
    let gone: Vec<u64> = (0..1002)
        .flat_map(|number| {
            let mut outputs = ask(&mut state, post("alice", "broadcast", number));
            let ticket = ticket(&outputs).expect("records");
            outputs.extend(feed(&mut state, Input::Stored(ticket)));
            rows_gone(&outputs)
        })
        .collect();
    assert_eq!(gone, [1, 2]);
}
