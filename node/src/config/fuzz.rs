//! Whatever stands in the file, it is legal or refused with a reason.

use super::*;
use crate::fuzz::{bytes_of, fuzz};

#[test]
fn a_configuration_is_legal_or_an_error_that_says_something() {
    let shown = example().replace("\n# ", "\n");
    let corpus = bytes_of([
        &shown,
        "[network]\nlissten = []",
        "[network]\nconnections_max = 65537",
        "[messages]\nexpiry = \"31d\"\nhistory_age_max = \"18446744073709551615ms\"",
        "[messages]\noutbox_count_max = 0",
        "[integers]\nttl = \"601s\"",
        "[control]\ntcp = \"[::1]:0\"",
        "[control]\ntcp = \"0.0.0.0:0\"",
        "node.name = \"\\u00e9\"",
        &format!("a = {}", "[".repeat(200)),
    ]);
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().count().max(1);
        match Config::parse(&text) {
            Ok(config) => {
                let hours = |d: Duration| d.as_secs_f64() / 3600.0;
                let settings = &config.settings;
                assert!((1.0 / 60.0..=720.0).contains(&hours(settings.expiry.time())));
                assert!((1..=600_000).contains(&settings.integer_ttl.as_millis()));
                assert!((1..=1_000_000).contains(&settings.outbox_count_max));
                assert!((4..=65_536).contains(&config.network.connections_max));
                assert!(matches!(config.rsa_bits, 2048 | 3072 | 4096));
                assert!(config.control.tcp.is_none_or(|tcp| tcp.ip().is_loopback()));
                true
            }
            Err(ConfigError::UnknownKey { line, nearest, .. }) => {
                assert!((1..=lines).contains(&line));
                assert!(nearest.is_none_or(|nearest| keys().contains(&nearest)));
                false
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    });
}

#[test]
fn a_duration_or_a_size_is_its_number_times_its_unit() {
    let durations = ["30s", "200 ms", "15min", "7d", "18446744073709551615ms"];
    let sizes = ["4 MiB", "0B", "17179869183GiB"];
    let corpus = bytes_of(durations.into_iter().chain(sizes));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let number: Option<u128> = digits.parse().ok();
        let units = [1, 1000, 60_000, 3_600_000, 86_400_000];
        let shifts = [0, 10, 20, 30];
        let duration = parse_duration(&text).map(|duration| duration.as_millis());
        let size = Size::try_from(text.into_owned()).ok();
        let is = |read: u128, unit: u128| number.is_some_and(|n| n * unit == read);
        assert!(duration.is_none_or(|ms| units.iter().any(|unit| is(ms, *unit))));
        assert!(size.is_none_or(|s| shifts.iter().any(|s2| is(s.0.into(), 1 << s2))));
        duration.is_some() || size.is_some()
    });
}
