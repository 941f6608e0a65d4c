//! A node inside another program, as `node/examples/two_pis.rs` shows it.

/// Compiled into the tests: an example of its own would link the whole network stack once more.
#[path = "../../node/examples/two_pis.rs"]
#[expect(dead_code, reason = "its `main` prints what the test compares")]
mod two_pis;

#[tokio::test]
async fn two_nodes_in_one_program_meet_and_hear_each_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut said = Vec::new();

    let done = two_pis::two_pis(folder.path(), |line| said.push(line)).await;

    done.map_err(|error| anyhow::anyhow!("{error}, after {said:?}"))?;
    assert_eq!(
        said,
        [
            "pi-2 joined, and meets pi-1",
            "pi-1 has message 1 of pi-2 on its disk: door open",
            "pi-1 hears 42 from index 2",
            "both have stopped",
        ]
    );
    Ok(())
}
