//! Log lines as JSON objects.
//!
//! As for people, no field is longer than a screen, and nothing in a line steers a terminal; in JSON
//! that is escaped as JSON does it, so a value is exact as far as it goes.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::{LookupSpan, SpanRef},
};

use super::fields::FIELD_CHARS_MAX;
use crate::output;

/// Writes events as JSON. The fields of spans have to be written by
/// [`JsonFields`](tracing_subscriber::fmt::format::JsonFields).
pub(super) struct Json;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    fields: Map<String, Value>,
    target: &'a str,
    /// Where it happened, the outermost first; this node has none of its own, but libraries do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<Map<String, Value>>,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope().into_iter();
        let spans = spans.flat_map(|scope| scope.from_root());
        let line = output::json_text(&Line {
            timestamp,
            level: event.metadata().level().as_str(),
            fields: fields.0,
            target: event.metadata().target(),
            spans: spans.map(|span| described::<_, N>(&span)).collect(),
        });
        writeln!(to, "{}", line.map_err(|_| fmt::Error)?)
    }
}

/// Returns the fields of a span, and its name.
fn described<'a, S: LookupSpan<'a>, N: 'static>(span: &SpanRef<'a, S>) -> Map<String, Value> {
    let extensions = span.extensions();
    let fields = extensions.get::<FormattedFields<N>>();
    let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
    let mut fields: Map<String, Value> = fields.unwrap_or_default();
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            cut(text);
        }
    }
    fields.insert("name".to_owned(), span.name().into());
    fields
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = format!("{value:?}");
        cut(&mut text);
        self.add(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }
}

/// Cuts a text to [`FIELD_CHARS_MAX`], with `…` in the place of the rest.
fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(FIELD_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use pimesh_node::text::is_hidden;
    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;
    use crate::log::fields::tests::Log;

    #[test]
    fn lines_are_exact_short_and_have_nothing_that_a_terminal_obeys() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .with_writer(move || writer.clone())
            .finish();
        let text = "a\u{7f}\u{9b}31m\u{202e}\n\"é";
        let long = "\u{9b}".repeat(5000);

        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("asking", long, %text).entered();
            tracing::info!(text, shown = %text, long, count = 7, is_so = true, "said");
            tracing::warn!("{long}");
        });

        let written = log.text();
        assert!(!written.replace('\n', "").contains(is_hidden), "{written}");
        let lines = written.lines().map(serde_json::from_str::<Value>);
        let [Ok(first), Ok(second)] = &lines.collect::<Vec<_>>()[..] else {
            panic!("{written}");
        };
        let fields = &first["fields"];
        assert_eq!(
            (&fields["text"], &fields["shown"]),
            (&text.into(), &text.into())
        );
        assert_eq!(
            (&fields["count"], &fields["is_so"]),
            (&7.into(), &true.into())
        );
        assert_eq!(fields["message"], "said");
        assert_eq!(
            (&first["level"], &second["level"]),
            (&"INFO".into(), &"WARN".into())
        );
        assert_eq!(first["target"], module_path!());
        let span = &first["spans"][0];
        assert_eq!(
            (&span["name"], &span["text"]),
            (&"asking".into(), &text.into())
        );
        for cut in [&fields["long"], &span["long"], &second["fields"]["message"]] {
            let cut = cut.as_str().expect("a text");
            assert_eq!(cut, "\u{9b}".repeat(2000) + "…");
        }
    }
}
