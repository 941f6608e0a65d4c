//! Certificates: agents that look at the gateway's, and the node that looks at a server's.

use pimesh_tests::{
    Pi, World, eventually, pimesh,
    syft::{self, Agents},
};
use serde_json::json;

use super::server::wait_for_state;

/// Starts a node whose gateway has a certificate of its own.
async fn gateway(world: &World) -> anyhow::Result<(Pi, String)> {
    let (pi, url) = syft::start(world, "hub-pi", "tls = \"self-signed\"").await?;
    Ok((pi, url.replace("http:", "https:")))
}

async fn connect(pi: &Pi, url: &str, more: &[&str]) -> anyhow::Result<()> {
    let args: &[&str] = &["gateway", "syft", "connect", url, "--user", "kitchen"];
    let args = [args, &["--name", "hub"], more].concat();
    let (code, _, err) = pimesh(&pi.home, &args).await?;
    anyhow::ensure!(code == 0, "{err}");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_looks_at_certificates_finds_the_gateways_own_good() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = gateway(&world).await?;
    let certificate = pi.home.join("syft/certificate.pem");
    let mut agents = Agents::start().await?;
    let by_name = url.replace("127.0.0.1", "localhost");
    for (user, url) in [("alice", &url), ("bob", &by_name)] {
        agents.make_trusting(user, url, &certificate).await?;
        agents.arrive(user).await?;
    }
    agents.send("alice", "bob", "looked at").await?;
    assert_eq!(agents.text("bob").await?.0, "looked at");

    let (other, _) = syft::start(&world, "other-pi", "tls = \"self-signed\"").await?;
    let certificate = other.home.join("syft/certificate.pem");
    agents.make_trusting("carol", &url, &certificate).await?;
    let order = json!({"as": "carol", "method": "GET", "path": "/health"});
    let untrusted = (0, "the certificate is not trusted".to_owned());
    assert_eq!(agents.http(order).await?, untrusted);
    Ok(())
}

#[tokio::test]
async fn a_server_with_a_certificate_of_its_own_is_refused_until_a_person_names_it()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (server, url) = gateway(&world).await?;
    let pi = world.start("pi-1").await?;
    let mut agents = Agents::start().await?;
    agents.enter("alice", &url).await?;

    connect(&pi, &url, &[]).await?;
    let reason = wait_for_state(&pi, "waiting").await?;
    assert!(
        reason.contains("does not trust the certificate"),
        "{reason}"
    );
    assert!(reason.contains("--fingerprint"), "{reason}");
    let other = "ab".repeat(32);
    connect(&pi, &url, &["--fingerprint", &other]).await?;
    eventually("word of the other certificate", async || {
        let servers = syft::servers(&pi.client).await?;
        let reason = servers[0].reason.clone().unwrap_or_default();
        anyhow::ensure!(reason.contains("is not the one with the given"), "{reason}");
        Ok(())
    })
    .await?;
    let users = server.client.users().await?;
    assert!(
        !users.iter().any(|user| user.user == "kitchen"),
        "{users:?}"
    );

    let (code, sha256, err) = pimesh(&server.home, &["gateway", "syft", "fingerprint"]).await?;
    assert_eq!(code, 0, "{err}");
    connect(&pi, &url, &["--fingerprint", sha256.trim()]).await?;
    wait_for_state(&pi, "connected").await?;

    let (code, _, err) = pimesh(&pi.home, &["send", "alice@hub", "tea?", "--wait"]).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(agents.text("alice").await?.0, "tea?");
    agents.send("alice", "kitchen", "yes").await?;
    assert_eq!(pi.wait_for_inbox(1).await?, ["yes"]);

    // A fingerprint says nothing where there is no certificate, and half of one is none.
    for (url, fingerprint, code) in [
        (url.replace("https", "http"), other.as_str(), 1),
        (url, "ab", 2),
    ] {
        let args = [
            "gateway",
            "syft",
            "connect",
            &url,
            "--user",
            "x",
            "--name",
            "y",
            "--fingerprint",
            fingerprint,
        ];
        let (found, _, err) = pimesh(&pi.home, &args).await?;
        assert_eq!(found, code, "{err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_whose_certificate_the_system_trusts_needs_no_more() -> anyhow::Result<()> {
    let world = World::new()?;
    let (server, url) = gateway(&world).await?;
    let certificate = server.home.join("syft/certificate.pem");
    let pi = world.start_trusting("pi-1", &certificate).await?;

    connect(&pi, &url, &[]).await?;
    wait_for_state(&pi, "connected").await?;

    // At an address that does not stand in it, a trusted certificate is not enough.
    let folder = server.home.join("syft");
    let settings = format!(
        "listen = \"127.0.0.2:0\"\ntls = \"files\"\n\
         tls_certificate = \"{0}/certificate.pem\"\ntls_key = \"{0}/certificate.key\"",
        folder.display()
    );
    syft::configure(&world.home("other-pi"), &settings)?;
    let other = world.start("other-pi").await?;
    let url = syft::url(&other).await?.replace("http:", "https:");
    connect(&pi, &url, &[]).await?;
    let reason = wait_for_state(&pi, "waiting").await?;
    assert!(
        reason.contains("does not trust the certificate"),
        "{reason}"
    );
    Ok(())
}
