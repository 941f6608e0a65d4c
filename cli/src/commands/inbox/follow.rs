//! `pimesh inbox --follow`: messages as they come, each once, also if the node restarts meanwhile.

use anyhow::Context;
use futures::StreamExt;
use pimesh_node::control::{
    api::{HistoryQuery, Way},
    client::Client,
};

use super::print;
use crate::commands::{
    Global,
    follow::{follow, or_gone},
};

/// Rows of one page while following.
const PAGE_ROWS: u64 = 100;

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
/// Fails as every question to the node does, but for a node that is gone.
pub(super) async fn go_on(
    global: &Global,
    client: &Client,
    mut query: HistoryQuery,
    after: i64,
) -> anyhow::Result<()> {
    query.after = Some(after);
    query.limit = Some(PAGE_ROWS);
    let kind = match query.way {
        Way::Received => "received",
        Way::Sent => "sent",
    };
    // Followed before reading, so that nothing falls in between.
    let mut events = follow(async || client.events_of(&[kind]).await).await?;
    loop {
        catch_up(global, client, &mut query).await?;
        // Whatever came, or was missed while the node was gone: the rows behind the last one tell.
        drop(events.next().await.context("the events ended")??);
    }
}

/// Prints all messages behind the last one that was printed.
async fn catch_up(
    global: &Global,
    client: &Client,
    query: &mut HistoryQuery,
) -> anyhow::Result<()> {
    while let Some(rows) = or_gone(client.history(query).await)? {
        let Some(last) = rows.last() else { break };
        for row in &rows {
            print(global, query.way, row)?;
        }
        query.after = Some(last.row);
    }
    Ok(())
}
