//! `pimesh inbox`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures::StreamExt;
use pimesh_node::{
    config::parse_duration,
    control::{
        api::{EventBody, HistoryQuery, HistoryRow, Way},
        client::Client,
    },
    state::io::Encoding,
};

use super::Global;
use crate::output;

/// Show messages that came, or with `--sent` those that were sent
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh inbox --follow\n  pimesh inbox --from pi-1 --since 2h \
                        --search door"
)]
pub(super) struct Inbox {
    /// Go on with messages as they come
    #[arg(long)]
    follow: bool,
    /// Only from (or with `--sent`, to) this member
    #[arg(long, value_name = "PEER")]
    from: Option<String>,
    /// Only since then: `2h`, `3d`, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Only with this text in them
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Messages that were sent, with what became of each
    #[arg(long)]
    sent: bool,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl Inbox {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = global.client()?;
        let mut query = HistoryQuery {
            way: if self.sent { Way::Sent } else { Way::Received },
            peer: self.from,
            since_ms: self.since,
            after: None,
            search: self.search,
            limit: Some(self.limit),
        };
        // Followed before the first reading, so that nothing falls in between.
        let events = if self.follow {
            Some(client.events().await?)
        } else {
            None
        };
        let mut last = show(global, &client, &query, 0).await?;
        let Some(mut events) = events else {
            return Ok(());
        };
        query.limit = None;
        while let Some(event) = events.next().await {
            let concerns = match event? {
                EventBody::Received(_) => !self.sent,
                EventBody::Sent(_) => self.sent,
                EventBody::Lagged { .. } => true,
                _ => false,
            };
            if concerns {
                query.after = Some(last);
                last = show(global, &client, &query, last).await?;
            }
        }
        Ok(())
    }
}

/// Prints what a query finds; returns the last row.
async fn show(
    global: &Global,
    client: &Client,
    query: &HistoryQuery,
    mut last: i64,
) -> anyhow::Result<i64> {
    let mut query = query.clone();
    loop {
        let rows = client.history(&query).await?;
        for row in &rows {
            print(global, query.way, row)?;
            last = last.max(row.row);
        }
        // While following, a page may be full.
        if query.after.is_none() || rows.is_empty() {
            return Ok(last);
        }
        query.after = Some(last);
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
    match way {
        Way::Received => output::line(format!("{time}  {}{via}: {text}", row.name)),
        Way::Sent => {
            let outcome = if row.outcome.is_empty() {
                "waiting"
            } else {
                &row.outcome
            };
            output::line(format!("{time}  to {} ({outcome}): {text}", row.name))
        }
    }
}

fn since(text: &str) -> Result<u64, String> {
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
