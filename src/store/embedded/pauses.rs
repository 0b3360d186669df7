//! Types whose tasks are not leased.

use std::collections::BTreeSet;

use rusqlite::params;

use super::step::{Sql, Step};

pub fn pause(step: &Step<'_>, task_type: &str) -> rusqlite::Result<()> {
    step.sql.execute(
        "INSERT OR IGNORE INTO paused_type VALUES (?1, ?2)",
        params![task_type, step.now.as_ms()],
    )?;
    Ok(())
}

pub fn resume(step: &mut Step<'_>, task_type: &str) -> rusqlite::Result<()> {
    step.sql
        .execute("DELETE FROM paused_type WHERE name = ?1", [task_type])?;
    step.effects.work = true;
    Ok(())
}

pub fn all(sql: &Sql<'_>) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = sql.prepare_cached("SELECT name FROM paused_type")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}
