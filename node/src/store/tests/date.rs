//! The date that had come when the node last ran.

use super::*;

#[test]
fn one_message_that_a_wrong_clock_dated_years_ahead_tells_nothing() {
    let mut store = Fixture::new();
    const DAY_MS: u64 = 86_400_000;
    for (number, days) in [(1, 0), (2, 11 * 365), (3, 30)] {
        let mut message = incoming(number, "hello");
        message.received_ms = 1_800_000_000_000 + days * DAY_MS;
        assert!(store.write(vec![Record::Incoming(message)]));
    }

    let date_ms = store.reopen().loaded.date_ms;

    assert_eq!(date_ms, Some(1_800_000_000_000 + 30 * DAY_MS));
}

#[test]
fn the_last_date_is_there_after_a_restart_and_is_the_newest_messages_before_one_is_written() {
    let mut store = Fixture::new();
    assert_eq!(store.loaded.date_ms, None);
    let mut message = incoming(1, "hello");
    message.received_ms = 1_800_000_000_000;
    assert!(store.write(vec![Record::Incoming(message)]));

    let mut store = store.reopen();
    assert_eq!(store.loaded.date_ms, Some(1_800_000_000_000));
    for unix_ms in [1_800_000_000_001, 1_700_000_000_000] {
        assert!(store.write(vec![Record::Date { unix_ms }]));
    }

    let store = store.reopen();
    assert_eq!(store.loaded.date_ms, Some(1_700_000_000_000));
}
