//! What people do with tasks: get, cancel, redrive, forget.

use super::record::Record;
use super::reply::{Reply, senseless};
use super::scripts::{CANCEL, FORGET, GET, REDRIVE, Script};
use super::step::{Step, Steps};
use crate::domain::file::BlobName;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::task::{Task, TaskId};
use crate::store::{
    Cancelled, Fenced, Forgotten, Found, Held, Missing, Redriven, StoreError, Withdrawn,
};

pub async fn get(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
) -> Result<Found<Task>, StoreError> {
    Ok(match find(steps, root, user, id).await? {
        Found::Here(record) => Found::Here(record.task),
        Found::Missing(why) => Found::Missing(why),
    })
}

/// The task of a lease that is still held.
pub async fn held(steps: &Steps, root: &str, held: &Held) -> Result<Fenced<Task>, StoreError> {
    match find(steps, root, &held.user, &held.task).await? {
        Found::Here(record) if record.held && record.token == held.token => {
            Ok(Fenced::Recorded(record.task))
        }
        Found::Here(_) | Found::Missing(_) => Ok(Fenced::Lost),
    }
}

async fn find(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
) -> Result<Found<Record>, StoreError> {
    let step = Step::new(&GET, &[root]).arg(user.as_str()).arg(id.as_str());
    let mut reply = steps.take(step).await?.part()?;
    match reply.word()?.as_str() {
        "found" => Ok(Found::Here(Record::read(reply.part()?)?)),
        word => missing(word).map(Found::Missing),
    }
}

pub async fn cancel(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
) -> Result<Cancelled, StoreError> {
    let step = by_owner(&CANCEL, root, user, id).arg("");
    let mut reply = steps.take(step).await?;
    let word = reply.word()?;
    cancelled(&word, reply)
}

/// One key's interest ends; the last one that goes cancels the task.
pub async fn withdraw(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
    key: &IdempotencyKey,
) -> Result<Withdrawn, StoreError> {
    let step = by_owner(&CANCEL, root, user, id).arg(key.as_str());
    let mut reply = steps.take(step).await?;
    match reply.word()?.as_str() {
        "wanted" => Ok(Withdrawn::Wanted(Box::new(
            Record::read(reply.part()?)?.task,
        ))),
        "key-unknown" => Ok(Withdrawn::KeyUnknown),
        word => cancelled(word, reply).map(Withdrawn::Cancelled),
    }
}

fn cancelled(word: &str, mut reply: Reply) -> Result<Cancelled, StoreError> {
    match word {
        "cancelled" => Ok(Cancelled::Done {
            task: Box::new(Record::read(reply.part()?)?.task),
            stopping: reply.word()? == "stopping",
        }),
        "ended" => Ok(Cancelled::Ended(Box::new(
            Record::read(reply.part()?)?.task,
        ))),
        word => missing(word).map(Cancelled::Unknown),
    }
}

pub async fn redrive(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
) -> Result<Redriven, StoreError> {
    let mut reply = steps.take(by_owner(&REDRIVE, root, user, id)).await?;
    match reply.word()?.as_str() {
        "done" => Ok(Redriven::Done(Box::new(Record::read(reply.part()?)?.task))),
        "blocked" => {
            let other = TaskId::parse(&reply.word()?).ok_or_else(senseless)?;
            Ok(Redriven::Blocked(other))
        }
        "succeeded" => Ok(Redriven::Succeeded(Box::new(
            Record::read(reply.part()?)?.task,
        ))),
        word => missing(word).map(Redriven::Unknown),
    }
}

/// A second time the task is gone already, and so is the name of its copy: so it is tried once.
pub async fn forget(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
) -> Result<Forgotten, StoreError> {
    let step = by_owner(&FORGET, root, user, id).never_repeated();
    let mut reply = steps.take(step).await?;
    match reply.word()?.as_str() {
        "forgotten-now" => Ok(Forgotten::Done {
            disowned: BlobName::parse(&reply.word()?),
        }),
        "unfinished" => Ok(Forgotten::Unfinished),
        word => missing(word).map(Forgotten::Unknown),
    }
}

fn by_owner(script: &'static Script, root: &str, user: &UserId, id: &TaskId) -> Step {
    Step::new(script, &[root])
        .arg(id.as_str())
        .arg(user.as_str())
}

fn missing(word: &str) -> Result<Missing, StoreError> {
    match word {
        "unknown" => Ok(Missing::Unknown),
        "forgotten" => Ok(Missing::Forgotten),
        _ => Err(senseless()),
    }
}
