//! Times, sizes and dates as people read them.

use std::time::Duration;

use pimesh_node::proto::{
    iid::{Date, Index},
    mesh::ranges::Ranges,
};

/// Writes all indices that a member owns.
pub(crate) fn indices(index: Index, further: &Ranges) -> String {
    if further.is_empty() {
        return index.to_string();
    }
    // With spaces, so that many of them can be broken into lines.
    format!("{index}, {}", further.to_string().replace(',', ", "))
}

/// Writes a Unix millisecond as local time.
pub(crate) fn local_time(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).ok();
    ms.and_then(local).unwrap_or_else(|| unix_ms.to_string())
}

/// Writes the date of an integer as local time, by the convention that its size shows
/// (`proto-specs/iid.md`, section 2.3); the bare number if it is no date.
pub(crate) fn date(date: Date) -> String {
    let ms = date.reading().unix_ms;
    ms.and_then(local).unwrap_or_else(|| date.to_string())
}

fn local(unix_ms: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(unix_ms).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    Some(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Writes a duration in its largest unit or two.
pub(crate) fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Writes a duration in its largest unit, to the nearest one, for a narrow column.
pub(crate) fn age(duration: Duration) -> String {
    let s = duration.as_secs();
    let of = |unit: u64| (s + unit / 2) / unit;
    match (s, of(60), of(3600)) {
        (0..60, ..) => format!("{s} s"),
        (_, minutes @ 0..60, _) => format!("{minutes} min"),
        (_, _, hours @ 0..24) => format!("{hours} h"),
        _ => format!("{} d", of(86_400)),
    }
}

/// Writes microseconds as milliseconds.
pub(crate) fn millis(us: i64) -> String {
    format!("{}.{:01} ms", us / 1000, (us % 1000).abs() / 100)
}

/// Writes how far a clock is ahead (`+`) or behind (`-`).
pub(crate) fn clock_offset(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "+" };
    let us = us.unsigned_abs();
    match us {
        0..1_000_000 => format!("{sign}{}", millis(us.cast_signed())),
        _ => format!("{sign}{}", span(Duration::from_micros(us))),
    }
}

/// Writes a number of bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    let of = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", of(1024)),
        _ => format!("{:.1} MiB", of(1_048_576)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_in_seconds_is_shown_as_the_year_it_means() {
        let seconds = Date(1_795_000_000);
        let ms = Date(1_795_000_000_000);

        assert_eq!(date(seconds), date(ms));
        assert!(date(seconds).starts_with("2026-11-"), "{}", date(seconds));
        assert_eq!(date(Date(0)), "0");
        assert_eq!(date(Date(42)), "42");
    }

    #[test]
    fn a_clock_that_is_days_off_is_told_in_days() {
        assert_eq!(clock_offset(-1_728_000_000_000), "-20 d 0 h");
        assert_eq!(clock_offset(450), "+0.4 ms");
        assert_eq!(clock_offset(-999_999), "-999.9 ms");
        assert_eq!(clock_offset(61_000_000), "+1 min 1 s");
        assert_eq!(clock_offset(i64::MIN), "-106751991 d 4 h");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_048_576), "1.0 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
    }

    #[test]
    fn an_age_is_that_of_the_nearest_unit() {
        for (seconds, shown) in [
            (59, "59 s"),
            (89, "1 min"),
            (3569, "59 min"),
            (3599, "1 h"),
            (86_399, "1 d"),
            // A week of which a moment has passed.
            (604_799, "7 d"),
            (700_000, "8 d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown, "{seconds}");
        }
    }

    #[test]
    fn further_indices_can_be_broken_into_lines() {
        let further: Ranges = "100..109,200".parse().expect("legal");
        assert_eq!(indices(Index(7), &further), "7, 100..109, 200");
        assert_eq!(indices(Index(7), &Ranges::default()), "7");
    }
}
