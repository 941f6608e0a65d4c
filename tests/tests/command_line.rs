//! Help, errors, exit codes, `--json`.

use pimesh_tests::{World, pimesh};

#[tokio::test]
async fn without_a_node_the_error_says_what_why_and_what_to_try() -> anyhow::Result<()> {
    let world = World::new()?;

    let (code, out, err) = pimesh(&world.home("nobody"), &["send", "pi-1", "hello"]).await?;

    assert_eq!((code, out.as_str()), (1, ""));
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

    assert_eq!(code, 1);
    assert!(err.contains("no member is named `garaeg`"), "{err}");
    assert!(err.contains("did you mean `garage`?"), "{err}");
    Ok(())
}

#[tokio::test]
async fn every_command_that_prints_data_prints_json() -> anyhow::Result<()> {
    let world = World::new()?;
    let [a, b] = world.mesh(["a", "b"]).await?;
    let (code, _, err) = pimesh(&b.home, &["send", "a", "hello", "--wait", "--json"]).await?;
    assert_eq!(code, 0, "{err}");

    for args in [
        &["status"][..],
        &["peers"],
        &["id"],
        &["inbox"],
        &["outbox"],
        &["invite"],
        &["doctor"],
        &["mesh-key", "status"],
        &["int", "7"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let (code, out, err) = pimesh(&a.home, &args).await?;
        assert_eq!(code, 0, "{args:?}: {err}");
        for line in out.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .map_err(|e| anyhow::anyhow!("{args:?} printed {line}: {e}"))?;
        }
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
