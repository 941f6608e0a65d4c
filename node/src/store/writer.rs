//! The thread that writes.

use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Savepoint, params};

use super::{
    Completion,
    error::Flaw,
    in_use, pruning,
    schema::{CLIENT_MARK, party_bytes},
    space::Space,
};
use crate::{
    limits::{Bucket, Rate},
    proto::syft::letter::Fingerprint,
    state::{
        FINGERPRINTS_MAX, NAMES_PER_MEMBER_MAX,
        io::{
            Disk, Encoding, ForClient, Incoming, Invite, Outgoing, OutgoingKind, Place, Record,
            RecordChange, Ticket, Via,
        },
        post::{LetterRecord, UserRecord},
    },
};

/// Most tickets in one commit.
const TICKETS_MAX: usize = 1024;

/// How long records that nobody waits for are held back, to share the commit of others. A flush of
/// the disk for them alone would stand in the way of the next message.
const LAZY_TIME: Duration = Duration::from_millis(25);

/// Most numberings kept of one sender: as many as the state remembers.
const EPOCHS_PER_SENDER_MAX: i64 = 1000;

/// The tables that belong to the mesh that the node is in, as a whole. What ends of the other tables
/// with a mesh, the state says with records of its own.
pub(super) const TABLES_OF_A_MESH: [&str; 5] = [
    "members",
    "revocations",
    "invites",
    "statements",
    "addresses",
];

/// How often the room on the disk is measured while nothing fails.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is measured at most, in a second and at once.
const MEASURE_RATE: Rate = Rate {
    per_second: 1,
    burst: 4,
};

/// Writes groups until the queue is closed. When nothing waits, free pages go back to the disk.
pub(super) fn run(
    mut connection: Connection,
    path: &Path,
    queue: &Receiver<(Ticket, Vec<Record>)>,
    done: &dyn Fn(Completion),
) {
    let started = Instant::now();
    let mut measuring = Measuring::new();
    let (mut has_free_pages, mut has_given_back) = (false, false);
    loop {
        let wait = measuring.due.saturating_sub(started.elapsed());
        match queue.recv_timeout(if has_free_pages { Duration::ZERO } else { wait }) {
            Ok(first) => {
                let group = gather(first, queue);
                has_free_pages |= group.iter().flat_map(|(_, r)| r).any(deletes_history);
                let joins = group.iter().flat_map(|(_, r)| r).any(joins_mesh);
                for completion in commit(&mut connection, path, &group) {
                    if matches!(completion, Completion::Failed(..)) {
                        measuring.soon(started.elapsed());
                    }
                    done(completion);
                }
                if joins {
                    in_use::copy_log(&connection);
                }
            }
            // Pages that could not be given back are used again.
            Err(RecvTimeoutError::Timeout) if has_free_pages => {
                let given_back = pruning::give_back(&connection).unwrap_or_default();
                has_free_pages = given_back.has_more;
                has_given_back |= given_back.any;
                if !has_free_pages && std::mem::take(&mut has_given_back) {
                    measuring.soon(started.elapsed());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return in_use::end(&connection),
        }
        if measuring.is_due(started.elapsed())
            && let Some(measured) = measure(&connection, path)
        {
            done(measured);
        }
    }
}

/// When the room on the disk is measured next. What follows from a measurement may fail and ask for
/// another one, so how often it is measured early is limited.
struct Measuring {
    /// As a time since the start.
    due: Duration,
    early: Bucket,
}

impl Measuring {
    const fn new() -> Self {
        Self {
            due: Duration::ZERO,
            early: Bucket::new(MEASURE_RATE),
        }
    }

    /// Something has changed.
    fn soon(&mut self, now: Duration) {
        self.due = self.due.min(self.early.ready_at(1, now));
    }

    /// Says whether to measure, which happens then.
    fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.early.take(now);
            self.due = now + MEASURE_INTERVAL;
        }
        is_due
    }
}

/// Takes what waits behind a first ticket into the same commit.
fn gather(
    first: (Ticket, Vec<Record>),
    queue: &Receiver<(Ticket, Vec<Record>)>,
) -> Vec<(Ticket, Vec<Record>)> {
    let mut group = vec![first];
    let until = Instant::now() + LAZY_TIME;
    while group.len() < TICKETS_MAX
        && group.iter().all(|(_, records)| are_lazy(records))
        && let Ok(next) = queue.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        group.push(next);
    }
    group.extend(
        queue
            .try_iter()
            .take(TICKETS_MAX.saturating_sub(group.len())),
    );
    group
}

const fn deletes_history(record: &Record) -> bool {
    matches!(record, Record::Prune { .. } | Record::DeleteHistory(_))
}

const fn joins_mesh(record: &Record) -> bool {
    matches!(record, Record::JoinedMesh { .. })
}

/// Measures what the history weighs and what room the disk has.
fn measure(connection: &Connection, path: &Path) -> Option<Completion> {
    let number = |sql| {
        let number = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        number.ok().map(i64::cast_unsigned)
    };
    let free_pages = number("PRAGMA freelist_count")?;
    let space = Space::of(path).ok();
    let free_bytes = space.map_or(0, |space| space.free_bytes);
    Some(Completion::Measured(Disk {
        // Free pages of the file are used before the file grows.
        free_bytes: free_bytes
            .saturating_add(free_pages.saturating_mul(number("PRAGMA page_size")?)),
        size_bytes: space.map_or(0, |space| space.size_bytes),
        history_bytes: number("SELECT coalesce(sum(bytes), 0) FROM totals")?,
    }))
}

/// Says whether nothing is lost if a power cut comes before these records: a message whose end is
/// forgotten is sent again, and known to its recipient; a client gets its last letters once more.
fn are_lazy(records: &[Record]) -> bool {
    let is_lazy = |r: &Record| {
        matches!(
            r,
            Record::Outcome { .. }
                | Record::Prune { .. }
                | Record::Restamp { .. }
                | Record::Date { .. }
                | Record::Read { .. }
                | Record::LettersTaken { .. }
                | Record::LettersGone { .. }
        )
    };
    records.iter().all(is_lazy)
}

/// Writes a group with one commit. A ticket that fails takes no other with it, unless the commit
/// itself fails.
fn commit(
    connection: &mut Connection,
    path: &Path,
    group: &[(Ticket, Vec<Record>)],
) -> Vec<Completion> {
    match try_commit(connection, path, group) {
        Ok(completions) => completions,
        Err(error) => {
            let reason = Flaw::from(error).text(path);
            group
                .iter()
                .map(|(ticket, _)| Completion::Failed(*ticket, reason.clone()))
                .collect()
        }
    }
}

fn try_commit(
    connection: &mut Connection,
    path: &Path,
    group: &[(Ticket, Vec<Record>)],
) -> rusqlite::Result<Vec<Completion>> {
    let mut transaction = connection.transaction()?;
    let mut completions = Vec::with_capacity(group.len());
    for (ticket, records) in group {
        let savepoint = transaction.savepoint()?;
        completions.push(match write_all(&savepoint, records) {
            Ok(()) => {
                savepoint.commit()?;
                Completion::Stored(*ticket)
            }
            Err(error) => {
                // Dropped without commit, a savepoint is rolled back.
                drop(savepoint);
                Completion::Failed(*ticket, Flaw::from(error).text(path))
            }
        });
    }
    transaction.commit()?;
    Ok(completions)
}

fn write_all(savepoint: &Savepoint<'_>, records: &[Record]) -> rusqlite::Result<()> {
    records
        .iter()
        .try_for_each(|record| write(savepoint, record))
}

fn write(to: &Savepoint<'_>, record: &Record) -> rusqlite::Result<()> {
    match record {
        Record::JoinedMesh { certificate } => {
            for table in TABLES_OF_A_MESH {
                to.execute(&format!("DELETE FROM {table}"), [])?;
            }
            to.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('certificate', ?1)")?
                .execute([certificate])?;
        }
        Record::Renewed { certificate } => {
            to.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('certificate', ?1)")?
                .execute([certificate])?;
        }
        Record::Member { peer, certificate } => {
            to.prepare_cached("INSERT OR REPLACE INTO members VALUES (?1, ?2)")?
                .execute(params![peer.to_bytes(), certificate])?;
        }
        Record::Revocation { peer, revocation } => {
            to.prepare_cached("INSERT OR REPLACE INTO revocations VALUES (?1, ?2)")?
                .execute(params![peer.to_bytes(), revocation])?;
        }
        Record::Statement {
            kind,
            peer,
            statement,
        } => {
            to.prepare_cached("INSERT OR REPLACE INTO statements VALUES (?1, ?2, ?3)")?
                .execute(params![kind, peer.to_bytes(), statement])?;
        }
        Record::Invite(invite) => write_invite(to, invite)?,
        Record::ForgetInvite { secret_hash } => {
            to.prepare_cached("DELETE FROM invites WHERE secret_hash = ?1")?
                .execute([secret_hash])?;
        }
        Record::Name { peer, name } => write_name(to, &peer.to_bytes(), name)?,
        Record::Addresses { peer, addresses } => {
            to.prepare_cached("DELETE FROM addresses WHERE peer = ?1")?
                .execute([peer.to_bytes()])?;
            let mut insert = to.prepare_cached("INSERT INTO addresses VALUES (?1, ?2, ?3)")?;
            for (rank, address) in (0i64..).zip(addresses) {
                insert.execute(params![peer.to_bytes(), rank, address.as_str()])?;
            }
        }
        Record::Outgoing(message) => write_outgoing(to, message)?,
        Record::Outcome { id, outcome, at_ms } => {
            to.prepare_cached("DELETE FROM outbox WHERE id = ?1")?
                .execute([id.0])?;
            to.prepare_cached(
                "UPDATE history SET outcome = ?2, at_ms = ?3 WHERE id = ?1 AND direction = 1",
            )?
            .execute(params![id.0, outcome.text(), at_ms.cast_signed()])?;
        }
        Record::Incoming(message) => write_incoming(to, message)?,
        Record::Pin {
            peer,
            fingerprint,
            bits,
        } => {
            to.prepare_cached("INSERT OR REPLACE INTO pins VALUES (?1, ?2, ?3)")?
                .execute(params![peer.to_bytes(), fingerprint, bits])?;
        }
        Record::ClientPin {
            address,
            fingerprint,
            bits,
        } => {
            to.prepare_cached(
                "INSERT OR REPLACE INTO client_pins (address, fingerprint, bits) \
                 VALUES (?1, ?2, ?3)",
            )?
            .execute(params![address, fingerprint, bits])?;
        }
        Record::ForgetClientPin {
            address,
            fingerprint,
        } => {
            to.prepare_cached("DELETE FROM client_pins WHERE address = ?1 AND fingerprint = ?2")?
                .execute(params![address, fingerprint])?;
        }
        Record::ForClient(message) => write_for_client(to, message)?,
        Record::Mark { sender, mark } => write_mark(to, &sender.to_bytes(), *mark)?,
        Record::User(user) => write_user(to, user)?,
        Record::ForgetUser { id, node } => {
            to.prepare_cached("DELETE FROM letters WHERE user = ?1")?
                .execute([id.as_str()])?;
            to.prepare_cached("DELETE FROM users WHERE id = ?1 AND door = ?2")?
                .execute(params![id.as_str(), node.to_bytes()])?;
        }
        Record::ForgetPin { user, server } => {
            to.prepare_cached("DELETE FROM users WHERE id = ?1 AND door = ?2")?
                .execute(params![user.as_str(), Place::from(*server).to_bytes()])?;
        }
        Record::ForgetUsersOf { node } => {
            to.prepare_cached("DELETE FROM users WHERE door = ?1")?
                .execute([node.to_bytes()])?;
        }
        Record::Letter(letter) => write_letter(to, letter)?,
        Record::Seen(fingerprint) => write_seen(to, *fingerprint)?,
        Record::LettersTaken { user, row } => {
            to.prepare_cached("DELETE FROM letters WHERE user = ?1 AND row <= ?2")?
                .execute(params![user.as_str(), row.cast_signed()])?;
            to.prepare_cached("UPDATE users SET taken = ?2 WHERE id = ?1 AND taken < ?2")?
                .execute(params![user.as_str(), row.cast_signed()])?;
        }
        Record::LettersGone { rows } => {
            let mut delete = to.prepare_cached("DELETE FROM letters WHERE row = ?1")?;
            for row in rows {
                delete.execute([row.cast_signed()])?;
            }
        }
        Record::Read { id, recipient } => {
            to.prepare_cached(
                "UPDATE history SET outcome = 'read' \
                 WHERE id = ?1 AND direction = 1 AND peer = ?2",
            )?
            .execute(params![id.0, recipient.to_bytes()])?;
        }
        Record::OfGateway(gateway, RecordChange::Put(record)) => {
            let sql = "INSERT OR REPLACE INTO gateway_records VALUES (?1, ?2, ?3, ?4)";
            to.prepare_cached(sql)?.execute(params![
                gateway.name(),
                record.key.as_bytes(),
                record.value.as_bytes(),
                record.ends_ms.map(u64::cast_signed)
            ])?;
        }
        Record::OfGateway(gateway, RecordChange::Delete(key)) => {
            let sql = "DELETE FROM gateway_records WHERE gateway = ?1 AND key = ?2";
            to.prepare_cached(sql)?
                .execute(params![gateway.name(), key.as_bytes()])?;
        }
        Record::Date { unix_ms } => {
            to.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('date', ?1)")?
                .execute([unix_ms.to_be_bytes()])?;
        }
        Record::Prune {
            before_ms,
            bytes_max,
        } => pruning::prune(to, *before_ms, *bytes_max)?,
        Record::Restamp { unix_ms } => pruning::restamp(to, *unix_ms)?,
        Record::DeleteHistory(chosen) => pruning::delete(to, chosen)?,
    }
    Ok(())
}

fn write_invite(to: &Savepoint<'_>, invite: &Invite) -> rusqlite::Result<()> {
    to.prepare_cached(
        "INSERT OR REPLACE INTO invites \
         (secret_hash, expires_ms, name, idx, used_by, vouched, cancelled, further) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        invite.secret_hash,
        invite.expires_ms.cast_signed(),
        invite.name.as_deref().unwrap_or_default(),
        invite.index.0,
        invite
            .used_by
            .map(|peer| peer.to_bytes())
            .unwrap_or_default(),
        invite.vouched.to_string(),
        invite.cancelled,
        invite.further.to_string(),
    ])?;
    Ok(())
}

/// Notes that a member is called this from the next row of the history on. Its first name holds for
/// what is there already, too.
fn write_name(to: &Savepoint<'_>, peer: &[u8], name: &str) -> rusqlite::Result<()> {
    to.prepare_cached(
        "INSERT INTO names (peer, name, from_row) VALUES (?1, ?2, \
         CASE WHEN EXISTS (SELECT 1 FROM names WHERE peer = ?1) \
         THEN coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'history'), 0) + 1 \
         ELSE 0 END)",
    )?
    .execute(params![peer, name])?;
    to.prepare_cached(
        "DELETE FROM names WHERE peer = ?1 AND row <= \
         (SELECT row FROM names WHERE peer = ?1 ORDER BY row DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![
        peer,
        i64::try_from(NAMES_PER_MEMBER_MAX).unwrap_or(i64::MAX)
    ])?;
    Ok(())
}

fn write_outgoing(to: &Savepoint<'_>, message: &Outgoing) -> rusqlite::Result<()> {
    let (user, name, letter) = match &message.kind {
        OutgoingKind::Member => (String::new(), "", ""),
        OutgoingKind::User { user, name } => (user.to_string(), name.as_str(), ""),
        OutgoingKind::Client { client, name } => {
            (format!("{CLIENT_MARK}{client}"), name.as_str(), "")
        }
        OutgoingKind::Letter => (String::new(), "", message.text.as_str()),
    };
    to.prepare_cached(
        "INSERT INTO outbox (id, recipient, epoch, sequence, created_ms, expires_ms, user, \
         letter) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        message.id.0,
        message.recipient.to_bytes(),
        message.epoch.cast_signed(),
        message.sequence.cast_signed(),
        message.created_ms.cast_signed(),
        message.expires_ms.cast_signed(),
        user,
        letter,
    ])?;
    if message.kind == OutgoingKind::Letter {
        return Ok(());
    }
    to.prepare_cached(
        "INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body, user) \
         VALUES (?1, 1, ?2, ?3, ?3, 'direct', ?4, ?5)",
    )?
    .execute(params![
        message.id.0,
        message.recipient.to_bytes(),
        message.created_ms.cast_signed(),
        message.text,
        name,
    ])?;
    Ok(())
}

fn write_for_client(to: &Savepoint<'_>, message: &ForClient) -> rusqlite::Result<()> {
    let client = message.client.as_str().as_bytes();
    to.prepare_cached(
        "INSERT INTO outbox (id, recipient, epoch, sequence, created_ms, expires_ms) \
         VALUES (?1, ?2, 0, 0, ?3, ?4)",
    )?
    .execute(params![
        message.id.0,
        client,
        message.created_ms.cast_signed(),
        message.expires_ms.cast_signed(),
    ])?;
    to.prepare_cached(
        "INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body, is_hex) \
         VALUES (?1, 1, ?2, ?3, ?3, 'p2sn', ?4, ?5)",
    )?
    .execute(params![
        message.id.0,
        client,
        message.created_ms.cast_signed(),
        message.text,
        message.encoding == Encoding::Hex,
    ])?;
    Ok(())
}

fn write_incoming(to: &Savepoint<'_>, message: &Incoming) -> rusqlite::Result<()> {
    let sender = party_bytes(&message.sender);
    let via = match message.via {
        Via::Direct => "direct",
        Via::P2sn => "p2sn",
        Via::Syft => "syft",
    };
    // The same message once more, of a numbering that was forgotten: it is stored.
    to.prepare_cached(
        "INSERT OR IGNORE INTO history (id, direction, peer, created_ms, at_ms, via, body, user, is_hex) \
         VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        received_key(message, &sender),
        sender,
        message.created_ms.cast_signed(),
        message.received_ms.cast_signed(),
        via,
        message.text,
        message.user.as_deref().unwrap_or_default(),
        message.encoding == Encoding::Hex,
    ])?;
    message
        .mark
        .map_or(Ok(()), |mark| write_mark(to, &sender, mark))
}

/// Returns what a received message is stored under: its id, and what makes it another one than a
/// message with the same id that another sender made.
fn received_key(message: &Incoming, sender: &[u8]) -> Vec<u8> {
    let mut key = message.id.0.to_vec();
    if let Some((epoch, sequence)) = message.mark {
        key.extend_from_slice(sender);
        key.extend_from_slice(&epoch.to_be_bytes());
        key.extend_from_slice(&sequence.to_be_bytes());
    }
    key
}

fn write_mark(
    to: &Savepoint<'_>,
    sender: &[u8],
    (epoch, sequence): (u64, u64),
) -> rusqlite::Result<()> {
    to.prepare_cached(
        "INSERT OR REPLACE INTO marks (sender, epoch, sequence) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![sender, epoch.cast_signed(), sequence.cast_signed()])?;
    to.prepare_cached(
        "DELETE FROM marks WHERE sender = ?1 AND used <= \
         (SELECT used FROM marks WHERE sender = ?1 ORDER BY used DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![sender, EPOCHS_PER_SENDER_MAX])?;
    Ok(())
}

fn write_user(to: &Savepoint<'_>, user: &UserRecord) -> rusqlite::Result<()> {
    let texts = serde_json::to_string(&user.descriptions).expect("texts are JSON");
    // What a user has already is known better by the table than by a record of his descriptions.
    to.prepare_cached(
        "INSERT INTO users (id, door, title, key, shown, registered_ms, descriptions, taken, \
         written_ms, stays, named) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (id, door) DO UPDATE SET title = ?3, key = ?4, shown = ?5, \
         descriptions = ?7, written_ms = ?9, stays = ?10, named = ?11",
    )?
    .execute(params![
        user.id.as_str(),
        user.place.to_bytes(),
        user.title,
        user.key.as_bytes(),
        user.shown
            .map(|key| key.as_bytes().to_vec())
            .unwrap_or_default(),
        user.registered_ms.cast_signed(),
        texts,
        user.taken.cast_signed(),
        user.written_ms.cast_signed(),
        user.stays,
        user.holds_name,
    ])?;
    Ok(())
}

fn write_letter(to: &Savepoint<'_>, letter: &LetterRecord) -> rusqlite::Result<()> {
    let text = |user: &Option<crate::proto::syft::UserId>| {
        user.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    to.prepare_cached("INSERT INTO letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            letter.row.cast_signed(),
            letter.id.0,
            text(&letter.user),
            text(&letter.sender),
            letter.from,
            letter.node.to_bytes(),
            letter.at_ms.cast_signed(),
            i64::try_from(letter.bytes).unwrap_or(i64::MAX),
            letter.frame,
        ])?;
    write_seen(to, letter.fingerprint)
}

fn write_seen(to: &Savepoint<'_>, fingerprint: Fingerprint) -> rusqlite::Result<()> {
    to.prepare_cached("INSERT OR IGNORE INTO seen (fingerprint) VALUES (?1)")?
        .execute([fingerprint.0])?;
    to.prepare_cached("DELETE FROM seen WHERE row <= (SELECT max(row) FROM seen) - ?1")?
        .execute([i64::try_from(FINGERPRINTS_MAX).unwrap_or(i64::MAX)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_without_end_are_measured_once_a_second_and_the_first_ones_at_once() {
        let mut measuring = Measuring::new();
        let mut measured = Vec::new();

        for now in (0..10_000).map(Duration::from_millis) {
            measuring.soon(now);
            if measuring.is_due(now) {
                measured.push(now.as_millis());
            }
        }

        let expected = [
            0, 1, 2, 3, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
        ];
        assert_eq!(measured, expected);
    }

    #[test]
    fn where_nothing_happens_it_is_measured_every_ten_seconds() {
        let mut measuring = Measuring::new();

        let all = (0..35).map(Duration::from_secs);
        let measured = all.filter(|now| measuring.is_due(*now));

        let measured: Vec<u64> = measured.map(|now| now.as_secs()).collect();
        assert_eq!(measured, [0, 10, 20, 30]);
    }
}
