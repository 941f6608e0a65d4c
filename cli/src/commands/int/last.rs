//! `pimesh int --last`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pimesh_node::{control::client::Client, state::report::Integer};
use serde::Serialize;

use crate::{commands::Global, output};

/// The last value of an index, and how old it is.
#[derive(Serialize)]
struct Aged {
    #[serde(flatten)]
    integer: Integer,
    age_ms: u64,
    /// How far its time of sending is ahead of the clock here, corrected by what is known of the
    /// sender's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead_ms: Option<u64>,
    /// Time until its own date, if that is to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_in_ms: Option<u64>,
}

/// A time of sending that is ahead by less than this is one of now: clocks are not compared more
/// exactly.
const AHEAD_MIN_MS: u64 = 1000;

impl Aged {
    fn new(integer: Integer) -> Self {
        Self::at(integer, now_us())
    }

    fn at(integer: Integer, now_us: i64) -> Self {
        let sender_now = now_us.saturating_add(integer.clock_offset_us.unwrap_or(0)) / 1000;
        let until = |ms: i64| u64::try_from(ms.saturating_sub(sender_now)).ok();
        let ahead_ms = until(signed(integer.sent_ms)).filter(|&ms| ms >= AHEAD_MIN_MS);
        let date_ms = integer.date.reading().unix_ms;
        let due_in_ms = date_ms.and_then(until).filter(|&ms| ms >= AHEAD_MIN_MS);
        let age = sender_now.saturating_sub(signed(integer.sent_ms));
        Self {
            age_ms: u64::try_from(age).unwrap_or(0),
            ahead_ms,
            due_in_ms,
            integer,
        }
    }

    /// Says how old it is, and when its date is to come.
    fn words(&self) -> String {
        let span = |ms| output::span(Duration::from_millis(ms));
        let age = match self.ahead_ms {
            Some(ms) => format!("sent {} ahead of the clock here", span(ms)),
            None => span(self.age_ms),
        };
        match self.due_in_ms {
            // Both dates are those of one clock that is ahead.
            Some(_) if self.ahead_ms.is_some() => age,
            Some(ms) => format!("{age}, due in {}", span(ms)),
            None => age,
        }
    }
}

/// Prints the last value of each of these indices, or of all.
pub(super) async fn show(global: &Global, client: &Client, indices: &[i32]) -> anyhow::Result<()> {
    let all = client.last_integers().await?;
    let unknown = indices
        .iter()
        .find(|&&wanted| all.iter().all(|integer| integer.index.0 != wanted));
    let wanted = |integer: &Integer| indices.is_empty() || indices.contains(&integer.index.0);
    let aged: Vec<Aged> = all.into_iter().filter(wanted).map(Aged::new).collect();
    if global.json {
        aged.iter().try_for_each(output::json)?;
    } else if !aged.is_empty() {
        let rows: Vec<Vec<String>> = aged.iter().map(row).collect();
        output::table(&["INDEX", "VALUE", "DATE", "FROM", "AGE"], &rows)?;
    } else if indices.is_empty() {
        output::note("no integer was heard yet");
    }
    match unknown {
        Some(index) => Err(output::with_exit(
            output::Exit::UnknownName,
            format!("no value of index {index} is known here"),
            None,
        )),
        None => Ok(()),
    }
}

fn row(aged: &Aged) -> Vec<String> {
    let integer = &aged.integer;
    vec![
        integer.index.to_string(),
        integer.value.to_string(),
        output::date(integer.date),
        integer.from.clone(),
        aged.words(),
    ]
}

fn now_us() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use pimesh_node::proto::iid::{Date, Index, Value};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn words(sent_ms: u64, date_ms: u64) -> String {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        let integer = Integer {
            index: Index(7),
            value: Value(1),
            date: Date(date_ms),
            from: "pi-1".to_owned(),
            peer_id: key.public().to_peer_id(),
            sent_ms,
            received_us: NOW_MS * 1000,
            clock_offset_us: None,
            held: false,
            bridged: false,
            last_known: true,
        };
        Aged::at(integer, signed(NOW_MS) * 1000).words()
    }

    #[test]
    fn a_date_to_come_is_told_as_one_and_not_as_an_age() {
        let now = NOW_MS;
        assert_eq!(words(NOW_MS - 2000, now - 2000), "2 s");
        assert_eq!(
            words(NOW_MS - 2000, now + 3_600_000),
            "2 s, due in 1 h 0 min"
        );
        assert_eq!(words(NOW_MS + 300, now + 300), "0 ms");
        let ahead = "sent 5 min 0 s ahead of the clock here";
        assert_eq!(words(NOW_MS + 300_000, now + 300_000), ahead);
    }
}
