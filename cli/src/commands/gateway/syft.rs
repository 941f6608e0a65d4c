//! `pimesh gateway syft`

use anyhow::Context;
use clap::Subcommand;
use pimesh_node::{
    config::gateway::SyftServer,
    gateway::{syft::server::ServerReport, tls},
    proto::{mesh::NodeName, syft::UserId},
    state::post::User,
};

use super::{reload, settings};
use crate::{commands::Global, output};

#[derive(Debug, Subcommand)]
pub(super) enum Syft {
    /// List everybody who can be written to: users of all doors, and the nodes themselves
    Users,
    /// Take a user of this node's door out, with the messages that wait for him
    ///
    /// His name can then be registered with another key. Other nodes refuse that key until somebody
    /// there trusts it: `pimesh peers trust USER`.
    Forget {
        /// The user
        user: String,
    },
    /// Become a client of a Syft server: register or log in there with this node's messaging key
    ///
    /// Its messages come into the inbox as `user@server`, and `pimesh send user@server` writes to
    /// its users. The node stays connected, also after a restart.
    Connect {
        /// Where it is: https://…, or http://…
        url: String,
        /// The user that this node is there
        #[arg(long, value_name = "NAME")]
        user: UserId,
        /// What the server is called here [default: its host]
        #[arg(long, value_name = "NAME")]
        name: Option<NodeName>,
    },
    /// List the Syft servers that this node is a client of
    List,
    /// Be a client of a server no longer
    Disconnect {
        /// Its name, as `list` shows it
        name: String,
    },
    /// Show the SHA-256 of the certificate that the node made for this door
    Fingerprint,
}

impl Syft {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Users => show(global, &global.client()?.users().await?),
            Self::Forget { user } => {
                global.client()?.forget_user(&user).await?;
                output::line(format!("{user} is no user of this door any more"))
            }
            Self::Connect { url, user, name } => {
                let name = match name {
                    Some(name) => name,
                    None => host_of(&url)?,
                };
                let server = SyftServer { url, user, name };
                settings::connect_syft(&global.home()?, &server)?;
                reload(&global.client()?).await?;
                output::line(format!(
                    "its users are NAME@{}; `pimesh gateway syft list` shows the connection",
                    server.name
                ))
            }
            Self::List => show_servers(global, &global.client()?.syft_servers().await?),
            Self::Disconnect { name } => {
                settings::disconnect_syft(&global.home()?, &name)?;
                reload(&global.client()?).await?;
                output::line(format!("no client of {name} any more"))
            }
            Self::Fingerprint => {
                let certificate = global.home()?.join(tls::SYFT_CERTIFICATE);
                let sha256 = tls::fingerprint(&certificate)
                    .context("there is no certificate yet: it is made when the door opens")?;
                output::line(sha256)
            }
        }
    }
}

/// Returns the host of a URL as a name.
fn host_of(url: &str) -> anyhow::Result<NodeName> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    host.parse().map_err(|_| {
        output::hinted(
            format!("`{host}` cannot be the name of a server"),
            "name it with `--name`",
        )
    })
}

fn show_servers(global: &Global, servers: &[ServerReport]) -> anyhow::Result<()> {
    if global.json {
        return servers.iter().try_for_each(output::json);
    }
    let row = |server: &ServerReport| {
        vec![
            server.name.clone(),
            server.user.clone(),
            server.state.clone(),
            server.url.clone(),
            server.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = servers.iter().map(row).collect();
    output::table(&["NAME", "USER", "STATE", "URL", "REASON"], &rows)
}

fn show(global: &Global, users: &[User]) -> anyhow::Result<()> {
    if global.json {
        return users.iter().try_for_each(output::json);
    }
    let row = |user: &User| {
        let state = if user.online { "online" } else { "offline" };
        let key = match &user.shown {
            Some(shown) => format!("{} (CHANGED to {shown}: refused)", user.key),
            None => user.key.clone(),
        };
        let kind = if user.is_node { "node" } else { "user" };
        vec![
            user.name.clone(),
            kind.to_owned(),
            user.door.clone(),
            state.to_owned(),
            user.waiting.to_string(),
            key,
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    output::table(&["NAME", "KIND", "NODE", "STATE", "WAITING", "KEY"], &rows)
}
