//! Holds the records of a database file against each other, on a connection that only reads: a service may be at
//! work on it. Each look is one transaction, which sees one state; it covers a bounded part of the tasks or keys,
//! so that the write-ahead log can be copied between two of them.

mod contradictions;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, params_from_iter};

use self::contradictions::{ANYWHERE, Contradiction, OF_KEYS, OF_TASKS};
use super::record::{COLUMNS, Record, fingerprint_hash, id_hash, short_hash};
use super::schema::{self, OpenError, open_reader};
use super::writer::now;
use super::{key, schedules};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, Generation};
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::store::audit::{Audit, FINDINGS_MAX};

/// Rows that one look covers.
const ROWS: i64 = 5_000;

/// The store of a folder, open for reading.
pub struct Auditor {
    path: PathBuf,
    conn: Connection,
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("there is no store in {0}")]
    Nothing(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
}

impl Auditor {
    pub fn open(folder: &Path) -> Result<Self, AuditError> {
        let path = folder.join("justonce.db");
        if !path.exists() {
            return Err(AuditError::Nothing(folder.display().to_string()));
        }
        let conn = open_reader(&path)?;
        if schema::written(&conn, &path.display().to_string())? == 0 {
            return Err(AuditError::Nothing(folder.display().to_string()));
        }
        Ok(Auditor { path, conn })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn run(&self, audit: &mut Audit) -> Result<(), AuditError> {
        match self.look_at_everything(audit) {
            Err(AuditError::Read(error)) if is_damage(&error) => {
                audit.found(&format!("the file is damaged: {error}"));
                Ok(())
            }
            looked => looked,
        }
    }

    fn look_at_everything(&self, audit: &mut Audit) -> Result<(), AuditError> {
        // Nothing else can be trusted of a file that contradicts itself.
        if !self.is_sound(audit)? {
            return Ok(());
        }
        let last_task = self.last("SELECT max(seq) FROM task")?;
        for from in (0..last_task).step_by(ROWS as usize) {
            self.read_tasks(from, audit)?;
            self.look(OF_TASKS, from, audit)?;
        }
        let last_key = self.last("SELECT max(rowid) FROM key")?;
        for from in (0..last_key).step_by(ROWS as usize) {
            self.read_keys(from, audit)?;
            self.look(OF_KEYS, from, audit)?;
        }
        self.read_schedules(audit)?;
        self.look(ANYWHERE, 0, audit)?;
        Ok(self.copies(audit)?)
    }

    /// Whether some record names the copy now.
    pub fn owns(&self, name: &BlobName) -> Result<bool, AuditError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT 1 FROM blob WHERE name = ?1")?;
        Ok(statement.exists([name.to_string()])?)
    }

    /// What SQLite itself says of the file.
    fn is_sound(&self, audit: &mut Audit) -> Result<bool, AuditError> {
        let text = format!("PRAGMA integrity_check({FINDINGS_MAX})");
        let mut statement = self.conn.prepare(&text)?;
        let mut rows = statement.query([])?;
        let mut is_sound = true;
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            if line != "ok" {
                is_sound = false;
                audit.found(&format!("the file is damaged: {line}"));
            }
        }
        Ok(is_sound)
    }

    fn last(&self, text: &str) -> rusqlite::Result<i64> {
        let last: Option<i64> = self.conn.query_row(text, [], |row| row.get(0))?;
        Ok(last.unwrap_or(0))
    }

    /// Rows can be read, and found by what they are searched for.
    fn read_tasks(&self, from: i64, audit: &mut Audit) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS}, id_hash, fingerprint_hash, matching_hash FROM task WHERE seq > ?1 AND seq <= ?2"
        ))?;
        let mut rows = statement.query([from, from + ROWS])?;
        while let Some(row) = rows.next()? {
            audit.saw("tasks", 1);
            let id: String = row.get(1)?;
            let record = match Record::read(row) {
                Ok(record) => record,
                Err(error) => {
                    audit.found(&format!("task {id}: its record cannot be read: {error}"));
                    continue;
                }
            };
            let hashes = (
                row.get("id_hash")?,
                row.get("fingerprint_hash")?,
                row.get("matching_hash")?,
            );
            let task = record.task;
            let matching = record.matching;
            let right = (
                id_hash(&task.id),
                task.fingerprint.as_ref().map(fingerprint_hash),
                matching.map(|matching| short_hash(matching.digest())),
            );
            if right != hashes {
                audit.found(&format!(
                    "task {id}: it cannot be found by its id or content"
                ));
            }
        }
        Ok(())
    }

    fn read_keys(&self, from: i64, audit: &mut Audit) -> rusqlite::Result<()> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT user, key, hash FROM key WHERE rowid > ?1 AND rowid <= ?2")?;
        let mut rows = statement.query([from, from + ROWS])?;
        while let Some(row) = rows.next()? {
            audit.saw("keys", 1);
            let (user, text): (String, String) = (row.get(0)?, row.get(1)?);
            let user_id = UserId::parse(&user);
            let hash = user_id.map(|user| key::hash(&user, &IdempotencyKey::from_store(&text)));
            if hash != Some(row.get(2)?) {
                audit.found(&format!("key {text} of {user}: it cannot be found"));
            }
        }
        Ok(())
    }

    fn read_schedules(&self, audit: &mut Audit) -> rusqlite::Result<()> {
        let text = format!("SELECT {} FROM schedule", schedules::COLUMNS);
        let mut statement = self.conn.prepare(&text)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            audit.saw("schedules", 1);
            if let Err(error) = schedules::read(row) {
                let (user, name): (String, String) = (row.get(0)?, row.get(1)?);
                audit.found(&format!(
                    "schedule {name} of {user}: its record cannot be read: {error}"
                ));
            }
        }
        Ok(())
    }

    /// Each statement is a transaction of its own.
    fn look(
        &self,
        for_these: &[Contradiction],
        from: i64,
        audit: &mut Audit,
    ) -> rusqlite::Result<()> {
        let bounds = [from, from + ROWS, now().as_ms()];
        for contradiction in for_these {
            let mut statement = self.conn.prepare_cached(&contradiction.sql())?;
            let wanted = statement.parameter_count();
            let mut rows = statement.query(params_from_iter(&bounds[..wanted]))?;
            while let Some(row) = rows.next()? {
                let subject: String = row.get(0)?;
                audit.found(&format!("{subject}: {}", contradiction.says));
            }
        }
        Ok(())
    }

    fn copies(&self, audit: &mut Audit) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare(
            "SELECT sha256, generation, size FROM file UNION ALL \
             SELECT unhex(result ->> '$.name.sha256'), result ->> '$.name.generation', result ->> '$.size' \
             FROM task WHERE result_kind = 2 AND json_valid(result)",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let generation: Option<String> = row.get(1)?;
            if let Some(generation) = generation.as_deref().and_then(Generation::parse) {
                let sha256 = Sha256Digest::from_bytes(row.get(0)?);
                let name = BlobName { sha256, generation };
                audit.copies.insert(name, row.get(2)?);
            }
        }
        audit.saw("copies of files and results", audit.copies.len());
        Ok(())
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
