//! Streams of the node that go on when the node restarts.

use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt, stream};
use pimesh_node::control::client::ClientError;
use tokio::time::Instant;

use crate::output;

/// How long to wait between two tries to reach a node that is gone, or has no place for a question: a
/// restart takes about a second.
const RETRY: Duration = Duration::from_millis(500);

/// What a stream that goes on brings.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// The next item.
    Item(T),
    /// The node was gone and is back: what happened meanwhile was missed.
    Again,
}

impl<T> Next<T> {
    /// Says whether the node was gone.
    pub(super) const fn is_again(&self) -> bool {
        matches!(self, Self::Again)
    }
}

/// Opens a stream, and opens it again whenever the node was gone. Both are said once on stderr.
///
/// # Errors
/// Fails if it cannot be opened the first time.
pub(super) async fn follow<T, S, O>(
    open: O,
) -> Result<impl Stream<Item = Result<Next<T>, ClientError>> + Unpin, ClientError>
where
    S: Stream<Item = Result<T, ClientError>> + Unpin,
    O: AsyncFn() -> Result<S, ClientError>,
{
    let first = open().await?;
    let following = stream::try_unfold((open, first), |(open, mut items)| async move {
        let why = match items.next().await {
            Some(Ok(item)) => return Ok(Some((Next::Item(item), (open, items)))),
            Some(Err(error)) if error.is_away() => Some(error),
            Some(Err(error)) => return Err(error),
            None => None,
        };
        let why = why.map_or_else(String::new, |error| format!(" ({error})"));
        output::note(format!("the node is gone{why}; waiting for it"));
        let items = loop {
            tokio::time::sleep(RETRY).await;
            match open().await {
                Ok(items) => break items,
                Err(error) if error.is_away() => {}
                Err(error) => return Err(error),
            }
        };
        output::note("the node is back");
        Ok(Some((Next::Again, (open, items))))
    });
    Ok(Box::pin(following))
}

/// When to ask the node again because it gave no answer.
///
/// A stream that is followed tells that something changed, and the node is asked what. It may have no
/// place for that question although the stream goes on, so the question is not given up.
#[derive(Debug, Default)]
pub(super) struct Retry {
    at: Option<Instant>,
    is_said: bool,
}

impl Retry {
    /// Takes an answer apart: returns it, or `None` if there is none yet.
    ///
    /// # Errors
    /// Fails if the node said no.
    pub(super) fn answer<T>(
        &mut self,
        answer: Result<T, ClientError>,
    ) -> Result<Option<T>, ClientError> {
        match answer {
            Ok(answer) => {
                *self = Self::default();
                Ok(Some(answer))
            }
            Err(error) if error.is_away() => {
                self.at = Some(Instant::now() + RETRY);
                // Of a node that is gone, the stream that is followed tells.
                if matches!(error, ClientError::Failure(_)) && !self.is_said {
                    self.is_said = true;
                    output::note(format!(
                        "the node has no answer now ({error}); asking again"
                    ));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns what comes next in a stream that is followed, or `None` when it is time to ask again.
    ///
    /// # Errors
    /// Fails if the stream does.
    pub(super) async fn next<T>(
        &self,
        events: &mut (impl Stream<Item = Result<Next<T>, ClientError>> + Unpin),
    ) -> anyhow::Result<Option<Next<T>>> {
        let again = async {
            match self.at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => Ok(Some(event.context("the events ended")??)),
            () = again => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use pimesh_node::state::io::Failure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_opened_again_however_long_the_node_is_away() {
        let opened = std::cell::Cell::new(0);
        let open = async || {
            opened.set(opened.get() + 1);
            match opened.get() {
                1 => Ok(stream::iter([Ok("before")])),
                2..100 => Err(ClientError::NoSocket("/x".into())),
                _ => Ok(stream::iter([Ok("after")])),
            }
        };

        let following = follow(open).await.expect("opens");
        let seen: Vec<_> = following.take(3).map(Result::unwrap).collect().await;

        assert!(
            matches!(
                seen[..],
                [Next::Item("before"), Next::Again, Next::Item("after")]
            ),
            "{seen:?}"
        );
        assert_eq!(opened.get(), 100);
    }

    fn full() -> ClientError {
        ClientError::Failure(Failure::unavailable(
            "64 control connections are open already",
        ))
    }

    #[tokio::test]
    async fn a_question_without_an_answer_is_asked_again_although_nothing_happens() {
        for none in [full(), ClientError::NoSocket("/x".into())] {
            let mut events = stream::pending::<Result<Next<()>, ClientError>>();
            let mut retry = Retry::default();

            let answer = retry.answer(Err::<(), _>(none)).expect("may come");

            assert!(answer.is_none() && retry.at > Some(Instant::now()));
            retry.at = Some(Instant::now());
            let next = retry.next(&mut events).await.expect("goes on");
            assert!(next.is_none());
        }
    }

    #[tokio::test]
    async fn after_an_answer_the_next_event_is_waited_for() {
        let mut retry = Retry::default();
        retry.answer(Err::<(), _>(full())).expect("may come");

        assert!(matches!(retry.answer(Ok(7)), Ok(Some(7))));

        assert!(retry.at.is_none() && !retry.is_said);
        let mut events = stream::iter([Ok(Next::Item("an event"))]);
        let next = retry.next(&mut events).await.expect("goes on");
        assert!(matches!(next, Some(Next::Item("an event"))));
    }

    #[test]
    fn what_asking_again_does_not_mend_is_an_error() {
        let failure = Failure::fault("could not read the history: disk I/O error");

        let answer = Retry::default().answer(Err::<(), _>(ClientError::Failure(failure)));

        let error = answer.expect_err("is said").to_string();
        assert_eq!(error, "could not read the history: disk I/O error");
    }
}
