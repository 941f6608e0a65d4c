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
}

impl Aged {
    fn new(integer: Integer) -> Self {
        let sender_now = now_us() + integer.clock_offset_us.unwrap_or(0);
        let age = sender_now.saturating_sub(signed(integer.sent_ms).saturating_mul(1000));
        let age_ms = u64::try_from(age / 1000).unwrap_or(0);
        Self { integer, age_ms }
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
        output::span(Duration::from_millis(aged.age_ms)),
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
