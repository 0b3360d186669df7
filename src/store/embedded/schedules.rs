//! What is submitted again and again.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};

use super::step::{Sql, Step};
use crate::domain::principal::UserId;
use crate::domain::schedule::{Refusal, Schedule, ScheduleName};
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::store::{DueSchedule, DueSchedules, Fired, Firing, NewSchedule, PutSchedule};

/// In the order of [`read`].
pub const COLUMNS: &str = "user, name, plan, revision, next_fire_at, last_fired_at, last_task, created_at, updated_at, \
    refused_at, refusal";

/// What is due and cannot be read is looked at again after so long: somebody may have mended it.
const UNREADABLE_FOR: Duration = Duration::from_secs(60);

pub fn put(step: &Step<'_>, new: &NewSchedule) -> rusqlite::Result<PutSchedule> {
    let apart = step
        .now
        .since(new.found_at)
        .max(new.found_at.since(step.now));
    if apart > NewSchedule::APART_MAX {
        return Ok(PutSchedule::AnotherTime(step.now));
    }
    let was_there = is_there(&step.sql, &new.user, &new.name)?;
    if !was_there && count(&step.sql, &new.user)? >= Schedule::PER_USER_MAX {
        return Ok(PutSchedule::Full);
    }
    let timing = new.plan.timing();
    let plan = serde_json::to_string(&new.plan)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    step.sql.execute(
        "INSERT INTO schedule VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, NULL, NULL, NULL, NULL, ?8, ?8)
         ON CONFLICT DO UPDATE SET
           type = excluded.type, plan = excluded.plan, timing = excluded.timing, revision = excluded.revision,
           next_fire_at = iif(timing = excluded.timing, next_fire_at, excluded.next_fire_at),
           due_at = iif(timing = excluded.timing, due_at, excluded.due_at),
           refused_at = NULL, refusal = NULL, updated_at = excluded.updated_at",
        params![
            new.user.as_str(),
            new.name.as_str(),
            new.plan.task_type,
            plan,
            timing,
            new.revision.cast_signed(),
            new.next_fire_at.map(Timestamp::as_ms),
            step.now.as_ms()
        ],
    )?;
    let kept = find(&step.sql, &new.user, &new.name)?;
    let kept = kept.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(match was_there {
        true => PutSchedule::Replaced(kept),
        false => PutSchedule::Created(kept),
    })
}

pub fn find(
    sql: &Sql<'_>,
    user: &UserId,
    name: &ScheduleName,
) -> rusqlite::Result<Option<Schedule>> {
    let query = format!("SELECT {COLUMNS} FROM schedule WHERE user = ?1 AND name = ?2");
    sql.prepare_cached(&query)?
        .query_row([user.as_str(), name.as_str()], read)
        .optional()
}

/// By name.
pub fn all(sql: &Sql<'_>, user: &UserId) -> rusqlite::Result<Vec<Schedule>> {
    let query = format!("SELECT {COLUMNS} FROM schedule WHERE user = ?1 ORDER BY name");
    let mut statement = sql.prepare_cached(&query)?;
    let mut rows = statement.query([user.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(schedule) => found.push(schedule),
            Err(error) => tracing::warn!(%user, %error, "a schedule cannot be read"),
        }
    }
    Ok(found)
}

pub fn delete(step: &Step<'_>, user: &UserId, name: &ScheduleName) -> rusqlite::Result<bool> {
    let deleted = step.sql.execute(
        "DELETE FROM schedule WHERE user = ?1 AND name = ?2",
        [user.as_str(), name.as_str()],
    )?;
    Ok(deleted > 0)
}

/// What is due, and those of them that cannot be read, by user and name.
pub struct Due {
    pub schedules: DueSchedules,
    pub unreadable: Vec<(String, String)>,
}

pub fn due(sql: &Sql<'_>, types: &[String], max: usize, now: Timestamp) -> rusqlite::Result<Due> {
    let query = format!(
        "SELECT {COLUMNS} FROM schedule WHERE type IN (SELECT value FROM json_each(?1)) AND due_at <= ?2
         ORDER BY due_at LIMIT ?3"
    );
    let names = serde_json::json!(types).to_string();
    let mut statement = sql.prepare_cached(&query)?;
    let mut rows = statement.query(params![names, now.as_ms(), max as i64])?;
    let (mut schedules, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(schedule) => schedules.push(DueSchedule { schedule, now }),
            Err(error) => {
                let (user, name) = (row.get(0)?, row.get(1)?);
                tracing::warn!(user, name, %error, "a schedule is due that cannot be read");
                unreadable.push((user, name));
            }
        }
    }
    let next = "SELECT min(due_at) FROM schedule
        WHERE type IN (SELECT value FROM json_each(?1)) AND due_at > ?2";
    let next: Option<i64> = sql
        .prepare_cached(next)?
        .query_row(params![names, now.as_ms()], |row| row.get(0))?;
    let next_due_in = match schedules.is_empty() && unreadable.is_empty() {
        true => next.map(|at| Timestamp::from_ms(at).since(now)),
        // There may be more.
        false => Some(Duration::ZERO),
    };
    let schedules = DueSchedules {
        schedules,
        next_due_in,
    };
    Ok(Due {
        schedules,
        unreadable,
    })
}

pub fn put_off(step: &Step<'_>, unreadable: &[(String, String)]) -> rusqlite::Result<()> {
    let until = step.now.plus(UNREADABLE_FOR);
    for (user, name) in unreadable {
        step.sql.execute(
            "UPDATE schedule SET due_at = ?3 WHERE user = ?1 AND name = ?2 AND due_at <= ?4",
            params![user, name, until.as_ms(), step.now.as_ms()],
        )?;
    }
    Ok(())
}

pub fn record_firing(step: &Step<'_>, firing: &Firing) -> rusqlite::Result<bool> {
    let due_at = firing
        .next_fire_at
        .map(|at| at.max(step.now.plus(firing.put_off)));
    let gone_on = step.sql.execute(
        "UPDATE schedule SET revision = ?4, next_fire_at = ?5, due_at = ?6
         WHERE user = ?1 AND name = ?2 AND revision = ?3",
        params![
            firing.user.as_str(),
            firing.name.as_str(),
            firing.revision.cast_signed(),
            firing.next_revision.cast_signed(),
            firing.next_fire_at.map(Timestamp::as_ms),
            due_at.map(Timestamp::as_ms),
        ],
    )?;
    if gone_on == 0 {
        return Ok(false);
    }
    match &firing.fired {
        Some(fired) => note(step, firing, fired).map(|()| true),
        None => Ok(true),
    }
}

fn note(step: &Step<'_>, firing: &Firing, fired: &Fired) -> rusqlite::Result<()> {
    let (text, about) = match &fired.outcome {
        Ok(task) => (
            "UPDATE schedule SET last_fired_at = ?3, last_task = ?4, refused_at = NULL, refusal = NULL
             WHERE user = ?1 AND name = ?2",
            task.as_ref().map(|id| id.as_str()),
        ),
        Err(detail) => (
            "UPDATE schedule SET refused_at = ?3, refusal = ?4 WHERE user = ?1 AND name = ?2",
            Some(detail.as_str()),
        ),
    };
    let at = fired.at.as_ms();
    step.sql.execute(
        text,
        params![firing.user.as_str(), firing.name.as_str(), at, about],
    )?;
    Ok(())
}

fn is_there(sql: &Sql<'_>, user: &UserId, name: &ScheduleName) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT 1 FROM schedule WHERE user = ?1 AND name = ?2")?
        .exists([user.as_str(), name.as_str()])
}

fn count(sql: &Sql<'_>, user: &UserId) -> rusqlite::Result<u64> {
    sql.prepare_cached("SELECT count(*) FROM schedule WHERE user = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
}

pub fn read(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    let text = |index| row.get::<_, String>(index);
    let time = |index| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_ms))
    };
    let strange = |index| rusqlite::Error::InvalidColumnType(index, "schedule".into(), Type::Text);
    let plan = serde_json::from_str(&text(2)?).map_err(|_| strange(2))?;
    let last_task: Option<String> = row.get(6)?;
    Ok(Schedule {
        user: UserId::parse(&text(0)?).ok_or_else(|| strange(0))?,
        name: ScheduleName::parse(&text(1)?).ok_or_else(|| strange(1))?,
        plan,
        revision: row.get::<_, i64>(3)?.cast_unsigned(),
        next_fire_at: time(4)?,
        last_fired_at: time(5)?,
        last_task: last_task.and_then(|id| TaskId::parse(&id)),
        created_at: Timestamp::from_ms(row.get(7)?),
        updated_at: Timestamp::from_ms(row.get(8)?),
        last_refusal: match time(9)? {
            Some(at) => Some(Refusal {
                at,
                detail: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
            }),
            None => None,
        },
    })
}
