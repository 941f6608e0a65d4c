//! `pimesh doctor`

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use pimesh_node::{
    control::client::ClientError,
    state::{
        CLOCK_SET_MS,
        report::{COPIED_HINT, PeerState},
    },
};
use serde::Serialize;

use super::Global;
use crate::output;

/// Check clock, permissions, ports, mDNS, disk, versions and reachability, and say what to do
///
/// Works without a running node; with one, it checks more.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Doctor {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            todo: None,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            found: found.into(),
            todo: Some(todo.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Fail,
            found: found.into(),
            todo: Some(todo.into()),
        }
    }
}

/// Free space below which a disk counts as nearly full, in bytes.
const DISK_FREE_MIN: u64 = 64 << 20;

impl Doctor {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let home = global.home()?;
        let mut checks = vec![clock(), configuration(&home), mdns()];
        checks.extend(permissions(&home));
        checks.push(disk(&home));
        checks.extend(node(global, &home).await?);
        for check in &checks {
            if global.json {
                output::json(check)?;
                continue;
            }
            let verdict = format!("{:?}", check.verdict).to_lowercase();
            output::line(format!(
                "{verdict:<4}  {:<12}  {}",
                check.check, check.found
            ))?;
            if let Some(todo) = &check.todo {
                output::line(format!("      {:<12}  → {todo}", ""))?;
            }
        }
        let failed = checks
            .iter()
            .filter(|check| check.verdict == Verdict::Fail)
            .count();
        anyhow::ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
        Ok(())
    }
}

fn clock() -> Check {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let shown = output::local_time(ms);
    if ms < CLOCK_SET_MS {
        return Check::fail(
            "clock",
            shown,
            "set the clock, for example with `timedatectl set-ntp true`",
        );
    }
    Check::ok("clock", shown)
}

fn configuration(home: &Path) -> Check {
    match pimesh_node::Config::load(home) {
        Ok(_) if home.join("pimesh.toml").exists() => Check::ok("config", "pimesh.toml is good"),
        Ok(_) => Check::ok("config", "no pimesh.toml: the defaults are in force"),
        Err(error) => Check::fail(
            "config",
            format!("{error:#}"),
            "mend it, or start from `pimesh config example`",
        ),
    }
}

/// mDNS needs to share UDP port 5353 (RFC 6762, section 15.1).
fn mdns() -> Check {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let joined = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED));
    match joined {
        Ok(()) => Check::ok("mdns", "multicast works"),
        Err(error) => Check::warn(
            "mdns",
            format!("no multicast: {error}"),
            "nodes will not find each other on the LAN; name them in `network.peers`",
        ),
    }
}

fn permissions(home: &Path) -> Vec<Check> {
    let Ok(entries) = fs::read_dir(home) else {
        let todo = "nothing: `pimesh run` makes it";
        return vec![Check::ok(
            "home",
            format!("{} is not there yet ({todo})", home.display()),
        )];
    };
    let mode = |path: &Path| fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
    let mut checks = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "key")
            && let Ok(mode) = mode(&path)
            && mode & 0o077 != 0
        {
            let found = format!("{} has permissions {mode:o}", path.display());
            checks.push(Check::fail(
                "keys",
                found,
                format!("chmod 600 {}", path.display()),
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("keys", "readable by their owner only"));
    }
    checks
}

fn disk(home: &Path) -> Check {
    // `df` is on every system that a node runs on; POSIX fixes its output with -P.
    let folder = if home.exists() { home } else { Path::new("/") };
    let output = std::process::Command::new("df")
        .args(["-Pk"])
        .arg(folder)
        .output();
    let free = output.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines()
            .nth(1)?
            .split_whitespace()
            .nth(3)?
            .parse::<u64>()
            .ok()
    });
    match free.map(|kib| kib * 1024) {
        None => Check::warn("disk", "free space is not known", "look with `df`"),
        Some(free) if free < DISK_FREE_MIN => Check::fail(
            "disk",
            format!("{} MiB free", free >> 20),
            "make room: messages are accepted only if they can be written",
        ),
        Some(free) => Check::ok("disk", format!("{} MiB free", free >> 20)),
    }
}

async fn node(global: &Global, home: &Path) -> anyhow::Result<Vec<Check>> {
    let client = global.client()?;
    let status = match tokio::time::timeout(Duration::from_secs(5), client.status()).await {
        Ok(Ok(status)) => status,
        Ok(Err(ClientError::NoSocket(_) | ClientError::Dead(_))) => {
            let mut checks = vec![Check::warn(
                "node",
                "not running",
                "start it with `pimesh run`",
            )];
            checks.extend(ports(home));
            return Ok(checks);
        }
        Ok(Err(error)) => {
            let todo = "restart it with the same version as this command";
            return Ok(vec![Check::fail("node", format!("{error:#}"), todo)]);
        }
        Err(_) => {
            let todo = "look at its log; restart it";
            return Ok(vec![Check::fail(
                "node",
                "does not answer within 5 s",
                todo,
            )]);
        }
    };
    let own = env!("CARGO_PKG_VERSION");
    let mut checks = vec![Check::ok(
        "node",
        format!("{} is running", status.node.name),
    )];
    checks.push(if status.version == own {
        Check::ok("version", own)
    } else {
        let found = format!("the node runs {}, this is {own}", status.version);
        Check::warn("version", found, "restart the node")
    });
    if status.node.revoked {
        checks.push(Check::fail(
            "membership",
            "this node was removed from its mesh",
            "`pimesh join TICKET` with a new ticket",
        ));
        // The others do not speak with it any more: whether they run is not the question.
        return Ok(checks);
    }
    checks.push(if status.listeners.is_empty() {
        Check::fail("listening", "nowhere", "look at `network.listen`")
    } else {
        Check::ok("listening", status.listeners.join(" "))
    });
    for peer in client.peers().await? {
        if peer.copied {
            let found = format!("two machines run with the identity of {}", peer.name);
            checks.push(Check::fail("copies", found, COPIED_HINT));
        }
        checks.push(match peer.state {
            PeerState::Own => continue,
            PeerState::Up => Check::ok("peer", format!("{} is up", peer.name)),
            PeerState::Connecting | PeerState::Down => {
                let why = peer
                    .last_error
                    .unwrap_or_else(|| "not tried yet".to_owned());
                Check::warn(
                    "peer",
                    format!("{} is down: {why}", peer.name),
                    "is it running, and in the same network?",
                )
            }
        });
    }
    Ok(checks)
}

/// Tries the ports that a node would listen on.
fn ports(home: &Path) -> Vec<Check> {
    let Ok(config) = pimesh_node::Config::load(home) else {
        return Vec::new();
    };
    let mut checks = Vec::new();
    for address in &config.network.listen {
        let parts: Vec<&str> = address.as_str().split('/').collect();
        let (Some(ip), Some(port)) = (parts.get(2), parts.get(4)) else {
            continue;
        };
        let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else {
            continue;
        };
        let socket = SocketAddr::new(ip, port);
        let bound = if parts.get(3) == Some(&"udp") {
            UdpSocket::bind(socket).map(drop)
        } else {
            TcpListener::bind(socket).map(drop)
        };
        checks.push(match bound {
            Ok(()) => Check::ok("port", format!("{address} is free")),
            Err(error) => Check::warn(
                "port",
                format!("{address}: {error}"),
                "another program has it, or the address family is off; see `network.listen`",
            ),
        });
    }
    checks
}
