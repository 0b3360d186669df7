//! Who is next. The users of a type who have something in line take turns; of a user's tasks the best in line goes
//! first. Whoever has reached a bound is passed over: until an attempt ends, or until a time.
//!
//! A row of `turn` that nothing in line belongs to does no harm: it goes when its turn comes.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::pauses;
use super::record::Record;
use super::step::{Sql, Step};
use crate::domain::timestamp::Timestamp;
use crate::domain::turns::{Bounds, Rate};
use crate::store::LeaseRequest;

/// Users and tasks that one lease looks at, at most: more than it takes, since some have to wait.
const LOOKS_MAX: usize = 400;

/// Whoever is passed over is looked at again after so long at the latest: the bound may be another one by then.
const RECHECKED: Duration = Duration::from_secs(60);

/// Of a user, a type and a concurrency key.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    pub task_type: &'a str,
    pub user: &'a str,
    pub key: Option<&'a str>,
}

impl<'a> Slot<'a> {
    pub fn of(record: &'a Record) -> Self {
        Slot {
            task_type: &record.task.task_type,
            user: record.task.user.as_str(),
            key: record.slot.as_deref(),
        }
    }
}

/// A type on its way through a lease.
pub struct OfType<'a> {
    pub task_type: &'a str,
    bounds: Bounds,
    /// Starts that the type's rate allows.
    room: usize,
    served: i64,
    pub is_over: bool,
}

/// What one lease has looked at.
pub struct Looks(usize);

impl Looks {
    pub fn none() -> Self {
        Looks(0)
    }

    fn one_more(&mut self) {
        self.0 += 1;
    }

    pub fn are_enough(&self) -> bool {
        self.0 >= LOOKS_MAX
    }
}

/// The types that may be leased: first the one that was served longest ago.
pub fn types<'a>(
    step: &mut Step<'_>,
    request: &'a LeaseRequest,
) -> rusqlite::Result<Vec<OfType<'a>>> {
    let paused = pauses::all(&step.sql)?;
    let mut types = Vec::new();
    for task_type in request.types.iter().filter(|name| !paused.contains(*name)) {
        let bounds = request.bounds_of(task_type);
        let room = match bounds.rate {
            Some(rate) => starts_left(step, rate, task_type, None)?,
            None => usize::MAX,
        };
        let served = step
            .sql
            .prepare_cached("SELECT served FROM type_turn WHERE type = ?1")?
            .query_row([task_type], |row| row.get(0))
            .optional()?;
        types.push(OfType {
            task_type,
            bounds,
            room,
            served: served.unwrap_or(0),
            is_over: false,
        });
    }
    types.sort_by_key(|of| of.served);
    Ok(types)
}

/// Those that were served stand behind all others from now on.
pub fn served<'a>(step: &Step<'_>, types: impl Iterator<Item = &'a str>) -> rusqlite::Result<()> {
    for task_type in types {
        step.sql.execute(
            "INSERT INTO type_turn (type, served) VALUES (?1, (SELECT ifnull(max(served), 0) + 1 FROM type_turn)) \
             ON CONFLICT DO UPDATE SET served = excluded.served",
            [task_type],
        )?;
    }
    Ok(())
}

impl OfType<'_> {
    /// The row of the next task that may run, and whose it is.
    pub fn next(
        &mut self,
        step: &mut Step<'_>,
        looks: &mut Looks,
    ) -> rusqlite::Result<Option<(i64, String)>> {
        if self.room == 0 {
            self.wait(step)?;
            return Ok(None);
        }
        while !looks.are_enough() {
            looks.one_more();
            let Some(user) = first_user(&step.sql, self.task_type)? else {
                return Ok(None);
            };
            if self.is_passed_over(step, &user)? {
                continue;
            }
            if let Some(seq) = first_task(step, self.task_type, &user, looks)? {
                self.room -= 1;
                step.sql.execute(
                    "UPDATE turn SET at = (SELECT max(at) + 1 FROM turn WHERE type = ?1 AND at IS NOT NULL) \
                     WHERE type = ?1 AND user = ?2",
                    params![self.task_type, user],
                )?;
                return Ok(Some((seq, user)));
            }
        }
        // The next call goes on.
        step.effects.work = true;
        Ok(None)
    }

    /// Whether the user has reached a bound, and waits from now on.
    fn is_passed_over(&self, step: &mut Step<'_>, user: &str) -> rusqlite::Result<bool> {
        if let Some(max) = self.bounds.per_user {
            let running: u32 = step
                .sql
                .prepare_cached(
                    "SELECT count(*) FROM task WHERE type = ?1 AND user = ?2 AND held = 1",
                )?
                .query_row(params![self.task_type, user], |row| row.get(0))?;
            if running >= max {
                let until = step.now.plus(RECHECKED);
                pass_over(step, self.task_type, user, until)?;
                return Ok(true);
            }
        }
        let Some(rate) = self.bounds.rate_per_user else {
            return Ok(false);
        };
        if starts_left(step, rate, self.task_type, Some(user))? > 0 {
            return Ok(false);
        }
        let until = next_start(step, rate, self.task_type, Some(user))?;
        pass_over(step, self.task_type, user, until)?;
        Ok(true)
    }

    /// Until the type's rate allows the next start.
    fn wait(&self, step: &mut Step<'_>) -> rusqlite::Result<()> {
        let Some(rate) = self.bounds.rate else {
            return Ok(());
        };
        if first_user(&step.sql, self.task_type)?.is_none() {
            return Ok(());
        }
        let until = next_start(step, rate, self.task_type, None)?;
        step.sql.execute(
            "INSERT INTO type_turn (type, until) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET until = excluded.until",
            params![self.task_type, until.as_ms()],
        )?;
        step.due(until);
        Ok(())
    }

    /// Counts the start of an attempt where starts are bounded.
    pub fn started(&self, step: &Step<'_>, user: &str) -> rusqlite::Result<()> {
        let spans = [self.bounds.rate, self.bounds.rate_per_user];
        let Some(longest) = spans.iter().flatten().map(|rate| rate.span).max() else {
            return Ok(());
        };
        step.sql.execute(
            "INSERT INTO start VALUES (?1, ?2, ?3, ?4)",
            params![
                self.task_type,
                user,
                step.now.as_ms(),
                step.now.plus(longest).as_ms()
            ],
        )?;
        Ok(())
    }
}

fn first_user(sql: &Sql<'_>, task_type: &str) -> rusqlite::Result<Option<String>> {
    sql.prepare_cached(
        "SELECT user FROM turn WHERE type = ?1 AND at IS NOT NULL ORDER BY at LIMIT 1",
    )?
    .query_row([task_type], |row| row.get(0))
    .optional()
}

/// The best of a user's tasks that may run. Those whose concurrency key is taken wait aside; a user without any has no
/// turn.
fn first_task(
    step: &mut Step<'_>,
    task_type: &str,
    user: &str,
    looks: &mut Looks,
) -> rusqlite::Result<Option<i64>> {
    loop {
        let first: Option<(i64, Option<String>)> = step
            .sql
            .prepare_cached(
                "SELECT seq, slot FROM task WHERE state = 1 AND aside = 0 AND type = ?1 AND user = ?2 \
                 ORDER BY ready_at + priority * ageing, seq LIMIT 1",
            )?
            .query_row(params![task_type, user], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((seq, key)) = first else {
            step.sql.execute(
                "DELETE FROM turn WHERE type = ?1 AND user = ?2",
                params![task_type, user],
            )?;
            return Ok(None);
        };
        let key = key.as_deref();
        let slot = Slot {
            task_type,
            user,
            key,
        };
        if !is_taken(&step.sql, slot)? {
            return Ok(Some(seq));
        }
        step.sql
            .execute("UPDATE task SET aside = 1 WHERE seq = ?1", [seq])?;
        looks.one_more();
        if looks.are_enough() {
            return Ok(None);
        }
    }
}

/// Whether an attempt holds the concurrency key, if there is one.
fn is_taken(sql: &Sql<'_>, slot: Slot<'_>) -> rusqlite::Result<bool> {
    let Some(key) = slot.key else {
        return Ok(false);
    };
    sql.prepare_cached(
        "SELECT 1 FROM task WHERE type = ?1 AND user = ?2 AND slot = ?3 AND held = 1",
    )?
    .exists(params![slot.task_type, slot.user, key])
}

/// Until then, or until an attempt of the user ends.
fn pass_over(
    step: &mut Step<'_>,
    task_type: &str,
    user: &str,
    until: Timestamp,
) -> rusqlite::Result<()> {
    step.sql.execute(
        "UPDATE turn SET at = NULL, until = ?3 WHERE type = ?1 AND user = ?2",
        params![task_type, user, until.as_ms()],
    )?;
    step.due(until);
    Ok(())
}

/// Of one user, or of all.
fn starts_left(
    step: &Step<'_>,
    rate: Rate,
    task_type: &str,
    user: Option<&str>,
) -> rusqlite::Result<usize> {
    let since = step.now.as_ms() - span_ms(rate);
    let started: u32 = match user {
        Some(user) => step
            .sql
            .prepare_cached("SELECT count(*) FROM start WHERE type = ?1 AND user = ?2 AND at > ?3")?
            .query_row(params![task_type, user, since], |row| row.get(0))?,
        None => step
            .sql
            .prepare_cached("SELECT count(*) FROM start WHERE type = ?1 AND at > ?2")?
            .query_row(params![task_type, since], |row| row.get(0))?,
    };
    Ok(rate.attempts.saturating_sub(started) as usize)
}

/// When the oldest start that counts is so long ago that there may be another one, or when to look again.
fn next_start(
    step: &Step<'_>,
    rate: Rate,
    task_type: &str,
    user: Option<&str>,
) -> rusqlite::Result<Timestamp> {
    let back = rate.attempts.saturating_sub(1);
    let oldest: Option<i64> = match user {
        Some(user) => step
            .sql
            .prepare_cached(
                "SELECT at FROM start WHERE type = ?1 AND user = ?2 ORDER BY at DESC LIMIT 1 OFFSET ?3",
            )?
            .query_row(params![task_type, user, back], |row| row.get(0))
            .optional()?,
        None => step
            .sql
            .prepare_cached("SELECT at FROM start WHERE type = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2")?
            .query_row(params![task_type, back], |row| row.get(0))
            .optional()?,
    };
    let oldest = oldest.map_or(step.now, Timestamp::from_ms);
    Ok(oldest.plus(rate.span).min(step.now.plus(RECHECKED)))
}

fn span_ms(rate: Rate) -> i64 {
    i64::try_from(rate.span.as_millis()).unwrap_or(i64::MAX)
}

/// A task of the user is in line. Whoever comes anew stands behind those who wait.
pub fn queued(step: &mut Step<'_>, task_type: &str, user: &str) -> rusqlite::Result<()> {
    step.effects.work = true;
    step.sql.execute(
        "INSERT OR IGNORE INTO turn (type, user, at) VALUES (?1, ?2, \
         (SELECT ifnull(max(at), 0) + 1 FROM turn WHERE type = ?1 AND at IS NOT NULL))",
        params![task_type, user],
    )?;
    Ok(())
}

/// An attempt is over. What it has held is free for the next one.
pub fn stopped(step: &mut Step<'_>, slot: Slot<'_>) -> rusqlite::Result<()> {
    come_back(step, slot)?;
    let resumed = step.sql.execute(
        "UPDATE turn SET until = NULL, \
         at = (SELECT ifnull(max(at), 0) + 1 FROM turn WHERE type = ?1 AND at IS NOT NULL) \
         WHERE type = ?1 AND user = ?2 AND at IS NULL",
        params![slot.task_type, slot.user],
    )?;
    step.effects.work |= resumed > 0;
    Ok(())
}

/// A queued task will not run. One that waits for the same concurrency key takes its place.
pub fn left(step: &mut Step<'_>, slot: Slot<'_>) -> rusqlite::Result<()> {
    match is_taken(&step.sql, slot)? {
        true => Ok(()),
        false => come_back(step, slot),
    }
}

/// The best of those that wait for the concurrency key is in line again.
fn come_back(step: &mut Step<'_>, slot: Slot<'_>) -> rusqlite::Result<()> {
    let Some(key) = slot.key else {
        return Ok(());
    };
    let back = step.sql.execute(
        "UPDATE task SET aside = 0 WHERE seq = (SELECT seq FROM task WHERE state = 1 AND aside = 1 \
         AND type = ?1 AND user = ?2 AND slot = ?3 ORDER BY ready_at + priority * ageing, seq LIMIT 1)",
        params![slot.task_type, slot.user, key],
    )?;
    match back {
        0 => Ok(()),
        _ => queued(step, slot.task_type, slot.user),
    }
}

/// Lets those have their turn again who have waited for long enough. Gives how many there are.
pub fn resume(step: &mut Step<'_>) -> rusqlite::Result<u64> {
    let now = step.now.as_ms();
    let types = step
        .sql
        .execute("UPDATE type_turn SET until = NULL WHERE until <= ?1", [now])?;
    let users: Vec<(String, String)> = {
        let mut statement = step.sql.prepare_cached(
            "SELECT type, user FROM turn WHERE until <= ?1 ORDER BY until LIMIT ?2",
        )?;
        let rows = statement.query_map(params![now, LOOKS_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for (task_type, user) in &users {
        step.sql.execute(
            "UPDATE turn SET until = NULL, \
             at = (SELECT ifnull(max(at), 0) + 1 FROM turn WHERE type = ?1 AND at IS NOT NULL) \
             WHERE type = ?1 AND user = ?2",
            params![task_type, user],
        )?;
    }
    step.sql.execute(
        "DELETE FROM start WHERE rowid IN (SELECT rowid FROM start WHERE until <= ?1 LIMIT ?2)",
        params![now, LOOKS_MAX],
    )?;
    let resumed = types + users.len();
    step.effects.work |= resumed > 0;
    Ok(resumed as u64)
}
