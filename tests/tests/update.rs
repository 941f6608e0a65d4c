//! Home folders of earlier versions: today's program takes over all that is in them. How they were
//! made is in `tests/homes/README.md`.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use pimesh_node::{
    control::api::{HistoryQuery, Way},
    state::{io::Gateway, report::P2snKey},
};
use pimesh_tests::{Pi, World, eventually, opened, pimesh, syft::Agents};
use rusqlite::Connection;

/// Commit af00fe5: store format 4, before endpoints, statements and the list of keys.
const HOMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/homes/af00fe5");

const STORES: [(&str, &str); 2] = [
    (
        "pi-1",
        include_str!("../../node/src/store/formats/made/4.sql"),
    ),
    ("pi-2", include_str!("../homes/af00fe5/pi-2/store.sql")),
];

const PI_1: &str = "12D3KooWPkESkjLNpws8nacmQv8KoZGJP7uySZVxnMVVGzrqpEBt";

/// Unpacks a home, as if it had been made a moment ago: what waits has not expired.
fn unpack(world: &World, name: &str) -> anyhow::Result<()> {
    let home = world.home(name);
    copy(&Path::new(HOMES).join(name), &home)?;
    let (_, store) = STORES.iter().find(|(of, _)| *of == name).context("one")?;
    let path = home.join("pimesh.db");
    let connection = Connection::open(&path)?;
    connection.execute_batch(store)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let newest: i64 =
        connection.query_row("SELECT max(at_ms) FROM history", [], |row| row.get(0))?;
    let shift = i64::try_from(now.as_millis())? - newest;
    let mut dates = connection.prepare(
        "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c \
         WHERE m.type = 'table' AND c.name LIKE '%\\_ms' ESCAPE '\\'",
    )?;
    let dates = dates.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let dates: Vec<(String, String)> = dates.collect::<Result<_, _>>()?;
    for (table, column) in dates {
        connection.execute(
            &format!("UPDATE {table} SET {column} = {column} + {shift}"),
            [],
        )?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?.path(), to.to_owned());
        let to = to.join(entry.file_name().context("a name")?);
        if entry.is_dir() {
            copy(&entry, &to)?;
        } else {
            fs::write(&to, fs::read(&entry)?)?;
            fs::set_permissions(to, Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

async fn history(pi: &Pi, way: Way) -> anyhow::Result<Vec<(String, String, String)>> {
    let query = HistoryQuery {
        way,
        all: true,
        ..HistoryQuery::default()
    };
    let rows = pi.client.history(&query).await?.into_iter();
    let rows = rows.map(|row| (row.name, row.text, row.outcome));
    Ok(rows.collect())
}

fn row(name: &str, text: &str, outcome: &str) -> (String, String, String) {
    (name.to_owned(), text.to_owned(), outcome.to_owned())
}

#[tokio::test]
async fn a_mesh_of_af00fe5_goes_on_with_all_that_it_had() -> anyhow::Result<()> {
    let world = World::new()?;
    for (name, _) in STORES {
        unpack(&world, name)?;
    }
    let one = world.start("pi-1").await?;

    let node = one.client.status().await?.node;
    assert_eq!(node.peer_id.to_string(), PI_1);
    assert_eq!((node.name.as_str(), node.index.0), ("pi-1", 1));
    let client = "p2sn:127.0.0.1/2a01f6f466515388";
    let received = [
        row("pi-2", "from pi-2", ""),
        row("pi-3", "from pi-3", ""),
        row(client, "hello from P2SN", ""),
        row("carol@pi-2", "from carol", ""),
    ];
    assert_eq!(history(&one, Way::Received).await?, received);
    let sent = [
        row("pi-2", "pi-2 has this\nüber zwei Zeilen", "delivered"),
        row("pi-3", "pi-3 has this\nüber zwei Zeilen", "delivered"),
        row(client, "for the P2SN program", ""),
        row("bob@pi-1", "for bob, from the node", "delivered"),
        row("pi-2", "it waits", ""),
        row("carol@pi-2", "for carol, from the node", ""),
    ];
    assert_eq!(history(&one, Way::Sent).await?, sent);
    let waiting: Vec<_> = one.client.outbox().await?;
    let waiting: Vec<_> = waiting.iter().map(|message| message.to.as_str()).collect();
    // One of them is a broadcast of alice: the answer that pi-2 has it was cut off.
    assert_eq!(waiting, [client, "pi-2", "pi-2", "pi-2", "carol@pi-2"]);
    let peers = one.client.peers().await?;
    let peers: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(peers, ["pi-1", "pi-2"]);
    let invites = one.client.invites().await?;
    let invites: Vec<_> = invites
        .iter()
        .map(|invite| invite.name.as_deref())
        .collect();
    assert_eq!(invites, [Some("garden")]);
    let who = one.client.who().await?;
    let users = who
        .iter()
        .filter(|who| who.gateway.as_deref() == Some("syft"));
    let users: Vec<_> = users
        .map(|user| (user.name.as_str(), user.node.as_str()))
        .collect();
    assert_eq!(
        users,
        [("alice", "pi-1"), ("bob", "pi-1"), ("carol", "pi-2")]
    );
    let bob = who.iter().find(|who| who.name == "bob");
    assert_eq!(bob.map(|bob| bob.waiting), Some(2));
    let (_, keys, _) = pimesh(&one.home, &["--json", "p2sn", "keys"]).await?;
    let keys: Vec<P2snKey> = keys
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let keys: Vec<_> = keys
        .iter()
        .map(|key| (key.address.as_str(), &key.fingerprint[..8], key.bits))
        .collect();
    assert_eq!(
        keys,
        [
            ("127.0.0.1", "2a01f6f4", 2048),
            ("127.0.0.1:46643", "d17c5317", 2048)
        ]
    );
    for gateway in [Gateway::Iid, Gateway::P2sn, Gateway::Syft] {
        opened(&one, gateway).await?;
    }
    let (_, allowed, _) = pimesh(&one.home, &["gateway", "iid", "list"]).await?;
    ensure!(
        allowed.contains("0xaeC963aC8DF14a807ab97715c564b7bD3973503A"),
        "{allowed}"
    );

    // The other node comes back with today's program as well.
    let address = one.ready.split(' ').find(|word| word.contains("/tcp/"));
    let address = address.context("an address")?;
    let settings = world.home("pi-2").join("pimesh.toml");
    let text = fs::read_to_string(&settings)?;
    let text = text.replace(
        "\npeers = []",
        &format!("\npeers = [\"{address}/p2p/{PI_1}\"]"),
    );
    fs::write(&settings, text)?;
    let two = world.start("pi-2").await?;
    eventually("what waited", async || {
        let rows = one.client.outbox().await?;
        ensure!(rows.len() == 1, "{rows:?}");
        Ok(())
    })
    .await?;
    let texts = two.inbox().await?.into_iter().map(|row| row.text);
    assert_eq!(
        texts.collect::<Vec<_>>(),
        ["pi-2 has this\nüber zwei Zeilen", "by P2SN", "it waits"]
    );

    let mut agents = Agents::start().await?;
    for (pi, user, seed, expected) in [
        (
            &one,
            "bob",
            "02",
            ["for bob", "for all", "for bob, from the node"],
        ),
        (
            &two,
            "carol",
            "03",
            ["for all", "for carol", "for carol, from the node"],
        ),
    ] {
        let url = pimesh_tests::syft::url(pi).await?;
        agents.make_with(user, user, &url, &seed.repeat(32)).await?;
        agents.arrive(user).await?;
        for text in expected {
            let got = agents.text(user).await?;
            assert_eq!(got, (text.to_owned(), "verified".to_owned()));
        }
        assert!(agents.has_nothing_else(user), "each comes once");
    }
    Ok(())
}
