//! What calls of workers outside have leased, for those who did not hear of it.

use rusqlite::{OptionalExtension, params};

use super::record::Record;
use super::step::Step;
use crate::store::{Lease, LeaseRequest};

/// The leases of an earlier call that are still held; none when there was no such call.
pub fn taken(step: &Step<'_>, nonce: &str) -> rusqlite::Result<Option<Vec<Lease>>> {
    let taken: Option<String> = step
        .sql
        .prepare_cached("SELECT taken FROM lease_nonce WHERE nonce = ?1 AND expires_at > ?2")?
        .query_row(params![nonce, step.now.as_ms()], |row| row.get(0))
        .optional()?;
    let Some(taken) = taken else { return Ok(None) };
    let taken: Vec<(i64, u64)> = serde_json::from_str(&taken)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let mut leases = Vec::new();
    for (seq, token) in taken {
        let record = Record::by_seq(&step.sql, seq)?;
        let record = record.filter(|record| record.held && record.token.0 == token);
        leases.extend(record.map(|record| Lease {
            token: record.token,
            expires_at: record.due_at.unwrap_or(step.now),
            idempotency_key: record.key,
            task: record.task,
        }));
    }
    Ok(Some(leases))
}

/// A call that leased nothing may be repeated as a new one.
pub fn remember(step: &Step<'_>, nonce: &str, taken: &[(i64, Lease)]) -> rusqlite::Result<()> {
    if taken.is_empty() {
        return Ok(());
    }
    let taken: Vec<_> = taken
        .iter()
        .map(|(seq, lease)| (seq, lease.token))
        .collect();
    let taken = serde_json::to_string(&taken)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let expires_at = step.now.plus(LeaseRequest::NONCE_KEPT);
    step.sql.execute(
        "INSERT OR REPLACE INTO lease_nonce VALUES (?1, ?2, ?3)",
        params![nonce, taken, expires_at.as_ms()],
    )?;
    Ok(())
}

/// Every call leaves one behind, so that more go at a time than of what tasks leave.
const EXPIRED_MAX: usize = 5_000;

pub fn expire(step: &Step<'_>) -> rusqlite::Result<()> {
    step.sql.execute(
        "DELETE FROM lease_nonce WHERE nonce IN \
         (SELECT nonce FROM lease_nonce WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        params![step.now.as_ms(), EXPIRED_MAX],
    )?;
    Ok(())
}
