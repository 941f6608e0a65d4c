//! `pimesh peers`

mod list;

use anyhow::Context;
use clap::{Args, Subcommand};
use pimesh_node::{
    control::client::Client,
    proto::mesh::{
        ranges::{IndexRange, Ranges},
        vouched::Vouched,
    },
    state::report::Peer,
};

use super::{Global, input::is_typed};
use crate::output;

/// List the members of the mesh: state, last seen, round trip, clock, address, next dial
///
/// RTT is the round trip of the connection, CLOCK how far the clock there is ahead (+)
/// or behind (-). OUTBOX counts the messages that wait for the member. `--json` has all addresses,
/// keys and times.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh peers\n  pimesh peers remove kitchen\n  pimesh peers indices kitchen 100..109 200\n  pimesh peers vouch kitchen 100..199"
)]
pub(super) struct Peers {
    /// Go on: on a terminal the list is kept up to date, elsewhere it is printed at each change
    #[arg(long)]
    follow: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a member out of the mesh, for good; needs the mesh key
    ///
    /// A removal does not take the mesh key from a member that holds it. With that key, or a file of
    /// it, anybody can let others in and remove members. Only a new mesh, with another key, ends this: `pimesh leave` on one member, and invite the others into its mesh.
    Remove {
        /// Its name or peer id
        peer: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Say which further indices a member owns, beside its own one; needs the mesh key
    ///
    /// They replace those that it had: name all that it is to keep, or `--none`. An index that
    /// somebody else has cannot be given. The index in its certificate stays.
    Indices {
        /// Its name or peer id
        peer: String,
        /// An index, or several as `A..B`
        #[arg(
            value_name = "INDEX",
            allow_hyphen_values = true,
            required_unless_present = "none"
        )]
        further: Vec<IndexRange>,
        /// Take all further indices back
        #[arg(long, conflicts_with = "further")]
        none: bool,
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
            Some(Action::Indices { peer, further, .. }) => {
                let further = Ranges::new(further).map_err(|error| {
                    output::wrong(error.to_string(), "`pimesh peers` shows what it owns")
                })?;
                let given = client.give_indices(&peer, further).await?;
                if global.json {
                    return output::json(&given);
                }
                let further = given.further.iter().map(|range| range.to_string());
                let all: Vec<_> = [given.index.to_string()]
                    .into_iter()
                    .chain(further)
                    .collect();
                output::line(format!("{} owns {}", given.name, all.join(", ")))
            }
            Some(Action::Vouch { peer, vouched }) => {
                let vouched = client.vouch(&peer, vouched).await?;
                if global.json {
                    return output::json(&vouched);
                }
                output::line(format!("{} vouches for {}", vouched.name, vouched.vouched))
            }
            None if self.follow => list::follow_list(global, &client).await,
            None => {
                let peers = client.peers().await?;
                if !global.json {
                    list::warn_of_copies(&peers);
                }
                list::show(global, &peers).map(drop)
            }
        }
    }
}

async fn remove(global: &Global, client: &Client, peer: &str, yes: bool) -> anyhow::Result<()> {
    if !yes {
        if !is_typed() {
            return Err(output::wrong(
                "`pimesh peers remove` asks first, and standard input is no terminal",
                "`--yes` answers",
            ));
        }
        let peers = client.peers().await?;
        let is_it = |known: &&Peer| known.name == peer || known.peer_id.to_string() == peer;
        if peers.iter().find(is_it).is_some_and(|it| it.holds_mesh_key) {
            output::note(holder_text(peer));
        }
        output::ask(&format!("take `{peer}` out of the mesh? [y/N] "));
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
    output::line(format!("removed {} ({})", removed.name, removed.peer_id))?;
    if removed.held_mesh_key {
        output::note(holder_text(&removed.name));
    }
    Ok(())
}

/// Says what the removal of a holder of the mesh key does not do.
fn holder_text(name: &str) -> String {
    format!(
        "{name} holds the mesh key, and a removal does not take it away: with it, others can be let \
         in and members removed. If it is not to be trusted, found a new mesh: `pimesh leave` on one \
         member, and invite the others into its mesh"
    )
}
