//! The list of members, once or kept up to date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pimesh_node::{
    control::client::Client,
    proto::mesh::vouched::Vouched,
    state::report::{COPIED_HINT, Peer, PeerState},
};

use crate::{
    commands::{
        Global,
        follow::{Retry, follow},
    },
    output,
};

/// Events that change the list.
const CHANGES: [&str; 8] = [
    "peer_up",
    "peer_down",
    "member_added",
    "member_removed",
    "copied",
    "copy_gone",
    "member_renamed",
    "member_left",
];

/// How often a list on a terminal is drawn anew: ages and round trips change without an event.
const REDRAW: Duration = Duration::from_secs(2);

/// Prints the list whenever it changes; on a terminal in its place.
pub(super) async fn follow_list(global: &Global, client: &Client) -> anyhow::Result<()> {
    let is_drawn = !global.json && output::is_terminal();
    let mut changes = follow(async || client.events_of(&CHANGES).await).await?;
    let mut retry = Retry::default();
    let mut lines = 0;
    loop {
        if let Some(peers) = retry.answer(client.peers().await)? {
            if is_drawn {
                output::rewind(lines)?;
            }
            lines = show(global, &peers)?;
        }
        tokio::select! {
            change = retry.next(&mut changes) => {
                if change?.is_some_and(|change| change.is_again()) {
                    // What was said about the node stands below the list.
                    lines = 0;
                }
            }
            () = tokio::time::sleep(REDRAW), if is_drawn => {}
        }
    }
}

/// Says which members there are twice, and what to do about it.
pub(super) fn warn_of_copies(peers: &[Peer]) {
    for peer in peers.iter().filter(|peer| peer.copied) {
        output::note(format!(
            "warning: two machines run with the identity of {}; {COPIED_HINT}",
            peer.name
        ));
    }
}

/// Prints the list; returns how many lines it took.
pub(super) fn show(global: &Global, peers: &[Peer]) -> anyhow::Result<usize> {
    if global.json {
        peers.iter().try_for_each(output::json)?;
        return Ok(0);
    }
    let mut header = vec![
        "NAME", "INDEX", "KEY", "STATE", "SEEN", "RTT", "CLOCK", "OUTBOX", "WHERE",
    ];
    let now = now_ms();
    let mut rows: Vec<Vec<String>> = peers.iter().map(|peer| row(peer, now)).collect();
    // Most meshes let every gateway speak for every index.
    if peers.iter().any(|peer| peer.vouched != Vouched::ALL) {
        let before_place = header.len() - 1;
        header.insert(before_place, "SPEAKS FOR");
        for (row, peer) in rows.iter_mut().zip(peers) {
            row.insert(before_place, peer.vouched.to_string());
        }
    }
    output::table(&header, &rows)
}

fn row(peer: &Peer, now_ms: u64) -> Vec<String> {
    let dash = || "-".to_owned();
    let is_own = peer.state == PeerState::Own;
    vec![
        peer.name.clone(),
        output::indices(peer.index, &peer.further),
        // Whether it holds the mesh key.
        if peer.holds_mesh_key { "mesh" } else { "-" }.to_owned(),
        match peer.state {
            PeerState::Own => "self",
            PeerState::Up => "up",
            PeerState::Connecting => "dialling",
            PeerState::Down => "down",
        }
        .to_owned()
            + if peer.copied { ", TWICE" } else { "" },
        match (peer.state, peer.since_ms) {
            (PeerState::Own, _) => dash(),
            (PeerState::Up, _) => "now".to_owned(),
            (PeerState::Connecting | PeerState::Down, None) => dash(),
            (PeerState::Connecting | PeerState::Down, Some(since)) => {
                let ago = Duration::from_millis(now_ms.saturating_sub(since));
                format!("{} ago", output::age(ago))
            }
        },
        peer.round_trip_us.map_or_else(dash, |us| {
            output::millis(i64::try_from(us).unwrap_or(i64::MAX))
        }),
        peer.clock_offset_us.map_or_else(dash, output::clock_offset),
        if is_own {
            dash()
        } else {
            peer.outbox_count.to_string()
        },
        place(peer),
    ]
}

/// Says where a member is connected, or what becomes of it.
fn place(peer: &Peer) -> String {
    match (&peer.address, peer.next_dial_ms) {
        (Some(address), _) => short(address.as_str()),
        (None, Some(ms)) => {
            // Why each address failed is in `--json`; here the first one has to do.
            let why = peer.last_error.as_deref().unwrap_or("not tried yet");
            let why = why.split("; ").next().unwrap_or(why);
            let wait = output::age(Duration::from_millis(ms));
            format!("dial in {wait}: {why}")
        }
        (None, None) if peer.state == PeerState::Down => "no address is known".to_owned(),
        (None, None) => "-".to_owned(),
    }
}

/// Shortens `/ip4/192.168.1.7/udp/4630/quic-v1` to `192.168.1.7:4630 quic`; any other address stays.
fn short(address: &str) -> String {
    let mut parts = address.trim_start_matches('/').split('/');
    let (Some(kind), Some(host), Some(transport), Some(port)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return address.to_owned();
    };
    let transport = match (transport, parts.next()) {
        ("udp", Some("quic-v1")) => "quic",
        ("tcp", _) => "tcp",
        _ => return address.to_owned(),
    };
    match kind {
        "ip4" | "dns" | "dns4" | "dns6" => format!("{host}:{port} {transport}"),
        "ip6" => format!("[{host}]:{port} {transport}"),
        _ => address.to_owned(),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_short_if_it_is_of_a_known_kind() {
        for (address, shown) in [
            ("/ip4/192.168.1.7/udp/4630/quic-v1", "192.168.1.7:4630 quic"),
            ("/ip4/127.0.0.1/tcp/4630/p2p/12D3", "127.0.0.1:4630 tcp"),
            ("/ip6/fe80::1/tcp/4630", "[fe80::1]:4630 tcp"),
            ("/dns/pi-1.local/tcp/4630", "pi-1.local:4630 tcp"),
            ("/memory/7", "/memory/7"),
            ("/ip4/1.2.3.4/udp/9", "/ip4/1.2.3.4/udp/9"),
        ] {
            assert_eq!(short(address), shown);
        }
    }
}
