//! `pimesh outbox`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::Global;
use crate::output;

/// Show messages that wait for their recipients
///
/// AGE is how long a message has been waiting, LEFT how long it is still kept, TRIES how often it
/// was sent without an answer.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Outbox {}

impl Outbox {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let pending = global.client()?.outbox().await?;
        if global.json {
            return pending.iter().try_for_each(output::json);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let rows: Vec<Vec<String>> = pending
            .iter()
            .map(|p| {
                vec![
                    p.to.clone(),
                    output::bytes(p.bytes as u64),
                    p.attempts.to_string(),
                    output::age(now.saturating_sub(Duration::from_millis(p.created_ms))),
                    output::age(Duration::from_millis(p.expires_ms).saturating_sub(now)),
                    p.id.to_string(),
                ]
            })
            .collect();
        output::table(&["TO", "SIZE", "TRIES", "AGE", "LEFT", "ID"], &rows)?;
        Ok(())
    }
}
