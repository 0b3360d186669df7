//! Files that no task reads any more.

use rusqlite::params;

use super::file;
use super::step::{Sql, Step};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::store::{FileCursor, UnreferencedFiles};

/// Rows that one page looks at, at most.
const LOOKED_AT_MAX: usize = 500;

pub fn page(
    sql: &Sql<'_>,
    user: &UserId,
    before: Timestamp,
    after: Option<&FileCursor>,
) -> rusqlite::Result<UnreferencedFiles> {
    let after = after.and_then(|cursor| Sha256Digest::parse_hex(&cursor.0));
    let after: &[u8] = after.as_ref().map_or(&[], |sha256| sha256.as_bytes());
    let mut statement = sql.prepare_cached(
        "SELECT sha256, generation, size, name, media_type, refs = 0 AND expires_at <= ?3 \
         FROM file WHERE user = ?1 AND sha256 > ?2 ORDER BY sha256 LIMIT ?4",
    )?;
    let until = expiry_of(before);
    let mut rows = statement.query(params![user.as_str(), after, until, LOOKED_AT_MAX])?;
    let (mut files, mut last, mut looked_at) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let sha256 = Sha256Digest::from_bytes(row.get(0)?);
        looked_at += 1;
        last = Some(sha256);
        if row.get::<_, Option<bool>>(5)? == Some(true) {
            files.push(File {
                part: None,
                sha256,
                size: row.get(2)?,
                name: row.get(3)?,
                media_type: row.get(4)?,
                generation: Generation::parse(row.get_ref(1)?.as_str()?),
            });
        }
    }
    Ok(UnreferencedFiles {
        files,
        next: last
            .filter(|_| looked_at == LOOKED_AT_MAX)
            .map(|sha256| FileCursor(sha256.to_string())),
    })
}

pub fn forget(
    step: &Step<'_>,
    user: &UserId,
    name: &BlobName,
    before: Timestamp,
) -> rusqlite::Result<bool> {
    let forgotten = step.sql.execute(
        "DELETE FROM file WHERE user = ?1 AND sha256 = ?2 AND generation = ?3 AND refs = 0 AND expires_at <= ?4",
        params![
            user.as_str(),
            name.sha256.as_bytes(),
            name.generation.as_str(),
            expiry_of(before)
        ],
    )?;
    if forgotten > 0 {
        file::disown_blob(step, name)?;
        return Ok(true);
    }
    let known = file::find(&step.sql, user, &name.sha256)?;
    let known = known.and_then(|file| file.generation);
    Ok(known.as_ref() != Some(&name.generation))
}

/// When a file expires that was last kept at `kept_at`. What tasks let go of may be kept for longer: then it
/// counts as kept later than it was.
fn expiry_of(kept_at: Timestamp) -> i64 {
    kept_at.plus(super::FILE_RETENTION).as_ms()
}
