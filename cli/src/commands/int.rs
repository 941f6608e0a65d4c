//! `pimesh int`

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use pimesh_node::{
    config::parse_duration,
    control::{
        api::{Lost, NewIntegers, StreamQuery},
        client::Client,
    },
    proto::iid::{Iid, Index, Value},
    state::{io::At, report::Integer},
};
use tokio::net::UdpSocket;
use tokio_util::io::ReaderStream;

use super::Global;
use crate::output;

/// How much of standard input is read at once.
const INPUT_BYTES: usize = 64 * 1024;

/// Broadcast integers to every member, or listen to theirs
///
/// Integers are live: a node that is not connected does not get them later, but learns the last
/// value of each index when it returns.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh int 42\n  pimesh int 1 2 3 --at +200ms\n  \
                        seq 1000 | pimesh int --stdin\n  pimesh int --listen --index 7\n  \
                        pimesh int --listen --udp 127.0.0.1:3615"
)]
pub(super) struct Int {
    /// The integers, from -2147483648 to 2147483647
    #[arg(allow_negative_numbers = true, required_unless_present_any = ["listen", "stdin"])]
    pub(super) values: Vec<i32>,
    /// Speak for this index (or listen to it alone) [default: this node's own]
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
    /// Send each integer on as 16 bytes: index, value, date, little endian
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    udp: Option<SocketAddr>,
}

impl Int {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let client = global.client()?;
        if self.listen {
            return self.listen(global, &client).await;
        }
        if self.stdin {
            return self.send_input(global, &client).await;
        }
        let published = client.publish(&self.body(self.values.clone())).await?;
        if global.json {
            return output::json(&published);
        }
        let (count, index) = (published.count, published.index);
        output::note(format!(
            "sent {count} for index {index}; {} members are connected",
            published.connected
        ));
        Ok(())
    }

    fn body(&self, values: Vec<i32>) -> NewIntegers {
        NewIntegers {
            index: self.index.map(Index),
            values: values.into_iter().map(Value).collect(),
            at: self.at,
        }
    }

    /// Sends what stands in standard input as it comes.
    async fn send_input(&self, global: &Global, client: &Client) -> anyhow::Result<()> {
        let query = StreamQuery::new(self.index.map(Index), self.at);
        let input = ReaderStream::with_capacity(tokio::io::stdin(), INPUT_BYTES);
        let streamed = client.publish_stream(&query, input).await?;
        if global.json {
            return output::json(&streamed);
        }
        output::note(format!("sent {}", streamed.count));
        Ok(())
    }

    async fn listen(&self, global: &Global, client: &Client) -> anyhow::Result<()> {
        let udp = match self.udp {
            Some(to) => {
                let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(from).await.context("open a UDP socket")?;
                socket
                    .connect(to)
                    .await
                    .with_context(|| format!("send to {to}"))?;
                Some(socket)
            }
            None => None,
        };
        let mut lines = client.integer_lines().await?;
        let mut held = Held::default();
        loop {
            tokio::select! {
                line = lines.next() => {
                    let Some(line) = line else { anyhow::bail!("the node stopped") };
                    let line = line?;
                    if let Ok(Lost { lost }) = serde_json::from_str(&line) {
                        output::note(format!("lost {lost}: this reader is too slow"));
                        continue;
                    }
                    let Ok(integer) = serde_json::from_str::<Integer>(&line) else { continue };
                    if self.index.is_some_and(|index| integer.index.0 != index) {
                        continue;
                    }
                    match wait_of(&integer) {
                        Some(wait) => if let Some(early) = held.push(integer, wait) {
                            output::note(format!("{HELD_MAX} integers are held back already; the next one comes early"));
                            self.show(global, &early, udp.as_ref()).await?;
                        },
                        None => self.show(global, &integer, udp.as_ref()).await?,
                    }
                }
                integer = held.due() => self.show(global, &integer, udp.as_ref()).await?,
            }
        }
    }

    async fn show(
        &self,
        global: &Global,
        integer: &Integer,
        udp: Option<&UdpSocket>,
    ) -> anyhow::Result<()> {
        if let Some(udp) = udp {
            let iid = Iid {
                index: integer.index,
                value: integer.value,
                date: integer.date,
            };
            // A receiver that is not there yet refuses datagrams; it may come.
            drop(udp.send(&iid.encode()).await);
        }
        if global.json {
            return output::json(integer);
        }
        let offset = integer.clock_offset_us.unwrap_or(0);
        let mut notes = Vec::new();
        if integer.last_known {
            notes.push("last known".to_owned());
        } else if !integer.held {
            let late = signed(integer.received_us) + offset - signed(integer.sent_ms) * 1000;
            notes.push(format!("{} late", output::millis(late)));
        } else {
            let late = now_us() + offset - signed(integer.date.0) * 1000;
            notes.push(format!("carried out {} late", output::millis(late)));
            notes.push(format!("clock offset {}", output::millis(offset)));
        }
        output::line(format!(
            "{:>6}  {:>11}  {}  {}  {}",
            integer.index,
            integer.value,
            output::local_time(integer.date.0),
            integer.from,
            notes.join(", ")
        ))
    }
}

/// Most integers that are held back; more are shown at once, the next due first.
const HELD_MAX: usize = 65_536;

/// Integers that wait for their time.
#[derive(Default)]
struct Held {
    waiting: std::collections::BTreeMap<(tokio::time::Instant, u64), Integer>,
    next: u64,
}

impl Held {
    /// Adds an integer. Returns the one that is due next if there are too many.
    fn push(&mut self, integer: Integer, wait: Duration) -> Option<Integer> {
        let due = tokio::time::Instant::now() + wait;
        self.waiting.insert((due, self.next), integer);
        self.next += 1;
        let too_many = self.waiting.len() > HELD_MAX;
        let next = too_many.then(|| self.waiting.pop_first()).flatten();
        next.map(|(_, integer)| integer)
    }

    /// Waits for the next integer that is due. Cancel safe.
    async fn due(&mut self) -> Integer {
        loop {
            let Some(&(at, number)) = self.waiting.keys().next() else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(at).await;
            if let Some(integer) = self.waiting.remove(&(at, number)) {
                return integer;
            }
        }
    }
}

/// Returns how long an integer is to be held back, by the sender's clock.
fn wait_of(integer: &Integer) -> Option<Duration> {
    if !integer.held || integer.last_known {
        return None;
    }
    let sender_now = now_us() + integer.clock_offset_us.unwrap_or(0);
    let wait = signed(integer.date.0).saturating_mul(1000) - sender_now;
    u64::try_from(wait)
        .ok()
        .filter(|&us| us > 0)
        .map(Duration::from_micros)
}

fn now_us() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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
