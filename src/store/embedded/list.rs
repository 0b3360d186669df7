//! Lists, newest first. Each page reads a bounded part of one index.

use rusqlite::types::Value;

use super::key::BoundKey;
use super::record::{COLUMNS, Record, fingerprint_hash};
use super::step::Sql;
use crate::domain::principal::UserId;
use crate::domain::task::{Outcome, State, Task};
use crate::domain::timestamp::Timestamp;
use crate::store::{Cursor, ListFilter, Page};

/// Rows that one page looks at, at most; a page that finds fewer matches is short and has a next one.
const LOOKED_AT_MAX: usize = 2_000;

/// Bytes of results and params that one page holds, about.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub fn list(
    sql: &Sql<'_>,
    user: &UserId,
    filter: &ListFilter,
    now: Timestamp,
) -> rusqlite::Result<Page> {
    let before = filter.cursor.map_or(i64::MAX, |cursor| {
        i64::try_from(cursor.0).unwrap_or(i64::MAX)
    });
    if let Some(key) = &filter.key {
        let record = match BoundKey::find(sql, user, key, now)? {
            Some(key) if key.seq < before => Record::by_seq(sql, key.seq)?,
            Some(_) | None => None,
        };
        let tasks = record
            .filter(|record| matches(record, filter))
            .map(|record| record.task);
        return Ok(Page {
            tasks: tasks.into_iter().collect(),
            next: None,
        });
    }
    let (condition, value) = narrowest(filter);
    let text = format!(
        "SELECT {COLUMNS} FROM task WHERE user = ?1 AND seq < ?2 AND {condition} ORDER BY seq DESC LIMIT {LOOKED_AT_MAX}"
    );
    let mut statement = sql.prepare_cached(&text)?;
    statement.raw_bind_parameter(1, user.as_str())?;
    statement.raw_bind_parameter(2, before)?;
    if let Some(value) = value {
        statement.raw_bind_parameter(3, value)?;
    }
    let mut rows = statement.raw_query();
    let mut tasks = Vec::new();
    let mut looked_at = 0;
    let mut bytes = 0;
    let mut last = before;
    while let Some(row) = rows.next()? {
        let record = Record::read(row)?;
        if tasks.len() == filter.limit || bytes > PAGE_BYTES_MAX {
            return Ok(Page {
                tasks,
                next: cursor(last),
            });
        }
        looked_at += 1;
        last = record.seq;
        if matches(&record, filter) {
            bytes += size(&record.task);
            tasks.push(record.task);
        }
    }
    let next = if looked_at == LOOKED_AT_MAX {
        cursor(last)
    } else {
        None
    };
    Ok(Page { tasks, next })
}

fn size(task: &Task) -> usize {
    let result = match &task.outcome {
        Some(Outcome::Inline(result)) => result.get().len(),
        Some(Outcome::Blob { .. } | Outcome::Expired) | None => 0,
    };
    result + task.params.get().len()
}

fn cursor(seq: i64) -> Option<Cursor> {
    u64::try_from(seq).ok().map(Cursor)
}

/// The condition whose index is likely to leave the fewest rows, with the value of `?3`.
fn narrowest(filter: &ListFilter) -> (String, Option<Value>) {
    if let Some(fingerprint) = &filter.fingerprint {
        let hash = Value::Integer(fingerprint_hash(fingerprint));
        return ("fingerprint_hash = ?3".to_owned(), Some(hash));
    }
    if let Some((name, _)) = &filter.tag {
        let condition = "seq IN (SELECT task FROM tag WHERE tag.user = ?1 AND tag.name = ?3 AND tag.task < ?2 \
             ORDER BY tag.task DESC LIMIT 2000)";
        return (condition.to_owned(), Some(Value::Text(name.clone())));
    }
    if let Some(state) = filter.state {
        let condition = "state = ?3 AND state < 7".to_owned();
        return (condition, Some(Value::Integer(state as i64)));
    }
    if let Some(task_type) = &filter.task_type {
        let condition = "type = ?3 AND state < 7".to_owned();
        return (condition, Some(Value::Text(task_type.clone())));
    }
    (newest_of_each_state(filter.limit), None)
}

/// Without a filter, the newest of each state are brought together: one index fewer to keep.
fn newest_of_each_state(limit: usize) -> String {
    let one_more = limit.min(LOOKED_AT_MAX) + 1;
    let newest = |state: State| {
        format!(
            "SELECT * FROM (SELECT seq FROM task WHERE user = ?1 AND state = {} AND state < 7 AND seq < ?2 \
             ORDER BY seq DESC LIMIT {one_more})",
            state as i64
        )
    };
    format!("seq IN ({})", State::ALL.map(newest).join(" UNION ALL "))
}

fn matches(record: &Record, filter: &ListFilter) -> bool {
    let task = &record.task;
    !record.tombstone
        && filter.tag.as_ref().is_none_or(|tag| record.is_tagged(tag))
        && filter.state.is_none_or(|state| task.state == state)
        && filter
            .task_type
            .as_ref()
            .is_none_or(|task_type| task.task_type == *task_type)
        && filter
            .fingerprint
            .is_none_or(|fingerprint| task.fingerprint == Some(fingerprint))
}
