//! `pimesh peers`

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use futures::StreamExt;
use pimesh_node::{
    control::{api::EventBody, client::Client},
    proto::mesh::vouched::Vouched,
    state::report::{Peer, PeerState},
};

use super::Global;
use crate::output;

/// List the members of the mesh: state, address, round trip, next dial
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh peers\n  pimesh peers remove kitchen\n  pimesh peers vouch kitchen 100..199"
)]
pub(super) struct Peers {
    /// Print the list again whenever it changes
    #[arg(long)]
    follow: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a member out of the mesh, for good; needs the mesh key
    Remove {
        /// Its name or peer id
        peer: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Accept the changed RSA key of a member (P2SN)
    Trust {
        /// Its name or peer id
        peer: String,
    },
    /// Say which indices a member may speak for as a gateway; needs the mesh key
    ///
    /// A gateway speaks for its clients. None speaks for another member's own index.
    Vouch {
        /// Its name or peer id
        peer: String,
        /// `none`, `all`, or the indices A to B as `A..B`
        #[arg(value_name = "RANGE", allow_hyphen_values = true)]
        vouched: Vouched,
    },
}

impl Peers {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = global.client()?;
        match self.action {
            Some(Action::Remove { peer, yes }) => remove(global, &client, &peer, yes).await,
            Some(Action::Trust { peer }) => {
                let trusted = client.trust(&peer).await?;
                if global.json {
                    return output::json(&trusted);
                }
                let key = trusted
                    .fingerprint
                    .unwrap_or_else(|| "shown next".to_owned());
                output::line(format!("the RSA key of {} is {key}", trusted.name))
            }
            Some(Action::Vouch { peer, vouched }) => {
                let vouched = client.vouch(&peer, vouched).await?;
                if global.json {
                    return output::json(&vouched);
                }
                output::line(format!("{} vouches for {}", vouched.name, vouched.vouched))
            }
            None if self.follow => follow(global, &client).await,
            None => show(global, &client.peers().await?),
        }
    }
}

async fn remove(global: &Global, client: &Client, peer: &str, yes: bool) -> anyhow::Result<()> {
    if !yes {
        anyhow::ensure!(
            std::io::stdin().is_terminal(),
            "removing a member needs `--yes` here"
        );
        let mut err = std::io::stderr().lock();
        write!(err, "take `{peer}` out of the mesh? [y/N] ").context("ask")?;
        drop(err);
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .context("read the answer")?;
        anyhow::ensure!(
            answer.trim().eq_ignore_ascii_case("y"),
            "nothing was removed"
        );
    }
    let removed = client.remove(peer).await?;
    if global.json {
        return output::json(&removed);
    }
    output::line(format!("removed {} ({})", removed.name, removed.peer_id))
}

async fn follow(global: &Global, client: &Client) -> anyhow::Result<()> {
    let mut events = client.events().await?;
    show(global, &client.peers().await?)?;
    while let Some(event) = events.next().await {
        let concerns_peers = matches!(
            event?,
            EventBody::PeerUp { .. }
                | EventBody::PeerDown { .. }
                | EventBody::MemberAdded { .. }
                | EventBody::MemberRemoved { .. }
                | EventBody::Lagged { .. }
        );
        if concerns_peers {
            show(global, &client.peers().await?)?;
        }
    }
    Ok(())
}

fn show(global: &Global, peers: &[Peer]) -> anyhow::Result<()> {
    if global.json {
        return peers.iter().try_for_each(output::json);
    }
    let rows: Vec<Vec<String>> = peers.iter().map(row).collect();
    output::table(
        &[
            "NAME",
            "INDEX",
            "VOUCHES FOR",
            "STATE",
            "TRANSPORT",
            "ROUND TRIP",
            "CLOCK",
            "WAITING",
            "ADDRESS",
        ],
        &rows,
    )
}

fn row(peer: &Peer) -> Vec<String> {
    let dash = || "-".to_owned();
    let state = match peer.state {
        PeerState::Own => "this node".to_owned(),
        PeerState::Up => "up".to_owned(),
        PeerState::Connecting => "connecting".to_owned(),
        PeerState::Down => "down".to_owned(),
    };
    let place = match (&peer.address, peer.next_dial_ms) {
        (Some(address), _) => address.to_string(),
        (None, Some(ms)) => {
            let why = peer.last_error.as_deref().unwrap_or("not tried yet");
            format!("dial in {}: {why}", output::span(Duration::from_millis(ms)))
        }
        (None, None) if peer.state == PeerState::Down => "no address is known".to_owned(),
        (None, None) => dash(),
    };
    vec![
        peer.name.clone(),
        peer.index.to_string(),
        peer.vouched.to_string(),
        state,
        peer.transport
            .map_or_else(dash, |t| format!("{t:?}").to_lowercase()),
        peer.round_trip_us.map_or_else(dash, |us| {
            output::millis(i64::try_from(us).unwrap_or(i64::MAX))
        }),
        peer.clock_offset_us.map_or_else(dash, |us| {
            format!(
                "{}{}",
                if us < 0 { "-" } else { "+" },
                output::millis(us.saturating_abs())
            )
        }),
        if peer.state == PeerState::Own {
            dash()
        } else {
            peer.outbox_count.to_string()
        },
        place,
    ]
}
