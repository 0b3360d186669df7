//! What time makes due: starts, retries, lost leases, and the end of what is kept. Deadlines are rows;
//! each call does a bounded part of them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::changes;
use super::counters::{LATENCY_SPAN_MS, SPANS};
use super::ending;
use super::file;
use super::leases::requeue;
use super::nonces;
use super::record::{COLUMNS, Record};
use super::step::Step;
use super::turns::{self, Slot};
use crate::domain::task::{State, TaskError};
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::Rescued;

/// Rows of each kind that one call looks at, at most.
const ROWS_MAX: usize = 64;

/// Tasks whose deadlines move them on, in the words of their index.
const LIVE: &str = "(held = 1 OR finished_at IS NULL) AND due_at IS NOT NULL";

/// Tasks whose deadlines end what is kept of them, in the words of their index.
const OVER: &str = "held = 0 AND finished_at IS NOT NULL";

/// Until a row that could not be read is looked at again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(3600);

pub fn rescue(step: &mut Step<'_>) -> rusqlite::Result<Rescued> {
    let mut rescued = Rescued::default();
    let due = due_records(step, LIVE)?;
    let expired = due_records(step, OVER)?;
    rescued.resumed = turns::resume(step)?;
    rescued.more = due.len() == ROWS_MAX || expired.len() == ROWS_MAX;
    for record in due {
        if record.task.state == State::Cancelled {
            rescued.leases_expired += 1;
            step.tally(&record.task.user, |tally| tally.leases_lost += 1);
            ending::confirm_stopped(step, &record)?;
        } else {
            start_or_return(step, &record, &mut rescued)?;
        }
    }
    for record in expired {
        rescued.expired += 1;
        rescued.disowned.extend(ending::expire(step, &record)?);
    }
    rescued.disowned.extend(file::expire(step)?);
    expire_keys(step)?;
    nonces::expire(step)?;
    expire_counters(step)?;
    rescued.next_due_at = next_due_at(step)?;
    Ok(rescued)
}

/// The process that held these leases is gone: this one has the only lock on the folder. Workers outside are
/// still there.
pub fn end_leases_of_last_process(conn: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    conn.execute(
        &format!("UPDATE task SET due_at = ?1 WHERE {LIVE} AND held = 1 AND worker IS NULL"),
        [now.as_ms()],
    )
}

/// Without the results of ended tasks, which may be large and are of no use here.
fn due_records(step: &mut Step<'_>, part: &str) -> rusqlite::Result<Vec<Record>> {
    let columns = COLUMNS.replace(
        " result,",
        " CASE result_kind WHEN 1 THEN 'null' ELSE result END,",
    );
    let text = format!(
        "SELECT {columns} FROM task WHERE {part} AND due_at <= ?1 ORDER BY due_at LIMIT ?2"
    );
    let mut records = Vec::new();
    let mut unreadable = Vec::new();
    {
        let mut statement = step.sql.prepare_cached(&text)?;
        let mut rows = statement.query(params![step.now.as_ms(), ROWS_MAX])?;
        while let Some(row) = rows.next()? {
            match Record::read(row) {
                Ok(record) => records.push(record),
                Err(error) => unreadable.push((row.get(0)?, error)),
            }
        }
    }
    for (seq, error) in unreadable {
        put_aside(step, seq, &error)?;
    }
    Ok(records)
}

/// One row that cannot be read must not hold up all others. What it holds is free for them.
pub fn put_aside(step: &mut Step<'_>, seq: i64, error: &rusqlite::Error) -> rusqlite::Result<()> {
    tracing::error!(seq, %error, "a task's row cannot be read: it is put aside for a while");
    let later = step.now.plus(UNREADABLE_PAUSE);
    let freed: Option<(String, String, Option<String>)> = step
        .sql
        .prepare_cached(
            "UPDATE task SET due_at = ?2, held = 0, state = CASE state WHEN 1 THEN 0 ELSE state END WHERE seq = ?1 \
             RETURNING type, user, slot",
        )?
        .query_row(params![seq, later.as_ms()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((task_type, user, key)) = &freed else {
        return Ok(());
    };
    let slot = Slot {
        task_type,
        user,
        key: key.as_deref(),
    };
    turns::stopped(step, slot)
}

fn start_or_return(
    step: &mut Step<'_>,
    record: &Record,
    rescued: &mut Rescued,
) -> rusqlite::Result<()> {
    if record.task.state == State::Running {
        rescued.leases_expired += 1;
        step.tally(&record.task.user, |tally| tally.leases_lost += 1);
        if record.task.attempt < record.task.max_attempts || SeededFault::ReturnedForEver.is_on() {
            return requeue(step, record);
        }
        let error = TaskError {
            code: "lease-lost".to_owned(),
            message: "The worker stopped answering during the last attempt.".to_owned(),
            attempt: record.task.attempt,
            permanent: false,
        };
        return ending::give_up(step, record, State::Failed, Some(&error), false);
    }
    rescued.queued += 1;
    step.sql.execute(
        "UPDATE task SET state = ?2, ready_at = due_at, due_at = NULL WHERE seq = ?1",
        params![record.seq, State::Queued as i64],
    )?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(record.task.state),
        Some(State::Queued),
    );
    turns::queued(step, &record.task.task_type, record.task.user.as_str())?;
    changes::moved(step, record.seq, &record.task.id, State::Queued)
}

fn expire_keys(step: &Step<'_>) -> rusqlite::Result<()> {
    step.sql.execute(
        "DELETE FROM key WHERE rowid IN \
         (SELECT rowid FROM key WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        params![step.now.as_ms(), ROWS_MAX],
    )?;
    Ok(())
}

fn expire_counters(step: &Step<'_>) -> rusqlite::Result<()> {
    for (span, kept) in SPANS {
        step.sql.execute(
            "DELETE FROM tally WHERE (user, span, at) IN \
             (SELECT user, span, at FROM tally WHERE span = ?1 AND at < ?2 LIMIT ?3)",
            params![span, step.now.as_ms() - kept, ROWS_MAX],
        )?;
    }
    step.sql.execute(
        "DELETE FROM latency WHERE (user, at, metric, bucket) IN \
         (SELECT user, at, metric, bucket FROM latency WHERE at < ?1 LIMIT ?2)",
        params![step.now.as_ms() - 3 * LATENCY_SPAN_MS, ROWS_MAX],
    )?;
    Ok(())
}

fn next_due_at(step: &Step<'_>) -> rusqlite::Result<Option<Timestamp>> {
    let next: Option<i64> = step
        .sql
        .prepare_cached(
            "SELECT min(at) FROM (\
             SELECT min(due_at) AS at FROM task \
             WHERE (held = 1 OR finished_at IS NULL) AND due_at IS NOT NULL UNION ALL \
             SELECT min(due_at) FROM task WHERE held = 0 AND finished_at IS NOT NULL UNION ALL \
             SELECT min(until) FROM turn WHERE until IS NOT NULL UNION ALL \
             SELECT min(until) FROM type_turn UNION ALL \
             SELECT min(expires_at) FROM key WHERE expires_at IS NOT NULL UNION ALL \
             SELECT min(expires_at) FROM file WHERE expires_at IS NOT NULL)",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_ms))
}
