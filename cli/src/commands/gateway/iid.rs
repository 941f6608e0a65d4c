//! `pimesh gateway iid`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use pimesh_node::{
    Config,
    config::gateway::iid::{IidServer, KeyKind},
    control::client::{Client, ClientError},
    files,
    gateway::iid::{
        LIST_BYTES_MAX, claims_file, revoked_file,
        upstream::{ServerReport, ServerState},
    },
    proto::{
        iid::{
            Index,
            lists::{self, Claims, Letters},
        },
        server::{KeyOf, ServerUrl},
    },
    state::{
        io::Gateway,
        report::{Peer, PeerState},
    },
};
use serde::Serialize;
use toml_edit::InlineTable;

use super::{reload, said, settings};
use crate::{commands::Global, output};

/// Who may sign in at the IID gateway, and the APIntIO servers that this node is a client of
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh gateway iid allow 7 0xaeC963aC8DF14a807ab97715c564b7bD3973503A\n  \
                        pimesh gateway iid connect ws://192.168.1.20:4615\n  \
                        pimesh gateway iid servers"
)]
pub(super) struct Iid {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let an address sign in, and speak for an index
    ///
    /// An address speaks for one index: with another one it loses the earlier one, which is said.
    /// An index may have several addresses, which is said, too. An index that another member owns is
    /// refused, for no gateway speaks for it; without a running node that is not known.
    Allow {
        /// The index; negative ones are guests
        #[arg(allow_negative_numbers = true)]
        index: i32,
        /// An Ethereum address (0x…) or an RSA address (pBit4096B58Pkcs1SHA256…)
        address: String,
    },
    /// Let nobody sign in with an address, or for an index, any more
    Deny {
        /// The address, or the index
        #[arg(allow_negative_numbers = true)]
        what: String,
    },
    /// List who may sign in
    List,
    /// Take a letter back: with it, the coaster's key acts for the master no more
    Revoke {
        /// The address that signed the letter
        master: String,
        /// The address that the letter is for
        coaster: String,
    },
    /// Be a client of an APIntIO server, now and at every start; integers run both ways
    ///
    /// This node has a key of its own for each server, which follows from the URL: no server can
    /// sign in with it at another one. `pimesh gateway iid servers` shows the address; the owner of
    /// the server has to allow it. A server that moves to another URL knows the node by the earlier
    /// address: go on with that by `--key-of EARLIER-URL`. A server that was told the address by a
    /// version of pimesh with one key for all servers: `--key-of shared`, for one server at most.
    Connect {
        /// Where it is, as ws:// or wss://
        url: ServerUrl,
        /// The kind of key to sign in with; it is made if there is none
        #[arg(long, value_enum, default_value = "ethereum")]
        key: Key,
        /// Whose key to sign in with [default: the one for URL]
        #[arg(long, value_name = "URL|shared")]
        key_of: Option<KeyOf>,
        /// Take integers from there, and send none
        #[arg(long)]
        receive_only: bool,
    },
    /// Be a client of a server no more
    Disconnect {
        /// Where it is
        url: ServerUrl,
    },
    /// List the servers that this node is a client of
    Servers,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    Ethereum,
    Rsa,
}

/// A line of the allow list.
#[derive(Serialize)]
struct Allowed<'a> {
    index: Index,
    address: &'a str,
}

impl Iid {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self.action {
            Action::Allow { index, address } => {
                let list = AllowList::find(global)?;
                let before = list.text()?;
                let text = lists::allow(&before, Index(index), &address)?;
                let peers = global.client()?.peers().await.unwrap_or_default();
                let mut notes = taken(&Claims::parse(&before).0, Index(index), &address);
                notes.extend(owned(&peers, Index(index))?);
                list.write(&text)?;
                reload(&global.client()?).await?;
                let done = format!("{address} may sign in, and speaks for {index}");
                if global.json {
                    return output::json(&serde_json::json!({ "done": done, "notes": notes }));
                }
                output::line(done)?;
                notes.iter().for_each(output::note);
                Ok(())
            }
            Action::Deny { what } => {
                let list = AllowList::find(global)?;
                let (text, removed) = lists::deny(&list.text()?, &what);
                anyhow::ensure!(
                    removed > 0,
                    "nobody may sign in as `{what}` in the first place"
                );
                list.write(&text)?;
                list.tell(global, format!("{removed} taken off the list"))
                    .await
            }
            Action::List => list(global),
            Action::Revoke { master, coaster } => {
                let path = revoked_file(&global.home()?);
                let mut text = read(&path)?;
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                let line = format!("{master}>{coaster}\n");
                let (_, skipped) = Letters::parse(&line);
                if let Some(skipped) = skipped.first() {
                    return Err(output::wrong(
                        format!("this is no letter: {}", skipped.why),
                        "nothing was changed; a letter is named by two addresses",
                    ));
                }
                text.push_str(&line);
                settings::write(&path, &text)
                    .with_context(|| format!("write {}", path.display()))?;
                reload(&global.client()?).await?;
                said(global, "the letter is good no more")
            }
            Action::Connect {
                url,
                key,
                key_of,
                receive_only,
            } => {
                let key = match key {
                    Key::Ethereum => KeyKind::Ethereum,
                    Key::Rsa => KeyKind::Rsa,
                };
                let server = IidServer {
                    url,
                    key,
                    key_of,
                    receive_only,
                };
                if !["ws", "wss"].contains(&server.url.scheme()) {
                    return Err(output::wrong(
                        format!(
                            "the URL of an APIntIO server begins with ws:// or wss://, got `{}`",
                            server.url
                        ),
                        "its clients speak over WebSockets only; for a Syft server: `pimesh \
                         gateway syft connect`",
                    ));
                }
                connect(&global.home()?, &server)?;
                let client = global.client()?;
                if reload(&client).await? {
                    return show(global, &servers(&client).await?);
                }
                Ok(())
            }
            Action::Disconnect { url } => {
                disconnect(&global.home()?, &url)?;
                reload(&global.client()?).await?;
                said(global, "this node is a client of that server no more")
            }
            Action::Servers => show(global, &servers(&global.client()?).await?),
        }
    }
}

/// Returns the servers that the node is a client of.
async fn servers(client: &Client) -> Result<Vec<ServerReport>, ClientError> {
    client.gateway(Gateway::Iid).get(&["servers"]).await
}

/// Adds a server to the configuration of a home folder, or changes how it is used.
fn connect(home: &Path, server: &IidServer) -> anyhow::Result<()> {
    settings::change_servers(home, "iid", |servers| {
        settings::remove_url(servers, &server.url);
        let mut entry = InlineTable::new();
        entry.insert("url", server.url.to_string().into());
        let key = match server.key {
            KeyKind::Ethereum => "ethereum",
            KeyKind::Rsa => "rsa",
        };
        entry.insert("key", key.into());
        if let Some(key_of) = &server.key_of {
            entry.insert("key_of", key_of.to_string().into());
        }
        if server.receive_only {
            entry.insert("receive_only", true.into());
        }
        servers.push(entry);
        Ok(())
    })
}

/// Takes a server out of the configuration of a home folder.
fn disconnect(home: &Path, url: &ServerUrl) -> anyhow::Result<()> {
    settings::change_servers(home, "iid", |servers| {
        let removed = settings::remove_url(servers, url);
        anyhow::ensure!(removed, "this node is no client of `{url}`");
        Ok(())
    })
}

/// Says what others lose, or share, when an address is let in for an index.
fn taken(claims: &Claims, index: Index, address: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let earlier = claims.index_of(address).filter(|earlier| *earlier != index);
    if let Some(earlier) = earlier {
        notes.push(format!(
            "it spoke for {earlier} until now and no longer does: an address has one index"
        ));
    }
    let with = claims.iter().filter(|(of, _)| *of == index);
    let others: Vec<&str> = with
        .map(|(_, other)| other)
        .filter(|other| !other.eq_ignore_ascii_case(address))
        .collect();
    if !others.is_empty() {
        notes.push(format!(
            "{} may speak for {index}, too; `pimesh gateway iid deny ADDRESS` takes one off the list",
            others.join(", ")
        ));
    }
    notes
}

/// Refuses an index that another member owns, and says what else stands in the way of a client
/// that is to speak for it.
fn owned(peers: &[Peer], index: Index) -> anyhow::Result<Vec<String>> {
    let owns = |peer: &&Peer| peer.index == index || peer.further.contains(index);
    let is_own = |peer: &Peer| peer.state == PeerState::Own;
    match peers.iter().find(owns) {
        Some(owner) if !is_own(owner) => {
            return Err(output::hinted(
                format!(
                    "index {index} is that of the member `{}`, and no gateway speaks for it",
                    owner.name
                ),
                "nothing was changed; `pimesh peers` shows which indices are taken",
            ));
        }
        Some(_) => {
            return Ok(vec![format!(
                "{index} is this node's own index, too: `pimesh int` speaks for it"
            )]);
        }
        None => {}
    }
    let own = peers.iter().find(|peer| is_own(peer));
    let narrow = own.filter(|own| !own.vouched.contains(index));
    let note = narrow.map(|own| {
        format!(
            "this node's gateways may speak for {} only, so what it sends is refused: `pimesh peers \
             vouch {} …`, at a node with the mesh key, changes that",
            own.vouched, own.name
        )
    });
    Ok(note.into_iter().collect())
}

/// The file with those who may sign in.
struct AllowList(PathBuf);

impl AllowList {
    fn find(global: &Global) -> anyhow::Result<Self> {
        let home = global.home()?;
        let path = claims_file(&Config::load(&home)?.gateways.iid, &home);
        if path.is_dir() {
            return Err(output::hinted(
                format!("the claims are the folder {}", path.display()),
                "put a file named by the address into the folder of the index",
            ));
        }
        Ok(Self(path))
    }

    fn text(&self) -> anyhow::Result<String> {
        read(&self.0)
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        settings::write(&self.0, text).with_context(|| format!("write {}", self.0.display()))
    }

    async fn tell(&self, global: &Global, done: String) -> anyhow::Result<()> {
        reload(&global.client()?).await?;
        said(global, done)
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    match files::read_bounded(path, LIST_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("read {}", path.display())),
    }
}

fn list(global: &Global) -> anyhow::Result<()> {
    let (claims, skipped) = Claims::parse(&AllowList::find(global)?.text()?);
    for line in &skipped {
        output::note(format!(
            "line {} is not understood: {}",
            line.line, line.why
        ));
    }
    let mut claims: Vec<_> = claims.iter().collect();
    claims.sort_unstable();
    if global.json {
        let all = claims.iter();
        let mut lines = all.map(|&(index, address)| Allowed { index, address });
        return lines.try_for_each(|allowed| output::json(&allowed));
    }
    let row = |(index, address): &(Index, &str)| vec![index.to_string(), (*address).to_owned()];
    let rows: Vec<_> = claims.iter().map(row).collect();
    output::table(&["INDEX", "ADDRESS"], &rows)?;
    Ok(())
}

fn show(global: &Global, servers: &[ServerReport]) -> anyhow::Result<()> {
    if global.json {
        return servers.iter().try_for_each(output::json);
    }
    let row = |server: &ServerReport| {
        let state = match &server.state {
            ServerState::Connecting => "connecting".to_owned(),
            ServerState::SignedIn { index } if server.receive_only => {
                format!("signed in as {index}, receive only")
            }
            ServerState::SignedIn { index } => format!("signed in as {index}"),
            ServerState::Waiting { reason, next_ms } => {
                let seconds = next_ms.div_ceil(1000);
                format!("waiting: {reason}; next attempt in {seconds} s")
            }
        };
        vec![
            server.url.clone(),
            state,
            server.received.to_string(),
            server.sent.to_string(),
            server.address.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = servers.iter().map(row).collect();
    output::table(
        &["SERVER", "STATE", "RECEIVED", "SENT", "OWN ADDRESS"],
        &rows,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "0xaeC963aC8DF14a807ab97715c564b7bD3973503A";
    const BOB: &str = "0x95fc270Af48a00FF923001006453A98192c98716";

    #[test]
    fn who_loses_an_index_or_shares_one_is_named() {
        let claims = Claims::parse(&format!("7:{ALICE}\n8:{BOB}\n")).0;

        let moved = taken(&claims, Index(9), &ALICE.to_lowercase());
        let shared = taken(&claims, Index(7), BOB);

        assert_eq!(moved.len(), 1, "{moved:?}");
        assert!(
            moved[0].starts_with("it spoke for 7 until now"),
            "{moved:?}"
        );
        assert_eq!(shared.len(), 2, "{shared:?}");
        assert!(shared[0].contains("8 until now"), "{shared:?}");
        assert!(shared[1].starts_with(ALICE), "{shared:?}");
        assert!(taken(&claims, Index(7), ALICE).is_empty());
        assert!(taken(&Claims::default(), Index(7), ALICE).is_empty());
    }

    #[test]
    fn servers_are_added_once_and_removed() {
        let home = tempfile::tempdir().expect("a folder");
        let server = |url: &str, key| IidServer {
            url: url.parse().expect("a URL"),
            key,
            key_of: None,
            receive_only: url == "ws://a",
        };
        for (url, key) in [
            ("ws://a", KeyKind::Ethereum),
            ("ws://b", KeyKind::Ethereum),
            ("ws://a", KeyKind::Rsa),
        ] {
            connect(home.path(), &server(url, key)).expect("legal");
        }
        let config = Config::load(home.path()).expect("legal");
        assert_eq!(
            config.gateways.iid_servers,
            [
                server("ws://b", KeyKind::Ethereum),
                server("ws://a", KeyKind::Rsa)
            ]
        );
        let b = server("ws://B:80/", KeyKind::Ethereum).url;
        disconnect(home.path(), &b).expect("it is there");
        assert!(disconnect(home.path(), &b).is_err());
        assert!(connect(home.path(), &server("http://c", KeyKind::Rsa)).is_err());
    }
}
