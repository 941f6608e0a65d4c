//! Integers over UDP: to local programs and from them (`proto-specs/iid.md`, section 6).
//!
//! Datagrams carry no mark of where they come from, so what goes out must never come in again.
//! Three things see to that: ports that meet within one node are refused when the door opens
//! ([`check_loops`]); outputs announce themselves, and an input refuses whatever comes from an
//! address that did, be it of another node ([`Announcement`]); and what a client sends back that
//! was sent out just now is not sent out again ([`Recent`]), for a published client on the same
//! machine pushes whatever it receives.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::broadcast::error::RecvError};

use super::{OpenError, recent::Recent};
use crate::{
    NodeHandle,
    identity::random,
    proto::iid::{Form, IID_BYTES, Index},
    state::{
        VALUES_MAX,
        io::{Command, Event},
        report::Integers,
    },
};

/// How often an output says what it is.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);

/// How long an input remembers that an address is an output.
const ANNOUNCED_TIME: Duration = Duration::from_secs(60);

/// Most outputs that an input remembers.
const ANNOUNCED_MAX: usize = 256;

/// How long an integer that was sent out is remembered.
const RECENT_TIME: Duration = Duration::from_secs(2);

/// Refuses a target whose datagrams would come in again at this node's own input.
pub(super) fn check_loops(input: SocketAddr, outputs: &[SocketAddr]) -> Result<(), OpenError> {
    match outputs.iter().find(|output| meet(input, **output)) {
        Some(&output) => Err(OpenError::UdpLoop { output, input }),
        None => Ok(()),
    }
}

fn meet(input: SocketAddr, output: SocketAddr) -> bool {
    if input.port() != output.port() {
        return false;
    }
    let (input, output) = (input.ip().to_canonical(), output.ip().to_canonical());
    let to_many = match output {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    // An unspecified target is this machine. A subnet's own broadcast address cannot be told from
    // another address, and it cannot be bound; so it is refused by the announcements.
    let all_of_family = input.is_unspecified() && (input.is_ipv6() || output.is_ipv4());
    input == output || to_many || output.is_unspecified() || (all_of_family && is_local(output))
}

/// Says whether an address belongs to this machine: only then can it be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// What an output sends to each of its targets now and then: 13 bytes, which is no length of an
/// integer, so every receiver but a pimesh node drops it, and a bridge that forwards it to a
/// gateway is not sent away for it (at most 16 bytes).
struct Announcement([u8; Self::BYTES]);

impl Announcement {
    const BYTES: usize = 13;
    const MARK: [u8; 5] = *b"pimsh";

    fn new() -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..5].copy_from_slice(&Self::MARK);
        bytes[5..].copy_from_slice(&random::<8>());
        Self(bytes)
    }

    fn is(bytes: &[u8]) -> bool {
        bytes.len() == Self::BYTES && bytes.starts_with(&Self::MARK)
    }
}

/// Sends integers to local programs.
pub(super) struct Output {
    targets: Vec<(SocketAddr, usize)>,
    /// One for IPv4, one for IPv6, as needed.
    sockets: Vec<UdpSocket>,
    announcement: Announcement,
    recent: Recent,
}

impl Output {
    pub(super) async fn open(targets: &[SocketAddr]) -> Result<Self, OpenError> {
        let mut sockets = Vec::new();
        let mut with_socket = Vec::new();
        for v6 in [false, true] {
            let of_family: Vec<SocketAddr> = targets
                .iter()
                .copied()
                .filter(|target| target.is_ipv6() == v6)
                .collect();
            if of_family.is_empty() {
                continue;
            }
            let any: SocketAddr = if v6 {
                ([0_u16; 8], 0).into()
            } else {
                ([0, 0, 0, 0], 0).into()
            };
            let socket = bind(any).await?;
            if !v6 {
                let failed = |source| OpenError::Listen {
                    address: any,
                    source,
                };
                socket.set_broadcast(true).map_err(failed)?;
            }
            with_socket.extend(of_family.into_iter().map(|target| (target, sockets.len())));
            sockets.push(socket);
        }
        Ok(Self {
            targets: with_socket,
            sockets,
            announcement: Announcement::new(),
            recent: Recent::new(RECENT_TIME),
        })
    }

    /// Sends what the node hears and what its own clients send, until the node stops.
    pub(super) async fn run(mut self, node: NodeHandle) {
        if self.targets.is_empty() {
            return;
        }
        let mut events = node.events();
        let mut announce = tokio::time::interval(ANNOUNCE_INTERVAL);
        loop {
            tokio::select! {
                _ = announce.tick() => self.send(&self.announcement.0).await,
                event = events.recv() => match event {
                    Ok(event) => {
                        if let Event::Integers(integers) = &*event {
                            self.send_integers(integers).await;
                        }
                    }
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "integers came faster than they can be sent over UDP");
                    }
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    async fn send_integers(&mut self, integers: &Integers) {
        if integers.last_known {
            return;
        }
        let from_client = integers.client.is_some();
        for iid in &integers.iids {
            let is_known = self.recent.remember(iid, Instant::now());
            if !(from_client && is_known) {
                self.send(&iid.encode()).await;
            }
        }
    }

    async fn send(&self, bytes: &[u8]) {
        for (target, socket) in &self.targets {
            // Nobody may be listening there, and that is told as an error of a later datagram.
            drop(self.sockets[*socket].send_to(bytes, target).await);
        }
    }
}

/// Takes integers from local programs.
pub(super) struct Input {
    socket: UdpSocket,
    index: Option<Index>,
    outputs: HashMap<SocketAddr, Instant>,
}

impl Input {
    pub(super) async fn open(address: SocketAddr, index: Option<Index>) -> Result<Self, OpenError> {
        Ok(Self {
            socket: bind(address).await?,
            index,
            outputs: HashMap::new(),
        })
    }

    /// Takes datagrams until the node stops.
    pub(super) async fn run(mut self, node: NodeHandle) {
        let mut refusals = 0_u64;
        loop {
            let Ok((mut form, mut from)) = self.receive().await else {
                continue;
            };
            let Some(index) = self.index(&node).await else {
                return;
            };
            let mut iids = Vec::new();
            // What has come already travels together.
            loop {
                if let Some(form) = form
                    && !self.is_output(from)
                {
                    iids.push(form.restamp(index, node.date()));
                }
                match self.try_receive() {
                    Ok(next) if iids.len() < VALUES_MAX => (form, from) = next,
                    _ => break,
                }
            }
            if iids.is_empty() {
                continue;
            }
            let client = None;
            if let Err(failure) = node.ask(Command::Bridge { client, iids }).await {
                refusals += 1;
                if refusals.is_power_of_two() {
                    let hint = failure.hint.as_deref().unwrap_or("-");
                    tracing::warn!(reason = %failure.message, hint, "datagrams were not taken");
                }
            }
        }
    }

    async fn index(&self, node: &NodeHandle) -> Option<Index> {
        match self.index {
            Some(index) => Some(index),
            None => node.index().await,
        }
    }

    async fn receive(&mut self) -> io::Result<(Option<Form>, SocketAddr)> {
        let mut buffer = [0; IID_BYTES + 1];
        let (length, from) = self.socket.recv_from(&mut buffer).await?;
        Ok((self.understand(&buffer[..length], from), from))
    }

    fn try_receive(&mut self) -> io::Result<(Option<Form>, SocketAddr)> {
        let mut buffer = [0; IID_BYTES + 1];
        let (length, from) = self.socket.try_recv_from(&mut buffer)?;
        Ok((self.understand(&buffer[..length], from), from))
    }

    fn understand(&mut self, bytes: &[u8], from: SocketAddr) -> Option<Form> {
        if Announcement::is(bytes) {
            self.note_output(from, Instant::now());
        }
        Form::decode(bytes).ok()
    }

    fn note_output(&mut self, from: SocketAddr, now: Instant) {
        self.outputs
            .retain(|_, heard| now.duration_since(*heard) < ANNOUNCED_TIME);
        if self.outputs.len() < ANNOUNCED_MAX && self.outputs.insert(from, now).is_none() {
            tracing::error!(
                %from,
                "a gateway's `udp_out` meets this gateway's `udp_in`: its integers are refused here, \
                 or they would run in a circle; give one of them another port"
            );
        }
    }

    fn is_output(&self, from: SocketAddr) -> bool {
        let heard = self.outputs.get(&from);
        heard.is_some_and(|heard| heard.elapsed() < ANNOUNCED_TIME)
    }
}

async fn bind(address: SocketAddr) -> Result<UdpSocket, OpenError> {
    let bound = UdpSocket::bind(address).await;
    bound.map_err(|source| OpenError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ports_that_meet_are_refused_and_others_are_not() {
        let meeting = [
            ("127.0.0.1:5", "127.0.0.1:5"),
            ("127.0.0.1:5", "0.0.0.0:5"),
            ("127.0.0.1:5", "[::ffff:127.0.0.1]:5"),
            ("0.0.0.0:5", "127.0.0.1:5"),
            ("0.0.0.0:5", "127.8.8.8:5"),
            ("0.0.0.0:5", "255.255.255.255:5"),
            ("0.0.0.0:5", "224.0.0.1:5"),
            ("[::]:5", "127.0.0.1:5"),
            ("[::]:5", "[::1]:5"),
            ("[::1]:5", "[::1]:5"),
        ];
        for (input, output) in meeting {
            assert!(
                check_loops(at(input), &[at(output)]).is_err(),
                "{input} {output}"
            );
        }
        let apart = [
            ("127.0.0.1:5", "127.0.0.1:6"),
            ("127.0.0.1:5", "127.0.0.2:5"),
            ("0.0.0.0:5", "[::1]:5"),
            // No machine has an address that is kept for documents (RFC 5737).
            ("0.0.0.0:5", "192.0.2.1:5"),
        ];
        for (input, output) in apart {
            assert!(
                check_loops(at(input), &[at(output)]).is_ok(),
                "{input} {output}"
            );
        }
    }

    #[test]
    fn an_announcement_is_no_integer_and_no_reason_to_be_sent_away() {
        let announcement = Announcement::new();

        assert!(Announcement::is(&announcement.0));
        assert!(Form::decode(&announcement.0).is_err());
        const { assert!(Announcement::BYTES <= IID_BYTES) };
        assert!(!Announcement::is(b"pimsh"));
    }
}
