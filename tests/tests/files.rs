//! Files that are none, and files of another user.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use pimesh_tests::{PATIENCE, World, eventually, pimesh, program};
use tokio::process::Command;

const RUN: [&str; 4] = ["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// Puts a named pipe, which nobody writes to, at a path.
fn make_pipe(path: &Path) -> anyhow::Result<()> {
    let made = std::process::Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(path)
        .status()?;
    ensure!(made.success(), "mkfifo {}", path.display());
    Ok(())
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_stops_no_start_for_ever() -> anyhow::Result<()> {
    let world = World::new()?;
    let mut a = world.start("a").await?;
    a.child.kill().await?;
    let (home, aside) = (&a.home, world.home("aside"));
    fs::write(home.join("pimesh.toml"), "")?;
    for file in [
        "pimesh.toml",
        "node.key",
        "messaging.key",
        "keys.txt",
        "pimesh.lock",
        "pimesh.db",
    ] {
        fs::rename(home.join(file), &aside)?;
        make_pipe(&home.join(file))?;

        let ended = tokio::time::timeout(PATIENCE, pimesh(home, &RUN)).await;

        let (code, _, err) = ended.with_context(|| format!("{file}: it waits"))??;
        let told = err.contains(file) && err.contains("regular file");
        ensure!(code == 1 && told, "{file}: {err}");
        fs::rename(&aside, home.join(file))?;
    }
    world.start("a").await?;
    Ok(())
}

#[tokio::test]
async fn a_pipe_in_the_place_of_the_allow_list_stops_no_node() -> anyhow::Result<()> {
    let world = World::new()?;
    let home = world.home("a");
    fs::create_dir(&home)?;
    let settings = "[gateway.iid]\nenabled = true\nlisten = \"127.0.0.1:0\"\nudp_out = []\n";
    fs::write(home.join("pimesh.toml"), settings)?;
    fs::create_dir(home.join("iid"))?;
    let list = home.join("iid/claims.txt");
    fs::write(&list, "")?;
    let mut a = world.start("a").await?;

    fs::remove_file(&list)?;
    make_pipe(&list)?;

    eventually("the old lists kept", async || {
        let log = a.log()?;
        ensure!(log.contains("kept the old lists"), "{log}");
        Ok(())
    })
    .await?;
    a.client.status().await?;
    let pid = a.child.id().context("it runs")?.to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await?;
    let ended = tokio::time::timeout(PATIENCE, a.child.wait()).await??;
    assert!(ended.success());
    Ok(())
}

#[tokio::test]
async fn a_node_that_still_makes_its_rsa_key_stops_without_it() -> anyhow::Result<()> {
    let world = World::new()?;
    // Now and then such a key is made in no time; then another node tries.
    for number in 0..10 {
        let home = world.home(&number.to_string());
        fs::create_dir(&home)?;
        fs::write(home.join("pimesh.toml"), "[identity]\nrsa_bits = 4096\n")?;
        let mut node = world.start(&number.to_string()).await?;
        let pid = node.child.id().context("it runs")?.to_string();
        if home.join("rsa.key").exists() {
            continue;
        }

        Command::new("kill").args(["-TERM", &pid]).status().await?;
        let ended = tokio::time::timeout(PATIENCE, node.child.wait()).await??;

        assert!(ended.success());
        if !home.join("rsa.key").exists() {
            return Ok(());
        }
    }
    anyhow::bail!("every node waited for its key")
}

/// Returns what does not belong to this user, sockets aside: those go with the node.
fn of_others(folder: &Path, user: u32) -> anyhow::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        if found.uid() != user && !found.file_type().is_socket() {
            others.push(path.clone());
        }
        if found.is_dir() {
            others.extend(of_others(&path, user)?);
        }
    }
    Ok(others)
}

#[tokio::test]
async fn what_root_writes_into_a_home_belongs_to_its_owner() -> anyhow::Result<()> {
    const NOBODY: u32 = 65_534;
    let world = World::new()?;
    let home = world.home("a");
    fs::create_dir(&home)?;
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    if std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).is_err() {
        // Only root writes into the folders of others.
        return Ok(());
    }
    let address = "0xaeC963aC8DF14a807ab97715c564b7bD3973503A";
    for args in [
        &["gateway", "enable", "syft", "--listen", "127.0.0.1:0"][..],
        &["gateway", "iid", "allow", "7", address],
    ] {
        let (code, _, err) = pimesh(&home, args).await?;
        ensure!(code == 0, "{args:?}: {err}");
    }
    let tls = "tls = \"self-signed\"\n[control]\ntcp = \"127.0.0.1:0\"\n";
    let settings = fs::read_to_string(home.join("pimesh.toml"))?;
    fs::write(home.join("pimesh.toml"), settings + tls)?;
    let a = world.start("a").await?;
    eventually("the RSA key", async || {
        Ok(fs::metadata(home.join("rsa.key"))?)
    })
    .await?;
    fs::metadata(home.join("syft/certificate.key"))?;
    fs::metadata(home.join("control.token"))?;

    assert_eq!(of_others(&home, NOBODY)?, Vec::<PathBuf>::new());
    drop(a);

    let (code, _, err) = set_passphrase(&home).await?;
    ensure!(code == 0, "{err}");
    assert_eq!(of_others(&home, NOBODY)?, Vec::<PathBuf>::new());
    Ok(())
}

async fn set_passphrase(home: &Path) -> anyhow::Result<(i32, String, String)> {
    let mut child = Command::new(program())
        .arg("--home")
        .arg(home)
        .args(["passphrase", "set"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"correct horse\n").await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Ok((code, text(&output.stdout), text(&output.stderr)))
}
