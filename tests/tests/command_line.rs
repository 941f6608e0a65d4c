//! Help, errors, exit codes, `--json`.

use pimesh_tests::{World, pimesh};

#[tokio::test]
async fn without_a_node_the_error_says_what_why_and_what_to_try() -> anyhow::Result<()> {
    let world = World::new()?;

    let (code, out, err) = pimesh(&world.home("nobody"), &["send", "pi-1", "hello"]).await?;

    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        err.starts_with("error: could not reach the node: no socket at `"),
        "{err}"
    );
    assert!(err.contains("\nhint: start it with `pimesh run`"), "{err}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_command_line_exits_with_2() -> anyhow::Result<()> {
    let world = World::new()?;

    let (code, _, err) = pimesh(&world.home("nobody"), &["int"]).await?;

    assert_eq!(code, 2, "{err}");
    Ok(())
}

#[tokio::test]
async fn a_mistyped_name_is_answered_with_the_nearest_one() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, _b] = world.mesh(["kitchen", "garage"]).await?;

    let (code, _, err) = pimesh(&a.home, &["send", "garaeg", "hello"]).await?;

    assert_eq!(code, 4);
    assert!(err.contains("no member is named `garaeg`"), "{err}");
    assert!(err.contains("did you mean `garage`?"), "{err}");
    Ok(())
}

#[tokio::test]
async fn every_command_that_prints_data_prints_json() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    let (code, _, err) = pimesh(&b.home, &["send", "a", "hello", "--wait", "--json"]).await?;
    assert_eq!(code, 0, "{err}");
    b.child.kill().await?;
    a.wait_for_peers(0).await?;
    a.send("b", "waits").await?;

    // What each prints, one object a line, and how many at least.
    for (args, lines) in [
        (&["status"][..], 1),
        (&["peers"], 2),
        (&["id"], 1),
        (&["inbox"], 1),
        (&["inbox", "--sent"], 1),
        (&["outbox"], 1),
        (&["invite"], 1),
        (&["doctor"], 5),
        (&["gateway", "list"], 3),
        (&["mesh-key", "status"], 1),
        (&["config", "show"], 1),
        (&["int", "7"], 1),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let (code, out, err) = pimesh(&a.home, &args).await?;
        assert_eq!(code, 0, "{args:?}: {err}");
        assert!(out.lines().count() >= lines, "{args:?} printed: {out}");
        for line in out.lines() {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line)
                .map_err(|e| anyhow::anyhow!("{args:?} printed {line}: {e}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_error_has_its_exit_code_and_is_one_object_under_json() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, mut b] = world.mesh(["a", "b"]).await?;
    b.child.kill().await?;
    let nobody = world.home("nobody");

    for (home, args, code, kind) in [
        (&nobody, &["status"][..], 3, "not_running"),
        (&nobody, &["stauts"], 2, "wrong_command"),
        (
            &nobody,
            &["send", "b", "hello", "--wiat"],
            2,
            "wrong_command",
        ),
        (&a.home, &["send", "a", "hello"], 2, "wrong_command"),
        (&a.home, &["send", "cellar", "hello"], 4, "unknown_name"),
        (
            &a.home,
            &["send", "b", "hello", "--wait", "--timeout", "1s"],
            5,
            "timed_out",
        ),
        (&a.home, &["invite", "--index", "2"], 1, "failed"),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let (was, _, err) = pimesh(home, &args).await?;
        assert_eq!(was, code, "{args:?}: {err}");
        let error: serde_json::Value = serde_json::from_str(&err)?;
        assert_eq!(error["kind"], kind, "{args:?}: {err}");
        assert!(error["message"].is_string(), "{args:?}: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn files_that_others_can_read_stop_the_node() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new()?;
    let mut a = world.start("a").await?;
    a.child.kill().await?;
    let key = a.home.join("node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;

    let (code, _, err) = pimesh(&a.home, &["run"]).await?;

    assert_eq!(code, 1);
    assert!(
        err.contains("has permissions 644") && err.contains("chmod 600"),
        "{err}"
    );
    Ok(())
}

#[tokio::test]
async fn config_example_is_good_and_a_wrong_key_is_named() -> anyhow::Result<()> {
    let world = World::new()?;
    let home = world.home("a");
    std::fs::create_dir(&home)?;
    let (_, example, _) = pimesh(&home, &["config", "example"]).await?;
    std::fs::write(home.join("pimesh.toml"), &example)?;
    let (code, out, _) = pimesh(&home, &["config", "check"]).await?;
    assert_eq!(code, 0, "{out}");

    std::fs::write(home.join("pimesh.toml"), "[messages]\nexpirey = \"7d\"\n")?;
    let (code, _, err) = pimesh(&home, &["config", "check"]).await?;

    assert_eq!(code, 1);
    assert!(
        err.contains("line 2") && err.contains("did you mean `messages.expiry`?"),
        "{err}"
    );
    Ok(())
}
