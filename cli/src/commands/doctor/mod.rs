//! `pimesh doctor`
//!
//! | file | what it looks at |
//! | --- | --- |
//! | `home` | the home folder: settings, parts, owner, permissions, disk |
//! | `network` | ports, mDNS, names |
//! | `node` | what the running node says: version, members, clocks, gateways, servers |
//! | `store` | with `--deep`: whether every page of the store is whole |
//!
//! A check is a function that returns a [`Check`], or several; add it to a list in one of these
//! files, and to the list in [`Doctor::run`] if it is a new kind.

mod home;
mod network;
mod node;
mod store;

use clap::Args;
use pimesh_node::store::FILE_NAME;
use serde::Serialize;

use super::Global;
use crate::output;

/// Check the home folder, disk, clock, ports, mDNS, names, members and gateways, and say what to do
///
/// Works without a running node; with one, it checks more. Ends with 1 if a check fails.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Doctor {
    /// Read the whole store, too, and say whether it is damaged; takes a while if it is large
    #[arg(long)]
    deep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            todo: None,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            found: found.into(),
            todo: Some(todo.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Fail,
            found: found.into(),
            todo: Some(todo.into()),
        }
    }
}

impl Doctor {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let folder = global.home()?;
        let config = pimesh_node::Config::load(&folder);
        let mut checks = home::checks(&folder, &config);
        if self.deep {
            checks.push(store::check(folder.join(FILE_NAME)).await?);
        }
        let config = config.unwrap_or_default();
        checks.extend(network::checks(&config).await);
        checks.extend(node::checks(global, &config).await?);
        for check in &checks {
            print(global, check)?;
        }
        let failed = checks
            .iter()
            .filter(|check| check.verdict == Verdict::Fail)
            .count();
        let checks = output::count(checks.len(), "check");
        anyhow::ensure!(failed == 0, "{failed} of {checks} failed");
        Ok(())
    }
}

fn print(global: &Global, check: &Check) -> anyhow::Result<()> {
    if global.json {
        return output::json(check);
    }
    let verdict = format!("{:?}", check.verdict).to_lowercase();
    output::line(format!(
        "{verdict:<4}  {:<12}  {}",
        check.check, check.found
    ))?;
    match &check.todo {
        Some(todo) => output::line(format!("      {:<12}  → {todo}", "")),
        None => Ok(()),
    }
}
