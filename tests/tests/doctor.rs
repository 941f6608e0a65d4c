//! `pimesh doctor` fails for what does not work, and says what to do.

use std::fs;

use anyhow::ensure;
use pimesh_tests::{World, eventually, pimesh};

/// Runs the doctor; returns its exit code and the line of a check with what to do.
async fn check(home: &std::path::Path, name: &str) -> anyhow::Result<(i32, String)> {
    let (code, out, err) = pimesh(home, &["--json", "doctor"]).await?;
    let wanted = format!("{{\"check\":\"{name}\"");
    let line = out.lines().find(|line| line.starts_with(&wanted));
    let Some(line) = line else {
        anyhow::bail!("no check `{name}`: {out}{err}")
    };
    Ok((code, line.to_owned()))
}

#[tokio::test]
async fn a_gateway_that_is_not_open_and_a_server_that_is_not_there_are_told() -> anyhow::Result<()>
{
    let world = World::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (gone, port) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        (listener.local_addr()?, taken.local_addr()?)
    };
    let home = world.home("a");
    fs::create_dir(&home)?;
    fs::write(
        home.join("pimesh.toml"),
        format!(
            "[gateway.iid]\nenabled = true\nlisten = \"{port}\"\nudp_out = []\n\
             servers = [{{ url = \"ws://{gone}\", key = \"ethereum\" }}]\n"
        ),
    )?;
    let a = world.start("a").await?;

    let (code, gateway) = check(&a.home, "gateway").await?;

    ensure!(
        code == 1 && gateway.contains("\"fail\""),
        "{code} {gateway}"
    );
    ensure!(gateway.contains("in use"), "{gateway}");
    eventually("the server is not reached", async || {
        let (_, server) = check(&a.home, "server").await?;
        ensure!(
            server.contains("\"warn\"") && server.contains("refused"),
            "{server}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_home_that_lacks_a_part_and_one_that_is_whole_are_told_apart() -> anyhow::Result<()> {
    let world = World::new()?;
    let mut a = world.start("a").await?;
    let (_, whole) = check(&a.home, "parts").await?;
    ensure!(whole.contains("\"ok\""), "{whole}");
    let (_, running) = check(&a.home, "node").await?;
    ensure!(running.contains("a is running"), "{running}");
    a.child.kill().await?;
    fs::remove_file(a.home.join("messaging.key"))?;

    let (code, lacking) = check(&a.home, "parts").await?;

    ensure!(
        code == 1 && lacking.contains("lacks messaging.key"),
        "{lacking}"
    );
    Ok(())
}
