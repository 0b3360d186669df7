//! What people do with tasks: cancel, redrive, forget.

use rusqlite::params;

use super::changes;
use super::conflicts;
use super::ending;
use super::key::BoundKey;
use super::record::{COLUMNS, Record, result_kind};
use super::step::{Sql, Step};
use super::turns;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::standing::Standing;
use crate::domain::task::{State, TaskId};
use crate::store::{
    Cancelled, Cursor, Forgotten, Missing, RedriveFilter, Redriven, RedrivenMany, Withdrawn,
};

/// Tasks that one step of a bulk redrive looks at, at most.
const REDRIVE_LOOKED_AT_MAX: usize = 500;

/// The record, or how the task is missing.
pub fn find(
    sql: &Sql<'_>,
    user: &UserId,
    id: &TaskId,
) -> rusqlite::Result<Result<Record, Missing>> {
    Ok(match Record::by_id(sql, user, id)? {
        None => Err(Missing::Unknown),
        Some(record) if record.tombstone => Err(Missing::Forgotten),
        Some(record) => Ok(record),
    })
}

pub fn cancel(step: &mut Step<'_>, user: &UserId, id: &TaskId) -> rusqlite::Result<Cancelled> {
    let record = match find(&step.sql, user, id)? {
        Ok(record) => record,
        Err(missing) => return Ok(Cancelled::Unknown(missing)),
    };
    match record.task.state {
        State::Succeeded | State::Failed => Ok(Cancelled::Ended(Box::new(record.task))),
        State::Cancelled => Ok(Cancelled::Done {
            stopping: record.held,
            task: Box::new(record.task),
        }),
        State::Scheduled | State::Queued | State::Running | State::Retrying => {
            let stopping = record.held;
            ending::give_up(step, &record, State::Cancelled, None, stopping)?;
            let task = Record::by_seq(&step.sql, record.seq)?
                .ok_or(rusqlite::Error::QueryReturnedNoRows)?
                .task;
            Ok(Cancelled::Done {
                task: Box::new(task),
                stopping,
            })
        }
    }
}

/// One key's interest ends; the last one that goes cancels the task.
pub fn withdraw(
    step: &mut Step<'_>,
    user: &UserId,
    id: &TaskId,
    key: &IdempotencyKey,
) -> rusqlite::Result<Withdrawn> {
    let record = match find(&step.sql, user, id)? {
        Ok(record) => record,
        Err(missing) => return Ok(Withdrawn::Cancelled(Cancelled::Unknown(missing))),
    };
    if matches!(record.task.state, State::Succeeded | State::Failed) {
        return Ok(Withdrawn::Cancelled(Cancelled::Ended(Box::new(
            record.task,
        ))));
    }
    let bound = BoundKey::find(&step.sql, user, key, step.now)?;
    let Some(bound) = bound.filter(|bound| bound.seq == record.seq) else {
        return Ok(Withdrawn::KeyUnknown);
    };
    if record.task.state != State::Cancelled {
        let others = BoundKey::withdraw(step, &bound, key)?;
        // Those without a key count as one.
        if others > 0 || record.keyless || record.key.is_none() {
            return Ok(Withdrawn::Wanted(Box::new(record.task)));
        }
    }
    cancel(step, user, id).map(Withdrawn::Cancelled)
}

pub fn redrive(step: &mut Step<'_>, user: &UserId, id: &TaskId) -> rusqlite::Result<Redriven> {
    let record = match find(&step.sql, user, id)? {
        Ok(record) => record,
        Err(missing) => return Ok(Redriven::Unknown(missing)),
    };
    match record.task.state {
        State::Succeeded => Ok(Redriven::Succeeded(Box::new(record.task))),
        State::Scheduled | State::Queued | State::Running | State::Retrying => {
            Ok(Redriven::Done(Box::new(record.task)))
        }
        State::Failed | State::Cancelled => run_again(step, record),
    }
}

pub fn redrive_many(
    step: &mut Step<'_>,
    user: &UserId,
    filter: &RedriveFilter,
) -> rusqlite::Result<RedrivenMany> {
    let after = filter
        .after
        .map_or(0, |cursor| i64::try_from(cursor.0).unwrap_or(i64::MAX));
    let letters = dead_letters(&step.sql, user, after)?;
    let whole = letters.len() == REDRIVE_LOOKED_AT_MAX;
    let mut many = RedrivenMany {
        redriven: 0,
        next: None,
    };
    for record in letters {
        let seq = record.seq;
        if matches(&record, filter)
            && let Redriven::Done(_) = run_again(step, record)?
        {
            many.redriven += 1;
        }
        many.next = u64::try_from(seq).ok().map(Cursor);
        if many.redriven as usize >= filter.limit {
            return Ok(many);
        }
    }
    many.next = many.next.filter(|_| whole);
    Ok(many)
}

fn dead_letters(sql: &Sql<'_>, user: &UserId, after: i64) -> rusqlite::Result<Vec<Record>> {
    let mut statement = sql.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM task WHERE user = ?1 AND state = 5 AND seq > ?2 ORDER BY seq LIMIT ?3"
    ))?;
    let letters = statement.query_map(
        params![user.as_str(), after, REDRIVE_LOOKED_AT_MAX],
        Record::read,
    )?;
    letters.collect()
}

fn matches(record: &Record, filter: &RedriveFilter) -> bool {
    let of_type = filter
        .task_type
        .as_ref()
        .is_none_or(|wanted| *wanted == record.task.task_type);
    let before = filter
        .before
        .is_none_or(|before| record.task.finished_at.is_some_and(|end| end < before));
    of_type && before && filter.tag.as_ref().is_none_or(|tag| record.is_tagged(tag))
}

/// Puts a failed or cancelled task back into the queue, unless its content is taken.
fn run_again(step: &mut Step<'_>, record: Record) -> rusqlite::Result<Redriven> {
    if record.held {
        return Ok(Redriven::Blocked(record.task.id));
    }
    if let Some(other) = conflicts::blocking(&step.sql, &record)? {
        return Ok(Redriven::Blocked(other));
    }
    let mut claim = record.claim;
    if let Some(fingerprint) = &record.task.fingerprint
        && let Some(other) = Record::by_fingerprint(&step.sql, &record.task.user, fingerprint)?
        && other.seq != record.seq
    {
        let standing = Standing::of(
            &other.task,
            other.held,
            other.failures,
            other.window,
            u32::MAX,
            step.now,
        );
        if standing == Standing::Answers {
            return Ok(Redriven::Blocked(other.task.id));
        }
        claim = other.claim + 1;
    }
    step.drop_ended(record.seq);
    step.sql.execute(
        "UPDATE task SET state = ?2, max_attempts = attempt + ?3, ready_at = ?4, finished_at = NULL, due_at = NULL, \
         dedup_expires_at = NULL, result_until = NULL, kept_until = NULL, result_kind = ?5, result = NULL, \
         progress = NULL, error = NULL, superseded_by = NULL, keyless = 1, \
         claim = ?6, resubmissions = 0, first_failed_at = NULL WHERE seq = ?1",
        params![record.seq, State::Queued as i64, record.budget, step.now.as_ms(), result_kind::NONE, claim],
    )?;
    // It is wanted again, by whoever asks for it and by all who did.
    step.sql.execute(
        "UPDATE key SET withdrawn = 0 WHERE task = ?1 AND withdrawn = 1",
        [record.seq],
    )?;
    BoundKey::stop_retention(step, &record)?;
    step.moved(
        &record.task.user,
        &record.task.task_type,
        Some(record.task.state),
        Some(State::Queued),
    );
    turns::queued(step, &record.task.task_type, record.task.user.as_str())?;
    changes::moved(step, record.seq, &record.task.id, State::Queued)?;
    let task = Record::by_seq(&step.sql, record.seq)?
        .ok_or(rusqlite::Error::QueryReturnedNoRows)?
        .task;
    Ok(Redriven::Done(Box::new(task)))
}

pub fn forget(step: &mut Step<'_>, user: &UserId, id: &TaskId) -> rusqlite::Result<Forgotten> {
    let record = match find(&step.sql, user, id)? {
        Ok(record) => record,
        Err(missing) => return Ok(Forgotten::Unknown(missing)),
    };
    if !record.task.state.is_ended() || record.held {
        return Ok(Forgotten::Unfinished);
    }
    let disowned = ending::forget(step, &record)?;
    Ok(Forgotten::Done { disowned })
}
