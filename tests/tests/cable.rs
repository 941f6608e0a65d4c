//! Cables, addresses and switches: what happens to a LAN, with real nodes in network namespaces.

use std::collections::BTreeMap;

use anyhow::ensure;
use futures::{FutureExt, StreamExt};
use pimesh_node::{
    control::api::NewInvite,
    proto::mesh::ticket::Ticket,
    state::{io::Transport, report::Integer},
};
use pimesh_tests::{
    PATIENCE, Pi, World, eventually,
    lan::{Lan, Machine},
};

const TCP: [&str; 3] = ["--no-mdns", "--listen", "/ip4/0.0.0.0/tcp/3615"];
const QUIC: [&str; 3] = ["--no-mdns", "--listen", "/ip4/0.0.0.0/udp/3615/quic-v1"];
const IPV6: [&str; 5] = [
    "--no-mdns",
    "--listen",
    "/ip6/::/udp/3615/quic-v1",
    "--listen",
    "/ip6/::/tcp/3615",
];

/// Starts a node on each machine, and makes a mesh of them.
async fn mesh(world: &World, machines: &[Machine<'_>], args: &[&str]) -> anyhow::Result<Vec<Pi>> {
    let mut pis = Vec::new();
    for machine in machines {
        let name = format!("pi-{}", machine.number);
        pis.push(machine.start(world, &name, args).await?);
    }
    for pi in &pis[1..] {
        pi.join(&pis[0]).await?;
    }
    for pi in &pis {
        pi.wait_for_peers(pis.len() - 1).await?;
    }
    Ok(pis)
}

async fn machines(lan: &Lan, count: usize) -> anyhow::Result<Vec<Machine<'_>>> {
    let mut machines = Vec::new();
    for _ in 0..count {
        machines.push(lan.add().await?);
    }
    Ok(machines)
}

/// Sends messages `from..to`, each once it is accepted.
async fn send(pi: &Pi, to: &str, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
    for number in numbers {
        pi.send(to, &format!("{} {number}", pi.name)).await?;
    }
    Ok(())
}

/// Waits for so many messages of each sender, and checks that each came once and in order.
async fn check(pi: &Pi, senders: &[&str], count: u32) -> anyhow::Result<()> {
    let all = pi
        .wait_for_inbox(senders.len() * usize::try_from(count)?)
        .await?;
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in &all {
        let sender = text.split(' ').next().unwrap_or_default();
        of.entry(sender).or_default().push(text);
    }
    for sender in senders {
        let expected: Vec<String> = (0..count).map(|n| format!("{sender} {n}")).collect();
        assert_eq!(of.remove(sender).unwrap_or_default(), expected);
    }
    assert!(of.is_empty(), "{of:?}");
    Ok(())
}

async fn transports(pi: &Pi) -> anyhow::Result<Vec<Transport>> {
    let peers = pi.client.peers().await?;
    Ok(peers
        .into_iter()
        .filter_map(|peer| peer.transport)
        .collect())
}

/// A cable is pulled while messages go over it both ways; the link seems to be there.
async fn cable_pull(args: &[&str], transport: Transport) -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 2).await?;
    let pis = mesh(&world, &machines, args).await?;
    let [a, b] = &pis[..] else {
        unreachable!("two machines")
    };
    assert_eq!(transports(a).await?, [transport]);

    send(a, "pi-2", 0..20).await?;
    let pull = async {
        machines[1].deafen().await?;
        send(b, "pi-1", 0..20).await
    };
    let (sent, pulled) = tokio::join!(send(a, "pi-2", 20..200), pull);
    sent.and(pulled)?;
    a.wait_for_peers(0).await?;
    b.wait_for_peers(0).await?;
    // While an attempt is under way, there is no next one yet; when it has failed, it says why and
    // the next one has a time.
    eventually(
        "a failed attempt and the time of the next one",
        async || {
            let down = a.client.peers().await?.swap_remove(1);
            let is_told = down.next_dial_ms.is_some() && down.last_error.is_some();
            ensure!(is_told && down.attempts > 0, "{down:?}");
            Ok(())
        },
    )
    .await?;
    send(b, "pi-1", 20..40).await?;
    machines[1].switch(0).await?;

    check(b, &["pi-1"], 200).await?;
    check(a, &["pi-2"], 40).await
}

#[tokio::test]
async fn no_message_is_lost_or_doubled_by_a_cable_pull_over_tcp() -> anyhow::Result<()> {
    cable_pull(&TCP, Transport::Tcp).await
}

#[tokio::test]
async fn no_message_is_lost_or_doubled_by_a_cable_pull_over_quic() -> anyhow::Result<()> {
    cable_pull(&QUIC, Transport::Quic).await
}

#[tokio::test]
async fn nodes_on_ipv6_alone_form_a_mesh() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 2).await?;
    for machine in &machines {
        machine.ipv6_only().await?;
    }

    let pis = mesh(&world, &machines, &IPV6).await?;

    send(&pis[0], "pi-2", 0..3).await?;
    check(&pis[1], &["pi-1"], 3).await?;
    let addresses = pis[1].client.peers().await?.remove(0).addresses;
    assert!(
        addresses
            .iter()
            .all(|a| a.as_str().starts_with("/ip6/fd09::")),
        "{addresses:?}"
    );
    Ok(())
}

/// Two machines on one cable: nobody tells them of a nameserver.
#[tokio::test]
async fn nodes_without_a_nameserver_start_and_form_a_mesh() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let (one, two) = (lan.add().await?, lan.add().await?);
    let a = one.start_without_nameserver(&world, "pi-1", &[]).await?;
    let b = two.start_without_nameserver(&world, "pi-2", &[]).await?;

    b.join(&a).await?;
    a.wait_for_peers(1).await?;

    send(&a, "pi-2", 0..3).await?;
    check(&b, &["pi-1"], 3).await
}

/// The addresses of the bridges come first in any order of texts, and lead to the node itself.
#[tokio::test]
async fn machines_with_eight_container_bridges_form_a_mesh_and_find_each_other_again()
-> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 2).await?;
    for machine in &machines {
        machine.add_bridges(8).await?;
    }

    let pis = mesh(&world, &machines, &[]).await?;
    let [a, b] = &pis[..] else {
        unreachable!("two machines")
    };
    let invite = a.client.invite(&NewInvite::default()).await?;
    let ticket = Ticket::from_text(&invite.ticket)?;
    for machine in &machines {
        machine.pull().await?;
    }
    a.wait_for_peers(0).await?;
    send(a, "pi-2", 0..3).await?;
    for machine in &machines {
        machine.address(machine.number + 60).await?;
        machine.plug().await?;
    }

    check(b, &["pi-1"], 3).await?;
    let first = ticket.addresses[0].as_str();
    assert!(first.contains("/10.9.0.1/"), "{:?}", ticket.addresses);
    assert_eq!(invite.warning, None);
    Ok(())
}

/// Without mDNS a node with a new address finds the others by theirs, and tells them.
#[tokio::test]
async fn a_node_whose_address_changes_comes_back_by_itself() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 3).await?;
    let pis = mesh(&world, &machines, &["--no-mdns"]).await?;
    let [a, b, c] = &pis[..] else {
        unreachable!("three machines")
    };

    machines[2].address(77).await?;
    send(a, "pi-3", 0..5).await?;
    send(b, "pi-3", 0..5).await?;
    check(c, &["pi-1", "pi-2"], 5).await?;

    for pi in [a, b] {
        pi.wait_until("told of the new address", || async {
            let peers = pi.client.peers().await?;
            let peer = peers.into_iter().find(|peer| peer.name == "pi-3");
            let new = |a: &pimesh_node::proto::mesh::Address| a.as_str().contains("/10.9.0.77/");
            Ok(peer
                .is_some_and(|peer| peer.addresses.iter().any(new))
                .then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Both at once have new addresses, so neither knows where the other is: mDNS finds it.
#[tokio::test]
async fn nodes_that_all_move_find_each_other_by_mdns() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 2).await?;
    let pis = mesh(&world, &machines, &[]).await?;
    let [a, b] = &pis[..] else {
        unreachable!("two machines")
    };

    for machine in &machines {
        machine.pull().await?;
    }
    a.wait_for_peers(0).await?;
    send(a, "pi-2", 0..5).await?;
    for machine in &machines {
        machine.address(machine.number + 60).await?;
        machine.plug().await?;
    }

    check(b, &["pi-1"], 5).await
}

#[tokio::test]
async fn a_cable_pull_a_new_address_and_a_restart_at_once_lose_nothing() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 2).await?;
    let mut pis = mesh(&world, &machines, &[]).await?;
    send(&pis[0], "pi-2", 0..5).await?;

    machines[1].pull().await?;
    send(&pis[0], "pi-2", 5..10).await?;
    send(&pis[1], "pi-1", 0..5).await?;
    let b = pis.remove(1).restart().await?;
    machines[1].address(88).await?;
    machines[1].plug().await?;
    send(&pis[0], "pi-2", 10..15).await?;

    check(&b, &["pi-1"], 15).await?;
    check(&pis[0], &["pi-2"], 5).await
}

#[tokio::test]
async fn a_mesh_of_five_that_is_cut_in_two_and_three_heals() -> anyhow::Result<()> {
    let (world, lan) = (World::new()?, Lan::new().await?);
    let machines = machines(&lan, 5).await?;
    let pis = mesh(&world, &machines, &[]).await?;
    let names: Vec<&str> = pis.iter().map(|pi| pi.name.as_str()).collect();

    for machine in &machines[3..] {
        machine.switch(1).await?;
    }
    for pi in &pis[..3] {
        pi.wait_for_peers(2).await?;
    }
    for pi in &pis[3..] {
        pi.wait_for_peers(1).await?;
    }
    // Each half goes on by itself, and messages to the other half wait.
    let heard = listen(&pis[4], 3).await?;
    pis[3].publish([1, 2, 3]).await?;
    assert_eq!(heard.await??, [1, 2, 3]);
    for pi in &pis {
        for name in names.iter().filter(|name| **name != pi.name) {
            send(pi, name, 0..3).await?;
        }
    }
    // A new member enters one half; the other learns of it later.
    let late = lan.add().await?;
    let late = late.start(&world, "pi-6", &[]).await?;
    let invite = pis[0].client.invite(&NewInvite::default()).await?;
    late.client.join(invite.ticket).await?;

    for machine in &machines[3..] {
        machine.switch(0).await?;
    }
    for pi in pis.iter().chain([&late]) {
        pi.wait_for_peers(5).await?;
    }
    for pi in &pis {
        let others: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| *name != pi.name)
            .collect();
        check(pi, &others, 3).await?;
    }
    let heard = listen(&pis[0], 2).await?;
    pis[4].publish([7, 7]).await?;
    assert_eq!(heard.await??, [7, 7]);
    Ok(())
}

/// Listens for so many live integers; once this returns, none is missed.
async fn listen(
    pi: &Pi,
    count: usize,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<Vec<i32>>>> {
    let lines = pi.client.integer_lines().await?;
    let values = async move {
        let lines = lines.filter_map(|line| async {
            let integer: Option<Integer> = line.ok().and_then(|l| serde_json::from_str(&l).ok());
            integer.filter(|i| !i.last_known).map(|i| i.value.0)
        });
        let values = lines.take(count).collect();
        Ok(tokio::time::timeout(PATIENCE, values).await?)
    };
    Ok(tokio::spawn(values.boxed()))
}
