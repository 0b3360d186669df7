//! The changes of a task that those who follow it are told of (`domain::event`).

use rusqlite::params;

use super::step::Step;
use crate::domain::event::{PROGRESS_MARK, TRAIL_BYTES_MAX};
use crate::domain::task::{State, TaskId};

/// Notes that the task has come to this state, as its row shows it, and tells of it.
pub fn moved(step: &mut Step<'_>, seq: i64, id: &TaskId, state: State) -> rusqlite::Result<()> {
    note(step, seq, "", state)?;
    step.changed(id);
    Ok(())
}

/// Notes that an attempt has come further, and tells of it.
pub fn progressed(step: &mut Step<'_>, seq: i64, id: &TaskId) -> rusqlite::Result<()> {
    note(step, seq, PROGRESS_MARK, State::Running)?;
    step.changed(id);
    Ok(())
}

fn note(step: &Step<'_>, seq: i64, mark: &str, state: State) -> rusqlite::Result<()> {
    step.sql.execute(
        &format!(
            "UPDATE task SET revision = revision + 1, trail = substr(ifnull(trail, '') || char(10) || ?2 \
             || char(9) || attempt || char(9) || (?3 - created_at) || char(9) || ifnull(started_at - created_at, '') \
             || char(9) || iif(state = {retrying}, ifnull(due_at - created_at, ''), '') \
             || char(9) || ifnull(progress, '') || char(9) || ifnull(error, ''), -{TRAIL_BYTES_MAX}) WHERE seq = ?1",
            retrying = State::Retrying as i64
        ),
        params![seq, format!("{mark}{}", state.name()), step.now.as_ms()],
    )?;
    Ok(())
}
