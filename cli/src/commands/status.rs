//! `pimesh status`

use std::time::Duration;

use clap::Args;
use pimesh_node::{
    clock,
    gateway::GatewayReport,
    state::report::{self, COPIED_HINT},
};

use super::Global;
use crate::output;

/// Show how the node is
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Status {}

impl Status {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let status = global.client()?.status().await?;
        if global.json {
            return output::json(&status);
        }
        let node = &status.node;
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let mut lines = vec![
            ("name", node.name.clone()),
            ("peer id", node.peer_id.to_string()),
            ("index", output::indices(node.index, &node.further)),
            ("mesh", node.mesh.clone()),
            ("may invite", yes_no(node.may_invite).to_owned()),
            ("mesh key", mesh_key(node)),
            (
                "members",
                format!(
                    "{} ({} of the others connected)",
                    node.members, node.connected
                ),
            ),
            ("open tickets", node.invites.to_string()),
            (
                "outbox",
                format!(
                    "{}, {}",
                    output::count(node.outbox_count, "message"),
                    output::count(node.outbox_bytes, "byte")
                ),
            ),
            (
                "received",
                format!(
                    "{}, {}",
                    output::count(node.received, "message"),
                    output::count(node.integers_received, "integer")
                ),
            ),
            (
                "RSA key",
                node.rsa_fingerprint
                    .clone()
                    .unwrap_or_else(|| "being made".to_owned()),
            ),
            ("clock", clock(&status.clock)),
            (
                "clock spread",
                format!(
                    "{} in the mesh",
                    output::millis(i64::try_from(node.clock_spread_us).unwrap_or(i64::MAX))
                ),
            ),
            (
                "up for",
                output::span(Duration::from_millis(node.uptime_ms)),
            ),
            ("version", status.version.clone()),
            ("home", status.home.clone()),
        ];
        let listeners = status.listeners.iter();
        lines.extend(listeners.map(|address| ("listening", address.clone())));
        for gateway in status
            .gateways
            .iter()
            .filter(|gateway| gateway.open || gateway.error.is_some())
        {
            lines.push(("gateway", gateway_line(gateway)));
        }
        if let Some(warning) = &node.mesh_key_warning {
            let text = format!("{}; {}", warning.problem, warning.todo);
            lines.push(("WARNING", text));
        }
        if node.revoked {
            lines.push(("WARNING", "this node was removed from its mesh".to_owned()));
        }
        if node.own_copied {
            let text = "another machine runs with the identity of this node";
            lines.push(("WARNING", format!("{text}; {COPIED_HINT}")));
        }
        for name in node.copied.iter().filter(|name| **name != node.name) {
            let text = format!("two machines run with the identity of {name}; {COPIED_HINT}");
            lines.push(("WARNING", text));
        }
        if let Some(error) = &status.clock.error {
            lines.push(("WARNING", format!("no NTP server answers ({error})")));
        }
        if !node.clock_set {
            lines.push(("WARNING", "the clock is not set".to_owned()));
        }
        if node.clock_doubted {
            let text =
                "the clock leapt ahead; nothing is deleted by its date until it is confirmed";
            lines.push(("WARNING", text.to_owned()));
        }
        lines
            .iter()
            .try_for_each(|(name, value)| output::line(format!("{name:<14}  {value}")))
    }
}

fn mesh_key(node: &report::Status) -> String {
    let exported = if node.mesh_key_exported {
        "exported"
    } else {
        "never exported"
    };
    match node.mesh_key_holders.as_slice() {
        [] => "nobody is known to hold it".to_owned(),
        holders => format!("held by {}; {exported}", holders.join(", ")),
    }
}

fn gateway_line(gateway: &GatewayReport) -> String {
    let name = gateway.gateway.name();
    if let Some(error) = &gateway.error {
        return format!("{name} could not be opened: {error}");
    }
    let addresses: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
    format!(
        "{name} at {}: {}, {}, {} refused or sent away",
        addresses.join(" "),
        output::count(gateway.clients, "client"),
        output::count(gateway.sign_ins, "sign-in"),
        gateway.kicks
    )
}

fn clock(clock: &clock::Report) -> String {
    let Some(server) = &clock.server else {
        return "the system's".to_owned();
    };
    let round_trip = i64::try_from(clock.round_trip_us.unwrap_or_default()).unwrap_or(i64::MAX);
    format!(
        "{}{} to the system's, by NTP from {server} (round trip {}, {} ago)",
        if clock.offset_us < 0 { "-" } else { "+" },
        output::millis(clock.offset_us.saturating_abs()),
        output::millis(round_trip),
        output::span(Duration::from_millis(clock.age_ms.unwrap_or_default()))
    )
}
