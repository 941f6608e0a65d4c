//! This program again, as another process: the parent writes orders to its stdin and reads answers
//! from its stdout, each a line of JSON.

use std::{
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child as Process, ChildStdin, ChildStdout, Command},
};

/// A running child.
pub(crate) struct Child {
    /// Is killed when this is dropped.
    process: Process,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with these arguments.
    pub(crate) fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().context("stdin is piped")?;
        let answers = process.stdout.take().context("stdout is piped")?;
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers).lines(),
        })
    }

    /// Returns its process id, if it still runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Gives an order.
    pub(crate) async fn order(&mut self, order: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        Ok(self.orders.write_all(line.as_bytes()).await?)
    }

    /// Waits for an answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = self.answers.next_line().await?.context("the child ended")?;
        serde_json::from_str(&line).with_context(|| format!("a child says `{line}`"))
    }
}

/// Reads orders; the child's side.
pub(crate) fn orders() -> Lines<BufReader<tokio::io::Stdin>> {
    BufReader::new(tokio::io::stdin()).lines()
}

/// Answers; the child's side.
pub(crate) fn answer(answer: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

/// Returns the time as all processes of this machine see it, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Pairs the times at which each was sent with those at which it was heard, in microseconds.
pub(crate) fn delays(sent: &[u64], heard: &[u64]) -> Vec<f64> {
    let delay = |(sent, heard): (&u64, &u64)| heard.saturating_sub(*sent) as f64 / 1e3;
    sent.iter().zip(heard).map(delay).collect()
}
