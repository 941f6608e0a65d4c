//! `pimesh inbox`

mod delete;
mod follow;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use futures::StreamExt;
use pimesh_node::{
    config::parse_duration,
    control::api::{HistoryQuery, HistoryRow, Way},
    state::io::Encoding,
};

use super::Global;
use crate::output;

/// Show messages that came, or with `--sent` those that were sent
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  pimesh inbox --follow\n  pimesh inbox --follow --last 20\n  \
                  pimesh inbox --from pi-1 --since 2h --search door\n  \
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
    /// The last so many
    #[arg(long, default_value_t = 100)]
    limit: u64,
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
            limit: (!self.all).then(|| self.last.unwrap_or(self.limit)),
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
        let mut printed = end;
        if self.last != Some(0) && (!self.follow || self.last.is_some()) {
            let mut rows = client.history_stream(&query).await?;
            while let Some(row) = rows.next().await {
                let row = row?;
                print(global, way, &row)?;
                printed = printed.max(Some(row.row));
            }
        }
        match printed.filter(|_| self.follow) {
            Some(after) => follow::go_on(global, &client, query, after).await,
            None => Ok(()),
        }
    }
}

fn print(global: &Global, way: Way, row: &HistoryRow) -> anyhow::Result<()> {
    if global.json {
        return output::json(row);
    }
    let time = output::local_time(row.at_ms);
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
        Way::Received => output::message(&format!("{time}  {name}{via}: "), &text),
        Way::Sent => {
            let outcome = if row.outcome.is_empty() {
                "waiting"
            } else {
                &row.outcome
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
