//! The date that had come when the node last ran.

use super::*;

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
