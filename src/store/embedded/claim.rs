//! Which task answers for a fingerprint.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::record::Record;
use super::step::{Sql, Step};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::principal::UserId;
use crate::domain::standing::{Failures, Standing};
use crate::domain::timestamp::Timestamp;

pub struct Claim {
    pub seq: i64,
    pub failures: Failures,
}

impl Claim {
    pub fn find(
        sql: &Sql<'_>,
        user: &UserId,
        fingerprint: &Fingerprint,
    ) -> rusqlite::Result<Option<Claim>> {
        sql.prepare_cached(
            "SELECT task, resubmissions, first_failed_at FROM claim WHERE user = ?1 AND fingerprint = ?2",
        )?
        .query_row(params![user.as_str(), fingerprint.digest().as_bytes()], |row| {
            let first_failed_at = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_ms);
            Ok(Claim { seq: row.get(0)?, failures: Failures { resubmissions: row.get(1)?, first_failed_at } })
        })
        .optional()
    }

    /// What the claim means now, with the task that holds it. A claim whose task is gone means nothing.
    pub fn standing(
        &self,
        sql: &Sql<'_>,
        window: Duration,
        max_resubmissions: u32,
        now: Timestamp,
    ) -> rusqlite::Result<(Standing, Option<Record>)> {
        let Some(record) = Record::by_seq(sql, self.seq)?.filter(|record| !record.tombstone) else {
            return Ok((Standing::Free, None));
        };
        let standing = Standing::of(
            &record.task,
            record.held,
            self.failures,
            window,
            max_resubmissions,
            now,
        );
        Ok((standing, Some(record)))
    }

    pub fn write(
        step: &Step<'_>,
        user: &UserId,
        fingerprint: &Fingerprint,
        seq: i64,
        failures: Failures,
    ) -> rusqlite::Result<()> {
        step.sql.execute(
            "INSERT OR REPLACE INTO claim VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                user.as_str(),
                fingerprint.digest().as_bytes(),
                seq,
                failures.resubmissions,
                failures.first_failed_at.map(Timestamp::as_ms)
            ],
        )?;
        Ok(())
    }

    /// Starts the window of failures, if the task holds the claim and it has not begun.
    pub fn record_failure(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        let Some(fingerprint) = &record.task.fingerprint else {
            return Ok(());
        };
        step.sql.execute(
            "UPDATE claim SET first_failed_at = ifnull(first_failed_at, ?4) \
             WHERE user = ?1 AND fingerprint = ?2 AND task = ?3",
            params![
                record.task.user.as_str(),
                fingerprint.digest().as_bytes(),
                record.seq,
                step.now.as_ms()
            ],
        )?;
        Ok(())
    }

    /// Success ends the count of failures.
    pub fn record_success(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        if record.task.fingerprint.is_none() {
            return Ok(());
        }
        step.sql.execute(
            "UPDATE claim SET first_failed_at = NULL, resubmissions = 0 \
             WHERE user = ?1 AND fingerprint = ?2 AND task = ?3 AND first_failed_at IS NOT NULL",
            params![
                record.task.user.as_str(),
                record.task.fingerprint.map(|f| *f.digest().as_bytes()),
                record.seq
            ],
        )?;
        Ok(())
    }

    /// Gives the claim up, if the task still holds it.
    pub fn release(step: &Step<'_>, record: &Record) -> rusqlite::Result<()> {
        let Some(fingerprint) = &record.task.fingerprint else {
            return Ok(());
        };
        step.sql.execute(
            "DELETE FROM claim WHERE user = ?1 AND fingerprint = ?2 AND task = ?3",
            params![
                record.task.user.as_str(),
                fingerprint.digest().as_bytes(),
                record.seq
            ],
        )?;
        Ok(())
    }
}
