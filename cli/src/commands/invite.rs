//! `pimesh invite`

use std::time::Duration;

use clap::Args;
use pimesh_node::{
    control::api::NewInvite,
    proto::{iid::Index, mesh::vouched::Vouched},
};

use super::{Global, duration};
use crate::output;

/// Print a ticket with which another machine enters the mesh, once
///
/// Whoever has the ticket can enter, so keep it to yourself. Needs the mesh key: see `pimesh
/// status` and `pimesh mesh-key --help`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pi-1$ pimesh invite --name kitchen\n  \
                        kitchen$ pimesh join pimesh1:…")]
pub(super) struct Invite {
    /// Name that the new member gets [default: the one it wishes for]
    #[arg(long)]
    name: Option<String>,
    /// Index that it owns [default: the lowest free one]
    #[arg(long, allow_negative_numbers = true)]
    index: Option<i32>,
    /// What it may speak for as a gateway: `none`, `all`, or the indices A to B as `A..B`
    #[arg(
        long,
        value_name = "RANGE",
        default_value = "all",
        allow_hyphen_values = true
    )]
    vouch: Vouched,
    /// How long the ticket is good [default: 15min]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Print a QR code although stdout is no terminal
    #[arg(long)]
    qr: bool,
}

impl Invite {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let invite = NewInvite {
            name: self.name,
            index: self.index.map(Index),
            vouched: self.vouch,
            lifetime_s: self.expires.map(|d| d.as_secs().max(1)),
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
        output::line(&invite.ticket)
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
            "its QR code needs {} rows and {} columns: `--qr` draws it all the same",
            rows + LINES_BELOW,
            columns.unwrap_or(0)
        ));
    }
    Ok(())
}

/// Draws a QR code with half blocks, dark on light.
pub(super) fn qr_code(text: &str) -> anyhow::Result<String> {
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L)?;
    let mut drawn = code.render::<qrcode::render::unicode::Dense1x2>();
    Ok(drawn.quiet_zone(true).build())
}
