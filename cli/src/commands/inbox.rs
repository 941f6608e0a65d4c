//! `pimesh inbox`

mod delete;
mod follow;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use futures::StreamExt;
use pimesh_node::{
    config::parse_duration,
    control::{
        api::{HISTORY_DEFAULT, HistoryQuery, HistoryRow, Way},
        client::Client,
    },
    state::io::Encoding,
};

use super::Global;
use crate::output;

/// Show messages that came, or with `--sent` those that were sent
///
/// Messages stand in the order in which they came here, each with that time. Where the sender's date
/// differs from it by more than 5 minutes, that date follows in brackets.
///
/// With `--sent` they stand in the order in which they were sent, each with that time; what became
/// of it follows in brackets, with the time if that was more than 5 minutes later. `--since` and
/// `--before` look at the time when that was known, or at the time of sending while it waits.
///
/// `--json` has both times: `created_ms`, when it was sent, and `at_ms`, when it came or when its
/// outcome was known.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  pimesh inbox --follow\n  pimesh inbox --follow --last 20\n  \
                  pimesh inbox --from pi-1 --since 2h --search gateway\n  \
                  pimesh --json inbox --all > messages.ndjson"
)]
pub(super) struct Inbox {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print messages as they come, from now on, or first those that `--since` or `--last` name
    #[arg(long)]
    follow: bool,
    /// The last so many; with `--follow`, before those that come
    #[arg(long, value_name = "COUNT", conflicts_with = "limit")]
    last: Option<u64>,
    /// Only from (or with `--sent`, to) this member
    #[arg(long, value_name = "PEER")]
    from: Option<String>,
    /// Only since then: `2h`, `3d`, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Only those before then: `2h`, `3d`, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "follow")]
    before: Option<u64>,
    /// Only with this text in them
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Messages that were sent, with what became of each
    #[arg(long)]
    sent: bool,
    /// The last so many [default: 100]
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// All there are, in the place of `--limit`
    #[arg(long, conflicts_with_all = ["limit", "last", "follow"])]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    Delete(delete::Delete),
}

impl Inbox {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        if let Some(Action::Delete(delete)) = self.action {
            return delete.run(global).await;
        }
        let client = global.client()?;
        let way = if self.sent { Way::Sent } else { Way::Received };
        let query = HistoryQuery {
            way,
            id: None,
            peer: self.from,
            since_ms: self.since,
            before_ms: self.before,
            after: None,
            search: self.search,
            limit: (!self.all).then(|| self.last.or(self.limit).unwrap_or(HISTORY_DEFAULT)),
            all: self.all,
        };
        if self.follow && self.since.is_some() && self.last.is_none() {
            return follow::go_on(global, &client, query, 0).await;
        }
        // Known before anything is printed, so that nothing falls in between.
        let end = if self.follow {
            Some(follow::end(&client, way).await?)
        } else {
            None
        };
        let (mut printed, mut count) = (end, 0);
        if self.last != Some(0) && (!self.follow || self.last.is_some()) {
            let mut rows = client.history_stream(&query).await?;
            while let Some(row) = rows.next().await {
                let row = row?;
                print(global, way, &row)?;
                printed = printed.max(Some(row.row));
                count += 1;
            }
        }
        match printed.filter(|_| self.follow) {
            Some(after) => follow::go_on(global, &client, query, after).await,
            None => {
                let is_asked = self.all || self.limit.is_some() || self.last.is_some();
                if !is_asked && count >= HISTORY_DEFAULT {
                    tell_of_earlier(&client, &query, count).await;
                }
                Ok(())
            }
        }
    }
}

/// Says how many messages there are besides those that were printed.
async fn tell_of_earlier(client: &Client, query: &HistoryQuery, printed: u64) {
    let all = client.count_history(query).await;
    match all.map(|all| all.count.saturating_sub(printed)) {
        Ok(0) => {}
        Ok(1) => output::note("1 earlier message is not shown: `--all` shows it"),
        Ok(more) => output::note(format!(
            "{} are not shown: `--all` shows them, `--limit COUNT` the last so many",
            output::count(more, "earlier message")
        )),
        // What was asked for is printed; a node of an earlier version does not count.
        Err(_) => output::note("there may be earlier messages: `--all` shows them"),
    }
}

/// How far two dates of a message may be apart until both are shown.
const DATES_APART_MS: u64 = 5 * 60 * 1000;

fn print(global: &Global, way: Way, row: &HistoryRow) -> anyhow::Result<()> {
    if global.json {
        return output::json(row);
    }
    let are_apart = row.at_ms.abs_diff(row.created_ms) > DATES_APART_MS;
    let via = if row.via == "direct" {
        String::new()
    } else {
        format!(" [{}]", row.via)
    };
    let text = match row.encoding {
        Encoding::Utf8 => row.text.clone(),
        Encoding::Hex => format!("(bytes) {}", row.text),
    };
    let name = match &row.name_then {
        Some(then) => format!("{} (was {then})", row.name),
        None => row.name.clone(),
    };
    match way {
        Way::Received => {
            let time = output::local_time(row.at_ms);
            let sent = if are_apart {
                format!(" (sent {})", output::local_time(row.created_ms))
            } else {
                String::new()
            };
            output::message(&format!("{time}{sent}  {name}{via}: "), &text)
        }
        Way::Sent => {
            let time = output::local_time(row.created_ms);
            let outcome = match row.outcome.as_str() {
                "" => "waiting".to_owned(),
                outcome if are_apart => format!("{outcome}, {}", output::local_time(row.at_ms)),
                outcome => outcome.to_owned(),
            };
            output::message(&format!("{time}  to {name} ({outcome}): "), &text)
        }
    }
}

fn time(text: &str) -> Result<u64, String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if let Some(ago) = parse_duration(text) {
        return Ok(ms(now.saturating_sub(ago)));
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write `2h`, `3d` or 2026-11-21T08:00:00Z".to_owned())?;
    u64::try_from(time.as_millisecond()).map_err(|_| "that is before 1970".to_owned())
}
