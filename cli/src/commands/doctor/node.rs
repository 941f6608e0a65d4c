//! What the running node says of itself: version, members, clocks, gateways and servers.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pimesh_node::{
    Config,
    control::{
        api::Status,
        client::{Client, ClientError},
    },
    gateway::{GatewayReport, ServerStatus},
    state::{
        CLOCK_SET_MS,
        report::{COPIED_HINT, Peer, PeerState, Who},
    },
};

use super::{Check, network};
use crate::{commands::Global, output};

/// How many names and keys that are not clear are listed; a hostile member can make thousands.
const UNCLEAR_SHOWN: usize = 10;

/// How long the node may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How far a member's clock may be off: dates of integers lose their worth beyond it.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(5);

pub(super) async fn checks(global: &Global, config: &Config) -> anyhow::Result<Vec<Check>> {
    let client = global.client()?;
    let asked = tokio::time::timeout(ANSWER_TIME, client.status()).await;
    let silent = || {
        Check::fail(
            "node",
            "does not answer within 5 s",
            "look at its log; restart it",
        )
    };
    let status = match asked {
        Ok(Ok(status)) => status,
        Ok(Err(ClientError::NoSocket(_) | ClientError::Dead(_))) => {
            let todo = "start it with `pimesh run`";
            let mut checks = vec![system_clock(), Check::warn("node", "not running", todo)];
            checks.extend(network::ports(config));
            return Ok(checks);
        }
        Ok(Err(error)) => {
            let todo = error
                .hint()
                .unwrap_or_else(|| "restart it with the same version as this command".to_owned());
            let found = format!("{:#}", anyhow::Error::from(error));
            return Ok(vec![system_clock(), Check::fail("node", found, todo)]);
        }
        Err(_) => return Ok(vec![system_clock(), silent()]),
    };
    let mut checks = vec![
        Check::ok("node", format!("{} is running", status.node.name)),
        version(&status),
    ];
    if status.node.revoked {
        checks.push(Check::fail(
            "membership",
            "this node was removed from its mesh",
            "`pimesh join TICKET` with a new ticket",
        ));
        // The others do not speak with it any more: whether they run is not the question.
        return Ok(checks);
    }
    checks.push(mesh_key(&status));
    checks.push(listening(&status));
    let Ok(more) = tokio::time::timeout(ANSWER_TIME, more(&client, &status)).await else {
        checks.push(silent());
        return Ok(checks);
    };
    match more {
        Ok(more) => checks.extend(more),
        Err(error) => checks.push(Check::fail(
            "node",
            format!("it does not answer as this command expects: {error:#}"),
            "restart it, so that it has the version of this command",
        )),
    }
    Ok(checks)
}

fn mesh_key(status: &Status) -> Check {
    match &status.node.mesh_key_warning {
        Some(warning) => Check::warn("mesh key", warning.problem.clone(), warning.todo.clone()),
        None => Check::ok("mesh key", status.node.mesh_key_holders.join(" ")),
    }
}

async fn more(client: &Client, status: &Status) -> anyhow::Result<Vec<Check>> {
    let peers = client.peers().await?;
    let mut checks = vec![clock(status, &peers)];
    checks.extend(peers.iter().filter(|peer| peer.copied).map(copies));
    checks.extend(peers.iter().filter_map(peer));
    checks.extend(status.gateways.iter().filter_map(gateway));
    checks.extend(servers(client).await?);
    let who = client.who().await?;
    checks.extend(servers_like_nodes(&who));
    let mut unclear = who.iter().filter_map(name_or_key);
    checks.extend(unclear.by_ref().take(UNCLEAR_SHOWN));
    let more = unclear.count();
    if more > 0 {
        let found = format!("{more} more whose name or key is not clear");
        checks.push(Check::warn("names", found, "`pimesh who` lists them all"));
    }
    Ok(checks)
}

fn version(status: &Status) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return Check::ok("version", own);
    }
    let found = format!("the node runs {}, this is {own}", status.version);
    Check::warn("version", found, "restart the node")
}

fn listening(status: &Status) -> Check {
    if status.listeners.is_empty() {
        return Check::fail("listening", "nowhere", "look at `network.listen`");
    }
    Check::ok("listening", status.listeners.join(" "))
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

const SET_CLOCK: &str = "set the clock, for example with `timedatectl set-ntp true`";

fn system_clock() -> Check {
    let now_ms = unix_ms();
    let shown = output::local_time(now_ms);
    if now_ms < CLOCK_SET_MS {
        return Check::fail("clock", shown, SET_CLOCK);
    }
    Check::ok("clock", shown)
}

/// Is the clock right, as far as the members and NTP can tell?
fn clock(status: &Status, peers: &[Peer]) -> Check {
    let system = system_clock();
    if system.todo.is_some() {
        return system;
    }
    if status.node.clock_doubted {
        let found = format!("{}, which is ahead of what can be", system.found);
        let todo = format!(
            "is it right? If not, {SET_CLOCK}; nothing is deleted by its date until an NTP server \
             or the members agree, or a day has passed"
        );
        return Check::fail("clock", found, todo);
    }
    let offsets: Vec<(&str, i64)> = peers
        .iter()
        .filter_map(|peer| Some((peer.name.as_str(), peer.clock_offset_us?)))
        .collect();
    let is_off = |us: i64| us.unsigned_abs() > CLOCK_OFF_MAX.as_micros() as u64;
    let off: Vec<_> = offsets.iter().filter(|(_, us)| is_off(*us)).collect();
    if let Some((name, us)) = off.first() {
        let apart = output::span(Duration::from_micros(us.unsigned_abs()));
        let way = if *us > 0 { "ahead of" } else { "behind" };
        let whose = if off.len() * 2 > offsets.len() {
            "most members' clocks differ from this one's: set this one"
        } else {
            "set the clock of that member"
        };
        let found = format!("the clock of {name} is {apart} {way} this one");
        return Check::warn(
            "clock",
            found,
            format!("{whose} (`timedatectl set-ntp true`)"),
        );
    }
    if let Some(error) = &status.clock.error {
        let found = format!("no NTP server answers: {error}");
        return Check::warn("clock", found, "look at `clock.ntp`, and at the network");
    }
    let beside = match offsets.len() {
        0 => String::new(),
        1 => ", as the clock of 1 member says".to_owned(),
        count => format!(", as the clocks of {count} members say"),
    };
    Check::ok("clock", format!("{}{beside}", system.found))
}

fn copies(peer: &Peer) -> Check {
    let found = format!("two machines run with the identity of {}", peer.name);
    Check::fail("copies", found, COPIED_HINT)
}

fn peer(peer: &Peer) -> Option<Check> {
    match peer.state {
        PeerState::Own => None,
        PeerState::Up => Some(Check::ok("peer", format!("{} is up", peer.name))),
        PeerState::Connecting | PeerState::Down => {
            let why = peer.last_error.as_deref().unwrap_or("not tried yet");
            Some(Check::warn(
                "peer",
                format!("{} is down: {why}", peer.name),
                "is it running, and in the same network?",
            ))
        }
    }
}

/// Tells of foreign servers that have the name of a node: `user@name` is a user of the server.
fn servers_like_nodes(who: &[Who]) -> Vec<Check> {
    let is_node = |name: &str| who.iter().any(|w| w.gateway.is_none() && w.node == name);
    let servers: BTreeSet<&String> = who.iter().filter_map(|w| w.server.as_ref()).collect();
    let unclear = servers.into_iter().filter(|server| is_node(server));
    unclear
        .map(|server| {
            let found =
                format!("`{server}` is a node and also a server that this node is a client of");
            let todo = "`pimesh gateway syft disconnect` it, then connect under another name: \
                        `pimesh gateway syft connect --name`";
            Check::fail("names", found, todo)
        })
        .collect()
}

/// Tells of somebody whose name means somebody else, or whose key changed.
fn name_or_key(who: &Who) -> Option<Check> {
    let found = format!("{}: {}", who.name, super::super::who::note(who)?);
    let todo = if who.offered_key.is_some() {
        "ask whether the key is new; if so, accept it, otherwise somebody pretends to be them"
    } else if who.gateway.is_none() {
        "write the name in full as it stands here, or give the node another one: `pimesh rename`"
    } else {
        "write the name in full as it stands here; for users, `pimesh trust --name` says for good \
         whom the short one means"
    };
    Some(Check::warn("names", found, todo))
}

fn gateway(gateway: &GatewayReport) -> Option<Check> {
    let name = gateway.gateway.name();
    if let Some(error) = &gateway.error {
        return Some(Check::fail(
            "gateway",
            format!("{name} could not be opened: {error}"),
            "is its port free, and are its files there? See `[gateway]` in `pimesh.toml`, then \
             `pimesh gateway enable` again",
        ));
    }
    gateway.open.then(|| {
        let addresses: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
        Check::ok("gateway", format!("{name} at {}", addresses.join(" ")))
    })
}

/// Are the foreign servers reached that this node is a client of?
async fn servers(client: &Client) -> anyhow::Result<Vec<Check>> {
    let check = |server: ServerStatus| {
        let ServerStatus {
            url, state, hint, ..
        } = server;
        let found = format!("{url}: {state}");
        match hint {
            None => Check::ok("server", found),
            Some(hint) => Check::warn("server", found, hint),
        }
    };
    Ok(client.servers().await?.into_iter().map(check).collect())
}
