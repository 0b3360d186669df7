//! A task's row, there and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::step::Sql;
use crate::domain::callback::Callback;
use crate::domain::digest::Sha256Digest;
use crate::domain::event::Changes;
use crate::domain::file::{BlobName, File};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::matching::Matching;
use crate::domain::principal::UserId;
use crate::domain::standing::Failures;
use crate::domain::task::{FencingToken, Outcome, Priority, State, Task, TaskId};
use crate::domain::task_type::Retention;
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;

/// The state of a row whose task is gone.
pub const TOMBSTONE: i64 = 7;

/// A row of the table `task`: the task, and what only the store needs.
#[derive(Clone, Debug)]
pub struct Record {
    pub seq: i64,
    pub task: Task,
    pub token: FencingToken,
    /// Whether an attempt may still be running.
    pub held: bool,
    pub tombstone: bool,
    pub ready_at: Option<Timestamp>,
    pub due_at: Option<Timestamp>,
    pub result_until: Option<Timestamp>,
    pub kept_until: Option<Timestamp>,
    pub window: Duration,
    /// Attempts that a submission or redrive grants.
    pub budget: u32,
    pub retention: Retention,
    /// The key that the task was first submitted with.
    pub key: Option<String>,
    /// Of the tasks with one fingerprint, the one with the greatest claim answers for it.
    pub claim: i64,
    pub failures: Failures,
    /// Who is told of its end.
    pub callbacks: Vec<Callback>,
    /// What it has in common with those that it is in conflict with.
    pub matching: Option<Matching>,
    /// Since when its chain of debounced tasks waits.
    pub chained_at: Option<Timestamp>,
    /// Whether it waits for the end of another one.
    pub behind: bool,
    /// Whether submissions without a key have joined it.
    pub keyless: bool,
    /// Of those of its user and type with the same one, one runs at a time.
    pub slot: Option<String>,
    /// What a level of priority is worth.
    pub ageing: Duration,
}

/// What is written once, at admission, and never searched for.
#[derive(Serialize, Deserialize)]
pub struct Submitted {
    pub params: Arc<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<i64>,
    pub window_ms: u64,
    pub budget: u32,
    pub retention: Retention,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Submitted {
    pub fn of(record: &Record) -> Self {
        let task = &record.task;
        Submitted {
            params: task.params.clone(),
            files: task.files.clone(),
            tags: task.tags.clone(),
            scheduled_at: task.scheduled_at.map(Timestamp::as_ms),
            window_ms: u64::try_from(record.window.as_millis()).unwrap_or(u64::MAX),
            budget: record.budget,
            retention: record.retention,
            key: record.key.clone(),
        }
    }

    pub fn to_json(&self) -> rusqlite::Result<String> {
        serde_json::to_string(self).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
    }
}

impl Record {
    pub fn by_id(sql: &Sql<'_>, user: &UserId, id: &TaskId) -> rusqlite::Result<Option<Record>> {
        let record = sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM task WHERE id_hash = ?1 AND id = ?2"
            ))?
            .query_row(params![id_hash(id), id.as_str()], Record::read)
            .optional()?;
        Ok(record
            .filter(|record| record.task.user == *user || SeededFault::ForeignTaskShown.is_on()))
    }

    pub fn by_seq(sql: &Sql<'_>, seq: i64) -> rusqlite::Result<Option<Record>> {
        sql.prepare_cached(&format!("SELECT {COLUMNS} FROM task WHERE seq = ?1"))?
            .query_row([seq], Record::read)
            .optional()
    }

    /// The task that answers for a fingerprint, if any does or did.
    pub fn by_fingerprint(
        sql: &Sql<'_>,
        user: &UserId,
        fingerprint: &Fingerprint,
    ) -> rusqlite::Result<Option<Record>> {
        let digest = fingerprint.digest().as_bytes();
        sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM task WHERE fingerprint_hash = ?1 AND fingerprint = ?2 AND user = ?3 \
             ORDER BY claim DESC LIMIT 1"
        ))?
        .query_row(params![fingerprint_hash(fingerprint), digest, user.as_str()], Record::read)
        .optional()
    }

    pub fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
        let state: i64 = row.get(4)?;
        let submission: Submitted = from_json(23, row.get_ref(23)?.as_str()?)?;
        let time = |index| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_ms))
        };
        let fingerprint = row.get::<_, Option<[u8; 32]>>(5)?;
        let created_at = Timestamp::from_ms(row.get(11)?);
        let window = Duration::from_millis(submission.window_ms);
        let throttles: bool = row.get(32)?;
        let matching = row.get::<_, Option<[u8; 32]>>(31)?;
        let superseded_by = row.get_ref(35)?.as_str_or_null()?;
        let next_attempt_at = time(15)?.filter(|_| state == State::Retrying as i64);
        let task = Task {
            id: known(1, TaskId::parse(row.get_ref(1)?.as_str()?))?,
            user: known(2, UserId::parse(row.get_ref(2)?.as_str()?))?,
            task_type: row.get(3)?,
            state: State::ALL
                .get(usize::try_from(state).unwrap_or(usize::MAX))
                .copied()
                .unwrap_or(State::Cancelled),
            fingerprint: fingerprint
                .map(|bytes| Fingerprint::from_digest(Sha256Digest::from_bytes(bytes))),
            params: submission.params,
            files: submission.files,
            priority: known(6, Priority::new(row.get(6)?))?,
            tags: submission.tags,
            attempt: row.get(7)?,
            max_attempts: row.get(8)?,
            progress: optional_json(row, 21)?,
            created_at,
            scheduled_at: submission.scheduled_at.map(Timestamp::from_ms),
            started_at: time(13)?,
            finished_at: time(14)?,
            next_attempt_at,
            dedup_expires_at: time(16)?,
            outcome: read_outcome(row)?,
            error: optional_json(row, 22)?,
            duplicates: row.get(19)?,
            superseded_by: superseded_by.and_then(TaskId::parse),
            throttles_until: throttles.then(|| created_at.plus(window)),
            changes: Changes::new(
                row.get(28)?,
                row.get_ref(29)?.as_bytes_or_null()?.unwrap_or_default(),
            ),
        };
        Ok(Record {
            seq: row.get(0)?,
            task,
            token: FencingToken(row.get(9)?),
            held: row.get(10)?,
            tombstone: state == TOMBSTONE,
            ready_at: time(12)?,
            due_at: time(15)?,
            result_until: time(17)?,
            kept_until: time(18)?,
            window,
            budget: submission.budget,
            retention: submission.retention,
            key: submission.key,
            claim: row.get(25)?,
            failures: Failures {
                resubmissions: row.get(26)?,
                first_failed_at: time(27)?,
            },
            callbacks: optional_json(row, 30)?.unwrap_or_default(),
            matching: matching.map(|bytes| Matching::from_digest(Sha256Digest::from_bytes(bytes))),
            chained_at: time(33)?,
            behind: row.get(34)?,
            keyless: row.get(36)?,
            slot: row.get(37)?,
            ageing: Duration::from_millis(row.get(38)?),
        })
    }

    /// Whether the task has this tag, with this value unless any will do.
    pub fn is_tagged(&self, (name, wanted): &(String, Option<String>)) -> bool {
        let value = self.task.tags.get(name);
        value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
    }

    /// How long the attempt took that gave the result.
    pub fn run_time(&self) -> Duration {
        match (self.task.started_at, self.task.finished_at) {
            (Some(started), Some(finished)) => finished.since(started),
            _ => Duration::ZERO,
        }
    }
}

/// In the order that [`Record::read`] counts on.
pub const COLUMNS: &str = "seq, id, user, type, state, fingerprint, priority, attempt, max_attempts, token, held, \
     created_at, ready_at, started_at, finished_at, due_at, dedup_expires_at, result_until, kept_until, duplicates, \
     result_kind, progress, error, submission, result, claim, resubmissions, first_failed_at, \
     revision, trail, callbacks, matching, throttles, chained_at, behind, superseded_by, keyless, slot, ageing";

/// 64 bits of the id's random ones.
pub fn id_hash(id: &TaskId) -> i64 {
    let text = id.as_str();
    let tail = text
        .get(text.len().saturating_sub(16)..)
        .unwrap_or_default();
    u64::from_str_radix(tail, 16)
        .unwrap_or_default()
        .cast_signed()
}

pub fn fingerprint_hash(fingerprint: &Fingerprint) -> i64 {
    short_hash(fingerprint.digest())
}

pub fn short_hash(digest: &Sha256Digest) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

pub mod result_kind {
    pub const NONE: i64 = 0;
    pub const INLINE: i64 = 1;
    pub const BLOB: i64 = 2;
    pub const EXPIRED: i64 = 3;
}

/// How a result that is kept in blob storage is written into its column.
#[derive(Serialize, Deserialize)]
pub struct StoredBlob {
    pub name: BlobName,
    pub size: u64,
}

fn read_outcome(row: &Row<'_>) -> rusqlite::Result<Option<Outcome>> {
    Ok(match row.get::<_, i64>(20)? {
        result_kind::INLINE => {
            let text: String = row.get(24)?;
            let raw = RawValue::from_string(text).map_err(|error| damaged(24, error))?;
            Some(Outcome::Inline(raw.into()))
        }
        result_kind::BLOB => {
            let StoredBlob { name, size } = from_json(24, row.get_ref(24)?.as_str()?)?;
            Some(Outcome::Blob { name, size })
        }
        result_kind::EXPIRED => Some(Outcome::Expired),
        _ => None,
    })
}

fn optional_json<T: for<'de> Deserialize<'de>>(
    row: &Row<'_>,
    index: usize,
) -> rusqlite::Result<Option<T>> {
    row.get_ref(index)?
        .as_str_or_null()?
        .map(|text| from_json(index, text))
        .transpose()
}

fn from_json<T: for<'de> Deserialize<'de>>(index: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| damaged(index, error))
}

fn known<T>(index: usize, value: Option<T>) -> rusqlite::Result<T> {
    value.ok_or_else(|| damaged(index, "not a value that this release writes"))
}

fn damaged(
    index: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
}
