//! `pimesh run`

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use pimesh_node::{
    Node,
    config::LogFormat,
    control::Control,
    proto::mesh::{Address, NodeName},
};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Global, keys};
use crate::{
    log,
    output::{self, Printed},
};

/// Run the node of this machine, in the foreground
///
/// The first start makes the keys and a mesh of one. Once the node serves, it prints one line that
/// begins with `ready`. SIGTERM and Ctrl-C stop it cleanly, SIGHUP reads `pimesh.toml` again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pimesh run\n  pimesh --home /tmp/a run --name a \
                        --listen /ip4/127.0.0.1/tcp/0"
)]
pub(super) struct Run {
    /// Name to wish for in the mesh [default: `node.name`, or the host name]
    #[arg(long, env = "PIMESH_NAME", value_parser = NodeName::chosen)]
    name: Option<NodeName>,
    /// Listen here, in the place of `network.listen`; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Do not look for peers on the LAN
    #[arg(long)]
    no_mdns: bool,
    /// Do not begin a new node: fail if none was ever started in the home folder
    ///
    /// For a home folder on a disk of its own: while that is not mounted, the folder is empty.
    #[arg(long)]
    existing: bool,
    /// Group whose members may use the control socket, too [default: `control.socket_group`]
    #[arg(long, env = "PIMESH_SOCKET_GROUP", value_name = "GROUP")]
    socket_group: Option<String>,
    /// How log lines are written [default: `log.format`]
    #[arg(long, value_enum)]
    log: Option<Format>,
    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The line that says that the node serves.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    peer_id: String,
    addresses: Vec<String>,
    control_socket: String,
}

impl Run {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let home = global.own_home()?;
        if self.existing && !pimesh_node::home::held_a_node(&home)? {
            return Err(output::hinted(
                format!("no node was ever started in {}", home.display()),
                "is its disk mounted? Without `--existing` a new node begins",
            ));
        }
        pimesh_node::identity::prepare_home(&home)?;
        let mut config = pimesh_node::Config::load(&home)?;
        if let Some(name) = self.name.clone() {
            config.name = Some(name);
        }
        if !self.listen.is_empty() {
            let listen = self.listen.iter().map(|text| {
                Address::new(text.as_str()).with_context(|| format!("`{text}` is no multiaddr"))
            });
            config.network.listen = listen.collect::<anyhow::Result<_>>()?;
        }
        config.network.mdns &= !self.no_mdns;
        if let Some(socket) = global.socket.clone() {
            config.control.socket = Some(socket);
        } else if let Some(folder) = std::env::var_os("RUNTIME_DIRECTORY") {
            let socket = PathBuf::from(folder).join("control.sock");
            config.control.socket.get_or_insert(socket);
        }
        if let Some(group) = self.socket_group.clone() {
            config.control.socket_group = Some(group);
        }
        // Kept to the end: what it still has to write then is written.
        let log = self.start_log(&config)?;
        // From here on a hangup ends nothing, however early it comes.
        let hangup = signal(SignalKind::hangup());
        let mut builder = Node::builder(&home);
        if let Some(passphrase) = keys::passphrase_for(&home, &config)? {
            builder = builder.passphrase(passphrase);
        }
        let node = builder.config(config).start().await?;
        let control = node.control();
        // Whoever reads that it is ready may stop it at once.
        let stop = stop_signal();
        let said = say_ready(global, &node);
        let left_out = tokio::spawn(log.tell());
        let reload = tokio::spawn(reload_on_hangup(hangup, control));
        let watchdog = tokio::spawn(feed_watchdog());
        let mut unsaid = None;
        let until = async {
            tokio::select! {
                () = stop => {}
                error = said => unsaid = Some(error),
            }
        };
        node.run_until(until).await;
        drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
        left_out.abort();
        reload.abort();
        watchdog.abort();
        unsaid.map_or(Ok(()), Err)
    }

    fn start_log(&self, config: &pimesh_node::Config) -> anyhow::Result<log::Log> {
        let level = match self.verbose {
            0 if is_level(&config.log.level) => of_pimesh(&config.log.level),
            0 => config.log.level.clone(),
            1 => of_pimesh("debug"),
            _ => "debug,pimesh=trace,pimesh_node=trace".to_owned(),
        };
        let filter = EnvFilter::try_from_env("PIMESH_LOG")
            .or_else(|_| EnvFilter::try_new(&level))
            .unwrap_or_else(|_| EnvFilter::new("info"));
        let format = match self.log {
            Some(Format::Text) => LogFormat::Text,
            Some(Format::Json) => LogFormat::Json,
            None => config.log.format,
        };
        log::start(filter, format).context("start the log")
    }
}

fn is_level(text: &str) -> bool {
    text.parse::<tracing::Level>().is_ok()
}

/// Libraries speak of their own affairs; from them a person wants to hear what goes wrong.
fn of_pimesh(level: &str) -> String {
    format!("warn,pimesh={level},pimesh_node={level}")
}

/// Says that the node serves; returns what waits until that could not be said. Nobody waits for a
/// terminal that takes nothing.
fn say_ready(global: &Global, node: &Node) -> impl Future<Output = anyhow::Error> + use<> {
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let ready = Ready {
        ready: true,
        peer_id: node.peer_id().to_string(),
        addresses: node.listeners(),
        control_socket: node.socket().display().to_string(),
    };
    let json = global.json;
    let printed = tokio::task::spawn_blocking(move || print_ready(json, &ready));
    async move {
        match printed.await {
            // A closed pipe means that nothing reads the ready line. The node runs all the same.
            Ok(Err(error)) if !error.downcast_ref().is_some_and(Printed::is_closed_pipe) => error,
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }
}

fn print_ready(json: bool, ready: &Ready) -> anyhow::Result<()> {
    if json {
        return output::json(ready);
    }
    let addresses = ready.addresses.join(" ");
    output::own_line(format!("ready {} {addresses}", ready.peer_id))?;
    if output::is_terminal() {
        for line in [
            "",
            "leave it running, and go on in another terminal:",
            "  pimesh status    how it is",
            "  pimesh invite    a ticket for another machine",
            "  pimesh join …    enter another machine's mesh",
            "",
        ] {
            output::note(line);
        }
    }
    Ok(())
}

/// Waits for a signal to stop. A second one ends the process at once.
///
/// The signals are caught from the call on, and not only once somebody waits.
fn stop_signal() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(1);
        });
    }
}

async fn reload_on_hangup(hangup: std::io::Result<Signal>, control: Control) {
    let Ok(mut hangup) = hangup else { return };
    while hangup.recv().await.is_some() {
        match control.reload().await {
            Ok(()) => tracing::info!(
                "read `pimesh.toml` again; `network`, `control`, `identity`, `clock` and `log` \
                 take effect at the next start"
            ),
            Err(failure) => tracing::warn!("kept the old settings: {}", failure.message),
        }
    }
}

/// Tells systemd that the node lives, if systemd watches.
async fn feed_watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval((interval / 2).max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
    }
}
