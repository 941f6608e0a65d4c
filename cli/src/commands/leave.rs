//! `pimesh leave`

use std::io::IsTerminal;

use anyhow::Context;
use clap::Args;

use super::Global;
use crate::output;

/// Leave the mesh; the node is in a mesh of its own from then on
///
/// History, keys, names and settings stay. The others are told, and this node's name and index are
/// free there. Messages that wait for the others are given up. Members can be invited into the new
/// mesh, or this node can join another one.
///
/// Members that are down hear it from those that are up. If nobody hears it, each is told when it
/// reaches this node again, for as long as this node runs with this home folder and has left at most
/// 8 meshes since. If it will not run again, or they cannot reach it, run `pimesh peers remove NAME`
/// where the mesh key is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-2$ pimesh leave\n  pi-2$ pimesh join pimesh1:…")]
pub(super) struct Leave {
    /// Do not ask, and leave even if nobody else holds the mesh key
    #[arg(long)]
    yes: bool,
}

impl Leave {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = global.client()?;
        let mut is_last_holder = false;
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                return Err(output::wrong(
                    "`pimesh leave` asks first, and standard input is no terminal",
                    "`--yes` answers",
                ));
            }
            let node = client.status().await?.node;
            let others = node.members.saturating_sub(1);
            is_last_holder = others > 0 && node.mesh_key_holders == [node.name];
            if is_last_holder {
                output::note(
                    "warning: nobody else is known to hold the mesh key: without this node the \
                     others can neither invite nor rename nor remove anybody; `pimesh mesh-key \
                     share NAME` gives it to another member",
                );
            }
            output::ask(&format!(
                "leave the mesh with {}{}? [y/N] ",
                output::count(others, "other member"),
                if is_last_holder { " all the same" } else { "" }
            ));
            let mut answer = String::new();
            std::io::stdin()
                .read_line(&mut answer)
                .context("read the answer")?;
            anyhow::ensure!(
                answer.trim().eq_ignore_ascii_case("y"),
                "nothing was changed"
            );
        }
        // Who answered the question knew that nobody else holds the mesh key.
        let left = client.leave(self.yes || is_last_holder).await?;
        if global.json {
            return output::json(&left);
        }
        output::line(format!(
            "left mesh {}; this node is in mesh {} of its own",
            short(&left.mesh),
            short(&left.own_mesh)
        ))?;
        if !left.told.is_empty() {
            output::line(format!("told {}", left.told.join(", ")))?;
        }
        if !left.not_told.is_empty() {
            let names = left.not_told.join(", ");
            output::line(if left.told.is_empty() {
                format!(
                    "nobody has heard it: {names}. They are told when they reach this node again; \
                     if it will not run, `pimesh peers remove NAME` there, where the mesh key is, \
                     takes it out"
                )
            } else {
                format!("not connected: {names}; they hear it from the others")
            })?;
        }
        if left.dropped_messages > 0 {
            let messages = output::count(left.dropped_messages, "message");
            output::line(format!("gave up {messages}"))?;
        }
        Ok(())
    }
}

/// Returns the first digits of a mesh's name: enough to tell two apart.
fn short(mesh: &str) -> &str {
    mesh.get(..8).unwrap_or(mesh)
}
