//! Where log lines go: to stderr, and never at the cost of the node.
//!
//! A line that cannot be written is lost: the reader of stderr may be gone, or stand still. And one
//! place in the program writes only so many lines in a time, whoever provokes them: what is beyond
//! that is counted, and the counts are written once a minute.

mod fields;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pimesh_node::{
    config::LogFormat,
    limits::{Bucket, Rate},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::MakeWriter,
    layer::{Context, Filter, Layered, SubscriberExt},
    util::SubscriberInitExt,
};

/// Most bytes that are written at once: a pipe that is ready takes as many without waiting.
const CHUNK_BYTES: usize = 4096;

/// How long a line waits for a reader that is slow.
const READER_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// How many lines one place in the program writes, steadily and at once. A start writes some dozens.
const LINES: Rate = Rate {
    per_second: 1,
    burst: 200,
};

/// How often what was left out is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the log; returns what tells of the lines that were left out.
pub(crate) fn start(filter: EnvFilter, format: LogFormat) -> LeftOut {
    let left_out = LeftOut::new();
    let writer = Stderr {
        format,
        lost: Arc::default(),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(has_colours());
    let lines: Box<dyn Layer<Filtered> + Send + Sync> = match format {
        LogFormat::Text => lines
            .with_target(false)
            .fmt_fields(fields::fields())
            .boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(left_out.clone()))
        .init();
    left_out
}

/// What the lines are made from: what the filter lets through.
type Filtered = Layered<EnvFilter, Registry>;

/// Colours are for a terminal, and not for everybody (<https://no-color.org>).
fn has_colours() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_refused
}

/// Writes to stderr what it takes at once, and loses the rest.
#[derive(Clone)]
struct Stderr {
    format: LogFormat,
    lost: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.lost.load(Ordering::Relaxed);
        // Once a reader stands still, nothing waits for it until it reads again.
        let patience = (lost == 0).then_some(READER_TIME);
        if !is_ready(patience) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let mut err = io::stderr().lock();
        if lost > 0 {
            self.lost.store(0, Ordering::Relaxed);
            drop(match self.format {
                LogFormat::Text => writeln!(err, "({lost} log lines were lost here)"),
                LogFormat::Json => writeln!(err, "{{\"lost\":{lost}}}"),
            });
        }
        for chunk in line.chunks(CHUNK_BYTES) {
            if !is_ready(None) || err.write_all(chunk).is_err() {
                break;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says whether stderr takes something without waiting; a reader that is gone is no reason to wait.
fn is_ready(patience: Option<Timespec>) -> bool {
    let err = io::stderr();
    let mut ends = [PollFd::new(&err, PollFlags::OUT)];
    let patience = patience.unwrap_or_default();
    poll(&mut ends, Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// What was left out of the log.
#[derive(Clone)]
pub(crate) struct LeftOut {
    began: Instant,
    places: Arc<Mutex<BTreeMap<Place, Lines>>>,
}

/// A place in the program that writes lines.
type Place = (&'static str, u32);

/// The lines of one place.
struct Lines {
    bucket: Bucket,
    left_out: u64,
}

impl LeftOut {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            places: Arc::default(),
        }
    }

    /// Tells once a minute what was left out.
    pub(crate) async fn tell(self) {
        let mut ticks = tokio::time::interval(TELL_INTERVAL);
        loop {
            ticks.tick().await;
            for ((file, at), lines) in self.take() {
                tracing::warn!(lines, file, at, "too many lines from one place; left out");
            }
        }
    }

    fn take(&self) -> Vec<(Place, u64)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = places.iter_mut().filter(|(_, lines)| lines.left_out > 0);
        left_out
            .map(|(place, lines)| (*place, std::mem::take(&mut lines.left_out)))
            .collect()
    }

    fn admits(&self, metadata: &'static Metadata<'static>, now: Duration) -> bool {
        let place = (
            metadata.file().unwrap_or(metadata.target()),
            metadata.line().unwrap_or(0),
        );
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = places.entry(place).or_insert_with(|| Lines {
            bucket: Bucket::new(LINES),
            left_out: 0,
        });
        let is_admitted = lines.bucket.take(now);
        lines.left_out += u64::from(!is_admitted);
        is_admitted
    }
}

impl<S: Subscriber> Filter<S> for LeftOut {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Whoever asks for more than usual wants all of it.
        *metadata.level() > Level::INFO || self.admits(metadata, self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_writes_no_more_than_its_lines_and_the_others_are_counted() {
        let left_out = LeftOut::new();
        let guard = tracing::subscriber::set_default(
            tracing_subscriber::registry().with(
                tracing_subscriber::fmt::layer()
                    .with_writer(io::sink)
                    .with_filter(left_out.clone()),
            ),
        );
        for _ in 0..1000 {
            tracing::info!("a stranger knocks");
        }
        tracing::info!("something else");
        drop(guard);

        let [(_, lines)] = left_out.take()[..] else {
            panic!("one place wrote too many")
        };
        // A second may have passed, which brings a line back.
        assert!((700..=800).contains(&lines), "{lines}");
        assert!(left_out.take().is_empty(), "told once");
    }
}
