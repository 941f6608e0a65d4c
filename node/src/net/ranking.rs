//! Which addresses of this machine are good for others, and which of theirs are likely to be near.
//!
//! A machine has many addresses: the one in the LAN, those of container bridges, VPNs and virtual
//! machines. Only so many go into a ticket, and only so many are dialled at once, so the best come
//! first. What is known of an interface comes from the kernel: its addresses and whether it has a
//! default route. That an interface is a bridge for containers or a tunnel is guessed by its name.

use std::{collections::BTreeSet, net::IpAddr};

use if_addrs::IfAddr;
use libp2p::{Multiaddr, multiaddr::Protocol as Part};

/// How the names of interfaces begin that are for containers, virtual machines or tunnels.
const VIRTUAL: [&str; 23] = [
    "br-",
    "cali",
    "cilium",
    "cni",
    "docker",
    "flannel",
    "incus",
    "lxc",
    "lxd",
    "nebula",
    "podman",
    "ppp",
    "tailscale",
    "tap",
    "tun",
    "vbox",
    "veth-",
    "virbr",
    "vmnet",
    "vnet",
    "wg",
    "wt",
    "zt",
];

/// How good an interface is for being reached; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// Its packets find their way to everywhere.
    DefaultRoute,
    /// An interface like any other, or one that is not known.
    Plain,
    /// For containers, virtual machines or a tunnel.
    Virtual,
}

/// One address of an interface.
#[derive(Clone, Debug)]
struct Interface {
    ip: IpAddr,
    prefix: u8,
    grade: Grade,
}

/// The interfaces of this machine, as they were when they were looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranking {
    addresses: Vec<Interface>,
}

impl Ranking {
    /// Looks at the interfaces.
    pub(super) fn read() -> Self {
        let with_default_route = default_routes(
            &std::fs::read_to_string("/proc/self/net/route").unwrap_or_default(),
            &std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default(),
        );
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let addresses = found.into_iter().map(|interface| {
            let (ip, prefix) = match &interface.addr {
                IfAddr::V4(v4) => (v4.ip.into(), v4.prefixlen),
                IfAddr::V6(v6) => (v6.ip.into(), v6.prefixlen),
            };
            let grade = if with_default_route.contains(&interface.name) {
                Grade::DefaultRoute
            } else if VIRTUAL.iter().any(|v| interface.name.starts_with(v)) {
                Grade::Virtual
            } else {
                Grade::Plain
            };
            Interface { ip, prefix, grade }
        });
        Self {
            addresses: addresses.collect(),
        }
    }

    /// Puts own addresses in order, the best for others first.
    pub(super) fn sort_own(&self, own: &mut [Multiaddr]) {
        own.sort_by_cached_key(|address| {
            let ip = ip_of(address);
            let known = self.addresses.iter().find(|known| Some(known.ip) == ip);
            let grade = known.map_or(Grade::Plain, |known| known.grade);
            let is_makeshift = matches!(ip, Some(IpAddr::V4(ip)) if ip.is_link_local());
            // A network without IPv6 is more usual than one without IPv4.
            (grade, is_makeshift, ip.is_some_and(|ip| ip.is_ipv6()))
        });
    }

    /// Puts addresses of a peer in order, the nearest first; those that are equally near stay in
    /// the order in which they are.
    pub(super) fn sort_for_dialling(&self, addresses: &mut [Multiaddr]) {
        addresses.sort_by_cached_key(|address| self.distance(address));
    }

    fn distance(&self, address: &Multiaddr) -> u8 {
        let Some(ip) = ip_of(address) else {
            return 1;
        };
        if ip.is_loopback() || needs_zone(ip) {
            return 3;
        }
        let near = self.addresses.iter().filter(|own| own.reaches(ip));
        match near.map(|own| own.grade).min() {
            Some(Grade::DefaultRoute | Grade::Plain) => 0,
            None => 1,
            // Other machines have containers with the same addresses.
            Some(Grade::Virtual) => 2,
        }
    }
}

impl Interface {
    /// Says whether an address is in the subnet of this interface.
    fn reaches(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32)));
                let mask = mask.unwrap_or_default();
                own.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128)));
                let mask = mask.unwrap_or_default();
                own.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Returns the names of the interfaces with a default route (proc_net_route(5), and the same for
/// IPv6).
fn default_routes(route: &str, ipv6_route: &str) -> BTreeSet<String> {
    /// `RTF_REJECT` of linux/route.h: the kernel's way to say that there is no route.
    const REJECT: u32 = 0x200;
    let v4 = route.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        (*destination == "00000000" && *mask == "00000000").then(|| (*name).to_owned())
    });
    let v6 = ipv6_route.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, prefix) = (fields.first()?, fields.get(1)?);
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        let is_default = destination.bytes().all(|digit| digit == b'0') && *prefix == "00";
        (is_default && flags & REJECT == 0).then(|| fields.get(9).map(|name| (*name).to_owned()))?
    });
    v4.chain(v6).collect()
}

/// Returns the IP address with which an address begins.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Part::Ip4(ip) => Some(ip.into()),
        Part::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Says whether an address means nothing to others without the name of an interface.
pub(super) fn needs_zone(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(ip: &str, prefix: u8, grade: Grade) -> Interface {
        let ip = ip.parse().expect("an IP address");
        Interface { ip, prefix, grade }
    }

    fn machine() -> Ranking {
        Ranking {
            addresses: vec![
                interface("172.17.0.1", 16, Grade::Virtual),
                interface("172.18.0.1", 16, Grade::Virtual),
                interface("10.8.0.2", 24, Grade::Virtual),
                interface("10.0.5.1", 24, Grade::Plain),
                interface("192.168.1.7", 24, Grade::DefaultRoute),
                interface("2001:db8::7", 64, Grade::DefaultRoute),
                interface("127.0.0.1", 8, Grade::Plain),
            ],
        }
    }

    fn sorted(texts: &[&str], sort: impl Fn(&mut [Multiaddr])) -> Vec<String> {
        let parse = |text: &&str| text.parse().expect("a multiaddr");
        let mut addresses: Vec<Multiaddr> = texts.iter().map(parse).collect();
        sort(&mut addresses);
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_address_with_the_default_route_comes_before_those_of_containers() {
        let own = [
            "/ip4/10.0.5.1/tcp/1",
            "/ip4/10.8.0.2/tcp/1",
            "/ip4/172.17.0.1/tcp/1",
            "/ip4/172.18.0.1/tcp/1",
            "/ip4/192.168.1.7/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
        ];

        assert_eq!(
            sorted(&own, |own| machine().sort_own(own)),
            [
                "/ip4/192.168.1.7/tcp/1",
                "/ip6/2001:db8::7/tcp/1",
                "/ip4/10.0.5.1/tcp/1",
                "/ip4/10.8.0.2/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip4/172.18.0.1/tcp/1",
            ]
        );
    }

    #[test]
    fn what_is_in_a_subnet_of_this_machine_is_dialled_first_and_containers_last() {
        let theirs = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/172.18.0.9/tcp/1",
            "/dns4/pi.example/tcp/1",
            "/ip4/192.168.2.9/tcp/1",
            "/ip4/192.168.1.9/tcp/1",
            "/ip6/fe80::9/tcp/1",
            "/ip4/10.0.5.9/tcp/1",
            "/ip6/2001:db8::9/tcp/1",
        ];

        assert_eq!(
            sorted(&theirs, |theirs| machine().sort_for_dialling(theirs)),
            [
                "/ip4/192.168.1.9/tcp/1",
                "/ip4/10.0.5.9/tcp/1",
                "/ip6/2001:db8::9/tcp/1",
                "/dns4/pi.example/tcp/1",
                "/ip4/192.168.2.9/tcp/1",
                "/ip4/172.18.0.9/tcp/1",
                "/ip4/127.0.0.1/tcp/1",
                "/ip6/fe80::9/tcp/1",
            ]
        );
    }

    #[test]
    fn default_routes_are_read_as_the_kernel_writes_them() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                  tun0\t00000000\t01000A0A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000064 00000001 00000000 \
             00000003 wlan0\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n"
        );

        let found: Vec<String> = default_routes(v4, &v6).into_iter().collect();

        assert_eq!(found, ["eth0", "wlan0"]);
        assert!(default_routes("", "nonsense\n\n").is_empty());
    }
}
