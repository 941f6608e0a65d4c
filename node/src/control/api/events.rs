//! Events, as `GET /v1/events` tells them.

use serde::{Deserialize, Serialize};

use crate::state::io::{Event, Failure};

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only events of these kinds ([`Event::KINDS`]), with commas between them; all if absent. That
    /// events were lost is told in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<String>,
}

impl EventQuery {
    /// Returns which kinds are wanted, or `None` for all.
    ///
    /// # Errors
    /// Fails at a kind that does not exist.
    pub fn wanted(&self) -> Result<Option<Vec<&'static str>>, Failure> {
        let known = |kind: &str| {
            let kinds = EventBody::KINDS;
            kinds.iter().copied().find(|k| *k == kind).ok_or_else(|| {
                Failure::bad_request(format!("there are no events of the kind `{kind}`"))
                    .with_hint(format!("the kinds are {}", kinds.join(", ")))
            })
        };
        let kinds = self.kinds.as_ref().map(|k| k.split(',').map(known));
        kinds.map(Iterator::collect).transpose()
    }
}

/// An event, as the stream of events tells it.
pub type EventBody = Event<String>;
