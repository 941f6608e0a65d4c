//! Sends integers, no faster than the other nodes take them.

use std::time::{Duration, Instant};

use anyhow::Context;
use pimesh_node::{
    control::{
        api::{NewIntegers, Streamed},
        client::{Client, ClientError},
        words::Words,
    },
    proto::iid::{Index, Value},
    state::{
        VALUES_MAX,
        io::{At, Failure},
        report::Published,
    },
};
use tokio::io::AsyncReadExt;

use crate::{commands::Global, output};

/// How much of standard input is read at once.
const INPUT_BYTES: usize = 64 * 1024;

/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// Sends integers in their order. What is over the budget waits.
pub(super) struct Publisher<'a> {
    client: &'a Client,
    index: Option<Index>,
    at: Option<At>,
    sent: usize,
    last: Option<Published>,
    shown: Option<Instant>,
}

impl<'a> Publisher<'a> {
    pub(super) const fn new(client: &'a Client, index: Option<Index>, at: Option<At>) -> Self {
        Self {
            client,
            index,
            at,
            sent: 0,
            last: None,
            shown: None,
        }
    }

    /// Sends the integers of a command line; all have one date.
    pub(super) async fn send(
        mut self,
        global: &Global,
        values: impl IntoIterator<Item = i32>,
    ) -> anyhow::Result<()> {
        let values: Vec<Value> = values.into_iter().map(Value).collect();
        let asked = values.len();
        tokio::select! {
            sent = self.publish(&values, true) => sent,
            () = interrupted() => Err(stopped()),
        }
        .with_context(|| self.told_of(Some(asked)))?;
        output::progress_ends();
        let Some(last) = &self.last else {
            return Ok(());
        };
        if global.json {
            let published = Published {
                count: self.sent,
                ..last.clone()
            };
            return output::json(&published);
        }
        output::note(format!(
            "sent {} for index {}; {} connected",
            self.sent,
            last.index,
            output::count(last.connected, "member")
        ));
        Ok(())
    }

    /// Sends what stands in standard input, as it comes.
    pub(super) async fn send_input(mut self, global: &Global) -> anyhow::Result<()> {
        tokio::select! {
            sent = self.publish_input() => sent,
            () = interrupted() => Err(stopped()),
        }
        .with_context(|| self.told_of(None))?;
        output::progress_ends();
        if global.json {
            return output::json(&Streamed { count: self.sent });
        }
        output::note(format!("sent {}", self.sent));
        Ok(())
    }

    async fn publish_input(&mut self) -> anyhow::Result<()> {
        let mut input = tokio::io::stdin();
        let mut piece = vec![0; INPUT_BYTES];
        let (mut words, mut values) = (Words::default(), Vec::new());
        loop {
            let read = input.read(&mut piece).await;
            let read = read.context("read standard input")?;
            let failed = if read == 0 {
                std::mem::take(&mut words).finish(&mut values)
            } else {
                words.push(&piece[..read], &mut values)
            };
            // What stands in front of a word that is wrong goes out.
            self.publish(&values, false).await?;
            values.clear();
            failed.map_err(|failure| wrong(&failure))?;
            if read == 0 {
                return Ok(());
            }
        }
    }

    async fn publish(&mut self, values: &[Value], one_date: bool) -> anyhow::Result<()> {
        let (mut rest, mut fits) = (values, VALUES_MAX);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(rest.len().min(fits));
            let integers = NewIntegers {
                index: self.index,
                values: batch.to_vec(),
                at: self.at,
            };
            match self.client.publish(&integers).await {
                Ok(published) => {
                    if one_date && self.at.is_some() {
                        self.at = Some(At::UnixMs(published.date.0));
                    }
                    self.sent += batch.len();
                    self.last = Some(published);
                    (rest, fits) = (behind, VALUES_MAX);
                }
                Err(ClientError::Failure(Failure {
                    over_budget: Some(budget),
                    ..
                })) => {
                    fits = budget.fits;
                    if fits == 0 {
                        self.show();
                        tokio::time::sleep(Duration::from_millis(budget.retry_ms)).await;
                        fits = VALUES_MAX;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn show(&mut self) {
        if self.shown.is_none_or(|shown| shown.elapsed() > PROGRESS) {
            self.shown = Some(Instant::now());
            output::progress(&format!(
                "sent {}; the rest waits, for the other nodes take only so many a second",
                self.sent
            ));
        }
    }

    /// Says what went out before something went wrong.
    fn told_of(&self, asked: Option<usize>) -> String {
        output::progress_ends();
        match (self.sent, asked) {
            (0, _) => "no integer was sent".to_owned(),
            (sent, Some(asked)) => format!("sent {sent} of {}", output::count(asked, "integer")),
            (sent, None) => format!("sent {}, and not the rest", output::count(sent, "integer")),
        }
    }
}

fn wrong(failure: &Failure) -> anyhow::Error {
    output::wrong(
        failure.message.clone(),
        failure.hint.clone().unwrap_or_default(),
    )
}

fn stopped() -> anyhow::Error {
    anyhow::anyhow!("stopped by Ctrl-C")
}

/// Waits for Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
