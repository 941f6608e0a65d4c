//! Gateways for Syft agents, and agents in Python behind them.

use std::{collections::VecDeque, path::Path};

use anyhow::{Context, ensure};
use pimesh_node::{
    control::client::{Client, ClientError},
    gateway::syft::server::ServerReport,
    state::io::Gateway,
};
use serde_json::{Value, json};

use crate::{PATIENCE, Pi, World, foreign::Foreign, lan::Machine};

/// Returns the servers that a node is a client of.
///
/// # Errors
/// Fails if the node does not answer.
pub async fn servers(node: &Client) -> Result<Vec<ServerReport>, ClientError> {
    node.gateway(Gateway::Syft).get(&["servers"]).await
}

/// Takes a user of a node's gateway out.
///
/// # Errors
/// Fails if there is none of that name.
pub async fn forget_user(node: &Client, user: &str) -> Result<(), ClientError> {
    node.gateway(Gateway::Syft).delete(&["users", user]).await
}

/// Agents in one process.
#[derive(Debug)]
pub struct Agents {
    foreign: Foreign,
    /// Events that came while something else was waited for.
    earlier: VecDeque<Value>,
    made: u8,
}

impl Agents {
    /// Starts the process, without any client in it.
    ///
    /// # Errors
    /// Fails if Python cannot be set up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_behind(&[]).await
    }

    /// Starts it on a machine of a LAN.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_on(machine: &Machine<'_>) -> anyhow::Result<Self> {
        Self::start_behind(&machine.launcher()?).await
    }

    async fn start_behind(launcher: &[String]) -> anyhow::Result<Self> {
        let mut agents = Self {
            foreign: Foreign::python_behind(launcher, "syft_agent.py", &[]).await?,
            earlier: VecDeque::new(),
            made: 0,
        };
        agents.wait("ready").await?;
        Ok(agents)
    }

    /// Makes a client with a key of its own. Nothing is sent yet.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub async fn make(&mut self, user: &str, url: &str) -> anyhow::Result<Value> {
        self.made += 1;
        let seed = format!("{:02x}", self.made).repeat(32);
        self.make_with(user, user, url, &seed).await
    }

    /// Makes a client under another name than its user's, with this key.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub async fn make_with(
        &mut self,
        name: &str,
        user: &str,
        url: &str,
        seed: &str,
    ) -> anyhow::Result<Value> {
        let insecure = url.starts_with("https");
        let order = json!({"do": "new", "as": name, "user": user, "url": url, "seed": seed,
            "insecure": insecure});
        self.order(order, "made").await
    }

    /// Makes a client that signs, verifies and introduces itself as the published ones in this
    /// language do: `python`, `go` or `electron`; it registers, logs in and connects.
    ///
    /// # Errors
    /// Fails if it cannot.
    pub async fn enter_in(&mut self, language: &str, user: &str, url: &str) -> anyhow::Result<()> {
        self.made += 1;
        let seed = format!("{:02x}", self.made).repeat(32);
        let order = json!({"do": "new", "as": user, "user": user, "url": url, "seed": seed,
            "language": language});
        self.order(order, "made").await?;
        self.arrive(user).await
    }

    /// Makes a client that believes this certificate and no other.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub async fn make_trusting(
        &mut self,
        user: &str,
        url: &str,
        certificate: &Path,
    ) -> anyhow::Result<Value> {
        self.made += 1;
        let seed = format!("{:02x}", self.made).repeat(32);
        let order = json!({"do": "new", "as": user, "user": user, "url": url, "seed": seed,
            "trust": certificate});
        self.order(order, "made").await
    }

    /// Makes a client that registers, logs in and connects.
    ///
    /// # Errors
    /// Fails if it cannot.
    pub async fn enter(&mut self, user: &str, url: &str) -> anyhow::Result<()> {
        self.make(user, url).await?;
        self.arrive(user).await
    }

    /// Has a client that was made register, log in and connect.
    ///
    /// # Errors
    /// Fails if it cannot.
    pub async fn arrive(&mut self, client: &str) -> anyhow::Result<()> {
        let order = json!({"do": "enter", "as": client});
        self.order(order, "connected").await.map(drop)
    }

    /// Has a client register; returns the answer.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn register(&mut self, client: &str) -> anyhow::Result<Value> {
        let order = json!({"do": "register", "as": client});
        self.order(order, "answer").await
    }

    /// Has a client log in; returns the answer.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn login(&mut self, client: &str) -> anyhow::Result<Value> {
        let order = json!({"do": "login", "as": client});
        self.order(order, "answer").await
    }

    /// Connects a client that has logged in.
    ///
    /// # Errors
    /// Fails if the gateway does not take it.
    pub async fn connect(&mut self, client: &str) -> anyhow::Result<()> {
        let order = json!({"do": "connect", "as": client});
        self.order(order, "connected").await.map(drop)
    }

    /// Closes the connection of a client.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub async fn close(&mut self, client: &str) -> anyhow::Result<()> {
        let order = json!({"do": "close", "as": client});
        self.order(order, "gone").await.map(drop)
    }

    /// Has a client connect again by itself whenever its connection ends.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub async fn stay(&mut self, client: &str) -> anyhow::Result<()> {
        let order = json!({"do": "stay", "as": client});
        self.order(order, "staying").await.map(drop)
    }

    /// Returns the token of a client.
    ///
    /// # Errors
    /// Fails if it has none.
    pub async fn token(&mut self, client: &str) -> anyhow::Result<String> {
        let order = json!({"do": "token", "as": client});
        let answer = self.order(order, "token").await?;
        let token = answer["token"].as_str().context("a token")?;
        Ok(token.to_owned())
    }

    /// Waits until the gateway closes the connection of a client; returns the code.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn closed(&mut self, client: &str) -> anyhow::Result<u64> {
        let event = self.until("closed", |event| event["as"] == client).await?;
        event["code"].as_u64().context("a code")
    }

    /// Sends a text, sealed for its recipient.
    ///
    /// # Errors
    /// Fails if it could not be written to the socket.
    pub async fn send(&mut self, from: &str, to: &str, text: &str) -> anyhow::Result<Value> {
        let order = json!({"do": "send", "as": from, "to": to, "text": text});
        self.order(order, "sent").await
    }

    /// Sends so many texts: `n 0`, `n 1` and so on.
    ///
    /// # Errors
    /// Fails if they could not be written to the socket.
    pub async fn send_many(&mut self, from: &str, to: &str, count: usize) -> anyhow::Result<()> {
        let order = json!({"do": "send_many", "as": from, "to": to, "count": count, "prefix": "n"});
        self.order(order, "sent_many").await.map(drop)
    }

    /// Makes a request of HTTP; returns the status and the text.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn http(&mut self, order: Value) -> anyhow::Result<(u64, String)> {
        let mut order = order;
        order["do"] = json!("http");
        let answer = self.order(order, "answer").await?;
        let text = answer["text"].as_str().unwrap_or_default().to_owned();
        Ok((answer["status"].as_u64().unwrap_or(0), text))
    }

    /// Gives an order, and waits for its answer.
    ///
    /// # Errors
    /// Fails at another answer.
    pub async fn order(&mut self, order: Value, answer: &str) -> anyhow::Result<Value> {
        self.foreign.order(order.clone()).await?;
        self.wait(answer).await.with_context(|| order.to_string())
    }

    async fn wait(&mut self, kind: &str) -> anyhow::Result<Value> {
        self.until(kind, |_| true).await
    }

    /// Waits for the next text that a client got, and returns it with its status.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn text(&mut self, client: &str) -> anyhow::Result<(String, String)> {
        let event = self.message(client).await?;
        let text = |member: &str| event[member].as_str().unwrap_or_default().to_owned();
        Ok((text("text"), text("status")))
    }

    /// Waits for the next message that a client got.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn message(&mut self, client: &str) -> anyhow::Result<Value> {
        self.until("message", |event| event["as"] == client).await
    }

    /// Waits for so many messages of a client, and returns their texts.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn texts(&mut self, client: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(self.text(client).await?.0);
        }
        Ok(texts)
    }

    /// Waits for what the gateway itself says to a client.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn system(&mut self, client: &str) -> anyhow::Result<Value> {
        let event = self.until("system", |event| event["as"] == client).await?;
        Ok(event["frame"].clone())
    }

    /// Waits for an event that fits; others wait for whoever asks for them.
    ///
    /// # Errors
    /// Fails at an event that tells of an error, and when patience ends.
    pub async fn until(
        &mut self,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let fits = |event: &Value| event["event"] == kind && fits(event);
        if let Some(at) = self.earlier.iter().position(fits) {
            return self.earlier.remove(at).context("it was there");
        }
        let waiting = async {
            loop {
                let event = self.foreign.next().await?;
                ensure!(event["event"] != "error", "{event}");
                if fits(&event) {
                    return Ok(event);
                }
                self.earlier.push_back(event);
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.with_context(|| format!("no `{kind}`; there were {:?}", self.earlier))?
    }

    /// Says whether the gateway itself said something to a client that was not asked for yet.
    #[must_use]
    pub fn was_told_anything(&self, client: &str) -> bool {
        let is_told = |event: &&Value| event["event"] == "system" && event["as"] == client;
        self.earlier.iter().any(|event| is_told(&event))
    }

    /// Says whether a client got nothing but what was asked for already. Ask for something else
    /// first that comes behind what should not come.
    #[must_use]
    pub fn has_nothing_else(&self, client: &str) -> bool {
        let is_message = |event: &&Value| event["event"] == "message" && event["as"] == client;
        self.earlier.iter().find(is_message).is_none()
    }
}

/// Writes a `pimesh.toml` with an open gateway into a home.
///
/// # Errors
/// Fails if it cannot be written.
pub fn configure(home: &Path, settings: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)?;
    let text = format!("[gateway.syft]\nenabled = true\n{settings}\n");
    Ok(std::fs::write(home.join("pimesh.toml"), text)?)
}

/// Starts a node with an open gateway at any free port; returns it and the gateway's URL.
///
/// # Errors
/// Fails if the gateway is not open.
pub async fn start(world: &World, name: &str, settings: &str) -> anyhow::Result<(Pi, String)> {
    let home = world.home(name);
    configure(&home, &format!("listen = \"127.0.0.1:0\"\n{settings}"))?;
    let pi = world.start(name).await?;
    let url = url(&pi).await?;
    // At a restart clients look for it where it was.
    let port = url.rsplit(':').next().context("a port")?;
    configure(&home, &format!("listen = \"127.0.0.1:{port}\"\n{settings}"))?;
    Ok((pi, url))
}

/// Returns the URL of a node's gateway.
///
/// # Errors
/// Fails if it is not open.
pub async fn url(pi: &Pi) -> anyhow::Result<String> {
    let opened = crate::opened(pi, Gateway::Syft).await?;
    let address = opened.addresses.first().context("an address")?;
    Ok(format!("http://{address}"))
}
