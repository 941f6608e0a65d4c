//! Integers over UDP: to local programs and from them (`proto-specs/iid.md`, section 6).
//!
//! A datagram is an integer and nothing else, so nothing in it says where it comes from, and what
//! goes out must not come in again for ever. Three things see to that (rules UDP-MEET, UDP-OUTPUT
//! and UDP-RELAY): ports that meet within one node are refused when the door opens
//! ([`check_loops`]); an input takes nothing from an address that was seen to send what the node
//! hears anyway; and what a client was seen to push back that was sent out here is not sent out
//! again, for a published client on the same machine pushes whatever it receives.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    sync::broadcast::{Receiver, error::RecvError},
};

use super::{
    OpenError,
    echo::{CERTAIN, HINT, Mirrors, is_dated},
};
use crate::{
    gateway::context::Context,
    proto::iid::{Form, IID_BYTES, Iid, Index},
    state::{
        VALUES_MAX,
        io::{ClientId, Command, Event},
        report::Integers,
    },
};

/// How long an integer may be on its way back. On one machine it takes a millisecond, over a
/// network that is busy some hundred.
const ECHO_TIME: Duration = Duration::from_secs(2);

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
    // another address, and it cannot be bound; what comes from there is refused when it comes.
    let all_of_family = input.is_unspecified() && (input.is_ipv6() || output.is_ipv4());
    input == output || to_many || output.is_unspecified() || (all_of_family && is_local(output))
}

/// Says whether an address belongs to this machine: only then can it be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// Sends integers to local programs.
pub(super) struct Output {
    targets: Vec<(SocketAddr, usize)>,
    /// One for IPv4, one for IPv6, as needed.
    sockets: Vec<UdpSocket>,
    /// Clients that push what they get from here.
    relays: Mirrors<ClientId>,
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
            relays: Mirrors::new(ECHO_TIME),
        })
    }

    /// Sends what the node hears and what its own clients send, until the node stops. `own_input`
    /// is no client.
    pub(super) async fn run(mut self, node: Context, own_input: Option<ClientId>) {
        if self.targets.is_empty() {
            return;
        }
        let mut events = node.events();
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Event::Integers(integers) = &*event
                        && !integers.last_known
                    {
                        let client = integers.client.filter(|client| Some(*client) != own_input);
                        for iid in &integers.iids {
                            if self.is_to_go_out(iid, client, Instant::now()) {
                                self.send(&iid.encode()).await;
                            }
                        }
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "integers came faster than they can be sent over UDP");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Says whether an integer goes out, and notes it if it does: rule UDP-RELAY.
    fn is_to_go_out(&mut self, iid: &Iid, client: Option<ClientId>, now: Instant) -> bool {
        if let Some(client) = client {
            // A client's integers have its own index, whatever index they had when it got them.
            let counts = is_dated(iid) || self.relays.is_one(client, now);
            let weigh = |_| if counts { HINT } else { 0 };
            if self.relays.look(iid, client, weigh, now) {
                tracing::info!(
                    client = client.0,
                    "a client pushes what it gets over UDP; what it pushes back is not sent again"
                );
            }
            if self.relays.is_one(client, now) && self.relays.take_back(iid, client, now) {
                return false;
            }
        }
        self.relays.note(iid, client, now);
        true
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
    client: ClientId,
    sources: Sources,
}

/// Addresses that datagrams come from, and which of them are outputs.
struct Sources(Mirrors<SocketAddr>);

impl Input {
    pub(super) async fn open(
        address: SocketAddr,
        index: Option<Index>,
        client: ClientId,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            socket: bind(address).await?,
            index,
            client,
            sources: Sources(Mirrors::new(ECHO_TIME)),
        })
    }

    /// Returns the name under which it hands integers in.
    pub(super) const fn client(&self) -> ClientId {
        self.client
    }

    /// Takes datagrams until the node stops.
    pub(super) async fn run(mut self, node: Context) {
        let mut refusals = 0_u64;
        let mut events = node.events();
        loop {
            let mut buffer = [0; IID_BYTES + 1];
            let received = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => received,
                event = events.recv() => {
                    if !self.follow(event) {
                        return;
                    }
                    continue;
                }
            };
            let Ok((mut length, mut from)) = received else {
                continue;
            };
            let Some(index) = self.index(&node).await else {
                return;
            };
            // What the node heard by now is known before what comes here is judged.
            self.catch_up(&mut events);
            let mut iids = Vec::new();
            // What has come already travels together.
            loop {
                if let Ok(form) = Form::decode(&buffer[..length]) {
                    let iid = form.restamp(index, node.date());
                    let is_new = self.sources.is_new(form, &iid, from, Instant::now());
                    iids.extend(is_new.then_some(iid));
                }
                if iids.len() >= VALUES_MAX {
                    break;
                }
                match self.socket.try_recv_from(&mut buffer) {
                    Ok(next) => (length, from) = next,
                    Err(_) => break,
                }
            }
            if iids.is_empty() {
                continue;
            }
            let client = Some(self.client);
            if let Err(failure) = node.ask(Command::Bridge { client, iids }).await {
                refusals += 1;
                if refusals.is_power_of_two() {
                    let hint = failure.hint.as_deref().unwrap_or("-");
                    tracing::warn!(reason = %failure.message, hint, "datagrams were not taken");
                }
            }
        }
    }

    async fn index(&self, node: &Context) -> Option<Index> {
        match self.index {
            Some(index) => Some(index),
            None => node.index().await,
        }
    }

    fn catch_up(&mut self, events: &mut Receiver<Arc<Event>>) {
        while let Ok(event) = events.try_recv() {
            self.follow(Ok(event));
        }
    }

    /// Notes what the node hears; says whether it still runs.
    fn follow(&mut self, event: Result<Arc<Event>, RecvError>) -> bool {
        match event {
            Ok(event) => {
                if let Event::Integers(integers) = &*event {
                    self.sources.heard(integers, self.client, Instant::now());
                }
                true
            }
            // An output is seen a little later then.
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => false,
        }
    }
}

impl Sources {
    /// Notes what the node hears, but for what it heard from this input.
    fn heard(&mut self, integers: &Integers, input: ClientId, now: Instant) {
        if integers.last_known || integers.client == Some(input) {
            return;
        }
        for iid in &integers.iids {
            self.0.note(iid, None, now);
        }
    }

    /// Says whether a datagram's integer is taken: rule UDP-OUTPUT. `iid` is what becomes of it.
    fn is_new(&mut self, form: Form, iid: &Iid, from: SocketAddr, now: Instant) -> bool {
        // An output sends all three fields, as they are in the mesh.
        if let Form::IndexIntegerDate(sent) = form {
            // Under the input's own index a program may send what another one sends, too.
            let counts = is_dated(&sent) || self.0.is_one(from, now);
            let weigh = |index| match index == sent.index {
                true if index != iid.index => CERTAIN,
                true if counts => HINT,
                true | false => 0,
            };
            if self.0.look(&sent, from, weigh, now) {
                tracing::error!(
                    %from,
                    "a gateway's `udp_out` meets this gateway's `udp_in`: its integers are refused \
                     here, or they would run in a circle; give one of them another port"
                );
            }
            if self.0.is_one(from, now) {
                return false;
            }
        }
        self.0.note(iid, Some(from), now);
        true
    }
}

async fn bind(address: SocketAddr) -> Result<UdpSocket, OpenError> {
    let bound = UdpSocket::bind(address).await;
    bound.map_err(|source| OpenError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::iid::{Date, Value};

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

    fn iid(index: i32, date: u64) -> Iid {
        Iid {
            index: Index(index),
            value: Value(5),
            date: Date(date),
        }
    }

    const FINE: u64 = 1_700_000_000_123;
    const SECONDS: u64 = 1_700_000_000;

    async fn output() -> Output {
        Output::open(&[]).await.expect("nothing to open")
    }

    #[tokio::test]
    async fn equal_integers_of_a_client_all_go_out() {
        for date in [0, SECONDS, FINE] {
            let (mut output, now) = (output().await, Instant::now());
            let out = (0..6).filter(|_| output.is_to_go_out(&iid(7, date), Some(ClientId(1)), now));
            assert_eq!(out.count(), 6, "{date}");
        }
    }

    #[tokio::test]
    async fn what_a_client_pushes_back_goes_out_no_more_and_its_own_integers_do() {
        let (mut output, now) = (output().await, Instant::now());
        let mut goes = |iid: &Iid, client| output.is_to_go_out(iid, client, now);
        let relay = Some(ClientId(1));
        assert!(goes(&iid(3, FINE), None));
        // It has the client's index now.
        assert!(!goes(&iid(7, FINE), relay), "an echo");

        for _ in 0..3 {
            assert!(goes(&iid(7, SECONDS), relay), "its own");
            assert!(!goes(&iid(7, SECONDS), relay), "the echo of that");
        }
    }

    #[tokio::test]
    async fn a_client_that_pushes_its_own_integers_round_is_stopped() {
        let (mut output, now) = (output().await, Instant::now());
        let relay = Some(ClientId(1));
        // One integer; each time it goes out it comes back.
        let mut rounds = 0;
        while output.is_to_go_out(&iid(7, SECONDS), relay, now) {
            rounds += 1;
            assert!(rounds <= 32);
        }
        assert!(output.is_to_go_out(&iid(7, SECONDS + 1), relay, now));
        assert!(!output.is_to_go_out(&iid(7, SECONDS + 1), relay, now));
    }

    #[test]
    fn equal_datagrams_are_all_taken_and_those_of_outputs_are_not() {
        let (mut sources, now) = (Sources(Mirrors::new(ECHO_TIME)), Instant::now());
        let (program, output) = (at("127.0.0.1:1"), at("127.0.0.1:2"));
        let mut takes = |sent: Iid, from| {
            let form = Form::IndexIntegerDate(sent);
            sources.is_new(form, &form.restamp(Index(33), Date(1)), from, now)
        };
        for date in [0, SECONDS, FINE] {
            for _ in 0..6 {
                assert!(takes(iid(9, date), program), "{date}");
            }
        }
        // What the program sent came into the mesh under 33, and out of it at the output.
        assert!(!takes(iid(33, FINE), output));
        assert!(!takes(iid(33, 0), output), "whatever else it sends");
        assert!(takes(iid(9, FINE), program));
    }

    #[test]
    fn a_circle_of_integers_without_a_date_ends() {
        let (mut sources, now) = (Sources(Mirrors::new(ECHO_TIME)), Instant::now());
        let form = Form::IndexIntegerDate(iid(33, 0));
        let mut rounds = 0;
        while sources.is_new(form, &iid(33, 0), at("127.0.0.1:2"), now) {
            rounds += 1;
            assert!(rounds <= 256);
        }
    }
}
