//! Joining, sending, broadcasting, removing.

use futures::StreamExt;
use pimesh_node::{
    control::api::{EventBody, NewIntegers, NewInvite, NewMessage},
    proto::iid::{Index, Value},
    state::{
        io::{At, Outcome, Recipients, SendVia},
        report::Integer,
    },
};
use pimesh_tests::{PATIENCE, Pi, World};

#[tokio::test]
async fn three_nodes_find_each_other_after_two_joins() -> anyhow::Result<()> {
    let world = World::new()?;

    let [a, b, c] = world.mesh(["a", "b", "c"]).await?;

    for pi in [&a, &b, &c] {
        let mut names: Vec<String> = pi
            .client
            .peers()
            .await?
            .into_iter()
            .map(|p| p.name)
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }
    let indices: Vec<i32> = a.client.peers().await?.iter().map(|p| p.index.0).collect();
    assert_eq!(
        indices
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        3
    );
    Ok(())
}

#[tokio::test]
async fn a_restarted_mesh_finds_itself_again_and_keeps_what_it_knew() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let before = b.client.status().await?.node;

    let b = b.restart().await?;
    a.wait_for_peers(1).await?;
    b.wait_for_peers(1).await?;

    let after = b.client.status().await?.node;
    assert_eq!(
        (before.peer_id, before.name, before.index),
        (after.peer_id, after.name, after.index)
    );
    Ok(())
}

#[tokio::test]
async fn a_used_ticket_is_refused() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let b = world.start("b").await?;
    let c = world.start("c").await?;
    let invite = a.client.invite(&NewInvite::default()).await?;
    b.client.join(invite.ticket.clone()).await?;

    let refused = c
        .client
        .join(invite.ticket)
        .await
        .expect_err("used")
        .to_string();

    assert!(refused.contains("used already"), "{refused}");
    assert_eq!(c.client.status().await?.node.members, 1);
    let metrics = a.client.metrics().await?;
    assert!(
        metrics.contains(r#"pimesh_refused_total{what="ticket",why="used"} 1"#),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_and_are_reported_as_delivered() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut events = a.client.events().await?;

    for number in 0..50 {
        a.send("b", &number.to_string()).await?;
    }

    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(b.wait_for_inbox(50).await?, expected);
    for _ in 0..50 {
        let outcome = Pi::wait_for_event(&mut events, |event| match event {
            EventBody::Sent(sent) => Some(sent.outcome),
            _ => None,
        });
        assert_eq!(outcome.await?, Outcome::Delivered);
    }
    assert!(a.client.outbox().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_message_for_a_node_that_is_away_waits_and_arrives() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    b.child.kill().await?;
    for number in 0..5 {
        a.send("b", &number.to_string()).await?;
    }
    // The sender's power goes, too.
    let a = a.restart().await?;
    assert_eq!(a.client.outbox().await?.len(), 5);

    let b = b.restart().await?;

    assert_eq!(b.wait_for_inbox(5).await?, ["0", "1", "2", "3", "4"]);
    Ok(())
}

#[tokio::test]
async fn the_largest_message_passes_and_one_byte_more_is_refused() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let largest = "\u{1}".repeat(1 << 20);

    a.send("b", &largest).await?;
    let refused = a
        .send("b", &"x".repeat((1 << 20) + 1))
        .await
        .expect_err("too long");

    assert!(b.wait_for_inbox(1).await? == [largest]);
    let said = refused.to_string();
    assert!(
        said.contains("at most 1048576 bytes (1 MiB), got 1048577"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn integers_arrive_once_and_in_order_equal_ones_too() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut lines = Box::pin(b.client.integer_lines().await?);
    let values = [7, 7, 7, -1, i32::MAX, i32::MIN];

    let published = a.publish(values).await?;

    let mut heard = Vec::new();
    while heard.len() < values.len() {
        let line = tokio::time::timeout(PATIENCE, lines.next())
            .await?
            .expect("a line")?;
        let integer: Integer = serde_json::from_str(&line)?;
        assert_eq!(integer.index, published.index);
        assert_eq!(integer.from, "a");
        heard.push(integer.value.0);
    }
    assert_eq!(heard, values);
    Ok(())
}

#[tokio::test]
async fn a_node_may_not_speak_for_another_index_and_learns_last_values_on_return()
-> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let foreign = NewIntegers {
        index: Some(Index(2)),
        values: vec![Value(1)],
        at: None,
    };
    let refused = a.client.publish(&foreign).await.expect_err("not its own");
    assert!(
        refused.to_string().contains("index 2 is that of `b`"),
        "{refused}"
    );

    let held = NewIntegers {
        index: None,
        values: vec![Value(5)],
        at: Some(At::InMs(200)),
    };
    a.client.publish(&held).await?;
    let b = b.restart().await?;
    b.wait_for_peers(1).await?;

    let last = b
        .wait_until("told the last value", || async {
            let last = b.client.last_integers().await?;
            Ok((!last.is_empty()).then_some(last))
        })
        .await?;
    assert_eq!(
        (last[0].index, last[0].value, last[0].last_known),
        (Index(1), Value(5), true)
    );
    Ok(())
}

#[tokio::test]
async fn a_removed_member_is_out_and_one_that_was_away_hears_of_it() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b, c] = world.mesh(["a", "b", "c"]).await?;
    b.child.kill().await?;

    a.client.remove("c").await?;
    c.wait_until("removed", || async {
        Ok(c.client.status().await?.node.revoked.then_some(()))
    })
    .await?;
    let b = b.restart().await?;

    b.wait_until("told of the removal", || async {
        let peers = b.client.peers().await?;
        Ok((!peers.iter().any(|peer| peer.name == "c")).then_some(()))
    })
    .await?;
    let refused = c.send("a", "let me in").await.expect_err("removed");
    assert!(
        refused.to_string().contains("removed from its mesh"),
        "{refused}"
    );
    // A later ticket makes it a member again.
    c.join(&a).await?;
    c.wait_for_peers(2).await?;
    Ok(())
}

#[tokio::test]
async fn p2sn_messages_pass_and_too_long_ones_are_refused_with_the_limit() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    for pi in [&a, &b] {
        pi.wait_until("in possession of the other's RSA key", || async {
            let peers = pi.client.peers().await?;
            let other = peers.into_iter().find(|p| p.name != pi.name);
            Ok(other.and_then(|p| p.rsa_fingerprint))
        })
        .await?;
    }
    let message = |text: String| NewMessage {
        to: Recipients::Named(vec!["b".to_owned()]),
        text,
        via: SendVia::P2sn,
        expiry_s: None,
    };

    a.client.send(&message("door open".to_owned())).await?;
    let refused = a
        .client
        .send(&message("x".repeat(374)))
        .await
        .expect_err("too long");

    let inbox = b.inbox().await?;
    assert_eq!(
        (inbox[0].text.as_str(), inbox[0].via.as_str()),
        ("door open", "p2sn")
    );
    assert!(
        refused.to_string().contains("at most 373 bytes, got 374"),
        "{refused}"
    );
    Ok(())
}
