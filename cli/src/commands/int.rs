//! `pimesh int`

mod held;
mod last;
mod listen;
mod publish;

use std::net::SocketAddr;

use clap::Args;
use pimesh_node::{config::parse_duration, proto::iid::Index, state::io::At};

use self::{listen::Listener, publish::Publisher};
use super::Global;

/// Broadcast integers to every member, or listen to theirs
///
/// Integers are live: a node that is not connected does not get them later, but learns the last
/// value of each index when it returns. Nodes take so many of one sender in a second
/// (`integers.budget_per_second`); this command keeps to that, and says what it did not send.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh int 42\n  pimesh int 1 2 3 --at +200ms\n  \
                        seq 1000 | pimesh int --stdin\n  pimesh int --listen --index 7\n  \
                        pimesh int --last 7 100\n  \
                        pimesh int --listen --udp 127.0.0.1:3615"
)]
pub(super) struct Int {
    /// The integers, from -2147483648 to 2147483647; with `--last`, indices
    #[arg(
        allow_negative_numbers = true,
        required_unless_present_any = ["listen", "stdin", "last"]
    )]
    pub(super) values: Vec<i32>,
    /// Speak for this index, one of this node's own or one that its gateways may speak for (or
    /// listen to it alone) [default: this node's own]
    #[arg(long, allow_negative_numbers = true)]
    pub(super) index: Option<i32>,
    /// When to carry them out: `+200ms` from now, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = at)]
    at: Option<At>,
    /// Read integers from standard input, with white space between them, and send them as they come
    #[arg(long, conflicts_with = "values")]
    stdin: bool,
    /// Listen
    #[arg(long, conflicts_with_all = ["values", "stdin", "at"])]
    listen: bool,
    /// Show the last value of each index, or of these: when it was sent, by whom, and how old it is
    #[arg(long, conflicts_with_all = ["stdin", "at", "listen", "index"])]
    last: bool,
    /// Send each integer on as 16 bytes: index, value, date, little endian
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    udp: Option<SocketAddr>,
}

impl Int {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = global.client()?;
        if self.last {
            return last::show(global, &client, &self.values).await;
        }
        let index = self.index.map(Index);
        if self.listen {
            let listener = Listener::new(global, index, self.udp).await?;
            return listener.run(&client).await;
        }
        let publisher = Publisher::new(&client, index, self.at);
        if self.stdin {
            return publisher.send_input(global).await;
        }
        publisher.send(global, self.values).await
    }
}

fn at(text: &str) -> Result<At, String> {
    if let Some(span) = text.strip_prefix('+') {
        let span = parse_duration(span).ok_or("write `+200ms` or `+5s`")?;
        return Ok(At::InMs(
            u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
        ));
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write `+200ms` or 2026-11-21T08:00:00Z".to_owned())?;
    let ms = u64::try_from(time.as_millisecond()).map_err(|_| "that is before 1970".to_owned())?;
    Ok(At::UnixMs(ms))
}
