//! The node's calendar clock: the system's, corrected by what NTP servers say (proto-specs/iid.md,
//! section 7.2).
//!
//! It never sets the system's clock, and never keeps a node from starting: without an answer the
//! system's clock counts as it is. Without configured servers nobody is asked.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::future::join_all;
use rsntp::{AsyncSntpClient, SynchronizationError};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinHandle, time};

use crate::state::io::Now;

/// How often servers are asked.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// How soon they are asked again if none answered: a Pi may start before its network.
const AGAIN: Duration = Duration::from_secs(60);

/// Questions to each server, the best answer to which counts.
const SAMPLES: u32 = 8;

/// Time between two questions to one server: what NTP's own burst waits.
const SAMPLE_GAP: Duration = Duration::from_secs(2);

/// How long an answer is waited for.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What systemd's NTP client touches when it has set the clock.
const SYSTEM_SYNCED: &str = "/run/systemd/timesync/synchronized";

/// How long that counts: it asks every 34 minutes at least.
const SYSTEM_SYNCED_TIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The port of NTP.
const PORT: u16 = 123;

/// How far the system's clock may move against the monotonic one before it counts as set, in
/// microseconds. Drift of 100 ppm comes to 90 ms between two questions.
const STEP_US: i64 = 500_000;

/// What a server said.
#[derive(Clone, Debug)]
struct Reading {
    server: String,
    offset_us: i64,
    round_trip_us: u64,
    at: Instant,
    /// The system's clock less the monotonic one, then.
    system_less_mono_us: i64,
}

impl Reading {
    /// Corrects the system's clock. If that was set since, what the server said does not hold for
    /// it any more, and time goes on from the reading by the monotonic clock.
    fn correct(&self, system_us: i64, mono_us: i64) -> (i64, Held) {
        let step_us = system_us - mono_us - self.system_less_mono_us;
        if step_us.abs() > STEP_US {
            (system_us - step_us + self.offset_us, Held::WasSet)
        } else {
            (system_us + self.offset_us, Held::Steady)
        }
    }
}

/// Whether the system's clock went on as it was since a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Steady,
    WasSet,
}

/// What is known of the time.
#[derive(Debug, Default)]
struct Known {
    reading: Option<Reading>,
    error: Option<String>,
}

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The system's clock as it is.
    System,
    /// The system's clock, corrected by an NTP server.
    Ntp,
}

/// The clock, as `pimesh status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where the time comes from.
    pub source: Source,
    /// The NTP server whose answer counts.
    pub server: Option<String>,
    /// What is added to the system's clock, in microseconds.
    pub offset_us: i64,
    /// The round trip of that answer; its error is half of this at most.
    pub round_trip_us: Option<u64>,
    /// How long ago it came.
    pub age_ms: Option<u64>,
    /// Why no configured server answered when they were asked last.
    pub error: Option<String>,
}

/// The node's clocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    known: Arc<Mutex<Known>>,
    was_set: Arc<Notify>,
    confirmed: Arc<Notify>,
}

impl Clock {
    /// Starts with the system's clock as it is.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            known: Arc::default(),
            was_set: Arc::default(),
            confirmed: Arc::default(),
        }
    }

    /// Asks servers from here on, each a host name or an address, with a port or without.
    pub fn follow(&self, servers: Vec<String>) -> Option<JoinHandle<()>> {
        (!servers.is_empty()).then(|| tokio::spawn(self.clone().ask_for_ever(servers)))
    }

    /// Looks whether the system keeps its clock by NTP, from here on.
    #[must_use]
    pub fn watch(&self) -> JoinHandle<()> {
        let confirmed = Arc::clone(&self.confirmed);
        tokio::spawn(async move {
            loop {
                if system_follows_ntp() {
                    confirmed.notify_one();
                }
                time::sleep(AGAIN).await;
            }
        })
    }

    /// Waits until an NTP server has said the time that the clock shows.
    pub async fn confirmed(&self) {
        self.confirmed.notified().await;
    }

    /// Returns when the node started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.started.elapsed();
        let system_us = system_us();
        let corrected = match &self.known().reading {
            Some(reading) => {
                let (corrected, held) = reading.correct(system_us, micros(mono));
                if held == Held::WasSet {
                    self.was_set.notify_one();
                }
                corrected
            }
            None => system_us,
        };
        Now {
            mono,
            unix_us: u64::try_from(corrected).unwrap_or(0),
        }
    }

    /// Says how it stands with the clock.
    #[must_use]
    pub fn report(&self) -> Report {
        let known = self.known();
        let reading = known.reading.as_ref();
        let age = reading.map(|reading| reading.at.elapsed().as_millis());
        Report {
            source: reading.map_or(Source::System, |_| Source::Ntp),
            server: reading.map(|reading| reading.server.clone()),
            offset_us: reading.map_or(0, |reading| reading.offset_us),
            round_trip_us: reading.map(|reading| reading.round_trip_us),
            age_ms: age.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            error: known.error.clone(),
        }
    }

    async fn ask_for_ever(self, servers: Vec<String>) {
        let mut has_warned = false;
        loop {
            let wait = match self.ask(&servers).await {
                Ok(()) => {
                    has_warned = false;
                    INTERVAL
                }
                Err(error) => {
                    if !has_warned {
                        tracing::warn!(%error, "no NTP server answers");
                    }
                    has_warned = true;
                    self.known().error = Some(error);
                    AGAIN
                }
            };
            tokio::select! {
                () = time::sleep(wait) => {}
                () = self.was_set.notified() => self.forget(),
            }
        }
    }

    /// Asks all servers a few times; the answer with the shortest round trip counts. The first one
    /// counts until there is a better one, if none is known.
    async fn ask(&self, servers: &[String]) -> Result<(), String> {
        let mut best: Option<Reading> = None;
        let mut error = String::new();
        for sample in 1..=SAMPLES {
            let answers = join_all(servers.iter().map(|server| self.sample(server))).await;
            for (answer, server) in answers.into_iter().zip(servers) {
                match answer {
                    Ok(reading) => best = Some(better(best, reading)),
                    Err(why) => error = format!("{server}: {why}"),
                }
            }
            let is_last = sample == SAMPLES;
            let is_first = self.known().reading.is_none();
            if let Some(best) = &best
                && (is_first || is_last)
            {
                self.take(best.clone());
            }
            if !is_last {
                time::sleep(SAMPLE_GAP).await;
            }
            // Who does not answer twice is not asked eight times.
            if best.is_none() && sample == 2 {
                break;
            }
        }
        best.map(drop).ok_or(error)
    }

    async fn sample(&self, server: &str) -> Result<Reading, String> {
        let asking = async {
            let address = resolve(server).await?;
            let answer = client(address).synchronize(address).await;
            answer.map_err(|error| reason(&error))
        };
        let answer = time::timeout(2 * ANSWER_TIME, asking).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())??;
        let round_trip_us = rounded(answer.round_trip_delay().as_secs_f64());
        Ok(Reading {
            server: server.to_owned(),
            offset_us: rounded(answer.clock_offset().as_secs_f64()),
            round_trip_us: u64::try_from(round_trip_us)
                .map_err(|_| "the system's clock was set meanwhile".to_owned())?,
            at: Instant::now(),
            system_less_mono_us: system_us() - micros(self.started.elapsed()),
        })
    }

    fn take(&self, reading: Reading) {
        let mut known = self.known();
        if known.reading.is_none() {
            let (server, offset_us) = (&reading.server, reading.offset_us);
            tracing::info!(%server, offset_us, "the clock follows NTP");
        }
        *known = Known {
            reading: Some(reading),
            error: None,
        };
        self.confirmed.notify_one();
    }

    /// The system's clock was set: keeps to the time of the last reading, and says so.
    fn forget(&self) {
        if let Some(reading) = &mut self.known().reading {
            let now_us = system_us() - micros(self.started.elapsed());
            let step_us = now_us - reading.system_less_mono_us;
            reading.offset_us -= step_us;
            reading.system_less_mono_us = now_us;
            tracing::info!(step_us, "the system's clock was set; asking NTP again");
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether systemd's NTP client has set the clock lately, by the clock as it is: it touches a
/// file each time it does.
fn system_follows_ntp() -> bool {
    let touched = std::fs::metadata(SYSTEM_SYNCED).and_then(|found| found.modified());
    touched.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < SYSTEM_SYNCED_TIME))
}

fn better(best: Option<Reading>, next: Reading) -> Reading {
    match best {
        Some(best) if best.round_trip_us <= next.round_trip_us => best,
        _ => next,
    }
}

async fn resolve(server: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = server.parse() {
        return Ok(address);
    }
    if let Ok(ip) = server.parse::<IpAddr>() {
        return Ok((ip, PORT).into());
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| "no such port".to_owned())?),
        None => (server, PORT),
    };
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| error.to_string())?;
    found
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

fn client(server: SocketAddr) -> AsyncSntpClient {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let config = rsntp::Config::default()
        .bind_address((any, 0).into())
        .timeout(ANSWER_TIME);
    AsyncSntpClient::with_config(config)
}

fn reason(error: &SynchronizationError) -> String {
    match error {
        SynchronizationError::IOError(error) => error.to_string(),
        SynchronizationError::ProtocolError(error) => error.to_string(),
    }
}

fn system_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    micros(since.unwrap_or_default()).min(DATE_MAX_US)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// No clock is read as later, in microseconds since 1970: the year 38,000 or so. The differences of
/// two dates and their sums with offsets then overflow nothing.
const DATE_MAX_US: i64 = 1 << 60;

/// Seconds to microseconds; beyond the range of the clock it stays at its end.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from floating point saturates"
)]
fn rounded(seconds: f64) -> i64 {
    // NTP has 32 bits of seconds, so that no sum of this and a date overflows.
    (seconds.clamp(-4e9, 4e9) * 1e6).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn reading(offset_us: i64, round_trip_us: u64) -> Reading {
        Reading {
            server: "a".to_owned(),
            offset_us,
            round_trip_us,
            at: Instant::now(),
            system_less_mono_us: 1_000 * HOUR_US,
        }
    }

    #[test]
    fn the_offset_is_added_to_the_systems_clock() {
        let mono = 7_000_000;
        let system = 1_000 * HOUR_US + mono;

        assert_eq!(
            reading(-250_000, 900).correct(system, mono),
            (system - 250_000, Held::Steady)
        );
        // Drift is the system's own affair: somebody may be correcting it slowly.
        assert_eq!(
            reading(0, 900).correct(system + STEP_US, mono),
            (system + STEP_US, Held::Steady)
        );
    }

    #[test]
    fn time_goes_on_steadily_when_the_systems_clock_is_set() {
        let (mono, offset) = (7_000_000, 3 * HOUR_US);
        let system = 1_000 * HOUR_US + mono;

        let set = reading(offset, 900).correct(system + 3 * HOUR_US, mono);
        let back = reading(offset, 900).correct(system - HOUR_US, mono);

        assert_eq!(set, (system + offset, Held::WasSet));
        assert_eq!(back, (system + offset, Held::WasSet));
    }

    #[test]
    fn the_answer_with_the_shortest_round_trip_counts() {
        let readings = [(1, 900), (2, 300), (3, 301), (4, 300)];
        let readings = readings.map(|(offset, round_trip)| reading(offset, round_trip));

        let best = readings
            .into_iter()
            .fold(None, |best, next| Some(better(best, next)));

        assert_eq!(best.map(|best| best.offset_us), Some(2));
    }

    #[tokio::test]
    async fn a_server_has_the_port_of_ntp_unless_it_names_one() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:123"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("::1", "[::1]:123"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            let expected = address.parse::<SocketAddr>().map_err(|e| e.to_string());
            assert_eq!(resolve(text).await, expected, "{text}");
        }
        assert!(resolve("host:port").await.is_err());
    }

    #[test]
    fn no_offset_is_beyond_what_dates_can_bear() {
        assert_eq!(rounded(-0.25), -250_000);
        assert_eq!(rounded(f64::MAX), 4_000_000_000_000_000);
        assert_eq!(rounded(f64::NAN), 0);
    }
}
