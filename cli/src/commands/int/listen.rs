//! `pimesh int --listen`

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use futures::StreamExt;
use pimesh_node::{
    control::{api::Lost, client::Client},
    proto::iid::{Iid, Index},
    state::report::Integer,
};
use tokio::net::UdpSocket;

use super::held::{HELD_MAX, Held, Pushed, is_held};
use crate::{
    commands::{
        Global,
        follow::{Next, follow},
    },
    output,
};

/// Shows integers as they come, and those with a time when it has come.
pub(super) struct Listener<'a> {
    global: &'a Global,
    index: Option<Index>,
    udp: Option<UdpSocket>,
}

impl<'a> Listener<'a> {
    pub(super) async fn new(
        global: &'a Global,
        index: Option<Index>,
        udp: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let udp = match udp {
            Some(to) => Some(connected(to).await?),
            None => None,
        };
        Ok(Self { global, index, udp })
    }

    pub(super) async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut lines = follow(async || client.integer_lines().await).await?;
        let mut held = Held::default();
        loop {
            tokio::select! {
                line = lines.next() => match line.context("the stream of integers ended")?? {
                    Next::Again => output::note("integers sent meanwhile are missing here"),
                    Next::Item(line) => self.take(&line, &mut held).await?,
                },
                integer = held.due() => self.show(&integer).await?,
            }
        }
    }

    async fn take(&self, line: &str, held: &mut Held) -> anyhow::Result<()> {
        if let Ok(Lost { lost }) = serde_json::from_str(line) {
            output::note(format!("lost {lost}: this reader is too slow"));
            return Ok(());
        }
        let Ok(integer) = serde_json::from_str::<Integer>(line) else {
            return Ok(());
        };
        if self.index.is_some_and(|index| integer.index != index) {
            return Ok(());
        }
        let wait = wait_of(&integer);
        match held.push(integer, wait) {
            Pushed::Waits => Ok(()),
            Pushed::Now(integer) => self.show(&integer).await,
            Pushed::TooMany(integer) => {
                output::note(format!(
                    "{HELD_MAX} integers are held back already; the next one comes early"
                ));
                self.show(&integer).await
            }
        }
    }

    async fn show(&self, integer: &Integer) -> anyhow::Result<()> {
        if let Some(udp) = &self.udp {
            let iid = Iid {
                index: integer.index,
                value: integer.value,
                date: integer.date,
            };
            // A receiver that is not there yet refuses datagrams; it may come.
            drop(udp.send(&iid.encode()).await);
        }
        if self.global.json {
            return output::json(integer);
        }
        let offset = integer.clock_offset_us.unwrap_or(0);
        let mut notes = Vec::new();
        if integer.last_known {
            notes.push("last known".to_owned());
        } else if let Some(due_us) = due_us(integer) {
            let late = now_us() + offset - due_us;
            notes.push(format!("carried out {} late", output::millis(late)));
            notes.push(format!("clock offset {}", output::clock_offset(offset)));
        } else {
            let late = signed(integer.received_us) + offset - signed(integer.sent_ms) * 1000;
            notes.push(format!("{} late", output::millis(late)));
        }
        output::line(format!(
            "{:>6}  {:>11}  {}  {}  {}",
            integer.index,
            integer.value,
            output::date(integer.date),
            integer.from,
            notes.join(", ")
        ))
    }
}

async fn connected(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(from).await.context("open a UDP socket")?;
    let connected = socket.connect(to).await;
    connected.with_context(|| format!("send to {to}"))?;
    Ok(socket)
}

/// Returns when an integer is to be carried out, by the sender's clock, if it says so.
fn due_us(integer: &Integer) -> Option<i64> {
    let due_ms = is_held(integer).then(|| integer.date.reading().unix_ms)??;
    Some(due_ms.saturating_mul(1000))
}

/// Returns how long an integer is to be held back.
fn wait_of(integer: &Integer) -> Option<Duration> {
    let sender_now = now_us() + integer.clock_offset_us.unwrap_or(0);
    let wait = due_us(integer)? - sender_now;
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
