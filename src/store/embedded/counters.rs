//! The numbers behind `/stats`, kept in the same transactions as what they count.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::step::Sql;
use crate::domain::callback::Callback;
use crate::domain::history::{COARSE, FINE};
use crate::domain::principal::UserId;
use crate::domain::stats::{Histogram, Latencies, StateCounts, Stats, Tally, Windows};
use crate::domain::task::State;
use crate::domain::timestamp::Timestamp;

/// Lengths of the buckets that windows are summed from, and how long they are kept, in ms.
pub const SPANS: [(i64, i64); 3] = [
    (10_000, 600_000),
    (FINE.length_ms, FINE.kept_ms),
    (COARSE.length_ms, COARSE.kept_ms),
];

/// The bucket of all time.
const EVER: i64 = 0;

/// Counters stop here (2^53): sums of them fit, and every reader of JSON holds them exactly.
const COUNT_MAX: i64 = 1 << 53;

/// Users of a type who are looked at for the oldest task, at most.
const WAITING_MAX: i64 = 1000;

/// Latencies are counted by the hour, and shown over the current and the last one.
pub const LATENCY_SPAN_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    Submit,
    QueueWait,
    Run,
}

/// What one transaction has counted. `None` stands for everyone.
#[derive(Default)]
pub struct Counters {
    gauges: HashMap<(Option<UserId>, String, State), i64>,
    tallies: HashMap<Option<UserId>, Tally>,
    latencies: HashMap<(Option<UserId>, Metric, u16), u64>,
}

impl Counters {
    pub fn gauge(&mut self, user: &UserId, task_type: &str, state: State, change: i64) {
        for user in [Some(user.clone()), None] {
            *self
                .gauges
                .entry((user, task_type.to_owned(), state))
                .or_default() += change;
        }
    }

    pub fn tally(&mut self, user: &UserId, count: impl Fn(&mut Tally)) {
        for user in [Some(user.clone()), None] {
            count(self.tallies.entry(user).or_default());
        }
    }

    pub fn latency(&mut self, user: &UserId, metric: Metric, took: Duration) {
        let bucket = Histogram::bucket(took.as_secs_f64() * 1000.0);
        for user in [Some(user.clone()), None] {
            *self.latencies.entry((user, metric, bucket)).or_default() += 1;
        }
    }

    /// How many more of a user's tasks are unfinished through this transaction, without the service's own.
    pub fn unfinished_of(&self, user: &UserId) -> i64 {
        let counts = |(whose, task_type, state): &(Option<UserId>, String, State)| {
            whose.as_ref() == Some(user) && task_type != Callback::TASK_TYPE && !state.is_ended()
        };
        let changes = self.gauges.iter().filter(|(gauge, _)| counts(gauge));
        changes.map(|(_, change)| change).sum()
    }

    pub fn write(&mut self, sql: &Sql<'_>, now: Timestamp) -> rusqlite::Result<()> {
        for ((user, task_type, state), change) in
            self.gauges.drain().filter(|(_, change)| *change != 0)
        {
            sql.execute(
                "INSERT INTO gauge VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                params![name(&user), task_type, state as i64, change],
            )?;
        }
        let spans = SPANS.iter().map(|&(span, _)| span).chain([EVER]);
        for (user, tally) in self.tallies.drain() {
            for span in spans.clone() {
                add_tally(sql, name(&user), span, bucket_start(now, span), &tally)?;
            }
        }
        for ((user, metric, bucket), count) in self.latencies.drain() {
            sql.execute(
                "INSERT INTO latency VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
                params![
                    name(&user),
                    bucket_start(now, LATENCY_SPAN_MS),
                    metric as i64,
                    bucket,
                    count
                ],
            )?;
        }
        Ok(())
    }
}

fn name(user: &Option<UserId>) -> &str {
    user.as_ref().map_or("", UserId::as_str)
}

fn bucket_start(now: Timestamp, span: i64) -> i64 {
    if span == EVER {
        0
    } else {
        now.as_ms() - now.as_ms().rem_euclid(span)
    }
}

fn add_tally(sql: &Sql<'_>, user: &str, span: i64, at: i64, tally: &Tally) -> rusqlite::Result<()> {
    let names = Tally::NAMES;
    let places: Vec<_> = (4..4 + names.len()).map(|n| format!("?{n}")).collect();
    let sums: Vec<_> = names
        .iter()
        .map(|name| format!("{name} = min({name} + excluded.{name}, {COUNT_MAX})"))
        .collect();
    let text = format!(
        "INSERT INTO tally VALUES (?1, ?2, ?3, {}) ON CONFLICT DO UPDATE SET {}",
        places.join(", "),
        sums.join(", ")
    );
    let mut statement = sql.prepare_cached(&text)?;
    statement.raw_bind_parameter(1, user)?;
    statement.raw_bind_parameter(2, span)?;
    statement.raw_bind_parameter(3, at)?;
    for (index, count) in tally.to_array().into_iter().enumerate() {
        statement.raw_bind_parameter(
            4 + index,
            i64::try_from(count).unwrap_or(COUNT_MAX).min(COUNT_MAX),
        )?;
    }
    statement.raw_execute().map(|_| ())
}

/// Tasks of all users that have not ended.
pub fn unfinished(conn: &Connection) -> rusqlite::Result<i64> {
    let ended = State::Succeeded as i64;
    conn.query_row(
        "SELECT ifnull(sum(count), 0) FROM gauge WHERE user = '' AND state < ?1",
        [ended],
        |row| row.get(0),
    )
}

/// Tasks of one user that have not ended, as committed, without the service's own.
pub fn unfinished_of(sql: &Sql<'_>, user: &UserId) -> rusqlite::Result<i64> {
    let ended = State::Succeeded as i64;
    sql.prepare_cached(
        "SELECT ifnull(sum(count), 0) FROM gauge WHERE user = ?1 AND state < ?2 AND type <> ?3",
    )?
    .query_row(params![user.as_str(), ended, Callback::TASK_TYPE], |row| {
        row.get(0)
    })
}

/// The statistics of one user, or of everyone.
pub fn stats(sql: &Sql<'_>, user: Option<&UserId>, now: Timestamp) -> rusqlite::Result<Stats> {
    let name = user.map_or("", UserId::as_str);
    let by_type = counts_by_type(sql, name)?;
    let mut counts = StateCounts::default();
    for of_type in by_type.values() {
        for state in State::ALL {
            counts.add(state, of_type.of(state));
        }
    }
    let oldest = oldest_ready(sql, user, by_type.keys())?;
    Ok(Stats {
        generated_at: now,
        running: counts.of(State::Running),
        counts,
        queue_oldest_seconds: oldest.map_or(0.0, |at| now.since(at).as_secs_f64()),
        latency: latencies(sql, name, now)?,
        windows: Windows {
            all: sum_tallies(sql, name, EVER, 0)?,
            minute: sum_tallies(sql, name, SPANS[0].0, now.as_ms() - 60_000)?,
            hour: sum_tallies(sql, name, SPANS[1].0, now.as_ms() - 3_600_000)?,
            day: sum_tallies(sql, name, SPANS[2].0, now.as_ms() - 86_400_000)?,
        },
        by_type,
    })
}

fn counts_by_type(sql: &Sql<'_>, user: &str) -> rusqlite::Result<BTreeMap<String, StateCounts>> {
    let mut by_type: BTreeMap<String, StateCounts> = BTreeMap::new();
    let mut statement =
        sql.prepare_cached("SELECT type, state, count FROM gauge WHERE user = ?1 AND count > 0")?;
    let mut rows = statement.query([user])?;
    while let Some(row) = rows.next()? {
        let state: usize = row.get(1)?;
        if let Some(&state) = State::ALL.get(state) {
            by_type
                .entry(row.get(0)?)
                .or_default()
                .add(state, row.get(2)?);
        }
    }
    Ok(by_type)
}

/// Since when the task has waited that is ready for the longest time. For everyone: of the first in line of those
/// users of each type who have waited longest for their turn.
fn oldest_ready<'a>(
    sql: &Sql<'_>,
    user: Option<&UserId>,
    types: impl Iterator<Item = &'a String>,
) -> rusqlite::Result<Option<Timestamp>> {
    let queued = State::Queued as i64;
    let oldest: Option<i64> = match user {
        Some(user) => sql
            .prepare_cached(
                "SELECT min(ready_at) FROM (SELECT ready_at FROM task WHERE user = ?1 AND state = ?2 ORDER BY seq LIMIT 1)",
            )?
            .query_row(params![user.as_str(), queued], |row| row.get(0))?,
        None => {
            let mut statement = sql.prepare_cached(
                "SELECT min((SELECT ready_at FROM task WHERE state = 1 AND aside = 0 AND type = w.type AND user = w.user \
                 ORDER BY ready_at + priority * ageing, seq LIMIT 1)) \
                 FROM (SELECT type, user FROM turn WHERE type = ?1 ORDER BY at LIMIT ?2) w",
            )?;
            let mut oldest: Option<i64> = None;
            for task_type in types {
                let first: Option<i64> =
                    statement.query_row(params![task_type, WAITING_MAX], |row| row.get(0))?;
                oldest = match (oldest, first) {
                    (Some(oldest), Some(first)) => Some(oldest.min(first)),
                    (oldest, first) => oldest.or(first),
                };
            }
            oldest
        }
    };
    Ok(oldest.map(Timestamp::from_ms))
}

/// Sums the buckets that overlap the window.
fn sum_tallies(sql: &Sql<'_>, user: &str, span: i64, from: i64) -> rusqlite::Result<Tally> {
    let sums: Vec<_> = Tally::NAMES
        .iter()
        .map(|name| format!("ifnull(sum({name}), 0)"))
        .collect();
    let text = format!(
        "SELECT {} FROM tally WHERE user = ?1 AND span = ?2 AND at > ?3",
        sums.join(", ")
    );
    let from = if span == EVER { -1 } else { from - span };
    sql.prepare_cached(&text)?
        .query_row(params![user, span, from], |row| {
            let mut counts = [0; Tally::NAMES.len()];
            for (index, count) in counts.iter_mut().enumerate() {
                *count = row.get(index)?;
            }
            Ok(Tally::from_array(counts))
        })
}

fn latencies(sql: &Sql<'_>, user: &str, now: Timestamp) -> rusqlite::Result<Latencies> {
    let from = bucket_start(now, LATENCY_SPAN_MS) - LATENCY_SPAN_MS;
    let mut statement = sql.prepare_cached(
        "SELECT metric, bucket, sum(count) FROM latency WHERE user = ?1 AND at >= ?2 GROUP BY metric, bucket",
    )?;
    let mut rows = statement.query(params![user, from])?;
    let mut latencies = Latencies::default();
    while let Some(row) = rows.next()? {
        let histogram = match row.get::<_, i64>(0)? {
            0 => &mut latencies.submit,
            1 => &mut latencies.queue_wait,
            _ => &mut latencies.run,
        };
        histogram.add(row.get(1)?, row.get(2)?);
    }
    Ok(latencies)
}
