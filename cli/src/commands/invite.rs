//! `pimesh invite`

use std::time::Duration;

use clap::Args;
use pimesh_node::{
    control::api::NewInvite,
    proto::{
        iid::Index,
        mesh::{
            ranges::{IndexRange, Ranges},
            vouched::Vouched,
        },
    },
    state::report::OpenInvite,
};

use super::{Global, duration, whole_seconds};
use crate::output;

/// Print a ticket with which another machine enters the mesh, once
///
/// Whoever has the ticket can enter, so keep it to yourself. Needs the mesh key: see `pimesh
/// status` and `pimesh mesh-key --help`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-1$ pimesh invite --name kitchen\n  \
                        kitchen$ pimesh join pimesh1:…\n  \
                        pi-1$ pimesh invite --name board --index 7 --index 100..109\n  \
                        pi-1$ pimesh invite --list\n  \
                        pi-1$ pimesh invite --cancel kitchen")]
pub(super) struct Invite {
    /// Name that the new member gets [default: the one it wishes for]
    #[arg(long)]
    name: Option<String>,
    /// Index that it owns, or several as `A..B`; may be given several times, the first one is its
    /// own when it speaks without `--index` [default: the lowest free one]
    #[arg(long, value_name = "INDEX", allow_hyphen_values = true)]
    index: Vec<IndexRange>,
    /// What it may speak for as a gateway: `none`, `all`, or the indices A to B as `A..B`
    #[arg(
        long,
        value_name = "RANGE",
        default_value = "all",
        allow_hyphen_values = true
    )]
    vouch: Vouched,
    /// How long the ticket is good: 1s to 7d [default: 15min]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Print a QR code although stdout is no terminal
    #[arg(long)]
    qr: bool,
    /// List the tickets that may still be used; their texts are not kept
    #[arg(long, conflicts_with_all = ["name", "index", "expires", "qr", "cancel"])]
    list: bool,
    /// Make a ticket useless, by its id or name in the list, or all with `--all`
    #[arg(
        long,
        value_name = "ID|NAME",
        num_args = 0..=1,
        conflicts_with_all = ["name", "index", "expires", "qr"]
    )]
    cancel: Option<Option<String>>,
    /// Cancel every ticket that may still be used
    #[arg(long, requires = "cancel")]
    all: bool,
}

impl Invite {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        if self.list {
            return show(global, &global.client()?.invites().await?);
        }
        if let Some(which) = self.cancel {
            if which.is_some() == self.all {
                return Err(output::wrong(
                    "`--cancel` takes the id or the name of one ticket, or `--all`",
                    "`pimesh invite --list` shows them",
                ));
            }
            return cancel(global, which.as_deref()).await;
        }
        let (index, further) = split(&self.index)?;
        let invite = NewInvite {
            name: self.name,
            index,
            further,
            vouched: self.vouch,
            lifetime_s: self.expires.map(whole_seconds),
        };
        let invite = global.client()?.invite(&invite).await?;
        if let Some(warning) = &invite.warning {
            output::note(format!("warning: {warning}"));
        }
        if global.json {
            return output::json(&invite);
        }
        let is_read = output::is_terminal();
        if self.qr || is_read {
            draw(&invite.ticket, self.qr)?;
        }
        if is_read {
            output::note(format!(
                "good once, until {}; on the other machine run `pimesh run`, and then:",
                output::local_time(invite.expires_ms)
            ));
            // Once, and whole, so that it can be copied.
            return output::generated(&format!("pimesh join {}", invite.ticket));
        }
        output::own_line(&invite.ticket)
    }
}

/// Lines below the QR code that have to fit beside it: what is said, the ticket, the prompt.
const LINES_BELOW: usize = 8;

/// Draws a ticket as a QR code. One that does not fit on the screen is of no use, so it is drawn only
/// if it was asked for.
fn draw(ticket: &str, is_wanted: bool) -> anyhow::Result<()> {
    let code = qr_code(ticket)?;
    let (rows, columns) = (
        code.lines().count(),
        code.lines().map(|line| line.chars().count()).max(),
    );
    let fits = output::terminal().is_none_or(|(height, width)| {
        rows + LINES_BELOW <= height && columns.unwrap_or(0) <= width
    });
    if fits || is_wanted {
        output::picture(&code);
    } else {
        output::note(format!(
            "no QR code: it needs {} rows and {} columns; make the terminal larger or its letters \
             smaller, or take `--qr`, which draws it all the same",
            rows + LINES_BELOW,
            columns.unwrap_or(0)
        ));
    }
    Ok(())
}

/// Returns the index that a member speaks for if nothing is said, and the further ones.
fn split(indices: &[IndexRange]) -> anyhow::Result<(Option<Index>, Ranges)> {
    let Some((first, others)) = indices.split_first() else {
        return Ok((None, Ranges::default()));
    };
    let further = first.rest().into_iter().chain(others.iter().copied());
    Ok((Some(first.first()), Ranges::new(further.collect())?))
}

async fn cancel(global: &Global, which: Option<&str>) -> anyhow::Result<()> {
    let cancelled = global.client()?.cancel_invites(which).await?;
    if global.json {
        return cancelled.iter().try_for_each(output::json);
    }
    if cancelled.is_empty() {
        output::note("no ticket was open");
    }
    cancelled.iter().try_for_each(|invite| {
        output::line(format!(
            "cancelled {}; index {} is free",
            called(invite),
            output::indices(invite.index, &invite.further)
        ))
    })
}

/// Returns the id of a ticket, and the name that it gives, if it gives one.
fn called(invite: &OpenInvite) -> String {
    match &invite.name {
        Some(name) => format!("{} ({name})", invite.id),
        None => invite.id.clone(),
    }
}

fn show(global: &Global, invites: &[OpenInvite]) -> anyhow::Result<()> {
    if global.json {
        return invites.iter().try_for_each(output::json);
    }
    if invites.is_empty() {
        output::note("no ticket is open");
        return Ok(());
    }
    let row = |invite: &OpenInvite| {
        vec![
            invite.id.clone(),
            invite.name.clone().unwrap_or_else(|| "-".to_owned()),
            output::indices(invite.index, &invite.further),
            invite.vouched.to_string(),
            output::local_time(invite.expires_ms),
        ]
    };
    let rows: Vec<Vec<String>> = invites.iter().map(row).collect();
    output::table(&["ID", "NAME", "INDEX", "SPEAKS FOR", "GOOD UNTIL"], &rows).map(drop)
}

/// Draws a QR code with half blocks, dark on light.
pub(super) fn qr_code(text: &str) -> anyhow::Result<String> {
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L)?;
    let mut drawn = code.render::<qrcode::render::unicode::Dense1x2>();
    Ok(drawn.quiet_zone(true).build())
}
