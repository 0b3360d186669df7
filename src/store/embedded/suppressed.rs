//! Duplicates that were answered, on their way into the ledger. They are written behind the answers,
//! in batches; whoever reads the ledger has them written first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, params};

use super::counters::Metric;
use super::lifecycle::find;
use super::step::{Sql, Step};
use crate::domain::principal::UserId;
use crate::domain::task::TaskId;
use crate::store::{Found, LedgerEntry, MatchedBy};

/// One answered duplicate.
pub struct Suppressed {
    pub seq: i64,
    pub user: UserId,
    pub entry: LedgerEntry,
    /// Whether the task had ended, so that no execution was needed.
    pub cache_hit: bool,
    pub bytes_not_sent: u64,
    pub bytes_not_stored: u64,
}

#[derive(Default)]
pub struct Notes(Mutex<Pending>);

/// What waits to be written.
#[derive(Default)]
pub struct Pending {
    suppressed: Vec<Suppressed>,
    /// By task, what `suppressed` holds.
    counts: HashMap<i64, u64>,
    latencies: Vec<(UserId, Duration)>,
}

impl Notes {
    /// Notes that wait at most; when the store cannot be written, further ones are only counted in the log.
    const WAITING_MAX: usize = 200_000;

    pub fn suppressed(&self, suppressed: Suppressed) {
        let mut pending = self.lock();
        if pending.suppressed.len() >= Self::WAITING_MAX {
            return;
        }
        *pending.counts.entry(suppressed.seq).or_default() += 1;
        pending.suppressed.push(suppressed);
    }

    pub fn submit_latency(&self, user: &UserId, took: Duration) {
        let mut pending = self.lock();
        if pending.latencies.len() < Self::WAITING_MAX {
            pending.latencies.push((user.clone(), took));
        }
    }

    /// Duplicates of the task that wait to be written.
    pub fn waiting(&self, seq: i64) -> u64 {
        self.lock().counts.get(&seq).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        let pending = self.lock();
        pending.suppressed.is_empty() && pending.latencies.is_empty()
    }

    /// Writes everything that waits.
    pub fn write(&self, step: &mut Step<'_>) -> rusqlite::Result<()> {
        let taken = std::mem::take(&mut *self.lock());
        for (user, took) in &taken.latencies {
            step.effects.counters.latency(user, Metric::Submit, *took);
        }
        let mut by_task: HashMap<i64, Vec<&Suppressed>> = HashMap::new();
        for one in &taken.suppressed {
            tally(step, one);
            by_task.entry(one.seq).or_default().push(one);
        }
        let written = by_task
            .iter()
            .try_for_each(|(seq, suppressed)| write_ledger(step, *seq, suppressed));
        step.effects.written.absorb(taken);
        written
    }

    /// What was taken to be written, and was not.
    pub fn put_back(&self, mut written: Pending) {
        let mut pending = self.lock();
        written.absorb(std::mem::take(&mut *pending));
        *pending = written;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn absorb(&mut self, later: Pending) {
        self.suppressed.extend(later.suppressed);
        self.latencies.extend(later.latencies);
        for (seq, count) in later.counts {
            *self.counts.entry(seq).or_default() += count;
        }
    }
}

fn tally(step: &mut Step<'_>, one: &Suppressed) {
    let Suppressed {
        entry,
        cache_hit,
        bytes_not_sent,
        bytes_not_stored,
        ..
    } = one;
    step.tally(&one.user, |tally| {
        match entry.matched_by {
            MatchedBy::IdempotencyKey => tally.duplicates_by_key += 1,
            MatchedBy::Fingerprint | MatchedBy::DedupBy => tally.duplicates_by_fingerprint += 1,
        }
        tally.cache_hits += u64::from(*cache_hit);
        tally.saved_executions += 1;
        tally.saved_ms += entry.saved_ms();
        tally.saved_bytes_not_sent += bytes_not_sent;
        tally.saved_bytes_not_stored += bytes_not_stored;
    });
}

fn write_ledger(step: &mut Step<'_>, seq: i64, suppressed: &[&Suppressed]) -> rusqlite::Result<()> {
    let added = suppressed.len() as i64;
    let total: Option<i64> = step
        .sql
        .prepare_cached("UPDATE task SET duplicates = duplicates + ?2 WHERE seq = ?1 AND state < 7 RETURNING duplicates")?
        .query_row(params![seq, added], |row| row.get(0))
        .optional()?;
    // A forgotten task has no ledger any more.
    let Some(total) = total else { return Ok(()) };
    let kept = LedgerEntry::KEPT_MAX;
    let first = total - added + 1;
    for (n, one) in (first..)
        .zip(suppressed)
        .skip(suppressed.len().saturating_sub(kept))
    {
        let entry = serde_json::to_string(&one.entry)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        step.sql.execute(
            "INSERT OR REPLACE INTO ledger VALUES (?1, ?2, ?3)",
            params![seq, n, entry],
        )?;
    }
    if total > kept as i64 {
        step.sql.execute(
            "DELETE FROM ledger WHERE task = ?1 AND n <= ?2",
            params![seq, total - kept as i64],
        )?;
    }
    Ok(())
}

/// The newest entries of a task, newest first.
pub fn ledger(
    sql: &Sql<'_>,
    user: &UserId,
    id: &TaskId,
) -> rusqlite::Result<Found<Vec<LedgerEntry>>> {
    let record = match find(sql, user, id)? {
        Ok(record) => record,
        Err(missing) => return Ok(Found::Missing(missing)),
    };
    let mut statement =
        sql.prepare_cached("SELECT entry FROM ledger WHERE task = ?1 ORDER BY n DESC LIMIT ?2")?;
    let mut rows = statement.query(params![record.seq, LedgerEntry::KEPT_MAX])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = serde_json::from_str(row.get_ref(0)?.as_str()?);
        entries.push(
            entry
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, e.into()))?,
        );
    }
    Ok(Found::Here(entries))
}
