//! What the person at the terminal sees: texts of strangers, standard input, streams that outlive a
//! restart, and what is said when something goes wrong.

use std::{fs::File, io::Read, path::Path, process::Stdio, time::Duration};

use anyhow::Context;
use pimesh_node::state::report::Integer;
use pimesh_tests::{World, pimesh, program, terminal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    process::Command,
};

use crate::operate::{Running, warm_up};

/// How long something that comes by itself is waited for before it is tried again.
const LOOK: Duration = Duration::from_millis(200);

/// Runs a command with this standard input; returns its exit code, stdout and stderr.
async fn with_input(home: &Path, args: &[&str], input: &[u8]) -> anyhow::Result<(i32, String)> {
    let mut child = Command::new(program())
        .arg("--home")
        .arg(home)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let input = input.to_vec();
    let writing = tokio::spawn(async move {
        // A command that has seen enough does not read the rest.
        drop(stdin.write_all(&input).await);
    });
    let output = child.wait_with_output().await?;
    writing.await?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code().unwrap_or(-1), err))
}

#[tokio::test]
async fn a_strangers_text_forges_no_line_and_moves_no_cursor() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let text = "hello\x1b[2J\u{202e}\n2026-11-27 10:00:00  a: forged\r\x07";
    b.send("a", text).await?;
    a.wait_for_inbox(1).await?;

    let (_, shown, _) = pimesh(&a.home, &["inbox"]).await?;
    let (_, json, _) = pimesh(&a.home, &["inbox", "--json"]).await?;

    let lines: Vec<&str> = shown.lines().collect();
    let [first, second] = lines.as_slice() else {
        panic!("two lines, not {shown:?}")
    };
    assert!(first.ends_with("  b: hello\\u{1b}[2J\\u{202e}"), "{first}");
    assert_eq!(*second, "    2026-11-27 10:00:00  a: forged\\r\\u{7}");
    assert!(!json.trim_end().contains(char::is_control), "{json}");
    let row: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(row["text"], text);
    Ok(())
}

/// Something in the place of a node that gives each of these answers once.
fn answering(socket: &Path, answers: [(&'static str, serde_json::Value); 2]) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await?;
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await?;
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        anyhow::Ok(())
    });
    Ok(())
}

/// A stranger pads with what a terminal breaks at its edge: without a space, or wider than it seems.
#[tokio::test]
async fn no_padding_makes_a_strangers_text_begin_a_row() -> anyhow::Result<()> {
    let world = World::new()?;
    let home = world.home("a");
    std::fs::create_dir_all(&home)?;
    let padding = ["\u{a0}".repeat(70), "x".repeat(90), "❤\u{fe0f}".repeat(45)];
    for (number, padding) in padding.iter().enumerate() {
        let forged = format!("begin{padding}ok\u{a0}forged");
        let failure = serde_json::json!({
            "kind": "refused", "message": forged, "hint": forged,
        });
        let renamed = serde_json::json!({
            "peer_id": "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X",
            "was": forged,
            "name": "b",
        });
        let socket = home.join(format!("{number}.sock"));
        answering(&socket, [("403 Forbidden", failure), ("200 OK", renamed)])?;

        for _ in 0..2 {
            let (mut shows, written) = terminal(80)?;
            let mut child = Command::new(program())
                .arg("--socket")
                .arg(&socket)
                .args(["rename", "a", "b"])
                .stdin(Stdio::null())
                .stdout(written.try_clone()?)
                .stderr(written)
                .spawn()?;
            let _ended = child.wait().await?;
            let (mut shown, mut part) = (Vec::new(), [0; 4096]);
            // A terminal whose other end is closed ends with an error.
            while let Ok(read @ 1..) = shows.read(&mut part) {
                shown.extend_from_slice(&part[..read]);
            }
            let shown = String::from_utf8(shown)?;

            let rows: Vec<&str> = shown.lines().flat_map(|line| rows(line, 80)).collect();
            let begins = ["error:", "hint:", "begin", "    "];
            let is_own =
                |row: &&str| row.is_empty() || begins.iter().any(|begin| row.starts_with(begin));
            assert!(shown.contains("forged"), "{shown}");
            assert!(rows.iter().all(is_own), "{rows:#?}");
        }
    }
    Ok(())
}

/// Breaks a line as a terminal does that draws a heart in two columns.
fn rows(line: &str, columns: usize) -> Vec<&str> {
    let (mut rows, mut begun, mut used) = (Vec::new(), 0, 0);
    for (at, c) in line.char_indices() {
        let width = match c {
            '❤' => 2,
            '\u{fe0f}' => 0,
            _ => 1,
        };
        if used + width > columns {
            rows.push(&line[begun..at]);
            (begun, used) = (at, 0);
        }
        used += width;
    }
    rows.push(&line[begun..]);
    rows
}

#[tokio::test]
async fn standard_input_is_sent_whole_or_not_at_all() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut long = "x".repeat(1 << 20).into_bytes();
    let whole = String::from_utf8(long.clone())?;
    long.extend_from_slice(b"\nmore text");

    let (code, err) = with_input(&a.home, &["send", "b", "-"], &long).await?;
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("has 1048586 bytes; the most is 1048576"),
        "{err}"
    );
    for nothing in [&b""[..], b"\n"] {
        let (code, err) = with_input(&a.home, &["send", "b", "-"], nothing).await?;
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("standard input is empty"), "{err}");
    }
    assert!(a.client.outbox().await?.is_empty());

    let fits = [whole.as_bytes(), b"\n"].concat();
    let (code, err) = with_input(&a.home, &["send", "b", "-"], &fits).await?;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = pimesh(&a.home, &["send", "b", ""]).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(b.wait_for_inbox(2).await?, [whole, String::new()]);
    Ok(())
}

#[tokio::test]
async fn more_integers_than_the_others_take_wait_and_all_arrive() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut listener = Running::start(&b.home, &["int", "--listen", "--json"])?;
    warm_up(&a, &mut listener).await?;
    // The others take 20,000 at once.
    let count = 21_000;
    let input: String = (0..count).map(|n| format!("{n}\n")).collect();

    let home = a.home.clone();
    let sending =
        tokio::spawn(async move { with_input(&home, &["int", "--stdin"], input.as_bytes()).await });

    let shown = |line: &str| {
        let value = serde_json::from_str::<Integer>(line).ok()?.value.0;
        (value >= 0).then_some(value)
    };
    for expected in 0..count {
        assert_eq!(listener.line(shown).await?, expected);
    }
    let (code, err) = sending.await??;
    assert_eq!((code, err.as_str()), (0, "sent 21000\n"));
    Ok(())
}

#[tokio::test]
async fn integers_for_one_time_are_shown_in_their_order() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let mut listener = Running::start(&b.home, &["int", "--listen", "--json"])?;
    warm_up(&a, &mut listener).await?;
    let shown = |line: &str| {
        let integer = serde_json::from_str::<Integer>(line).ok()?;
        integer.held.then_some(integer.value.0)
    };

    for _ in 0..5 {
        let (code, _, err) = pimesh(&a.home, &["int", "1", "2", "3", "--at", "+200ms"]).await?;
        assert_eq!(code, 0, "{err}");
        for expected in 1..=3 {
            assert_eq!(listener.line(shown).await?, expected);
        }
    }
    Ok(())
}

#[tokio::test]
async fn streams_go_on_when_the_node_restarts_and_nothing_comes_twice() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    a.send("b", "old").await?;
    b.wait_for_inbox(1).await?;
    let mut all = Running::start(&b.home, &["inbox", "--follow", "--last", "5", "--json"])?;
    let text = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(row["text"].as_str()?.to_owned())
    };
    assert_eq!(all.line(text).await?, "old");
    let mut new = Running::start(&b.home, &["inbox", "--follow", "--json"])?;
    let mut integers = Running::start(&b.home, &["int", "--listen", "--json"])?;
    warm_up(&a, &mut integers).await?;
    // Seen by the one that begins now, too: it is following.
    let mut sent = 0;
    let first = loop {
        sent += 1;
        a.send("b", &format!("before {sent}")).await?;
        if let Ok(seen) = tokio::time::timeout(LOOK, new.line(text)).await {
            break seen?;
        }
    };
    assert!(first.starts_with("before "), "{first}");

    let b = b.restart().await?;
    a.send("b", "after").await?;

    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "after") {
        seen.push(all.line(text).await?);
    }
    let expected = (1..=sent).map(|n| format!("before {n}"));
    let expected: Vec<String> = expected.chain(["after".to_owned()]).collect();
    assert_eq!(seen, expected);
    loop {
        let text = new.line(text).await?;
        if text == "after" {
            break;
        }
        assert!(text.starts_with("before "), "{text}");
    }
    b.wait_for_peers(1).await?;
    let publishing = async {
        loop {
            a.publish([77]).await?;
            tokio::time::sleep(LOOK).await;
        }
    };
    let is_new = |line: &str| {
        let integer = serde_json::from_str::<Integer>(line).ok()?;
        (integer.value.0 == 77).then_some(())
    };
    tokio::select! {
        heard = integers.line(is_new) => heard,
        failed = publishing => failed,
    }
}

#[tokio::test]
async fn a_delivery_is_waited_for_although_the_node_restarts() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    b.child.kill().await?;
    let mut sending = Running::start(&a.home, &["send", "b", "door open", "--wait"])?;
    let word = |first: &'static str| move |line: &str| line.starts_with(first).then_some(());
    sending.line(word("accepted ")).await?;

    let _a = a.restart().await?;
    let _b = b.restart().await?;

    sending.line(word("delivered ")).await?;
    assert!(sending.child.wait().await?.success());
    Ok(())
}

#[tokio::test]
async fn what_was_done_is_said_although_it_cannot_be_printed() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;

    let child = Command::new(program())
        .arg("--home")
        .arg(&a.home)
        .args(["send", "b", "hello"])
        .stdin(Stdio::null())
        .stdout(File::options().write(true).open("/dev/full")?)
        .stderr(Stdio::piped())
        .spawn()?;
    let output = child.wait_with_output().await?;

    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err.starts_with("error: the message was accepted: could not write to standard output: "),
        "{err}"
    );
    assert_eq!(b.wait_for_inbox(1).await?, ["hello"]);
    Ok(())
}

#[tokio::test]
async fn an_address_in_use_is_said_once_with_what_to_try() -> anyhow::Result<()> {
    let world = World::new()?;
    let a = world.start("a").await?;
    let taken = a.ready.split(' ').find(|word| word.contains("/udp/"));
    let taken = taken.context("it listens over QUIC")?;

    let args = ["run", "--no-mdns", "--listen", taken];
    let (code, _, err) = pimesh(&world.home("b"), &args).await?;

    assert_eq!(code, 1, "{err}");
    assert_eq!(err.matches("in use").count(), 1, "{err}");
    assert!(err.contains("--listen"), "{err}");
    Ok(())
}
