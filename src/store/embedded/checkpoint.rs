//! Moves the write-ahead log into the database. SQLite's own checkpoints keep their errors to themselves,
//! and an fsync that failed unseen could lose what is acknowledged later; so the writing thread does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::Connection;

/// Pages of log after which it is copied as far as no reader needs it: 32 MiB.
const COPY_PAGES: i32 = 16_384;
/// Pages of log after which it is also cut off, as soon as no reader is in it: 256 MiB.
const CUT_OFF_PAGES: i32 = 131_072;

pub struct Checkpoints {
    /// What the log holds since it last began anew, as of the last commit.
    pages: Arc<AtomicI32>,
    /// What it held at the last checkpoint.
    copied_at: i32,
}

impl Checkpoints {
    pub fn of(conn: &mut Connection) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let counted = pages.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Checkpoints {
            pages,
            copied_at: 0,
        })
    }

    /// To be called after each commit.
    pub fn after_commit(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.copied_at {
            // The log has begun anew, since all of it was copied.
            self.copied_at = 0;
        }
        if pages - self.copied_at < COPY_PAGES {
            return Ok(());
        }
        self.copied_at = pages;
        let mode = if pages >= CUT_OFF_PAGES {
            "TRUNCATE"
        } else {
            "PASSIVE"
        };
        let copied: i64 = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            row.get(2)
        })?;
        tracing::debug!(mode, pages, copied, "checkpoint");
        Ok(())
    }
}
