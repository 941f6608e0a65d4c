//! The example, limits, and what is said of a mistake.

use super::*;

/// The example, for those who read it where the code is.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pimesh.example.toml");

#[test]
fn the_example_file_is_what_the_keys_say() {
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(FILE, example()).expect("written");
    }
    let file = std::fs::read_to_string(FILE).expect("a file");
    assert!(
        file == example(),
        "run this test with UPDATE_EXAMPLE=1 in the environment"
    );
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let shown: String = example()
        .lines()
        .filter(|line| !line.starts_with("## "))
        .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)))
        .collect();
    let mut parsed = Config::parse(&shown).expect("the example is legal");
    assert_eq!(
        parsed.name.take().map(String::from),
        Some("pi-1".to_owned())
    );
    assert!(parsed.passphrase_file.take().is_some());
    assert!(
        parsed.control.socket.take().is_some()
            && parsed.control.socket_group.take().is_some()
            && parsed.control.tcp.take().is_some()
    );
    let iid = &mut parsed.gateways.iid;
    assert!(iid.listen_only.take().is_some() && iid.claims.take().is_some());
    assert!(iid.rsa_keys.take().is_some() && iid.password_sha256.take().is_some());
    assert!(iid.letters.take().is_some() && iid.tls.take().is_some());
    assert!(iid.udp_in.take().is_some() && iid.udp_in_index.take().is_some());
    assert!(parsed.gateways.p2sn.deliver_to.take().is_some());

    assert_eq!(parsed, Config::default());
    assert!(keys().len() >= 74, "all are found");
}

#[test]
fn what_is_in_force_reads_as_the_configuration_it_came_from() {
    let text = "[node]\nname = \"pi-1\"\n[messages]\nexpiry = \"90s\"\n\
                history_size_max = \"1500 B\"\n[control]\ntcp = \"127.0.0.1:4631\"\n";

    let shown = in_force(text).expect("legal").to_string();

    assert_eq!(Config::parse(&shown), Config::parse(text));
    for line in [
        r#"expiry = "90s""#,
        r#"history_size_max = "1500 B""#,
        "mdns = true",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let defaults = in_force("").expect("legal").to_string();
    for line in [
        r#"expiry = "7d""#,
        r#"memory_max = "256 MiB""#,
        r#"ttl = "10s""#,
    ] {
        assert!(defaults.contains(line), "{defaults}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let error = Config::parse("[network]\nmdns = true\nlissten = []\n").expect_err("refused");

    assert_eq!(
        error.to_string(),
        "line 3: there is no key `network.lissten`; did you mean `network.listen`?"
    );
    assert!(matches!(
        Config::parse("x = 1"),
        Err(ConfigError::UnknownKey { line: 1, .. })
    ));
}

#[test]
fn values_out_of_range_are_named_with_what_they_may_be() {
    for (text, message) in [
        (
            "[messages]\nexpiry = \"31d\"",
            "`messages.expiry` is 1min to 30d, got `2678400s`",
        ),
        (
            "[identity]\nrsa_bits = 1024",
            "`identity.rsa_bits` is 2048, 3072 or 4096, got `1024`",
        ),
        (
            "[control]\ntcp = \"0.0.0.0:1\"",
            "`control.tcp` is a loopback address with a port, got `0.0.0.0:1`",
        ),
        (
            "[network]\npeers = [\"/ip4/10.0.0.1/tcp/1/p2p/me\"]",
            "`network.peers` is a multiaddr that ends in `/p2p/` and a peer id, got \
             `/ip4/10.0.0.1/tcp/1/p2p/me`",
        ),
    ] {
        assert_eq!(Config::parse(text).expect_err(text).to_string(), message);
    }
    assert!(Config::parse("[messages]\nexpiry = 7").is_err());
    assert!(Config::parse("[messages]\nexpiry = \"soon\"").is_err());
}

#[test]
fn a_file_that_is_all_brackets_is_refused() {
    let brackets = "[".repeat(FILE_BYTES_MAX as usize);

    assert!(Config::parse(&brackets).is_err());
    assert!(Config::parse(&format!("a = {brackets}")).is_err());
}

#[test]
fn durations_and_sizes_are_read_as_people_write_them() {
    assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
    assert_eq!(parse_duration("200 ms"), Some(Duration::from_millis(200)));
    assert_eq!(parse_duration("15min"), Some(Duration::from_secs(900)));
    assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
    assert_eq!(parse_duration("7"), None);
    assert_eq!(Size::try_from("4 MiB".to_owned()), Ok(Size(4_194_304)));
    assert!(Size::try_from("4 MB".to_owned()).is_err());
}

#[test]
fn two_servers_do_not_have_one_key() {
    let syft = |keys: [&str; 2]| {
        let [a, b] = keys;
        format!(
            "[gateway.syft]\nservers = [\n\
             {{ url = \"https://a.example\", user = \"k\", name = \"a\"{a} }},\n\
             {{ url = \"https://b.example\", user = \"k\", name = \"b\"{b} }}]\n"
        )
    };
    let iid = |keys: [&str; 2]| {
        let [a, b] = keys;
        format!(
            "[gateway.iid]\nservers = [\n\
             {{ url = \"wss://a.example\"{a} }},\n{{ url = \"wss://b.example\"{b} }}]\n"
        )
    };
    let shared = ", key_of = \"shared\"";
    let other = ", key_of = \"https://a.example/\"";
    let other_iid = ", key_of = \"wss://A.example\"";
    for text in [syft(["", ""]), syft([shared, ""]), iid([shared, ""])] {
        Config::parse(&text).expect(&text);
    }
    for text in [
        syft([shared, shared]),
        syft(["", other]),
        iid([shared, shared]),
        iid(["", other_iid]),
    ] {
        let error = Config::parse(&text).expect_err(&text).to_string();
        assert!(error.contains("a key for each"), "{error}");
    }
    let kinds = iid([", key = \"rsa\", key_of = \"shared\"", shared]);
    Config::parse(&kinds).expect("an RSA key and an Ethereum key are two");
}

#[test]
fn a_gateway_that_does_not_encrypt_is_told_unless_it_is_on_loopback() {
    let unencrypted = |iid: &str| {
        let config = Config::parse(&format!("[gateway.iid]\n{iid}\n")).expect("legal");
        let listeners = config.gateways.unencrypted();
        let addresses = listeners.iter().map(|found| found.address.to_string());
        addresses.collect::<Vec<_>>()
    };
    let open = "enabled = true\nlisten = \"0.0.0.0:4615\"";

    assert_eq!(unencrypted(open), ["0.0.0.0:4615"]);
    let tls = "tls_certificate = \"a.pem\"\ntls_key = \"b.pem\"";
    assert_eq!(unencrypted(&format!("{open}\n{tls}")), [""; 0]);
    let udp = format!("{open}\n{tls}\nudp_in = \"192.168.1.7:3615\"");
    assert_eq!(unencrypted(&udp), ["192.168.1.7:3615"]);
    let both = format!("{open}\nlisten_only = \"[::]:4616\"");
    assert_eq!(unencrypted(&both), ["0.0.0.0:4615", "[::]:4616"]);
    assert_eq!(unencrypted("enabled = true"), [""; 0]);
    assert_eq!(unencrypted("listen = \"0.0.0.0:4615\""), [""; 0]);
}
