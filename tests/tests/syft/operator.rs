//! A gateway at which nobody may register, and the person who keeps it.

use pimesh_tests::{
    World, pimesh,
    syft::{self, Agents},
};
use serde_json::{Value, json};

/// RFC 8410, section 10.1: the file that a Python agent keeps, and the same key as others show it.
const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PUBLIC KEY-----\n";
const HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
const BASE64: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

#[tokio::test]
async fn where_nobody_may_register_the_operator_lets_people_in() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, url) = syft::start(&world, "pi-1", "open_registration = false").await?;
    let mut agents = Agents::start().await?;
    let mut keys = Vec::new();
    for user in ["alice", "bob"] {
        let made = agents.make(user, &url).await?;
        keys.push(made["key"].as_str().expect("a key").to_owned());
    }
    let answer = agents.register("alice").await?;
    assert_eq!(answer["status"], 403);
    let closed = "Registration is closed: the operator of this node adds users\n";
    assert_eq!(answer["text"], closed);
    let answer = agents.login("alice").await?;
    assert_eq!(answer["status"], 401, "{answer}");

    for (user, key) in ["alice", "bob"].iter().zip(&keys) {
        let args = ["gateway", "syft", "add", user, "--key", key];
        let (code, out, err) = pimesh(&pi.home, &args).await?;
        assert_eq!(code, 0, "{err}");
        let expected = format!("{user} is a user of this gateway, with the key {key}\n");
        assert_eq!(out, expected);
    }
    // The power fails; who was said to be a user is one.
    let pi = pi.restart().await?;
    for user in ["alice", "bob"] {
        // As ever, the client registers first, and takes no notice of the refusal.
        agents.arrive(user).await?;
    }
    agents.send("alice", "bob", "let in").await?;
    assert_eq!(
        agents.text("bob").await?,
        ("let in".to_owned(), "verified".to_owned())
    );

    // Again with the same key: nothing changes, also not the title. With another: refused.
    let again = [
        "--json", "gateway", "syft", "add", "alice", "--key", &keys[0], "--title", "Alicia",
    ];
    let (code, out, err) = pimesh(&pi.home, &again).await?;
    assert_eq!(code, 0, "{err}");
    let added: Value = serde_json::from_str(&out)?;
    let expected = json!({"user_id": "alice", "username": "alice", "public_key": keys[0]});
    assert_eq!(added, expected);
    agents.send("bob", "alice", "still in").await?;
    assert_eq!(agents.text("alice").await?.0, "still in");
    let other = ["gateway", "syft", "add", "alice", "--key", BASE64];
    let (code, _, err) = pimesh(&pi.home, &other).await?;
    assert_eq!(code, 1);
    assert!(
        err.contains("`alice` is registered with another key"),
        "{err}"
    );
    assert!(
        err.contains("hint: first take him out: `pimesh gateway syft forget alice`"),
        "{err}"
    );
    let (code, _, err) = pimesh(&pi.home, &["gateway", "syft", "forget", "alice"]).await?;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = pimesh(&pi.home, &other).await?;
    assert_eq!(code, 0, "{err}");
    Ok(())
}

#[tokio::test]
async fn a_key_is_taken_as_the_programs_keep_it_and_a_private_one_is_not() -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, _) = syft::start(&world, "pi-1", "").await?;
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = world.home(name);
        std::fs::write(&path, text)?;
        Ok(format!("@{}", path.display()))
    };
    for (user, key) in [
        ("python", file("websocket_public.pem", PEM)?),
        ("go", file("public.hex", HEX)?),
        ("text", file("public.txt", &format!("{BASE64}\n"))?),
        ("hexadecimal", HEX.to_owned()),
    ] {
        let args = [
            "--json", "gateway", "syft", "add", user, "--key", &key, "--title", "T",
        ];
        let (code, out, err) = pimesh(&pi.home, &args).await?;
        assert_eq!(code, 0, "{err}");
        let added: Value = serde_json::from_str(&out)?;
        let expected = json!({"user_id": user, "username": "T", "public_key": BASE64});
        assert_eq!(added, expected);
    }
    let long = "T".repeat(257);
    let private = file("private.hex", &HEX.repeat(2))?;
    let missing = format!("@{}", world.home("missing").display());
    for (user, key, title, code, says) in [
        ("x", private.as_str(), "T", 1, "this is a private key"),
        ("x", missing.as_str(), "T", 1, "No such file"),
        ("x", "AAAA", "T", 2, "base64 or hexadecimal of 32 bytes"),
        ("a|b", BASE64, "T", 2, "no `|`"),
        ("system", BASE64, "T", 2, "means something else"),
        ("pi-1", BASE64, "T", 1, "`pi-1` is a node of this mesh"),
        (
            "x@pi-1",
            BASE64,
            "T",
            1,
            "would be a user of the node `pi-1`",
        ),
        ("x", BASE64, long.as_str(), 2, "at most 256 bytes"),
    ] {
        let args = [
            "gateway", "syft", "add", user, "--key", key, "--title", title,
        ];
        let (found, out, err) = pimesh(&pi.home, &args).await?;
        assert_eq!((found, out.as_str()), (code, ""), "{user} {key}: {err}");
        assert!(err.contains(says), "{user} {key}: {err}");
    }
    Ok(())
}
