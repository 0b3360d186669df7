//! Files that users have uploaded, and who still needs them.

use rusqlite::{OptionalExtension, params};

use super::record::Record;
use super::step::{Sql, Step};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;

/// Rows that one step expires at most.
const EXPIRED_MAX: usize = 200;

pub fn find(sql: &Sql<'_>, user: &UserId, sha256: &Sha256Digest) -> rusqlite::Result<Option<File>> {
    sql.prepare_cached(
        "SELECT generation, size, name, media_type FROM file WHERE user = ?1 AND sha256 = ?2",
    )?
    .query_row(params![user.as_str(), sha256.as_bytes()], |row| {
        Ok(File {
            part: None,
            sha256: *sha256,
            size: row.get(1)?,
            name: row.get(2)?,
            media_type: row.get(3)?,
            generation: Generation::parse(row.get_ref(0)?.as_str()?),
        })
    })
    .optional()
}

/// As [`adopt`]; nothing, for a file without a copy of which there is none on record.
pub fn keep(
    step: &Step<'_>,
    user: &UserId,
    file: &File,
    expires_at: Timestamp,
) -> rusqlite::Result<Option<File>> {
    if file.generation.is_none() && find(&step.sql, user, &file.sha256)?.is_none() {
        return Ok(None);
    }
    adopt(step, user, file, expires_at).map(Some)
}

/// Records an uploaded file, unless an older copy is on record: then the upload is not needed.
pub fn adopt(
    step: &Step<'_>,
    user: &UserId,
    file: &File,
    expires_at: Timestamp,
) -> rusqlite::Result<File> {
    if let Some(known) = find(&step.sql, user, &file.sha256)? {
        step.sql.execute(
            "UPDATE file SET expires_at = max(expires_at, ?3) WHERE user = ?1 AND sha256 = ?2 AND refs = 0",
            params![user.as_str(), file.sha256.as_bytes(), expires_at.as_ms()],
        )?;
        return Ok(known);
    }
    step.sql.execute(
        "INSERT INTO file VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
        params![
            user.as_str(),
            file.sha256.as_bytes(),
            file.generation.as_ref().map(Generation::as_str),
            file.size,
            file.name,
            file.media_type,
            expires_at.as_ms()
        ],
    )?;
    if let Some(blob) = file.blob() {
        own_blob(step, &blob)?;
    }
    Ok(file.clone())
}

/// A task needs its files from now on.
pub fn reference(step: &Step<'_>, user: &UserId, files: &[File]) -> rusqlite::Result<()> {
    for file in files {
        step.sql.execute(
            "UPDATE file SET refs = refs + 1, expires_at = NULL WHERE user = ?1 AND sha256 = ?2",
            params![user.as_str(), file.sha256.as_bytes()],
        )?;
    }
    Ok(())
}

/// A task needs its files no more.
pub fn release(step: &mut Step<'_>, record: &Record) -> rusqlite::Result<()> {
    // As long as a key may name the task, or its content: a repeat must find what it names.
    let kept = record
        .retention
        .file
        .max(record.retention.key)
        .max(record.window);
    let expires_at = step.now.plus(kept);
    for file in &record.task.files {
        step.sql.execute(
            "UPDATE file SET refs = refs - 1, expires_at = CASE WHEN refs <= 1 THEN ?3 END \
             WHERE user = ?1 AND sha256 = ?2",
            params![
                record.task.user.as_str(),
                file.sha256.as_bytes(),
                expires_at.as_ms()
            ],
        )?;
        step.due(expires_at);
    }
    Ok(())
}

/// A key names the task until then, and with it the files.
pub fn keep_until(step: &Step<'_>, record: &Record, until: Timestamp) -> rusqlite::Result<()> {
    for file in &record.task.files {
        step.sql.execute(
            "UPDATE file SET expires_at = max(expires_at, ?3) WHERE user = ?1 AND sha256 = ?2 AND refs = 0",
            params![record.task.user.as_str(), file.sha256.as_bytes(), until.as_ms()],
        )?;
    }
    Ok(())
}

/// Takes expired files off the record, and says whose bytes nobody owns now.
pub fn expire(step: &Step<'_>) -> rusqlite::Result<Vec<BlobName>> {
    let mut statement = step.sql.prepare_cached(
        "DELETE FROM file WHERE (user, sha256) IN \
         (SELECT user, sha256 FROM file WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2) \
         RETURNING sha256, generation",
    )?;
    let names = statement.query_map(params![step.now.as_ms(), EXPIRED_MAX], |row| {
        let sha256 = Sha256Digest::from_bytes(row.get(0)?);
        let generation = Generation::parse(row.get_ref(1)?.as_str()?);
        Ok(generation.map(|generation| BlobName { sha256, generation }))
    })?;
    let names: Vec<_> = names
        .collect::<rusqlite::Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    for name in &names {
        disown_blob(step, name)?;
    }
    Ok(names)
}

pub fn own_blob(step: &Step<'_>, name: &BlobName) -> rusqlite::Result<()> {
    step.sql
        .execute("INSERT OR IGNORE INTO blob VALUES (?1)", [name.to_string()])?;
    Ok(())
}

pub fn disown_blob(step: &Step<'_>, name: &BlobName) -> rusqlite::Result<()> {
    step.sql
        .execute("DELETE FROM blob WHERE name = ?1", [name.to_string()])?;
    Ok(())
}

pub fn unowned(sql: &Sql<'_>, names: Vec<BlobName>) -> rusqlite::Result<Vec<BlobName>> {
    let mut statement = sql.prepare_cached("SELECT 1 FROM blob WHERE name = ?1")?;
    let mut unowned = Vec::new();
    for name in names {
        if !statement.exists([name.to_string()])? {
            unowned.push(name);
        }
    }
    Ok(unowned)
}
