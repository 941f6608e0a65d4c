//! `pimesh inbox --follow`: messages as they come, each once, also if the node restarts meanwhile.

use futures::StreamExt;
use pimesh_node::control::{
    api::{HistoryQuery, Way},
    client::Client,
};

use super::print;
use crate::commands::{
    Global,
    follow::{Retry, follow},
};

/// Returns the row behind which new messages are.
///
/// # Errors
/// Fails as every question to the node does.
pub(super) async fn end(client: &Client, way: Way) -> anyhow::Result<i64> {
    let query = HistoryQuery {
        way,
        limit: Some(1),
        ..HistoryQuery::default()
    };
    let rows = client.history(&query).await?;
    Ok(rows.last().map_or(0, |row| row.row))
}

/// Prints the messages behind a row, and goes on with those that come.
///
/// # Errors
/// Fails as every question to the node does, but for a node that is gone or has no place for it.
pub(super) async fn go_on(
    global: &Global,
    client: &Client,
    mut query: HistoryQuery,
    after: i64,
) -> anyhow::Result<()> {
    query.after = Some(after);
    query.limit = None;
    query.all = true;
    let kind = match query.way {
        Way::Received => "received",
        Way::Sent => "sent",
    };
    // Followed before reading, so that nothing falls in between.
    let mut events = follow(async || client.events_of(&[kind]).await).await?;
    let mut retry = Retry::default();
    loop {
        catch_up(global, client, &mut query, &mut retry).await?;
        // Whatever came, or was missed while the node was gone: the rows behind the last one tell.
        drop(retry.next(&mut events).await?);
    }
}

/// Prints all messages behind the last one that was printed, one by one: together they may be longer
/// than an answer may be.
async fn catch_up(
    global: &Global,
    client: &Client,
    query: &mut HistoryQuery,
    retry: &mut Retry,
) -> anyhow::Result<()> {
    let Some(mut rows) = retry.answer(client.history_stream(query).await)? else {
        return Ok(());
    };
    while let Some(row) = rows.next().await {
        let Some(row) = retry.answer(row)? else { break };
        print(global, query.way, &row)?;
        query.after = Some(row.row);
    }
    Ok(())
}
