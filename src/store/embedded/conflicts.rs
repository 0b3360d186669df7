//! Tasks that the conflict modes hold against each other: who gives way, who waits for whom.

use rusqlite::{OptionalExtension, params};

use super::changes;
use super::ending;
use super::record::{COLUMNS, Record, Submitted, short_hash};
use super::step::{Sql, Step};
use super::turns;
use crate::domain::callback::{Callback, Joining};
use crate::domain::matching::Matching;
use crate::domain::principal::UserId;
use crate::domain::submission::Submission;
use crate::domain::task::{State, TaskId};
use crate::domain::task_type::{Debounce, DedupMode};
use crate::domain::timestamp::Timestamp;
use crate::store::Admission;

/// What a new task meets.
#[derive(Default)]
pub struct Conflicts {
    /// Those that it takes the place of, oldest first.
    pub giving_way: Vec<Record>,
    /// Whether it waits for the end of another one.
    is_behind: bool,
}

impl Conflicts {
    pub fn of(step: &Step<'_>, admission: &Admission) -> rusqlite::Result<Conflicts> {
        let mut conflicts = Conflicts::default();
        let mode = admission.submission.mode();
        let Some(matching) = admission.matching.filter(|_| mode != DedupMode::Throttle) else {
            return Ok(conflicts);
        };
        let keeps_last = mode == DedupMode::KeepLast;
        for record in may_run(&step.sql, &admission.user, &matching)? {
            let waits = waits(&record);
            if waits && !(keeps_last && record.task.attempt > 0) {
                conflicts.giving_way.push(record);
            } else {
                conflicts.is_behind |= keeps_last;
            }
        }
        Ok(conflicts)
    }

    /// Gives the new task the place of those that give way: their start, the highest priority, and their callbacks,
    /// behind which its own may find no room. Gives the members that could not be applied.
    pub fn enter(
        &self,
        record: &mut Record,
        admission: &Admission,
        now: Timestamp,
    ) -> Vec<&'static str> {
        if admission.matching.is_none() {
            return Vec::new();
        }
        if let Some(debounce) = admission.submission.debounce() {
            let waiting = self.giving_way.iter().filter(|old| old.task.attempt == 0);
            let since = waiting.map(|old| old.chained_at.unwrap_or(old.task.created_at));
            let chained_at = since.min().map_or(now, |since| since.min(now));
            record.chained_at = Some(chained_at);
            let starts_at = debounced(debounce, chained_at, now);
            record.task.scheduled_at = Some(starts_at);
            record.due_at = (starts_at > now).then_some(starts_at);
        }
        if self.is_behind {
            record.behind = true;
            record.due_at = Some(Timestamp::MAX);
        }
        (record.task.state, record.ready_at) = match record.due_at {
            Some(_) => (State::Scheduled, None),
            None => (State::Queued, Some(now)),
        };
        let own = std::mem::take(&mut record.callbacks);
        for old in &self.giving_way {
            record.task.priority = record.task.priority.min(old.task.priority);
            for callback in &old.callbacks {
                if Joining::of(&callback.url, &record.callbacks) == Joining::Joins {
                    record.callbacks.push(callback.clone());
                }
            }
        }
        let mut ignored = Vec::new();
        for callback in own {
            match Joining::of(&callback.url, &record.callbacks) {
                Joining::Joins => record.callbacks.push(callback),
                Joining::Known => {}
                Joining::Full => ignored.push("/callback_url"),
            }
        }
        ignored
    }

    /// Ends as cancelled what the new task has taken the place of. Its callbacks stay on record, so that a replay adds
    /// none of them again; those that found no room at the new task are told of this end.
    pub fn supersede(self, step: &mut Step<'_>, by: &Record) -> rusqlite::Result<()> {
        for mut record in self.giving_way {
            step.sql.execute(
                "UPDATE task SET superseded_by = ?2 WHERE seq = ?1",
                params![record.seq, by.task.id.as_str()],
            )?;
            let stays = |one: &Callback| Joining::of(&one.url, &by.callbacks) != Joining::Known;
            record.callbacks.retain(stays);
            record.task.superseded_by = Some(by.task.id.clone());
            ending::give_up(step, &record, State::Cancelled, None, false)?;
        }
        Ok(())
    }
}

/// The task that throttles all that it matches. One that was cancelled throttles no more.
pub fn throttling(
    sql: &Sql<'_>,
    admission: &Admission,
    now: Timestamp,
) -> rusqlite::Result<Option<Record>> {
    let Some(matching) = &admission.matching else {
        return Ok(None);
    };
    let newest = sql
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM task WHERE matching_hash = ?1 AND matching = ?2 AND user = ?3 \
             ORDER BY seq DESC LIMIT 1"
        ))?
        .query_row(key_of(matching, &admission.user), |row| {
            Ok(Record::read(row).ok())
        })
        .optional()?;
    Ok(newest.flatten().filter(|record| {
        let until = record.task.created_at.plus(record.window);
        record.task.state != State::Cancelled && now < until
    }))
}

/// Another task that matches the same and may still run.
pub fn blocking(sql: &Sql<'_>, record: &Record) -> rusqlite::Result<Option<TaskId>> {
    let Some(matching) = &record.matching else {
        return Ok(None);
    };
    let others = may_run(sql, &record.task.user, matching)?;
    let other = others.into_iter().find(|other| other.seq != record.seq);
    Ok(other.map(|other| other.task.id))
}

/// A task is over: whoever waits behind it may start, unless another one still runs.
pub fn make_way(step: &mut Step<'_>, over: &Record) -> rusqlite::Result<()> {
    let Some(matching) = &over.matching else {
        return Ok(());
    };
    let mut others = may_run(&step.sql, &over.task.user, matching)?;
    others.retain(|other| other.seq != over.seq);
    if others.iter().all(|other| other.behind) {
        for waiting in &others {
            start_behind(step, waiting)?;
        }
    }
    Ok(())
}

/// The same content came once more: a debounced task waits anew.
pub fn put_off(
    step: &mut Step<'_>,
    submission: &Submission,
    record: &mut Record,
) -> rusqlite::Result<()> {
    let (Some(debounce), Some(chained_at), State::Scheduled) =
        (submission.debounce(), record.chained_at, record.task.state)
    else {
        return Ok(());
    };
    let starts_at = debounced(debounce, chained_at, step.now);
    record.task.scheduled_at = Some(starts_at);
    if starts_at <= step.now {
        return start_now(step, record);
    }
    record.due_at = Some(starts_at);
    step.sql.execute(
        "UPDATE task SET due_at = ?2, submission = ?3 WHERE seq = ?1",
        params![
            record.seq,
            starts_at.as_ms(),
            Submitted::of(record).to_json()?
        ],
    )?;
    step.due(starts_at);
    step.changed(&record.task.id);
    Ok(())
}

/// A scheduled task is queued.
pub fn start_now(step: &mut Step<'_>, record: &mut Record) -> rusqlite::Result<()> {
    step.sql.execute(
        "UPDATE task SET state = ?2, due_at = NULL, ready_at = ?3, behind = 0 WHERE seq = ?1",
        params![record.seq, State::Queued as i64, step.now.as_ms()],
    )?;
    let task = &mut record.task;
    step.moved(
        &task.user,
        &task.task_type,
        Some(task.state),
        Some(State::Queued),
    );
    task.state = State::Queued;
    turns::queued(step, &task.task_type, task.user.as_str())?;
    changes::moved(step, record.seq, &task.id, State::Queued)
}

fn start_behind(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<()> {
    match record.task.scheduled_at.filter(|&at| at > step.now) {
        None => start_now(step, &mut record.clone()),
        Some(at) => {
            step.sql.execute(
                "UPDATE task SET due_at = ?2, behind = 0 WHERE seq = ?1",
                params![record.seq, at.as_ms()],
            )?;
            step.due(at);
            step.changed(&record.task.id);
            Ok(())
        }
    }
}

/// When a debounced task starts whose chain waits since `chained_at`.
fn debounced(debounce: Debounce, chained_at: Timestamp, now: Timestamp) -> Timestamp {
    let latest = chained_at.plus(debounce.max_delay);
    now.plus(debounce.delay).min(latest).max(now)
}

fn waits(record: &Record) -> bool {
    matches!(
        record.task.state,
        State::Scheduled | State::Queued | State::Retrying
    )
}

/// Unfinished tasks, and those whose attempts have not confirmed yet that they stopped; oldest first. Rows that cannot
/// be read hold up nobody.
fn may_run(sql: &Sql<'_>, user: &UserId, matching: &Matching) -> rusqlite::Result<Vec<Record>> {
    let mut statement = sql.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM task WHERE matching_hash = ?1 AND (finished_at IS NULL OR held = 1) \
         AND matching = ?2 AND user = ?3 ORDER BY seq"
    ))?;
    let mut rows = statement.query(key_of(matching, user))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(Record::read(row).ok());
    }
    Ok(found)
}

fn key_of(matching: &Matching, user: &UserId) -> (i64, [u8; 32], String) {
    let digest = matching.digest();
    (
        short_hash(digest),
        *digest.as_bytes(),
        user.as_str().to_owned(),
    )
}
