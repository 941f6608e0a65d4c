//! A LAN of network namespaces: one for each machine, a bridge for the switch, virtual cables.
//!
//! Everything lives in a user namespace of its own, so no test needs to be root, and ends with the
//! process that holds it.

use std::{
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{Pi, World};

/// The switches of a LAN; with all cables in one of them the other is idle.
const SWITCHES: [&str; 2] = ["switch0", "switch1"];

const NEEDED: &str = "this test makes network namespaces: install `iproute2` and `util-linux`, and \
                      allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                      kernel.apparmor_restrict_unprivileged_userns=0)";

/// A LAN. Machines are numbered from 1; number N has the addresses 10.9.0.N and fd09::N.
#[derive(Debug)]
pub struct Lan {
    holder: Child,
    machines: AtomicUsize,
}

impl Lan {
    /// Makes a LAN without machines.
    ///
    /// # Errors
    /// Fails where no network namespaces can be made.
    pub async fn new() -> anyhow::Result<Self> {
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/netns && \
             for s in {}; do ip link add $s type bridge forward_delay 0 && ip link set $s up || \
             exit 1; done; echo ready; exec cat",
            SWITCHES.join(" ")
        );
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c"])
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context(NEEDED)?;
        let stdout = holder.stdout.take().context("stdout is piped")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        ensure!(line.as_deref() == Some("ready"), NEEDED);
        Ok(Self {
            holder,
            machines: AtomicUsize::new(0),
        })
    }

    /// Adds a machine, with its cable in the first switch.
    ///
    /// # Errors
    /// Fails if the system does not make it.
    pub async fn add(&self) -> anyhow::Result<Machine<'_>> {
        let number = self.machines.fetch_add(1, Ordering::Relaxed) + 1;
        let machine = Machine { lan: self, number };
        let (n, switch) = (number, SWITCHES[0]);
        self.run(&format!(
            "ip netns add pi{n} && ip link add port{n} type veth peer name eth0 netns pi{n} && \
             ip link set port{n} master {switch} up && ip -n pi{n} link set lo up && \
             ip -n pi{n} link set eth0 up"
        ))
        .await?;
        machine.address(number).await?;
        Ok(machine)
    }

    fn enter(&self) -> anyhow::Result<Vec<String>> {
        let pid = self.holder.id().context("the holder has ended")?;
        let words = ["nsenter", "--preserve-credentials", "-U", "-m", "-n", "-t"];
        let mut words = words.map(str::to_owned).to_vec();
        words.extend([pid.to_string(), "--".to_owned()]);
        Ok(words)
    }

    async fn run(&self, script: &str) -> anyhow::Result<()> {
        let enter = self.enter()?;
        let status = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-c", script])
            .status()
            .await
            .context(NEEDED)?;
        ensure!(status.success(), "`{script}` failed");
        Ok(())
    }
}

/// One machine on a LAN.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    lan: &'a Lan,
    /// Its number.
    pub number: usize,
}

impl Machine<'_> {
    /// Starts a node on it, as `pimesh run` does without a configuration.
    ///
    /// # Errors
    /// Fails if the node does not get ready.
    pub async fn start(&self, world: &World, name: &str, args: &[&str]) -> anyhow::Result<Pi> {
        let launcher = self.launcher()?;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Pi::launch(world.home(name), name, launcher, args).await
    }

    /// Starts a node on it while the system names no nameserver.
    ///
    /// # Errors
    /// Fails if the node does not get ready.
    pub async fn start_without_nameserver(
        &self,
        world: &World,
        name: &str,
        args: &[&str],
    ) -> anyhow::Result<Pi> {
        let hide = "[ ! -e /etc/resolv.conf ] || mount --bind /dev/null /etc/resolv.conf || exit 1; \
                    exec \"$0\" \"$@\"";
        let mut launcher = self.launcher()?;
        let words = ["unshare", "--mount", "sh", "-c", hide];
        launcher.extend(words.map(str::to_owned));
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Pi::launch(world.home(name), name, launcher, args).await
    }

    /// Returns the words before a command that run it on this machine.
    ///
    /// # Errors
    /// Fails if the LAN is gone.
    pub fn launcher(&self) -> anyhow::Result<Vec<String>> {
        let mut launcher = self.lan.enter()?;
        let net = format!("--net=/run/netns/pi{}", self.number);
        launcher.extend(["nsenter".to_owned(), net, "--".to_owned()]);
        Ok(launcher)
    }

    /// Pulls its cable out.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn pull(&self) -> anyhow::Result<()> {
        let script = format!("ip link set port{} down", self.number);
        self.lan.run(&script).await
    }

    /// Puts its cable back.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn plug(&self) -> anyhow::Result<()> {
        let script = format!("ip link set port{} up", self.number);
        self.lan.run(&script).await
    }

    /// Loses every packet of its cable from here on, while the link seems to be there.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn deafen(&self) -> anyhow::Result<()> {
        let script = format!("ip link set port{} nomaster", self.number);
        self.lan.run(&script).await
    }

    /// Puts its cable into another switch.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn switch(&self, switch: usize) -> anyhow::Result<()> {
        let script = format!(
            "ip link set port{} master {}",
            self.number, SWITCHES[switch]
        );
        self.lan.run(&script).await
    }

    /// Gives it the addresses that end in this number, instead of those it has.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn address(&self, last: usize) -> anyhow::Result<()> {
        let n = self.number;
        self.lan
            .run(&format!(
                "ip -n pi{n} addr flush dev eth0 scope global && \
                 ip -n pi{n} addr add 10.9.0.{last}/24 dev eth0 && \
                 ip -n pi{n} addr add fd09::{last:x}/64 dev eth0 nodad && \
                 ip -n pi{n} route replace default dev eth0"
            ))
            .await
    }

    /// Gives it bridges as container programs make them, each with an address of its own that
    /// every other machine has as well.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn add_bridges(&self, count: usize) -> anyhow::Result<()> {
        let n = self.number;
        let script: Vec<String> = (0..count)
            .map(|bridge| {
                format!(
                    "ip -n pi{n} link add br-{bridge} type bridge && \
                     ip -n pi{n} addr add 10.1.{bridge}.1/24 dev br-{bridge} && \
                     ip -n pi{n} link set br-{bridge} up"
                )
            })
            .collect();
        self.lan.run(&script.join(" && ")).await
    }

    /// Takes its IPv4 addresses away.
    ///
    /// # Errors
    /// Fails if the system does not do it.
    pub async fn ipv6_only(&self) -> anyhow::Result<()> {
        let script = format!("ip -n pi{} -4 addr flush dev eth0", self.number);
        self.lan.run(&script).await
    }
}
