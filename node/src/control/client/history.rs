//! Calls about the history of messages.

use futures::{Stream, StreamExt, stream};
use hyper::Method;

use super::{
    Client, ClientError,
    streams::LineStream,
    transport::{decode, with_query},
};
use crate::control::api::{Counted, Deleted, Deletion, HISTORY_DEFAULT, HistoryQuery, HistoryRow};

impl Client {
    /// Returns messages that are on disk. All of them are in memory at once: where there may be many,
    /// [`Self::history_stream`] is right.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, ClientError> {
        self.get(&with_query("/v1/messages", query)?).await
    }

    /// Returns the same, one message after the other as the node reads them.
    ///
    /// The reader may pause for as long as it likes, as a person does in a pager. The node ends a
    /// connection whose client reads nothing for a while, so the stream is asked for again behind the
    /// last message when the reader goes on.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn history_stream(
        &self,
        query: &HistoryQuery,
    ) -> Result<impl Stream<Item = Result<HistoryRow, ClientError>> + Unpin + use<>, ClientError>
    {
        let mut query = query.clone();
        if !query.all {
            query.limit.get_or_insert(HISTORY_DEFAULT);
        }
        let reading = Reading {
            lines: self.history_lines(&query).await?,
            client: self.clone(),
            query,
            has_row: false,
        };
        let rows = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|row| (row, reading)))
        });
        Ok(Box::pin(rows))
    }

    /// Returns how many messages fit a query, whatever its `limit` and `after`.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn count_history(&self, query: &HistoryQuery) -> Result<Counted, ClientError> {
        self.get(&with_query("/v1/messages/count", query)?).await
    }

    /// Deletes messages from the history, or says how many there are.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn delete_history(&self, deletion: &Deletion) -> Result<Deleted, ClientError> {
        let path = with_query("/v1/messages", deletion)?;
        self.call(Method::DELETE, &path, None::<()>).await
    }

    async fn history_lines(&self, query: &HistoryQuery) -> Result<LineStream, ClientError> {
        let path = with_query("/v1/messages/stream", query)?;
        Ok(Box::pin(self.lines(&path).await?))
    }
}

/// A stream of the history, and how to go on with it.
struct Reading {
    client: Client,
    /// What is still to come.
    query: HistoryQuery,
    lines: LineStream,
    /// Whether this connection has brought a message. One that brings none is not tried again.
    has_row: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<HistoryRow>, ClientError> {
        loop {
            match self.lines.next().await {
                None => return Ok(None),
                Some(Ok(line)) => {
                    let row: HistoryRow = decode(line.as_bytes())?;
                    self.query.after = Some(row.row);
                    self.query.limit = self.query.limit.map(|left| left.saturating_sub(1));
                    self.has_row = true;
                    return Ok(Some(row));
                }
                Some(Err(ClientError::Broken(_))) if self.has_row => {
                    self.lines = self.client.history_lines(&self.query).await?;
                    self.has_row = false;
                }
                Some(Err(error)) => return Err(error),
            }
        }
    }
}
