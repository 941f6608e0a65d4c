//! Where log lines go: to stderr, and never at the cost of the node.
//!
//! A line that cannot be written is lost: the reader of stderr may be gone, or stand still
//! (`writer`). And one
//! place in the program writes only so many lines in a time, whoever provokes them: what is beyond
//! that is counted, and the counts are written once a minute.

mod fields;
mod json;
mod writer;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pimesh_node::{
    config::LogFormat,
    limits::{Bucket, Rate},
};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::format::JsonFields,
    layer::{Context, Filter, Layered, SubscriberExt},
    util::SubscriberInitExt,
};

use self::{json::Json, writer::Queue};

/// How long the end of the program waits for what the log still has to write.
const END_TIME: Duration = Duration::from_secs(1);

/// How many lines one place in the program writes, steadily and at once. A start writes some dozens.
const LINES: Rate = Rate {
    per_second: 1,
    burst: 200,
};

/// How often what was left out is told.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// The log while it is kept; at its end what still waits is written.
pub(crate) struct Log {
    queue: Queue,
    left_out: LeftOut,
}

impl Log {
    /// Tells once a minute which lines were left out.
    pub(crate) fn tell(&self) -> impl Future<Output = ()> + use<> {
        self.left_out.clone().tell()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.drain(END_TIME);
    }
}

/// Starts the log.
///
/// # Errors
/// Fails if there is no thread or descriptor left.
pub(crate) fn start(filter: EnvFilter, format: LogFormat) -> io::Result<Log> {
    let left_out = LeftOut::new();
    let queue = writer::start(format)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(queue.clone())
        .with_ansi(has_colours());
    let lines: Box<dyn Layer<Filtered> + Send + Sync> = match format {
        LogFormat::Text => lines
            .with_target(false)
            .fmt_fields(fields::fields())
            .boxed(),
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(left_out.clone()))
        .init();
    Ok(Log { queue, left_out })
}

/// What the lines are made from: what the filter lets through.
type Filtered = Layered<EnvFilter, Registry>;

/// Colours are for a terminal, and not for everybody (<https://no-color.org>).
fn has_colours() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_refused
}

/// What was left out of the log.
#[derive(Clone)]
struct LeftOut {
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

    async fn tell(self) {
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
