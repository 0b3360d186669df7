//! The workers outside, by the leases that they hold.

use super::step::Sql;
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::domain::worker::{OutsideLease, OutsideWorkers, Worker};

pub fn workers(sql: &Sql<'_>) -> rusqlite::Result<Vec<Worker>> {
    let mut statement = sql.prepare_cached(
        "SELECT worker, type, id, started_at, heard_at FROM task WHERE worker IS NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut workers = OutsideWorkers::default();
    while let Some(row) = rows.next()? {
        let Some(task) = TaskId::parse(row.get_ref(2)?.as_str()?) else {
            continue;
        };
        workers.add(OutsideLease {
            worker: row.get(0)?,
            task_type: row.get(1)?,
            task,
            leased_at: Timestamp::from_ms(row.get(3)?),
            heard_at: Timestamp::from_ms(row.get(4)?),
        });
    }
    Ok(workers.into_workers().collect())
}
