//! What is kept of an idempotency key.

use rusqlite::{OptionalExtension, params};

use super::file;
use super::record::{Record, short_hash};
use super::step::{Sql, Step};
use crate::domain::digest::Sha256Digest;
use crate::domain::fingerprint::{FieldHashes, Fingerprint, FingerprintRule};
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::Admission;

/// A key and the submission that it was first used for.
pub struct BoundKey {
    pub seq: i64,
    pub fingerprint: Fingerprint,
    pub rule: FingerprintRule,
    pub fields: FieldHashes,
    pub expires_at: Option<Timestamp>,
    pub forgotten: bool,
}

impl BoundKey {
    /// A key whose retention is over is as good as never used.
    pub fn find(
        sql: &Sql<'_>,
        user: &UserId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> rusqlite::Result<Option<BoundKey>> {
        sql
            .prepare_cached(
                "SELECT task, fingerprint, rule, fields, expires_at, forgotten FROM key \
                 WHERE hash = ?1 AND key = ?2 AND user = ?3 AND (expires_at IS NULL OR expires_at > ?4)",
            )?
            .query_row(params![hash(user, key), key.as_str(), user.as_str(), now.as_ms()], |row| {
                Ok(BoundKey {
                    seq: row.get(0)?,
                    fingerprint: Fingerprint::from_digest(Sha256Digest::from_bytes(row.get(1)?)),
                    rule: from_json(row.get_ref(2)?.as_str()?)?,
                    fields: from_json(row.get_ref(3)?.as_str()?)?,
                    expires_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_ms),
                    forgotten: row.get(5)?,
                })
            })
            .optional()
    }

    /// Binds the key of a submission to a task; says until when it is kept, once the task has ended.
    pub fn bind(
        step: &Step<'_>,
        admission: &Admission,
        key: &IdempotencyKey,
        record: &Record,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let ended = record.task.state.is_ended() || SeededFault::KeyExpiresWhileItRuns.is_on();
        let expires_at = ended.then(|| step.now.plus(record.retention.key));
        step.sql.execute(
            "INSERT INTO key VALUES (?9, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0)",
            params![
                admission.user.as_str(),
                key.as_str(),
                record.seq,
                admission.fingerprint.digest().as_bytes(),
                to_json(&admission.rule)?,
                to_json(&admission.fields())?,
                step.now.as_ms(),
                expires_at.map(Timestamp::as_ms),
                hash(&admission.user, key)
            ],
        )?;
        if let Some(expires_at) = expires_at {
            keep_result_until(step, record, expires_at)?;
            file::keep_until(step, record, expires_at)?;
        }
        Ok(expires_at)
    }

    /// The task has ended: its keys are kept for their retention from now on.
    pub fn start_retention(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        let expires_at = step.now.plus(record.retention.key);
        step.sql.execute(
            "UPDATE key SET expires_at = ?2 WHERE task = ?1 AND forgotten = 0",
            params![record.seq, expires_at.as_ms()],
        )?;
        Ok(())
    }

    /// The task runs again: its keys are kept as long as it lives.
    pub fn stop_retention(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        step.sql.execute(
            "UPDATE key SET expires_at = NULL WHERE task = ?1 AND forgotten = 0 AND expires_at > ?2",
            params![record.seq, step.now.as_ms()],
        )?;
        Ok(())
    }

    /// The task is gone: its keys answer so until their retention ends.
    pub fn forget(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        step.sql.execute(
            "UPDATE key SET forgotten = 1, fields = '{}', expires_at = ifnull(expires_at, ?2) WHERE task = ?1",
            params![record.seq, step.now.plus(record.retention.key).as_ms()],
        )?;
        Ok(())
    }

    /// Whoever has the key wants its task no more. Gives how many keys are left whose clients do.
    pub fn withdraw(
        step: &Step<'_>,
        key: &BoundKey,
        name: &IdempotencyKey,
    ) -> rusqlite::Result<u64> {
        step.sql.execute(
            "UPDATE key SET withdrawn = 1 WHERE task = ?1 AND key = ?2",
            params![key.seq, name.as_str()],
        )?;
        step.sql
            .prepare_cached("SELECT count(*) FROM key WHERE task = ?1 AND withdrawn = 0")?
            .query_row([key.seq], |row| row.get(0))
    }

    /// Until when some key names the task.
    pub fn latest_expiry(sql: &Sql<'_>, seq: i64) -> rusqlite::Result<Option<Timestamp>> {
        let latest: Option<i64> = sql
            .prepare_cached("SELECT max(expires_at) FROM key WHERE task = ?1")?
            .query_row([seq], |row| row.get(0))?;
        Ok(latest.map(Timestamp::from_ms))
    }
}

pub fn hash(user: &UserId, key: &IdempotencyKey) -> i64 {
    // A user has no line break, so that no two pairs look the same.
    short_hash(&Sha256Digest::of(format!("{user}\n{key}").as_bytes()))
}

/// A result is never kept for a shorter time than a key that names it.
fn keep_result_until(step: &Step<'_>, record: &Record, until: Timestamp) -> rusqlite::Result<()> {
    if record.result_until.is_some_and(|known| known < until) {
        step.sql.execute(
            "UPDATE task SET result_until = ?2, kept_until = max(kept_until, ?2), \
             due_at = CASE WHEN due_at = result_until THEN ?2 ELSE due_at END WHERE seq = ?1",
            params![record.seq, until.as_ms()],
        )?;
    }
    Ok(())
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
