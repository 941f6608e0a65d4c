//! What the network of this machine allows: multicast, the port of mDNS, and names.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use pimesh_node::{Config, config::unencrypted::Unencrypted, files};
use socket2::{Domain, Protocol, Socket, Type};

use super::Check;

/// The port of mDNS (RFC 6762).
const MDNS_PORT: u16 = 5353;

/// Its multicast group.
const MDNS_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// Where the nameservers are.
const RESOLVER: &str = "/etc/resolv.conf";

/// Longest list of nameservers, in bytes.
const RESOLVER_BYTES_MAX: u64 = 64 * 1024;

/// How long a name may take.
const NAME_TIME: Duration = Duration::from_secs(5);

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![mdns(config)];
    checks.extend(unencrypted(config));
    checks.extend(names(config).await);
    checks
}

/// Can others in the network read what a gateway's clients send?
fn unencrypted(config: &Config) -> Vec<Check> {
    let found = config.gateways.unencrypted();
    let warn = |found: &Unencrypted| Check::warn("gateway", found.problem(), Unencrypted::TODO);
    found.iter().map(warn).collect()
}

/// mDNS needs to share UDP port 5353 (RFC 6762, section 15.1).
fn mdns(config: &Config) -> Check {
    if !config.network.mdns {
        return Check::ok("mdns", "off (`network.mdns`)");
    }
    match share_mdns_port() {
        Ok(()) => Check::ok("mdns", "port 5353 can be shared, and multicast works"),
        Err(error) => Check::warn(
            "mdns",
            format!("port 5353 with multicast: {error}"),
            "another program keeps the port to itself (`ss -ulpn sport = 5353`), or there is no \
             network: nodes do not find each other on the LAN; name them in `network.peers`",
        ),
    }
}

/// Binds the port as a node does, beside whoever else has it.
fn share_mdns_port() -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, MDNS_PORT)).into())?;
    socket.join_multicast_v4(&MDNS_GROUP, &Ipv4Addr::UNSPECIFIED)
}

/// Can the names in the settings be found?
async fn names(config: &Config) -> Vec<Check> {
    let resolver = files::read_bounded(Path::new(RESOLVER), RESOLVER_BYTES_MAX);
    let has_server = resolver.is_ok_and(|text| has_nameserver(&text));
    let mut checks = vec![if has_server {
        Check::ok("resolver", "there is a nameserver")
    } else {
        Check::warn(
            "resolver",
            format!("no nameserver in {RESOLVER}"),
            "names in addresses and of servers are not found; numbers and the LAN work",
        )
    }];
    for name in configured_names(config) {
        let lookup = tokio::net::lookup_host((name.as_str(), 0));
        let found = tokio::time::timeout(NAME_TIME, lookup).await;
        let why = match found.map(|found| found.map(|mut found| found.next())) {
            Ok(Ok(Some(_))) => continue,
            Ok(Ok(None)) => "it has no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", NAME_TIME.as_secs()),
        };
        let todo = "is it written right in `pimesh.toml`, and does the nameserver know it?";
        checks.push(Check::warn("name", format!("`{name}`: {why}"), todo));
    }
    checks
}

fn has_nameserver(text: &str) -> bool {
    let mut words = text.lines().map(str::split_whitespace);
    words.any(|mut words| words.next() == Some("nameserver") && words.next().is_some())
}

/// Returns the host names in the settings.
fn configured_names(config: &Config) -> BTreeSet<String> {
    let peers = config.settings.peers.iter().filter_map(|(_, address)| {
        let mut parts = address.as_str().split('/').skip(1);
        let is_name = parts.next().is_some_and(|kind| kind.starts_with("dns"));
        parts.next().filter(|_| is_name)
    });
    let time = config.ntp.iter().map(String::as_str);
    let servers = config.gateways.server_hosts();
    let hosts = peers.chain(time.filter_map(host_of)).chain(servers);
    let is_name = |host: &&str| host.parse::<std::net::IpAddr>().is_err();
    hosts.filter(is_name).map(str::to_owned).collect()
}

/// Returns the host of `HOST`, `HOST:PORT` or `[HOST]:PORT`.
fn host_of(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next();
    }
    match text.rsplit_once(':') {
        // More than one colon: an IPv6 address.
        Some((host, _)) if !host.contains(':') => Some(host),
        Some(_) => None,
        None => Some(text),
    }
}

/// Tries the ports that a node would listen on.
pub(super) fn ports(config: &Config) -> Vec<Check> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn a_nameserver_is_a_line_that_names_one() {
        assert!(has_nameserver("search lan\nnameserver 192.168.1.1\n"));
        assert!(!has_nameserver(
            "# nameserver 192.168.1.1\nnameserver\noptions rotate\n"
        ));
    }

    #[test]
    fn the_names_of_all_settings_are_looked_up() {
        let text = "[network]\npeers = [\"/dns4/pi.example.org/tcp/4630/p2p/12D3KooWGG664T6hCroFqwXQea7ErWnUQCi3ErWYLuCiUY2maGcS\", \
                    \"/ip4/10.0.0.1/tcp/4630/p2p/12D3KooWGG664T6hCroFqwXQea7ErWnUQCi3ErWYLuCiUY2maGcS\"]\n\
                    [clock]\nntp = [\"pool.ntp.org\", \"pi-1.local:123\", \"10.0.0.1:123\", \"::1\"]\n\
                    [gateway.iid]\nservers = [{ url = \"ws://iid.example.org:4615/x\", key = \"rsa\" }]\n";
        let config = Config::parse(text).expect("legal");

        let names: Vec<String> = configured_names(&config).into_iter().collect();

        let expected = [
            "iid.example.org",
            "pi-1.local",
            "pi.example.org",
            "pool.ntp.org",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_gateway_that_everybody_can_read_is_warned_of() {
        let text = "[gateway.iid]\nenabled = true\nlisten = \"0.0.0.0:4615\"\n";
        let checks = unencrypted(&Config::parse(text).expect("legal"));
        let [check] = checks.as_slice() else {
            panic!("{checks:?}")
        };
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(
            check.found.contains("iid at 0.0.0.0:4615"),
            "{}",
            check.found
        );
        assert!(unencrypted(&Config::default()).is_empty());
    }

    #[test]
    fn mdns_that_is_off_is_not_looked_at() {
        let config = Config::parse("[network]\nmdns = false\n").expect("legal");
        assert_eq!(mdns(&config).verdict, Verdict::Ok);
    }
}
