//! Real nodes in processes of their own, for the whole-program tests.
//!
//! A test starts nodes, does what a person does, and waits for conditions with a deadline; it never
//! sleeps and hopes. Nodes live in temporary folders, listen on loopback on free ports, and are
//! killed when the test ends.

pub mod chance;
pub mod foreign;
pub mod iid;
pub mod lan;
pub mod server;
pub mod syft;

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use futures::StreamExt;
use pimesh_node::{
    control::{
        api::{EventBody, HistoryQuery, HistoryRow, NewIntegers, NewInvite, NewMessage, Way},
        client::Client,
    },
    gateway::GatewayReport,
    proto::iid::Value,
    state::{
        io::{Gateway, Recipients, SendVia},
        report::{Accepted, PeerState, Published},
    },
};
use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Longest wait for any condition. Far beyond what is usual, because a test machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked for something of which no event tells.
const LOOK: Duration = Duration::from_millis(50);

static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// How much a node logs. Tests that fail want to know each decision.
static VERBOSITY: std::sync::OnceLock<&[&str]> = std::sync::OnceLock::new();

/// Takes another program than the one that [`program`] would build, and runs it as people do: with a
/// line in the log for what changes, and none for each message. Comes before everything else.
pub fn use_program(path: PathBuf) {
    // Once it is in use, the program stays the same.
    drop(PROGRAM.set(path));
    VERBOSITY.get_or_init(|| &[]);
}

/// Returns the program under test; built once by whichever test comes first.
///
/// # Panics
/// Panics if it cannot be built: then no test can run.
#[must_use]
pub fn program() -> &'static Path {
    PROGRAM.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = std::process::Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--bins"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "the program builds");
        executable(&output.stdout).expect("cargo names the program that it built")
    })
}

/// Returns where cargo put the program `pimesh`; it alone knows all settings of its folders.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = String::from_utf8_lossy(messages);
    let paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let mut programs = paths.filter(|path| path.file_stem() == Some(OsStr::new("pimesh")));
    programs.next()
}

/// A folder with the homes of a test's nodes.
#[derive(Debug)]
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Makes an empty world.
    ///
    /// # Errors
    /// Fails if there is no temporary folder.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("pm-").tempdir()?,
        })
    }

    /// Starts a node on loopback.
    ///
    /// # Errors
    /// Fails if the node does not get ready.
    pub async fn start(&self, name: &str) -> anyhow::Result<Pi> {
        self.start_on(
            name,
            &["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"],
        )
        .await
    }

    /// Starts a node on these addresses.
    ///
    /// # Errors
    /// Fails if the node does not get ready.
    pub async fn start_on(&self, name: &str, listen: &[&str]) -> anyhow::Result<Pi> {
        let args = listen_args(listen.iter().copied());
        Pi::launch(self.home(name), name, Vec::new(), args).await
    }

    /// Starts a node on loopback that trusts this certificate as other systems trust public ones.
    ///
    /// # Errors
    /// Fails if the node does not get ready.
    pub async fn start_trusting(&self, name: &str, certificate: &Path) -> anyhow::Result<Pi> {
        let certificate = certificate.to_str().context("a path in UTF-8")?;
        let launcher = ["env".to_owned(), format!("SSL_CERT_FILE={certificate}")];
        let args = listen_args(["/ip4/127.0.0.1/udp/0/quic-v1"].into_iter());
        Pi::launch(self.home(name), name, launcher.to_vec(), args).await
    }

    /// Starts a node on loopback whose home is a disk of its own with so many MiB, of which `filled`
    /// MiB are taken by something else. Its socket is beside its home.
    ///
    /// # Errors
    /// Fails if the node does not get ready, or where no user namespaces can be made.
    pub async fn start_on_small_disk(
        &self,
        name: &str,
        mib: u32,
        filled: u32,
    ) -> anyhow::Result<Pi> {
        let home = self.home(name);
        std::fs::create_dir_all(&home)?;
        let socket = home.with_extension("sock");
        let (home_text, socket_text) = (home.display(), socket.display());
        let script = format!(
            "mount -t tmpfs -o mode=0700,size={mib}m none {home_text} && \
             {{ head -c {filled}M /dev/zero > {home_text}/filled || true; }} && \
             PIMESH_SOCKET={socket_text} exec \"$@\""
        );
        let launcher = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
        ];
        let launcher = launcher.into_iter().chain([script.as_str(), "sh"]);
        let launcher = launcher.map(str::to_owned).collect();
        let args = listen_args(["/ip4/127.0.0.1/udp/0/quic-v1"].into_iter());
        let mut pi = Pi::launch(home, name, launcher, args).await?;
        pi.client = Client::new(socket);
        Ok(pi)
    }

    /// Starts as many nodes as there are names, the first of which invites the others.
    ///
    /// # Errors
    /// Fails if they do not form a mesh.
    pub async fn mesh<const N: usize>(&self, names: [&str; N]) -> anyhow::Result<[Pi; N]> {
        let mut pis = Vec::with_capacity(N);
        for name in names {
            pis.push(self.start(name).await?);
        }
        for at in 1..N {
            pis[at].join(&pis[0]).await?;
        }
        for pi in &pis {
            pi.wait_for_peers(N - 1).await?;
        }
        pis.try_into()
            .map_err(|_| anyhow::anyhow!("N nodes were started"))
    }

    /// Returns the home folder of a node.
    #[must_use]
    pub fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One running node.
#[derive(Debug)]
pub struct Pi {
    /// Its name.
    pub name: String,
    /// Its home folder.
    pub home: PathBuf,
    /// Its process.
    pub child: Child,
    /// The way to ask it.
    pub client: Client,
    /// What it printed when it was ready.
    pub ready: String,
    launcher: Vec<String>,
    args: Vec<String>,
}

fn listen_args<'a>(addresses: impl Iterator<Item = &'a str>) -> Vec<String> {
    let args = addresses.flat_map(|address| ["--listen", address]);
    ["--no-mdns"]
        .into_iter()
        .chain(args)
        .map(str::to_owned)
        .collect()
}

impl Pi {
    /// Starts a node through a launcher, and waits until it is ready.
    async fn launch(
        home: PathBuf,
        name: &str,
        launcher: Vec<String>,
        args: Vec<String>,
    ) -> anyhow::Result<Self> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(home.with_extension("log"))
            .context("open the log")?;
        let words = launcher.iter().map(OsStr::new);
        let mut words = words.chain([program().as_os_str()]);
        let mut child = Command::new(words.next().context("at least the program")?)
            .args(words)
            .arg("--home")
            .arg(&home)
            .args(["run", "--name", name])
            .args(*VERBOSITY.get_or_init(|| &["-v"]))
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start a node")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let ready = line.unwrap_or_default();
        let log = || std::fs::read_to_string(home.with_extension("log")).unwrap_or_default();
        ensure!(
            ready.starts_with("ready "),
            "{name} did not get ready:\n{}",
            log()
        );
        let client = Client::new(home.join("control.sock"));
        Ok(Self {
            name: name.to_owned(),
            home,
            child,
            client,
            ready,
            launcher,
            args,
        })
    }

    /// Kills the node as a power cut would, and starts it again at the same addresses.
    ///
    /// # Errors
    /// Fails if it does not get ready again.
    pub async fn restart(mut self) -> anyhow::Result<Self> {
        self.child.kill().await.context("kill the node")?;
        let args = if self.launcher.is_empty() {
            listen_args(self.ready.split(' ').skip(2))
        } else {
            self.args
        };
        Self::launch(self.home, &self.name, self.launcher, args).await
    }

    /// Enters the mesh of another node.
    ///
    /// # Errors
    /// Fails as `pimesh join` does.
    pub async fn join(&self, inviter: &Self) -> anyhow::Result<()> {
        let invite = inviter.client.invite(&NewInvite::default()).await?;
        self.client.join(invite.ticket).await?;
        Ok(())
    }

    /// Sends a message, and returns once it is accepted.
    ///
    /// # Errors
    /// Fails as `pimesh send` does.
    pub async fn send(&self, to: &str, text: &str) -> anyhow::Result<Accepted> {
        let to = Recipients::Named(vec![to.to_owned()]);
        let message = NewMessage {
            to,
            text: text.to_owned(),
            via: SendVia::Direct,
            expiry_s: None,
        };
        let accepted = self.client.send(&message).await?;
        accepted
            .into_iter()
            .next()
            .context("one recipient, one message")
    }

    /// Publishes integers under the node's own index.
    ///
    /// # Errors
    /// Fails as `pimesh int` does.
    pub async fn publish(
        &self,
        values: impl IntoIterator<Item = i32>,
    ) -> anyhow::Result<Published> {
        let integers = NewIntegers {
            index: None,
            values: values.into_iter().map(Value).collect(),
            at: None,
        };
        Ok(self.client.publish(&integers).await?)
    }

    /// Returns the inbox.
    ///
    /// # Errors
    /// Fails if the node does not answer.
    pub async fn inbox(&self) -> anyhow::Result<Vec<HistoryRow>> {
        let query = HistoryQuery {
            way: Way::Received,
            all: true,
            ..Default::default()
        };
        Ok(self.client.history(&query).await?)
    }

    /// Returns what the node has logged.
    ///
    /// # Errors
    /// Fails if the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.home.with_extension("log"))?)
    }

    /// Returns the memory that its process uses, in KiB.
    ///
    /// # Errors
    /// Fails if it does not run.
    pub fn memory_kib(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("VmRSS")?.parse()?)
    }

    /// Waits until something about this node holds; looks again at each of its events.
    ///
    /// # Errors
    /// Fails when patience ends, with the node's log.
    pub async fn wait_until<T, F: Future<Output = anyhow::Result<Option<T>>>>(
        &self,
        what: &str,
        mut holds: impl FnMut() -> F,
    ) -> anyhow::Result<T> {
        let mut events = self.client.events().await?;
        let waiting = async {
            loop {
                if let Some(found) = holds().await? {
                    return anyhow::Ok(found);
                }
                events.next().await.context("the node stopped")??;
            }
        };
        let log = || self.log().unwrap_or_default();
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("{}: not {what} in time; its log:\n{}", self.name, log()))?
    }

    /// Waits until so many others are connected.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn wait_for_peers(&self, count: usize) -> anyhow::Result<()> {
        self.wait_until("connected", || async {
            let peers = self.client.peers().await?;
            let up = peers
                .iter()
                .filter(|peer| peer.state == PeerState::Up)
                .count();
            Ok((up == count).then_some(()))
        })
        .await
    }

    /// Waits until the inbox has so many messages, and returns their texts.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn wait_for_inbox(&self, count: usize) -> anyhow::Result<Vec<String>> {
        self.wait_until("received", || async {
            let rows = self.inbox().await?;
            Ok((rows.len() >= count).then(|| rows.into_iter().map(|row| row.text).collect()))
        })
        .await
    }

    /// Waits for an event that fits.
    ///
    /// # Errors
    /// Fails when patience ends.
    pub async fn wait_for_event<T>(
        events: &mut (
                 impl futures::Stream<
            Item = Result<EventBody, pimesh_node::control::client::ClientError>,
        > + Unpin
             ),
        mut fits: impl FnMut(EventBody) -> Option<T>,
    ) -> anyhow::Result<T> {
        let waiting = async {
            loop {
                let event = events.next().await.context("the node stopped")??;
                if let Some(found) = fits(event) {
                    return anyhow::Ok(found);
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .context("the event did not come")?
    }
}

/// Waits for something of which no event tells: looks again and again until it is found.
///
/// # Errors
/// Fails when patience ends, with what was seen last.
pub async fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut last = anyhow!("nothing was seen");
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => last = seen,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.map_err(|_| last.context(format!("waited in vain for {what}")))
}

/// Waits until a gateway is open with its settings.
///
/// # Errors
/// Fails if it cannot be opened.
pub async fn opened(pi: &Pi, gateway: Gateway) -> anyhow::Result<GatewayReport> {
    let opened = eventually("a gateway", async || {
        let listed = pi.client.gateways().await?;
        let found = listed.into_iter().find(|found| found.gateway == gateway);
        let found = found.context("it is not listed")?;
        ensure!(found.open || found.error.is_some(), "it is not open yet");
        Ok(found)
    });
    let opened = opened.await?;
    ensure!(opened.open, "not open: {:?}", opened.error);
    let refused = opened.refused.as_ref();
    ensure!(
        refused.is_none(),
        "open with its earlier settings: {refused:?}"
    );
    Ok(opened)
}

/// Makes a terminal with so many columns; returns its two ends: what shows it, and what a program writes
/// to.
///
/// # Errors
/// Fails if there is none.
pub fn terminal(columns: u16) -> anyhow::Result<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let shows = openpt(flags)?;
    unlockpt(&shows)?;
    let written = ioctl_tiocgptpeer(&shows, flags)?;
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&written, size)?;
    Ok((shows.into(), written.into()))
}

/// Runs a command of the program, and returns its exit code, stdout and stderr.
///
/// # Errors
/// Fails if it cannot be run.
pub async fn pimesh(home: &Path, args: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let output = Command::new(program())
        .arg("--home")
        .arg(home)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    ))
}
