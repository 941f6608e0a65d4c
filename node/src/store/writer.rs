//! The thread that writes.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Savepoint, params};

use super::{Completion, schema::party_bytes};
use crate::state::io::{ForClient, Incoming, Invite, Outcome, Outgoing, Record, Ticket, Via};

/// Most tickets in one commit.
const TICKETS_MAX: usize = 1024;

/// How long records that nobody waits for are held back, to share the commit of others. A flush of
/// the disk for them alone would stand in the way of the next message.
const LAZY_TIME: Duration = Duration::from_millis(25);

/// Most numberings kept of one sender: as many as the state remembers.
const EPOCHS_PER_SENDER_MAX: i64 = 1000;

/// Most pages given back to the file system after one pruning: 16 MiB.
const VACUUM_PAGES: u32 = 4096;

/// Writes groups until the queue is closed.
pub(super) fn run(
    mut connection: Connection,
    queue: &Receiver<(Ticket, Vec<Record>)>,
    done: &dyn Fn(Completion),
) {
    while let Ok(first) = queue.recv() {
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
        for completion in commit(&mut connection, &group) {
            done(completion);
        }
    }
}

/// Says whether nothing is lost if a power cut comes before these records: a message whose end is
/// forgotten is sent again, and known to its recipient.
fn are_lazy(records: &[Record]) -> bool {
    let is_lazy = |r: &Record| matches!(r, Record::Outcome { .. } | Record::Prune { .. });
    records.iter().all(is_lazy)
}

/// Writes a group with one commit. A ticket that fails takes no other with it, unless the commit
/// itself fails.
fn commit(connection: &mut Connection, group: &[(Ticket, Vec<Record>)]) -> Vec<Completion> {
    match try_commit(connection, group) {
        Ok(completions) => completions,
        Err(error) => {
            let reason = error.to_string();
            group
                .iter()
                .map(|(ticket, _)| Completion::Failed(*ticket, reason.clone()))
                .collect()
        }
    }
}

fn try_commit(
    connection: &mut Connection,
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
                Completion::Failed(*ticket, error.to_string())
            }
        });
    }
    transaction.commit()?;
    if group
        .iter()
        .any(|(_, records)| records.iter().any(|r| matches!(r, Record::Prune { .. })))
    {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    }
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
            to.execute_batch(
                "DELETE FROM members; DELETE FROM revocations; DELETE FROM invites; \
                 DELETE FROM pins;",
            )?;
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
        Record::Invite(invite) => write_invite(to, invite)?,
        Record::ForgetInvite { secret_hash } => {
            to.prepare_cached("DELETE FROM invites WHERE secret_hash = ?1")?
                .execute([secret_hash])?;
        }
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
            .execute(params![id.0, outcome_text(outcome), at_ms.cast_signed()])?;
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
        Record::Prune {
            before_ms,
            bytes_max,
        } => prune(to, *before_ms, *bytes_max)?,
    }
    Ok(())
}

fn write_invite(to: &Savepoint<'_>, invite: &Invite) -> rusqlite::Result<()> {
    to.prepare_cached("INSERT OR REPLACE INTO invites VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
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
        ])?;
    Ok(())
}

fn write_outgoing(to: &Savepoint<'_>, message: &Outgoing) -> rusqlite::Result<()> {
    to.prepare_cached(
        "INSERT INTO outbox (id, recipient, epoch, sequence, created_ms, expires_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        message.id.0,
        message.recipient.to_bytes(),
        message.epoch.cast_signed(),
        message.sequence.cast_signed(),
        message.created_ms.cast_signed(),
        message.expires_ms.cast_signed(),
    ])?;
    to.prepare_cached(
        "INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body) \
         VALUES (?1, 1, ?2, ?3, ?3, 'direct', ?4)",
    )?
    .execute(params![
        message.id.0,
        message.recipient.to_bytes(),
        message.created_ms.cast_signed(),
        message.text,
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
        "INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body) \
         VALUES (?1, 1, ?2, ?3, ?3, 'p2sn', ?4)",
    )?
    .execute(params![
        message.id.0,
        client,
        message.created_ms.cast_signed(),
        message.text,
    ])?;
    Ok(())
}

fn write_incoming(to: &Savepoint<'_>, message: &Incoming) -> rusqlite::Result<()> {
    let sender = party_bytes(&message.sender);
    let via = match message.via {
        Via::Direct => "direct",
        Via::P2sn => "p2sn",
    };
    to.prepare_cached(
        "INSERT INTO history (id, direction, peer, created_ms, at_ms, via, body) \
         VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        message.id.0,
        sender,
        message.created_ms.cast_signed(),
        message.received_ms.cast_signed(),
        via,
        message.text,
    ])?;
    let Some((epoch, sequence)) = message.mark else {
        return Ok(());
    };
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

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Refused(why) => format!("refused: {why}"),
    }
}

/// Rows that are deleted at a time when the history is too large.
const PRUNE_ROWS: i64 = 256;

fn prune(to: &Savepoint<'_>, before_ms: u64, bytes_max: u64) -> rusqlite::Result<()> {
    const NOT_WAITING: &str =
        "NOT (direction = 1 AND EXISTS (SELECT 1 FROM outbox o WHERE o.id = history.id))";
    to.execute(
        &format!("DELETE FROM history WHERE at_ms < ?1 AND {NOT_WAITING}"),
        [before_ms.cast_signed()],
    )?;
    loop {
        let bytes: i64 = to.query_row("SELECT bytes FROM totals", [], |row| row.get(0))?;
        if bytes <= bytes_max.cast_signed() {
            return Ok(());
        }
        let deleted = to.execute(
            &format!(
                "DELETE FROM history WHERE row IN \
                 (SELECT row FROM history WHERE {NOT_WAITING} ORDER BY row LIMIT ?1)"
            ),
            [PRUNE_ROWS],
        )?;
        if deleted == 0 {
            return Ok(());
        }
    }
}
