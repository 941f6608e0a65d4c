//! Two nodes in one program: one invites the other, a message is delivered, an integer is heard.
//!
//! ```text
//! cargo run -p pimesh-node --example two_pis
//! ```

use std::{error::Error, path::Path, time::Duration};

use pimesh_node::{Begin, Config, Event, Events, Node};

/// How long each step may take. A busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// On this machine alone, on free ports.
const CONFIG: &str = r#"
[network]
listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]
mdns = false
"#;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    two_pis(folder.path(), |line| {
        #[expect(clippy::print_stdout, reason = "it is what this program is for")]
        {
            println!("{line}");
        }
    })
    .await
}

/// Does all that, and says what happened.
pub(crate) async fn two_pis(folder: &Path, mut say: impl FnMut(String)) -> Result<()> {
    let pi_1 = start(folder, "pi-1").await?;
    let pi_2 = start(folder, "pi-2").await?;

    let ticket = pi_1.invite().await?.ticket;
    let joined = pi_2.join(ticket).await?;
    say(format!(
        "{} joined, and meets {}",
        joined.name,
        joined.members.join(", ")
    ));

    // Whoever keeps the row of the last message that it has dealt with begins behind it the next
    // time, and misses none.
    let mut inbox = pi_1.inbox(Begin::Oldest).await?;
    let mut message = pi_2.send("pi-1", "door open").await?;
    message.delivered(PATIENCE).await?;
    let received = tokio::time::timeout(PATIENCE, inbox.next()).await??;
    let received = received.ok_or("the node has stopped")?;
    say(format!(
        "pi-1 has message {} of {} on its disk: {}",
        received.row, received.name, received.text
    ));

    // Integers reach those who are connected, and are not kept for others.
    let mut events = pi_1.subscribe();
    let published = pi_2.publish(None, [42]).await?;
    let value = tokio::time::timeout(PATIENCE, hear(&mut events)).await??;
    say(format!("pi-1 hears {value} from index {}", published.index));

    pi_2.shutdown().await;
    pi_1.shutdown().await;
    say("both have stopped".to_owned());
    Ok(())
}

async fn start(folder: &Path, name: &str) -> Result<Node> {
    let node = Node::builder(folder.join(name))
        .name(name.parse()?)
        .config(Config::parse(CONFIG)?);
    Ok(node.start().await?)
}

/// Waits for an integer of another node.
async fn hear(events: &mut Events) -> Result<i32> {
    while let Some(event) = events.next().await? {
        if let Event::Integers(integers) = &*event
            && let Some(iid) = integers.iids.first()
        {
            return Ok(iid.value.0);
        }
    }
    Err("the node has stopped".into())
}
