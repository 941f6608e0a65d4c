//! `pimesh gateway syft`

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use clap::Subcommand;
use pimesh_node::{
    config::{certificate::CertificateSha256, gateway::syft::SyftServer},
    control::client::GatewayClient,
    files,
    gateway::{syft::server::ServerReport, tls},
    proto::{
        mesh::NodeName,
        server::{KeyOf, ServerUrl},
        syft::{
            KEY_FILE_BYTES_MAX, KeyFileError, PublicKey, UserId,
            http::{Registration, UserBody},
        },
    },
    state::{io::Gateway, post::User},
};
use toml_edit::InlineTable;

use super::{reload, said, settings};
use crate::{commands::Global, output};

#[derive(Debug, Subcommand)]
pub(super) enum Syft {
    /// List everybody who can be written to: users of all gateways, and the nodes themselves
    Users,
    /// Make somebody a user of this node's gateway, also if `open_registration` is off
    ///
    /// He logs in with the private half of the key. The rules are those of a registration: a name
    /// that means somebody already is refused, and the same name with the same key changes nothing.
    #[command(
        after_help = "Example:\n  pimesh gateway syft add alice@example.org --key @websocket_public.pem\n  \
                            pimesh gateway syft add bob --title \"Bob B.\" \\\n    \
                            --key Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    )]
    Add {
        /// The user
        user: UserId,
        /// His public key: base64 or hexadecimal of 32 bytes; or @FILE with that, or with PEM
        #[arg(long, value_name = "KEY|@FILE")]
        key: Key,
        /// His name for people [default: the user]
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
    },
    /// Take a user of this node's gateway out, with the messages that wait for them; or forget the
    /// key of a server's user, `USER@SERVER`
    ///
    /// The name of a user can then be registered with another key. Other nodes refuse that key until
    /// somebody there trusts it: `pimesh trust USER`. The key of a server's user is pinned
    /// anew when it is next needed.
    Forget {
        /// The user, or USER@SERVER
        user: String,
    },
    /// Become a client of a Syft server: register or log in there with a key for that server
    ///
    /// Its messages come into the inbox as `user@server`, and `pimesh send user@server` writes to
    /// its users. The node stays connected, also after a restart.
    ///
    /// The certificate of an https server has to be one that this system trusts. One that a server
    /// made for itself is trusted by its SHA-256; at another pimesh node
    /// `pimesh gateway syft fingerprint` prints it.
    ///
    /// The key follows from the messaging key and the URL, so no server can log in with it at
    /// another one. A server that moves to another URL knows the user by the earlier key: go on
    /// with that by `--key-of EARLIER-URL`. A user that a version of pimesh registered with the
    /// messaging key itself: `--key-of shared`, for one server at most.
    #[command(
        after_help = "Example:\n  pimesh gateway syft connect https://syft.example.org --user kitchen\n  \
                            pimesh gateway syft connect https://192.168.1.20:8765 --user kitchen --name hub \\\n    \
                            --fingerprint 5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592"
    )]
    Connect {
        /// Where it is: https://…, or http://…
        url: ServerUrl,
        /// The user that this node is there
        #[arg(long, value_name = "NAME")]
        user: UserId,
        /// What the server is called here [default: its host]
        #[arg(long, value_name = "NAME")]
        name: Option<NodeName>,
        /// The SHA-256 of its certificate, if this system does not trust it
        #[arg(long, value_name = "SHA256")]
        fingerprint: Option<CertificateSha256>,
        /// Whose key to log in with [default: the one for URL]
        #[arg(long, value_name = "URL|shared")]
        key_of: Option<KeyOf>,
        /// Take the server's messages to all, too; without it they are left out
        #[arg(long)]
        broadcasts: bool,
    },
    /// List the Syft servers that this node is a client of
    List,
    /// Be a client of a server no longer
    Disconnect {
        /// Its name, as `list` shows it
        name: String,
    },
    /// Show the SHA-256 of the certificate that the node made for this gateway
    Fingerprint,
}

impl Syft {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Users => show(global, &global.client()?.users().await?),
            Self::Add { user, key, title } => {
                let registration = Registration {
                    username: title.unwrap_or_else(|| user.to_string()),
                    user_id: user.to_string(),
                    public_key: key.read()?.to_base64(),
                };
                let added: UserBody = asking(global)?.post(&["users"], &registration).await?;
                if global.json {
                    return output::json(&added);
                }
                let UserBody {
                    user_id,
                    public_key,
                    ..
                } = added;
                output::line(format!(
                    "{user_id} is a user of this gateway, with the key {public_key}"
                ))
            }
            Self::Forget { user } => {
                let () = asking(global)?.delete(&["users", &user]).await?;
                said(global, format!("{user} is forgotten"))
            }
            Self::Connect {
                url,
                user,
                name,
                fingerprint,
                key_of,
                broadcasts,
            } => {
                if !["http", "https"].contains(&url.scheme()) {
                    return Err(output::wrong(
                        format!(
                            "the URL of a Syft server begins with https:// or http://, got `{url}`"
                        ),
                        "the node logs in there by HTTP, and opens the WebSocket at the same \
                         address by itself; for an APIntIO server: `pimesh gateway iid connect`",
                    ));
                }
                let name = match name {
                    Some(name) => name,
                    None => host_of(&url)?,
                };
                let client = global.client()?;
                let peers = match client.peers().await {
                    Ok(peers) => peers,
                    // Without a running node it is read at the next start, and `doctor` checks names.
                    Err(error) if error.is_not_running() => Vec::new(),
                    Err(error) => return Err(error.into()),
                };
                if peers.iter().any(|peer| peer.name == name.as_str()) {
                    return Err(output::wrong(
                        format!("`{name}` is a node of the mesh, and USER@{name} one of its users"),
                        "give the server another name here: `--name`",
                    ));
                }
                let server = SyftServer {
                    url,
                    user,
                    name,
                    fingerprint,
                    key_of,
                    broadcasts,
                };
                connect(&global.home()?, &server)?;
                reload(&global.client()?).await?;
                said(
                    global,
                    format!(
                        "its users are NAME@{}; `pimesh gateway syft list` shows the connection",
                        server.name
                    ),
                )
            }
            Self::List => {
                let servers: Vec<_> = asking(global)?.get(&["servers"]).await?;
                show_servers(global, &servers)
            }
            Self::Disconnect { name } => {
                disconnect(&global.home()?, &name)?;
                reload(&global.client()?).await?;
                said(global, format!("no client of {name} any more"))
            }
            Self::Fingerprint => {
                let certificate = global.home()?.join(tls::SYFT_CERTIFICATE);
                let sha256 = tls::fingerprint(&certificate)
                    .context("there is no certificate yet: it is made when the gateway opens")?;
                if global.json {
                    return output::json(&serde_json::json!({ "sha256": sha256 }));
                }
                output::own_line(sha256)
            }
        }
    }
}

fn asking(global: &Global) -> anyhow::Result<GatewayClient> {
    Ok(global.client()?.gateway(Gateway::Syft))
}

/// Puts a server into the configuration of a home folder; one of the same name is replaced.
fn connect(home: &Path, server: &SyftServer) -> anyhow::Result<()> {
    settings::change_servers(home, "syft", |servers| {
        settings::remove(servers, "name", server.name.as_str());
        let mut entry = InlineTable::new();
        entry.insert("url", server.url.to_string().into());
        entry.insert("user", server.user.as_str().into());
        entry.insert("name", server.name.as_str().into());
        if let Some(sha256) = &server.fingerprint {
            entry.insert("fingerprint", sha256.to_string().into());
        }
        if let Some(key_of) = &server.key_of {
            entry.insert("key_of", key_of.to_string().into());
        }
        if server.broadcasts {
            entry.insert("broadcasts", true.into());
        }
        servers.push(entry);
        Ok(())
    })
}

/// Takes a server out of the configuration of a home folder.
fn disconnect(home: &Path, name: &str) -> anyhow::Result<()> {
    settings::change_servers(home, "syft", |servers| {
        let removed = settings::remove(servers, "name", name);
        anyhow::ensure!(removed, "this node is no client of a server named `{name}`");
        Ok(())
    })
}

/// A public key, or where it is.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Given(Box<PublicKey>),
    File(PathBuf),
}

impl FromStr for Key {
    type Err = KeyFileError;

    fn from_str(text: &str) -> Result<Self, KeyFileError> {
        match text.strip_prefix('@') {
            Some(path) => Ok(Self::File(path.into())),
            None => PublicKey::from_key_file(text).map(|key| Self::Given(Box::new(key))),
        }
    }
}

impl Key {
    fn read(self) -> anyhow::Result<PublicKey> {
        let path = match self {
            Self::Given(key) => return Ok(*key),
            Self::File(path) => path,
        };
        let read = || {
            let text = files::read_bounded(&path, KEY_FILE_BYTES_MAX as u64)?;
            anyhow::Ok(PublicKey::from_key_file(&text)?)
        };
        read().with_context(|| format!("read the key file {}", path.display()))
    }
}

/// Returns the host of a URL as a name.
fn host_of(url: &ServerUrl) -> anyhow::Result<NodeName> {
    url.host().parse().map_err(|_| {
        output::hinted(
            format!("`{}` cannot be the name of a server", url.host()),
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
            next(server.next_ms),
            server.url.clone(),
            server.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = servers.iter().map(row).collect();
    output::table(&["NAME", "USER", "STATE", "NEXT", "URL", "REASON"], &rows)?;
    Ok(())
}

/// Returns the time until the next attempt, in whole seconds.
fn next(next_ms: Option<u64>) -> String {
    next_ms.map_or_else(|| "-".to_owned(), |ms| format!("{} s", ms.div_ceil(1000)))
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
            user.node.clone(),
            state.to_owned(),
            user.waiting.to_string(),
            key,
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    output::table(&["NAME", "KIND", "NODE", "STATE", "WAITING", "KEY"], &rows)?;
    Ok(())
}
