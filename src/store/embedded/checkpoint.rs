//! Moves the write-ahead log into the database. SQLite's own checkpoints keep their errors to themselves,
//! and an fsync that failed unseen could lose what is acknowledged later; so the writing thread does it.

use std::path::PathBuf;

use rusqlite::Connection;

/// Bytes of log after which it is copied as far as no reader needs it.
const COPY_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of log after which readers are waited for, so that it begins anew.
const RESTART_BYTES: u64 = 256 * 1024 * 1024;
/// Transactions between two looks at the log.
const LOOK_EVERY: u32 = 16;

pub struct Checkpoints {
    /// None in memory, where there is no log.
    log: Option<PathBuf>,
    transactions: u32,
}

impl Checkpoints {
    pub fn of(database: Option<PathBuf>) -> Self {
        let log = database.map(|path| {
            let mut log = path.into_os_string();
            log.push("-wal");
            PathBuf::from(log)
        });
        Checkpoints {
            log,
            transactions: 0,
        }
    }

    /// To be called after each commit.
    pub fn after_commit(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.transactions += 1;
        let Some(log) = self
            .log
            .as_ref()
            .filter(|_| self.transactions >= LOOK_EVERY)
        else {
            return Ok(());
        };
        self.transactions = 0;
        let bytes = std::fs::metadata(log).map_or(0, |file| file.len());
        if bytes < COPY_BYTES {
            return Ok(());
        }
        let mode = if bytes >= RESTART_BYTES {
            "TRUNCATE"
        } else {
            "PASSIVE"
        };
        let (pages, copied): (i64, i64) =
            conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
                Ok((row.get(1)?, row.get(2)?))
            })?;
        tracing::debug!(mode, bytes, pages, copied, "checkpoint");
        Ok(())
    }
}
