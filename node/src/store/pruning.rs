//! What of the history is deleted, and how its room goes back to the disk.

use rusqlite::{Connection, Savepoint, params};

use super::history::{WANTED, with_values};
use crate::state::{CLOCK_SET_MS, io::Selection};

/// Messages that wait in the outbox stay, whatever is deleted.
pub(super) const NOT_WAITING: &str =
    "NOT (direction = 1 AND EXISTS (SELECT 1 FROM outbox o WHERE o.id = history.id))";

/// Free pages of 4 KiB that stay in the file for what comes next: 1 MiB.
const PAGES_KEPT: i64 = 256;

/// Pages that are given back at a time, 1 MiB: records that came meanwhile wait no longer than that
/// takes.
const PAGES_AT_ONCE: i64 = 256;

/// What one source has in the history: its key in `totals`, and the weight of its rows.
type Total = (Vec<u8>, i64);

/// Deletes history that is older than `before_ms`; then, as long as the rest weighs more than
/// `bytes_max`, the oldest messages of the source that has most, so that no source pushes out what
/// came from one that has less.
pub(super) fn prune(to: &Savepoint<'_>, before_ms: u64, bytes_max: u64) -> rusqlite::Result<()> {
    if let Some(dates) = too_old(before_ms) {
        // There is no index on the time: this reads the whole table.
        to.execute(
            &format!("DELETE FROM history WHERE at_ms >= ?1 AND at_ms < ?2 AND {NOT_WAITING}"),
            dates.map(u64::cast_signed),
        )?;
    }
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    // Sources of which nothing can be deleted, because all of it waits in the outbox.
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut totals = to.prepare_cached("SELECT source, bytes FROM totals")?;
        let totals = totals.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let totals = totals.collect::<rusqlite::Result<Vec<Total>>>()?;
        let sum: i64 = totals.iter().map(|(_, bytes)| bytes).sum();
        let excess = sum - bytes_max;
        let (fixed, mut rest): (Vec<Total>, Vec<Total>) = totals
            .into_iter()
            .partition(|(source, _)| waiting.contains(source));
        let fixed: i64 = fixed.iter().map(|(_, bytes)| bytes).sum();
        rest.sort_unstable_by_key(|(_, bytes)| *bytes);
        let fair = fair_share(&rest, bytes_max - fixed);
        let Some((source, bytes)) = rest.pop().filter(|_| excess > 0) else {
            return Ok(());
        };
        if !delete_oldest(to, &source, excess.min((bytes - fair).max(1)))? {
            waiting.push(source);
        }
    }
}

/// Returns from when until when a message has to have come to be too old; nothing if none is. What
/// is dated by a clock that was not set has no age.
fn too_old(before_ms: u64) -> Option<[u64; 2]> {
    (before_ms > CLOCK_SET_MS).then_some([CLOCK_SET_MS, before_ms])
}

/// Dates what came while the clock was not set.
pub(super) fn restamp(to: &Savepoint<'_>, unix_ms: u64) -> rusqlite::Result<()> {
    let dates = [unix_ms, CLOCK_SET_MS].map(u64::cast_signed);
    to.execute("UPDATE history SET at_ms = ?1 WHERE at_ms < ?2", dates)?;
    to.execute("UPDATE letters SET at_ms = ?1 WHERE at_ms < ?2", dates)?;
    Ok(())
}

/// Returns how much each source may keep so that all together have at most `bytes_max`: those with
/// less keep all, and leave the rest to the others. The sources come in the order of what they have.
fn fair_share(totals: &[Total], bytes_max: i64) -> i64 {
    let mut left = bytes_max.max(0);
    for (sharing, (_, bytes)) in (1..=totals.len()).rev().zip(totals) {
        let share = left / i64::try_from(sharing).unwrap_or(i64::MAX);
        if *bytes > share {
            return share;
        }
        left -= bytes;
    }
    left
}

/// Deletes the oldest messages of a source until they weigh at least so much; returns whether there
/// was one.
fn delete_oldest(to: &Savepoint<'_>, source: &[u8], bytes: i64) -> rusqlite::Result<bool> {
    let mut oldest = to.prepare_cached(&format!(
        "SELECT row, weight FROM history WHERE source = ?1 AND {NOT_WAITING} ORDER BY row"
    ))?;
    let mut rows = oldest.query([source])?;
    let (mut left, mut last) = (bytes, None);
    while left > 0
        && let Some(row) = rows.next()?
    {
        last = Some(row.get::<_, i64>(0)?);
        left -= row.get::<_, i64>(1)?;
    }
    drop(rows);
    let mut delete = to.prepare_cached(&format!(
        "DELETE FROM history WHERE source = ?1 AND row <= ?2 AND {NOT_WAITING}"
    ))?;
    Ok(delete.execute(params![source, last.unwrap_or_default()])? > 0)
}

/// Deletes the messages that a person chose.
pub(super) fn delete(to: &Savepoint<'_>, chosen: &Selection) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM history WHERE {WANTED} AND {NOT_WAITING}");
    let mut delete = to.prepare_cached(&sql)?;
    with_values(chosen, &[], |values| delete.execute(values)).map(drop)
}

/// What became of free pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenBack {
    /// Whether any went back to the file system.
    pub(super) any: bool,
    /// Whether there are more.
    pub(super) has_more: bool,
}

/// Gives some free pages back to the file system.
pub(super) fn give_back(connection: &Connection) -> rusqlite::Result<GivenBack> {
    let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let more = (free - PAGES_KEPT).min(PAGES_AT_ONCE);
    if more > 0 {
        // Each step gives one page back.
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({more})"))?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
    }
    let is_done = free - PAGES_KEPT <= PAGES_AT_ONCE;
    if is_done {
        // The file itself becomes shorter when the log is written back.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    }
    Ok(GivenBack {
        any: more > 0,
        has_more: !is_done,
    })
}

#[cfg(test)]
mod tests {
    use super::{fair_share, too_old};
    use crate::state::CLOCK_SET_MS;

    #[test]
    fn the_table_is_read_for_the_age_of_messages_only_if_some_may_be_too_old() {
        assert_eq!(too_old(0), None);
        assert_eq!(too_old(CLOCK_SET_MS), None);
        let year = CLOCK_SET_MS + 365 * 86_400_000;
        assert_eq!(too_old(year), Some([CLOCK_SET_MS, year]));
    }

    #[test]
    fn those_with_less_keep_all_and_the_others_share_the_rest() {
        let totals = |bytes: &[i64]| bytes.iter().map(|b| (Vec::new(), *b)).collect::<Vec<_>>();

        assert_eq!(fair_share(&totals(&[10, 20, 500, 600]), 1_030), 500);
        assert_eq!(fair_share(&totals(&[10, 20, 500, 600]), 530), 250);
        assert_eq!(fair_share(&totals(&[10, 20]), 100), 70);
        assert_eq!(fair_share(&totals(&[10, 20]), -5), 0);
    }
}
