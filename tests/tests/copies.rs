//! A copied SD card: two machines with one identity.

use anyhow::ensure;
use pimesh_node::control::api::EventBody;
use pimesh_tests::{Pi, World, pimesh};

/// Copies a home folder, as a card is copied while its machine is off.
fn copy_home(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    ensure!(std::fs::metadata(to)?.permissions().mode() & 0o077 == 0);
    Ok(())
}

#[tokio::test]
async fn two_machines_with_one_identity_are_noticed_by_both_and_by_the_others() -> anyhow::Result<()>
{
    let world = World::new()?;
    let [a, b, c] = world.mesh(["a", "b", "c"]).await?;
    let mut told = a.client.events().await?;

    // While the original is off, nothing of its home is being written.
    let home = c.home.clone();
    let mut child = c.child;
    child.kill().await?;
    copy_home(&home, &world.home("copy"))?;
    let original = world.start("c").await?;
    let copy = world.start("copy").await?;
    Pi::wait_for_event(&mut told, |event| match event {
        EventBody::Copied { name, own, .. } if name == "c" && !own => Some(()),
        _ => None,
    })
    .await?;

    for pi in [&a, &b, &original, &copy] {
        pi.wait_until("warned", || async {
            let status = pi.client.status().await?;
            Ok(status.node.copied.contains(&"c".to_owned()).then_some(()))
        })
        .await?;
        let (_, out, err) = pimesh(&pi.home, &["peers"]).await?;
        ensure!(
            out.contains("TWICE") && err.contains("two machines"),
            "{out} {err}"
        );
        let (code, out, _) = pimesh(&pi.home, &["doctor"]).await?;
        ensure!(code != 0 && out.contains("identity of c"), "{out}");
    }
    ensure!(original.client.status().await?.node.own_copied);
    let (_, out, _) = pimesh(&copy.home, &["status"]).await?;
    ensure!(out.contains("identity of this node"), "{out}");
    let (code, _, err) = pimesh(&a.home, &["send", "c", "which one"]).await?;
    ensure!(
        code == 0 && err.contains("reaches only one of them"),
        "{err}"
    );
    Ok(())
}
