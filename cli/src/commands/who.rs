//! `pimesh who`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use pimesh_node::state::report;

use super::Global;
use crate::output;

/// List everybody to whom `pimesh send` can write: nodes, users of gateways, old clients
///
/// SEEN is `now`, `away`, or for how long somebody has been away if this node saw it; `-` if that
/// cannot be known. SEALED is `yes` if messages are encrypted up to the recipient's own program, and
/// `node` if only up to the node that it is connected to. NOTE says what needs your decision: a name
/// that is not clear, or a changed key (`pimesh trust`). Users of foreign servers are listed from the
/// first message on. Users who were taken out at another node stay listed here.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "Example:\n  pimesh who\n  pimesh send alice \"hello\"")]
pub(super) struct Who {}

impl Who {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let who = global.client()?.who().await?;
        if global.json {
            return who.iter().try_for_each(output::json);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let rows: Vec<Vec<String>> = who.iter().map(|who| row(who, now)).collect();
        output::table(&["NAME", "NODE", "VIA", "SEEN", "SEALED", "NOTE"], &rows)?;
        Ok(())
    }
}

fn row(who: &report::Who, now: Duration) -> Vec<String> {
    let gateway = who.gateway.as_deref().unwrap_or("-");
    let via = match &who.server {
        Some(server) => format!("{gateway} {server}"),
        None => gateway.to_owned(),
    };
    let seen = match (who.present, who.since_ms) {
        (Some(true), _) => "now".to_owned(),
        (Some(false), Some(since_ms)) => {
            output::age(now.saturating_sub(Duration::from_millis(since_ms)))
        }
        (Some(false), None) => "away".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let sealed = if who.sealed { "yes" } else { "node" };
    vec![
        who.name.clone(),
        who.node.clone(),
        via,
        seen,
        sealed.to_owned(),
        note(who).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Returns what the owner of this node has to decide about somebody.
pub(super) fn note(who: &report::Who) -> Option<String> {
    if who.offered_key.is_some() {
        return Some(format!("KEY CHANGED: pimesh trust {}", who.name));
    }
    // A client without a key has only its full name.
    if who.has_short_name || !who.sealed {
        return None;
    }
    let short = who.name.rsplit_once('@');
    let short = short.map_or(&*who.name, |(short, _)| short);
    Some(match &who.short_name_means {
        Some(other) => format!("`{short}` alone may be {other}"),
        None if short.contains('@') => format!("`{short}` alone means nobody"),
        None => format!(
            "`{short}` alone means nobody: pimesh trust --name {}",
            who.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> report::Who {
        report::Who {
            name: "alice@pi-2".to_owned(),
            node: "pi-2".to_owned(),
            gateway: Some("syft".to_owned()),
            server: None,
            present: Some(false),
            since_ms: Some(1_000),
            sealed: true,
            key: None,
            offered_key: None,
            has_short_name: true,
            short_name_means: None,
            waiting: 0,
        }
    }

    #[test]
    fn a_row_says_who_is_where_since_when_and_what_to_decide() {
        let now = Duration::from_secs(61);
        assert_eq!(
            row(&alice(), now),
            ["alice@pi-2", "pi-2", "syft", "1 min", "yes", "-"]
        );
        let mut other = alice();
        other.has_short_name = false;
        other.short_name_means = Some("alice@pi-1".to_owned());
        assert_eq!(
            note(&other).as_deref(),
            Some("`alice` alone may be alice@pi-1")
        );
        other.short_name_means = None;
        assert!(note(&other).is_some_and(|note| note.contains("pimesh trust --name alice@pi-2")));
        other.offered_key = Some("a key".to_owned());
        assert!(note(&other).is_some_and(|note| note.contains("pimesh trust alice@pi-2")));
    }
}
