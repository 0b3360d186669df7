//! The right to run a task: taken, renewed, used up, handed back. Every verb compares the fencing token.

use std::time::Duration;

use rusqlite::params;

use super::changes;
use super::counters::Metric;
use super::ending;
use super::nonces;
use super::record::{COLUMNS, Record};
use super::rescue::put_aside;
use super::step::{Sql, Step};
use super::turns::{self, Looks, OfType, Slot};
use crate::domain::task::{Progress, State, Task, TaskError};
use crate::seeded_faults::SeededFault;
use crate::store::{Extension, Fenced, Held, Holder, Lease, LeaseRequest, TaskResult};

pub fn lease(step: &mut Step<'_>, request: &LeaseRequest) -> rusqlite::Result<Vec<Lease>> {
    let Holder::Outside {
        nonce: Some(nonce), ..
    } = &request.holder
    else {
        let taken = take_first(step, request)?;
        return Ok(taken.into_iter().map(|(_, lease)| lease).collect());
    };
    if let Some(leases) = nonces::taken(step, nonce)? {
        return Ok(leases);
    }
    let taken = take_first(step, request)?;
    nonces::remember(step, nonce, &taken)?;
    Ok(taken.into_iter().map(|(_, lease)| lease).collect())
}

/// The tasks whose turn it is, each with the number of its row.
fn take_first(step: &mut Step<'_>, request: &LeaseRequest) -> rusqlite::Result<Vec<(i64, Lease)>> {
    let mut types = turns::types(step, request)?;
    let mut looks = Looks::none();
    let mut leases: Vec<(i64, Lease)> = Vec::new();
    while leases.len() < request.max && types.iter().any(|of| !of.is_over) {
        for of in &mut types {
            if leases.len() == request.max || of.is_over {
                continue;
            }
            match of.next(step, &mut looks)? {
                Some((seq, user)) => leases.extend(take_next(step, request, of, seq, &user)?),
                None => of.is_over = true,
            }
        }
    }
    if types.len() > 1 {
        let mut served: Vec<&str> = Vec::new();
        for (_, lease) in leases.iter().rev() {
            if !served.contains(&lease.task.task_type.as_str()) {
                served.push(&lease.task.task_type);
            }
        }
        turns::served(step, served.into_iter().rev())?;
    }
    Ok(leases)
}

/// None when its row cannot be read: it is put aside.
fn take_next(
    step: &mut Step<'_>,
    request: &LeaseRequest,
    of: &OfType<'_>,
    seq: i64,
    user: &str,
) -> rusqlite::Result<Option<(i64, Lease)>> {
    match take(step, request, seq) {
        Err(error @ rusqlite::Error::FromSqlConversionFailure(..)) => {
            put_aside(step, seq, &error)?;
            Ok(None)
        }
        taken => {
            of.started(step, user)?;
            Ok(Some((seq, taken?)))
        }
    }
}

fn take(step: &mut Step<'_>, request: &LeaseRequest, seq: i64) -> rusqlite::Result<Lease> {
    let newer = i64::from(!SeededFault::SameTokenAgain.is_on());
    let record = step
        .sql
        .prepare_cached(&format!(
            "UPDATE task SET state = 2, held = 1, attempt = attempt + 1, token = token + ?3, started_at = ?2 \
             WHERE seq = ?1 RETURNING {COLUMNS}"
        ))?
        .query_row(params![seq, step.now.as_ms(), newer], Record::read)?;
    let expires_at = step.now.plus(request.lease_of(&record.task.task_type));
    let worker = match &request.holder {
        Holder::Inside => None,
        Holder::Outside { worker, .. } => Some(worker),
    };
    step.sql.execute(
        "UPDATE task SET due_at = ?2, worker = ?3, heard_at = ?4 WHERE seq = ?1",
        params![seq, expires_at.as_ms(), worker, step.now.as_ms()],
    )?;
    if let Some(ready_at) = record.ready_at {
        let waited = step.now.since(ready_at);
        step.effects
            .counters
            .latency(&record.task.user, Metric::QueueWait, waited);
    }
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(State::Queued),
        Some(State::Running),
    );
    let retried = record.task.attempt > 1;
    step.tally(&record.task.user, |tally| {
        tally.attempts += 1;
        tally.retries += u64::from(retried);
    });
    step.due(expires_at);
    changes::moved(step, seq, &record.task.id, State::Running)?;
    Ok(Lease {
        token: record.token,
        expires_at,
        idempotency_key: record.key,
        task: record.task,
    })
}

/// Reads only.
pub fn held(sql: &Sql<'_>, held: &Held) -> rusqlite::Result<Fenced<Task>> {
    Ok(match holder(sql, held)? {
        Some(record) => Fenced::Recorded(record.task),
        None => Fenced::Lost,
    })
}

pub fn extend(
    step: &mut Step<'_>,
    held: &Held,
    progress: Option<&Progress>,
) -> rusqlite::Result<Fenced<Extension>> {
    let Some(record) = holder(&step.sql, held)? else {
        return fenced(step, held);
    };
    let expires_at = step.now.plus(held.lease);
    let progress_text = progress.map(serde_json::to_string).transpose();
    let progress_text =
        progress_text.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    step.sql.execute(
        "UPDATE task SET due_at = ?2, progress = ifnull(?3, progress), heard_at = ?4 WHERE seq = ?1",
        params![record.seq, expires_at.as_ms(), progress_text, step.now.as_ms()],
    )?;
    let is_news = progress.is_some_and(|progress| record.task.progress.as_ref() != Some(progress));
    if is_news && record.task.state == State::Running {
        changes::progressed(step, record.seq, &record.task.id)?;
    }
    let cancel_requested = record.task.state == State::Cancelled;
    Ok(Fenced::Recorded(Extension {
        expires_at,
        cancel_requested,
    }))
}

pub fn hand_over(
    step: &mut Step<'_>,
    held: &Held,
    worker: &str,
) -> rusqlite::Result<Fenced<Extension>> {
    let extended = extend(step, held, None)?;
    if let Fenced::Recorded(_) = &extended {
        step.sql.execute(
            "UPDATE task SET worker = ?2 WHERE id = ?1",
            params![held.task.as_str(), worker],
        )?;
    }
    Ok(extended)
}

pub fn complete(
    step: &mut Step<'_>,
    held: &Held,
    result: &TaskResult,
) -> rusqlite::Result<Fenced<Task>> {
    let Some(record) = holder(&step.sql, held)? else {
        return match repeated(step, held, |record| record.task.state == State::Succeeded)? {
            Some(task) => Ok(Fenced::Recorded(task)),
            None => fenced(step, held),
        };
    };
    ending::attempt_over(step, &record);
    if record.task.state == State::Cancelled {
        ending::confirm_stopped(step, &record)?;
        return fenced(step, held);
    }
    ending::succeed(step, &record, result)?;
    reread(step, &record)
}

pub fn fail(
    step: &mut Step<'_>,
    held: &Held,
    error: &TaskError,
    retry_in: Option<Duration>,
) -> rusqlite::Result<Fenced<Task>> {
    let Some(record) = holder(&step.sql, held)? else {
        let same = |record: &Record| {
            record.task.error.as_ref() == Some(error) || record.task.state == State::Cancelled
        };
        return Ok(match repeated(step, held, same)? {
            Some(task) => Fenced::Recorded(task),
            None => fenced(step, held)?,
        });
    };
    ending::attempt_over(step, &record);
    if record.task.state == State::Cancelled {
        ending::confirm_stopped(step, &record)?;
        return reread(step, &record);
    }
    match retry_in.filter(|_| !error.permanent && record.task.attempt < record.task.max_attempts) {
        Some(delay) => retry(step, &record, error, delay)?,
        None => ending::give_up(step, &record, State::Failed, Some(error), false)?,
    }
    reread(step, &record)
}

fn retry(
    step: &mut Step<'_>,
    record: &Record,
    error: &TaskError,
    delay: Duration,
) -> rusqlite::Result<()> {
    let error = serde_json::to_string(error)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let next_at = step.now.plus(delay);
    step.sql.execute(
        "UPDATE task SET state = ?2, held = 0, worker = NULL, due_at = ?3, ready_at = NULL, error = ?4 WHERE seq = ?1",
        params![record.seq, State::Retrying as i64, next_at.as_ms(), error],
    )?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(State::Running),
        Some(State::Retrying),
    );
    step.due(next_at);
    turns::stopped(step, Slot::of(record))?;
    changes::moved(step, record.seq, &record.task.id, State::Retrying)
}

pub fn release(step: &mut Step<'_>, held: &Held) -> rusqlite::Result<Fenced<()>> {
    let Some(record) = holder(&step.sql, held)? else {
        // The step once more: nobody has taken the task since.
        return Ok(
            match repeated(step, held, |record| !record.task.state.is_ended())? {
                Some(_) => Fenced::Recorded(()),
                None => fenced(step, held)?,
            },
        );
    };
    if record.task.state == State::Cancelled {
        ending::confirm_stopped(step, &record)?;
        return Ok(Fenced::Recorded(()));
    }
    step.sql.execute(
        "UPDATE task SET attempt = attempt - 1 WHERE seq = ?1",
        [record.seq],
    )?;
    requeue(step, &record)?;
    Ok(Fenced::Recorded(()))
}

/// Puts a running task back into the queue, at the place that its first wait gave it.
pub fn requeue(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<()> {
    step.sql.execute(
        "UPDATE task SET state = ?2, held = 0, worker = NULL, due_at = NULL, ready_at = ifnull(ready_at, ?3) \
         WHERE seq = ?1",
        params![record.seq, State::Queued as i64, step.now.as_ms()],
    )?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(State::Running),
        Some(State::Queued),
    );
    turns::queued(step, &record.task.task_type, record.task.user.as_str())?;
    turns::stopped(step, Slot::of(record))?;
    changes::moved(step, record.seq, &record.task.id, State::Queued)
}

/// The record of a lease that is still held with this token.
fn holder(sql: &Sql<'_>, held: &Held) -> rusqlite::Result<Option<Record>> {
    let record = Record::by_id(sql, &held.user, &held.task)?;
    Ok(record.filter(|record| {
        let is_held = record.held || SeededFault::LaterResultTaken.is_on();
        is_held && (record.token == held.token || SeededFault::StaleTokenTaken.is_on())
    }))
}

/// The task, when this token is still the newest, its lease is over, and it is as the step would leave it.
fn repeated(
    step: &Step<'_>,
    held: &Held,
    as_left: impl Fn(&Record) -> bool,
) -> rusqlite::Result<Option<Task>> {
    let record = Record::by_id(&step.sql, &held.user, &held.task)?;
    let same = |record: &Record| record.token == held.token && !record.tombstone && as_left(record);
    Ok(record.filter(same).map(|record| record.task))
}

/// Counted, unless there never was such a lease.
fn fenced<T>(step: &mut Step<'_>, held: &Held) -> rusqlite::Result<Fenced<T>> {
    if Record::by_id(&step.sql, &held.user, &held.task)?.is_some() {
        step.tally(&held.user, |tally| tally.writes_fenced += 1);
    }
    Ok(Fenced::Lost)
}

fn reread(step: &Step<'_>, record: &Record) -> rusqlite::Result<Fenced<Task>> {
    let record =
        Record::by_seq(&step.sql, record.seq)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(Fenced::Recorded(record.task))
}
