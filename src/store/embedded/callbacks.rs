//! Who is told of a task's end: each callback by a task of its own, made in the step that ends the task.

use std::time::Duration;

use rusqlite::params;
use serde_json::value::to_raw_value;

use super::create::insert;
use super::record::Record;
use super::step::Step;
use super::turns;
use crate::domain::callback::{Callback, Delivery, End, Joining, delivery_id};
use crate::domain::standing::Failures;
use crate::domain::task::{FencingToken, State, Task};

/// What the column of a task holds.
pub fn column(callbacks: &[Callback]) -> rusqlite::Result<Option<String>> {
    if callbacks.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(callbacks)
        .map(Some)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

/// Tells the callbacks of the task as it was before of the end that has just been recorded.
pub fn tell_end(step: &mut Step<'_>, before: &Record) -> rusqlite::Result<()> {
    let ended = Record::by_seq(&step.sql, before.seq)?;
    let ended = ended.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    for callback in &before.callbacks {
        deliver(step, &ended, callback)?;
    }
    Ok(())
}

/// Adds the callback of a duplicate, which is told at once where the task has ended. Whether there was room.
pub fn join(
    step: &mut Step<'_>,
    record: &mut Record,
    callback: &Callback,
) -> rusqlite::Result<bool> {
    match Joining::of(&callback.url, &record.callbacks) {
        Joining::Known => return Ok(true),
        Joining::Full => return Ok(false),
        Joining::Joins => record.callbacks.push(callback.clone()),
    }
    step.sql.execute(
        "UPDATE task SET callbacks = ?2 WHERE seq = ?1",
        params![record.seq, column(&record.callbacks)?],
    )?;
    if record.task.state.is_ended() {
        deliver(step, record, callback)?;
    }
    Ok(true)
}

/// However full the queue is: what is acknowledged is told.
fn deliver(step: &mut Step<'_>, ended: &Record, callback: &Callback) -> rusqlite::Result<()> {
    let Some(end) = End::of(&ended.task) else {
        return Ok(());
    };
    let record = insert(step, delivery(step, ended, end, callback)?)?;
    let task = &record.task;
    step.moved(&task.user, &task.task_type, None, Some(task.state));
    step.changed(&task.id);
    turns::queued(step, &task.task_type, task.user.as_str())
}

fn delivery(
    step: &Step<'_>,
    ended: &Record,
    end: End,
    callback: &Callback,
) -> rusqlite::Result<Record> {
    let Callback { url, terms } = callback;
    let (ageing, ended) = (ended.ageing, &ended.task);
    let id = delivery_id(&ended.id, ended.changes.count(), end.finished_at(), url);
    let delivery = Delivery {
        url: url.clone(),
        task_id: ended.id.to_string(),
        end,
    };
    let params =
        to_raw_value(&delivery).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let task = Task {
        id,
        task_type: Callback::TASK_TYPE.to_owned(),
        state: State::Queued,
        user: ended.user.clone(),
        fingerprint: None,
        params: params.into(),
        files: Vec::new(),
        priority: terms.priority,
        tags: [(Callback::TAG.to_owned(), ended.id.to_string())].into(),
        attempt: 0,
        max_attempts: terms.max_attempts,
        progress: None,
        created_at: step.now,
        scheduled_at: None,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        dedup_expires_at: None,
        outcome: None,
        error: None,
        duplicates: 0,
        superseded_by: None,
        throttles_until: None,
        changes: Default::default(),
    };
    Ok(Record {
        seq: 0,
        task,
        token: FencingToken(0),
        held: false,
        tombstone: false,
        ready_at: Some(step.now),
        due_at: None,
        result_until: None,
        kept_until: None,
        window: Duration::ZERO,
        budget: terms.max_attempts,
        retention: terms.retention,
        key: None,
        claim: 0,
        failures: Failures::default(),
        callbacks: Vec::new(),
        matching: None,
        chained_at: None,
        behind: false,
        keyless: false,
        slot: None,
        ageing,
    })
}
