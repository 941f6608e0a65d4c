//! A client of the IID gateway, written on the node's own sign-in: for floods, crowds and figures. The
//! clients that share no code with pimesh are in `tests/foreign`.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use futures::{SinkExt, StreamExt};
use pimesh_node::{
    control::client,
    gateway::iid::upstream::ServerReport,
    proto::iid::{
        Form, IID_BYTES, Iid,
        address::EthereumKey,
        sign_in::client::{ClientHeard, ClientKey, ClientSignIn},
    },
    state::io::Gateway,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Bytes, Message},
};

use crate::{PATIENCE, Pi};

/// Returns the servers that a node is a client of.
///
/// # Errors
/// Fails if the node does not answer.
pub async fn servers(node: &client::Client) -> Result<Vec<ServerReport>, client::ClientError> {
    node.gateway(Gateway::Iid).get(&["servers"]).await
}

/// A key for tests; each number has its own.
#[must_use]
pub fn key(number: u16) -> EthereumKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    EthereumKey::from_bytes(&bytes).expect("below the order of the group")
}

/// Opens the gateway of a node, with these lines in its section of `pimesh.toml`, and for these
/// indices and keys.
///
/// # Errors
/// Fails if the gateway cannot be opened.
pub async fn open(pi: &Pi, settings: &str, allowed: &[(i32, u16)]) -> anyhow::Result<SocketAddr> {
    let folder = pi.home.join("iid");
    std::fs::create_dir_all(&folder)?;
    let line = |(index, number): &(i32, u16)| format!("{index}:{}\n", key(*number).address());
    let claims: String = allowed.iter().map(line).collect();
    std::fs::write(folder.join("claims.txt"), claims)?;
    let listen = if settings.contains("listen =") {
        ""
    } else {
        "listen = \"127.0.0.1:0\"\n"
    };
    let udp = if settings.contains("udp_out") {
        ""
    } else {
        "udp_out = []\n"
    };
    let text = format!("[gateway.iid]\nenabled = true\n{listen}{udp}{settings}\n");
    std::fs::write(pi.home.join("pimesh.toml"), text)?;
    pi.client.reload().await?;
    address(pi).await
}

/// Returns where the gateway of a node listens.
///
/// # Errors
/// Fails if it is not open.
pub async fn address(pi: &Pi) -> anyhow::Result<SocketAddr> {
    let opened = crate::opened(pi, Gateway::Iid).await?;
    opened.addresses.first().copied().context("an address")
}

/// A client that is connected.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Connects, and does not sign in.
    ///
    /// # Errors
    /// Fails if the gateway does not take it.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(format!("ws://{address}/"), stream).await?;
        Ok(Self { socket })
    }

    /// Connects and signs in with a key for tests.
    ///
    /// # Errors
    /// Fails with what the gateway says.
    pub async fn sign_in(address: SocketAddr, number: u16) -> anyhow::Result<Self> {
        let mut client = Self::connect(address).await?;
        let mut sign_in = ClientSignIn::new(ClientKey::Ethereum(key(number)), None)?;
        loop {
            let text = client.text().await?;
            match sign_in.hear(&text) {
                ClientHeard::Ignore => {}
                ClientHeard::Answer(answer) => client.socket.send(Message::text(answer)).await?,
                ClientHeard::SignedIn { .. } => return Ok(client),
                ClientHeard::Refused(reason) => bail!(reason),
            }
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Fails if the connection is gone.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(bytes.into())).await?)
    }

    /// Returns the next text.
    ///
    /// # Errors
    /// Fails if the connection ends first, or something else comes.
    pub async fn text(&mut self) -> anyhow::Result<String> {
        match self.message().await? {
            Message::Text(text) => Ok(text.to_string()),
            other => bail!("a text, not {other:?}"),
        }
    }

    /// Returns the next integer.
    ///
    /// # Errors
    /// Fails if the connection ends first, or something else comes.
    pub async fn integer(&mut self) -> anyhow::Result<Iid> {
        match self.message().await? {
            Message::Binary(bytes) => {
                ensure!(bytes.len() == IID_BYTES, "16 bytes, not {}", bytes.len());
                match Form::decode(&bytes)? {
                    Form::IndexIntegerDate(iid) => Ok(iid),
                    other => bail!("{other:?}"),
                }
            }
            other => bail!("an integer, not {other:?}"),
        }
    }

    /// Returns the next message that is no ping.
    ///
    /// # Errors
    /// Fails if the connection ends first.
    pub async fn message(&mut self) -> anyhow::Result<Message> {
        let waiting = async {
            loop {
                match self.socket.next().await.context("the connection ended")?? {
                    Message::Ping(_) | Message::Pong(_) => {}
                    message => return anyhow::Ok(message),
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await?
    }
}
