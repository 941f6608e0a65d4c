//! `pimesh gateway p2sn`, for which `pimesh p2sn` stands

use std::time::Duration;

use clap::{Args, Subcommand};
use pimesh_node::{
    control::client::GatewayClient,
    gateway::p2sn::{NewP2snMessage, P2snAddress, P2snReplied},
    state::{io::Gateway, report::P2snKey},
};

use crate::{
    commands::{Global, duration, send::read_message, texts, whole_seconds},
    output,
};

/// Old P2SN programs: send to their servers, see and accept their keys
///
/// P2SN protects little: nobody is authenticated, and messages can be replayed, dropped and
/// reordered on the way. Keys are pinned to the address where they were first seen.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh p2sn send 192.168.1.7:5050 \"door open\"\n  \
                        pimesh p2sn keys\n  pimesh p2sn trust 192.168.1.7:5050"
)]
pub(in crate::commands) struct P2sn {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a message to a P2SN server and print its reply
    Send {
        /// The server, `HOST` or `HOST:PORT`; the port is 5050 if it is not named
        #[arg(value_name = "HOST:PORT")]
        to: String,
        /// The text, or `-` to read it from standard input
        #[arg(value_parser = texts::text)]
        text: String,
        /// How long to wait for the reply [default: 20s]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// List the pinned keys of clients and servers, and those that were refused
    Keys,
    /// Accept the key that was refused because another is pinned to its address
    ///
    /// The key of a server takes the place of the old one; that of a client is pinned beside those
    /// of other clients at its address.
    Trust {
        /// Of a client its IP address, of a server `HOST` or `HOST:PORT`
        address: String,
    },
    /// Take away the keys that are pinned to an address; the next one shown is pinned
    Forget {
        /// Of a client its IP address, of a server `HOST` or `HOST:PORT`
        address: String,
    },
}

impl P2sn {
    pub(in crate::commands) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self.action {
            Action::Send { to, text, timeout } => send(global, to, text, timeout).await,
            Action::Keys => show(global, &asking(global)?.get::<Vec<_>>(&["keys"]).await?),
            Action::Trust { address } => {
                let asked = asking(global)?;
                let keys: Vec<_> = asked.post(&["trust"], &P2snAddress { address }).await?;
                tell(global, "pinned", &keys)
            }
            Action::Forget { address } => {
                let asked = asking(global)?;
                let keys: Vec<_> = asked.post(&["forget"], &P2snAddress { address }).await?;
                tell(global, "forgot", &keys)
            }
        }
    }
}

fn asking(global: &Global) -> anyhow::Result<GatewayClient> {
    Ok(global.client()?.gateway(Gateway::P2sn))
}

async fn send(
    global: &Global,
    to: String,
    text: String,
    timeout: Option<Duration>,
) -> anyhow::Result<()> {
    let text = match text.as_str() {
        "-" => read_message()?,
        _ => text,
    };
    let message = NewP2snMessage {
        to,
        text,
        timeout_s: timeout.map(whole_seconds),
    };
    let asked = asking(global)?.waiting(timeout);
    let replied: P2snReplied = asked.post(&["send"], &message).await?;
    if global.json {
        return output::json(&replied);
    }
    output::message("", &replied.reply)
}

fn show(global: &Global, keys: &[P2snKey]) -> anyhow::Result<()> {
    if global.json {
        return keys.iter().try_for_each(output::json);
    }
    let row = |key: &P2snKey| {
        let name = key.name.clone().unwrap_or_else(|| "(server)".to_owned());
        let waiting = match key.waiting {
            0 => "-".to_owned(),
            count => count.to_string(),
        };
        let state = if key.refused { "refused" } else { "pinned" };
        let fingerprint = key.fingerprint.clone();
        let bits = key.bits.to_string();
        vec![
            key.address.clone(),
            name,
            bits,
            state.to_owned(),
            waiting,
            fingerprint,
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    let header = [
        "ADDRESS",
        "CLIENT",
        "BITS",
        "STATE",
        "WAITING",
        "FINGERPRINT",
    ];
    output::table(&header, &rows)?;
    Ok(())
}

fn tell(global: &Global, what: &str, keys: &[P2snKey]) -> anyhow::Result<()> {
    if global.json {
        return keys.iter().try_for_each(output::json);
    }
    keys.iter().try_for_each(|key| {
        let P2snKey {
            address,
            fingerprint,
            bits,
            ..
        } = key;
        output::line(format!("{what} {fingerprint} ({bits} bits) for {address}"))
    })
}
