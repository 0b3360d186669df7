//! The right to run a task: taken, renewed, used up, handed back.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::completion::Completion;
use super::keys::{self, Keys, Partition};
use super::record::{Record, StoredBlob, span_ms, to_json};
use super::reply::{Reply, senseless};
use super::scripts::{COMPLETE, EXTEND, FAIL, LEASE, RELEASE, Script};
use super::step::{Step, Steps, unavailable};
use crate::domain::task::{Progress, State, Task, TaskError};
use crate::domain::timestamp::Timestamp;
use crate::store::{Extension, Fenced, Held, Holder, Lease, LeaseRequest, StoreError, TaskResult};

/// Leases that one step takes, at most.
pub const LEASES_MAX: usize = 100;

/// Of one call: a step that is taken again under it gives what it gave before.
pub struct Nonce {
    text: String,
    /// Whether the call itself may be repeated under it.
    is_of_caller: bool,
}

impl Nonce {
    /// Those of workers outside begin as moves.lua says.
    pub fn of(holder: &Holder) -> Self {
        let random = uuid::Uuid::new_v4().simple();
        let (text, is_of_caller) = match holder {
            Holder::Inside => (random.to_string(), false),
            Holder::Outside { nonce: None, .. } => (format!("o{random}"), false),
            Holder::Outside {
                nonce: Some(nonce), ..
            } => (format!("o-{nonce}"), true),
        };
        Nonce { text, is_of_caller }
    }
}

/// What an earlier call under this nonce took and still holds; none when there was no such call.
pub async fn earlier(
    steps: &Steps,
    keys: &Keys,
    request: &LeaseRequest,
    nonce: &Nonce,
) -> Result<Option<Vec<Lease>>, StoreError> {
    if !nonce.is_of_caller {
        return Ok(None);
    }
    let all: Vec<Partition> = keys.partitions().collect();
    let at_a_time = match steps.link().is_one_server() {
        true => all.len(),
        false => 1,
    };
    let looks = all.chunks(at_a_time).map(async |some| {
        let names = some
            .iter()
            .map(|&p| keys::leased(keys.root(p), &nonce.text));
        let step = Step::command("MGET").arg(names.collect::<Vec<_>>());
        let mut found = steps.take(step).await?;
        let mut with_leases = Vec::new();
        for &partition in some {
            if found.text()?.is_some() {
                with_leases.push(partition);
            }
        }
        Ok(with_leases)
    });
    let found = try_join_all(looks).await?.concat();
    if found.is_empty() {
        return Ok(None);
    }
    let again = found.iter().map(|&partition| {
        let root = keys.root(partition);
        lease(steps, root, request, (nonce, 0), LEASES_MAX, |_| LEASES_MAX)
    });
    let again = try_join_all(again).await?;
    Ok(Some(
        again.into_iter().flat_map(|taken| taken.leases).collect(),
    ))
}

/// What one step has leased, and what it has left.
pub struct Taken {
    pub leases: Vec<Lease>,
    /// Whether there is more that could run.
    pub has_more: bool,
    /// Users who wait for their turn.
    pub users: u64,
}

impl Taken {
    /// The users whose tasks could run; none when there is nothing left.
    pub fn left(&self) -> Option<u64> {
        self.has_more.then_some(self.users)
    }
}

/// Up to `max` tasks, and of each type as many as there is `room` for. So many are `known` to have been leased there
/// before, under the same nonce.
pub async fn lease(
    steps: &Steps,
    root: &str,
    request: &LeaseRequest,
    (nonce, known): (&Nonce, usize),
    max: usize,
    room: impl Fn(&str) -> usize,
) -> Result<Taken, StoreError> {
    let worker = match &request.holder {
        Holder::Inside => "",
        Holder::Outside { worker, .. } => worker,
    };
    let mut step = Step::new(&LEASE, &[root])
        .arg(&nonce.text)
        .arg(max.min(LEASES_MAX))
        .arg(worker)
        .arg(known);
    for task_type in &request.types {
        let (lease, bounds) = (request.lease_of(task_type), request.bounds_of(task_type));
        let starts = bounds.rate_per_user;
        step = step
            .arg(task_type)
            .arg(span_ms(lease))
            .arg(room(task_type))
            .arg(or_nothing(bounds.per_user))
            .arg(or_nothing(starts.map(|rate| rate.attempts)))
            .arg(or_nothing(starts.map(|rate| span_ms(rate.span))));
    }
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "leased")?;
    put_aside(&reply.word()?);
    let (has_more, users) = (reply.word()? == "more", reply.number()?);
    let mut leases = Vec::new();
    while !reply.is_over() {
        let record = Record::read(reply.part()?)?;
        leases.push(Lease {
            token: record.token,
            expires_at: Timestamp::from_ms(reply.number()?),
            idempotency_key: record.key,
            task: record.task,
        });
    }
    Ok(Taken {
        leases,
        has_more,
        users,
    })
}

fn or_nothing(number: Option<impl ToString>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

pub async fn extend(
    steps: &Steps,
    root: &str,
    held: &Held,
    progress: Option<&Progress>,
) -> Result<Fenced<Extension>, StoreError> {
    let progress = progress.map(to_json).transpose()?;
    let step = by_holder(&EXTEND, root, held)
        .arg(span_ms(held.lease))
        .arg(progress.unwrap_or_default())
        .arg("");
    extension(&mut steps.take(step).await?)
}

pub async fn hand_over(
    steps: &Steps,
    root: &str,
    held: &Held,
    worker: &str,
) -> Result<Fenced<Extension>, StoreError> {
    let step = by_holder(&EXTEND, root, held)
        .arg(span_ms(held.lease))
        .arg("")
        .arg(worker);
    extension(&mut steps.take(step).await?)
}

fn extension(reply: &mut Reply) -> Result<Fenced<Extension>, StoreError> {
    fenced(reply, |reply| {
        Ok(Extension {
            expires_at: Timestamp::from_ms(reply.number()?),
            cancel_requested: reply.word()? == State::Cancelled.name(),
        })
    })
}

/// Each by itself; the answers are in the same order.
pub async fn complete(
    steps: &Steps,
    root: &str,
    ended: &[Completion],
) -> Result<Vec<Result<Fenced<Task>, StoreError>>, StoreError> {
    let mut step = Step::new(&COMPLETE, &[root]);
    for Completion { held, result } in ended {
        step = about(step, held);
        step = match result {
            TaskResult::Inline(raw) => step.arg("inline").arg(raw.get()).arg(""),
            TaskResult::Blob { name, size } => {
                let stored = StoredBlob {
                    name: name.clone(),
                    size: *size,
                };
                step.arg("blob")
                    .arg(to_json(&stored)?)
                    .arg(name.to_string())
            }
        };
    }
    let mut replies = steps.take(step).await?;
    let parts = ended.iter().map(|_| replies.part());
    parts.map(|part| Ok(fenced(&mut part?, task))).collect()
}

pub async fn fail(
    steps: &Steps,
    root: &str,
    held: &Held,
    error: &TaskError,
    retry_in: Option<Duration>,
) -> Result<Fenced<Task>, StoreError> {
    let retry_in = retry_in.filter(|_| !error.permanent);
    let retry_in = retry_in.map(|delay| span_ms(delay).to_string());
    let step = by_holder(&FAIL, root, held)
        .arg(to_json(error)?)
        .arg(retry_in.unwrap_or_default());
    fenced(&mut steps.take(step).await?, task)
}

pub async fn release(steps: &Steps, root: &str, held: &Held) -> Result<Fenced<()>, StoreError> {
    let step = by_holder(&RELEASE, root, held);
    fenced(&mut steps.take(step).await?, |_| Ok(()))
}

fn by_holder(script: &'static Script, root: &str, held: &Held) -> Step {
    about(Step::new(script, &[root]), held)
}

fn about(step: Step, held: &Held) -> Step {
    step.arg(held.task.as_str())
        .arg(held.user.as_str())
        .arg(held.token.0)
}

fn fenced<T>(
    reply: &mut Reply,
    recorded: impl FnOnce(&mut Reply) -> Result<T, StoreError>,
) -> Result<Fenced<T>, StoreError> {
    match reply.word()?.as_str() {
        "recorded" => recorded(reply).map(Fenced::Recorded),
        "lost" => Ok(Fenced::Lost),
        "broken" => Err(unavailable(&format!("a record: {}", reply.word()?))),
        _ => Err(senseless()),
    }
}

fn task(reply: &mut Reply) -> Result<Task, StoreError> {
    Ok(Record::read(reply.part()?)?.task)
}

/// Says which tasks are out of the way of the others.
pub fn put_aside(ids: &str) {
    if !ids.is_empty() {
        tracing::error!(
            ids,
            "records of tasks are gone or cannot be read: they are not run"
        );
    }
}

pub fn expect(reply: &mut Reply, word: &str) -> Result<(), StoreError> {
    if reply.word()? == word {
        Ok(())
    } else {
        Err(senseless())
    }
}
