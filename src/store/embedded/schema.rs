//! The tables of the embedded store, and how a database file is opened.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Marks the file as ours (`PRAGMA application_id`): "JOne".
const APPLICATION_ID: i32 = 0x4a4f_6e65;

/// The schema that this code reads and writes (`PRAGMA user_version`). A newer file is refused.
pub const VERSION: i32 = 7;

/// Older versions of SQLite can corrupt a WAL that is reset while another connection writes.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{0} was written by a newer release (schema {1}, this release knows {VERSION}): start that release"
    )]
    Newer(String, i32),
    #[error("{0} is a database of another program")]
    Foreign(String),
    #[error("the bundled SQLite is too old")]
    OldLibrary,
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
    #[error("cannot open {0}: {1}")]
    Sqlite(String, rusqlite::Error),
}

/// Opens the connection that writes, and creates or checks the tables. No path: in memory.
pub fn open_writer(path: Option<&Path>) -> Result<Connection, OpenError> {
    let name = path.map_or_else(
        || "the in-memory store".to_owned(),
        |p| p.display().to_string(),
    );
    let opened = match path {
        Some(path) => Connection::open(path),
        None => Connection::open_in_memory(),
    };
    let wrap = |error| OpenError::Sqlite(name.clone(), error);
    let conn = opened.map_err(wrap)?;
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::OldLibrary);
    }
    let written = written(&conn, &name)?;
    prepare(&conn).map_err(wrap)?;
    if written < VERSION {
        bring_up(&conn, written).map_err(wrap)?;
    }
    Ok(conn)
}

/// The schema that the file was written with; 0 when nothing is in it yet. One that this release does not know is
/// refused.
pub fn written(conn: &Connection, name: &str) -> Result<i32, OpenError> {
    let wrap = |error| OpenError::Sqlite(name.to_owned(), error);
    let application: i32 = conn
        .pragma_query_value(None, "application_id", |r| r.get(0))
        .map_err(wrap)?;
    let version: i32 = conn
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .map_err(wrap)?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
        .map_err(wrap)?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION_ID, newer) if newer > VERSION => Err(OpenError::Newer(name.to_owned(), newer)),
        (APPLICATION_ID, known) if known > 0 => Ok(known),
        _ => Err(OpenError::Foreign(name.to_owned())),
    }
}

/// Opens a connection that only reads.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(std::time::Duration::from_secs(2))?;
    settle_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Looks through the whole file. Done when the last process did not close it.
pub fn quick_check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: Result<String, _> = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0));
    match found {
        Ok(word) if word == "ok" => Ok(()),
        Ok(fault) => Err(OpenError::Damaged(path.display().to_string(), fault)),
        Err(error) => Err(OpenError::Sqlite(path.display().to_string(), error)),
    }
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    // Indexes in random order touch many pages in one transaction: smaller ones are less to write.
    conn.pragma_update(None, "page_size", 2048)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    // The writing thread checkpoints by itself, since SQLite keeps the errors of its own to itself.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // In KiB, and only as far as it is needed.
    conn.pragma_update(None, "cache_size", -16_000)?;
    settle_plans(conn)?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(())
}

/// Without this, statements that partial indexes could serve are planned anew whenever their parameters change:
/// half of what an admission costs.
fn settle_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(|_| ())
}

/// From the version that a file was written by (0: a new one) to today's, all at once.
fn bring_up(conn: &Connection, written: i32) -> rusqlite::Result<()> {
    let steps = STEPS.iter().skip(usize::try_from(written).unwrap_or(0));
    let steps = steps.copied().collect::<String>();
    conn.execute_batch(&format!(
        "BEGIN; {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// What each version added, in order.
const STEPS: [&str; VERSION as usize] = [
    TABLES,
    OUTSIDE_AND_PAUSES,
    CHANGES,
    SCHEDULES,
    CALLBACKS,
    CONFLICTS,
    TURNS,
];

/// Version 6: the conflict modes, and who wants a task.
const CONFLICTS: &str = "
ALTER TABLE task ADD COLUMN matching BLOB;          -- what it has in common with those that it is in conflict with
ALTER TABLE task ADD COLUMN matching_hash INTEGER;
ALTER TABLE task ADD COLUMN throttles INTEGER NOT NULL DEFAULT 0; -- 1: it answers for its window from its admission on
ALTER TABLE task ADD COLUMN chained_at INTEGER;     -- since when its chain of debounced tasks waits
ALTER TABLE task ADD COLUMN behind INTEGER NOT NULL DEFAULT 0; -- 1: it waits for the end of another
ALTER TABLE task ADD COLUMN superseded_by TEXT;
ALTER TABLE task ADD COLUMN keyless INTEGER NOT NULL DEFAULT 0; -- 1: submissions without a key have joined it
CREATE INDEX task_by_matching ON task(matching_hash, seq) WHERE matching_hash IS NOT NULL;
CREATE INDEX task_in_conflict ON task(matching_hash, seq)
    WHERE matching_hash IS NOT NULL AND (finished_at IS NULL OR held = 1);
ALTER TABLE key ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0; -- 1: whoever had it wants the task no more
";

/// Version 4: schedules.
const SCHEDULES: &str = "
CREATE TABLE schedule (
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    plan TEXT NOT NULL,                     -- JSON
    timing TEXT NOT NULL,                   -- what says when it fires
    revision INTEGER NOT NULL,              -- another one whenever it changes or goes on
    next_fire_at INTEGER,
    due_at INTEGER,                         -- when to look at it: as next_fire_at, or later when that was put off
    last_fired_at INTEGER,
    last_task TEXT,
    refused_at INTEGER,                     -- of a firing after that, which its type did not take
    refusal TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_due ON schedule(type, due_at) WHERE due_at IS NOT NULL;
";

/// Version 2: leases of workers outside, and paused types.
const OUTSIDE_AND_PAUSES: &str = "
ALTER TABLE task ADD COLUMN worker TEXT;            -- who holds the lease, when that is a worker outside
ALTER TABLE task ADD COLUMN heard_at INTEGER;       -- when the lease was last renewed
CREATE INDEX task_outside ON task(worker) WHERE worker IS NOT NULL;

CREATE TABLE lease_nonce (                  -- what calls of workers outside took, to be told again
    nonce TEXT PRIMARY KEY,
    taken TEXT NOT NULL,                    -- [[seq, token], ...]
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_nonce_expiry ON lease_nonce(expires_at);

CREATE TABLE paused_type (
    name TEXT PRIMARY KEY,
    paused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 3: what has happened to tasks (`domain::event::Changes`).
const CHANGES: &str = "
ALTER TABLE task ADD COLUMN revision INTEGER NOT NULL DEFAULT 1; -- how often it has changed visibly
ALTER TABLE task ADD COLUMN trail TEXT;             -- the newest changes
";

/// Version 5: who is told of a task's end, and what that is signed with.
const CALLBACKS: &str = "
ALTER TABLE task ADD COLUMN callbacks TEXT;         -- [{url, terms}, ...]

CREATE TABLE webhook_secret (
    user TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    set_at INTEGER NOT NULL,
    previous TEXT,                          -- none: the one of the installation
    previous_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 7: users take turns, and what makes tasks wait. A user's tasks of a type stand in line by when they were
/// ready and how important they are.
const TURNS: &str = "
ALTER TABLE task ADD COLUMN slot TEXT;              -- concurrency key: of those with the same one runs at a time
ALTER TABLE task ADD COLUMN aside INTEGER NOT NULL DEFAULT 0; -- 1 while it is queued and waits for its slot
ALTER TABLE task ADD COLUMN ageing INTEGER NOT NULL DEFAULT 60000; -- what a level of priority is worth
DROP INDEX task_queue;
CREATE INDEX task_line ON task(type, user, (ready_at + priority * ageing), seq) WHERE state = 1 AND aside = 0;
CREATE INDEX task_aside ON task(type, user, slot, (ready_at + priority * ageing), seq) WHERE state = 1 AND aside = 1;
CREATE INDEX task_held ON task(type, user, slot) WHERE held = 1;

CREATE TABLE turn (                         -- users of a type who have something in line
    type TEXT NOT NULL,
    user TEXT NOT NULL,
    at INTEGER,                             -- the number of the turn; none for who is passed over
    until INTEGER,                          -- then: until when, or until an attempt of the user ends
    PRIMARY KEY (type, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX turn_at ON turn(type, at) WHERE at IS NOT NULL;
CREATE INDEX turn_until ON turn(until) WHERE until IS NOT NULL;
INSERT INTO turn (type, user, at) SELECT type, user, min(seq) FROM task WHERE state = 1 GROUP BY type, user;

CREATE TABLE type_turn (
    type TEXT PRIMARY KEY,
    served INTEGER NOT NULL DEFAULT 0,      -- greatest for the type that was served last
    until INTEGER                           -- when its rate allows the next start, for who waits for it
) STRICT, WITHOUT ROWID;

CREATE TABLE start (                        -- starts of attempts, as long as a rate counts them
    type TEXT NOT NULL,
    user TEXT NOT NULL,
    at INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;
CREATE INDEX start_of_user ON start(type, user, at);
CREATE INDEX start_of_type ON start(type, at);
CREATE INDEX start_until ON start(until);
";

/// All times are milliseconds since the epoch. States are those of `domain::task::State` in order, and
/// 7 for a tombstone: a task that is gone, but still answers 410. The columns `…hash` hold 64 bits of
/// something longer that is compared in full: small entries keep the indexes in random order small.
const TABLES: &str = "
CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    id_hash INTEGER NOT NULL,
    user TEXT NOT NULL,
    type TEXT NOT NULL,
    state INTEGER NOT NULL,
    fingerprint BLOB,
    fingerprint_hash INTEGER,
    claim INTEGER NOT NULL DEFAULT 0,       -- of the tasks with one fingerprint, the greatest answers for it
    resubmissions INTEGER NOT NULL DEFAULT 0, -- new tasks since the fingerprint's first failure
    first_failed_at INTEGER,
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    token INTEGER NOT NULL DEFAULT 0,       -- grows with every lease
    held INTEGER NOT NULL DEFAULT 0,        -- 1 while an attempt may be running, cancelled or not
    created_at INTEGER NOT NULL,
    ready_at INTEGER,                       -- since when it could run: its place in the queue
    started_at INTEGER,
    finished_at INTEGER,
    due_at INTEGER,                         -- start, end of lease, or expiry: what comes next
    dedup_expires_at INTEGER,
    result_until INTEGER,
    kept_until INTEGER,
    duplicates INTEGER NOT NULL DEFAULT 0,
    result_kind INTEGER NOT NULL DEFAULT 0, -- 0 none, 1 in result, 2 in the blob named by result, 3 expired
    progress TEXT,
    error TEXT,
    submission TEXT NOT NULL,
    result TEXT
) STRICT;
CREATE INDEX task_by_id ON task(id_hash);
CREATE INDEX task_by_fingerprint ON task(fingerprint_hash, claim) WHERE fingerprint_hash IS NOT NULL;
CREATE INDEX task_by_state ON task(user, state, seq) WHERE state < 7;
CREATE INDEX task_by_type ON task(user, type, seq) WHERE state < 7;
CREATE INDEX task_queue ON task(type, priority, ready_at, seq) WHERE state = 1;
CREATE INDEX task_due ON task(due_at) WHERE (held = 1 OR finished_at IS NULL) AND due_at IS NOT NULL;
CREATE INDEX task_expiry ON task(due_at) WHERE held = 0 AND finished_at IS NOT NULL;

CREATE TABLE key (
    hash INTEGER NOT NULL,                  -- of user and key
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    task INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    rule TEXT NOT NULL,                     -- how that fingerprint was made
    fields TEXT NOT NULL,                   -- a short hash of each field
    bound_at INTEGER NOT NULL,
    expires_at INTEGER,                     -- none while the task is unfinished
    forgotten INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX key_by_hash ON key(hash);
CREATE INDEX key_by_task ON key(task);
CREATE INDEX key_expiry ON key(expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE tag (
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    task INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (user, name, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (                      -- the newest suppressed duplicates of a task
    task INTEGER NOT NULL,
    n INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (task, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE file (
    user TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    generation TEXT NOT NULL,
    size INTEGER NOT NULL,
    name TEXT,
    media_type TEXT,
    refs INTEGER NOT NULL,                 -- tasks that may still read it
    expires_at INTEGER,                    -- none while there are refs
    PRIMARY KEY (user, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_expiry ON file(expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE blob (                        -- stored copies that some record names
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    user TEXT NOT NULL,
    scopes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE gauge (                       -- tasks by state; user '' is everyone
    user TEXT NOT NULL,
    type TEXT NOT NULL,
    state INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (user, type, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (                       -- what happened, by span of time; user '' is everyone
    user TEXT NOT NULL,
    span INTEGER NOT NULL,                 -- length of the bucket in ms; 0: since ever
    at INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    duplicates_by_key INTEGER NOT NULL,
    duplicates_by_fingerprint INTEGER NOT NULL,
    cache_hits INTEGER NOT NULL,
    key_reused INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    retry_successes INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    leases_lost INTEGER NOT NULL,
    writes_fenced INTEGER NOT NULL,
    saved_executions INTEGER NOT NULL,
    saved_ms INTEGER NOT NULL,
    saved_bytes_not_sent INTEGER NOT NULL,
    saved_bytes_not_stored INTEGER NOT NULL,
    PRIMARY KEY (user, span, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX tally_age ON tally(span, at);

CREATE TABLE latency (                     -- histograms, by the hour; user '' is everyone
    user TEXT NOT NULL,
    at INTEGER NOT NULL,
    metric INTEGER NOT NULL,               -- 0 submit, 1 queue wait, 2 run
    bucket INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (user, at, metric, bucket)
) STRICT, WITHOUT ROWID;
CREATE INDEX latency_age ON latency(at);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_older_release_is_brought_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!(
            "{TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; \
             INSERT INTO api_key VALUES ('kept', x'00', 'u', 1, 0, NULL, NULL);"
        ))
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let conn = open_writer(Some(&path)).unwrap();
            let count = |text: &str| conn.query_row(text, [], |row| row.get::<_, i64>(0));
            assert_eq!(count("SELECT count(*) FROM api_key"), Ok(1));
            assert_eq!(count("SELECT count(worker) FROM task"), Ok(0));
            assert_eq!(count("PRAGMA user_version"), Ok(VERSION.into()));
        }
        let newer = Connection::open(&path).unwrap();
        newer
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        drop(newer);
        assert!(matches!(
            open_writer(Some(&path)),
            Err(OpenError::Newer(_, _))
        ));
    }
}
