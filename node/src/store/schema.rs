//! Opening the database, and what is read from its tables at start.

use std::path::{Path, PathBuf};

use libp2p_identity::PeerId;
use rusqlite::{Connection, Row, config::DbConfig};

use super::{
    error::{Flaw, StoreError},
    migrate,
};
use crate::{
    proto::{
        iid::Index,
        mesh::{Address, MessageId, ranges::RangesError, vouched::VouchedError},
        syft::{PublicKey, UserId, letter::Fingerprint},
    },
    state::{
        date_of_history,
        io::{
            ClientName, Encoding, ForClient, Gateway, GatewayRecord, Invite, Loaded, Outgoing,
            OutgoingKind, Party, Place, RecordKey, RecordValue,
        },
        post::{LetterRecord, UserRecord},
    },
};

/// How large the log grows until it is written back, in pages of 4 KiB: 4 MiB. Writing back costs
/// two flushes, so it should be rare; the log is overwritten from its start afterwards, at its
/// full length, so that a commit does not change the file's length.
const CHECKPOINT_PAGES: i64 = 1024;

/// How long the log stays after a large change, in bytes: what a small disk can spare.
const LOG_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// What is known of a store before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing: it may be new.
    Any,
    /// Somebody has written to it.
    Written,
}

pub(super) fn open(
    path: &Path,
    past: Past,
) -> Result<(Connection, Option<Result<PathBuf, String>>), StoreError> {
    let failed = |error: rusqlite::Error| Flaw::from(error).at(path);
    let connection = Connection::open(path).map_err(failed)?;
    // A file that turns out to be of another program is left as it is when it is closed again, and a
    // store that cannot be opened keeps its log; `in_use::end` has it removed.
    let keep_log = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    keep_log.map_err(failed)?;
    let found = migrate::inspect(&connection, path)?;
    if past == Past::Written && found == migrate::Found::New {
        return Err(StoreError::Emptied(path.to_owned()));
    }
    prepare(&connection).map_err(failed)?;
    let copy = migrate::migrate(&connection, path, found)?;
    Ok((connection, copy))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_MAX, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    keep_plans(connection)
}

/// Opens the store for reading, beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        keep_plans(&connection)?;
        // The writer alone copies the log into the store and removes it (`in_use.rs`).
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| Flaw::from(error).at(path))
}

/// Has a statement planned once and not anew for each value that is bound to it: that takes longer
/// than to read a letter.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Reads the certificate of this node.
pub(super) fn load_certificate(connection: &Connection) -> Result<Option<Vec<u8>>, Flaw> {
    let sql = "SELECT value FROM meta WHERE key = 'certificate'";
    Ok(rows(connection, sql, |row| Ok(row.get(0)?))?.pop())
}

/// Reads what the state starts from.
pub(super) fn load(connection: &Connection) -> Result<Loaded, Flaw> {
    Ok(Loaded {
        certificate: load_certificate(connection)?,
        members: rows(connection, "SELECT certificate FROM members", |row| {
            Ok(row.get(0)?)
        })?,
        revocations: rows(connection, "SELECT revocation FROM revocations", |row| {
            Ok(row.get(0)?)
        })?,
        statements: rows(
            connection,
            "SELECT statement FROM statements ORDER BY kind, peer",
            |row| Ok(row.get(0)?),
        )?,
        invites: rows(
            connection,
            "SELECT secret_hash, expires_ms, name, idx, used_by, vouched, cancelled, \
             further FROM invites",
            read_invite,
        )?,
        names: rows(
            connection,
            "SELECT peer, name FROM names ORDER BY row",
            |row| Ok((peer(row, 0)?, row.get(1)?)),
        )?,
        addresses: load_addresses(connection)?,
        outbox: rows(
            connection,
            "SELECT o.id, o.recipient, o.epoch, o.sequence, o.created_ms, o.expires_ms, \
             coalesce(h.body, o.letter), o.user, coalesce(h.user, ''), h.id IS NULL \
             FROM outbox o LEFT JOIN history h ON h.id = o.id AND h.direction = 1 \
             WHERE hex(substr(o.recipient, 1, 1)) IN ('00', '12') ORDER BY o.row",
            read_outgoing,
        )?,
        marks: rows(
            connection,
            "SELECT sender, epoch, sequence FROM marks ORDER BY used",
            |row| Ok((peer(row, 0)?, number(row, 1)?, number(row, 2)?)),
        )?,
        pins: rows(
            connection,
            "SELECT peer, fingerprint, bits FROM pins",
            |row| Ok((peer(row, 0)?, bytes(row, 1)?, row.get(2)?)),
        )?,
        client_pins: rows(
            connection,
            "SELECT address, fingerprint, bits FROM client_pins ORDER BY row",
            |row| Ok((row.get(0)?, bytes(row, 1)?, row.get(2)?)),
        )?,
        for_clients: rows(
            connection,
            "SELECT o.id, o.recipient, o.created_ms, o.expires_ms, h.body, h.is_hex \
             FROM outbox o JOIN history h ON h.id = o.id AND h.direction = 1 \
             WHERE hex(substr(o.recipient, 1, 1)) NOT IN ('00', '12') ORDER BY o.row",
            read_for_client,
        )?,
        users: rows(
            connection,
            "SELECT id, door, title, key, shown, registered_ms, descriptions, taken, \
             written_ms, stays, named FROM users",
            read_user,
        )?,
        letters: rows(
            connection,
            "SELECT row, id, user, sender, author, door, at_ms, bytes FROM letters ORDER BY row",
            read_letter,
        )?,
        seen: rows(
            connection,
            "SELECT fingerprint FROM seen ORDER BY row",
            |row| Ok(Fingerprint(bytes(row, 0)?)),
        )?,
        date_ms: load_date(connection)?,
        records: load_records(connection)?,
    })
}

/// Reads what gateways keep for themselves. What is of a gateway that this program does not know stays
/// on the disk.
fn load_records(connection: &Connection) -> Result<Vec<(Gateway, GatewayRecord)>, Flaw> {
    let sql = "SELECT gateway, key, value, ends_ms FROM gateway_records";
    let read = |row: &Row<'_>| {
        let name: String = row.get(0)?;
        let (key, value): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
        let ends_ms: Option<i64> = row.get(3)?;
        let record = |gateway| {
            let record = GatewayRecord {
                key: RecordKey::new(key).ok()?,
                value: RecordValue::new(value).ok()?,
                ends_ms: ends_ms.map(i64::cast_unsigned),
            };
            Some((gateway, record))
        };
        Ok(Gateway::named(&name).and_then(record))
    };
    Ok(rows(connection, sql, read)?.into_iter().flatten().collect())
}

/// Returns the date that had come when the node last ran. An earlier version did not write it; then
/// the messages tell.
fn load_date(connection: &Connection) -> Result<Option<u64>, Flaw> {
    let written = rows(
        connection,
        "SELECT value FROM meta WHERE key = 'date'",
        |row| Ok(u64::from_be_bytes(bytes(row, 0)?)),
    )?;
    if let Some(date_ms) = written.last() {
        return Ok(Some(*date_ms));
    }
    let mut dates = connection.prepare("SELECT at_ms FROM history ORDER BY at_ms")?;
    let dates = dates.query_map([], |row| row.get::<_, i64>(0))?;
    let dates = dates.collect::<rusqlite::Result<Vec<i64>>>()?;
    Ok(date_of_history(dates.into_iter().map(i64::cast_unsigned)))
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, Flaw>,
) -> Result<Vec<T>, Flaw> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn load_addresses(connection: &Connection) -> Result<Vec<(PeerId, Vec<Address>)>, Flaw> {
    let listed = rows(
        connection,
        "SELECT peer, address FROM addresses ORDER BY peer, rank",
        |row| Ok((peer(row, 0)?, Address::new(row.get::<_, String>(1)?))),
    )?;
    let mut all: Vec<(PeerId, Vec<Address>)> = Vec::new();
    for (peer, address) in listed {
        match all.last_mut() {
            Some((last, addresses)) if *last == peer => addresses.extend(address),
            _ => all.push((peer, address.into_iter().collect())),
        }
    }
    Ok(all)
}

fn read_invite(row: &Row<'_>) -> Result<Invite, Flaw> {
    let used_by: Vec<u8> = row.get(4)?;
    let name: String = row.get(2)?;
    Ok(Invite {
        secret_hash: bytes(row, 0)?,
        expires_ms: number(row, 1)?,
        name: (!name.is_empty()).then_some(name),
        index: Index(row.get(3)?),
        vouched: row
            .get::<_, String>(5)?
            .parse()
            .map_err(|e: VouchedError| Flaw::Illegal(e.to_string()))?,
        used_by: if used_by.is_empty() {
            None
        } else {
            Some(peer(row, 4)?)
        },
        cancelled: row.get(6)?,
        further: row
            .get::<_, String>(7)?
            .parse()
            .map_err(|e: RangesError| Flaw::Illegal(e.to_string()))?,
    })
}

fn read_outgoing(row: &Row<'_>) -> Result<Outgoing, Flaw> {
    Ok(Outgoing {
        id: MessageId(bytes(row, 0)?),
        recipient: place(row, 1)?,
        epoch: number(row, 2)?,
        sequence: number(row, 3)?,
        created_ms: number(row, 4)?,
        expires_ms: number(row, 5)?,
        text: row.get(6)?,
        kind: if row.get(9)? {
            OutgoingKind::Letter
        } else {
            let user: String = row.get(7)?;
            if user.is_empty() {
                OutgoingKind::Member
            } else {
                let name = row.get(8)?;
                match user.strip_prefix(CLIENT_MARK) {
                    Some(client) => OutgoingKind::Client {
                        client: self::client(client.as_bytes().to_vec())?,
                        name,
                    },
                    None => OutgoingKind::User {
                        user: user_id(&user)?,
                        name,
                    },
                }
            }
        },
    })
}

fn read_for_client(row: &Row<'_>) -> Result<ForClient, Flaw> {
    Ok(ForClient {
        id: MessageId(bytes(row, 0)?),
        client: client(row.get(1)?)?,
        created_ms: number(row, 2)?,
        expires_ms: number(row, 3)?,
        text: row.get(4)?,
        encoding: encoding(row.get(5)?),
    })
}

/// What stands in front of a client's name in `outbox.user`; no user's id has it.
pub(super) const CLIENT_MARK: char = '|';

pub(super) const fn encoding(is_hex: bool) -> Encoding {
    if is_hex {
        Encoding::Hex
    } else {
        Encoding::Utf8
    }
}

fn place(row: &Row<'_>, column: usize) -> Result<Place, Flaw> {
    let place = Place::from_bytes(&row.get::<_, Vec<u8>>(column)?);
    place.ok_or_else(|| Flaw::Illegal("neither a peer id nor a server".to_owned()))
}

/// Reads the other side of a message.
pub(super) fn party(row: &Row<'_>, column: usize) -> Result<Party, Flaw> {
    let bytes: Vec<u8> = row.get(column)?;
    match Place::from_bytes(&bytes) {
        Some(place) => Ok(place.into()),
        None => client(bytes).map(Party::Client),
    }
}

/// Returns how the other side of a message is stored.
pub(super) fn party_bytes(party: &Party) -> Vec<u8> {
    match party {
        Party::Member(peer) => Place::Node(*peer).to_bytes(),
        Party::Server(server) => Place::Server(*server).to_bytes(),
        Party::Client(name) => name.as_str().as_bytes().to_vec(),
    }
}

fn client(bytes: Vec<u8>) -> Result<ClientName, Flaw> {
    let text = String::from_utf8(bytes).ok();
    text.and_then(ClientName::new)
        .ok_or_else(|| Flaw::Illegal("a message is of nobody".to_owned()))
}

fn read_user(row: &Row<'_>) -> Result<UserRecord, Flaw> {
    let shown: Vec<u8> = row.get(4)?;
    let texts: String = row.get(6)?;
    Ok(UserRecord {
        id: user_id(&row.get::<_, String>(0)?)?,
        place: place(row, 1)?,
        title: row.get(2)?,
        key: public_key(&bytes(row, 3)?)?,
        shown: if shown.is_empty() {
            None
        } else {
            Some(public_key(&bytes(row, 4)?)?)
        },
        registered_ms: number(row, 5)?,
        descriptions: serde_json::from_str(&texts).map_err(|e| Flaw::Illegal(e.to_string()))?,
        taken: number(row, 7)?,
        written_ms: number(row, 8)?,
        stays: row.get(9)?,
        holds_name: row.get(10)?,
    })
}

fn read_letter(row: &Row<'_>) -> Result<LetterRecord, Flaw> {
    let user = |column| -> Result<Option<UserId>, Flaw> {
        let text: String = row.get(column)?;
        (!text.is_empty()).then(|| user_id(&text)).transpose()
    };
    Ok(LetterRecord {
        row: number(row, 0)?,
        id: MessageId(bytes(row, 1)?),
        user: user(2)?,
        sender: user(3)?,
        from: row.get(4)?,
        node: peer(row, 5)?,
        at_ms: number(row, 6)?,
        bytes: usize::try_from(number(row, 7)?).unwrap_or(usize::MAX),
        // What a repetition would have in common is read with the others, in their order.
        fingerprint: Fingerprint([0; 16]),
        frame: String::new(),
    })
}

fn user_id(text: &str) -> Result<UserId, Flaw> {
    text.parse()
        .map_err(|e: crate::proto::syft::UserIdError| Flaw::Illegal(e.to_string()))
}

fn public_key(bytes: &[u8; 32]) -> Result<PublicKey, Flaw> {
    PublicKey::from_bytes(bytes).map_err(|e| Flaw::Illegal(e.to_string()))
}

pub(super) fn peer(row: &Row<'_>, column: usize) -> Result<PeerId, Flaw> {
    let bytes: Vec<u8> = row.get(column)?;
    PeerId::from_bytes(&bytes).map_err(|e| Flaw::Illegal(e.to_string()))
}

pub(super) fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> Result<[u8; N], Flaw> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes
        .try_into()
        .map_err(|_| Flaw::Illegal(format!("column {column} is not {N} bytes")))
}

/// SQLite's integers are signed; ours keep their bits.
pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64, Flaw> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}
