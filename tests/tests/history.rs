//! The history: read whole, deleted, and kept within the disk.

use anyhow::{Context, ensure};
use pimesh_node::control::api::EventBody;
use pimesh_tests::{Pi, World, eventually, pimesh};

use crate::operate::{Running, signal};

/// Bytes of a large text.
const LARGE: usize = 1024 * 1024;

/// Returns a number of `/proc/PID/status`, in KiB.
fn memory_kib(pi: &Pi, field: &str) -> anyhow::Result<u64> {
    let pid = pi.child.id().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.context("a number")?.parse().context("a number")
}

#[tokio::test]
async fn a_large_inbox_is_read_whole_and_the_node_needs_no_memory_for_it() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut events = a.client.events().await?;
    for number in 0..32 {
        b.send("a", &format!("{number:02}{}", "x".repeat(LARGE - 2)))
            .await?;
    }
    // Waited for by their events: to read the inbox again and again is what is measured below.
    for _ in 0..32 {
        let is_received = |event| matches!(event, EventBody::Received(_)).then_some(());
        Pi::wait_for_event(&mut events, is_received).await?;
    }
    let pid = a.child.id().context("it runs")?;
    // The peak is measured from here on.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let before = memory_kib(&a, "VmRSS:")?;

    let (code, out, err) = pimesh(&a.home, &["--json", "inbox", "--all"]).await?;

    ensure!(code == 0, "{err}");
    ensure!(out.lines().count() == 32 && out.len() > 32 * LARGE);
    let peak = memory_kib(&a, "VmHWM:")?;
    ensure!(
        peak < before + 16 * 1024,
        "{before} KiB before, {peak} KiB at the peak"
    );
    Ok(())
}

#[tokio::test]
async fn more_than_fits_into_one_answer_is_followed_and_its_delivery_waited_for()
-> anyhow::Result<()> {
    let world = World::new()?;
    let [mut a, b] = world.mesh(["a", "b"]).await?;
    let mut events = a.client.events_of(&["received"]).await?;
    // JSON writes each of these bytes with six: together they are more than 64 MiB.
    for _ in 0..12 {
        b.send("a", &"\u{1}".repeat(LARGE)).await?;
        let is_received = |event| matches!(event, EventBody::Received(_)).then_some(());
        Pi::wait_for_event(&mut events, is_received).await?;
    }

    let args = ["--json", "inbox", "--follow", "--since", "1h"];
    let mut following = Running::start(&a.home, &args)?;
    for _ in 0..12 {
        following.line(|_| Some(())).await?;
    }
    b.send("a", "last").await?;
    let is_last = |line: &str| line.contains(r#""text":"last""#).then_some(());
    following.line(is_last).await?;

    // What becomes of a message while the one who waits for it stands still is looked up later.
    a.child.kill().await?;
    let word = |first: &'static str| move |line: &str| line.starts_with(first).then_some(());
    let mut waiting = Running::start(&b.home, &["send", "a", "door open", "--wait"])?;
    waiting.line(word("accepted ")).await?;
    signal(&waiting.child, "STOP").await?;
    let b = b.restart().await?;
    let _a = a.restart().await?;
    b.wait_until("delivered", async || {
        Ok(b.client.outbox().await?.is_empty().then_some(()))
    })
    .await?;
    signal(&waiting.child, "CONT").await?;
    waiting.line(word("delivered ")).await?;
    ensure!(waiting.child.wait().await?.success());
    Ok(())
}

#[tokio::test]
async fn messages_are_deleted_when_a_person_says_so() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    for text in ["one", "two", "three"] {
        b.send("a", text).await?;
    }
    a.wait_for_inbox(3).await?;
    let first = a.inbox().await?[0].id.to_string();

    let (code, _, err) = pimesh(&a.home, &["inbox", "delete"]).await?;
    ensure!(
        code == 2 && err.contains("hint: give an id"),
        "{code} {err}"
    );
    let (code, _, err) = pimesh(&a.home, &["inbox", "delete", "--from", "b"]).await?;
    ensure!(
        code == 1 && err.contains("this would delete 3 messages"),
        "{code} {err}"
    );
    let (code, out, err) = pimesh(&a.home, &["inbox", "delete", &first, "--yes"]).await?;
    ensure!(code == 0 && out == "deleted 1 message\n", "{out}{err}");
    ensure!(a.wait_for_inbox(2).await? == ["two", "three"]);
    let (code, _, err) = pimesh(&a.home, &["inbox", "delete", &first, "--yes"]).await?;
    ensure!(
        code == 1 && err.contains("no message with this id"),
        "{code} {err}"
    );
    let (code, out, err) = pimesh(&a.home, &["inbox", "delete", "--all", "--yes"]).await?;
    ensure!(code == 0 && out == "deleted 2 messages\n", "{out}{err}");

    ensure!(a.inbox().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_flood_onto_a_small_disk_is_refused_beyond_its_share_and_the_disk_does_not_fill_up()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (a, b) = (
        world.start("a").await?,
        world.start_on_small_disk("b", 48, 0).await?,
    );
    b.join(&a).await?;
    a.wait_for_peers(1).await?;

    for _ in 0..12 {
        a.send("b", &"x".repeat(1_000_000)).await?;
    }
    eventually("an empty outbox", async || {
        let outbox = a.client.outbox().await?;
        ensure!(outbox.is_empty(), "{} wait", outbox.len());
        Ok(())
    })
    .await?;

    // The limit is half of the disk, and a quarter of that is 6 MiB.
    let sent = pimesh(&a.home, &["--json", "inbox", "--sent"]).await?.1;
    let count = |what: &str| sent.matches(what).count();
    ensure!(
        count(r#""outcome":"delivered""#) == 6,
        "{} were delivered",
        count("delivered")
    );
    ensure!(count(r#""outcome":"refused: mailbox_full""#) == 6);
    ensure!(b.inbox().await?.len() == 6);
    Ok(())
}

#[tokio::test]
async fn nothing_is_taken_while_a_disk_is_nearly_full_and_nothing_is_lost() -> anyhow::Result<()> {
    let world = World::new()?;
    let (a, b) = (
        world.start("a").await?,
        world.start_on_small_disk("b", 48, 43).await?,
    );
    b.join(&a).await?;
    a.wait_for_peers(1).await?;

    a.send("b", "it waits").await?;
    eventually("a refusal in the log", async || {
        ensure!(b.log()?.contains("disk_full"));
        Ok(())
    })
    .await?;

    ensure!(
        a.client.outbox().await?.len() == 1,
        "it waits with its sender"
    );
    ensure!(b.inbox().await?.is_empty());
    let log = b.log()?;
    ensure!(log.contains("the disk is nearly full"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_called_so_at_the_start() -> anyhow::Result<()> {
    let world = World::new()?;

    let started = world.start_on_small_disk("a", 8, 9).await;

    let error = format!("{:#}", started.err().context("it does not start")?);
    ensure!(
        error.contains("disk is full") || error.contains("No space left"),
        "{error}"
    );
    ensure!(!error.contains("Error code"), "{error}");
    Ok(())
}
