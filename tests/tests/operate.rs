//! What an operator does: signals, systemd, configuration, changed keys; and the commands that go
//! on until they are stopped.

use std::{os::unix::net::UnixDatagram, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use pimesh_node::{control::api::EventBody, state::report::Integer};
use pimesh_tests::{PATIENCE, Pi, World, eventually, lan::Lan, pimesh, program};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::UdpSocket,
    process::{Child, ChildStdout, Command},
};

/// A command that goes on, and its lines.
pub(super) struct Running {
    pub(super) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(super) fn start(home: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(program())
            .arg("--home")
            .arg(home)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines })
    }

    /// Waits for a line that fits.
    pub(super) async fn line<T>(
        &mut self,
        mut fits: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let waiting = async {
            loop {
                let line = self.lines.next_line().await?.context("it ended")?;
                if let Some(found) = fits(&line) {
                    return anyhow::Ok(found);
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await?
    }
}

pub(super) async fn signal(child: &Child, signal: &str) -> anyhow::Result<()> {
    let pid = child.id().context("it runs")?.to_string();
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid)
        .status()
        .await?;
    ensure!(status.success());
    Ok(())
}

/// Publishes until a listener that has just been started has shown one; its subscription is not
/// seen from outside.
pub(super) async fn warm_up(from: &Pi, listener: &mut Running) -> anyhow::Result<()> {
    let publishing = async {
        loop {
            from.publish([-1]).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        line = listener.line(|_| Some(())) => line,
        failed = publishing => failed,
    }
}

#[tokio::test]
async fn an_integer_for_a_time_is_shown_at_that_time_and_not_before() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut listener = Running::start(&b.home, &["int", "--listen", "--json"])?;
    warm_up(&a, &mut listener).await?;

    let (code, _, err) = pimesh(&a.home, &["int", "5", "--at", "+700ms"]).await?;
    assert_eq!(code, 0, "{err}");

    let parse = |line: &str| {
        serde_json::from_str::<Integer>(line)
            .ok()
            .filter(|i| i.held)
    };
    let integer = listener.line(parse).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    assert_eq!(integer.value.0, 5);
    // Both clocks are one here; half a reading's round trip is what may be wrong with its offset.
    let early = Duration::from_millis(integer.date.0).saturating_sub(now);
    assert!(early < Duration::from_millis(100), "{early:?} too early");
    Ok(())
}

#[tokio::test]
async fn a_listener_hands_integers_on_as_datagrams() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let to = socket.local_addr()?.to_string();
    let mut listener = Running::start(&b.home, &["int", "--listen", "--udp", &to])?;
    warm_up(&a, &mut listener).await?;

    let published = a.publish([i32::MIN]).await?;

    let mut datagram = [0; 64];
    loop {
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut datagram)).await??;
        assert_eq!(length, 16);
        if datagram[4..8] == i32::MIN.to_le_bytes() {
            break;
        }
    }
    assert_eq!(datagram[..4], published.index.0.to_le_bytes());
    assert_eq!(datagram[8..16], published.date.0.to_le_bytes());
    Ok(())
}

#[tokio::test]
async fn integers_from_standard_input_go_out_as_they_come() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut listener = Running::start(&b.home, &["int", "--listen", "--json"])?;
    warm_up(&a, &mut listener).await?;
    let mut sender = Running::start(&a.home, &["--json", "int", "--stdin"])?;
    let mut input = sender.child.stdin.take().context("stdin is piped")?;
    let shown = |line: &str| {
        let value = serde_json::from_str::<Integer>(line).ok()?.value.0;
        (value >= 0).then_some(value)
    };

    input.write_all(b"1 2\n3").await?;
    assert_eq!(listener.line(shown).await?, 1);
    assert_eq!(listener.line(shown).await?, 2);
    let many: String = (4..=5_000).map(|n| format!("{n}\n")).collect();
    input.write_all(format!("\n{many}").as_bytes()).await?;
    drop(input);
    for expected in 3..=5_000 {
        assert_eq!(listener.line(shown).await?, expected);
    }
    let count = |line: &str| Some(line.contains(r#""count":5000"#));
    assert!(sender.line(count).await?);
    assert!(sender.child.wait().await?.success());

    let mut wrong = Running::start(&a.home, &["int", "--stdin"])?;
    let mut input = wrong.child.stdin.take().context("stdin is piped")?;
    input.write_all(b"1 two 3\n").await?;
    drop(input);
    assert_eq!(wrong.child.wait().await?.code(), Some(2));
    Ok(())
}

#[tokio::test]
async fn a_hangup_reads_the_configuration_again_and_a_bad_one_is_not_taken() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    b.child.kill().await?;
    a.wait_for_peers(0).await?;
    a.send("b", "one").await?;
    let file = a.home.join("pimesh.toml");

    std::fs::write(&file, "[messages]\noutbox_count_max = 1\n")?;
    signal(&a.child, "HUP").await?;
    wait_for_log(&a, "read `pimesh.toml` again").await?;
    let full = a
        .send("b", "two")
        .await
        .expect_err("the outbox is full")
        .to_string();
    assert!(full.contains("outbox"), "{full}");

    std::fs::write(&file, "[messages]\noutbox_count_max = 0\n")?;
    signal(&a.child, "HUP").await?;
    wait_for_log(&a, "kept the old settings").await?;
    a.send("b", "two")
        .await
        .expect_err("the old settings are still in force");
    Ok(())
}

/// Waits until a node has logged something.
async fn wait_for_log(pi: &Pi, what: &str) -> anyhow::Result<()> {
    eventually(what, async || {
        let log = pi.log()?;
        ensure!(log.contains(what), "{log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn systemd_hears_that_the_node_is_ready_alive_and_stopping() -> anyhow::Result<()> {
    let world = World::new()?;
    let path = world.home("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let hear = move || {
        let mut heard = [0; 256];
        let length = socket.recv(&mut heard)?;
        anyhow::Ok((
            socket,
            String::from_utf8_lossy(&heard[..length]).into_owned(),
        ))
    };
    let mut child = Command::new(program())
        .arg("--home")
        .arg(world.home("a"))
        .args(["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;

    let (socket, ready) = tokio::task::spawn_blocking(hear).await??;
    assert!(ready.contains("READY=1"), "{ready}");
    let alive = move || {
        let mut heard = [0; 256];
        for _ in 0..3 {
            let length = socket.recv(&mut heard)?;
            let text = String::from_utf8_lossy(&heard[..length]);
            ensure!(text.contains("WATCHDOG=1"), "{text}");
        }
        Ok(socket)
    };
    let socket = tokio::task::spawn_blocking(alive).await??;
    signal(&child, "TERM").await?;
    let stopping = move || {
        let mut heard = [0; 256];
        loop {
            let length = socket.recv(&mut heard)?;
            if String::from_utf8_lossy(&heard[..length]).contains("STOPPING=1") {
                return anyhow::Ok(());
            }
        }
    };
    tokio::task::spawn_blocking(stopping).await??;
    assert!(
        tokio::time::timeout(PATIENCE, child.wait())
            .await??
            .success()
    );
    Ok(())
}

#[tokio::test]
async fn a_changed_rsa_key_is_refused_until_it_is_trusted() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    let pinned = || async {
        let peers = a.client.peers().await?;
        Ok(peers
            .into_iter()
            .find(|p| p.name == "b")
            .and_then(|p| p.rsa_fingerprint))
    };
    let first = a.wait_until("acquainted with b's RSA key", pinned).await?;
    let mut events = a.client.events().await?;

    b.child.kill().await?;
    std::fs::remove_file(b.home.join("rsa.key"))?;
    let (code, _, err) = pimesh(&b.home, &["home", "forget", "rsa.key"]).await?;
    assert_eq!(code, 0, "{err}");
    let b = b.restart().await?;
    let is_change = |event| match event {
        EventBody::KeyChanged { name, .. } => Some(name),
        _ => None,
    };
    assert_eq!(Pi::wait_for_event(&mut events, is_change).await?, "b");
    let (code, _, err) = pimesh(&a.home, &["send", "b", "--via", "p2sn", "secret"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("trust"), "{err}");
    assert_eq!(pinned().await?, Some(first.clone()));

    let (code, _, err) = pimesh(&a.home, &["trust", "b"]).await?;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = pimesh(&a.home, &["send", "b", "--via", "p2sn", "secret"]).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(b.wait_for_inbox(1).await?, ["secret"]);
    assert_ne!(pinned().await?, Some(first));
    Ok(())
}

#[tokio::test]
async fn a_followed_list_of_peers_shows_who_goes() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    let mut list = Running::start(&a.home, &["peers", "--follow"])?;
    let is = |state: &'static str| {
        move |line: &str| (line.starts_with("b ") && line.contains(state)).then_some(())
    };
    list.line(is(" up ")).await?;

    b.child.kill().await?;

    list.line(is(" down ")).await
}

#[tokio::test]
async fn a_message_that_expires_is_told_to_its_sender() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    b.child.kill().await?;

    let (code, out, err) =
        pimesh(&a.home, &["send", "b", "--wait", "--expires", "1s", "x"]).await?;

    assert_eq!(code, 5, "{out}{err}");
    assert!(err.contains("its time ran out"), "{err}");
    assert!(a.client.outbox().await?.is_empty());
    let b = b.restart().await?;
    b.wait_for_peers(1).await?;
    a.send("b", "later").await?;
    assert_eq!(b.wait_for_inbox(1).await?, ["later"]);
    Ok(())
}

/// The others need not wait until they notice a silence.
#[tokio::test]
async fn a_node_that_stops_says_goodbye_on_either_transport() -> anyhow::Result<()> {
    for listen in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
        let world = World::new()?;
        let a = world.start_on("a", &[listen]).await?;
        let mut b = world.start_on("b", &[listen]).await?;
        b.join(&a).await?;
        a.wait_for_peers(1).await?;
        let mut events = a.client.events().await?;

        signal(&b.child, "TERM").await?;
        let status = b.child.wait().await?;
        let reason = Pi::wait_for_event(&mut events, |event| match event {
            EventBody::PeerDown { reason, .. } => Some(reason),
            _ => None,
        })
        .await?;

        ensure!(status.success(), "{status}");
        let silence = ["timed out", "nothing was heard"];
        let is_goodbye = !silence.iter().any(|silence| reason.contains(silence));
        ensure!(is_goodbye, "{listen}: {reason}");
    }
    Ok(())
}

/// libp2p shares TCP ports, so that two nodes at one port would each get some of the connections.
#[tokio::test]
async fn a_second_node_on_one_port_does_not_start_and_says_what_to_do() -> anyhow::Result<()> {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let world = World::new()?;
        let first = world.start_on("first", &[listen]).await?;
        let taken = first.ready.split(' ').nth(2).context("an address")?;

        let args = ["run", "--no-mdns", "--listen", taken];
        let (code, out, err) = pimesh(&world.home("second"), &args).await?;

        ensure!(code != 0, "{code}: {out} {err}");
        ensure!(err.contains("--listen"), "{err}");
        ensure!(err.matches("in use").count() == 1, "said once: {err}");
    }
    Ok(())
}

/// A clock that is behind, no network when the ticket was made: what a person sees.
#[tokio::test]
async fn a_ticket_of_a_machine_without_a_network_is_warned_of_and_fails_at_once_elsewhere()
-> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let (one, two) = (lan.add().await?, lan.add().await?);
    let loopback = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/3615"];
    let a = one.start(&world, "pi-1", &loopback).await?;
    let b = two.start(&world, "pi-2", &loopback).await?;
    let c = two
        .start(
            &world,
            "pi-3",
            &["--no-mdns", "--listen", "/ip4/0.0.0.0/tcp/0"],
        )
        .await?;

    let (code, ticket, warning) = pimesh(&a.home, &["invite"]).await?;
    ensure!(
        code == 0 && warning.contains("warning: the ticket names only"),
        "{warning}"
    );
    for elsewhere in [&b, &c] {
        let (code, _, err) = pimesh(&elsewhere.home, &["join", ticket.trim()]).await?;

        ensure!(code != 0, "{code}: {err}");
        ensure!(err.contains("/ip4/127.0.0.1/tcp/3615: "), "{err}");
        ensure!(
            err.contains("do not lead to the inviter"),
            "not after 20 s: {err}"
        );
    }
    Ok(())
}
