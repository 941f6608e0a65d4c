//! A log that nobody reads costs the node nothing, and what is no terminal gets no colours.

use std::process::Stdio;

use anyhow::{Context, ensure};
use pimesh_node::control::client::Client;
use pimesh_tests::{PATIENCE, World, eventually, program, terminal};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use crate::operate::signal;

/// Starts a node that logs all that there is to a pipe, and waits until it is ready.
async fn start(world: &World) -> anyhow::Result<(Child, Client)> {
    let home = world.home("a");
    let mut child = Command::new(program())
        .arg("--home")
        .arg(&home)
        .args(["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .env("PIMESH_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    ensure!(line.is_some_and(|line| line.starts_with("ready ")));
    Ok((child, Client::new(home.join("control.sock"))))
}

#[tokio::test]
async fn a_node_whose_log_has_no_reader_any_more_serves_on() -> anyhow::Result<()> {
    let world = World::new()?;
    let (mut child, client) = start(&world).await?;

    drop(child.stderr.take());

    for _ in 0..50 {
        client.status().await?;
    }
    assert!(child.try_wait()?.is_none(), "it runs");
    Ok(())
}

#[tokio::test]
async fn a_node_whose_log_is_not_read_serves_on_and_says_later_what_was_lost() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (mut child, client) = start(&world).await?;
    let mut stderr = child.stderr.take().context("stderr is piped")?;

    // Each request is some dozens of lines, and a pipe holds 64 KiB.
    for _ in 0..500 {
        tokio::time::timeout(PATIENCE, client.status()).await??;
    }

    let (mut text, mut part) = (String::new(), vec![0; 64 * 1024]);
    let reading = async {
        while !text.contains("log lines were lost here") {
            client.status().await?;
            let count = stderr.read(&mut part).await?;
            text.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await??;
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    Ok(())
}

/// A terminal over a network that hangs is one that nobody reads.
#[tokio::test]
async fn a_node_on_a_terminal_that_takes_nothing_serves_on() -> anyhow::Result<()> {
    let world = World::new()?;
    let home = world.home("a");
    let (terminal, end) = terminal(80)?;
    let mut child = Command::new(program())
        .arg("--home")
        .arg(&home)
        .args(["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .env("PIMESH_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(end.try_clone()?)
        .stderr(end)
        .kill_on_drop(true)
        .spawn()?;
    let client = Client::new(home.join("control.sock"));
    eventually("an answer", async || Ok(client.status().await?)).await?;

    // Each request is some dozens of lines, and a terminal holds 4 KiB or some more.
    for _ in 0..500 {
        tokio::time::timeout(PATIENCE, client.status()).await??;
    }
    signal(&child, "TERM").await?;

    let ended = tokio::time::timeout(PATIENCE, child.wait()).await??;
    ensure!(ended.success(), "{ended}");
    drop(terminal);
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_listens_to_ends_quietly() -> anyhow::Result<()> {
    let world = World::new()?;
    for args in [&["status"][..], &["config", "example"], &["id"]] {
        // A pipe whose reader is gone.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = Command::new(program())
            .arg("--home")
            .arg(world.home("nobody"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .output()
            .await?;
        let code = output.status.code();
        // 3: no node is running. A panic would end it with 101.
        ensure!(matches!(code, Some(0 | 3)), "{args:?}: {:?}", output.status);
    }
    Ok(())
}
