//! Clients that share no code with pimesh. They are set up once, under the target folder, with the
//! versions that their lock files pin.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::OnceCell,
};

use crate::{PATIENCE, program};

/// A foreign program that takes orders on stdin and tells what happens on stdout, in lines of JSON.
#[derive(Debug)]
pub struct Foreign {
    orders: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Foreign {
    /// Starts a script of `tests/foreign/python` with these arguments.
    ///
    /// # Errors
    /// Fails if Python cannot be set up or the script cannot be started.
    pub async fn python(script: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::python_behind(&[], script, args).await
    }

    /// The same, behind a command that runs it somewhere else.
    ///
    /// # Errors
    /// See [`Self::python`].
    pub async fn python_behind(
        launcher: &[String],
        script: &str,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let python = python().await?;
        let mut words = launcher.iter().map(OsStr::new).chain([python.as_os_str()]);
        let mut process = Command::new(words.next().context("at least Python")?);
        process
            .args(words)
            .arg("-u")
            .arg(python_script(script))
            .args(args);
        Self::spawn(process).with_context(|| format!("start {script}"))
    }

    /// Starts the member of a mesh that is made of js-libp2p. `mesh_key` is a file with the seed of
    /// the mesh's key in hexadecimal, so that it can write itself a certificate.
    ///
    /// # Errors
    /// Fails if it cannot be installed or started.
    pub async fn js_libp2p(mesh_key: &Path, address: &str) -> anyhow::Result<Self> {
        static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
        let folder = FOLDER.get_or_try_init(|| npm("js-libp2p")).await?;
        // The system's own Node.js may be too old, so one is pinned like everything else.
        let mut process = Command::new(folder.join("node_modules/node/bin/node"));
        process
            .arg(folder.join("member.mjs"))
            .arg("--mesh-key")
            .arg(mesh_key)
            .args(["--address", address]);
        Self::spawn(process).context("start js-libp2p")
    }

    fn spawn(mut process: Command) -> anyhow::Result<Self> {
        let mut process = process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().context("stdin is piped")?;
        let events = process.stdout.take().context("stdout is piped")?;
        Ok(Self {
            orders,
            events: BufReader::new(events).lines(),
            _process: process,
        })
    }

    /// Gives an order.
    ///
    /// # Errors
    /// Fails if the program is gone.
    pub async fn order(&mut self, order: Value) -> anyhow::Result<()> {
        Ok(self
            .orders
            .write_all(format!("{order}\n").as_bytes())
            .await?)
    }

    /// Returns the next event, whatever it is.
    ///
    /// # Errors
    /// Fails if the program is gone, or says what is no JSON.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        let line = self.events.next_line().await?.context("it ended")?;
        serde_json::from_str(&line).context(line)
    }

    /// Waits for an event of this kind; others are passed over.
    ///
    /// # Errors
    /// Fails at an event that tells of an error, and when patience ends.
    pub async fn event(&mut self, kind: &str) -> anyhow::Result<Value> {
        let waiting = async {
            loop {
                let line = self.events.next_line().await?.context("it ended")?;
                let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                ensure!(event["event"] != "error", "{line}");
                if event["event"] == kind {
                    return Ok(event);
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("no `{kind}` from the foreign program"))?
    }
}

/// Returns where a script of `tests/foreign/python` is.
#[must_use]
pub fn python_script(name: &str) -> PathBuf {
    python_folder().join(name)
}

fn python_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/python")
}

/// Returns a Python that has the packages of `tests/foreign/python/requirements.txt`. It is set up
/// once, under the target folder.
///
/// # Errors
/// Fails if it cannot be set up.
pub async fn python() -> anyhow::Result<&'static Path> {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    let python = PYTHON.get_or_try_init(venv).await?;
    Ok(python)
}

async fn venv() -> anyhow::Result<PathBuf> {
    let wanted = python_folder().join("requirements.txt");
    let lock = std::fs::read(&wanted)?;
    let folder = target()?.join("foreign").join("python");
    let (python, done) = (folder.join("bin/python"), folder.join("installed"));
    if std::fs::read(&done).ok().as_ref() == Some(&lock) {
        return Ok(python);
    }
    let status = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .status()
        .await
        .context("run python3: this test needs Python 3 with venv")?;
    ensure!(status.success(), "`python3 -m venv` failed");
    let status = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(&wanted)
        .status()
        .await?;
    ensure!(status.success(), "`pip install` failed");
    std::fs::write(&done, lock)?;
    Ok(python)
}

fn target() -> anyhow::Result<&'static Path> {
    program().ancestors().nth(2).context("TARGET/debug/pimesh")
}

/// Installs `tests/foreign/NAME` into the target folder, unless that was done.
async fn npm(name: &str) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("foreign")
        .join(name);
    let folder = target()?.join("foreign").join(name);
    std::fs::create_dir_all(&folder)?;
    let lock = std::fs::read(source.join("package-lock.json"))?;
    let done = folder.join("installed");
    for entry in std::fs::read_dir(&source)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    let protocol = "proto-specs/pimesh.proto";
    let published = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(protocol);
    std::fs::copy(published, folder.join("pimesh.proto")).context(protocol)?;
    if std::fs::read(&done).ok().as_ref() != Some(&lock) {
        let status = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .status()
            .await
            .context("run npm: this test needs Node.js with npm, such as the package `npm`")?;
        ensure!(status.success(), "`npm ci` failed in {}", folder.display());
        std::fs::write(&done, lock)?;
    }
    Ok(folder)
}
