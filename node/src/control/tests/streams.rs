//! Streams of integers into the node.

use futures::{Stream, StreamExt, stream};

use super::*;
use crate::{
    control::api::StreamQuery,
    state::{VALUES_MAX, io::OverBudget},
};

/// Answers integers, and tells how many came with each command.
fn counting() -> (Fixture, mpsc::UnboundedReceiver<Vec<Value>>) {
    let (seen, batches) = mpsc::unbounded_channel();
    let fixture = Fixture::serving(move |command| {
        let Command::Integers { values, .. } = command else {
            panic!("not integers")
        };
        let reply = published(&values);
        seen.send(values).expect("listens");
        Ok(reply)
    });
    (fixture, batches)
}

fn pieces(text: &[&'static str]) -> impl Stream<Item = std::io::Result<axum::body::Bytes>> + use<> {
    let pieces: Vec<_> = text.iter().map(|t| Ok((*t).into())).collect();
    stream::iter(pieces)
}

#[tokio::test]
async fn integers_come_through_a_stream_in_order_however_it_is_cut() {
    let (fixture, mut batches) = counting();
    let query = StreamQuery::new(Some(Index(3)), Some(At::UnixMs(9)));

    let text = pieces(&["1 2\n-", "3\n4", "5 ", "", "6"]);
    let streamed = fixture.client.publish_stream(&query, text).await;

    assert_eq!(streamed.expect("goes well").count, 5);
    let mut all = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        all.extend(batch);
    }
    assert_eq!(all, [1, 2, -3, 45, 6].map(Value));
}

#[tokio::test]
async fn a_long_stream_goes_in_commands_that_the_node_takes() {
    let (fixture, mut batches) = counting();
    let text = "7\n".repeat(3 * VALUES_MAX + 1);
    let text = stream::iter([Ok(axum::body::Bytes::from(text))]);

    let streamed = fixture
        .client
        .publish_stream(&StreamQuery::default(), text)
        .await;

    assert_eq!(streamed.expect("goes well").count, 3 * VALUES_MAX + 1);
    let mut sizes = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        sizes.push(batch.len());
    }
    assert!(sizes.iter().all(|&size| size <= VALUES_MAX), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 3 * VALUES_MAX + 1);
}

#[tokio::test]
async fn integers_go_out_while_the_stream_is_still_open() {
    let (fixture, mut batches) = counting();
    let (sender, receiver) = mpsc::unbounded_channel();
    let text = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let client = fixture.client.clone();
    let streaming =
        tokio::spawn(async move { client.publish_stream(&StreamQuery::default(), text).await });

    sender.send(Ok("1\n".into())).expect("is read");
    assert_eq!(batches.recv().await, Some(vec![Value(1)]));
    sender.send(Ok("2\n".into())).expect("is read");
    assert_eq!(batches.recv().await, Some(vec![Value(2)]));

    drop(sender);
    let streamed = streaming.await.expect("ends").expect("goes well");
    assert_eq!(streamed.count, 2);
}

#[tokio::test]
async fn a_stream_ends_at_what_is_no_integer_although_more_is_coming() {
    let (fixture, _batches) = counting();
    let endless = pieces(&["1 2 3\n", "four\n"]).chain(stream::repeat_with(|| Ok("5\n".into())));

    let failure = failure(
        fixture
            .client
            .publish_stream(&StreamQuery::default(), endless)
            .await,
    );

    assert!(
        failure
            .message
            .starts_with("`four` is no 32-bit integer (after "),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn what_is_over_the_budget_waits_and_is_not_lost() {
    let (seen, mut batches) = mpsc::unbounded_channel();
    let mut asked = 0;
    let fixture = Fixture::serving(move |command| {
        let Command::Integers { values, .. } = command else {
            panic!("not integers")
        };
        asked += 1;
        let fits = match asked {
            1 => 2,
            3 => 0,
            _ => values.len(),
        };
        if values.len() > fits {
            let budget = OverBudget { fits, retry_ms: 1 };
            return Err(Failure::over_budget("too many", budget));
        }
        let reply = published(&values);
        seen.send(values).expect("listens");
        Ok(reply)
    });

    let text = pieces(&["1 2 3 4 5"]);
    let query = StreamQuery::default();
    let streamed = fixture.client.publish_stream(&query, text).await;

    assert_eq!(streamed.expect("goes well").count, 5);
    let batch = |values: &[i32]| values.iter().copied().map(Value).collect::<Vec<_>>();
    assert_eq!(batches.try_recv(), Ok(batch(&[1, 2])));
    assert_eq!(batches.try_recv(), Ok(batch(&[3, 4])));
    assert_eq!(batches.try_recv(), Ok(batch(&[5])));
}
