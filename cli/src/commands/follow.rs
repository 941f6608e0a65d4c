//! Streams of the node that go on when the node restarts.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use pimesh_node::control::client::ClientError;

use crate::output;

/// How long to wait between two tries to reach a node that is gone: a restart takes about a second.
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

/// Passes over a node that is gone: the stream that is followed tells of it.
pub(super) fn or_gone<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_away() => Ok(None),
        Err(error) => Err(error),
    }
}
