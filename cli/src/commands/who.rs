//! `pimesh who`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use pimesh_node::state::report;

use super::Global;
use crate::output;

/// List everybody to whom `pimesh send` can write: nodes, users of gateways, old clients
///
/// SEEN is `now`, or since when somebody is away. SEALED says whether messages are encrypted up to
/// its own program; `node` means up to the node that it is connected to. NOTE says what needs your
/// decision: a name that means somebody else, or a changed key (`pimesh trust`).
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
    let gateway = who.gateway.map_or("-", |gateway| gateway.name());
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
    let bare = || {
        who.name
            .rsplit_once('@')
            .map_or(&*who.name, |(bare, _)| bare)
    };
    match who.means.as_deref() {
        None => None,
        Some("-") => Some(format!(
            "`{}` alone means nobody: pimesh trust --name {}",
            bare(),
            who.name
        )),
        Some(means) => Some(format!("`{}` alone is {means}", bare())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> report::Who {
        report::Who {
            name: "alice@pi-2".to_owned(),
            node: "pi-2".to_owned(),
            gateway: Some(pimesh_node::state::io::Gateway::Syft),
            server: None,
            present: Some(false),
            since_ms: Some(1_000),
            sealed: true,
            key: None,
            offered_key: None,
            means: None,
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
        other.means = Some("alice@pi-1".to_owned());
        assert_eq!(note(&other).as_deref(), Some("`alice` alone is alice@pi-1"));
        other.means = Some("-".to_owned());
        assert!(note(&other).is_some_and(|note| note.contains("pimesh trust --name alice@pi-2")));
        other.offered_key = Some("a key".to_owned());
        assert!(note(&other).is_some_and(|note| note.contains("pimesh trust alice@pi-2")));
    }
}
