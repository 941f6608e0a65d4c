//! `pimesh outbox`

use clap::Args;

use super::Global;
use crate::output;

/// Show messages that wait for their recipients
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Outbox {}

impl Outbox {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let pending = global.client()?.outbox().await?;
        if global.json {
            return pending.iter().try_for_each(output::json);
        }
        let rows: Vec<Vec<String>> = pending
            .iter()
            .map(|p| {
                vec![
                    p.id.to_string(),
                    p.to.clone(),
                    p.bytes.to_string(),
                    p.attempts.to_string(),
                    output::local_time(p.created_ms),
                    output::local_time(p.expires_ms),
                ]
            })
            .collect();
        output::table(
            &["ID", "TO", "BYTES", "ATTEMPTS", "ACCEPTED", "EXPIRES"],
            &rows,
        )
    }
}
