//! API keys on record.

use rusqlite::{OptionalExtension, Row, params};

use super::step::{Sql, Step};
use crate::domain::digest::Sha256Digest;
use crate::domain::principal::{Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::store::ApiKey;

pub fn create(step: &Step<'_>, key: &ApiKey) -> rusqlite::Result<()> {
    step.sql.execute(
        "INSERT OR IGNORE INTO api_key VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            key.id,
            key.secret_hash.as_bytes(),
            key.user.as_str(),
            key.scopes.bits(),
            key.created_at.as_ms(),
            key.expires_at.map(Timestamp::as_ms),
            key.revoked_at.map(Timestamp::as_ms)
        ],
    )?;
    Ok(())
}

/// Whether it is on record: another one is in its way.
pub fn create_first(step: &Step<'_>, key: &ApiKey) -> rusqlite::Result<bool> {
    let others = "SELECT EXISTS (SELECT 1 FROM api_key WHERE id <> ?1)";
    let is_taken: bool = step
        .sql
        .prepare_cached(others)?
        .query_row([&key.id], |row| row.get(0))?;
    if is_taken {
        return Ok(false);
    }
    create(step, key)?;
    Ok(true)
}

pub fn find(sql: &Sql<'_>, id: &str) -> rusqlite::Result<Option<ApiKey>> {
    sql.prepare_cached("SELECT * FROM api_key WHERE id = ?1")?
        .query_row([id], read)
        .optional()
}

pub fn all(sql: &Sql<'_>) -> rusqlite::Result<Vec<ApiKey>> {
    let mut statement = sql.prepare_cached("SELECT * FROM api_key ORDER BY created_at, id")?;
    let keys = statement.query_map([], read)?;
    keys.collect()
}

pub fn revoke(step: &Step<'_>, id: &str) -> rusqlite::Result<bool> {
    let revoked = step.sql.execute(
        "UPDATE api_key SET revoked_at = ifnull(revoked_at, ?2) WHERE id = ?1",
        params![id, step.now.as_ms()],
    )?;
    Ok(revoked > 0)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let user: String = row.get(2)?;
    let time = |index| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_ms))
    };
    Ok(ApiKey {
        id: row.get(0)?,
        secret_hash: Sha256Digest::from_bytes(row.get(1)?),
        user: UserId::parse(&user).unwrap_or_else(UserId::anonymous),
        scopes: Scopes::from_bits(row.get(3)?),
        created_at: Timestamp::from_ms(row.get(4)?),
        expires_at: time(5)?,
        revoked_at: time(6)?,
    })
}
