//! How tasks end, and how what is left of them expires.

use rusqlite::params;

use super::counters::Metric;
use super::file;
use super::key::BoundKey;
use super::record::{Record, StoredBlob, TOMBSTONE, result_kind};
use super::step::Step;
use super::turns::{self, Slot};
use super::{callbacks, changes, conflicts};
use crate::domain::file::BlobName;
use crate::domain::task::{Outcome, State, TaskError};
use crate::domain::timestamp::Timestamp;
use crate::store::TaskResult;

/// Records success.
pub fn succeed(step: &mut Step<'_>, record: &Record, result: &TaskResult) -> rusqlite::Result<()> {
    let retention = record.retention;
    let answers_until = record
        .task
        .throttles_until
        .unwrap_or(step.now.plus(record.window));
    let dedup_expires_at = record.task.fingerprint.map(|_| answers_until);
    let result_until = step
        .now
        .plus(retention.result.max(retention.key).max(record.window));
    let kept_until = step.now.plus(retention.task).max(result_until);
    let (kind, text) = match result {
        TaskResult::Inline(raw) => (result_kind::INLINE, raw.get().to_owned()),
        TaskResult::Blob { name, size } => {
            file::own_blob(step, name)?;
            let blob = StoredBlob {
                name: name.clone(),
                size: *size,
            };
            let text = serde_json::to_string(&blob)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            (result_kind::BLOB, text)
        }
    };
    step.sql.execute(
        "UPDATE task SET state = ?2, held = 0, worker = NULL, finished_at = ?3, due_at = ?4, dedup_expires_at = ?5, \
         result_until = ?4, kept_until = ?6, result_kind = ?7, result = ?8, error = NULL, \
         resubmissions = 0, first_failed_at = NULL WHERE seq = ?1",
        params![
            record.seq,
            State::Succeeded as i64,
            step.now.as_ms(),
            result_until.as_ms(),
            dedup_expires_at.map(Timestamp::as_ms),
            kept_until.as_ms(),
            kind,
            text
        ],
    )?;
    file::release(step, record)?;
    if record.task.attempt > 1 {
        step.tally(&record.task.user, |tally| tally.retry_successes += 1);
    }
    turns::stopped(step, Slot::of(record))?;
    end(step, record, State::Succeeded)?;
    conflicts::make_way(step, record)
}

/// Ends the task as failed or cancelled. `held`: a cancelled attempt may still be running.
pub fn give_up(
    step: &mut Step<'_>,
    record: &Record,
    state: State,
    error: Option<&TaskError>,
    held: bool,
) -> rusqlite::Result<()> {
    let retention = record.retention;
    let kept = if state == State::Failed {
        retention.failed_task
    } else {
        retention.task
    };
    let kept_until = step.now.plus(kept.max(retention.key).max(record.window));
    let first_failed_at = match state {
        State::Failed => Some(record.failures.first_failed_at.unwrap_or(step.now)),
        _ => record.failures.first_failed_at,
    };
    let due_at = if held {
        record.due_at.unwrap_or(step.now)
    } else {
        kept_until
    };
    let error = error.map(serde_json::to_string).transpose();
    let error = error.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    step.sql.execute(
        "UPDATE task SET state = ?2, held = ?3, worker = iif(?3, worker, NULL), finished_at = ?4, due_at = ?5, kept_until = ?6, ready_at = NULL, \
         behind = 0, aside = 0, error = ifnull(?7, error), first_failed_at = ?8 WHERE seq = ?1",
        params![
            record.seq,
            state as i64,
            held,
            step.now.as_ms(),
            due_at.as_ms(),
            kept_until.as_ms(),
            error,
            first_failed_at.map(Timestamp::as_ms)
        ],
    )?;
    if state == State::Failed {
        step.tally(&record.task.user, |tally| tally.failures += 1);
    }
    if record.task.state == State::Queued {
        turns::left(step, Slot::of(record))?;
    } else if record.held && !held {
        turns::stopped(step, Slot::of(record))?;
    }
    end(step, record, state)?;
    // One that gives way to another makes none.
    match held || record.task.superseded_by.is_some() {
        true => Ok(()),
        false => conflicts::make_way(step, record),
    }
}

fn end(step: &mut Step<'_>, record: &Record, state: State) -> rusqlite::Result<()> {
    BoundKey::start_retention(step, record)?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(record.task.state),
        Some(state),
    );
    changes::moved(step, record.seq, &record.task.id, state)?;
    if record.callbacks.is_empty() {
        return Ok(());
    }
    callbacks::tell_end(step, record)
}

/// Counts how long an attempt took.
pub fn attempt_over(step: &mut Step<'_>, record: &Record) {
    if let Some(started_at) = record.task.started_at {
        let took = step.now.since(started_at);
        step.effects
            .counters
            .latency(&record.task.user, Metric::Run, took);
    }
}

/// A cancelled attempt has stopped, or its lease is over: its content is free again.
pub fn confirm_stopped(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<()> {
    step.sql.execute(
        "UPDATE task SET held = 0, worker = NULL, due_at = kept_until WHERE seq = ?1",
        [record.seq],
    )?;
    step.changed(&record.task.id);
    turns::stopped(step, Slot::of(record))?;
    conflicts::make_way(step, record)
}

/// Does what an ended task's deadline asks for. Gives the copy that nobody owns now.
pub fn expire(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<Option<BlobName>> {
    if record.tombstone {
        return bury(step, record).map(|()| None);
    }
    step.drop_ended(record.seq);
    let kept_until = record.kept_until.unwrap_or(step.now);
    if kept_until <= step.now {
        let named_until = BoundKey::latest_expiry(&step.sql, record.seq)?.unwrap_or(kept_until);
        if named_until > step.now {
            step.sql.execute(
                "UPDATE task SET kept_until = ?2, due_at = ?2 WHERE seq = ?1",
                params![record.seq, named_until.as_ms()],
            )?;
            return Ok(None);
        }
        return forget(step, record);
    }
    let blob = disown_result(step, record)?;
    step.sql.execute(
        "UPDATE task SET due_at = kept_until, result = NULL, \
         result_kind = CASE result_kind WHEN 0 THEN 0 ELSE 3 END WHERE seq = ?1",
        [record.seq],
    )?;
    Ok(blob)
}

/// Makes a tombstone of an ended task. Gives the copy that nobody owns now.
pub fn forget(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<Option<BlobName>> {
    step.drop_ended(record.seq);
    let blob = disown_result(step, record)?;
    BoundKey::forget(step, record)?;
    if record.task.state != State::Succeeded {
        file::release(step, record)?;
    }
    for name in record.task.tags.keys() {
        let row = params![record.task.user.as_str(), name, record.seq];
        step.sql.execute(
            "DELETE FROM tag WHERE user = ?1 AND name = ?2 AND task = ?3",
            row,
        )?;
    }
    step.sql
        .execute("DELETE FROM ledger WHERE task = ?1", [record.seq])?;
    let named_until = BoundKey::latest_expiry(&step.sql, record.seq)?.unwrap_or(step.now);
    let buried_at = step.now.plus(record.retention.key).max(named_until);
    step.sql.execute(
        "UPDATE task SET state = ?2, due_at = ?3, fingerprint = NULL, fingerprint_hash = NULL, \
         matching = NULL, matching_hash = NULL, superseded_by = NULL, \
         result_kind = 0, result = NULL, error = NULL, \
         progress = NULL, trail = NULL, callbacks = NULL, submission = ?4 WHERE seq = ?1",
        params![record.seq, TOMBSTONE, buried_at.as_ms(), emptied(record)?],
    )?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(record.task.state),
        None,
    );
    step.changed(&record.task.id);
    Ok(blob)
}

/// After the tombstone's time the task is unknown.
fn bury(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
    step.sql
        .execute("DELETE FROM key WHERE task = ?1", [record.seq])?;
    step.sql
        .execute("DELETE FROM task WHERE seq = ?1", [record.seq])?;
    Ok(())
}

fn disown_result(step: &Step<'_>, record: &Record) -> rusqlite::Result<Option<BlobName>> {
    let Some(Outcome::Blob { name, .. }) = &record.task.outcome else {
        return Ok(None);
    };
    file::disown_blob(step, name)?;
    Ok(Some(name.clone()))
}

fn emptied(record: &Record) -> rusqlite::Result<String> {
    let submitted = super::record::Submitted {
        params: serde_json::value::RawValue::NULL.to_owned().into(),
        files: Vec::new(),
        tags: Default::default(),
        scheduled_at: None,
        window_ms: 0,
        budget: record.budget,
        retention: record.retention,
        key: None,
    };
    serde_json::to_string(&submitted).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}
