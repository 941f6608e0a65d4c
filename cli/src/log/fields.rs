//! How the fields of log lines are written for people.
//!
//! Many fields hold what others sent. None of them can end the line, move the cursor or turn its
//! direction, and none is longer than a screen.

use std::fmt::{self, Write};

use pimesh_node::text::visible_start;
use tracing_subscriber::{
    field::MakeExt,
    fmt::{FormatFields, format::debug_fn},
};

/// How many characters of a field are written.
pub(super) const FIELD_CHARS_MAX: usize = 2000;

/// Returns the format of fields: `name=value`, and the message without a name.
pub(super) fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    debug_fn(|to, field, value| write_field(to, field.name(), value)).delimited(" ")
}

fn write_field(to: &mut impl Write, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
    let value = visible_start(&format!("{value:?}"), FIELD_CHARS_MAX);
    if name == "message" {
        to.write_str(&value)
    } else {
        write!(to, "{name}={value}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    pub(in crate::log) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(in crate::log) fn text(&self) -> String {
            let written = self.0.lock().expect("no panic holds it").clone();
            String::from_utf8(written).expect("UTF-8")
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_field_ends_the_line_or_steers_the_terminal() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        let (text, long) = ("a\u{1b}[2J\nb\u{202e}", "x".repeat(5000));

        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(%text, count = 7, "said");
            tracing::info!("{text}");
            tracing::info!(%long, "long");
        });

        let written = log.text();
        let lines: Vec<&str> = written.lines().collect();
        let [first, second, third] = lines[..] else {
            panic!("{written}");
        };
        assert_eq!(
            first.trim(),
            r"INFO said text=a\u{1b}[2J\nb\u{202e} count=7"
        );
        assert_eq!(second.trim(), r"INFO a\u{1b}[2J\nb\u{202e}");
        assert!(third.len() < 2100, "{third}");
    }
}
